"""
Sessions of waits and watchers: pure decisions about what to do next, and when.

A session receives the result of a poll and the time, and returns the next step. A worker's loop, a trigger and the
tests drive the same objects. There is no Airflow, boto, clock, randomness or logging in this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import parse_time
from airflow_provider_imageversions.model import (
    AliasCursor,
    Cursor,
    ErrorKind,
    Target,
    VersionsAbove,
    describe_error,
    event_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterable

    from airflow_provider_imageversions._reading import PollResult
    from airflow_provider_imageversions.model import ImageVersion, WatchConfig

    T = TypeVar("T")
    Steps = Generator["Step", tuple[Any, float], T]

BACKOFF_CAP = 300.0
"""Maximum time in seconds between two polls while SageMaker or the network fails (or the interval, if longer)."""
GRACE = {ErrorKind.PERMANENT: 10.0, ErrorKind.CREDENTIALS: 120.0}
"""Time in seconds that such an error must last before it ends a wait, as IAM changes and rotations take a moment."""
GRACE_PACE = 5.0
"""Maximum time in seconds between two polls within that time."""
LONGEST_PAUSE = 20.0
"""Maximum time in seconds between two tries of a call that changes a resource."""
SLOW_PACE = 300.0
"""Minimum time in seconds between two polls of a watcher while only a person can fix what is wrong."""
STORED_AFTER = 30.0
"""
Time in seconds after which Airflow has stored an event that was emitted before.

It usually takes one or two. While a triggerer creates triggers, such as after a restart, it sends no events.
"""
DETAILS_AT_ONCE = 10
"""Maximum number of versions whose details are read before their events are emitted."""
SENT_KEPT = 1000
"""Maximum number of emitted events that are stored, to mark them as redelivered."""
NO_DETAILS = "CREATED, but its details cannot be read yet"
SINCE = "since"
"""Key of the time since when a watcher that has not polled successfully yet has watched."""
_LONG_AGO = "0001-01-01T00:00:00+00:00"
_ANSWERS = {ErrorKind.PERMANENT, ErrorKind.MISSING}
_FIRST_PAUSES = (0.5, 1.0)
_SHORTEST_RETRY = 0.1
_SHORTEST_BACKOFF = 1.0


def doubled(pause: float, times: int, longest: float) -> float:
    """
    Return a pause that is doubled several times, up to the longest one.

    :param pause: The first pause in seconds.
    :param times: How often to double it. Above 30 times, any pause is longer than the longest one.
    :param longest: The longest pause in seconds.
    """
    return min(pause * 2.0 ** min(times, 30), longest)


def retry_interval(failures: int, interval: float) -> float:
    """
    Return how long to wait after the details of a CREATED version could not be read: less than an interval.

    :param failures: Number of failures in a row.
    :param interval: The interval in seconds.
    """
    return interval if failures == 0 else doubled(min(GRACE_PACE, interval), failures - 1, interval)


def has_outlasted_grace(kind: ErrorKind | None, lasting: float) -> bool:
    """
    Return whether an error that needs a person to fix it has lasted long enough to end a wait.

    :param kind: The kind of error; ``None`` if there was none.
    :param lasting: Seconds since the first poll that failed with this kind of error.
    """
    return kind in GRACE and lasting >= GRACE[kind]


@dataclass(slots=True)
class FaultTimer:
    """Measure how long calls have failed with the same kind of error without interruption."""

    _kind: ErrorKind | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def lasts(self, kind: ErrorKind | None, now: float) -> float:
        """
        Record the outcome of a call.

        :param kind: The kind of error; ``None`` if there was none.
        :param now: Seconds of a monotonic clock.
        :return: Seconds since the first call that failed with this kind of error; 0 without an error.
        """
        if kind is not self._kind:
            self._kind, self._since = kind, now
        return 0.0 if kind is None else now - self._since


@dataclass(frozen=True)
class Log:
    """A line for the log of the task or the triggerer. The driver prepends the image's name."""

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
    """The wait is over: the target can no longer be reached."""

    reason: str


@dataclass(frozen=True)
class Raise(Step):
    """The wait is over because of an error that needs a person to fix it."""

    error: Exception


@dataclass(frozen=True)
class TimeOut(Step):
    """The wait timed out. The cause is the last error, if the last call failed."""

    waiting: decide.Waiting
    cause: Exception | None = None


