"""Sensors."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from airflow.triggers.base import StartTriggerArgs

from airflow_provider_imageversions import decide, deferral, without_worker
from airflow_provider_imageversions._parameters import SECONDS_MAX, invalid_parameter, parse_boolean
from airflow_provider_imageversions._sessions import Fail, Raise, Succeed
from airflow_provider_imageversions._task import Flag, ImageTask, is_deferrable
from airflow_provider_imageversions._worker import WorkerPoller
from airflow_provider_imageversions.compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    delete_xcom,
    is_trigger_timeout,
    waits_since,
)
from airflow_provider_imageversions.errors import ImageVersionFailedError
from airflow_provider_imageversions.hooks import (
    AWS_PARAMETERS,
    SageMakerImageVersionsHook,
    aws_parameters,
    resolved_aws_parameters,
)
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.model import WAIT_PARAMETERS, Wait, describe_error
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger
from airflow_provider_imageversions.without_worker import StartTriggerArguments, Unless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_imageversions._sessions import WaitSession
    from airflow_provider_imageversions.model import ImageVersion


class SageMakerImageVersionSensor(ImageTask, BaseSensorOperator):
    """
    Wait until a version of an Amazon SageMaker image is CREATED.

    Without ``version``, ``alias``, ``after_version`` and ``created_after``, the sensor waits for the image's latest
    version: the one with the highest number that is not being deleted. If the image does not exist yet, the sensor
    waits for it, and logs a warning unless it waits for an ``alias``. It also waits during throttling and outages. If a
    version that was CREATING is deleted, the sensor fails. In reschedule mode, where each check is a separate process,
    it times out instead, unless a later version is CREATED.

    Airflow's parameters ``poke_interval`` (default: 60 seconds), ``timeout`` (default: ``[sensors] default_timeout``,
    which is 7 days), ``soft_fail``, ``never_fail``, ``silent_fail`` and ``retries`` have the same meaning in poke,
    reschedule and deferrable mode, except that Airflow lets ``timeout`` span all retries in reschedule mode.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param version: Wait for the version with this number, 0 or more. It cannot be combined with the next three
        parameters. (default: none) (templated)
    :param alias: Wait until the version that has this alias is CREATED. (default: none) (templated)
    :param after_version: Wait for any version with a higher number than this one. If several are CREATED, the highest
        is returned. (default: none) (templated)
    :param created_after: Wait for any version created at or after this time; an aware datetime, or an ISO-8601 string
        with an offset. (default: none) (templated)
    :param include_details: Add ``ContainerImage``, ``BaseImage``, ``Aliases``, ``MLFramework`` and the other fields of
        DescribeImageVersion and ListAliases to the record, with two more API calls at the end. (default: False)
        (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param deferrable: Wait in the triggerer, without a worker, where all waits for the same image share one API call
        per interval. (default: ``[operators] default_deferrable``, or True with ``start_from_trigger`` or
        ``end_from_trigger``)
    :param start_from_trigger: Start in the triggerer, without a worker until the version is CREATED. Requires Airflow
        3.3. For tasks that need a worker, such as mapped tasks and tasks with XComArgs, most templates, a pool or an
        ``execution_timeout``, a worker defers the task instead, and a warning says why (for mapped tasks, only in
        the scheduler's log). (default: False)
    :param end_from_trigger: Also end in the triggerer when the version is CREATED. Requires Airflow 3.3. Failures and
        timeouts are always handled by a worker. For tasks that need a worker, such as tasks with outlets or callbacks,
        or with another task mapped over their result, a worker completes the task instead, and a warning says why.
        Airflow's listeners are not called. (default: False)
    :raises ImageVersionFailedError: The version is CREATE_FAILED, or can no longer become CREATED for another reason.
        The task is not retried. With ``soft_fail`` or ``never_fail`` it is skipped.
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises botocore.exceptions.ClientError: An error such as access denied, which fails the task even with
        ``soft_fail``.
    :raises SageMakerImageVersionPollingError: The same while the task is deferred.
    :raises airflow.exceptions.AirflowSensorTimeout: The version did not become CREATED within ``timeout``.
    :raises airflow.exceptions.AirflowTaskTimeout: The version did not become CREATED within ``execution_timeout``,
        which includes the time while the task is deferred.
    :return: The version's record, see :class:`~airflow_provider_imageversions.model.ImageVersion`.
    :rtype: ImageVersion

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
    """

    _READS: ClassVar[bool] = True
    _parameters = Wait
    template_fields: Sequence[str] = (*WAIT_PARAMETERS, *AWS_PARAMETERS)
    created_after: datetime | str | None
    # A client has locks, which cannot be copied.
    shallow_copy_attrs: Sequence[str] = ("_poller", "_session")
    start_from_trigger: Any = Unless("obstacles_to_start")
    start_trigger_args: Any = StartTriggerArguments()
    end_from_trigger: Any = Unless("obstacles_to_end")
    deferrable = Flag()
    soft_fail: Any = Flag()
    never_fail: Any = Flag()
    silent_fail: Any = Flag()
    exponential_backoff: Any = Flag()
    _poller: WorkerPoller | None = None
    _session: WaitSession | None = None
    _logged_until: datetime | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("start_from_trigger", "end_from_trigger"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{name}: a class attribute would not be checked for what prevents it. Pass "
                    f"{name}=True when the task is created, or from the subclass's __init__()."
                )

    def __init__(
        self,
        *,
        image_name: str,
        version: int | str | None = None,
        alias: str | None = None,
        after_version: int | str | None = None,
        created_after: datetime | str | None = None,
        include_details: bool | str = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._set_parameters(locals())
        self._set_aws_parameters(locals())
        start_from_trigger = parse_boolean("start_from_trigger", start_from_trigger)
        end_from_trigger = parse_boolean("end_from_trigger", end_from_trigger)
        needs_triggerer = start_from_trigger or end_from_trigger
        self.deferrable = is_deferrable(True if needs_triggerer and deferrable is None else deferrable)
        if needs_triggerer and not self.deferrable:
            raise ValueError("deferrable=False: start_from_trigger and end_from_trigger need deferrable=True.")
        self._began = datetime.now(timezone.utc)
        self._warned: set[str] = set()
        self.start_from_trigger = start_from_trigger
        self.end_from_trigger = end_from_trigger
        # Called once, to warn when the DAG is parsed.
        if self.start_trigger_args is None and end_from_trigger:
            self.obstacles_to_end()

    def obstacles_to_start(self) -> list[str]:
        """Return why the task cannot start in the triggerer, and warn about each reason once."""
        found = without_worker.obstacles_to_start(self, self._own_template_fields)
        if not self.deferrable:
            found.append("deferrable is False")
        self._warn("start_from_trigger", "a worker defers the task instead", found)
        return found

    def obstacles_to_end(self) -> list[str]:
        """Return why the task cannot end in the triggerer, and warn about each reason once."""
        found = without_worker.obstacles_to_end(self)
        if not self.deferrable:
            found.append("deferrable is False")
        self._warn("end_from_trigger", "a worker completes the task instead", found)
        return found

    def _warn(self, name: str, instead: str, obstacles: list[str]) -> None:
        new = [obstacle for obstacle in obstacles if obstacle not in self._warned]
        self._warned.update(new)
        if new:
            warnings.warn(f"{name}=True of task {self.task_id!r}: {instead}, because {'; '.join(new)}.", stacklevel=4)

    def make_start_trigger_args(self) -> StartTriggerArgs:
        """Return the arguments with which Airflow starts the trigger without a worker."""
        return StartTriggerArgs(
            trigger_cls=f"{SageMakerImageVersionTrigger.__module__}.{SageMakerImageVersionTrigger.__qualname__}",
            next_method="execute_complete",
            trigger_kwargs=self._trigger_arguments(),
            timeout=timedelta(seconds=self._seconds("timeout")),
        )

    def execute(self, context: Any) -> Any:
        """Wait for the version."""
        # Check the rendered parameters, in every mode.
        target = self._wait().target
        # Airflow's poke and reschedule modes accept only what its constructor makes of a time span.
        self.timeout, self.poke_interval = self._seconds("timeout"), self._seconds("poke_interval")
        self.max_wait = None if self.max_wait is None else timedelta(seconds=self._seconds("max_wait"))
        now = datetime.now(timezone.utc)
        self._began = (waits_since(context) if self.reschedule else None) or now
        interval = timedelta(seconds=self.poke_interval)
        # Each poke in reschedule mode is a separate process. This shows what the previous one has logged, unless the
        # interval grows: then there are few polls, and each of them logs.
        is_later = not self.exponential_backoff and now - self._began > interval / 2
        self._logged_until = now - 1.5 * interval if is_later else None
        hook = self._hook()
        SageMakerImageLink.store(context, self, hook, self.image_name)
        own_checks = without_worker.overridden(self, ("poke",))
        if self.deferrable and own_checks:
            self.log.warning(
                "SageMaker image %r: waiting in a worker, because a trigger would not call %s. Set deferrable=False",
                self.image_name,
                own_checks[0],
            )
        elif self.deferrable:
            self.log.info("SageMaker image %r: waiting in the triggerer for %s", self.image_name, target)
            self._defer(deferral.deferral_limit(self, self.timeout), hook)
        with self._explained_skips():
            try:
                return super().execute(context)
            except AirflowSensorTimeout as error:
                # After a deferral, Airflow itself skips the task.
                if self.never_fail:
                    raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
                raise

    @contextmanager
    def _explained_skips(self) -> Iterator[None]:
        """Log the error that the task would have failed with, which Airflow does not."""
        try:
            yield
        except AirflowSkipException as skip:
            if skip.__cause__ is not None:
                self.log.warning("Skipping the task instead of failing it: %s", describe_error(skip.__cause__))
            raise

    def _defer(self, limit: float, hook: SageMakerImageVersionsHook) -> NoReturn:
        arguments = {**self._trigger_arguments(), **resolved_aws_parameters(self, hook)}
        if self.start_from_trigger:
            # The triggerer renders the arguments of such a task again, by the names of its template fields.
            rendered = {name: arguments.pop(name) for name in self._own_template_fields if name in arguments}
            arguments.update(image_name=self.image_name, rendered=rendered)
        self.defer(
            trigger=SageMakerImageVersionTrigger(**arguments),
            method_name="execute_complete",
            kwargs={"began": self._began.isoformat()},
            timeout=timedelta(seconds=limit),
        )

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002  # Airflow's signature
        """
        Check once whether the version is CREATED.

        :param context: The task's context.
        """
        wait = self._wait()
        if self._poller is None or self._session is None:
            left = self._seconds("timeout") - self._waited_seconds()
            interval = self._seconds("poke_interval")
            self._poller = WorkerPoller(self, wait.image_name, interval=interval, timeout=left)
            self._session = self._poller.session(
                wait.target,
                logged_until=self._logged_until,
                include_details=wait.include_details,
                silent_fail=self.silent_fail,
            )
        match self._poller.check(self._session):
            case Succeed(decide.Ready(version)):
                self._report_success(version)
                return PokeReturnValue(is_done=True, xcom_value=version)
            case Fail(reason):
                self._fail(reason)
            case Raise(error):
                raise error
        return PokeReturnValue(is_done=False)

    def execute_complete(
        self, context: Any, event: dict[str, Any] | None = None, began: str | None = None
    ) -> ImageVersion:
        """
        Resume after the deferral.

        :param context: The task's context.
        :param event: The trigger's payload.
        :param began: Start of the wait, as an ISO-8601 string.
        :raises airflow.exceptions.TaskDeferred: The task's templates rendered to different values in the triggerer, so
            the trigger waited for another version. The task waits for the right one.
        """
        if began is None:
            # No worker has run yet.
            self._began = getattr(context["ti"], "start_date", None) or self._began
            self._check_what_was_waited_for(event)
        else:
            self._began = datetime.fromisoformat(began)
        result = deferral.read_event(event)
        if isinstance(result, decide.Failed):
            self._fail(result.reason)
        self._report_success(result)
        return result

    def _check_what_was_waited_for(self, event: Any) -> None:
        wait = self._wait()
        asked_for = deferral.describe_wait(wait, self)
        if not isinstance(event, dict) or "waited_for" not in event or event["waited_for"] == asked_for:
            return
        self.log.warning(
            "SageMaker image %r: the triggerer rendered the task's templates to %s, but a worker to %s; waiting for %s",
            self.image_name,
            event["waited_for"],
            asked_for,
            wait.target,
        )
        limit = deferral.deferral_limit(self, self._seconds("timeout"))
        self._defer(max(limit - self._waited_seconds(), 0.0), self._hook())

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Resume after the deferral, or after it timed out."""
        if self.start_from_trigger and context["ti"].try_number > 1:
            # Airflow deletes the XComs of an earlier try when a worker starts the task, but not when a trigger does.
            delete_xcom(context["ti"], "return_value")
        if is_trigger_timeout(next_method, next_kwargs):
            next_method, next_kwargs = "last_check", {}
        # As in execute(), which did not run if the task started in the triggerer.
        self._wait()
        if self.start_from_trigger:
            SageMakerImageLink.store(context, self, self._hook(), self.image_name)
        with self._explained_skips():
            try:
                deferral.raise_if_trigger_failed(next_method, next_kwargs)
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowSkipException:
                raise
            except Exception as error:
                # Airflow itself does this in poke and reschedule mode, but in a deferral only for some exceptions.
                if self.never_fail:
                    raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
                raise

    def last_check(self, context: Any) -> ImageVersion:
        """
        Check once more before the deferral times out, because the triggerer may have been down.

        :param context: The task's context.
        :raises airflow.exceptions.AirflowSensorTimeout: The version is still not CREATED.
        :raises airflow.exceptions.AirflowTaskTimeout: The version is still not CREATED, and ``execution_timeout`` ended
            the wait.
        """
        self._began = getattr(context["ti"], "start_date", None) or self._began
        result = self.poke(context)
        if not result.is_done:
            timeout = self._seconds("timeout")
            unmet = f"SageMaker image {self.image_name!r}: {self._wait().target} did not become CREATED"
            deferral.raise_execution_timeout(self, timeout, unmet)
            raise AirflowSensorTimeout(f"{unmet} within the timeout of {timeout:g} seconds.")
        return cast("ImageVersion", result.xcom_value)

    def _wait(self) -> Wait:
        self._check_rendered()
        return Wait.of(self)

    def _hook(self) -> SageMakerImageVersionsHook:
        return SageMakerImageVersionsHook.from_parameters(**aws_parameters(self))

    def _trigger_arguments(self) -> dict[str, Any]:
        created_after = self.created_after
        return {
            **{name: getattr(self, name) for name in WAIT_PARAMETERS},
            "created_after": created_after.isoformat() if isinstance(created_after, datetime) else created_after,
            "poll_interval": self._seconds("poke_interval"),
            "exponential_backoff": self.exponential_backoff,
            "max_wait": None if self.max_wait is None else self._seconds("max_wait"),
            "silent_fail": self.silent_fail,
            "end_from_trigger": self.end_from_trigger,
            **aws_parameters(self),
        }

    def _seconds(self, name: str) -> float:
        """
        Return a time span of Airflow's, which may be seconds or a timedelta, in seconds.

        Airflow checks it in the constructor, but not if it is set later. It accepts a timeout that ends after the year
        9999. As the timeout of a deferral, it would crash the scheduler.
        """
        value: Any = getattr(self, name)
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise invalid_parameter(name, value, "it must be a number of seconds, 0 or more, or a timedelta.")
        return min(float(seconds), SECONDS_MAX)

    def _fail(self, reason: str) -> NoReturn:
        raise ImageVersionFailedError(f"SageMaker image {self.image_name!r}: {reason}")

    def _waited_seconds(self) -> float:
        return (datetime.now(timezone.utc) - self._began).total_seconds()

    def _report_success(self, record: ImageVersion) -> None:
        region = f"{record['ImageVersionArn']}:::".split(":")[3]
        self._lineage = (region, record["Version"])
        self.log.info(
            "SageMaker image %r: version %d is CREATED, after %.0f seconds of waiting",
            self.image_name,
            record["Version"],
            self._waited_seconds(),
        )
