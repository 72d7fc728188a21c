"""Wait in a triggerer: one poll per connection and image, shared by all its subscribers."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async

from airflow_provider_imageversions import _metrics, _schedule, _sessions
from airflow_provider_imageversions._parameters import parse_rate
from airflow_provider_imageversions._reading import PollResult, alias_of, poll_versions
from airflow_provider_imageversions._schedule import BacklogMonitor, CallQueue, Reason
from airflow_provider_imageversions._sessions import FaultTimer
from airflow_provider_imageversions._wake_queue import QueueReader
from airflow_provider_imageversions.compat import conf
from airflow_provider_imageversions.errors import MissingConnectionError, classify_error
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.model import ErrorKind, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from airflow_provider_imageversions.model import ImageVersion, StateChange, Target, VersionsAbove

T = TypeVar("T")
_log = logging.getLogger(__name__)

SAME_CHANGE_WITHIN = 1.0
"""Seconds within which messages about the same change cause only one poll."""
THREADS = 16
WOKEN_AT_ONCE = 50
"""Maximum number of subscribers to wake in one turn of the event loop, so that thousands do not block it."""
CALLS_AT_ONCE = 2
"""Maximum number of concurrent calls of a connection, so that a call that hangs does not block the others."""
CLIENT_LIFETIME = (15 * 60.0, 30 * 60.0)
"""Seconds after which a client is replaced, so that an edited connection takes effect."""
RENEWAL_PAUSE = 60.0
"""Seconds until the next try to replace a client that could not be replaced."""
LONGEST_LIFETIME = 60 * 60.0
"""Seconds after which a client that cannot be replaced is no longer used."""
_HEALTHY = {None, ErrorKind.MISSING}
"""Results that do not mean an outage: SageMaker has responded even if the image does not exist."""


class Subscription(AbstractContextManager["Subscription"]):
    """
    A subscription to the running event loop's poll for an image and a connection.

    It ends as a context manager. The last one that ends also ends the poll and its client.

    :param source: The trigger that has the parameters of the connection.
    :param image_name: Name of the image.
    :param target: The versions to read.
    :param interval: Maximum time in seconds between two polls.
    :param wake_queue: URL of an SQS queue whose messages start the polls of the images that they name at once.
        (default: ``None``)
    """

    def __init__(
        self,
        source: object,
        image_name: str,
        target: Target | VersionsAbove,
        interval: float,
        wake_queue: str | None = None,
    ) -> None:
        registry = _registry()
        self._poll = registry.poll(aws_parameters(source), image_name)
        self._reader = None if wake_queue is None else registry.reader(self._poll.client, wake_queue)
        self.target = target
        self.interval = interval
        self._refused = FaultTimer()
        self._details_failing = FaultTimer()
        self._seen = self._poll.join(self)
        if self._reader is not None:
            self._reader.join(self)

    async def next(self) -> PollResult:
        """
        Wait for the next result that covers the target.

        :raises PollCrashedError: The poll ended with an unexpected exception.
        """
        result, self._seen = await self._poll.result_after(self._seen, self.target)
        error = result.refused.get(alias_of(self.target))
        lasting = self._refused.lasts(None if error is None else ErrorKind.PERMANENT, time.monotonic())
        if error is None:
            return result
        return PollResult(result.targets, fault=ErrorKind.PERMANENT, error=error, lasting=lasting)

    def is_served_by(self, polls: Collection[_Poll]) -> bool:
        """Return whether one of the polls is this subscription's."""
        return self._poll in polls

    def retarget(self, target: Target | VersionsAbove) -> None:
        """Read other versions from now on. Versions that the last poll did not read are read at once."""
        self.target = target
        self._poll.wake()

    @property
    def region(self) -> str:
        """The region that is polled; known after the first result without a fault."""
        return self._poll.client.region

    async def add_details(self, version: ImageVersion) -> ImageVersion | PollResult:
        """
        Return a record with details, with one request for all subscribers that need the same version at the same time.

        :return: The record, or a result with the fault and how long it has lasted.
        :raises Exception: Only errors that :func:`~airflow_provider_imageversions.errors.classify_error` does not know.
        """
        try:
            detailed = await self._poll.add_details(version)
        except Exception as error:
            fault = classify_error(error)
            if fault is None:
                raise
            lasting = self._details_failing.lasts(fault, time.monotonic())
            return PollResult(frozenset(), fault=fault, error=error, lasting=lasting)
        self._details_failing.lasts(None, time.monotonic())
        return detailed

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.leave(self)
        self._poll.leave(self)


