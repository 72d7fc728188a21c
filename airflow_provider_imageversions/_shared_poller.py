"""Wait in a triggerer: one poll per connection and image, shared by everyone who waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_imageversions import _sessions
from airflow_provider_imageversions._reading import PollResult, alias_of, read_versions
from airflow_provider_imageversions._sessions import FaultTimer
from airflow_provider_imageversions._wake_queue import QueueReader
from airflow_provider_imageversions.compat import conf
from airflow_provider_imageversions.errors import MissingConnectionError, classify_error, describe_error
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.model import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from typing_extensions import Self

    from airflow_provider_imageversions.model import ImageVersion, StateChange, Target, VersionsAbove

T = TypeVar("T")
_log = logging.getLogger(__name__)

SAME_CHANGE_WITHIN = 1.0
"""Seconds within which messages that report the same change cause one poll."""
THREADS = 16
WOKEN_AT_ONCE = 50
"""Waits that go on in one turn of the event loop, so that thousands do not hold it up for all others."""
CALLS_AT_ONCE = 2
"""Calls that a connection may have under way at the same time: one that hangs holds up no other connection."""
BURST = 10
"""API calls that a connection may make in a region at once, after a quiet time."""
SLOWEST_RATE = 0.05
"""API calls per second below which throttling does not push a connection."""
CLIENT_LIFETIME = (15 * 60.0, 30 * 60.0)
"""Seconds after which a client is made anew, so that an edited connection is picked up."""
RENEWAL_PAUSE = 60.0
"""Seconds until that is tried again where it fails."""
LONGEST_LIFETIME = 60 * 60.0
"""Seconds after which a client that can't be made anew is not used any longer."""


