"""List the versions of a SageMaker image in several ways, and pass them to the next task."""

from __future__ import annotations

from typing import Any

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models.param import Param

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import SageMakerListImageVersionsOperator

with DAG(
    dag_id="example_list_image_versions",
    description="Lists the versions of a SageMaker image and reports on them.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    params={"image_name": Param("demo-image", type="string", description="Name of the SageMaker image")},
    tags=["example", "sagemaker"],
) as dag:
    # [START howto_operator_list]
    newest = SageMakerListImageVersionsOperator(
        task_id="newest",
        image_name="{{ params.image_name }}",
        statuses=["CREATED"],
        limit=3,
        include_details=True,
        fields=["Version", "ImageVersionStatus", "CreationTime", "ContainerImage"],
    )
    # [END howto_operator_list]

    # [START howto_operator_list_filtered]
    failed_lately = SageMakerListImageVersionsOperator(
        task_id="failed_lately",
        image_name="{{ params.image_name }}",
        creation_time_after="{{ macros.datetime.now(macros.dateutil.tz.UTC) - macros.timedelta(days=7) }}",
        statuses=["CREATE_FAILED"],
        sort_by="VERSION",
    )
    # [END howto_operator_list_filtered]

    # [START howto_hook_list]
    @task
    def count_by_status(image_name: str) -> dict[str, int]:
        """Count the versions page by page, without keeping them in memory."""
        counts: dict[str, int] = {}
        for version in SageMakerImageVersionsHook().iter_image_versions(image_name):
            status = version["ImageVersionStatus"]
            counts[status] = counts.get(status, 0) + 1
        return counts

    # [END howto_hook_list]

    # [START howto_operator_chain]
    @task
    def report(versions: list[dict[str, Any]], failures: list[dict[str, Any]], counts: dict[str, int]) -> str:
        """Return a summary of the other tasks' results."""
        numbers = ", ".join(str(version["Version"]) for version in versions) or "none"
        return f"newest CREATED: {numbers}; failed in the last week: {len(failures)}; in all: {counts}"

    report(newest.output, failed_lately.output, count_by_status("{{ params.image_name }}"))
    # [END howto_operator_chain]