@dataclass(frozen=True)
class PollAgain(Step):
    """Poll again after a pause in seconds."""

    seconds: float


@dataclass(frozen=True)
class Retry(PollAgain):
    """Poll again after a short pause within the interval, because the error may be temporary."""


@dataclass(frozen=True)
class NeedDetails(Step):
    """Read the details of a version that is CREATED."""

    version: ImageVersion


@dataclass(slots=True)
class StatusLogger:
    """
    Decide what to log: changes, rather than every poll.

    :param logged_until: When another process polled and logged last, if any. What has not changed since then is logged
        at level DEBUG.
    """

    logged_until: datetime | None = None
    _note: str | None = field(default=None, init=False)
    _kind: ErrorKind | None = field(default=None, init=False)

    def log(
        self, level: Literal["info", "warning", "error"], text: str, *, since: str | None = None
    ) -> tuple[Log, ...]:
        """
        Return a line, unless it was the last one.

        :param level: Its level.
        :param text: The line.
        :param since: When the reported state began, as an ISO-8601 string. (default: now)
        """
        if text == self._note:
            return ()
        self._note = text
        until = self.logged_until
        is_old = until is not None and since is not None and parse_time("since", since) < until
        return (Log("debug" if is_old else level, text),)

    def log_fault(self, kind: ErrorKind, error: Exception | None) -> tuple[Log, ...]:
        """
        Return what to log about a failed poll.

        :param kind: The kind of error.
        :param error: The error.
        """
        before, self._kind = self._kind, kind
        if kind is ErrorKind.MISSING:
            return self.log("warning", f"does not exist yet: {describe_error(error)}", since=_LONG_AGO)
        if before in {None, ErrorKind.MISSING} or (kind in GRACE and kind is not before):
            return self.log("warning", f"cannot be polled; retrying: {describe_error(error)}")
        return ()

    def log_recovery(self) -> tuple[Log, ...]:
        """Return what to log about a successful poll."""
        before, self._kind = self._kind, None
        return () if before is None else self.log("info", "can be polled again")

    def log_waiting(self, target: Target | VersionsAbove | None, outcome: decide.Waiting) -> tuple[Log, ...]:
        """
        Return what to log while waiting.

        :param target: The version to wait for, if the wait is for a version.
        :param outcome: The outcome.
        """
        text = outcome.note if target is None else f"waiting for {target}: {outcome.note}"
        if outcome.unknown:
            return self.log("warning", f"{text}, which this package does not know")
        return self.log("info", text, since=outcome.since)


