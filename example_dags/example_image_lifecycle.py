"""
Create, evaluate and promote a version of a SageMaker image, and delete old versions; deploy promoted versions.

For Airflow 3. To run it against AWS, change the constants in capitals.
"""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerModelOperator, SageMakerTrainingOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
)

IMAGE_NAME = "churn-model"
ROLE_ARN = "arn:aws:iam::123456789012:role/sagemaker"
OUTPUT_PATH = "s3://demo-bucket/models"

log = logging.getLogger(__name__)

# [START howto_lifecycle]
with DAG(
    dag_id="example_image_lifecycle",
    description="Creates, evaluates and promotes a version of a SageMaker image, and deletes old versions.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    params={
        "base_image": Param(
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:latest",
            type="string",
            description="Container image in Amazon ECR for the version",
        )
    },
    tags=["example", "sagemaker"],
) as lifecycle:
    create_image = SageMakerCreateImageOperator(
        task_id="create_image",
        image_name=IMAGE_NAME,
        role_arn=ROLE_ARN,
        action_if_image_exists="recreate",  # if it is CREATE_FAILED, as with a role that was not ready yet
    )

    create = SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name=IMAGE_NAME,
        base_image="{{ params.base_image }}",
        job_type="TRAINING",
        release_notes="Created by {{ run_id }}",
        deferrable=True,
        check_interval=10,
    )

    train = SageMakerTrainingOperator(
        task_id="train",
        config={
            "TrainingJobName": f"{IMAGE_NAME}-{{{{ ti.xcom_pull('create')['Version'] }}}}",
            "AlgorithmSpecification": {
                "TrainingImage": "{{ ti.xcom_pull('create')['ContainerImage'] }}",
                "TrainingInputMode": "File",
            },
            "RoleArn": ROLE_ARN,
            "OutputDataConfig": {"S3OutputPath": OUTPUT_PATH},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
        print_log=False,
        check_interval=5,
    )

    @task.short_circuit
    def evaluate(result: dict[str, Any]) -> bool:
        """Return whether to promote the version; replace this with your evaluation of the model."""
        job = result["Training"]
        log.info("%s: %s", job["TrainingJobName"], job.get("FinalMetricDataList"))
        return job["TrainingJobStatus"] == "Completed"

    promote = SageMakerPromoteImageVersionOperator(
        task_id="promote",
        image_name=IMAGE_NAME,
        version="{{ ti.xcom_pull('create')['Version'] }}",
        aliases=["prod"],
        allow_rollback=False,  # a late run does not undo the promotion of a later one
    )

    prune = SageMakerPruneImageVersionsOperator(task_id="prune", image_name=IMAGE_NAME, keep_newest=10)

    create_image >> create >> train
    evaluate(train.output) >> promote >> prune
# [END howto_lifecycle]

# [START howto_asset_alias]
with DAG(
    dag_id="example_deploy_on_promotion",
    description="Deploys the version of a SageMaker image that has the alias prod.",
    schedule=None,
    max_active_runs=1,
    catchup=False,
    tags=["example", "sagemaker"],
) as deploy_on_promotion:

    @task(retries=5, retry_delay=timedelta(seconds=10))  # no version has the alias while it is being moved
    def model_config(run_id: str | None = None) -> dict[str, Any]:
        """Return the configuration of a model for the version that has the alias now."""
        version = SageMakerImageVersionsHook().describe_image_version(IMAGE_NAME, alias="prod")
        return {
            # A version may be promoted more than once.
            "ModelName": f"{IMAGE_NAME}-{version['Version']}-{uuid.uuid5(uuid.NAMESPACE_URL, str(run_id)).hex[:8]}",
            "PrimaryContainer": {"Image": version["ContainerImage"]},
            "ExecutionRoleArn": ROLE_ARN,
        }

    SageMakerModelOperator(task_id="deploy", config=model_config())

promotions = image_version_asset(IMAGE_NAME, alias="prod", poll_interval=10)
deploy_on_each = run_dag_per_version(deploy_on_promotion, promotions, tags=["example", "sagemaker"])
# [END howto_asset_alias]
