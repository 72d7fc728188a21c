"""The tasks of docs/lifecycle.md, in a DAG."""

from airflow.sdk import DAG

from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
)

with DAG("lifecycle", schedule=None) as dag:
    # [START lifecycle_create_image]
    SageMakerCreateImageOperator(
        task_id="create_image",
        image_name="churn-model",
        role_arn="arn:aws:iam::123456789012:role/sagemaker",
        action_if_image_exists="recreate",
        retries=3,
    )
    # [END lifecycle_create_image]

    # [START lifecycle_outlet]
    image = image_version_asset("churn-model", include_details=True)
    SageMakerCreateImageVersionOperator(task_id="create", image_name="churn-model", base_image="...", outlets=[image])
    # [END lifecycle_outlet]

    # [START lifecycle_promote]
    SageMakerPromoteImageVersionOperator(
        task_id="promote",
        image_name="churn-model",
        version="{{ ti.xcom_pull('create')['Version'] }}",
        aliases=["prod"],
        allow_rollback=False,
    )
    # [END lifecycle_promote]
