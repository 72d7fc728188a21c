"""
Train when a new version of a SageMaker image is CREATED, and send an alert when a version fails. For Airflow 3.

No task waits, because the triggerer watches the image. Each version gets exactly one run, named after it.

To run it against AWS, change the constants in capitals.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

IMAGE_NAME = "demo-image"
ROLE_ARN = "arn:aws:iam::123456789012:role/sagemaker"
OUTPUT_PATH = "s3://demo-bucket/models"
TAGS = ["example", "sagemaker"]

log = logging.getLogger(__name__)

# [START howto_asset_retrain]
image = image_version_asset(IMAGE_NAME, include_details=True, poll_interval=10)

with DAG(
    dag_id="example_retrain_on_new_image_version",
    description="Trains with one version of a SageMaker image.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=TAGS,
) as retrain:
    SageMakerTrainingOperator(
        task_id="train",
        config={
            # Not the run id: that of a manual run may have characters that SageMaker rejects.
            "TrainingJobName": IMAGE_NAME + "-version-{{ dag_run.conf.Version }}-{{ dag_run.conf.event_id[:8] }}",
            "AlgorithmSpecification": {
                "TrainingImage": "{{ dag_run.conf['ContainerImage'] }}",
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

retrain_with_each = run_dag_per_version(retrain, image, tags=TAGS)
# [END howto_asset_retrain]

# [START howto_asset_alert]
with DAG(
    dag_id="example_alert_on_failed_image_version",
    description="Sends an alert about a version of a SageMaker image that failed.",
    schedule=None,
    catchup=False,
    tags=TAGS,
) as alert_on_failure:

    @task
    def alert(dag_run: Any = None) -> str:
        """Report which version failed and why; replace the log with your notifier."""
        version = dag_run.conf
        message = f"Version {version['Version']} of {version['image_name']} failed: {version.get('FailureReason')!r}"
        log.error("%s", message)
        return message

    alert()

failed = image_version_asset(IMAGE_NAME, statuses=["CREATE_FAILED"], poll_interval=10)
alert_on_each = run_dag_per_version(alert_on_failure, failed, tags=TAGS)
# [END howto_asset_alert]
