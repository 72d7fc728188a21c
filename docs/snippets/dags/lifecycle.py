"""The tasks of docs/lifecycle.md, in a DAG."""

from airflow.sdk import DAG

from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageVersionOperator,
    SageMakerUpdateImageVersionOperator,
)

with DAG("lifecycle", schedule=None) as dag:
    # [START lifecycle_outlet]
    image = image_version_asset("churn-model", include_details=True)
    SageMakerCreateImageVersionOperator(task_id="create", image_name="churn-model", base_image="...", outlets=[image])
    # [END lifecycle_outlet]

    # [START lifecycle_promote]
    SageMakerUpdateImageVersionOperator(
        task_id="promote",
        image_name="churn-model",
        version="{{ ti.xcom_pull('create')['Version'] }}",
        aliases_to_move=["prod"],
        allow_rollback=False,
    )
    # [END lifecycle_promote]
