"""
What happens next: pure decisions about time.

A session takes what a poll returned, with the time, and returns what to do: a worker's loop, a trigger and the tests
drive the same objects. No Airflow, no boto, no clock, no randomness and no logging in here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.decide import Fault
from airflow_provider_imageversions.model import parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_imageversions._reading import PollResult
    from airflow_provider_imageversions.model import ImageVersion, Target

BACKOFF_CAP = 300.0
"""Maximum time in seconds between two polls while SageMaker or the network fails (or the interval, if longer)."""
GRACE = {Fault.PERMANENT: 10.0, Fault.CREDENTIALS: 120.0}
"""Time in seconds for which such an error must last before it ends a wait: IAM changes and rotations take a moment."""
GRACE_PACE = 5.0
"""Maximum time in seconds between two polls within that time."""
LONGEST_PAUSE = 20.0
"""Maximum time in seconds between two tries of a call that changes something."""
_ANSWERS = {Fault.PERMANENT, Fault.MISSING}
_FIRST_PAUSES = (0.5, 1.0)
_SHORTEST_RETRY = 0.1
_MAX_DOUBLINGS = 30


def describe_error(error: BaseException | None) -> str:
    """Return an error as one line of text with its kind."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def has_outlasted_grace(kind: Fault | None, lasting: float) -> bool:
    """
    Return whether an error that only a person can fix has lasted long enough to end a wait.

    :param kind: The kind of error; ``None`` if there was none.
    :param lasting: Seconds since the first poll that met this kind.
    """
    return kind in GRACE and lasting >= GRACE[kind]


class FaultTimer:
    """Measure for how long the same kind of error has been met without an interruption."""

    __slots__ = ("_kind", "_since")

    def __init__(self) -> None:
        self._kind: Fault | None = None
        self._since = 0.0

    def lasts(self, kind: Fault | None, now: float) -> float:
        """
        Count what was just met.

        :param kind: The kind of error; ``None`` if there was none.
        :param now: Seconds of a monotonic clock.
        :return: Seconds since this kind was met first; 0 without an error.
        """
        if kind is not self._kind:
            self._kind, self._since = kind, now
        return 0.0 if kind is None else now - self._since


