"""
How this package waits: one poll per (connection, image) inside a triggerer, shared by everyone who waits for it.

A poll takes a :class:`Snapshot` in a small thread pool, so that the triggerer's event loop never does AWS work, and
hands it to every :class:`Subscription`; each judges it for itself. A task that waits in a worker, as a sensor that
pokes, is a :class:`Task`, which takes its snapshots by itself with the same function and the same :class:`Watch`.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import logging
import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.compat import conf
from airflow_provider_imageversions.errors import (
    ErrorKind,
    MissingConnectionError,
    SageMakerImageOperationTimeoutError,
    classify_error,
    describe_error,
    none_if_not_found,
)
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.model import LISTED_FIELDS, PAGE_SIZE_MAX, Above, StateChange, Target, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Self

    from airflow_provider_imageversions.model import ImageVersion

T = TypeVar("T")
_log = logging.getLogger(__name__)

THREADS = 16
WOKEN_AT_ONCE = 50
"""Waits that go on in one turn of the event loop, so that thousands do not hold it up for all others."""
CALLS_AT_ONCE = 2
"""Calls that a connection may have under way at the same time: one that hangs holds up no other connection."""
BURST = 10
"""API calls that a connection may make in a region at once, after a quiet time."""
SLOWEST_RATE = 0.05
"""API calls per second below which throttling does not push a connection."""
BACKOFF_CAP = 300.0
"""Seconds between two polls at the most while the service or the way to it fails (or the interval, if longer)."""
GRACE = {ErrorKind.PERMANENT: 10.0, ErrorKind.CREDENTIALS: 120.0}
"""Seconds for which such an error must last before a wait ends with it: IAM changes and rotations take a moment."""
GRACE_PACE = 5.0
"""Seconds between two polls at the most within that time."""
LONGEST_PAUSE = 20.0
"""Seconds between two tries of a call that changes something, at the most."""
_PASSING = {ErrorKind.IN_USE, ErrorKind.THROTTLED, ErrorKind.TRANSIENT}
CLIENT_LIFETIME = (15 * 60.0, 30 * 60.0)
"""Seconds after which a client is made anew, so that an edited connection is picked up."""
RENEWAL_PAUSE = 60.0
"""Seconds until that is tried again where it fails."""
LONGEST_LIFETIME = 60 * 60.0
"""Seconds after which a client that can't be made anew is not used any longer."""

RECEIVE_SECONDS = 5
"""Seconds for which one call waits for messages; up to as long after the last subscription its thread ends."""
MESSAGES_AT_ONCE = 10
"""Messages that one call receives, the most that SQS allows for."""
HIDDEN_FROM_OTHERS = 5
"""Seconds after which a message for an image that is not polled here becomes visible to other triggerers."""
KEPT_FOR_OTHERS = 60.0
"""Seconds after which it is deleted."""
MESSAGES_KEPT = 1000
"""Messages that are remembered, so that one that comes again causes no further poll."""
SAME_CHANGE_WITHIN = 1.0
"""Seconds within which messages that report the same change cause one poll."""


@dataclass(frozen=True)
class Snapshot:
    """
    What one poll saw.

    :param targets: Whom it was read for; it may lack what others would need.
    :param versions: Versions from the highest number down, as far as the targets need them.
    :param outcomes: What it means for each of the targets that is waited for.
    :param refused: What may not be read of all that was asked for, and why: an alias's version, or the list (``None``).
    :param calls: How many API calls it took.
    :param fault: What went wrong, if something did; then the rest is empty.
    :param error: The exception behind the fault.
    :param lasting: Seconds since the first poll that met this fault.
    """

    targets: frozenset[Target | Above]
    versions: tuple[ImageVersion, ...] = ()
    outcomes: Mapping[Target | Above, decide.Outcome] = field(default_factory=dict)
    refused: Mapping[str | None, Exception] = field(default_factory=dict)
    calls: int = 1
    fault: ErrorKind | None = None
    error: Exception | None = None
    lasting: float = 0.0

    def covers(self, target: Target | Above) -> bool:
        """Whether the target can be judged by this snapshot."""
        if self.fault is not None or target in self.targets:
            return True
        return isinstance(target, Above) and any(
            isinstance(read, Above) and read.number <= target.number for read in self.targets
        )

    @property
    def is_hopeless(self) -> bool:
        """Whether an error that only a person can mend has lasted long enough to end a wait."""
        return self.fault in GRACE and self.lasting >= GRACE[self.fault]


