"""Run N waits in one process on one event loop, as a triggerer does, and measure their costs."""

from __future__ import annotations

import asyncio
import gc
import importlib
import io
import json
import statistics
import time
import tracemalloc
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import greenback
import psutil
from airflow.sdk.log import configure_logging
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger
from benchmarks.measure import LoopWatch, answer
from benchmarks.peer import PeerTrigger
from benchmarks.server import admin, creation_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

VERSIONS = 100
"""Number of versions of each image, a full page. The waits are for the newest."""
PATIENCE = 600.0
_MARK = b"waiting for"
"""The log line of both triggers when their first poll finds no CREATED version."""


class EmptyTrigger(BaseTrigger):
    """Airflow's own part of a trigger: it only waits, after logging a line if ``version`` is not 0."""

    def __init__(self, *, image_name: str, version: int, poll_interval: int) -> None:
        super().__init__()
        self.image_name = image_name
        self.version = version
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Not needed here."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait forever."""
        if self.version:
            self.log.info("SageMaker image %r: waiting for %s", self.image_name, "nothing")
        await asyncio.Event().wait()
        yield TriggerEvent({})


TRIGGERS: dict[str, Callable[..., BaseTrigger]] = {
    "ours": SageMakerImageVersionTrigger,
    "ours, created_after": SageMakerImageVersionTrigger,
    "peer": PeerTrigger,
    "empty": EmptyTrigger,
    "empty, logs a line": EmptyTrigger,
}


class _Log(io.RawIOBase):
    """Collect Airflow's log records, and record when each wait first logs that it is waiting."""

    def __init__(self, waits: int) -> None:
        self.answered_at = [0.0] * waits
        self.missing = waits
        self.all_answered = asyncio.Event()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        number = _number.get()
        if number is not None and _MARK in data and not self.answered_at[number]:
            self.answered_at[number] = time.monotonic()
            self.missing -= 1
            if not self.missing:
                self.all_answered.set()
        return len(data)


_number: ContextVar[int | None] = ContextVar("number", default=None)


def _target(kind: str, number: int) -> dict[str, Any]:
    """Return the arguments of a wait for the newest version."""
    if kind == "empty":
        return {"version": 0}
    if kind == "ours, created_after":
        # Each has its own time, like runs of a DAG.
        moment = datetime.fromtimestamp(creation_time(VERSIONS), timezone.utc) - timedelta(milliseconds=number)
        return {"created_after": moment.isoformat()}
    return {"version": VERSIONS}


