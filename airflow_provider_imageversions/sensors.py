"""Sensors."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.triggers.base import StartTriggerArgs

from airflow_provider_imageversions import decide, polling
from airflow_provider_imageversions.assets import openlineage_dataset
from airflow_provider_imageversions.compat import (
    ENDS_FROM_TRIGGER,
    STARTS_FROM_TRIGGER,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
    is_trigger_timeout,
    keeps_xcom_in_database,
    waits_since,
)
from airflow_provider_imageversions.hooks import (
    AWS_PARAMETERS,
    SageMakerImageVersionsHook,
    aws_parameters,
    check_aws_parameters,
    resolved_aws_parameters,
)
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.model import Target, is_settled, parse_boolean, parse_image_name, texts_in
from airflow_provider_imageversions.triggers import (
    SageMakerImageVersionPollingError,
    SageMakerImageVersionTrigger,
    read_event,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_imageversions.model import ImageVersion

__all__ = ["ImageVersionFailedError", "SageMakerImageVersionPollingError", "SageMakerImageVersionSensor"]


class ImageVersionFailedError(AirflowFailException):
    """
    The version that was waited for can't become CREATED any more; the message has the service's reason.

    An AirflowFailException: a retry would wait for the same version in vain, and ``soft_fail`` and ``never_fail``
    treat it alike in every mode.
    """


class SageMakerImageVersionSensor(BaseSensorOperator):
    """
    Wait until a version of an Amazon SageMaker image is CREATED, and return its record.

    Without ``version``, ``alias``, ``after_version`` and ``created_after`` it waits for the image's latest version,
    the one with the highest number that is not being deleted. ``poke_interval``, ``timeout``, ``soft_fail``,
    ``never_fail``, ``silent_fail`` and ``retries`` mean the same in poke, reschedule and deferrable mode; it is Airflow
    itself that lets ``timeout`` span all retries in reschedule mode. An image that does not exist yet is waited for,
    with a warning, unless it is looked for by ``alias``, which it then just has not yet. Throttling and outages are
    waited out.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. Templated, like all that
        follow.
    :param version: Wait for this very version number, 0 or more.
    :param alias: Wait until the version that has this alias is CREATED.
    :param after_version: Wait for any version with a higher number than this one; the highest that is CREATED wins.
    :param created_after: Wait for any version created at or after this moment; an aware datetime or an ISO-8601
        string with an offset.
    :param include_details: Add ``ContainerImage``, ``BaseImage``, ``Aliases``, ``MLFramework`` and whatever else
        DescribeImageVersion and ListAliases know to the record, for two more API calls at the end. Default: no.
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    :param deferrable: Wait in the triggerer, without a worker, where all who wait for the same image share one API
        call an interval. Default: ``[operators] default_deferrable``, or yes with one of the next two.
    :param start_from_trigger: Go from the scheduler straight to the triggerer: no worker starts before the version
        is ready. From Airflow 3.3, and not for mapped tasks, XComArgs, pools and some templates; elsewhere the task
        is deferred by a worker, with a warning that says why. Default: no.
    :param end_from_trigger: End the task in the triggerer too when the version is CREATED, so that a wait costs no
        worker at all. A failure and a timeout still go through a worker. Refused for tasks with outlets, success,
        skip or execute callbacks, ``pre_execute``, ``post_execute`` or ``multiple_outputs``, as Airflow would pass
        them over; listeners are passed over too. From Airflow 3.3, and with XComs in the database. Default: no.
    :raises ImageVersionFailedError: The version is CREATE_FAILED, or can't become CREATED for another reason. Not
        retried; skipped with ``soft_fail`` or ``never_fail``.
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises botocore.exceptions.ClientError: Access denied and the like. Fails the task in spite of ``soft_fail``.
    :raises SageMakerImageVersionPollingError: The same, from a deferral.
    :raises airflow.exceptions.AirflowSensorTimeout: ``timeout`` (seconds or timedelta) is over.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
    """

    _TARGET: ClassVar[tuple[str, ...]] = ("version", "alias", "after_version", "created_after")
    template_fields: Sequence[str] = ("image_name", *_TARGET, "include_details", *AWS_PARAMETERS)
    template_fields_renderers: ClassVar[dict[str, str]] = {"botocore_config": "json"}
    operator_extra_links = (SageMakerImageLink(),)
    # A client has locks, which cannot be copied.
    shallow_copy_attrs: Sequence[str] = ("_looks",)
    ui_color = "#f2e6d9"

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
        self.image_name = image_name
        self.version = version
        self.alias = alias
        self.after_version = after_version
        self.created_after = created_after
        self.include_details = include_details
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        start_from_trigger = parse_boolean("start_from_trigger", start_from_trigger)
        end_from_trigger = parse_boolean("end_from_trigger", end_from_trigger)
        deferrable = None if deferrable is None else parse_boolean("deferrable", deferrable)
        if deferrable is False and (start_from_trigger or end_from_trigger):
            raise ValueError("deferrable=False: start_from_trigger and end_from_trigger need deferrable=True.")
        if start_from_trigger or end_from_trigger:
            deferrable = True
        elif deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._looks: polling.Task | None = None
        self._began = datetime.now(timezone.utc)
        self._looked_at: datetime | None = None
        self._found: ImageVersion | None = None
        if is_settled(image_name):
            parse_image_name("image_name", image_name)
        if is_settled(include_details):
            parse_boolean("include_details", include_details)
        Target.check_settled(version=version, alias=alias, after_version=after_version, created_after=created_after)
        check_aws_parameters(aws_parameters(self), templated=True)
        self.end_from_trigger = end_from_trigger and self._may_end_from_trigger()
        if start_from_trigger and self._may_start_from_trigger():
            # On the instance alone: on the class it would be taken for mapped tasks too, with the class's arguments.
            self.start_from_trigger = True
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls=f"{SageMakerImageVersionTrigger.__module__}.{SageMakerImageVersionTrigger.__qualname__}",
                next_method="execute_complete",
                trigger_kwargs=self._trigger_arguments(),
                timeout=timedelta(seconds=self.timeout),
            )

    def _may_start_from_trigger(self) -> bool:
        given = [getattr(self, name) for name in self.template_fields]
        templates = [text for value in given for text in texts_in(value)]
        dag = self.get_dag()
        reasons = {
            "this Airflow, older than 3.3, cannot start a task from the triggerer": not STARTS_FROM_TRIGGER,
            "an XComArg is not resolved there": any(
                not is_settled(value) and not list(texts_in(value)) for value in given
            ),
            "an xcom_pull without map_indexes hangs there": any(
                "xcom_pull" in value and "map_indexes" not in value for value in templates
            ),
            "the DAG's own macros and filters are not known there": dag is not None
            and bool(dag.user_defined_macros or dag.user_defined_filters)
            and not all(map(is_settled, templates)),
            f"slots of the pool {self.pool!r} are not counted there": self.pool != "default_pool",
        }
        return self._may("start_from_trigger", "the task is deferred by a worker instead", reasons)

    def _may_end_from_trigger(self) -> bool:
        passed_over = (
            "outlets",
            "on_execute_callback",
            "on_success_callback",
            "on_skipped_callback",
            "_pre_execute_hook",
            "_post_execute_hook",
            "multiple_outputs",
        )
        given = [name for name in passed_over if getattr(self, name, None)]
        if given:
            raise ValueError(
                f"end_from_trigger=True can't be combined with {', '.join(given)}: Airflow passes them over when a "
                "task ends in the triggerer. Leave out one or the other; start_from_trigger=True alone keeps them."
            )
        reasons = {
            "this Airflow, older than 3.3, cannot write an XCom from there": not ENDS_FROM_TRIGGER,
            "a custom XCom backend would hold up the triggerer": not keeps_xcom_in_database(),
            "do_xcom_push=False makes nothing to push": not self.do_xcom_push,
        }
        return self._may("end_from_trigger", "the task is ended by a worker instead", reasons)

    def _may(self, name: str, instead: str, reasons: dict[str, bool]) -> bool:
        found = [reason for reason, applies in reasons.items() if applies]
        if found:
            warnings.warn(f"{name}=True of task {self.task_id!r}: {instead}, as {'; '.join(found)}.", stacklevel=5)
        return not found

    def execute(self, context: Any) -> Any:
        """Wait for the version."""
        # Checks what was templated, in every mode alike.
        target = self._target()
        now = datetime.now(timezone.utc)
        self._began = (waits_since(context) if self.reschedule else None) or now
        interval = timedelta(seconds=self.poke_interval)
        # A rescheduled look is a process of its own, which knows by this what the one before it has said.
        self._looked_at = now - 1.5 * interval if now - self._began > interval / 2 else None
        hook = self._hook()
        SageMakerImageLink.store(context, self, hook, self.image_name)
        if self.deferrable:
            self.log.info("SageMaker image %r: waiting in the triggerer for %s", self.image_name, target)
            self.defer(
                trigger=SageMakerImageVersionTrigger(
                    **{**self._trigger_arguments(), **resolved_aws_parameters(self, hook)}
                ),
                method_name="execute_complete",
                kwargs={"began": self._began.isoformat()},
                timeout=timedelta(seconds=self.timeout),
            )
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            # After a deferral Airflow itself skips it.
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002  # Airflow's signature
        """
        Look once.

        :param context: The task's context.
        """
        target = self._target()
        if self._looks is None:
            self._looks = polling.Task(
                self,
                self.image_name,
                interval=self.poke_interval,
                left=self.timeout - (datetime.now(timezone.utc) - self._began).total_seconds(),
                looked_at=self._looked_at,
            )
        outcome = self._looks.outcome(target, details=parse_boolean("include_details", self.include_details))
        if isinstance(outcome, decide.Failed):
            self._fail(outcome.reason)
        if isinstance(outcome, decide.Waiting):
            return PokeReturnValue(is_done=False)
        self._report_success(outcome.version)
        return PokeReturnValue(is_done=True, xcom_value=outcome.version)

    def execute_complete(
        self, context: Any, event: dict[str, Any] | None = None, began: str | None = None
    ) -> ImageVersion:
        """
        Go on after the deferral.

        :param context: The task's context.
        :param event: The trigger's payload.
        :param began: When the wait began, ISO-8601.
        """
        if began is None:
            # No worker has run yet.
            began = start.isoformat() if (start := getattr(context["ti"], "start_date", None)) else None
            SageMakerImageLink.store(context, self, self._hook(), self.image_name)
        result = read_event(event)
        if isinstance(result, decide.Failed):
            self._fail(result.reason)
        self._report_success(result, began)
        return result

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Go on after the deferral, or after it timed out."""
        if is_trigger_timeout(next_method, next_kwargs):
            next_method, next_kwargs = "last_look", {}
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException:
            raise
        except Exception as error:
            # Airflow itself does this in the poke and reschedule modes, and in a deferral for some exceptions only.
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    def last_look(self, context: Any) -> ImageVersion:
        """
        Look once more before a deferral's timeout counts: the triggerer may have been away meanwhile.

        :param context: The task's context.
        :raises airflow.exceptions.AirflowSensorTimeout: The version is still not CREATED.
        """
        self._began = getattr(context["ti"], "start_date", None) or self._began
        result: Any = None
        try:
            result = self.poke(context)
        except AirflowFailException:
            raise
        except Exception:
            if not self.silent_fail:
                raise
            self.log.exception("SageMaker image %r: the last look failed", self.image_name)
        if result is None or not result.is_done:
            raise AirflowSensorTimeout(
                f"SageMaker image {self.image_name!r}: {self._target()} could not be had within the timeout of "
                f"{self.timeout} seconds."
            )
        record: ImageVersion = result.xcom_value
        return record

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002  # its own signature
        """
        Tell OpenLineage that the task read the version that it waited for; nothing if there was none to be had.

        :param task_instance: The task instance.
        """
        from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415  # its provider calls this

        if self._found is None:
            return OperatorLineage()
        region = self._found["ImageVersionArn"].split(":")[3]
        return OperatorLineage(inputs=[openlineage_dataset(region, self.image_name, self._found["Version"])])

    def _target(self) -> Target:
        parse_image_name("image_name", self.image_name)
        parse_boolean("include_details", self.include_details)
        return Target(**{name: getattr(self, name) for name in self._TARGET})

    def _hook(self) -> SageMakerImageVersionsHook:
        return SageMakerImageVersionsHook.from_parameters(**aws_parameters(self))

    def _trigger_arguments(self) -> dict[str, Any]:
        created_after = self.created_after
        return {
            "image_name": self.image_name,
            "version": self.version,
            "alias": self.alias,
            "after_version": self.after_version,
            "created_after": created_after.isoformat() if isinstance(created_after, datetime) else created_after,
            "include_details": self.include_details,
            "poll_interval": self.poke_interval,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self.max_wait.total_seconds() if isinstance(self.max_wait, timedelta) else self.max_wait,
            "silent_fail": self.silent_fail,
            "end_from_trigger": self.end_from_trigger,
            **aws_parameters(self),
        }

    def _fail(self, reason: str) -> NoReturn:
        raise ImageVersionFailedError(f"SageMaker image {self.image_name!r}: {reason}")

    def _report_success(self, record: ImageVersion, began: str | None = None) -> None:
        self._found = record
        start = self._began if began is None else datetime.fromisoformat(began)
        self.log.info(
            "SageMaker image %r: version %d is CREATED, after %.0f seconds of waiting",
            self.image_name,
            record["Version"],
            (datetime.now(timezone.utc) - start).total_seconds(),
        )