def subscribe(
    source: object, image_name: str, target: Target | VersionsAbove, interval: float, *, wake_queue: str | None = None
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

    def __init__(
        self, poll: _Poll, target: Target | VersionsAbove, interval: float, reader: QueueReader | None = None
    ) -> None:
        self._poll = poll
        self._reader = reader
        self.target = target
        self.interval = interval
        self._seen = 0
        self._refused = FaultTimer()
        self._details_failing = FaultTimer()

    async def next(self) -> PollResult:
        """
        Wait for the next result that covers the target.

        :raises PollCrashedError: The poll ended with an exception that it should not have met.
        """
        result, self._seen = await self._poll.result_after(self._seen, self.target)
        error = result.refused.get(alias_of(self.target))
        lasting = self._refused.lasts(None if error is None else ErrorKind.PERMANENT)
        if error is None:
            return result
        return PollResult(result.targets, fault=ErrorKind.PERMANENT, error=error, lasting=lasting)

    def retarget(self, target: Target | VersionsAbove) -> None:
        """Ask for other versions from now on; what the last poll did not read is read at once."""
        self.target = target
        self._poll.wake()

    @property
    def region(self) -> str:
        """The region that is polled; known after the first result without a fault."""
        return self._poll.client.region

    async def add_details(self, version: ImageVersion) -> ImageVersion | PollResult:
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
            return PollResult(frozenset(), fault=fault, error=error, lasting=lasting)
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


class _BatchedNotifier:
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
        self._details: dict[int, tuple[asyncio.Task[ImageVersion], _BatchedNotifier]] = {}
        self._task: asyncio.Task[None] | None = None
        self._crash: BaseException | None = None
        self._snapshot: PollResult | None = None
        self._started = 0
        self._serial = 0
        self._rounds = 0
        self._began = 0.0
        self._interval = 0.0
        self._failing = FaultTimer()
        self._failures = 0
        self._read = 0
        self._reported = -1
        self._changes: dict[StateChange, float] = {}
        self._wanted_now = False
        self._published = _BatchedNotifier()
        self._woken = asyncio.Event()

    def join(self, subscription: Subscription) -> int:
        """Add a subscription; gives the serial number of the last read that began too early for it."""
        self._subscriptions.add(subscription)
        if self._task is None:
            self._task = self._registry.spawn(self._run())
            self._task.add_done_callback(self._ended)
        if subscription.interval < self._interval:
            self._woken.set()
        # An older result, or one that is just being read, might lack the version that this one waits for. While the
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

    async def result_after(self, seen: int, target: Target | VersionsAbove) -> tuple[PollResult, int]:
        """Wait for a result that is newer than ``seen`` and covers the target."""
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
            task, crowd = self._details[number] = (
                self._registry.spawn(self._look_up_details(version)),
                _BatchedNotifier(),
            )
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
            result = await self._take()
            if result.fault in {None, ErrorKind.MISSING}:
                self._failures, self._read = 0, self._started
            else:
                self._failures += 1
            # It does not count against a wait what a client that falls back will put right.
            counts = self._failures and not self.client.awaits_fallback
            lasting = self._failing.lasts(result.fault if counts else None)
            self._publish(replace(result, lasting=lasting))
            await self._pause()

    async def _take(self) -> PollResult:
        for last in (False, True):
            hook = None
            try:
                hook = await self.client.hook()
            except Exception as error:
                fault = classify_error(error)
                if fault is None:
                    raise
                self._begin()
                result = PollResult(targets=frozenset(), fault=fault, error=error)
            else:
                limiter = self.client.limiter(hook)
                await limiter.take()
                # Only now, so that all who came while the first client was made are served by the first call.
                targets = self._begin()
                result = await self.client.run(read_versions, hook, self._image_name, targets)
                limiter.learn(result)
            if result.fault is not ErrorKind.CREDENTIALS or last:
                break
            self.client.discard(hook)
        return result

    def _begin(self) -> frozenset[Target | VersionsAbove]:
        self._wanted_now = False
        self._started += 1
        self._began = asyncio.get_running_loop().time()
        return frozenset(subscription.target for subscription in self._subscriptions)

    def _publish(self, result: PollResult) -> None:
        self._snapshot = result
        self._serial = self._started
        self._rounds += 1
        self._published.release()

    async def _pause(self) -> None:
        result, luck = self._snapshot, random.random()  # noqa: S311  # spreads calls, keeps no secret
        while result is not None:
            if self._wanted_now or not all(result.covers(other.target) for other in self._subscriptions):
                return
            self._interval = min((other.interval for other in self._subscriptions), default=_sessions.BACKOFF_CAP)
            due = self._began + self._gap(result, self._interval, luck)
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), due - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                return

    def _gap(self, result: PollResult, interval: float, luck: float) -> float:
        if result.fault in _sessions.GRACE:
            return min(interval, _sessions.GRACE_PACE) if result.lasting < _sessions.GRACE[result.fault] else interval
        if self._failures:
            if self._reported >= self._read:
                interval = min(interval, _sessions.GRACE_PACE)
            ceiling = min(interval * 2.0 ** min(self._failures - 1, 30), max(_sessions.BACKOFF_CAP, interval))
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
        self._missing = FaultTimer()
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
            if lasting < _sessions.GRACE[ErrorKind.CREDENTIALS]:
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

    def learn(self, result: PollResult) -> None:
        """Count the further calls that a poll took, and change the rate by how the service answered."""
        self._credit -= result.calls - 1
        if result.fault is ErrorKind.THROTTLED:
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
        self.readers: dict[tuple[_Client, str], QueueReader] = {}

    def poll(self, parameters: dict[str, Any], image_name: str) -> _Poll:
        """Give the poll for an image as a connection sees it."""
        connection = json.dumps(parameters, sort_keys=True)
        poll = self.polls.get((connection, image_name))
        if poll is None:
            siblings = (other.client for (key, _), other in self.polls.items() if key == connection)
            client = next(siblings, None) or _Client(self, parameters)
            poll = self.polls[connection, image_name] = _Poll(self, client, image_name)
        return poll

    def reader(self, client: _Client, queue_url: str) -> QueueReader:
        """Return what reads a queue through a connection."""
        if (client, queue_url) not in self.readers:
            self.readers[client, queue_url] = QueueReader(self, client, queue_url)
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

    @staticmethod
    def spawn(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task in a context of its own: in the first waiter's, all that it logs would go to that task's log."""
        return contextvars.Context().run(asyncio.get_running_loop().create_task, work)

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