class _Triggerer:
    """Start triggers and run them as Airflow does: as tasks on one loop, each in a greenback portal."""

    def __init__(self, kind: str, waits: int, images: list[str], interval: float) -> None:
        self._kind = kind
        self._arguments = [
            json.dumps({"image_name": images[number % len(images)], "poll_interval": interval, **_target(kind, number)})
            for number in range(waits)
        ]
        self._waits = waits
        self._tasks: list[asyncio.Task[None]] = []
        self.fired_at = [0.0] * waits
        self.log = _Log(waits)
        configure_logging(json_output=True, output=self.log, sending_to_supervisor=True)

    async def start(self, waits: int) -> None:
        """Start more triggers."""
        for _ in range(waits):
            await asyncio.sleep(0)
            number = len(self._tasks)
            # From JSON, as Airflow stores it, so that each has its own objects.
            trigger = TRIGGERS[self._kind](**json.loads(self._arguments[number]))
            await asyncio.sleep(0)
            self._tasks.append(asyncio.create_task(self._run(number, trigger)))

    async def _run(self, number: int, trigger: BaseTrigger) -> None:
        await greenback.ensure_portal()
        _number.set(number)
        async for event in trigger.run():
            if "success" not in str(event.payload) and "ready" not in str(event.payload):
                raise RuntimeError(f"A wait ended unexpectedly: {event}")
            self.fired_at[number] = time.monotonic()

    async def settle(self, waits: int) -> None:
        """Wait until this number of waits have received their first response."""
        if self._kind == "empty":
            await asyncio.sleep(0.5)
            return
        deadline = time.monotonic() + PATIENCE
        while self._waits - self.log.missing < waits:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._waits - self.log.missing} of {waits} waits have logged {_MARK!r}")
            self._raise_failure()
            await asyncio.sleep(0.01 if waits == 1 else 0.05)

    async def finish(self) -> None:
        """Wait until all triggers have fired."""
        await asyncio.wait_for(asyncio.gather(*self._tasks), PATIENCE)

    async def cancel(self) -> None:
        """Cancel all triggers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()


async def _measure_run(
    endpoint: str, kind: str, waits: int, images: list[str], *, interval: float, intervals: int
) -> dict[str, Any]:
    # A triggerer has these objects in memory, which makes garbage collections longer.
    importlib.import_module("airflow.jobs.triggerer_job_runner")
    gc.collect()
    triggerer = _Triggerer(kind, waits, images, interval)

    with LoopWatch() as at_start:
        began = time.monotonic()
        await triggerer.start(waits)
        await triggerer.settle(waits)
        await asyncio.sleep(0.2)
    last_answer = max(triggerer.log.answered_at) - began

    # Polls that started together spread during the first interval. With half an interval, none is at the window's edge.
    with LoopWatch() as between:
        await asyncio.sleep(1.5 * interval)
    # The monitor would also use CPU.
    window, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(intervals * interval)
    cpu, seconds = time.process_time() - cpu, time.monotonic() - window
    calls = [call for call in await asyncio.to_thread(admin, endpoint, "calls") if window <= call < window + seconds]

    with LoopWatch() as at_end:
        # Directly after a poll, which is the worst case for waits.
        await asyncio.to_thread(_wait_for_call, endpoint)
        switched = await asyncio.to_thread(admin, endpoint, "switch", status="CREATED")
        await triggerer.finish()
        await asyncio.sleep(0.2)
    delays = [fired - switched for fired in triggerer.fired_at]

    return {
        "calls_per_interval": len(calls) / seconds * interval,
        "calls_per_second": len(calls) / seconds,
        "intervals_measured": intervals,
        "cpu_percent_of_a_core": cpu / seconds * 100,
        "cpu_seconds_per_wait_and_hour": cpu / seconds / waits * 3600,
        "first_answer_of_last_wait": last_answer,
        "loop_at_start": at_start.report(),
        "loop_between": between.report(),
        "loop_at_end": at_end.report(),
        "created_to_event_max": max(delays),
        "created_to_event_median": statistics.median(delays),
        "rss_at_end": psutil.Process().memory_info().rss,
    }


def _wait_for_call(endpoint: str) -> None:
    before = len(admin(endpoint, "calls"))
    while len(admin(endpoint, "calls")) == before:
        time.sleep(0.02)
    time.sleep(0.02)  # until it is answered


async def _measure_memory(kind: str, waits: int, images: list[str], *, trace: bool) -> dict[str, Any]:
    triggerer = _Triggerer(kind, waits + 1, images, 60)
    await triggerer.start(1)
    await triggerer.settle(1)
    if trace:
        tracemalloc.start()
    before = await _memory(trace=trace)
    await triggerer.start(waits)
    await triggerer.settle(waits + 1)
    after = await _memory(trace=trace)
    await triggerer.cancel()
    return {"bytes_per_wait": (after - before) / waits}


async def _memory(*, trace: bool) -> int:
    await asyncio.sleep(1)
    gc.collect()
    return tracemalloc.get_traced_memory()[0] if trace else psutil.Process().memory_info().rss


def measure(
    *,
    endpoint: str,
    what: str,
    kind: str,
    waits: int,
    images: int = 1,
    interval: float = 60,
    intervals: int = 3,
) -> dict[str, Any]:
    """
    Measure N waits.

    :param endpoint: The stand-in's address.
    :param what: ``run``: from the start to the last event; ``rss`` or ``tracemalloc``: the memory of this number of
        waits in addition to one for the same image.
    :param kind: One of :data:`TRIGGERS`.
    :param waits: N.
    :param images: Number of images, to which the waits are assigned in turn.
    :param interval: Seconds between two polls.
    :param intervals: Number of intervals in which to measure calls and CPU.
    """
    names = [f"waited-for-{number}" for number in range(images)]
    admin(endpoint, "prepare", names=names, versions=VERSIONS, status="CREATING", page_sizes=[100])
    if what == "run":
        return asyncio.run(_measure_run(endpoint, kind, waits, names, interval=interval, intervals=intervals))
    return asyncio.run(_measure_memory(kind, waits, names, trace=what == "tracemalloc"))


if __name__ == "__main__":
    answer(measure)
