"""Creating, promoting and retiring, for the end-to-end tests."""

from __future__ import annotations

import time

from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, image_versions
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerDeleteImageOperator,
    SageMakerDeleteImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
)

IMAGE = "{{ dag_run.conf['image_name'] }}"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
ANNOUNCED = "announced-image"
RETRIES = {"retries": 3, "retry_delay": 1, "check_interval": 1}

with DAG("creates_many", schedule=None):

    @task
    def base_images(dag_run=None) -> list[str]:
        """Name as many base images as the run is to make versions of."""
        return [f"training:{number}" for number in range(dag_run.conf["count"])]

    created = SageMakerCreateImageVersionOperator.partial(
        task_id="create", image_name=IMAGE, deferrable=True, **RETRIES
    ).expand(base_image=base_images())

with DAG("creates_one", schedule=None):
    image = SageMakerCreateImageOperator(task_id="image", image_name=IMAGE, role_arn=ROLE, check_interval=1)
    create = SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name=IMAGE,
        base_image="{{ dag_run.conf['base_image'] }}",
        aliases=["candidate"],
        **RETRIES,
    )
    image >> create

with DAG("promotes", schedule=None):
    promote = SageMakerPromoteImageVersionOperator(
        task_id="promote",
        image_name=IMAGE,
        version="{{ dag_run.conf['version'] }}",
        aliases=["prod"],
        **RETRIES,
    )

with DAG("retires", schedule=None):
    delete = SageMakerDeleteImageVersionOperator(
        task_id="delete", image_name=IMAGE, version="{{ dag_run.conf['version'] }}", check_interval=1
    )
    prune = SageMakerPruneImageVersionsOperator(task_id="prune", image_name=IMAGE, keep_newest=1)
    delete >> prune

with DAG("prunes_as_configured", schedule=None):

    @task
    def preview() -> bool:
        """Say so only after a while: a task that does not wait for it prunes."""
        time.sleep(3)
        return True

    SageMakerPruneImageVersionsOperator.partial(task_id="prune", keep_newest=1, preview=preview()).expand(
        image_name=[IMAGE]
    )

with DAG("recreates", schedule=None):
    recreate = SageMakerCreateImageOperator(
        task_id="recreate",
        image_name=IMAGE,
        role_arn="{{ dag_run.conf['roles'][ti.try_number - 1] }}",
        action_if_image_exists="recreate",
        **RETRIES,
    )
    delete_image = SageMakerDeleteImageOperator(task_id="delete_image", image_name=IMAGE, **RETRIES)
    recreate >> delete_image

# The watcher polls so rarely that an immediate event comes from the task.
asset = image_version_asset(ANNOUNCED, include_details=True, poll_interval=3600)

with DAG("tells_of_its_version", schedule=None):
    SageMakerCreateImageVersionOperator(
        task_id="create", image_name=ANNOUNCED, base_image="training:1", outlets=[asset], deferrable=True, **RETRIES
    )

with DAG("hears_of_a_version", schedule=[asset]):

    @task
    def heard(triggering_asset_events=None) -> list[dict]:
        """Return the event's payload."""
        return image_versions(triggering_asset_events)

    heard()