@dataclass(slots=True, kw_only=True)
class WaitSession:
    """
    Decide how to continue a wait of a sensor, of its trigger, or of an operator.

    The session retries after all errors, but after those in :data:`GRACE` only for that time. Each wait polls at least
    once, and once more at its deadline.

    :param target: The version to wait for, if the wait is for a version.
    :param include_details: Whether its details are needed.
    :param created_by_task: Whether the task created it, so that a missing image was deleted.
    :param interval: Seconds between two polls.
    :param deadline: When waiting ends, by the clock of ``now`` below. (default: the caller ends it)
    :param patience_until: When waiting for a concurrent change ends. (default: at the deadline)
    :param changes: Whether each poll makes a call that changes a resource. Then access denied and a missing resource
        are raised at once, because they may be caused by this call.
    :param eager: Start with short intervals, because what an operator waits for usually takes seconds.
    :param silent_fail: Log an error that needs a person to fix it, and continue.
    :param backoff_from: When the first interval begins, by the clock of ``now``, if the interval doubles each time.
        (default: constant intervals)
    :param max_wait: Maximum interval in seconds. (default: no limit)
    :param status: Decides what to log.
    """

    target: Target | None = None
    include_details: bool = False
    created_by_task: bool = False
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
    _detailed: ImageVersion | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.backoff_from is not None:
            # As Airflow's poke mode; 0 would never grow.
            self.interval = min(max(self.interval, _SHORTEST_BACKOFF), self.max_wait)

    def receive_poll(self, result: PollResult, now: float) -> Step:
        """
        Return the next step after a shared poll.

        :param result: What the poll read for the target.
        :param now: Seconds of a monotonic clock.
        """
        target = cast("Target", self.target)
        if self.created_by_task and result.fault is ErrorKind.MISSING:
            return Fail(f"version {target.version} was deleted with its image before it was CREATED")
        if result.fault is not None and result.error is not None:
            return self.receive_error(result.fault, result.error, now, lasting=result.lasting)
        return self.receive(result.outcomes[target], now)

    def receive(self, outcome: Any, now: float, jitter: float = 1.0) -> Step:
        """
        Return the next step after a successful poll.

        :param outcome: ``Waiting``, ``Failed``, or what the wait is for.
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
                self._detailed = outcome.version
                return NeedDetails(outcome.version, logs=logs)
            return Succeed(outcome, logs=logs)
        logs += self.status.log_waiting(self.target, outcome)
        left = min(self.deadline, self.patience_until) - now
        if left <= 0:
            return TimeOut(outcome, logs=logs)
        return PollAgain(min(self._next_interval(now, jitter), left), logs=logs)

    def receive_details(self, details: ImageVersion | PollResult, now: float) -> Step:
        """
        Return the next step after reading the details.

        :param details: The record with details, or the failed result.
        :param now: Seconds of a monotonic clock.
        """
        if isinstance(details, dict):
            if self._detailed is not None and decide.is_unchanged(details, self._detailed):
                return Succeed(decide.Ready(details))
            # The details may be read long after the list, so the next poll decides.
            return PollAgain(min(self._next_interval(now, 1.0), max(self.deadline - now, 0.0)))
        failed: Any = details
        return self.receive_error(failed.fault, failed.error, now, lasting=failed.lasting, of_details=True)

    def receive_error(
        self,
        kind: ErrorKind,
        error: Exception,
        now: float,
        *,
        lasting: float,
        jitter: float = 1.0,
        of_details: bool = False,
    ) -> Step:
        """
        Return the next step after a failed call.

        :param kind: The kind of error.
        :param error: The error.
        :param now: Seconds of a monotonic clock.
        :param lasting: Seconds since the first call that failed like this.
        :param jitter: A random number from 0 to 1.
        :param of_details: Whether the call was for details.
        """
        self._failures += 1
        if kind is ErrorKind.MISSING and not of_details:
            # A new image with this name starts its numbers again.
            self._was_listed = False
        left = self.deadline - now
        grace = 0.0 if self.changes and kind in _ANSWERS else GRACE.get(kind)
        if kind is ErrorKind.CREDENTIALS and lasting == 0:
            # New credentials may be available already.
            return Retry(0.0)
        is_fatal = grace is not None and (lasting >= grace or left <= 0)
        if is_fatal and not self.silent_fail:
            return Raise(error)
        logs = self._log_error(kind, error, of_details=of_details, is_fatal=is_fatal)
        if grace is not None and not is_fatal:
            return Retry(min(self.interval or GRACE_PACE, GRACE_PACE, left), logs=logs)
        if kind is ErrorKind.IN_USE and now >= self.patience_until:
            return Raise(error, logs=logs)
        if left <= 0:
            return TimeOut(decide.Waiting(describe_error(error)), error, logs=logs)
        if of_details and not is_fatal:
            soon = retry_interval(self._failures, self.interval)
            again: PollAgain = Retry(min(soon, left), logs=logs)
        else:
            again = PollAgain(min(self._pause_after_error(now, jitter), left), logs=logs)
        return again

    def _with_memory(self, outcome: Any) -> Any:
        """Return the outcome, or that the version was deleted if an earlier poll listed it."""
        number = None if self.target is None else self.target.version
        if number is None:
            return outcome
        # One that is CREATED is awaited, too, while its details cannot be read.
        is_listed = not isinstance(outcome, decide.Waiting) or outcome.version is not None
        if self._was_listed and not is_listed:
            return decide.Failed(f"version {number} was deleted before it was CREATED")
        self._was_listed = is_listed
        return outcome

    def _next_interval(self, now: float, jitter: float) -> float:
        if self.eager:
            self._polls += 1
            return doubled(_spread(jitter, *_FIRST_PAUSES), self._polls - 1, self.interval)
        # Polls for other waits do not extend the interval.
        if self.backoff_from is not None and now - self.backoff_from >= self.interval / 2:
            self.interval = min(self.interval * 2, self.max_wait)
            self.backoff_from = now
        return self.interval

    def _pause_after_error(self, now: float, jitter: float) -> float:
        if not self.eager:
            return self._next_interval(now, jitter)
        return _spread(jitter, _SHORTEST_RETRY, doubled(1.0, self._failures - 1, LONGEST_PAUSE))

    def _log_error(self, kind: ErrorKind, error: Exception, *, of_details: bool, is_fatal: bool) -> tuple[Log, ...]:
        shown = describe_error(error)
        if is_fatal:
            return self.status.log("error", f"still waiting, because silent_fail is set: {shown}")
        if of_details:
            return self.status.log("warning", f"{NO_DETAILS}: {shown}")
        if self.changes:
            return self.status.log("info", f"retrying after an error: {shown}")
        return self.status.log_fault(kind, error)


def _spread(jitter: float, low: float, high: float) -> float:
    return low + jitter * (high - low)


# --- Watching an image -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Poll(Step):
    """Poll for a target, with this interval from now on. The driver sends the ``PollResult``."""

    target: Target | VersionsAbove
    interval: float


@dataclass(frozen=True)
class Save(Step):
    """Store the state. The driver sends whether that succeeded, and must not do so before the state is stored."""

    state: dict[str, Any]


@dataclass(frozen=True)
class Emit(Step):
    """Emit the event of a version, with further arguments of ``event_payload``."""

    version: ImageVersion
    event: dict[str, Any]


@dataclass(frozen=True)
class Detection:
    """
    What a detector found.

    :param versions: Versions to emit events for, in this order.
    :param cursor: The cursor after them.
    :param waiting: What to wait for before the next event, if known.
    """

    versions: list[ImageVersion]
    cursor: Any
    waiting: decide.Waiting | None = None


class NewVersions:
    """
    Detect versions that reach a status.

    :param config: What is watched.
    """

    cursor_type = Cursor
    commits_first = False
    """Whether the cursor is stored before the event is emitted, rather than after Airflow has had time to store it."""
    alias = None

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self.target = VersionsAbove()

    def aim(self, cursor: Cursor, versions: Iterable[ImageVersion] = ()) -> None:
        """Make the next poll read as far as the cursor needs."""
        self.target = decide.lowest_unsettled(versions, cursor)

    def baseline(self, result: PollResult, blind_since: datetime | None) -> Cursor:
        """Return the cursor of the first start, which may have been before the versions could be read."""
        return decide.baseline(result.versions, self._config.start_from, started=blind_since)

    def detect(self, result: PollResult, cursor: Cursor, later: Container[int] = ()) -> Detection | None:
        """
        Return what was detected; ``None`` if the next poll has to read more first.

        :param result: A successful poll.
        :param cursor: The cursor before.
        :param later: Numbers of versions to leave for later. (default: none)
        """
        needed = decide.lowest_unsettled(result.versions, cursor)
        if needed.number < self.target.number:
            self.target = needed
            return None
        start_from = self._config.start_from
        return Detection(
            *decide.detect_new_versions(
                result.versions,
                cursor,
                statuses=tuple(self._config.statuses),
                since=start_from if isinstance(start_from, datetime) else None,
                later=later,
            )
        )

    @staticmethod
    def event_id(version: ImageVersion, _: Cursor) -> str:
        """Return the identity of a version's event."""
        return event_id(version)


