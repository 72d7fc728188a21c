"""DAGs that render the same templates in a worker and in the triggerer; see tests/e2e/context_table.py."""

from __future__ import annotations

import jinja2
from airflow.sdk import DAG, Asset, Param, task

from tests.e2e.context_probe import ContextProbe
from tests.e2e.context_table import templates

ASSET = Asset("context-probe", uri="x-probe://context")
PARAMS = {
    "text": "a",
    "number": Param(3, type="integer"),
    "empty": Param(None, type=["null", "string"]),
    "flag": True,
    "list": [1, "b"],
    "dict": {"key": "value"},
    "moment": Param("2026-01-02T03:04:05+00:00", type="string", format="date-time"),
    "overridden": "from the DAG",
    "tuple": (1, 2),
    "int_keys": {1: "one"},
    "float": 0.1,
    "umlaut": "ä",
}
OPTIONS = {"params": PARAMS, "catchup": False, "description": "a description", "tags": ["a-tag"], "doc_md": "# Doc"}


@task
def upstream():
    """Leave something to pull."""
    return {"Version": 7}


def probe(templates, **options):
    ContextProbe(task_id="probe", templates=templates, doc_md="a task", owner="someone", queue="default", **options)


with DAG("context", schedule=None, **OPTIONS) as dag:
    probe(templates("context"), params={"of_task": "t"})
    upstream() >> dag.get_task("probe")

with DAG("context_strict", schedule=None, **OPTIONS) as dag:
    probe(templates("context"), params={"of_task": "t"}, strict=True)
    upstream() >> dag.get_task("probe")

with DAG("context_of_assets", schedule=[ASSET], **OPTIONS) as dag:
    probe(templates("context"), params={"of_task": "t"})
    upstream() >> dag.get_task("probe")

with DAG("context_produces", schedule=None):

    @task(outlets=[ASSET])
    def produce():
        """Start the one before."""

    produce()

with DAG("context_native", schedule=None, render_template_as_native_obj=True, **OPTIONS):
    probe(templates("context_native"))

with DAG(
    "context_custom",
    schedule=None,
    user_defined_macros={"of_dag": lambda text: f"macro of {text}"},
    user_defined_filters={"by_dag": lambda text: f"filter of {text}"},
    template_undefined=jinja2.Undefined,
    jinja_environment_kwargs={"trim_blocks": True},
    **OPTIONS,
):
    probe(templates("context_custom"))