class _BatchedNotifier:
    """Wake all waiters in batches."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for the next :meth:`release`."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def release(self) -> None:
        """Wake all present waiters. New waiters wait for the next release."""
        released, self._waiting = self._waiting, deque()
        self._wake_batch(released)

    def _wake_batch(self, released: deque[asyncio.Future[None]]) -> None:
        for _ in range(min(WOKEN_AT_ONCE, len(released))):
            place = released.popleft()
            if not place.done():
                place.set_result(None)
        if released:
            asyncio.get_running_loop().call_soon(self._wake_batch, released)


class PollCrashedError(RuntimeError):
    """A shared poll ended with an unexpected exception, which is a bug in this package or a library."""


def _summarize(result: PollResult) -> str:
    if result.fault is not None:
        return f"{result.fault.value}: {describe_error(result.error)}"
    read = (
        f"versions: {len(result.versions)}; aliases: {sum(alias_of(target) is not None for target in result.targets)}"
    )
    return "; ".join([read, *(f"denied: {describe_error(error)}" for error in result.refused.values())])


class _Poll:
    """Poll one image through one connection, for all subscriptions."""

    def __init__(self, registry: _Registry, client: _Client, image_name: str) -> None:
        self.client = client
        self._registry = registry
        self._image_name = image_name
        self._label = f"SageMaker image {image_name!r}"
        self._subscriptions: set[Subscription] = set()
        self._details: dict[int, tuple[asyncio.Task[ImageVersion], _BatchedNotifier]] = {}
        self._crash: BaseException | None = None
        self._result: PollResult | None = None
        self._published = _BatchedNotifier()
        # Serial numbers of reads: the last one started, published and succeeded, and the last one started before a
        # change was reported.
        self._started = self._serial = self._succeeded = 0
        self._reported = -1
        self._began = self._asked_for_details = _schedule.FIRST
        self._interval = 0.0
        self._polls = self._calls = self._failures = 0
        self._failing = FaultTimer()
        self._failing_since = 0.0
        self._changes: dict[StateChange, float] = {}
        self._requested: Reason | None = None
        self._woken = asyncio.Event()
        _log.info("%s: started polling through connection %r", self._label, client.conn_id)
        self._task = registry.spawn(self._run())
        self._task.add_done_callback(self._ended)

    def join(self, subscription: Subscription) -> int:
        """Add a subscription; return the serial number of the last read that started before it."""
        self._subscriptions.add(subscription)
        self._registry.subscribers += 1
        if subscription.interval < self._interval:
            self.wake()
        # An older read, or one in progress, may not contain the version that this subscriber waits for.
        self._request(Reason.NEW_SUBSCRIBER)
        return self._started

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription, and end with the last one."""
        self._subscriptions.discard(subscription)
        self._registry.subscribers -= 1
        if not self._subscriptions:
            self._task.cancel()
            self._registry.forget(self)
            _metrics.report_subscribers(self._registry.subscribers)
            _log.info(
                "%s: stopped polling through connection %r, no subscribers left: %d polls, %d API calls",
                *(self._label, self.client.conn_id, self._polls, self._calls),
            )

    def wake(self) -> None:
        """Check again which versions are needed, and when to read them."""
        self._woken.set()

    def _request(self, reason: Reason) -> None:
        """Poll as soon as the rate allows; while polls fail, not before the next retry."""
        self._requested = self._requested or reason
        self.wake()

    def report_change(self, change: StateChange) -> None:
        """
        Poll at once because a version has changed, but only once for messages about the same change.

        While polls fail, this brings the next retry forward, but does not start it at once.
        """
        now = time.monotonic()
        self._changes = {known: at for known, at in self._changes.items() if now - at < SAME_CHANGE_WITHIN}
        if change in self._changes:
            return
        self._changes[change] = now
        self._reported = self._started
        self._request(Reason.WAKE_UP)
        self.wake()

    async def result_after(self, seen: int, target: Target | VersionsAbove) -> tuple[PollResult, int]:
        """Wait for a result that is newer than ``seen`` and covers the target."""
        while True:
            if self._result is not None and self._serial > seen and self._result.covers(target):
                return self._result, self._serial
            if self._crash is not None:
                raise PollCrashedError(describe_error(self._crash)) from self._crash
            await self._published.wait()

    async def add_details(self, version: ImageVersion) -> ImageVersion:
        """Request a version's details, once for all subscribers that need them at the same time."""
        number = version["Version"]
        if number not in self._details:
            task, waiters = self._registry.spawn(self._request_details(version)), _BatchedNotifier()
            self._details[number] = task, waiters
            task.add_done_callback(lambda done: (self._details.pop(number), done.cancelled() or done.exception()))
            task.add_done_callback(lambda _: waiters.release())
        task, waiters = self._details[number]
        await waiters.wait()
        return task.result()

    async def _request_details(self, version: ImageVersion) -> ImageVersion:
        hook = await self.client.hook()
        limiter = self.client.limiter(hook)
        # The first request since the last poll is as urgent as a first poll, because a version cannot be delivered
        # without its details. Further ones take turns with the polls, so that a watcher of many versions does not hold
        # up the other images.
        priority, self._asked_for_details = self._asked_for_details, time.monotonic()
        await limiter.take(priority, calls=2)
        self._count_calls(2)
        try:
            return await self.client.run(hook.add_details, self._image_name, version)
        except Exception as error:
            fault = classify_error(error)
            if fault is not None:
                _metrics.count_errors([fault], self._tags)
                limiter.learn(throttled=fault is ErrorKind.THROTTLED)
            if fault is ErrorKind.CREDENTIALS:
                self.client.discard(hook)
            raise

    async def _run(self) -> None:
        reason = Reason.NEW_SUBSCRIBER
        while self._subscriptions:
            result = await self._poll(reason)
            self._count_outcome(result)
            # A missing connection that the fallback will fix does not count against a wait.
            counts = self._failures and not self.client.awaits_fallback
            result = replace(result, lasting=self._failing.lasts(result.fault if counts else None, time.monotonic()))
            self._result, self._serial = result, self._started
            self._published.release()
            reason = await self._pause(result)

    async def _poll(self, reason: Reason) -> PollResult:
        """Read what the subscribers need, twice if the credentials have to be loaded again; log and count it."""
        calls, waited, took = 0, 0.0, 0.0
        for last in (False, True):
            hook = None
            try:
                hook = await self.client.hook()
            except Exception as error:
                fault = classify_error(error)
                if fault is None:
                    raise
                self._begin()
                result = PollResult(frozenset(), calls=0, fault=fault, error=error)
            else:
                limiter = self.client.limiter(hook)
                late = await limiter.take(_schedule.FIRST if last else self._began)
                if not last:
                    limiter.check_backlog(late, self._shortest_interval())
                waited += late
                # Only now, so that the first call serves all who came while the first client was made.
                targets = self._begin()
                result = await self.client.run(poll_versions, hook, self._image_name, targets)
                took += time.monotonic() - self._began
                calls += result.calls
                limiter.learn(result.calls - 1, throttled=result.fault is ErrorKind.THROTTLED)
            if result.fault is not ErrorKind.CREDENTIALS or last:
                break
            self.client.discard(hook)
        self._report(result, reason, calls, waited, took)
        return result

    def _begin(self) -> frozenset[Target | VersionsAbove]:
        self._requested = None
        self._started += 1
        self._began = time.monotonic()
        self._asked_for_details = _schedule.FIRST
        return frozenset(subscription.target for subscription in self._subscriptions)

    @property
    def _tags(self) -> dict[str, str]:
        tags = {"image_name": self._image_name, "aws_conn_id": self.client.conn_id, "region_name": self.client.region}
        return {name: value for name, value in tags.items() if value}

    def _count_calls(self, calls: int) -> None:
        self._calls += calls
        _metrics.count_calls(calls, self._tags)

    def _report(self, result: PollResult, reason: Reason, calls: int, waited: float, took: float) -> None:
        self._polls += 1
        self._count_calls(calls)
        _metrics.count_poll(result, took, self._tags)
        _metrics.report_subscribers(self._registry.subscribers)
        _log.debug(
            "SageMaker image %(image)r: polled; connection: %(connection)s; region: %(region)s; reason: %(reason)s; "
            "subscribers: %(subscribers)d; calls: %(calls)d; waited: %(waited).3f s; duration: %(duration).3f s; "
            "result: %(result)s",
            {
                "image": self._image_name,
                "connection": self.client.conn_id,
                "region": self.client.region,
                "reason": reason.value,
                "subscribers": len(self._subscriptions),
                "calls": calls,
                "duration": took,
                "waited": waited,
                "result": _summarize(result),
            },
        )

    def _count_outcome(self, result: PollResult) -> None:
        """Count failures in a row, and log when an outage starts and ends."""
        now = time.monotonic()
        if result.fault not in _HEALTHY:
            if not self._failures:
                self._failing_since = now
                _log.info("%s: polls started to fail: %s", self._label, describe_error(result.error))
            self._failures += 1
            return
        self._succeeded = self._started
        if self._failures:
            _log.info(
                "%s: polls succeed again after %.0f seconds; failed polls: %d",
                *(self._label, now - self._failing_since, self._failures),
            )
        self._failures = 0

    def _shortest_interval(self) -> float:
        return min((other.interval for other in self._subscriptions), default=_sessions.BACKOFF_CAP)

    async def _pause(self, result: PollResult) -> Reason:
        """Wait until the next poll is due; return why it is."""
        jitter = random.random()  # noqa: S311  # spreads calls, keeps no secret
        before = self._shortest_interval()
        while self._subscriptions:
            if self._requested is not None and result.fault in _HEALTHY:
                return self._requested
            if not all(result.covers(other.target) for other in self._subscriptions):
                return Reason.READ_DEEPER
            self._interval = self._shortest_interval()
            is_first, woken = self._polls == 1, self._reported >= self._succeeded
            gap = _schedule.gap(result, self._interval, jitter, failures=self._failures, is_first=is_first, woken=woken)
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), self._began + gap - time.monotonic())
            except asyncio.TimeoutError:
                if self._interval < before:
                    return Reason.SHORTER_INTERVAL
                return Reason.RETRY if self._failures else Reason.INTERVAL
        # wait_for() of Python before 3.12 may swallow a cancellation. There is no next poll.
        return Reason.INTERVAL

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._crash = task.exception()
            # New subscribers get a new poll; the subscribers of this one get the exception.
            self._registry.forget(self)
            self._published.release()