def take(hook: SageMakerImageVersionsHook, image_name: str, targets: Collection[Target | Above]) -> Snapshot:
    """
    Read as much of an image's versions as the targets need. Blocks.

    One call in the ordinary case. A number further down than the first page costs one more call, not the pages
    between.

    :raises Exception: Only what :func:`~airflow_provider_imageversions.errors.classify_error` does not know.
    """
    try:
        return _read(hook, image_name, frozenset(targets))
    except Exception as error:
        fault = classify_error(error)
        if fault is None:
            raise
        return Snapshot(targets=frozenset(targets), fault=fault, error=error)


def _read(hook: SageMakerImageVersionsHook, image_name: str, targets: frozenset[Target | Above]) -> Snapshot:
    in_list = [target for target in targets if _alias_of(target) is None]
    aliases = {alias for alias in map(_alias_of, targets) if alias is not None}
    found: dict[str | None, list[ImageVersion]] = {}
    refused: dict[str | None, Exception] = {}
    calls = len(aliases)
    if in_list:
        listed = _unless_refused(_list_down, hook, image_name, in_list)
        if isinstance(listed, Exception):
            refused[None] = listed
            calls += 1
        else:
            found[None], pages = listed
            calls += pages
    for alias in aliases:
        version = _unless_refused(_describe, hook, image_name, alias=alias)
        if isinstance(version, Exception):
            refused[alias] = version
        else:
            found[alias] = [] if version is None else [version]
    if refused and not found:
        raise next(iter(refused.values()))
    waits = [target for target in targets if isinstance(target, Target) and target.alias in found]
    outcomes: dict[Target | Above, decide.Outcome] = {wait: decide.outcome(found[wait.alias], wait) for wait in waits}
    return Snapshot(targets, tuple(found.get(None, ())), outcomes, refused, calls)


def _alias_of(target: Target | Above) -> str | None:
    return target.alias if isinstance(target, Target) else None


def _unless_refused(read: Callable[..., T], *arguments: Any, **named: Any) -> T | Exception:
    """Read something, or give the error if only a person can mend it: who needs something else can have that."""
    try:
        return read(*arguments, **named)
    except Exception as error:
        if classify_error(error) is not ErrorKind.PERMANENT:
            raise
        return error


