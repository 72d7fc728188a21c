"""
From a container image to its users: create a version, train, approve, promote, roll out to Studio, and prune.

For Airflow 3. Needs Airflow 3.1, whose tasks can wait for a person.
To run it against AWS, change the constants in capitals.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
    SageMakerRolloutImageVersionOperator,
)

IMAGE_NAME = "churn-studio"
BASE_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn-studio:latest"
ROLE_ARN = "arn:aws:iam::123456789012:role/sagemaker"
OUTPUT_PATH = "s3://demo-bucket/models"
APP_IMAGE_CONFIG = "churn-studio"
DOMAIN_ID = Param("d-abcdefghijkl", type="string", description="Studio domain to roll out to")

log = logging.getLogger(__name__)

# [START howto_rollout]
with DAG(
    dag_id="example_rollout_with_approval",
    description="Rolls a version of a SageMaker image out to Studio, after a person approved it.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params={"domain_id": DOMAIN_ID, "base_image": Param(BASE_IMAGE, type="string")},
    tags=["example", "sagemaker"],
) as rollout_with_approval:
    create = SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name=IMAGE_NAME,
        base_image="{{ params.base_image }}",
        release_notes="Created by {{ run_id }}",
        only_if_changed=True,
        if_unchanged="skip",  # and with it all downstream tasks
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
        """Return whether to request an approval; replace this with your evaluation of the model."""
        job = result["Training"]
        log.info("%s: %s", job["TrainingJobName"], job.get("FinalMetricDataList"))
        return job["TrainingJobStatus"] == "Completed"

    @task
    def compare(version: dict[str, Any]) -> str:
        """Compare the new version with the one in production, as Markdown."""
        hook = SageMakerImageVersionsHook()
        if "prod" not in hook.list_aliases(IMAGE_NAME):
            return f"Version {version['Version']} is the first one to be promoted."
        return hook.compare_image_versions(IMAGE_NAME, "prod", version["Version"])

    # Not at the top of the file: Airflow 3.0 does not have this operator, and an import at the top would crash its DAG
    # processor.
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    approve = ApprovalOperator(
        task_id="approve",
        subject=f"Roll out version {{{{ ti.xcom_pull('create')['Version'] }}}} of {IMAGE_NAME}?",
        body="{{ ti.xcom_pull('compare') }}",
    )

    promote = SageMakerPromoteImageVersionOperator(
        task_id="promote",
        image_name=IMAGE_NAME,
        version="{{ ti.xcom_pull('create')['Version'] }}",
        aliases=["prod"],
        allow_rollback=False,
    )

    rollout = SageMakerRolloutImageVersionOperator(
        task_id="rollout",
        image_name=IMAGE_NAME,
        alias="prod",
        domain_id="{{ params.domain_id }}",
        app_image_config_name=APP_IMAGE_CONFIG,
        only_if_newer=True,
        check_interval=10,
    )

    prune = SageMakerPruneImageVersionsOperator(
        task_id="prune", image_name=IMAGE_NAME, keep_newest=3, keep_used=True, check_interval=10
    )

    create >> train
    evaluate(train.output) >> compare(create.output) >> approve >> promote >> rollout >> prune
# [END howto_rollout]

# [START howto_rollback]
with DAG(
    dag_id="example_roll_back",
    description="Restores the settings from before a roll-out to Studio.",
    schedule=None,
    catchup=False,
    params={
        "domain_id": DOMAIN_ID,
        "previous": Param({}, type="object", description="'previous' in the result of the task rollout"),
    },
    tags=["example", "sagemaker"],
) as roll_back:
    SageMakerRolloutImageVersionOperator(
        task_id="roll_back",
        image_name=IMAGE_NAME,
        domain_id="{{ params.domain_id }}",
        restore="{{ params.previous }}",
        check_interval=10,
    )
# [END howto_rollback]
