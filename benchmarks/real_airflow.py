"""
Run sensors in a real Airflow on this machine, and measure their worker usage and how soon they end.

There are runs with one sensor, and with many that are ready at the same time. The latter queue for the executor's
workers, so their time is mostly that of the other processes.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from airflow_provider_imageversions.compat import ENDS_FROM_TRIGGER
from benchmarks.measure import answer
from benchmarks.server import admin
from dev.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
PATIENCE = 120.0
_LOOK = 0.05


class _Workers:
    """Watches the processes below the scheduler: the LocalExecutor's workers and the tasks that they run."""

    def __init__(self, scheduler: int) -> None:
        self._scheduler = psutil.Process(scheduler)
        self._known = {process.pid for process in self._scheduler.children(recursive=True)}
        self._over = threading.Event()
        self.started: set[int] = set()

    def cpu_seconds(self) -> float:
        """Return the resources that the processes have used, including those that have ended."""
        total = self._scheduler.cpu_times()
        seconds = total.children_user + total.children_system
        for process in self._scheduler.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:4])
        return float(seconds)

    def __enter__(self) -> Self:
        self._before = self.cpu_seconds()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()
        self.used = self.cpu_seconds() - self._before

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            self.started |= {process.pid for process in self._scheduler.children(recursive=True)} - self._known


def _run_to_success(airflow: LocalAirflow, dag_id: str, run_id: str) -> None:
    if airflow.wait_for_run(dag_id, run_id, timeout=PATIENCE) != "success":
        raise RuntimeError(airflow.diagnosis(dag_id, run_id))


def _wait_until_deferred(airflow: LocalAirflow, dag_id: str, run_id: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while set(airflow.task_states(dag_id, run_id).values()) != {"deferred"}:
        if time.monotonic() > deadline:
            raise TimeoutError(airflow.diagnosis(dag_id, run_id))
        time.sleep(0.5)


class _Times(NamedTuple):
    """
    Mean seconds since the version became CREATED, of sensors that wait for the same version.

    :param answered: Until the response that reports it. This depends on the phase of the polls, in all variants.
    :param ended: Until the task's success.
    :param last: Until the success of the last task.
    """

    answered: float
    ended: float
    last: float


def _time_to_success(airflow: LocalAirflow, endpoint: str, dag_id: str, interval: float) -> _Times:
    """Run a DAG of sensors, and make the version CREATED when all of them wait."""
    admin(endpoint, "prepare", names=["waited-for"], versions=1, status="CREATING")
    run_id = airflow.trigger(dag_id)
    _wait_until_deferred(airflow, dag_id, run_id)
    time.sleep(max(5, 2 * interval))
    switched = admin(endpoint, "switch", status="CREATED")
    epoch = time.time() - time.monotonic()
    _run_to_success(airflow, dag_id, run_id)
    # A sensor that has the response does not poll again.
    answers = [called for called in admin(endpoint, "calls") if called > switched]
    ends = [datetime.fromisoformat(task["end_date"]) for task in airflow.task_instances(dag_id, run_id)]
    ended = [end.timestamp() - epoch - switched for end in ends]
    return _Times(statistics.mean(answers) - switched, statistics.mean(ended), max(ended))


def measure(*, endpoint: str, kind: str, waits: int, interval: float, repeats: int) -> dict[str, Any]:
    """
    Measure sensors that wait for the same version.

    :param endpoint: The stand-in's address.
    :param kind: One of the kinds in the DAG file.
    :param waits: Number of sensors that wait at the same time, after the one that waits alone.
    :param interval: Seconds between two polls.
    :param repeats: How often to run each of the two.
    """
    if "trigger" in kind and not ENDS_FROM_TRIGGER:
        return {"supported": False}
    env = {
        "AIRFLOW_CONN_AWS_DEFAULT": os.environ["AIRFLOW_CONN_AWS_DEFAULT"],
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])),
        "BENCHMARK_KIND": kind,
        "BENCHMARK_SENSORS": str(waits),
        "BENCHMARK_INTERVAL": str(interval),
    }
    with LocalAirflow(dags_folder=HERE / "dags", env=env) as airflow:
        airflow.wait_for_dag("burst", timeout=120)
        # After that, all workers of the executor run, and the triggerer has looked up the connection.
        admin(endpoint, "prepare", names=["created"], versions=1)
        _run_to_success(airflow, "warm_up", airflow.trigger("warm_up"))
        lone = [_time_to_success(airflow, endpoint, "lone", interval) for _ in range(repeats)]
        with _Workers(airflow.pid("scheduler")) as workers:
            burst = [_time_to_success(airflow, endpoint, "burst", interval) for _ in range(repeats)]
    return {
        "supported": True,
        "worker_cpu_seconds_per_wait": workers.used / waits / repeats,
        "processes_per_wait": len(workers.started) / waits / repeats,
        **_summary("lone", lone),
        **_summary("burst", burst),
    }


def _summary(name: str, runs: list[_Times]) -> dict[str, float]:
    return {
        f"{name}_created_to_success": statistics.median(run.ended for run in runs),
        f"{name}_answer_to_success": statistics.median(run.ended - run.answered for run in runs),
        f"{name}_last": max(run.last for run in runs),
    }


if __name__ == "__main__":
    answer(measure)
