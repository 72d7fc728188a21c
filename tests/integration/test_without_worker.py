from __future__ import annotations

import re

import pytest

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from airflow_provider_imageversions.without_worker import SAFE_ALONE, SAFE_NAMES, unsafe_names
from tests.e2e import context_table

ROWS = [row for row in context_table.read() if row["dag"] == "context"]
ALIKE = {"same", "raises"}
# A dict among the params with keys that are no text; the worker that resumes the task finds what it rendered to.
UNLIKE = {"{{ params.int_keys }}", "{{ params.int_keys[1] }}"}
TIMES = re.compile(r"^(dag_run\.)?(logical_date|data_interval_start|data_interval_end)\.")


def test_safe_names_render_the_same_in_both_places():
    """As strictly as the trigger renders: the last two columns."""
    safe = [row for row in ROWS if not unsafe_names(row["template"]) and row["template"] not in UNLIKE]
    assert len(safe) > 100
    assert [row for row in safe if not {row["strict"], row["strict_undated"]} <= ALIKE] == []


def test_each_safe_name_is_in_the_table_of_what_was_seen():
    """The times of a run are of one type, and so are a task instance's two names."""
    seen = {TIMES.sub("logical_date.", name).replace("task_instance.", "ti.") for name in SAFE_NAMES | SAFE_ALONE}
    assert [name for name in sorted(seen) if not any(name in row["template"] for row in ROWS)] == []


@pytest.mark.parametrize(
    "template",
    [
        "{{ params.version }}",
        "{{ params['version'] | default(7) }}",
        "{{ dag_run.conf['version'] }}",
        "{{ dag_run.conf.get('version', 7) }}",
        "v-{{ ds_nodash }}",
        "{{ logical_date.isoformat() }}",
        "{{ data_interval_start }}",
        "{% for x in range(3) %}{{ x }}{% endfor %}",
        "{% set v = params.version %}{{ v }}",
        "{{ macros.ds_add(ds, 1) }}",
        "{{ ts | upper }}",
        "{{ logical_date | ds }}",
        "{{ ti.xcom_pull('a', map_indexes=-1) }}",
        "{{ ti.xcom_pull(task_ids=params.task, map_indexes=none)['Version'] }}",
    ],
)
def test_what_dags_use_mostly_is_safe(template):
    assert unsafe_names(template) == []


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ ti.xcom_pull('a') }}", "ti.xcom_pull"),
        ("{{ prev_start_date_success or '2020-01-01T00:00:00+00:00' }}", "prev_start_date_success"),
        ("{{ var.value.alias }}", "var.value.alias"),
        ("{{ conn.aws.host }}", "conn.aws.host"),
        ("{{ ti.xcom_pull('a', map_indexes=var.value.x) }}", "xcom_pull"),
        ("{{ ti.xcom_pull(var.value.x, map_indexes=-1) }}", "var.value.x"),
        ("{{ params }}", "params"),
        ("{{ params.items() }}", "params.items"),
        ("{{ dag_run }}", "dag_run"),
        ("{{ dag_run.run_type }}", "dag_run.run_type"),
        ("{% set r = dag_run %}{{ r.run_type }}", "dag_run"),
        ("{{ logical_date.now() }}", "logical_date.now"),
        ("{{ macros.datetime.now() }}", "macros.datetime.now"),
        ("{{ [1, 2] | random }}", "random"),
        ("{{ ds | of_the_dag }}", "of_the_dag"),
        ("{% include 'other' %}", "include"),
        ("{{ newest_version() }}", "newest_version"),
        ("{{ broken", "broken"),
        ("{% do x %}", "do"),
        ("{{ lipsum() }}", "lipsum"),
    ],
)
def test_everything_else_is_not(template, name):
    assert any(name in found for found in unsafe_names(template))


@pytest.mark.parametrize("name", ["start_from_trigger", "end_from_trigger"])
def test_a_class_attribute_is_refused(name):
    with pytest.raises(TypeError, match=rf"Mine\.{name}: .*Pass {name}=True when the task is created"):
        type("Mine", (SageMakerImageVersionSensor,), {name: True})