@dataclass(frozen=True)
class Log:
    """A line for the task's or the triggerer's log; the driver puts the image's name before it."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


@dataclass(frozen=True)
class Step:
    """
    What to do next.

    :param logs: Lines to log first.
    """

    logs: tuple[Log, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Succeed(Step):
    """The wait is over."""

    found: Any


@dataclass(frozen=True)
class Fail(Step):
    """The wait is over: what was waited for cannot come any more."""

    reason: str


@dataclass(frozen=True)
class Raise(Step):
    """The wait is over: an error ends it that only a person can fix."""

    error: Exception


@dataclass(frozen=True)
class TimeOut(Step):
    """The wait is over: its time is. The cause is the last error, if it was an error that used it up."""

    waiting: decide.Waiting
    cause: Exception | None = None


@dataclass(frozen=True)
class PollAgain(Step):
    """Poll again after a pause in seconds."""

    seconds: float


@dataclass(frozen=True)
class Retry(PollAgain):
    """Poll again after a pause that is part of this poll: it is shorter than the interval, as an error may pass."""


@dataclass(frozen=True)
class NeedDetails(Step):
    """Read the details of a version that is CREATED."""

    version: ImageVersion


class StatusLogger:
    """
    Decide what is worth a line in the log: what changed, rather than every poll.

    :param logged_until: When another process polled and logged last, if one did. What did not change since is logged
        at the level DEBUG.
    """

    __slots__ = ("_kind", "_logged_until", "_note")

    def __init__(self, logged_until: datetime | None = None) -> None:
        self._logged_until = logged_until
        self._note: str | None = None
        self._kind: Fault | None = None

    def log(self, level: Literal["info", "warning", "error"], text: str, *, since: str | None = None) -> tuple[Log, ...]:
        """
        Return a line, unless it was the last one.

        :param level: Its level.
        :param text: The line.
        :param since: When what it says began, ISO-8601. (default: it is news)
        """
        if text == self._note:
            return ()
        self._note = text
        already_logged = since is not None and self._logged_until is not None
        if already_logged and parse_time("since", since) < self._logged_until:
            return (Log("debug", text),)
        return (Log(level, text),)

    def log_fault(self, kind: Fault, error: Exception | None) -> tuple[Log, ...]:
        """
        Return what to log of a poll that failed.

        :param kind: The kind of error.
        :param error: The error.
        """
        before, self._kind = self._kind, kind
        if kind is Fault.MISSING:
            text = f"does not exist yet: {describe_error(error)}"
            return self.log("warning", text, since="0001-01-01T00:00:00+00:00")
        if before in {None, Fault.MISSING} or (kind in GRACE and kind is not before):
            return self.log("warning", f"cannot be polled; retrying: {describe_error(error)}")
        return ()

    def log_recovery(self) -> tuple[Log, ...]:
        """Return what to log of a poll that succeeded."""
        before, self._kind = self._kind, None
        return () if before is None else self.log("info", "can be polled again")


@dataclass(slots=True, kw_only=True)
class WaitSession:
    """
    Decide how one wait goes on: of a sensor, of its trigger, or of an operator.

    All errors are waited out, but those of :data:`GRACE` only for that long. Each wait polls at least once, and once
    more when its time is over.

    :param target: What is waited for, if it is a version.
    :param include_details: Whether its details are needed.
    :param interval: Seconds between two polls.
    :param deadline: When waiting ends, by the clock of ``now`` below. (default: somebody else ends it)
    :param patience_until: When waiting for somebody else's change ends. (default: with the deadline)
    :param changes: Whether each poll makes a call that changes something. Then access denied and a missing resource
        are raised at once, as they may be the answer to this very call.
    :param eager: Poll soon at first, up to the interval, as what an operator waits for usually takes seconds.
    :param silent_fail: Log an error that only a person can fix, and go on.
    :param backoff_from: When the first interval begins, by the clock of ``now``, if each is to be twice the one before.
        (default: all are equal)
    :param max_wait: Seconds that the interval may grow to. (default: no limit)
    :param status: Decides what is logged.
    """

    target: Target | None = None
    include_details: bool = False
    interval: float
    deadline: float = math.inf
    patience_until: float = math.inf
    changes: bool = False
    eager: bool = False
    silent_fail: bool = False
    backoff_from: float | None = None
    max_wait: float = math.inf
    status: StatusLogger = field(default_factory=StatusLogger)
    _polls: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _was_listed: bool = field(default=False, init=False)

    def receive_poll(self, result: PollResult, now: float) -> Step:
        """
        Return what follows from a shared poll.

        :param result: What it read for the target.
        :param now: Seconds of a monotonic clock.
        """
        if result.fault is not None and result.error is not None:
            return self.receive_error(result.fault, result.error, now, lasting=result.lasting)
        return self.receive(result.outcomes[cast("Target", self.target)], now)

    def receive(self, outcome: Any, now: float, jitter: float = 1.0) -> Step:
        """
        Return what follows from a poll that succeeded.

        :param outcome: ``Waiting`` and ``Failed`` mean what they say; anything else is what was waited for.
        :param now: Seconds of a monotonic clock.
        :param jitter: A random number from 0 to 1, so that tasks do not poll at the same time.
        """
        self._failures = 0
        logs = self.status.log_recovery()
        outcome = self._with_memory(outcome)
        if isinstance(outcome, decide.Failed):
            return Fail(outcome.reason, logs=logs)
        if not isinstance(outcome, decide.Waiting):
            if self.include_details:
                return NeedDetails(outcome.version, logs=logs)
            return Succeed(outcome, logs=logs)
        logs += self._log_waiting(outcome)
        left = min(self.deadline, self.patience_until) - now
        if left <= 0:
            return TimeOut(outcome, logs=logs)
        return PollAgain(min(self._next_interval(now, jitter), left), logs=logs)

    def receive_details(self, details: ImageVersion | PollResult, now: float) -> Step:
        """
        Return what follows from reading the details.

        :param details: The record with its details, or what kept it from being read.
        :param now: Seconds of a monotonic clock.
        """
        if isinstance(details, dict):
            return Succeed(decide.Ready(details))
        failed: Any = details
        return self.receive_error(failed.fault, failed.error, now, lasting=failed.lasting, of_details=True)

    def receive_error(
        self,
        kind: Fault,
        error: Exception,
        now: float,
        *,
        lasting: float,
        jitter: float = 1.0,
        of_details: bool = False,
    ) -> Step:
        """
        Return what follows from a call that failed.

        :param kind: The kind of error.
        :param error: The error.
        :param now: Seconds of a monotonic clock.
        :param lasting: Seconds since the first call that failed like this.
        :param jitter: A random number from 0 to 1.
        :param of_details: Whether it was the details that could not be read.
        """
        self._failures += 1
        if kind is Fault.MISSING:
            # The number may come again, with the next image of this name.
            self._was_listed = False
        left = self.deadline - now
        grace = 0.0 if self.changes and kind in _ANSWERS else GRACE.get(kind)
        is_fatal = grace is not None and (lasting >= grace or left <= 0)
        if is_fatal and not self.silent_fail:
            return Raise(error)
        if kind is Fault.CREDENTIALS and lasting == 0 and not is_fatal:
            # There may be new ones already.
            return Retry(0.0)
        logs = self._log_error(kind, error, of_details=of_details, is_fatal=is_fatal)
        if grace is not None and not is_fatal:
            return Retry(min(self.interval or GRACE_PACE, GRACE_PACE, left), logs=logs)
        if kind is Fault.IN_USE and now >= self.patience_until:
            return Raise(error, logs=logs)
        if left <= 0:
            return TimeOut(decide.Waiting(describe_error(error)), error, logs=logs)
        return PollAgain(min(self._pause_after_error(now, jitter), left), logs=logs)

    def _with_memory(self, outcome: Any) -> Any:
        """Return the outcome in the light of earlier ones: a version that was listed is not one that is to come."""
        number = None if self.target is None else self.target.version
        if number is None or not isinstance(outcome, decide.Waiting):
            return outcome
        if outcome.version is None and self._was_listed:
            return decide.deleted_while_awaited(number)
        self._was_listed = outcome.version is not None
        return outcome

    def _next_interval(self, now: float, jitter: float) -> float:
        if self.eager:
            pause = _spread(jitter, *_FIRST_PAUSES) * 2.0 ** min(self._polls, _MAX_DOUBLINGS)
            self._polls += 1
            return min(self.interval, pause)
        # Polls that other waits needed are no reason to wait longer.
        if self.backoff_from is not None and now - self.backoff_from >= self.interval / 2:
            self.interval = min(self.interval * 2, self.max_wait)
            self.backoff_from = now
        return self.interval

    def _pause_after_error(self, now: float, jitter: float) -> float:
        if not self.eager:
            return self._next_interval(now, jitter)
        longest = min(2.0 ** min(self._failures - 1, _MAX_DOUBLINGS), LONGEST_PAUSE)
        return _spread(jitter, _SHORTEST_RETRY, longest)

    def _log_waiting(self, outcome: decide.Waiting) -> tuple[Log, ...]:
        text = outcome.note if self.target is None else f"waiting for {self.target}: {outcome.note}"
        if outcome.unknown:
            return self.status.log("warning", f"{text}, which this package does not know")
        return self.status.log("info", text, since=outcome.since)

    def _log_error(self, kind: Fault, error: Exception, *, of_details: bool, is_fatal: bool) -> tuple[Log, ...]:
        shown = describe_error(error)
        if is_fatal:
            return self.status.log("error", f"still waiting, because silent_fail is set: {shown}")
        if of_details:
            return self.status.log("warning", f"CREATED, but its details cannot be read yet: {shown}")
        if self.changes:
            return self.status.log("info", f"retrying after an error: {shown}")
        return self.status.log_fault(kind, error)


def _spread(jitter: float, low: float, high: float) -> float:
    return low + jitter * (high - low)
