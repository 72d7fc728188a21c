"""Start polls when messages arrive in an SQS queue."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from airflow_provider_imageversions import _schedule, _sessions
from airflow_provider_imageversions.errors import classify_error
from airflow_provider_imageversions.model import ErrorKind, StateChange, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_imageversions._shared_poller import Subscription, _Client, _Registry
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

_log = logging.getLogger(__name__)

RECEIVE_SECONDS = 5
"""Seconds that one call waits for messages. Its thread may end this long after the last subscription."""
MESSAGES_AT_ONCE = 10
"""Maximum number of messages that one call receives; SQS allows no more."""
HIDDEN_FROM_OTHERS = 5
"""Seconds after which a message for an image that is not polled here becomes visible to other triggerers."""
KEPT_FOR_OTHERS = 60.0
"""Seconds after which such a message is deleted."""
MESSAGES_KEPT = 1000
"""Number of messages to remember, so that a message that is received again causes no further poll."""


class QueueReader:
    """Read one queue in its own thread, for all subscriptions that use it."""

    def __init__(self, registry: _Registry, client: _Client, queue_url: str) -> None:
        self._registry = registry
        self._client = client
        self._queue_url = queue_url
        self._subscriptions: set[Subscription] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sagemaker-image-versions-queue")
        self._hook: SageMakerImageVersionsHook | None = None
        self._queue: Any = None
        self._reported: deque[tuple[str, bool]] = deque(maxlen=MESSAGES_KEPT)
        self._seen: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._failures = 0
        self._task = registry.spawn(self._run())

    def join(self, subscription: Subscription) -> None:
        """Add a subscription."""
        self._subscriptions.add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription, and end with the last one."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._task.cancel()
            self._registry.readers.pop((self._client, self._queue_url), None)
            self._thread.shutdown(wait=False)
            self._close()

    async def _run(self) -> None:
        while self._subscriptions:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001, PERF203  # polling continues without the queue
                await self._pause(error)
            else:
                if self._failures:
                    _log.info("Queue %s: read again after %d failures", self._queue_url, self._failures)
                self._failures = 0

    async def _read(self) -> None:
        await self._open()
        answer = await self._call(
            self._queue.receive_message,
            MaxNumberOfMessages=MESSAGES_AT_ONCE,
            WaitTimeSeconds=RECEIVE_SECONDS,
            VisibilityTimeout=HIDDEN_FROM_OTHERS,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        messages = answer.get("Messages", [])
        done = [message for message in messages if self._is_done(message)]
        if done:
            entries = [{"Id": str(at), "ReceiptHandle": message["ReceiptHandle"]} for at, message in enumerate(done)]
            # A message that cannot be deleted is received again.
            await self._call(self._queue.delete_message_batch, Entries=entries)
        new = {message["MessageId"] for message in messages}.difference(self._seen)
        self._seen.extend(new)
        if len(done) < len(messages) and not new:
            # Two readers that receive at a constant pace can be in step, and one would receive a message each time.
            await asyncio.sleep(random.random() * HIDDEN_FROM_OTHERS)  # noqa: S311  # keeps no secret

    async def _call(self, call: Callable[..., dict[str, Any]], **parameters: Any) -> dict[str, Any]:
        in_thread = sync_to_async(call, thread_sensitive=False, executor=self._thread)
        return await in_thread(QueueUrl=self._queue_url, **parameters)

    async def _open(self) -> None:
        hook = await self._client.hook()
        if hook is self._hook:
            return
        self._close()
        self._queue = await self._client.run(
            partial(hook.get_queue_client, self._queue_url, wait_seconds=RECEIVE_SECONDS)
        )
        self._hook = hook

    def _close(self) -> None:
        if self._queue is not None:
            self._queue.close()
        self._hook = self._queue = None

    def _is_done(self, message: Mapping[str, Any]) -> bool:
        """Report a message to the polls of its image; return whether it can be deleted."""
        reported = dict(self._reported)
        if message["MessageId"] not in reported:
            change = StateChange.from_message(message["Body"])
            if change is not None and (polls := self._registry.report_change(change)):
                _log.debug("Queue %s: reported %s", self._queue_url, change)
                # If none of the polls is for this queue, a watcher in another triggerer waits for the message.
                own = any(subscription.is_served_by(polls) for subscription in self._subscriptions)
                self._reported.append((message["MessageId"], own))
                reported[message["MessageId"]] = own
        if reported.get(message["MessageId"]):
            # A message is received again if it could not be deleted.
            return True
        sent = int(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
        return time.time() - sent > KEPT_FOR_OTHERS

    async def _pause(self, error: Exception) -> None:
        kind = classify_error(error)
        if not self._failures:
            _log.warning(
                "Queue %s: could not be read; polling continues at poll_interval. Retrying at least every %.0f "
                "seconds: %s",
                self._queue_url,
                _sessions.BACKOFF_CAP,
                describe_error(error),
                exc_info=None if kind else error,
            )
        if kind is ErrorKind.CREDENTIALS:
            self._client.discard(self._hook)
        self._failures += 1
        jitter = random.random()  # noqa: S311  # spreads calls, keeps no secret
        await asyncio.sleep(_schedule.queue_retry_delay(self._failures, jitter))
