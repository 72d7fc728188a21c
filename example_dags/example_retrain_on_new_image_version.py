"""
Train as soon as a new version of a SageMaker image is CREATED, and raise an alert when one fails. For Airflow 3.

Nothing waits in a worker: the triggerer watches the image, and each new version starts a run. A version is told of at
least once, so what was trained is remembered by its ``event_id``.

Against AWS, change what is in capitals.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.sdk import DAG, Variable, task

from airflow_provider_imageversions.assets import image_version_asset, image_versions

IMAGE_NAME = "demo-image"
ROLE_ARN = "arn:aws:iam::123456789012:role/sagemaker"
OUTPUT_PATH = "s3://demo-bucket/models"
LATEST, REMEMBERED = 100, 1000

log = logging.getLogger(__name__)

# [START howto_asset_retrain]
image = image_version_asset(IMAGE_NAME, include_details=True, poll_interval=10)

with DAG(
    dag_id="example_retrain_on_new_image_version",
    description="Trains with each new version of a SageMaker image.",
    doc_md=__doc__,
    schedule=[image],
    max_active_runs=1,  # so that two runs do not both find a version untrained
    catchup=False,
    tags=["example", "sagemaker"],
) as retrain:

    @task(inlets=[image])
    def new_versions(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[dict[str, Any]]:
        """Give what this run was started for, and what came since while no run could be started for it."""
        trained = Variable.get("trained_image_versions", default=[], deserialize_json=True)
        told = image_versions(triggering_asset_events, list(inlet_events[image])[-LATEST:])
        return [version for version in told if version["event_id"] not in trained]

    @task
    def training_config(version: dict[str, Any]) -> dict[str, Any]:
        """Make the training job's configuration, with the version's container image."""
        return {
            "TrainingJobName": f"{version['image_name']}-{version['Version']}-{version['event_id'][:8]}",
            "AlgorithmSpecification": {"TrainingImage": version["ContainerImage"], "TrainingInputMode": "File"},
            "RoleArn": ROLE_ARN,
            "OutputDataConfig": {"S3OutputPath": OUTPUT_PATH},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }

    @task
    def remember(versions: list[dict[str, Any]]) -> list[int]:
        """Note what was trained, so that an event that comes twice does not train twice."""
        trained = Variable.get("trained_image_versions", default=[], deserialize_json=True)
        trained += [version["event_id"] for version in versions]
        Variable.set("trained_image_versions", trained[-REMEMBERED:], serialize_json=True)
        return [version["Version"] for version in versions]

    versions = new_versions()
    train = SageMakerTrainingOperator.partial(task_id="train", print_log=False, check_interval=5).expand(
        config=training_config.expand(version=versions)
    )
    train >> remember(versions)
# [END howto_asset_retrain]

# [START howto_asset_alert]
with DAG(
    dag_id="example_alert_on_failed_image_version",
    description="Raises an alert when a version of a SageMaker image fails.",
    schedule=[image_version_asset(IMAGE_NAME, statuses=["CREATE_FAILED"], poll_interval=10)],
    catchup=False,
    tags=["example", "sagemaker"],
) as alert_on_failure:

    @task
    def alert(triggering_asset_events: Any = None) -> list[str]:
        """Say what failed and why; replace the log with your notifier."""
        messages = [
            f"Version {version['Version']} of {version['image_name']} failed: {version.get('FailureReason')!r}"
            for version in image_versions(triggering_asset_events)
        ]
        for message in messages:
            log.error("%s", message)
        return messages

    alert()
# [END howto_asset_alert]
