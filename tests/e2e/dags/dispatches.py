"""One run for each version, with targets that do next to nothing; the tests rewrite what is in capitals."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

HAS_TARGET = False
HAS_ANOTHER = False

image = image_version_asset("dispatched-image", include_details=True, poll_interval=1)


def target(dag_id: str) -> DAG:
    with DAG(dag_id, schedule=None, catchup=False) as dag:

        @task
        def show(dag_run: Any = None) -> dict[str, Any]:
            return dag_run.conf

        show()
    return dag


if HAS_TARGET:
    dispatched = target("dispatched")
# By its id, as it may be missing.
dispatch = run_dag_per_version("dispatched", image, default_args={"retries": 20})
if HAS_ANOTHER:
    another = target("dispatched_anew")
    dispatch_anew = run_dag_per_version(another, image)

late = target("dispatched_late")
dispatch_late = run_dag_per_version(late, image_version_asset("late-image", poll_interval=3600), recheck_interval=15)