def _list_down(
    hook: SageMakerImageVersionsHook, image_name: str, targets: Collection[Target | Above]
) -> tuple[list[ImageVersion], int]:
    """Give versions from the highest number down, as far as the targets need them, and how many calls it took."""
    versions: list[ImageVersion] = []
    pending = set(targets)
    described = 0
    for version in hook.iter_image_versions(image_name, sort_by="VERSION"):
        versions.append(version)
        pending = {target for target in pending if not decide.suffices(version, target)}
        if len(versions) == PAGE_SIZE_MAX:
            for far_down in [target for target in pending if isinstance(target, Target) and target.version is not None]:
                described += 1
                found = _unless_refused(_describe, hook, image_name, version=far_down.version)
                if isinstance(found, Exception):
                    # It is on one of the next pages, too.
                    continue
                versions += [] if found is None else [found]
                if not isinstance(decide.outcome(versions, far_down), decide.Waiting):
                    pending.remove(far_down)
        if not pending:
            break
    return versions, described + max(1, -(-len(versions) // PAGE_SIZE_MAX))


def _describe(hook: SageMakerImageVersionsHook, image_name: str, **which: Any) -> ImageVersion | None:
    found = none_if_not_found(hook.describe_image_version, image_name, **which)
    # The same record as from a list: details are for those who ask for them.
    return found and cast("ImageVersion", {key: value for key, value in found.items() if key in LISTED_FIELDS})


class Watch:
    """
    What one who waits says: logs when something changes, rather than every poll.

    :param log: Where to, for one who reads the task's log.
    :param image_name: Name of the image.
    :param looked_at: When another process looked and told last, if one did; what did not change since is not told.
    """

    def __init__(self, log: Any, image_name: str, looked_at: datetime | None = None) -> None:
        self._log = log
        self._looked_at = looked_at
        self._label = f"SageMaker image {image_name!r}"
        self._note: str | None = None
        self._fault: ErrorKind | None = None

    def sees(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot shows the image's versions; what keeps it from that is reported."""
        if snapshot.fault is None:
            if self._fault is not None:
                self.report("can be polled again", warn=False)
            self._fault = None
            return True
        if snapshot.fault is ErrorKind.MISSING:
            self.report(f"does not exist yet: {describe_error(snapshot.error)}", warn=True, told=self._was_told(None))
        elif self._fault in {None, ErrorKind.MISSING} or (
            snapshot.fault in GRACE and snapshot.fault is not self._fault
        ):
            self.report(f"can't be polled, will go on trying: {describe_error(snapshot.error)}", warn=True)
        self._fault = snapshot.fault
        return False

    def judge(self, snapshot: Snapshot, target: Target) -> decide.Outcome:
        """
        Judge a snapshot.

        :param snapshot: One with a fault only ever means to wait; whether for long is the caller's question.
        :param target: What is waited for.
        """
        if not self.sees(snapshot):
            return decide.Waiting(f"the versions can't be read: {describe_error(snapshot.error)}")
        result = snapshot.outcomes[target]
        if isinstance(result, decide.Waiting):
            note = f"{result.note}, which this package does not know" if result.unknown else result.note
            self.report(f"waiting for {target}: {note}", warn=result.unknown, told=self._was_told(result.since))
        return result

    def report_details(self, error: Exception | None) -> None:
        """Say that the version is there and its details can't be read yet."""
        self.report(f"CREATED, but its details can't be read yet: {describe_error(error)}", warn=True)

    def _was_told(self, since: str | None) -> bool:
        return self._looked_at is not None and (since is None or parse_time("since", since) < self._looked_at)

    def report(self, note: str, *, warn: bool = False, told: bool = False) -> None:
        """
        Say something, unless it was the last thing said.

        :param note: What.
        :param warn: Whether somebody should look at it.
        :param told: Whether another process said it before.
        """
        if note != self._note:
            log = self._log.debug if told else self._log.warning if warn else self._log.info
            log("%s: %s", self._label, note)
            self._note = note


class Task:
    """
    One task that calls the API by itself, in a worker.

    :param source: What has the parameters that say how to reach AWS: an operator or a sensor.
    :param image_name: Name of the image.
    :param interval: Seconds between two looks at the most.
    :param timeout: Seconds after which waiting ends.
    :param left: How many of them are left; default: all.
    :param looked_at: See :class:`Watch`.
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
        self.watch = Watch(source.log, image_name, looked_at)
        self._source = source
        self._image_name = image_name
        self._interval = interval
        self._timeout = timeout
        self._deadline = time.monotonic() + (timeout if left is None else left)
        self._hook: SageMakerImageVersionsHook | None = None
        self._had_connection = False
        self._failing = Trouble()

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
            if classify_error(error) in {None, *GRACE}:
                raise
            self.watch.report_details(error)
            return decide.Waiting("its details can't be read yet")
        return decide.Ready(detailed)

    def _look(self, target: Target) -> decide.Outcome:
        snapshot = take(self.hook, self._image_name, [target])
        if snapshot.fault in GRACE and snapshot.error is not None:
            raise snapshot.error
        return self.watch.judge(snapshot, target)

    def _report_fault(self, error: Exception) -> None:
        self.watch.sees(Snapshot(frozenset(), fault=classify_error(error), error=error))

    def _with_grace(self, poll: Callable[[], T], report: Callable[[Exception], object]) -> T:
        while True:
            try:
                found = poll()
            except Exception as error:  # noqa: PERF203  # what is tried again is a call over the network
                if not self._has_grace(error, GRACE, report):
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
        if fault is None or fault not in faults or lasting >= GRACE[fault]:
            return False
        if fault is ErrorKind.CREDENTIALS:
            # The connection, or the credential chain, may have new ones by now.
            if self._hook is not None:
                self._had_connection |= self._hook.has_connection
            self._hook = None
            if lasting == 0:
                return True
        pause = min(self._interval or GRACE_PACE, GRACE_PACE)
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
                pause = random.uniform(0.1, min(2.0 ** min(failures, 30), LONGEST_PAUSE))  # noqa: S311  # spreads calls, keeps no secret
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


# --- Sharing, inside a triggerer -------------------------------------------------------------------------


def subscribe(
    source: object, image_name: str, target: Target | Above, interval: float, *, wake_queue: str | None = None
) -> Subscription:
    """
    Begin to wait; the running event loop's poll for this image and connection is joined, or begun.

    :param source: What has the parameters that say how to reach AWS: a trigger.
    :param image_name: Name of the image.
    :param target: What is waited for.
    :param interval: Seconds between two polls at the most.
    :param wake_queue: URL of a queue whose messages make the polls of the images that they name start at once.
        (default: ``None``)
    """
    registry = _registry()
    poll = registry.poll(aws_parameters(source), image_name)
    reader = None if wake_queue is None else registry.reader(poll.client, wake_queue)
    return Subscription(poll, target, interval, reader)


class Subscription:
    """One who waits. Use it as a context manager: the last one out ends the poll and closes the client."""

    def __init__(self, poll: _Poll, target: Target | Above, interval: float, reader: _Reader | None = None) -> None:
        self._poll = poll
        self._reader = reader
        self.target = target
        self.interval = interval
        self._seen = 0
        self._refused = Trouble()
        self._details_failing = Trouble()

    async def next(self) -> Snapshot:
        """
        Wait for the next snapshot that covers the target.

        :raises PollCrashedError: The poll ended with an exception that it should not have met.
        """
        snapshot, self._seen = await self._poll.snapshot_after(self._seen, self.target)
        error = snapshot.refused.get(_alias_of(self.target))
        lasting = self._refused.lasts(None if error is None else ErrorKind.PERMANENT)
        if error is None:
            return snapshot
        return Snapshot(snapshot.targets, fault=ErrorKind.PERMANENT, error=error, lasting=lasting)

    def retarget(self, target: Target | Above) -> None:
        """Ask for other versions from now on; what the last poll did not read is read at once."""
        self.target = target
        self._poll.wake()

    @property
    def region(self) -> str:
        """The region that is polled; known after the first snapshot without a fault."""
        return self._poll.client.region

    async def add_details(self, version: ImageVersion) -> ImageVersion | Snapshot:
        """
        Add details to a record, with one look-up for all who ask for the same version at the same time.

        :return: The record, or what went wrong, for how long without one success in between.
        :raises Exception: Only what :func:`~airflow_provider_imageversions.errors.classify_error` does not know.
        """
        try:
            detailed = await self._poll.add_details(version)
        except Exception as error:
            fault = classify_error(error)
            if fault is None:
                raise
            lasting = self._details_failing.lasts(fault)
            return Snapshot(frozenset(), fault=fault, error=error, lasting=lasting)
        self._details_failing.lasts(None)
        return detailed

    def __enter__(self) -> Self:
        self._seen = self._poll.join(self)
        if self._reader is not None:
            self._reader.join(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.leave(self)
        self._poll.leave(self)


class Trouble:
    """Since when the same kind of fault is met again and again."""

    def __init__(self) -> None:
        self._fault: ErrorKind | None = None
        self._since = 0.0

    def lasts(self, fault: ErrorKind | None) -> float:
        """
        Count what was just met.

        :param fault: The fault; ``None`` if there was none.
        :return: Seconds since it was met first; 0 without a fault.
        """
        now = time.monotonic()
        if fault is not self._fault:
            self._fault, self._since = fault, now
        return 0.0 if fault is None else now - self._since


class _Crowd:
    """Those who wait for the same thing; when it happens, they go on a few at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for the next :meth:`release`."""
        place = self._loop.create_future()
        self._waiting.append(place)
        await place

    def release(self) -> None:
        """Let go all who wait now; who comes back meanwhile waits for the next time."""
        released, self._waiting = self._waiting, deque()
        self._let_go(released)

    def _let_go(self, released: deque[asyncio.Future[None]]) -> None:
        for _ in range(min(WOKEN_AT_ONCE, len(released))):
            place = released.popleft()
            if not place.done():
                place.set_result(None)
        if released:
            self._loop.call_soon(self._let_go, released)


class PollCrashedError(RuntimeError):
    """A shared poll met an exception that is a bug here or in a library, not a state of the service."""


class _Poll:
    """The one who asks the API about one image, for all its subscriptions."""

    def __init__(self, registry: _Registry, client: _Client, image_name: str) -> None:
        self.client = client
        self._registry = registry
        self._image_name = image_name
        self._subscriptions: set[Subscription] = set()
        self._details: dict[int, tuple[asyncio.Task[ImageVersion], _Crowd]] = {}
        self._task: asyncio.Task[None] | None = None
        self._crash: BaseException | None = None
        self._snapshot: Snapshot | None = None
        self._started = 0
        self._serial = 0
        self._rounds = 0
        self._began = 0.0
        self._interval = 0.0
        self._failing = Trouble()
        self._failures = 0
        self._read = 0
        self._reported = -1
        self._changes: dict[StateChange, float] = {}
        self._wanted_now = False
        self._published = _Crowd()
        self._woken = asyncio.Event()

    def join(self, subscription: Subscription) -> int:
        """Add a subscription; gives the serial number of the last read that began too early for it."""
        self._subscriptions.add(subscription)
        if self._task is None:
            self._task = _spawn(self._run())
            self._task.add_done_callback(self._ended)
        if subscription.interval < self._interval:
            self._woken.set()
        # An older snapshot, or one that is just being read, might lack the version that this one waits for. While the
        # service fails, everybody waits for the next try.
        if self._snapshot is None or self._snapshot.fault in {None, ErrorKind.MISSING}:
            self._wanted_now = True
            self._woken.set()
        return self._started

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription, and end with the last one."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            if self._task is not None:
                self._task.cancel()
            self._registry.forget(self)

    def wake(self) -> None:
        """Look again at who needs what, and when."""
        self._woken.set()

    def report_change(self, change: StateChange) -> None:
        """
        Poll at once because a version has changed, once for all messages that report the same change.

        While SageMaker or the way to it fails, the next try comes sooner than the interval allows for, but not at once.
        """
        now = asyncio.get_running_loop().time()
        self._changes = {known: at for known, at in self._changes.items() if now - at < SAME_CHANGE_WITHIN}
        if change in self._changes:
            return
        self._changes[change] = now
        self._reported = self._started
        if self._snapshot is None or self._snapshot.fault in {None, ErrorKind.MISSING}:
            self._wanted_now = True
        self._woken.set()

    async def snapshot_after(self, seen: int, target: Target | Above) -> tuple[Snapshot, int]:
        """Wait for a snapshot that is newer than ``seen`` and covers the target."""
        while True:
            if self._snapshot is not None and self._serial > seen and self._snapshot.covers(target):
                return self._snapshot, self._serial
            if self._crash is not None:
                raise PollCrashedError(describe_error(self._crash)) from self._crash
            await self._published.wait()

    async def add_details(self, version: ImageVersion) -> ImageVersion:
        """Look up a version's details, once for all who ask at the same time."""
        number = version["Version"]
        if number not in self._details:
            task, crowd = self._details[number] = (_spawn(self._look_up_details(version)), _Crowd())
            task.add_done_callback(lambda done: (self._details.pop(number), done.cancelled() or done.exception()))
            task.add_done_callback(lambda _: crowd.release())
        task, crowd = self._details[number]
        await crowd.wait()
        return task.result()

    async def _look_up_details(self, version: ImageVersion) -> ImageVersion:
        hook = await self.client.hook()
        await self.client.limiter(hook).take(2)
        try:
            return await self.client.run(hook.add_details, self._image_name, version)
        except Exception as error:
            if classify_error(error) is ErrorKind.CREDENTIALS:
                self.client.discard(hook)
            raise

    async def _run(self) -> None:
        # wait_for() of Python before 3.12 may swallow a cancellation.
        while self._subscriptions:
            snapshot = await self._take()
            if snapshot.fault in {None, ErrorKind.MISSING}:
                self._failures, self._read = 0, self._started
            else:
                self._failures += 1
            # It does not count against a wait what a client that falls back will put right.
            counts = self._failures and not self.client.awaits_fallback
            lasting = self._failing.lasts(snapshot.fault if counts else None)
            self._publish(replace(snapshot, lasting=lasting))
            await self._pause()

    async def _take(self) -> Snapshot:
        for last in (False, True):
            hook = None
            try:
                hook = await self.client.hook()
            except Exception as error:
                fault = classify_error(error)
                if fault is None:
                    raise
                self._begin()
                snapshot = Snapshot(targets=frozenset(), fault=fault, error=error)
            else:
                limiter = self.client.limiter(hook)
                await limiter.take()
                # Only now, so that all who came while the first client was made are served by the first call.
                targets = self._begin()
                snapshot = await self.client.run(take, hook, self._image_name, targets)
                limiter.learn(snapshot)
            if snapshot.fault is not ErrorKind.CREDENTIALS or last:
                break
            self.client.discard(hook)
        return snapshot

    def _begin(self) -> frozenset[Target | Above]:
        self._wanted_now = False
        self._started += 1
        self._began = asyncio.get_running_loop().time()
        return frozenset(subscription.target for subscription in self._subscriptions)

    def _publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._serial = self._started
        self._rounds += 1
        self._published.release()

    async def _pause(self) -> None:
        snapshot, luck = self._snapshot, random.random()  # noqa: S311  # spreads calls, keeps no secret
        while snapshot is not None:
            if self._wanted_now or not all(snapshot.covers(other.target) for other in self._subscriptions):
                return
            self._interval = min((other.interval for other in self._subscriptions), default=BACKOFF_CAP)
            due = self._began + self._gap(snapshot, self._interval, luck)
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), due - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                return

    def _gap(self, snapshot: Snapshot, interval: float, luck: float) -> float:
        if snapshot.fault in GRACE:
            return min(interval, GRACE_PACE) if snapshot.lasting < GRACE[snapshot.fault] else interval
        if self._failures:
            if self._reported >= self._read:
                interval = min(interval, GRACE_PACE)
            ceiling = min(interval * 2.0 ** min(self._failures - 1, 30), max(BACKOFF_CAP, interval))
            return max(luck * ceiling, min(interval, 1.0))
        if self._rounds == 1:
            # Polls that began together, as after a restart of the triggerer, do not stay together.
            return interval * (1 + luck) / 2
        return interval

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._crash = task.exception()
            # Whoever comes from now on gets a poll of their own; those who are here get the exception.
            self._registry.forget(self)
            self._published.release()


class _Client:
    """One boto3 client, for all polls through the same connection, region, TLS and botocore settings."""

    def __init__(self, registry: _Registry, parameters: dict[str, Any]) -> None:
        self._registry = registry
        self._parameters = parameters
        self._hook: SageMakerImageVersionsHook | None = None
        self._renewal = self._end = 0.0
        self.region = ""
        """That of the last client, once there was one."""
        self.awaits_fallback = False
        """Whether a connection is missing that is done without if it stays so."""
        self._had_connection = False
        self._missing = Trouble()
        self._lock = asyncio.Lock()
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run AWS work off the event loop."""
        # Not by run_in_executor(): to tell of a secret, Airflow asks its supervisor from this thread. Before 3.3 it
        # does so on the event loop only from a thread that asgiref knows; on a loop of the thread's own it would mix up
        # the answers, which ends the triggerer (apache/airflow#64620).
        in_thread = sync_to_async(function, thread_sensitive=False, executor=self._registry.pool)
        async with self._places:
            return await in_thread(*arguments)

    async def hook(self) -> SageMakerImageVersionsHook:
        """Give the hook with its client open; made when there is none or it is old."""
        async with self._lock:
            clock = asyncio.get_running_loop().time
            if self._hook is not None and clock() < self._renewal:
                return self._hook
            try:
                self._hook = await self._open()
            except Exception as error:
                if self._hook is None or classify_error(error) is None or clock() >= self._end:
                    raise
                # It still works, and what is away may be no more than Airflow's database or its secrets backend.
                _log.warning(
                    "SageMaker client of connection %r: can't be renewed, will go on with the one there is: %s",
                    self._hook.aws_conn_id,
                    describe_error(error),
                )
                self._renewal = clock() + RENEWAL_PAUSE
            else:
                self._renewal = clock() + random.uniform(*CLIENT_LIFETIME)  # noqa: S311  # spreads work, keeps no secret
                self._end = clock() + LONGEST_LIFETIME
            return self._hook

    async def _open(self) -> SageMakerImageVersionsHook:
        hook = SageMakerImageVersionsHook.from_parameters(**self._parameters)
        await self._find_connection(hook)
        await self.run(hook.get_conn)
        self.region = str(hook.conn_region_name)
        return hook

    async def _find_connection(self, hook: SageMakerImageVersionsHook) -> None:
        """Look the connection up, and fall back to boto3's default chain if it really does not exist."""
        self.awaits_fallback = False
        try:
            await hook.preload_connection()
        except MissingConnectionError:
            # No worker has decided. To Airflow 3 an outage of its database looks like a missing connection, so it must
            # last; and credentials from a connection are never replaced by those of the machine.
            lasting = self._missing.lasts(ErrorKind.CREDENTIALS)
            if not hook.may_fall_back or self._had_connection:
                raise
            if lasting < GRACE[ErrorKind.CREDENTIALS]:
                self.awaits_fallback = True
                raise
            hook.fall_back()
        except Exception:
            self._missing.lasts(None)
            raise
        else:
            self._missing.lasts(None)
            self._had_connection |= hook.has_connection

    def limiter(self, hook: SageMakerImageVersionsHook) -> _Limiter:
        """Give what limits the calls of a hook that :meth:`hook` gave."""
        return self._registry.limiter(hook.effective_conn_id, str(hook.conn_region_name))

    def discard(self, hook: SageMakerImageVersionsHook | None) -> None:
        """Have the client made anew, unless somebody else did so already."""
        if self._hook is hook:
            self._hook = None

    def close(self) -> None:
        """Close the client's connections."""
        if self._hook is not None:
            self._hook.get_conn().close()


class _Reader:
    """The reader of one queue, for all subscriptions that want to be woken by it; in a thread of its own."""

    def __init__(self, registry: _Registry, client: _Client, queue_url: str) -> None:
        self._registry = registry
        self._client = client
        self._queue_url = queue_url
        self._subscriptions: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sagemaker-image-versions-queue")
        self._hook: SageMakerImageVersionsHook | None = None
        self._queue: Any = None
        self._reported: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._failures = 0

    def join(self, subscription: Subscription) -> None:
        """Add a subscription, and start with the first one."""
        self._subscriptions.add(subscription)
        if self._task is None:
            self._task = _spawn(self._run())

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription, and end with the last one."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            if self._task is not None:
                self._task.cancel()
            self._registry.readers.pop((self._client, self._queue_url), None)
            self._thread.shutdown(wait=False)
            self._close()

    async def _run(self) -> None:
        while self._subscriptions:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001, PERF203  # whatever it is, polling continues without the queue
                await self._pause(error)
            else:
                if self._failures:
                    _log.info("Queue %s: can be read again", self._queue_url)
                self._failures = 0

    async def _read(self) -> None:
        await self._open()
        messages = await self._in_thread(_receive)
        done = [message for message in messages if self._is_done(message)]
        if done:
            await self._in_thread(_delete, done)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        in_thread = sync_to_async(call, thread_sensitive=False, executor=self._thread)
        return await in_thread(self._queue, self._queue_url, *arguments)

    async def _open(self) -> None:
        hook = await self._client.hook()
        if hook is self._hook:
            return
        self._close()
        self._queue = await self._client.run(_open_queue, hook, self._queue_url)
        self._hook = hook

    def _close(self) -> None:
        if self._queue is not None:
            self._queue.close()
        self._hook = self._queue = None

    def _is_done(self, message: Mapping[str, Any]) -> bool:
        """Report a message to the polls of its image; return whether nobody else needs it."""
        if message["MessageId"] in self._reported:
            # It comes again if it could not be deleted.
            return True
        change = StateChange.from_message(message["Body"])
        if change is not None and self._registry.report_change(change):
            _log.debug("Queue %s: reported %s", self._queue_url, change)
            self._reported.append(message["MessageId"])
            return True
        sent = int(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
        return time.time() - sent > KEPT_FOR_OTHERS

    async def _pause(self, error: Exception) -> None:
        if not self._failures:
            _log.warning(
                "Queue %s: could not be read; polling continues at poll_interval. Retrying at least every %.0f "
                "seconds: %s",
                self._queue_url,
                BACKOFF_CAP,
                describe_error(error),
                exc_info=None if classify_error(error) else error,
            )
        if classify_error(error) is ErrorKind.CREDENTIALS:
            self._client.discard(self._hook)
        self._failures += 1
        ceiling = min(GRACE_PACE * 2.0 ** min(self._failures, 30), BACKOFF_CAP)
        await asyncio.sleep(random.uniform(0.5, 1.0) * ceiling)  # noqa: S311  # spreads calls, keeps no secret


def _open_queue(hook: SageMakerImageVersionsHook, queue_url: str) -> Any:
    return hook.get_queue_client(queue_url, wait_seconds=RECEIVE_SECONDS)


def _receive(queue: Any, queue_url: str) -> list[dict[str, Any]]:
    answer = queue.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=MESSAGES_AT_ONCE,
        WaitTimeSeconds=RECEIVE_SECONDS,
        VisibilityTimeout=HIDDEN_FROM_OTHERS,
        MessageSystemAttributeNames=["SentTimestamp"],
    )
    messages: list[dict[str, Any]] = answer.get("Messages", [])
    return messages


def _delete(queue: Any, queue_url: str, messages: list[Mapping[str, Any]]) -> None:
    entries = [
        {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)
    ]
    # One that fails comes again.
    queue.delete_message_batch(QueueUrl=queue_url, Entries=entries)


class _Limiter:
    """
    How often a connection calls the API in a region: a sustained rate with a burst, less after throttling.

    :param rate: Calls per second.
    """

    def __init__(self, rate: float) -> None:
        self._full_rate = self._rate = rate
        self._credit = float(BURST)
        self._counted_at = asyncio.get_running_loop().time()

    async def take(self, calls: int = 1) -> None:
        """Wait until so many calls may be made."""
        now = asyncio.get_running_loop().time()
        self._credit = min(float(BURST), self._credit + (now - self._counted_at) * self._rate) - calls
        self._counted_at = now
        if self._credit < 0:
            try:
                await asyncio.sleep(-self._credit / self._rate)
            except asyncio.CancelledError:
                # Whoever comes next would pay for calls that nobody makes.
                self._credit += calls
                raise

    def learn(self, snapshot: Snapshot) -> None:
        """Count the further calls that a poll took, and change the rate by how the service answered."""
        self._credit -= snapshot.calls - 1
        if snapshot.fault is ErrorKind.THROTTLED:
            self._rate = max(self._rate / 2, min(SLOWEST_RATE, self._full_rate))
        else:
            self._rate = min(self._rate + self._full_rate / 50, self._full_rate)


class _Registry:
    """The polls and clients of one event loop; a loop belongs to one thread of one process."""

    def __init__(self) -> None:
        self._rate = conf.getfloat("sagemaker_image_versions", "calls_per_second", fallback=1.0)
        if self._rate <= 0:
            raise ValueError(
                f"[sagemaker_image_versions] calls_per_second={self._rate} is not valid: it must be above 0."
            )
        self._limiters: dict[tuple[str | None, str], _Limiter] = {}
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sagemaker-image-versions")
        self.polls: dict[tuple[str, str], _Poll] = {}
        self.readers: dict[tuple[_Client, str], _Reader] = {}

    def poll(self, parameters: dict[str, Any], image_name: str) -> _Poll:
        """Give the poll for an image as a connection sees it."""
        connection = json.dumps(parameters, sort_keys=True)
        poll = self.polls.get((connection, image_name))
        if poll is None:
            siblings = (other.client for (key, _), other in self.polls.items() if key == connection)
            client = next(siblings, None) or _Client(self, parameters)
            poll = self.polls[connection, image_name] = _Poll(self, client, image_name)
        return poll

    def reader(self, client: _Client, queue_url: str) -> _Reader:
        """Return what reads a queue through a connection."""
        if (client, queue_url) not in self.readers:
            self.readers[client, queue_url] = _Reader(self, client, queue_url)
        return self.readers[client, queue_url]

    def report_change(self, change: StateChange) -> bool:
        """Have all polls of an image start at once; return whether there are any."""
        polls = [
            poll
            for (_, image_name), poll in self.polls.items()
            # The region is known after the first poll, which is under way otherwise.
            if image_name.lower() == change.image_name and poll.client.region.lower() in {"", change.region}
        ]
        for poll in polls:
            poll.report_change(change)
        return bool(polls)

    def limiter(self, aws_conn_id: str | None, region: str) -> _Limiter:
        """Give what all clients through the same connection to the same region share, as the service counts them."""
        return self._limiters.setdefault((aws_conn_id, region), _Limiter(self._rate))

    def forget(self, poll: _Poll) -> None:
        """Let go of a poll, and of its client and the threads if it was the last one."""
        self.polls = {key: other for key, other in self.polls.items() if other is not poll}
        if all(other.client is not poll.client for other in self.polls.values()):
            poll.client.close()
        if not self.polls:
            self.pool.shutdown(wait=False)
            for loop in [loop for loop, registry in _registries.items() if registry is self]:
                del _registries[loop]


_registries: WeakKeyDictionary[asyncio.AbstractEventLoop, _Registry] = WeakKeyDictionary()


def _registry() -> _Registry:
    loop = asyncio.get_running_loop()
    if loop not in _registries:
        _registries[loop] = _Registry()
    return _registries[loop]


def _spawn(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    # In a context of its own: in the first waiter's, all that it logs would go to that one's task log.
    return contextvars.Context().run(asyncio.get_running_loop().create_task, work)
