"""Wait in a worker: one task that calls the API itself."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_imageversions import _reading, _sessions, decide
from airflow_provider_imageversions.errors import SageMakerImageOperationTimeoutError, classify_error
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.model import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow_provider_imageversions.model import Target

    ApiCall = Callable[[SageMakerImageVersionsHook], Any]

T = TypeVar("T")


class WorkerPoller:
    """
    Call the API for one task in a worker, and wait.

    :param source: The operator or sensor with the parameters of the connection.
    :param image_name: Name of the image.
    :param interval: Maximum time in seconds between two polls. (default: 0)
    :param timeout: Time in seconds after which waiting ends. (default: 0)
    :param left: Remaining time in seconds. (default: ``timeout``)
    """

    def __init__(
        self, source: Any, image_name: str, *, interval: float = 0.0, timeout: float = 0.0, left: float | None = None
    ) -> None:
        self._source = source
        self._image_name = image_name
        self._interval = interval
        self._timeout = timeout
        self._deadline = time.monotonic() + (timeout if left is None else left)
        self._status = _sessions.StatusLogger()
        self._hook: SageMakerImageVersionsHook | None = None
        self._had_connection = False
        self._polls_failing = _sessions.FaultTimer()
        self._details_failing = _sessions.FaultTimer()

    @property
    def hook(self) -> SageMakerImageVersionsHook:
        """The hook, created at its first use."""
        if self._hook is None:
            self._hook = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self._source))
            # In Airflow 3, an outage of its database is indistinguishable from a missing connection.
            self._hook.may_fall_back &= not self._had_connection
        return self._hook

    @property
    def left(self) -> float:
        """Seconds until the wait ends."""
        return self._deadline - time.monotonic()

    def session(
        self, target: Target, *, include_details: bool, silent_fail: bool, logged_until: datetime | None
    ) -> _sessions.WaitSession:
        """
        Return the session of a sensor that polls with :meth:`check`.

        :param target: The version to wait for.
        :param include_details: Whether its details are needed.
        :param silent_fail: Whether to log an error that needs a person to fix it, and continue.
        :param logged_until: See :class:`~airflow_provider_imageversions._sessions.StatusLogger`.
        """
        return _sessions.WaitSession(
            target=target,
            include_details=include_details,
            interval=self._interval,
            deadline=self._deadline,
            silent_fail=silent_fail,
            status=_sessions.StatusLogger(logged_until),
        )

    def check(self, session: _sessions.WaitSession) -> _sessions.Step:
        """
        Poll once for a sensor, or several times while an error may be temporary.

        :param session: The sensor's session.
        :return: The last step. Airflow makes the pause of a ``PollAgain``.
        """
        target = cast("Target", session.target)

        def poll(hook: SageMakerImageVersionsHook) -> decide.Outcome:
            return _reading.read_versions(hook, self._image_name, frozenset({target})).outcomes[target]

        while isinstance(step := self._poll(session, poll), _sessions.Retry):
            time.sleep(step.seconds)
        return step

    def call(self, step: Callable[[SageMakerImageVersionsHook], T]) -> T:
        """
        Run a step that calls the API, and retry it after temporary errors.

        :param step: Function that takes the hook. It must be safe to repeat.
        :raises SageMakerImageOperationTimeoutError: The step did not succeed within the timeout; the cause is its last
            error.
        :raises Exception: The step's error, if it is not temporary.
        """
        return self.wait(step)

    def wait(
        self,
        step: Callable[[SageMakerImageVersionsHook], T | decide.Waiting],
        *,
        target: Target | None = None,
        include_details: bool = False,
    ) -> T:
        """
        Repeat a step, as :meth:`call` does, while it returns ``Waiting``.

        :param step: Function that takes the hook and returns ``Waiting`` or a result.
        :param target: The version to wait for, if the wait is for a version. (default: ``None``)
        :param include_details: Whether to add details to the version. (default: False)
        :raises SageMakerImageOperationTimeoutError: The step did not succeed within the timeout.
        """
        session = self._operator_session(target=target, include_details=include_details)
        found: T | decide.Waiting = self._wait(session, step)
        if isinstance(found, decide.Waiting):
            raise self._timed_out(found.note)
        return found

    def wait_briefly(
        self, step: Callable[[SageMakerImageVersionsHook], T | decide.Waiting], *, patience: float
    ) -> T | decide.Waiting:
        """
        Wait as :meth:`wait` does, but return ``Waiting`` when the patience is over.

        :param step: See :meth:`wait`.
        :param patience: Maximum time in seconds to wait for a concurrent change.
        :raises Exception: See :meth:`call`.
        """
        session = self._operator_session(patience_until=time.monotonic() + patience)
        found: T | decide.Waiting = self._wait(session, step)
        return found

    def _operator_session(self, **options: Any) -> _sessions.WaitSession:
        return _sessions.WaitSession(
            interval=self._interval,
            deadline=self._deadline,
            status=self._status,
            changes=True,
            eager=True,
            **options,
        )

    def _wait(self, session: _sessions.WaitSession, poll: ApiCall) -> Any:
        while isinstance(step := self._poll(session, poll), _sessions.PollAgain):
            time.sleep(step.seconds)
        match step:
            case _sessions.Succeed(found):
                return found
            case _sessions.Fail(reason):
                return decide.Failed(reason)
            case _sessions.TimeOut(waiting, None):
                return waiting
            case _sessions.TimeOut(waiting, cause):
                raise self._timed_out(waiting.note) from cause
            case _sessions.Raise(error):
                raise error
        raise AssertionError(step)

    def _poll(self, session: _sessions.WaitSession, poll: ApiCall) -> _sessions.Step:
        step = self._attempt(session, poll)
        if isinstance(step, _sessions.NeedDetails):
            version = step.version
            step = self._attempt(session, lambda hook: hook.add_details(self._image_name, version), of_details=True)
        return step

    def _attempt(self, session: _sessions.WaitSession, call: ApiCall, *, of_details: bool = False) -> _sessions.Step:
        failing = self._details_failing if of_details else self._polls_failing
        jitter = random.random()  # noqa: S311  # spreads calls, keeps no secret
        try:
            found = call(self.hook)
        except Exception as error:
            kind = classify_error(error)
            if kind is None:
                raise
            if kind is ErrorKind.CREDENTIALS:
                self._forget_client()
            now = time.monotonic()
            lasting = failing.lasts(kind, now)
            step = session.receive_error(kind, error, now, lasting=lasting, jitter=jitter, of_details=of_details)
        else:
            now = time.monotonic()
            failing.lasts(None, now)
            step = session.receive_details(found, now) if of_details else session.receive(found, now, jitter)
        _reading.write_logs(self._source.log, self._image_name, step.logs)
        return step

    def _forget_client(self) -> None:
        """Discard the client, because the connection or the credential chain may have new credentials."""
        if self._hook is not None:
            self._had_connection |= self._hook.has_connection
        self._hook = None

    def _timed_out(self, obstacle: str) -> SageMakerImageOperationTimeoutError:
        return SageMakerImageOperationTimeoutError(
            f"SageMaker image {self._image_name!r}: not completed within the timeout of {self._timeout:g} seconds: "
            f"{obstacle.removesuffix('.')}."
        )