class AliasMoves:
    """
    Detect moves of an alias.

    :param config: What is watched.
    :param may_be_lost: Returns whether a crash may have lost the event with this identity.
    """

    cursor_type = AliasCursor
    # The next move starts from this one, whether or not its event was stored. The stored event ids show whether it may
    # have to be emitted again.
    commits_first = True

    def __init__(self, config: WatchConfig, may_be_lost: Callable[[str], bool]) -> None:
        self.alias = str(config.alias)
        self._may_be_lost = may_be_lost
        self._from_earliest = config.start_from == "earliest"
        self.target = Target(alias=self.alias)

    def aim(self, *_: object) -> None:
        """Do nothing, because each poll reads the alias's version."""

    def baseline(self, result: PollResult, _: datetime | None) -> AliasCursor:
        """Return the cursor of the first start. SageMaker does not report when an alias moved."""
        if self._from_earliest or result.fault is not None:
            return AliasCursor()
        return decide.detect_alias_move(result.outcomes[self.target], AliasCursor(), self.alias)[1]

    def detect(self, result: PollResult, cursor: AliasCursor, later: Container[int] = ()) -> Detection:
        """Return what was detected, see :meth:`NewVersions.detect`."""
        if later:
            return Detection([], cursor)
        outcome = result.outcomes[self.target]
        found = decide.detect_alias_move(outcome, cursor, self.alias, unsure=self._may_be_lost(cursor.event_id))
        return Detection(*found, waiting=outcome if isinstance(outcome, decide.Waiting) else None)

    @staticmethod
    def event_id(_: ImageVersion, cursor: AliasCursor) -> str:
        """Return the identity of the event of the move to a cursor."""
        return cursor.event_id


