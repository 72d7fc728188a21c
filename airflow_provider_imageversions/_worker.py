"""Wait in a worker: one task that calls the API by itself."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_imageversions import _sessions, decide
from airflow_provider_imageversions._reading import PollResult, StatusLogger, read_versions
from airflow_provider_imageversions.errors import SageMakerImageOperationTimeoutError, classify_error, describe_error
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.model import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from airflow_provider_imageversions.model import Target

T = TypeVar("T")
_PASSING = {ErrorKind.IN_USE, ErrorKind.THROTTLED, ErrorKind.TRANSIENT}


class WorkerPoller:
    """
    One task that calls the API by itself, in a worker.

    :param source: What has the parameters that say how to reach AWS: an operator or a sensor.
    :param image_name: Name of the image.
    :param interval: Seconds between two looks at the most.
    :param timeout: Seconds after which waiting ends.
    :param left: How many of them are left; default: all.
    :param looked_at: See :class:`StatusLogger`.
    """

    def __init__(
        self,
        source: Any,
        image_name: str,
        *,
        interval: float = 0.0,
        timeout: float = 0.0,
        left: float | None = None,
        looked_at: datetime | None = None,
    ) -> None:
        self.watch = StatusLogger(source.log, image_name, looked_at)
        self._source = source
        self._image_name = image_name
        self._interval = interval
        self._timeout = timeout
        self._deadline = time.monotonic() + (timeout if left is None else left)
        self._hook: SageMakerImageVersionsHook | None = None
        self._had_connection = False
        self._failing = _sessions.FaultTimer()

    @property
    def hook(self) -> SageMakerImageVersionsHook:
        """The hook; made when it is needed first."""
        if self._hook is None:
            self._hook = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self._source))
            # To Airflow 3 an outage of its database looks like a missing connection.
            self._hook.may_fall_back &= not self._had_connection
        return self._hook

    @property
    def left(self) -> float:
        """Seconds until waiting ends."""
        return self._deadline - time.monotonic()

    def outcome(self, target: Target, *, details: bool) -> decide.Outcome:
        """
        Poll once for what is waited for, or several times while an error has its :data:`GRACE`.

        :param target: What is waited for.
        :param details: Whether to add its details to a version that is ready.
        :raises Exception: An error that only a person can fix and that lasts, or that outlasts the timeout.
        """
        outcome = self._with_grace(lambda: self._look(target), self._report_fault)
        if not details or not isinstance(outcome, decide.Ready):
            return outcome
        version = outcome.version
        try:
            detailed = self._with_grace(
                lambda: self.hook.add_details(self._image_name, version), self.watch.report_details
            )
        except Exception as error:
            if classify_error(error) in {None, *_sessions.GRACE}:
                raise
            self.watch.report_details(error)
            return decide.Waiting("its details can't be read yet")
        return decide.Ready(detailed)

    def _look(self, target: Target) -> decide.Outcome:
        result = read_versions(self.hook, self._image_name, [target])
        if result.fault in _sessions.GRACE and result.error is not None:
            raise result.error
        return self.watch.judge(result, target)

    def _report_fault(self, error: Exception) -> None:
        self.watch.sees(PollResult(frozenset(), fault=classify_error(error), error=error))

    def _with_grace(self, poll: Callable[[], T], report: Callable[[Exception], object]) -> T:
        while True:
            try:
                found = poll()
            except Exception as error:  # noqa: PERF203  # what is tried again is a call over the network
                if not self._has_grace(error, _sessions.GRACE, report):
                    raise
            else:
                self._failing.lasts(None)
                return found

    def _has_grace(
        self, error: Exception, faults: Collection[ErrorKind], report: Callable[[Exception], object]
    ) -> bool:
        """Whether to try again what failed, after a pause that is over when this returns."""
        fault = classify_error(error)
        lasting = self._failing.lasts(fault if fault in faults else None)
        if fault is None or fault not in faults or lasting >= _sessions.GRACE[fault]:
            return False
        if fault is ErrorKind.CREDENTIALS:
            # The connection, or the credential chain, may have new ones by now.
            if self._hook is not None:
                self._had_connection |= self._hook.has_connection
            self._hook = None
            if lasting == 0:
                return True
        pause = min(self._interval or _sessions.GRACE_PACE, _sessions.GRACE_PACE)
        if pause > self.left:
            return False
        report(error)
        time.sleep(pause)
        return True

    def call(self, step: Callable[[SageMakerImageVersionsHook], T], *, patience: float | None = None) -> T:
        """
        Take a step that calls the API, again and again while what keeps it from succeeding passes by itself.

        Credentials have their :data:`GRACE`. Access denied is raised at once: it may be the answer to this very step.

        :param step: What to do with the hook; it has to be safe to repeat.
        :param patience: Seconds after which somebody else's change is waited for no longer; default: all that is left.
        :raises SageMakerImageOperationTimeoutError: The timeout is over, and what the step raised is the cause.
        :raises Exception: What the step raised, if it does not pass by itself or the patience is over.
        """
        impatient = self._deadline if patience is None else min(self._deadline, time.monotonic() + patience)
        for failures in itertools.count():
            try:
                found = step(self.hook)
            except Exception as error:  # noqa: PERF203  # likewise
                if self._has_grace(error, {ErrorKind.CREDENTIALS}, self._report_retry):
                    continue
                fault = classify_error(error)
                pause = random.uniform(0.1, min(2.0 ** min(failures, 30), _sessions.LONGEST_PAUSE))  # noqa: S311  # spreads calls, keeps no secret
                if fault not in _PASSING:
                    raise
                if time.monotonic() + pause > self._deadline:
                    raise self._timed_out(describe_error(error)) from error
                if fault is ErrorKind.IN_USE and time.monotonic() + pause > impatient:
                    raise
                self._report_retry(error)
                time.sleep(pause)
            else:
                self._failing.lasts(None)
                return found
        raise AssertionError

    def _report_retry(self, error: Exception) -> None:
        self.watch.report(f"will try again: {describe_error(error)}")

    def wait(self, look: Callable[[SageMakerImageVersionsHook], T | decide.Waiting]) -> T:
        """
        Look until there is something else than to wait.

        :param look: A step as for :meth:`call`, which says what it is waiting for.
        :raises SageMakerImageOperationTimeoutError: The timeout is over.
        """
        found = self._wait_until(self._deadline, look)
        if isinstance(found, decide.Waiting):
            raise self._timed_out(found.note)
        return found

    def wait_briefly(
        self, look: Callable[[SageMakerImageVersionsHook], T | decide.Waiting], *, patience: float
    ) -> T | decide.Waiting:
        """
        Wait as :meth:`wait` does, but return what is in the way once the patience is over.

        :param look: See :meth:`wait`.
        :param patience: Maximum time in seconds to wait, also for somebody else's change.
        :raises Exception: See :meth:`call`.
        """
        return self._wait_until(min(self._deadline, time.monotonic() + patience), look, patience=patience)

    def _wait_until(
        self,
        deadline: float,
        look: Callable[[SageMakerImageVersionsHook], T | decide.Waiting],
        *,
        patience: float | None = None,
    ) -> T | decide.Waiting:
        for looks in itertools.count():
            found = self.call(look, patience=patience)
            if not isinstance(found, decide.Waiting):
                return found
            self.watch.report(found.note, warn=found.unknown)
            left = deadline - time.monotonic()
            if left <= 0:
                return found
            # Soon at first, as most of what is waited for takes seconds; and not all tasks at the same time.
            pause = random.uniform(0.5, 1.0) * 2.0 ** min(looks, 30)  # noqa: S311  # likewise
            time.sleep(min(self._interval, left, pause))
        raise AssertionError

    def _timed_out(self, obstacle: str) -> SageMakerImageOperationTimeoutError:
        return SageMakerImageOperationTimeoutError(
            f"SageMaker image {self._image_name!r}: {obstacle}, and the timeout of {self._timeout:g} seconds is over."
        )
