"""The DAG of docs/lifecycle.md."""

# [START lifecycle]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
)

BASE_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:latest"

with DAG("release_churn_model", schedule=None, params={"base_image": BASE_IMAGE}) as dag:
    create_image = SageMakerCreateImageOperator(
        task_id="create_image",
        image_name="churn-model",
        role_arn="arn:aws:iam::123456789012:role/sagemaker",
        action_if_image_exists="recreate",
        retries=3,
    )
    create = SageMakerCreateImageVersionOperator(
        task_id="create", image_name="churn-model", base_image="{{ params.base_image }}", deferrable=True
    )

    @task
    def check(version):
        print("Run your checks of", version["ContainerImage"], "here, and raise an error if one fails")

    promote = SageMakerPromoteImageVersionOperator(
        task_id="promote",
        image_name="churn-model",
        version="{{ ti.xcom_pull('create')['Version'] }}",
        aliases=["prod"],
        allow_rollback=False,
    )
    prune = SageMakerPruneImageVersionsOperator(
        task_id="prune", image_name="churn-model", keep_newest=10, keep_used=True
    )
    create_image >> create >> check(create.output) >> promote >> prune
# [END lifecycle]
