"""The triggers. Their class paths and arguments are stored in Airflow's database: never move or rename them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import time
from collections.abc import Iterable
from contextlib import aclosing
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async
from jinja2 import StrictUndefined

from airflow_provider_imageversions import _metrics, _sessions, _shared_poller, decide, studio
from airflow_provider_imageversions._cursor_store import CursorStore
from airflow_provider_imageversions._parameters import invalid_parameter, parse_boolean, parse_queue_url, parse_seconds
from airflow_provider_imageversions._reading import write_logs
from airflow_provider_imageversions.compat import BaseEventTrigger, push_xcom
from airflow_provider_imageversions.deferral import describe_wait
from airflow_provider_imageversions.errors import classify_error, none_if_not_found
from airflow_provider_imageversions.hooks import (
    AWS_PARAMETERS,
    SageMakerImageVersionsHook,
    aws_parameters,
    check_aws_parameters,
)
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.model import (
    WAIT_PARAMETERS,
    WATCHED_BY_DEFAULT,
    ErrorKind,
    Wait,
    WatchConfig,
    describe_error,
    event_payload,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from jinja2 import Environment

    from airflow_provider_imageversions.model import ImageVersion, Target


class _AwsTrigger(BaseTrigger):
    """
    A trigger with the parameters of a connection.

    It accepts any arguments that another version of this package has stored: a constructor that raises in the triggerer
    can leave a task deferred forever. ``run()`` reports errors instead.
    """

    def __init__(
        self,
        aws_conn_id: str | None,
        region_name: str | None,
        verify: bool | str | None,  # noqa: FBT001  # not only a boolean
        botocore_config: dict[str, Any] | None,
        _later: Iterable[str],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.aws_conn_id = None if aws_conn_id == "" else aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.unknown = sorted(_later)

    def _serialize(self, *own: str) -> tuple[str, dict[str, Any]]:
        arguments = {name: getattr(self, name) for name in own}
        return f"{type(self).__module__}.{type(self).__qualname__}", {**arguments, **aws_parameters(self)}


class SageMakerStudioUpdateTrigger(_AwsTrigger):
    """
    Wait in the triggerer until a domain or a user profile of Amazon SageMaker Studio is no longer being updated.

    Fires once, with a payload of JSON primitives:

    - ``{"status": "done"}``: the update has ended, or the domain or user profile was deleted; the task checks whether
      it succeeded;
    - ``{"status": "error", "error": "..."}``: an error such as access denied, an invalid argument or a missing
      connection.

    The trigger retries during throttling and outages, and for a short time after access denied or rejected
    credentials.

    :param domain_id: ID of the domain.
    :param user_profile_name: Name of the user profile. (default: the domain itself)
    :param check_interval: Maximum time in seconds between status checks. (default: 30)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``)
    :param region_name: AWS region. (default: the connection's region)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings)
    :param _later: Arguments that another version of this package has stored in Airflow's database; they are ignored.
    """

    def __init__(
        self,
        *,
        domain_id: str,
        user_profile_name: str | None = None,
        check_interval: float = 30.0,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **_later: Any,
    ) -> None:
        super().__init__(aws_conn_id, region_name, verify, botocore_config, _later)
        self.domain_id = domain_id
        self.user_profile_name = user_profile_name
        self.check_interval = check_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that Airflow stores."""
        return self._serialize("domain_id", "user_profile_name", "check_interval")

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and emit one event."""
        try:
            payload = await self._wait()
        except Exception as error:
            self.log.exception("The wait failed unexpectedly")
            payload = {"status": "error", "error": describe_error(error)}
        yield TriggerEvent(payload)

    async def _wait(self) -> dict[str, Any]:
        operation, identity = "describe_domain", {"DomainId": self.domain_id}
        if self.user_profile_name is not None:
            operation, identity = "describe_user_profile", {**identity, "UserProfileName": self.user_profile_name}
        hook, failing = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self)), _sessions.FaultTimer()
        session = _sessions.WaitSession(interval=self.check_interval, eager=True)
        while True:
            jitter = random.random()  # noqa: S311  # spreads calls, keeps no secret
            try:
                await hook.preload_connection()
                describe = sync_to_async(none_if_not_found, thread_sensitive=False)
                document = await describe(hook.describe_studio, operation, identity)
            except Exception as error:
                kind = classify_error(error)
                if kind is None:
                    raise
                now = time.monotonic()
                step = session.receive_error(kind, error, now, lasting=failing.lasts(kind, now), jitter=jitter)
                if kind is ErrorKind.CREDENTIALS:
                    hook = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self))
            else:
                now = time.monotonic()
                failing.lasts(None, now)
                # If it was deleted, the task fails at once, as it does without a deferral.
                step = session.receive(document and studio.update_outcome(document), now, jitter)
            for line in step.logs:
                getattr(self.log, line.level)("SageMaker domain %r: %s", self.domain_id, line.text)
            match step:
                case _sessions.Raise(fatal):
                    return {"status": "error", "error": describe_error(fatal)}
                case _sessions.PollAgain(seconds):
                    await asyncio.sleep(seconds)
                case _:
                    return {"status": "done"}


def _warn_of_unknown(trigger: SageMakerImageVersionTrigger | SageMakerImageVersionEventTrigger) -> None:
    if trigger.unknown:
        trigger.log.warning(
            "Ignoring unknown arguments of the trigger for SageMaker image %r: %s. Check how they are spelled; another "
            "version of this package may have stored them.",
            trigger.image_name,
            ", ".join(trigger.unknown),
        )


class SageMakerImageVersionTrigger(_AwsTrigger):
    """
    Wait in the triggerer for the version of a deferred ``SageMakerImageVersionSensor`` or creating operator.

    Fires once, with a payload of JSON primitives:

    - ``{"status": "ready", "version": {...}}``: the version's record, with details if they were requested;
    - ``{"status": "failed", "reason": "..."}``: the version can no longer become CREATED;
    - ``{"status": "error", "error": "..."}``: an error such as access denied, an invalid argument or a missing
      connection.

    Each payload also has ``waited_for``, the parameters that the trigger used: if no worker ran before, Airflow's
    triggerer renders the templates, and the worker that resumes the task compares the result with its own.

    The trigger retries during throttling and outages, and for a short time after access denied or rejected
    credentials. All triggers of a triggerer that wait for the same image through the same connection share one poll and
    one boto3 client.

    :param image_name: Name of the image.
    :param version: Wait for the version with this number. (default: none)
    :param alias: Wait for the version that has this alias. (default: none)
    :param after_version: Wait for any version with a higher number than this one. (default: none)
    :param created_after: Wait for any version created at or after this time, an ISO-8601 string with an offset.
        (default: none)
    :param include_details: Whether to add the fields of DescribeImageVersion and ListAliases. (default: False)
    :param poll_interval: Maximum time in seconds between polls. (default: 60)
    :param exponential_backoff: Whether to double the interval after each poll, up to ``max_wait``. (default: False)
    :param max_wait: Maximum interval in seconds. (default: no limit)
    :param silent_fail: Whether to log errors such as access denied and keep waiting, instead of ending the wait.
        (default: False)
    :param end_from_trigger: Whether to push the version's record to XCom and end the task in the triggerer when the
        version is CREATED. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``)
    :param region_name: AWS region. (default: the connection's region)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings)
    :param created_by_task: Whether the task created the version, so that the wait fails if the image is missing, rather
        than wait for it. (default: False)
    :param rendered: The parameters that are template fields of the sensor, as a worker rendered them; they replace the
        others. (default: none)
    :param _later: Arguments that another version of this package has stored in Airflow's database; they are ignored,
        with a warning.
    """

    def __init__(
        self,
        *,
        image_name: str,
        version: int | str | None = None,
        alias: str | None = None,
        after_version: int | str | None = None,
        created_after: str | None = None,
        include_details: bool | str = False,
        poll_interval: float = 60.0,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        silent_fail: bool = False,
        end_from_trigger: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        created_by_task: bool = False,
        rendered: dict[str, Any] | None = None,
        **_later: Any,
    ) -> None:
        super().__init__(aws_conn_id, region_name, verify, botocore_config, _later)
        self.image_name = image_name
        self.version = version
        self.alias = alias
        self.after_version = after_version
        self.created_after = created_after
        self.include_details = include_details
        self.poll_interval = poll_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.silent_fail = silent_fail
        self.end_from_trigger = end_from_trigger
        self.created_by_task = created_by_task
        self.rendered = rendered
        self._unrendered: str | None = None
        self._waited_for: dict[str, Any] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that Airflow stores."""
        own = ("poll_interval", "exponential_backoff", "max_wait", "silent_fail", "end_from_trigger")
        optional = {"created_by_task": self.created_by_task, "rendered": self.rendered is not None}
        return self._serialize(*WAIT_PARAMETERS, *own, *(name for name, is_set in optional.items() if is_set))

    def render_template_fields(self, context: Any, jinja_env: Environment | None = None) -> None:
        """
        Render the arguments if no worker has done so before, as strictly as a worker does.

        :param context: The task's context.
        :param jinja_env: Jinja's environment.
        """
        strict = jinja_env or self.get_template_env()
        strict.undefined = StrictUndefined
        try:
            super().render_template_fields(context, strict)
        except Exception as error:
            # An exception here would reach the sensor as a failure without a reason.
            self.log.exception("The templates of the task can't be rendered in the triggerer")
            self._unrendered = f"The task's templates can't be rendered: {describe_error(error)}"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and emit one event."""
        _warn_of_unknown(self)
        try:
            payload = await self._wait()
        except Exception as error:
            # An exception here would reach the sensor as one that soft_fail skips.
            self.log.exception("The wait failed unexpectedly")
            payload = {"status": "error", "error": describe_error(error)}
        ended = None
        if self.end_from_trigger and payload["status"] == "ready" and not self._is_restarted():
            ended = await self._end(payload["version"])
        yield ended or TriggerEvent({**payload, "waited_for": self._waited_for})

    def _is_restarted(self) -> bool:
        """Return whether Airflow started a retry directly; ending it here would keep the end date of the first try."""
        # The triggerer has the task itself only if no worker ran before.
        task_instance: Any = self.task_instance
        return getattr(self, "task", None) is not None and task_instance.try_number > 1

    async def _end(self, version: ImageVersion) -> TaskSuccessEvent | None:
        """Return the event that ends the task with its link and XCom; ``None`` if a worker has to end it."""
        link = SageMakerImageLink()
        try:
            url = link.url_of(self.image_name, version["ImageVersionArn"])
            await push_xcom(self.task_instance, "return_value", version)
        except Exception as error:  # noqa: BLE001  # a worker has another connection to the database
            self.log.warning(
                "Could not complete the task in the triggerer; a worker will complete it: %s",
                describe_error(error),
            )
            return None
        self.log.info("SageMaker image %r: version %d is CREATED", self.image_name, version["Version"])
        # The link goes with the event, because each request to Airflow's supervisor waits for its loop. Airflow encodes
        # XComs of an event twice, which would spoil the record; but it also decodes links twice.
        return TaskSuccessEvent(xcoms={link.xcom_key: url} if url else None)

    async def _wait(self) -> dict[str, Any]:
        try:
            source = self._source()
            image_name, target, include_details = self._parse(source)
        except ValueError as error:
            return {"status": "error", "error": str(error)}
        session = _sessions.WaitSession(
            target=target,
            include_details=include_details,
            created_by_task=self.created_by_task,
            interval=self.poll_interval,
            silent_fail=self.silent_fail,
            backoff_from=time.monotonic() if self.exponential_backoff else None,
            max_wait=self.max_wait or math.inf,
        )
        with _shared_poller.Subscription(source, image_name, target, session.interval) as subscription:
            while True:
                step = session.receive_poll(await subscription.next(), time.monotonic())
                write_logs(self.log, image_name, step.logs)
                if isinstance(step, _sessions.NeedDetails):
                    step = session.receive_details(await subscription.add_details(step.version), time.monotonic())
                    write_logs(self.log, image_name, step.logs)
                match step:
                    case _sessions.Succeed(decide.Ready(version)):
                        return {"status": "ready", "version": version}
                    case _sessions.Fail(reason):
                        return {"status": "failed", "reason": reason}
                    case _sessions.Raise(fatal):
                        return {"status": "error", "error": describe_error(fatal)}
                    case _sessions.Retry(seconds):
                        # The shared poll makes such pauses only if it failed itself.
                        subscription.interval = min(session.interval, max(seconds, 1.0))
                        subscription.retarget(target)
                    case _sessions.PollAgain(seconds):
                        subscription.interval = seconds

    def _source(self) -> Any:
        """Return the object that has the parameters: the trigger itself, unless a worker rendered them."""
        if self.rendered is None:
            return self
        names = (*WAIT_PARAMETERS, *AWS_PARAMETERS)
        if not isinstance(self.rendered, dict) or not self.rendered.keys() <= set(names):
            raise invalid_parameter("rendered", self.rendered, f"it must be a dict with keys among {', '.join(names)}.")
        return SimpleNamespace(**{name: self.rendered.get(name, getattr(self, name)) for name in names})

    def _parse(self, source: Any) -> tuple[str, Target, bool]:
        """Check the arguments; without a worker, some of them are still strings."""
        if self._unrendered is not None:
            raise ValueError(self._unrendered)
        for name in ("exponential_backoff", "silent_fail", "end_from_trigger"):
            setattr(self, name, parse_boolean(name, getattr(self, name)))
        # Airflow allows 0 for a sensor.
        if self.poll_interval != 0:
            self.poll_interval = parse_seconds("poll_interval", self.poll_interval)
        if self.max_wait:
            self.max_wait = parse_seconds("max_wait", self.max_wait)
        check_aws_parameters(aws_parameters(source))
        wait = Wait.of(source)
        self._waited_for = describe_wait(wait, source)
        return wait.image_name, wait.target, wait.include_details


class SageMakerImageVersionEventTrigger(_AwsTrigger, BaseEventTrigger):
    """
    Emit an event for each image version that reaches one of the given statuses, or each time an alias moves.

    For an ``AssetWatcher``: :func:`~airflow_provider_imageversions.assets.image_version_asset` creates the asset with
    its watcher. The payload is the version's record (with details if requested) and

    - ``image_name`` and ``region``;
    - ``status``: the status that the version reached;
    - ``event_id``: equal for all events of the same version reaching the same status;
    - ``redelivered``: whether the event may have been emitted before.

    With ``alias``, an event is emitted when the alias has moved to another version and that version is CREATED. The
    payload also has ``alias``, and ``event_id`` identifies the move: it differs each time the alias moves to the same
    version again. A move that is undone or superseded between two polls, or around a restart of the triggerer, may not
    be detected.

    Events are delivered at least once; versions that become ready together are delivered in ascending order. On Airflow
    3.3 and later, the progress is kept in the asset's state store, and advances when Airflow has had time to store the
    event: after a crash before that, the event is emitted again with the same ``event_id``. On earlier versions, it is
    kept in memory, and a restart starts from ``start_from`` again.

    The trigger never ends. It retries after any error of AWS, the network or Airflow's database. It waits for an image
    that does not exist yet. All triggers of a triggerer that watch or wait for the same image through the same
    connection share one poll.

    :param image_name: Name of the image.
    :param statuses: Statuses to emit events for: ``"CREATED"``, ``"CREATE_FAILED"`` or both. (default:
        ``("CREATED",)``)
    :param start_from: Where to start the first time: ``"latest"`` for versions that reach a status from now on,
        ``"earliest"`` for all existing versions too, a version number for that version and those above, or an aware
        datetime or an ISO-8601 string with an offset for versions created at or after it. With ``alias``, either
        ``"latest"``, or ``"earliest"`` to also emit an event for the version that has the alias now. (default:
        ``"latest"``)
    :param alias: Emit an event each time this alias moves, instead of for new versions. ``statuses`` must be CREATED.
        (default: none)
    :param poll_interval: Maximum time in seconds between polls. (default: 60)
    :param include_details: Whether to add the fields of DescribeImageVersion and ListAliases, such as
        ``ContainerImage``. (default: False)
    :param wake_queue: URL of an SQS queue that receives SageMaker's EventBridge events. A message makes the trigger
        poll at once. (default: none)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``)
    :param region_name: AWS region. (default: the connection's region)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings)
    :param _later: Arguments that another version of this package has stored in Airflow's database; they are ignored,
        with a warning.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
    """

    RIVALS_WITHIN: ClassVar[float] = 3600.0
    """Seconds within which watchers that replace one another count as a conflict of DAG files."""

    _watchers: ClassVar[dict[str, list[tuple[float, SageMakerImageVersionEventTrigger]]]] = {}
    _contested: ClassVar[set[str]] = set()

    def __init__(
        self,
        *,
        image_name: str,
        statuses: Iterable[str] | str = WATCHED_BY_DEFAULT,
        start_from: str | int | datetime = "latest",
        alias: str | None = None,
        poll_interval: float = 60.0,
        include_details: bool = False,
        wake_queue: str | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **_later: Any,
    ) -> None:
        # assets.image_version_asset() checks the arguments when the DAG is parsed.
        super().__init__(aws_conn_id, region_name, verify, botocore_config, _later)
        self.image_name = image_name
        self.statuses = list(statuses) if isinstance(statuses, Iterable) and not isinstance(statuses, str) else statuses
        self.start_from = start_from.isoformat() if isinstance(start_from, datetime) else start_from
        self.alias = alias
        self.poll_interval = poll_interval
        self.include_details = include_details
        self.wake_queue = wake_queue
        self.kept: list[Any] = []
        """The state between restarts of the watcher, where Airflow has no state store for assets."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that Airflow stores."""
        own = ("image_name", "statuses", "start_from", "alias", "poll_interval", "include_details")
        optional = () if self.wake_queue is None else ("wake_queue",)
        path, arguments = self._serialize(*own, *optional)
        # Unknown arguments by name only, so that the triggerer can log them. Their values were not checked.
        return path, {**dict.fromkeys(self.unknown), **arguments}

    def differences(self, other: SageMakerImageVersionEventTrigger) -> list[str]:
        """
        Return the names of the arguments that two triggers do not have in common.

        :param other: The other trigger.
        """
        own, others = self.serialize()[1], other.serialize()[1]
        return sorted(name for name in own.keys() | others.keys() if own.get(name) != others.get(name))

    @property
    def state_key(self) -> str:
        """Key of the cursor: it depends on what is watched, but not on the interval or on the details."""
        watched = [self.image_name, self.region_name, self.aws_conn_id, sorted(self.statuses)]
        if self.alias is not None:
            watched.append(self.alias)
        return f"sagemaker-image-versions-{hashlib.sha256(json.dumps(watched).encode()).hexdigest()[:16]}"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the image until the trigger is cancelled."""
        _warn_of_unknown(self)
        started, is_first = datetime.now(timezone.utc), True
        while True:
            try:
                async with aclosing(self._watch(started, is_blind=not is_first)) as events:
                    async for event in events:
                        yield event
            except Exception:
                # Airflow would start it again every two seconds.
                self.log.exception(
                    "SageMaker image %r: the watcher failed unexpectedly; restarting in %.0f seconds",
                    self.image_name,
                    _sessions.SLOW_PACE,
                )
            is_first = False
            await asyncio.sleep(_sessions.SLOW_PACE)

    def _warn_of_rival(self) -> None:
        """
        Warn once if DAG files disagree about the arguments of an asset's watcher.

        Airflow then replaces one watcher with the other whenever it parses one of the files. An edited file causes only
        one such change.
        """
        now = time.monotonic()
        others = [each for each in self._watchers.get(self.state_key, ()) if now - each[0] < self.RIVALS_WITHIN]
        differences = [self.differences(other) for _, other in others]
        came_back = [] in differences and differences[-1] != []
        if came_back and self.state_key not in self._contested:
            self._contested.add(self.state_key)
            self.log.warning(
                "DAG files disagree about the watcher of SageMaker image %r: Airflow replaces it with one that has "
                "different arguments (%s) and back whenever it parses a file. Use the same arguments in each file, or "
                "give the assets different names.",
                self.image_name,
                ", ".join(differences[-1]),
            )
        self._watchers[self.state_key] = [*others[-10:], (now, self)]

    def _parse(self) -> tuple[WatchConfig, str | None]:
        """Check the arguments, and return what is watched and the queue's URL."""
        self.include_details = parse_boolean("include_details", self.include_details)
        self.poll_interval = parse_seconds("poll_interval", self.poll_interval)
        check_aws_parameters(aws_parameters(self))
        wake_queue = None if self.wake_queue is None else parse_queue_url("wake_queue", self.wake_queue)
        return WatchConfig(self.image_name, self.statuses, self.start_from, self.alias), wake_queue

    async def _watch(self, started: datetime, *, is_blind: bool) -> AsyncGenerator[TriggerEvent, None]:
        try:
            config, wake_queue = self._parse()
        except ValueError as error:
            self.log.error("Invalid watcher arguments; the watcher stays inactive until they are fixed: %s", error)  # noqa: TRY400  # no bug
            return
        self._warn_of_rival()
        name, store = config.image_name, CursorStore(self)
        states = await store.read()
        session = _sessions.WatchSession(
            config,
            states,
            interval=self.poll_interval,
            include_details=self.include_details,
            started=started,
            is_blind=is_blind or store.was_unreadable,
        )
        with _shared_poller.Subscription(
            self, name, session.target, self.poll_interval, wake_queue=wake_queue
        ) as subscription:
            steps = session.run()
            step = next(steps)
            while True:
                write_logs(self.log, name, step.logs)
                answer: Any = None
                match step:
                    case _sessions.Poll(target, interval):
                        subscription.interval = interval
                        subscription.retarget(target)
                        answer = await subscription.next()
                    case _sessions.NeedDetails(version):
                        answer = await subscription.add_details(version)
                    case _sessions.Save(state):
                        answer = await store.write(state)
                    case _sessions.Emit(version, event):
                        payload = event_payload(version, name, subscription.region, **event)
                        _metrics.count_event(payload)
                        yield TriggerEvent(payload)
                step = steps.send((answer, time.monotonic()))
