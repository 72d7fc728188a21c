"""When to poll, in which order and how often: pure decisions, with clock readings and random numbers passed in."""

from __future__ import annotations

import heapq
import itertools
import math
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_imageversions import _sessions

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_provider_imageversions._reading import PollResult

BURST = 10.0
"""Maximum number of API calls that a connection makes in a region at once, after a quiet time."""
SLOWEST_RATE = 0.05
"""API calls per second below which throttling does not reduce the rate of a connection."""
SHORTEST_RETRY = 0.1
"""Minimum time in seconds between two polls after one that failed, which may have made no call that is limited."""
BEHIND = 0.1
"""Fraction of its interval by which a poll must be delayed to count as late."""
FIRST = -math.inf
"""Priority of calls that go before the polls of all images that were polled before."""


class Reason(Enum):
    """Why a poll was made."""

    INTERVAL = "interval"
    NEW_SUBSCRIBER = "new subscriber"
    SHORTER_INTERVAL = "shorter interval"
    READ_DEEPER = "read deeper"
    RETRY = "retry"
    WAKE_UP = "wake-up"


def gap(
    last: PollResult, interval: float, jitter: float, *, failures: int, is_first: bool = False, woken: bool = False
) -> float:
    """
    Return the seconds between the start of the last poll and the start of the next.

    :param last: The result of the last poll.
    :param interval: The shortest interval in seconds that a subscriber asks for.
    :param jitter: A random number from 0 to 1.
    :param failures: Number of consecutive failed polls. An image that does not exist is not a failure.
    :param is_first: Whether the last poll was the first one of the image. (default: False)
    :param woken: Whether a change was reported after the last successful poll. (default: False)
    """
    if last.fault in _sessions.GRACE:
        is_over = _sessions.has_outlasted_grace(last.fault, last.lasting)
        return max(interval if is_over else min(interval, _sessions.GRACE_PACE), SHORTEST_RETRY)
    if failures:
        if woken:
            interval = min(interval, _sessions.GRACE_PACE)
        ceiling = _sessions.doubled(interval, failures - 1, max(_sessions.BACKOFF_CAP, interval))
        return max(jitter * ceiling, min(interval, 1.0), SHORTEST_RETRY)
    if is_first:
        # Spread polls that started at the same time, for example after a restart of the triggerer.
        return interval * (1 + jitter) / 2
    return interval


def queue_retry_delay(failures: int, jitter: float) -> float:
    """
    Return the seconds until the next try to read a queue that could not be read.

    :param failures: Number of consecutive failures, 1 or more.
    :param jitter: A random number from 0 to 1.
    """
    return (1 + jitter) / 2 * _sessions.doubled(_sessions.GRACE_PACE, failures, _sessions.BACKOFF_CAP)


class CallQueue:
    """
    The API calls of a connection in a region: a sustained rate with a burst, a lower rate after throttling.

    Waiting calls get their turn by priority, so that the image with the oldest poll is polled next.

    :param rate: Maximum number of calls per second on average.
    :param now: The clock reading in seconds.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.full_rate = self.rate = rate
        self._credit = BURST
        self._counted_at = now
        self._waiting: list[tuple[float, int, float, Hashable]] = []
        self._arrivals = itertools.count()

    def add(self, turn: Hashable, priority: float, calls: float = 1.0) -> None:
        """
        Request a turn.

        :param turn: The turn.
        :param priority: Lower goes first, such as the time of the last poll. Equal priorities go in order of arrival.
        :param calls: Number of API calls to make in that turn.
        """
        heapq.heappush(self._waiting, (priority, next(self._arrivals), calls, turn))

    def cancel(self, turn: Hashable, calls: float) -> None:
        """Cancel a turn, whether or not it has been taken: others must not wait for calls that are not made."""
        waiting = [entry for entry in self._waiting if entry[3] != turn]
        if len(waiting) == len(self._waiting):
            self._credit += calls
        self._waiting = waiting
        heapq.heapify(self._waiting)

    def take_turns(self, now: float) -> list[Any]:
        """Return the turns that can be taken, in order, and count their calls as made."""
        turns = []
        while self._waiting and self.delay(now) <= 0:
            _, _, calls, turn = heapq.heappop(self._waiting)
            self._credit -= calls
            turns.append(turn)
        return turns

    def delay(self, now: float) -> float:
        """Return the seconds until the next turn; 0 if none is waiting."""
        self._credit = min(BURST, self._credit + max(0.0, now - self._counted_at) * self.rate)
        self._counted_at = max(now, self._counted_at)
        if not self._waiting:
            return 0.0
        missing = min(self._waiting[0][2], BURST) - self._credit
        # Less than a millionth of a call is a rounding error.
        return missing / self.rate if missing > 1e-6 else 0.0  # noqa: PLR2004

    def count(self, calls: float) -> None:
        """Count calls beyond those of a turn; a negative number, if there were fewer."""
        self._credit -= calls

    def adapt(self, *, throttled: bool) -> None:
        """Halve the rate after throttling, and restore it gradually after other responses."""
        if throttled:
            self.rate = max(self.rate / 2, min(SLOWEST_RATE, self.full_rate))
        else:
            self.rate = min(self.rate + self.full_rate / 50, self.full_rate)

    @property
    def backlog(self) -> float:
        """Seconds that the waiting calls will take at the current rate."""
        return sum(calls for _, _, calls, _ in self._waiting) / self.rate


class BacklogMonitor:
    """
    Detect when the polls of a connection are persistently late, and when they are on time again.

    Short delays, such as after a restart of the triggerer, do not count: all polls of a whole interval must be late, or
    on time.
    """

    def __init__(self) -> None:
        self.is_behind = False
        self._changing_since = math.inf
        self._shortest = math.inf

    def observe(self, now: float, late: float, interval: float) -> bool:
        """
        Count a poll; return whether it changes :attr:`is_behind`.

        :param now: The clock reading in seconds.
        :param late: Seconds between the time at which the poll was due and its start.
        :param interval: Its interval in seconds.
        """
        # Compare with the shortest interval that is late, because a delay may be insignificant for longer ones.
        shortest = min(interval, self._shortest)
        changes = (late > BEHIND * shortest) is not self.is_behind
        self._changing_since = min(now, self._changing_since) if changes else math.inf
        has_changed = now - self._changing_since >= shortest
        if has_changed:
            self.is_behind, self._changing_since = not self.is_behind, math.inf
        self._shortest = shortest if self.is_behind or self._changing_since < math.inf else math.inf
        return has_changed
