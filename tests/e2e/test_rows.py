"""What success leaves in the database in each mode, row by row; row_table.py accounts for the differences."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from tests.e2e.row_table import DIFFERENCES, KINDS, STANDS_FOR
from tests.e2e.test_lifecycle import until

DAG, IMAGE = "leaves_rows", "rows-image"
REFERENCE, MODES = "poke", ("deferrable", "start", "end", "both")
# Which of the rows of a table that belong to a task is meant.
KEYS = {"xcom": "key", "log": "event"}
# Since Airflow 3.4, other tables have what belongs to a try of a task, and identify the try only.
RENAMED = {"xcom_v2": "xcom", "rtif_v2": "rendered_task_instance_fields", "region_index": "map_index"}
IDENTITY = ("dag_id", "task_id", "run_id", "map_index")
FINISHED = {"success", "failed", "upstream_failed", "skipped"}

pytestmark = [pytest.mark.e2e, pytest.mark.probe]


class Database:
    """All rows there are, taken at one moment."""

    def __init__(self, airflow, run_id):
        self.run_id = run_id
        self.tables = {}
        for (table,) in airflow.query("SELECT name FROM sqlite_master WHERE type = 'table'"):
            columns = [RENAMED.get(column, column) for _, column, *_ in airflow.query(f"PRAGMA table_info({table})")]
            rows = airflow.query(f"SELECT * FROM {table}")
            found = self.tables.setdefault(RENAMED.get(table, table), [])
            found += [dict(zip(columns, row, strict=True)) for row in rows]
        tries = {
            row["id"]: {key: row[key] for key in IDENTITY} for row in self.tables["task_instance"] if _is_current(row)
        }
        for rows in self.tables.values():
            rows[:] = [{**tries.get(row.get("task_instance_id"), {}), **row} for row in rows]

    def rows_of(self, task_id, map_index):
        """What belongs to a task instance, as table or table[key] and normalized columns."""
        (task,) = (row for row in self.tables["task_instance"] if self._is_of(row, task_id, map_index))
        found = {}
        for table, rows in self.tables.items():
            if table == "task_instance_history":  # earlier tries
                continue
            for row in rows:
                if self._is_of(row, task_id, map_index) or task["id"] in row.values():
                    name = f"{table}[{row[KEYS[table]]}]" if table in KEYS else table
                    found.setdefault(name, []).append(
                        {column: _normalized(column, value, task_id) for column, value in row.items()}
                    )
        return found

    def _is_of(self, row, task_id, map_index):
        return (
            (row.get("run_id"), row.get("task_id")) == (self.run_id, task_id)
            and row.get("map_index", -1) == map_index
            and _is_current(row)
        )


def _is_current(row):
    return row.get("working_set", True)


def _normalized(column, value, task_id):
    """What can be compared with another task's: that there is a time, but not which."""
    if value is None or value == "null":
        return None
    text = str(value)
    if column == "duration":
        return "negative" if float(value) < 0 else "positive"
    if re.match(r"\d{4}-\d\d-\d\d ", text):
        return "a time"
    if column in {"id", "pid", "ti_id", "task_instance_id", "region_id", "dag_version_id", "context_carrier"}:
        return "something"
    return text.replace(task_id, "TASK")


def _differences(reference, other):
    """The columns whose values are others, and the rows that are missing or there besides."""
    for name in reference.keys() | other.keys():
        ours, theirs = other.get(name, []), reference.get(name, [])
        if len(ours) != len(theirs):
            yield f"{name}: {'missing' if len(ours) < len(theirs) else 'besides'}"
            continue
        for mine, its in zip(ours, theirs, strict=True):
            yield from (f"{name}.{column}" for column in mine if mine[column] != its[column])


@pytest.fixture(scope="module")
def databases(airflow, service):
    """The database after the first try of all tasks, and after a second of the plain ones."""
    service.create_versions(IMAGE, 2)
    airflow.wait_for_dag(DAG)
    _close(service)
    run_id = airflow.trigger(DAG)
    first = _finish(airflow, service, run_id)
    _close(service)
    plain = [f"plain_{mode}" for mode in (*MODES, REFERENCE)]
    airflow.api(
        "POST",
        f"/api/v2/dags/{DAG}/clearTaskInstances",
        {"dry_run": False, "dag_run_id": run_id, "task_ids": plain, "only_failed": False},
    )
    return first, _finish(airflow, service, run_id)


def _close(service):
    for version in (1, 2):
        service.set_version(IMAGE, version, status="CREATING")


def _finish(airflow, service, run_id):
    """Let the versions be CREATED once all waits have been deferred, as a worker may come first otherwise."""

    def settled():
        states = airflow.task_states(DAG, run_id)
        waiting = [state for task, state in states.items() if _mode(task) in MODES and not task.startswith("over_")]
        return set(waiting) <= {"deferred", "success"} and "deferred" in waiting

    until(airflow, settled, 120)
    for version in (1, 2):
        service.set_version(IMAGE, version, status="CREATED")
    airflow.wait_for_run(DAG, run_id, 180)
    states = airflow.task_states(DAG, run_id)
    waits = {task: state for task, state in states.items() if not task.startswith("over_")}
    assert set(waits.values()) == {"success"}, airflow.diagnosis(DAG, run_id)
    return Database(airflow, run_id)


def _mode(task):
    return task.partition("[")[0].partition("_")[2]


def _task(kind, mode):
    return f"{'plain' if kind == 'again' else kind}_{mode}", 0 if kind == "mapped" else -1


def _observed(databases, kind, mode):
    database = databases[kind == "again"]
    return set(_differences(database.rows_of(*_task(kind, REFERENCE)), database.rows_of(*_task(kind, mode))))


def _accounted(kind, mode):
    stands_for = STANDS_FOR.get(kind, {}).get(mode, mode)
    return {each.where for each in DIFFERENCES if stands_for in each.modes and kind in each.kinds}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_difference_to_poke_mode_is_accounted_for(databases, kind, mode):
    assert _observed(databases, kind, mode) == _accounted(kind, mode)


def test_the_result_is_the_same_in_every_mode(databases):
    first, _ = databases
    records = {
        row["value"]
        for row in first.tables["xcom"]
        if (row["run_id"], row["key"]) == (first.run_id, "return_value") and row["map_index"] < 1
    }
    assert {json.loads(record)["Version"] for record in records} == {1}
    assert len(records) == 1


def test_nothing_of_the_wait_itself_is_left(databases):
    for database in databases:
        tasks = {row["id"] for row in database.tables["task_instance"] if row["run_id"] == database.run_id}
        assert not [row for row in database.tables["task_instance"] if row["id"] in tasks and row["trigger_id"]]
        assert Counter(row["classpath"] for row in database.tables["trigger"])["SageMakerImageVersionTrigger"] == 0