class _Client:
    """One boto3 client, shared by all polls with the same connection, region, TLS and botocore settings."""

    def __init__(self, registry: _Registry, parameters: dict[str, Any]) -> None:
        self.conn_id: str | None = parameters.get("aws_conn_id")
        """Id of the connection."""
        self._registry = registry
        self._parameters = parameters
        self._hook: SageMakerImageVersionsHook | None = None
        self._renewal = self._end = 0.0
        self.region = ""
        """Region of the last client; empty before the first one."""
        self.awaits_fallback = False
        """Whether the connection is missing, and boto3's default chain will replace it if that lasts."""
        self._had_connection = False
        self._missing = FaultTimer()
        self._lock = asyncio.Lock()
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run blocking AWS work in a thread."""
        # Not with run_in_executor(): to mask a secret, Airflow calls its supervisor from this thread. Before 3.3, it
        # does so on the event loop only for asgiref's threads. On another loop it would mix up responses, which ends
        # the triggerer (apache/airflow#64620).
        in_thread = sync_to_async(function, thread_sensitive=False, executor=self._registry.pool)
        async with self._places:
            return await in_thread(*arguments)

    async def hook(self) -> SageMakerImageVersionsHook:
        """Return the hook with its client, which is replaced when it is old."""
        async with self._lock:
            if self._hook is not None and time.monotonic() < self._renewal:
                return self._hook
            try:
                self._hook = await self._open()
                self._end = time.monotonic() + LONGEST_LIFETIME
                lifetime = random.uniform(*CLIENT_LIFETIME)  # noqa: S311  # spreads work, keeps no secret
            except Exception as error:
                if self._hook is None or classify_error(error) is None or time.monotonic() >= self._end:
                    raise
                # It still works. The cause may be an outage of Airflow's database or secrets backend.
                _log.warning(
                    "SageMaker client of connection %r: could not be renewed; continuing with the existing client: %s",
                    self._hook.aws_conn_id,
                    describe_error(error),
                )
                lifetime = RENEWAL_PAUSE
            self._renewal = time.monotonic() + lifetime
            return self._hook

    async def _open(self) -> SageMakerImageVersionsHook:
        hook = SageMakerImageVersionsHook.from_parameters(**self._parameters)
        # First, as a poll is counted even if it gets no client.
        await self.run(_metrics.warm_up)
        await self._find_connection(hook)
        await self.run(hook.get_conn)
        self.region = str(hook.conn_region_name)
        return hook

    async def _find_connection(self, hook: SageMakerImageVersionsHook) -> None:
        """Look up the connection, and fall back to boto3's default chain if it certainly does not exist."""
        self.awaits_fallback = False
        try:
            await hook.preload_connection()
        except Exception as error:
            kind = ErrorKind.CREDENTIALS if isinstance(error, MissingConnectionError) else None
            lasting = self._missing.lasts(kind, time.monotonic())
            # No worker has decided this. In Airflow 3, an outage of its database is indistinguishable from a missing
            # connection, so the error must last. Credentials of a connection are never replaced with those of the
            # machine.
            if kind is None or not hook.may_fall_back or self._had_connection:
                raise
            self.awaits_fallback = not _sessions.has_outlasted_grace(kind, lasting)
            if self.awaits_fallback:
                raise
            hook.fall_back()
        else:
            self._had_connection |= hook.has_connection

    def limiter(self, hook: SageMakerImageVersionsHook) -> _Limiter:
        """Return the limiter for the calls of a hook from :meth:`hook`."""
        return self._registry.limiter(hook.effective_conn_id, str(hook.conn_region_name))

    def discard(self, hook: SageMakerImageVersionsHook | None) -> None:
        """Replace the client before its next use, unless it has already been replaced."""
        if self._hook is hook:
            self._hook = None

    def close(self) -> None:
        """Close the client's connections."""
        if self._hook is not None:
            self._hook.get_conn().close()


