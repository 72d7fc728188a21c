"""Shared parts of measurements: a fresh process for each, its environment, clocks and a monitor of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

REGION = "us-east-1"
KEY = "benchmark"
_TICK = 0.01
_LONG = 0.2
"""Seconds after which Airflow's triggerer itself warns about a blocked event loop."""


def environment(endpoint: str, home: str) -> dict[str, str]:
    """
    Return the environment for a measured process: Airflow's defaults, and a connection to the stand-in.

    :param endpoint: The stand-in's address.
    :param home: An empty directory for Airflow.
    """
    connection = {
        "conn_type": "aws",
        "login": KEY,
        "password": KEY,
        "extra": {"region_name": REGION, "endpoint_url": endpoint},
    }
    foreign = ("AIRFLOW_", "AWS_", "BOTO_", "PYTHONDONTWRITEBYTECODE", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
        "AIRFLOW_HOME": home,
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def run_fresh(module: str, env: dict[str, str], **config: Any) -> dict[str, Any]:
    """
    Measure in a separate process, so that memory, imports and caches belong to this configuration.

    :param module: The module of this package that measures; its ``__main__`` calls :func:`answer`.
    :param env: The process's environment.
    :param config: What to measure.
    """
    load = os.getloadavg()[0]
    done = subprocess.run(  # noqa: S603  # this very interpreter
        [sys.executable, "-m", f"benchmarks.{module}", json.dumps(config)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.{module} {config} ended with code {done.returncode}")
    return {**config, **json.loads(done.stdout.splitlines()[-1]), "load_average": round(load, 2)}


def answer(measure: Callable[..., dict[str, Any]]) -> None:
    """Run as the process that :func:`run_fresh` starts."""
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


class LoopWatch:
    """
    Measure how long the running event loop is blocked at a time, while it is used as a context manager.

    A coroutine measures how late it wakes up. A thread confirms it: it measures how long the loop takes to respond, and
    how late the thread itself wakes up, as when another thread holds the interpreter lock. Garbage collections stop all
    threads, for as long as it takes to scan Airflow's own objects, so the figures are also reported without them.
    """

    def __init__(self) -> None:
        self._blocked: list[float] = []
        self._unanswered = 0.0
        self._thread_late = 0.0
        self._blocked_otherwise = 0.0
        self._collecting_since: float | None = None
        self._collecting = self._collection = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._watch())
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        gc.callbacks.append(self._note_collection)
        return self

    def __exit__(self, *_exc: object) -> None:
        gc.callbacks.remove(self._note_collection)
        self._task.cancel()
        self._over.set()

    def _note_collection(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        elif self._collecting_since is not None:
            took, self._collecting_since = time.monotonic() - self._collecting_since, None
            self._collecting += took
            self._collection = max(self._collection, took)

    def _collecting_until(self, now: float) -> float:
        # The collecting thread may not have recorded it yet, because this one was next in the queue for the lock.
        return self._collecting + (0.0 if self._collecting_since is None else now - self._collecting_since)

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            collecting = self._collecting_until(before)
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            late = now - before - _TICK
            self._blocked.append(late)
            self._blocked_otherwise = max(self._blocked_otherwise, late - (self._collecting_until(now) - collecting))

    def _ask(self) -> None:
        while True:
            before = time.monotonic()
            if self._over.wait(_TICK):
                return
            self._thread_late = max(self._thread_late, time.monotonic() - before - _TICK)
            before, answered = time.monotonic(), threading.Event()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(answered.set)
                answered.wait()
            self._unanswered = max(self._unanswered, time.monotonic() - before)

    def report(self) -> dict[str, float]:
        """Return the figures, in seconds."""
        return {
            "longest": max(self._blocked, default=0.0),
            "total_over_200_ms": sum(late for late in self._blocked if late > _LONG),
            "longest_seen_from_a_thread": self._unanswered,
            "thread_itself_late": self._thread_late,
            "longest_garbage_collection": self._collection,
            "longest_without_collections": self._blocked_otherwise,
        }
