"""Templates in a worker and in the triggerer; which names are safe to use in both is read off context_table.csv."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dev.local_airflow import LocalAirflow
from tests.e2e.context_table import CUSTOM, NATIVE, RUNS, WORDS, read, verdict, write
from tests.e2e.test_lifecycle import until

ROOT = Path(__file__).parents[2]
CONF = {"x": "from the conf", "nested": {"y": 1}, "overridden": "from the conf", "number": 5}
DATE = "2026-01-02T03:04:05Z"

pytestmark = [pytest.mark.e2e, pytest.mark.probe]


@pytest.fixture(scope="module")
def probed():
    """The members of the context and the outcome of each template in both places, by kind of run."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_VAR_IN_ENVIRONMENT": "from the environment",
        "AIRFLOW_VAR_A_DICT": '{"key": "value"}',
        "AIRFLOW_CONN_IN_ENVIRONMENT": json.dumps(
            {"conn_type": "aws", "login": "me", "password": "secret", "host": "a-host", "extra": {"key": "value"}}
        ),
    }
    folder = ROOT / "tests" / "e2e" / "context_dags"
    with LocalAirflow(folder, env=environment, progress=print) as airflow:
        airflow.api("POST", "/api/v2/variables", {"key": "in_database", "value": "from the database"})
        airflow.api(
            "POST",
            "/api/v2/connections",
            {"connection_id": "in_database", "conn_type": "aws", "host": "a-host"},
        )
        yield probe(airflow)


def probe(airflow):
    for dag_id in ("context", "context_strict", NATIVE, CUSTOM, "context_of_assets", "context_produces"):
        airflow.wait_for_dag(dag_id)
    airflow.unpause("context_of_assets")
    runs = {
        "dated": ("context", airflow.trigger("context", CONF, DATE)),
        "undated": ("context", airflow.trigger("context")),
        "strict": ("context_strict", airflow.trigger("context_strict", CONF, DATE)),
        "strict_undated": ("context_strict", airflow.trigger("context_strict")),
        NATIVE: (NATIVE, airflow.trigger(NATIVE, CONF, DATE)),
        CUSTOM: (CUSTOM, airflow.trigger(CUSTOM, CONF, DATE)),
    }
    airflow.trigger("context_produces")
    until(airflow, lambda: airflow.runs("context_of_assets"))
    runs["asset"] = ("context_of_assets", airflow.runs("context_of_assets")[0]["dag_run_id"])
    seen = {name: _result(airflow, run) for name, run in runs.items()}
    # A DAG run's and a task's second time differ in what Airflow counts.
    airflow.api(
        "POST",
        "/api/v2/dags/context/clearTaskInstances",
        {"dry_run": False, "dag_run_id": runs["dated"][1], "only_failed": False},
    )
    seen["cleared"] = _result(airflow, runs["dated"])
    return seen


def _result(airflow, run):
    assert airflow.wait_for_run(*run) == "success", airflow.task_log(*run, "probe")
    return airflow.xcom(*run, "probe")


def _seen_row(row, probed):
    """Return the row of the table for this Airflow."""
    runs = RUNS if row["dag"] == "context" else {"dated": ""}
    return {"dag": row["dag"], "template": row["template"]} | {
        run: verdict(*probed[run if row["dag"] == "context" else row["dag"]]["outcomes"][row["template"]].values())
        if run in runs
        else ""
        for run in RUNS
    }


def test_templates_render_as_the_table_says(probed):
    rows = read()
    seen = [_seen_row(row, probed) for row in rows]
    if os.environ.get("CONTEXT_TABLE") == "write":
        write(seen)
        rows = read()
    differences = [
        f"{row['template']!r} in {row['dag']}, {run}: the table says {row[run]!r}, seen {new[run]!r}"
        for row, new in zip(rows, seen, strict=True)
        for run in RUNS
        if row[run] != new[run]
    ]
    assert not differences, "\n".join(differences)
    assert {row[run] for row in rows for run in RUNS} - {""} == WORDS.keys()


def test_each_member_of_the_context_has_a_row(probed):
    """A new Airflow may add some."""
    tried = {row["template"] for row in read()}
    for run, seen in probed.items():
        members = seen["members"]
        assert members["worker"] == members["triggerer"], run
        assert not [name for name in members["worker"] if f"{{{{ {name} }}}}" not in tried], run


def test_each_known_name_of_the_context_has_a_row():
    from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

    tried = {row["template"] for row in read()}
    assert not {name for name in KNOWN_CONTEXT_KEYS if f"{{{{ {name} }}}}" not in tried}


def test_a_strict_trigger_notices_whatever_is_undefined():
    """What it takes for no text at all, or a wrong one, to pass for a parameter."""
    rows = [row for row in read() if row["dag"] == "context" and "dag.timetable" not in row["template"]]
    for run in ("strict", "strict_undated"):
        assert not [row["template"] for row in rows if row[run] in {"unnoticed", "wrong"}]
    assert [row for row in rows if row["dated"] in {"unnoticed", "wrong"}]