class _Limiter:
    """
    Limit the rate of API calls of a connection in a region, and warn when that delays polls.

    :param rate: Maximum number of calls per second on average.
    :param label: Connection and region, for log lines.
    """

    def __init__(self, rate: float, label: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue = CallQueue(rate, self._loop.time())
        self._monitor = BacklogMonitor()
        self._label = label
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, priority: float, calls: int = 1) -> float:
        """
        Wait until it is the caller's turn; return the seconds waited.

        :param priority: See :meth:`CallQueue.add`.
        :param calls: Number of API calls.
        """
        asked = self._loop.time()
        turn = self._loop.create_future()
        self._queue.add(turn, priority, calls)
        self._advance()
        try:
            await turn
        except asyncio.CancelledError:
            self._queue.cancel(turn, calls)
            self._advance()
            raise
        return self._loop.time() - asked

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        for turn in self._queue.take_turns(now):
            if not turn.done():
                turn.set_result(None)
        if delay := self._queue.delay(now):
            self._timer = self._loop.call_later(delay, self._advance)

    def learn(self, further_calls: int = 0, *, throttled: bool) -> None:
        """Count the additional calls of a poll, and adapt the rate to SageMaker's responses."""
        self._queue.count(further_calls)
        self._queue.adapt(throttled=throttled)
        self._advance()

    def check_backlog(self, late: float, interval: float) -> None:
        """
        Warn once when polls are persistently late, and log when they are on time again.

        :param late: Seconds by which a poll was late.
        :param interval: Its interval in seconds.
        """
        if not self._monitor.observe(self._loop.time(), late, interval):
            return
        if not self._monitor.is_behind:
            _log.info("SageMaker polls through %s: on time again", self._label)
            return
        queue = self._queue
        intervals = "poke_interval of sensors, or poll_interval of watchers"
        advice = f"Raise [sagemaker_image_versions] calls_per_second, {intervals}"
        if queue.rate < queue.full_rate:
            advice = f"SageMaker throttles these calls, currently to {queue.rate:.2g}. Raise {intervals}"
        _log.warning(
            "SageMaker polls through %s: %.0f seconds behind, because more calls are due than "
            "calls_per_second=%g allows. All images are polled equally often. %s",
            *(self._label, max(late, queue.backlog), queue.full_rate, advice),
        )


