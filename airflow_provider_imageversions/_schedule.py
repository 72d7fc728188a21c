"""When to poll, in which order and how often: pure decisions, with clock readings and random numbers passed in."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_imageversions import _sessions

if TYPE_CHECKING:
    from airflow_provider_imageversions.model import ErrorKind

BURST = 10.0
"""Maximum number of API calls that a connection makes in a region at once, after a quiet time."""
SLOWEST_RATE = 0.05
"""API calls per second below which throttling does not reduce the rate of a connection."""
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


@dataclass(frozen=True)
class LastPoll:
    """
    The state that determines the time of the next poll.

    :param fault: Kind of error of the last poll. (default: ``None``, it succeeded)
    :param lasting: Seconds since the first of the consecutive polls with this kind of error. (default: 0)
    :param failures: Number of consecutive failed polls. An image that does not exist is not a failure. (default: 0)
    :param is_first: Whether it was the first poll of the image. (default: False)
    :param woken: Whether a change was reported after the last successful poll. (default: False)
    """

    fault: ErrorKind | None = None
    lasting: float = 0.0
    failures: int = 0
    is_first: bool = False
    woken: bool = False


def gap(last: LastPoll, interval: float, jitter: float) -> float:
    """
    Return the seconds between the start of the last poll and the start of the next.

    :param last: The last poll.
    :param interval: The shortest interval in seconds that a subscriber asks for.
    :param jitter: A random number from 0 to 1.
    """
    if last.fault in _sessions.GRACE:
        in_grace = last.lasting < _sessions.GRACE[last.fault]
        return min(interval, _sessions.GRACE_PACE) if in_grace else interval
    if last.failures:
        if last.woken:
            interval = min(interval, _sessions.GRACE_PACE)
        ceiling = min(interval * 2.0 ** min(last.failures - 1, 30), max(_sessions.BACKOFF_CAP, interval))
        return max(jitter * ceiling, min(interval, 1.0))
    if last.is_first:
        # Spread polls that started at the same time, for example after a restart of the triggerer.
        return interval * (1 + jitter) / 2
    return interval


def queue_retry_delay(failures: int, jitter: float) -> float:
    """
    Return the seconds until the next try to read a queue that could not be read.

    :param failures: Number of consecutive failures, 1 or more.
    :param jitter: A random number from 0 to 1.
    """
    ceiling = min(_sessions.GRACE_PACE * 2.0 ** min(failures, 30), _sessions.BACKOFF_CAP)
    return (1 + jitter) / 2 * ceiling


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
        self._waiting: list[tuple[float, int, float]] = []
        self._tickets = itertools.count()

    def add(self, priority: float, calls: float = 1.0) -> int:
        """
        Request a turn; return its ticket.

        :param priority: Lower goes first, such as the time of the last poll. Equal priorities go in order of arrival.
        :param calls: Number of API calls to make in that turn.
        """
        ticket = next(self._tickets)
        heapq.heappush(self._waiting, (priority, ticket, calls))
        return ticket

    def remove(self, ticket: int) -> None:
        """Cancel a request for a turn. Tickets that are not waiting are ignored."""
        self._waiting = [entry for entry in self._waiting if entry[1] != ticket]
        heapq.heapify(self._waiting)

    def take_turns(self, now: float) -> list[int]:
        """Return the tickets whose turn it is, in order, and count their calls as made."""
        turns = []
        while self._waiting and self.delay(now) <= 0:
            _, ticket, calls = heapq.heappop(self._waiting)
            self._credit -= calls
            turns.append(ticket)
        return turns

    def delay(self, now: float) -> float:
        """Return the seconds until the next turn; 0 if no call is waiting."""
        self._credit = min(BURST, self._credit + max(0.0, now - self._counted_at) * self.rate)
        self._counted_at = max(now, self._counted_at)
        if not self._waiting:
            return 0.0
        missing = min(self._waiting[0][2], BURST) - self._credit
        # Less than a millionth of a call is a rounding error.
        return missing / self.rate if missing > 1e-6 else 0.0  # noqa: PLR2004

    def count(self, calls: float) -> None:
        """Count calls beyond those of a turn; a negative number subtracts calls that were not made."""
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
        return sum(calls for _, _, calls in self._waiting) / self.rate


class Backlog(Enum):
    """A change of whether the polls of a connection are late."""

    FELL_BEHIND = "fell behind"
    CAUGHT_UP = "caught up"


class BacklogMonitor:
    """
    Detect when the polls of a connection are persistently late, and when they are on time again.

    Short delays, such as after a restart of the triggerer, do not count: all polls of a whole interval must be late, or
    on time.
    """

    def __init__(self) -> None:
        self.is_behind = False
        self._changing_since: float | None = None
        self._shortest = math.inf

    def observe(self, now: float, late: float, interval: float) -> Backlog | None:
        """
        Count a poll; return the change that it causes, if any.

        :param now: The clock reading in seconds.
        :param late: Seconds between the time at which the poll was due and its start.
        :param interval: Its interval in seconds.
        """
        # Compare with the shortest interval that is late, because a delay may be insignificant for longer ones.
        shortest = min(interval, self._shortest)
        if (late > BEHIND * shortest) is self.is_behind:
            self._changing_since = None
            self._shortest = shortest if self.is_behind else math.inf
            return None
        self._shortest = shortest
        if self._changing_since is None:
            self._changing_since = now
        if now - self._changing_since < shortest:
            return None
        self.is_behind, self._changing_since = not self.is_behind, None
        if self.is_behind:
            return Backlog.FELL_BEHIND
        self._shortest = math.inf
        return Backlog.CAUGHT_UP
