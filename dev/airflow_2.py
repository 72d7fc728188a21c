"""
A real Airflow 2 on this machine, for the demo.

Its API has no mode without logins, so this module reads the database and runs Airflow's own commands.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.local_airflow import ApiError, LocalAirflow, LocalAirflowError, airflow_command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Airflow2(LocalAirflow):
    """
    A private Airflow 2: a scheduler, which also parses and runs one task at a time, and a triggerer.

    :param dags_folder: the DAG files to load; files that need a newer Airflow are skipped
    :param env: extra environment for all components
    :param progress: called with a line of text at each step
    """

    def __init__(
        self,
        dags_folder: str | os.PathLike[str],
        *,
        env: Mapping[str, str],
        progress: Callable[[str], None] | None = None,
    ) -> None:
        executor = {
            "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",  # the only executor that supports SQLite
            # The executor needs the command "airflow" on the PATH.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        components = ("scheduler", "triggerer")
        super().__init__(dags_folder, env={**executor, **env}, components=components, progress=progress)

    def _command(self, *arguments: str) -> None:
        done = subprocess.run(
            airflow_command(*arguments), env=self._env, cwd=self.home, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LocalAirflowError(f"airflow {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")

    def import_errors(self) -> dict[str, str]:
        """Return the stack trace of each DAG file that cannot be loaded."""
        return dict(self.query("SELECT filename, stacktrace FROM import_error"))

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until the DAG is loaded."""

        def missing() -> str:
            self.raise_if_dead()
            known = (dag_id,) in self.query("SELECT dag_id FROM serialized_dag")
            return "" if known else f"the DAG {dag_id}; import errors: {self.import_errors()}"

        self._wait(missing, time.monotonic() + timeout, f"DAG {dag_id}")

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG."""
        self._command("dags", "unpause", dag_id)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, logical_date: str | None = None) -> str:
        """Unpause the DAG, start a run of it and return the run's id."""
        self.unpause(dag_id)
        run_id = f"manual__{secrets.token_hex(8)}"
        date = ["--exec-date", logical_date] if logical_date else []
        self._command("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(dict(conf or {})), *date)
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of the DAG, oldest first."""
        found = self.query("SELECT dag_id, run_id, state FROM dag_run ORDER BY id")
        return [{"dag_run_id": run_id, "state": state} for owner, run_id, state in found if owner == dag_id]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return next(run["state"] for run in self.runs(dag_id) if run["dag_run_id"] == run_id)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run with their states and times."""
        names = ("dag_id", "run_id", "task_id", "map_index", "state", "start_date", "end_date")
        rows = self.query("SELECT dag_id, run_id, task_id, map_index, state, start_date, end_date FROM task_instance")
        return [dict(zip(names, row, strict=True)) for row in rows if row[:2] == (dag_id, run_id)]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom."""
        wanted = (dag_id, run_id, task_id, key, map_index)
        for *identity, value in self.query("SELECT dag_id, run_id, task_id, key, map_index, value FROM xcom"):
            if tuple(identity) == wanted:
                return json.loads(value)
        raise ApiError("GET", f"xcom {wanted}", http.client.NOT_FOUND, "")

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task."""
        mapped = [f"map_index={map_index}"] if map_index >= 0 else []
        parts = [f"dag_id={dag_id}", f"run_id={run_id}", f"task_id={task_id}", *mapped, f"attempt={try_number}.log"]
        return self.home.joinpath("logs", *parts).read_text(encoding="utf-8")