class _Registry:
    """The polls and clients of one event loop, which belongs to one thread of one process."""

    def __init__(self) -> None:
        rate = conf.getfloat("sagemaker_image_versions", "calls_per_second", fallback=1.0)
        self._rate = parse_rate("[sagemaker_image_versions] calls_per_second", rate)
        self._loop = asyncio.get_running_loop()
        self._limiters: dict[tuple[str | None, str], _Limiter] = {}
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sagemaker-image-versions")
        self.polls: dict[tuple[str, str], _Poll] = {}
        self.readers: dict[tuple[_Client, str], QueueReader] = {}
        self.subscribers = 0
        """Number of subscriptions of all polls."""

    def poll(self, parameters: dict[str, Any], image_name: str) -> _Poll:
        """Return the poll for an image through a connection."""
        connection = json.dumps(parameters, sort_keys=True)
        poll = self.polls.get((connection, image_name))
        if poll is None:
            siblings = (other.client for (key, _), other in self.polls.items() if key == connection)
            client = next(siblings, None) or _Client(self, parameters)
            poll = self.polls[connection, image_name] = _Poll(self, client, image_name)
        return poll

    def reader(self, client: _Client, queue_url: str) -> QueueReader:
        """Return the reader of a queue through a connection."""
        if (client, queue_url) not in self.readers:
            self.readers[client, queue_url] = QueueReader(self, client, queue_url)
        return self.readers[client, queue_url]

    def report_change(self, change: StateChange) -> list[_Poll]:
        """Start all polls of an image at once, and return them."""
        polls = [
            poll
            for (_, image_name), poll in self.polls.items()
            # The region is unknown until the first poll, which is in progress then.
            if image_name.lower() == change.image_name and poll.client.region.lower() in {"", change.region}
        ]
        for poll in polls:
            poll.report_change(change)
        return polls

    def limiter(self, aws_conn_id: str | None, region: str) -> _Limiter:
        """Return the limiter shared by all clients of a connection in a region."""
        if (aws_conn_id, region) not in self._limiters:
            label = f"connection {aws_conn_id!r} in {region}"
            self._limiters[aws_conn_id, region] = _Limiter(self._rate, label)
        return self._limiters[aws_conn_id, region]

    @staticmethod
    def spawn(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task in its own context, or its log lines would go to the log of the first subscriber's task."""
        return contextvars.Context().run(asyncio.get_running_loop().create_task, work)

    def forget(self, poll: _Poll) -> None:
        """Remove a poll, and its client and the threads if it was the last one."""
        self.polls = {key: other for key, other in self.polls.items() if other is not poll}
        if all(other.client is not poll.client for other in self.polls.values()):
            poll.client.close()
        if not self.polls:
            self.pool.shutdown(wait=False)
            # After a crash, the loop may have another registry before the last subscriber leaves this one.
            if _registries.get(self._loop) is self:
                del _registries[self._loop]


_registries: dict[asyncio.AbstractEventLoop, _Registry] = {}


def _registry() -> _Registry:
    loop = asyncio.get_running_loop()
    if loop not in _registries:
        _registries[loop] = _Registry()
    return _registries[loop]
