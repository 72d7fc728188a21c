"""
Register a version of a SageMaker image, train and evaluate with it, promote it, retire old ones; deploy on promotion.

For Airflow 3. Against AWS, change what is in capitals.
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
    description="Registers, trains with, evaluates and promotes a version of a SageMaker image, and retires old ones.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    params={
        "base_image": Param(
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:latest",
            type="string",
            description="ECR image to make the version of",
        )
    },
    tags=["example", "sagemaker"],
) as lifecycle:
    create_image = SageMakerCreateImageOperator(
        task_id="create_image",
        image_name=IMAGE_NAME,
        role_arn=ROLE_ARN,
        action_if_image_exists="recreate",  # if creating it failed before, as for a role that could not be used yet
    )

    create = SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name=IMAGE_NAME,
        base_image="{{ params.base_image }}",
        job_type="TRAINING",
        release_notes="Made by {{ run_id }}",
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
        """Say whether the version may be promoted; replace it with your test of the model."""
        job = result["Training"]
        log.info("%s: %s", job["TrainingJobName"], job.get("FinalMetricDataList"))
        return job["TrainingJobStatus"] == "Completed"

    promote = SageMakerPromoteImageVersionOperator(
        task_id="promote",
        image_name=IMAGE_NAME,
        version="{{ ti.xcom_pull('create')['Version'] }}",
        aliases=["prod"],
        allow_rollback=False,  # a run that comes late does not undo a later one's promotion
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

    @task(retries=5, retry_delay=timedelta(seconds=10))  # while the alias is moved, no version has it
    def model_config(run_id: str | None = None) -> dict[str, Any]:
        """Make the model's configuration of the version that has the alias now, whichever move started the run."""
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