@dataclass
class _Unstored:
    """
    Events that Airflow may not have stored yet.

    :param cursor: The cursor after them.
    :param event_ids: Identities of these events and of those before.
    :param since: When the first request after these events was answered, by the clock of the session. (default: not
        yet)
    """

    cursor: Any
    event_ids: frozenset[str]
    since: float = math.inf


class WatchSession:
    """
    Decide how to continue watching an image. A session never ends.

    Events are emitted at least once; versions that become ready together are emitted in ascending order. The identity
    of an event is stored before it is emitted, so that a repetition can be marked as redelivered. The cursor moves past
    an event only when Airflow has had time to store it, so that a crash loses no event. A triggerer sends events once a
    second, through the same connection and in the same order as requests to the store, one at a time. So the time
    counts from the response to a request that was made after the event: a delay of that request also delays the event.

    :param config: What is watched.
    :param states: The stored state of each asset that shares the trigger; empty at the first start.
    :param interval: Maximum time in seconds between two polls.
    :param include_details: Whether to add details to the records.
    :param started: When the watcher started.
    :param is_blind: Whether it could not poll at once, so that versions may have been created since. (default: False)
    """

    def __init__(
        self,
        config: WatchConfig,
        states: list[dict[str, Any]],
        *,
        interval: float,
        include_details: bool,
        started: datetime,
        is_blind: bool = False,
    ) -> None:
        self._detector: Any = NewVersions(config) if config.alias is None else AliasMoves(config, self._may_be_lost)
        self._interval = interval
        self._include_details = include_details
        self._started = started
        self._blind_since = started if is_blind else None
        self._is_blocked = False
        self._status = StatusLogger()
        self._logs: tuple[Log, ...] = ()
        self._now = 0.0
        self._sent = list(dict.fromkeys(sent for state in states for sent in state["sent"]))
        self._sent_before = frozenset(self._sent)
        self._has_emitted = False
        self._unstored: list[_Unstored] = []
        self._saved: dict[str, Any] | None = None
        self._detail_failures = 0
        self._cursor: Any = None
        kind = self._detector.cursor_type
        # The least advanced of the assets that share the trigger, so that none of them misses an event.
        cursors = [kind.from_json(state[kind.KEY]) for state in states if kind.KEY in state]
        if cursors:
            self._cursor = min(cursors, key=lambda cursor: cursor.progress)
            self._detector.aim(self._cursor)
        elif states:
            self._started = self._blind_since = min(parse_time(SINCE, state[SINCE]) for state in states)
        self._committed = self._cursor

    @property
    def target(self) -> Target | VersionsAbove:
        """The versions that the next poll has to read."""
        target: Target | VersionsAbove = self._detector.target
        return target

    def run(self) -> Steps[None]:
        """Yield the next step; the driver sends its result, with the seconds of a monotonic clock."""
        result: PollResult | None = None
        while True:
            if result is None:
                result = yield from self._ask(Poll(self.target, self._next_interval()))
            result = yield from self._handle(result)

    def _handle(self, result: PollResult) -> Steps[PollResult | None]:
        """Handle a result; return it if it has more versions to emit."""
        if self._cursor is None and result.fault in {None, ErrorKind.MISSING}:
            # An image that does not exist has no versions to skip.
            self._cursor = self._committed = self._detector.baseline(result, self._blind_since)
            yield from self._save()
        if result.fault is not None:
            self._blind_since = self._started
            if self._cursor is None:
                # A restart must not skip what is created until the first poll succeeds.
                yield from self._save_state({SINCE: self._started.isoformat(), "sent": []})
            self._logs += self._status.log_fault(result.fault, result.error)
            self._slow_down(result)
            return None
        self._logs += self._status.log_recovery()
        found = self._detector.detect(result, self._cursor)
        if found is None:
            return None
        if found.waiting is not None:
            self._logs += self._status.log_waiting(self.target, found.waiting)
        records, is_readable = yield from self._read_details(found.versions)
        after, left = found.cursor, {version["Version"] for version in found.versions[len(records) :]}
        if left:
            after = self._detector.detect(result, self._cursor, left).cursor
        if not (yield from self._emit(records, after)):
            return None
        self._cursor = after
        yield from self._advance(has_emitted=bool(records))
        self._detector.aim(self._cursor, result.versions)
        return result if left and is_readable else None

    def _read_details(self, versions: list[ImageVersion]) -> Steps[tuple[list[ImageVersion], bool]]:
        """Return the versions to emit next, with details if requested, and whether all details could be read."""
        records: list[ImageVersion] = []
        for version in versions[:DETAILS_AT_ONCE] if self._include_details else ():
            details = yield from self._ask(NeedDetails(version))
            self._detail_failures += 1
            if not isinstance(details, dict):
                self._logs += self._status.log("warning", f"{NO_DETAILS}: {describe_error(details.error)}")
                self._slow_down(details)
                return records, False
            if not decide.is_unchanged(cast("ImageVersion", details), version):
                # The event's identity depends on the status. The next poll decides.
                return records, False
            self._detail_failures = 0
            records.append(cast("ImageVersion", details))
        self._is_blocked = False
        return records if self._include_details else versions, True

    def _emit(self, versions: list[ImageVersion], after: Any) -> Steps[bool]:
        """Emit events; return ``False`` if they must not be emitted because the state could not be stored before."""
        if not versions:
            return True
        event_ids = [self._detector.event_id(version, after) for version in versions]
        self._sent = list(dict.fromkeys([*self._sent, *event_ids]))
        if self._detector.commits_first:
            self._committed = after
        if not (yield from self._save()) and self._detector.commits_first:
            return False
        for version, identity in zip(versions, event_ids, strict=True):
            event = {"identity": identity, "alias": self._detector.alias, "redelivered": identity in self._sent_before}
            yield from self._ask(Emit(version, event))
        self._has_emitted = True
        return True

    def _advance(self, *, has_emitted: bool) -> Steps[None]:
        """Advance the stored cursor: at once if nothing was emitted, otherwise when Airflow has stored the events."""
        if has_emitted:
            self._unstored.append(_Unstored(self._cursor, frozenset(self._sent)))
        if any(each.since == math.inf for each in self._unstored):
            if not (yield from self._save(again=True)):
                return
            for each in self._unstored:
                each.since = min(each.since, self._now)
        while self._unstored and self._now - self._unstored[0].since >= STORED_AFTER:
            stored = self._unstored.pop(0)
            self._committed = stored.cursor
            self._sent = [identity for identity in self._sent if identity not in stored.event_ids]
        if self._detector.commits_first or not self._unstored:
            self._committed = self._cursor
        yield from self._save()

    def _may_be_lost(self, identity: str) -> bool:
        """Return whether an event from before the last restart may be lost, and was not emitted again yet."""
        return identity in self._sent_before and not self._has_emitted

    def _save(self, *, again: bool = False) -> Steps[bool]:
        state = {self._detector.cursor_type.KEY: self._committed.to_json(), "sent": self._sent[-SENT_KEPT:]}
        return (yield from self._save_state(state, again=again))

    def _save_state(self, state: dict[str, Any], *, again: bool = False) -> Steps[bool]:
        if state == self._saved and not again:
            return True
        is_saved: bool = yield from self._ask(Save(state))
        # If it failed, some of the assets may have stored it.
        self._saved = state if is_saved else None
        return is_saved

    def _next_interval(self) -> float:
        if self._is_blocked:
            return max(self._interval, SLOW_PACE)
        return retry_interval(self._detail_failures, self._interval)

    def _slow_down(self, failed: PollResult) -> None:
        if not has_outlasted_grace(failed.fault, failed.lasting) or self._is_blocked:
            return
        self._is_blocked = True
        pace, shown = max(self._interval, SLOW_PACE), describe_error(failed.error)
        text = f"No events will be emitted until this is resolved. Retrying every {pace:.0f} seconds: {shown}"
        self._logs += (Log("error", text),)

    def _ask(self, step: Step) -> Steps[Any]:
        logs, self._logs = self._logs, ()
        answer, self._now = yield replace(step, logs=logs)
        return answer
