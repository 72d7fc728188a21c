"""A sensor and a watcher whose metrics the tests check."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG("waits_and_is_measured", schedule=None):
    SageMakerImageVersionSensor(
        task_id="wait", image_name="waited-for-image", version=2, deferrable=True, poke_interval=1
    )

image = image_version_asset("measured-image", poll_interval=1)
with DAG("watches_and_is_measured", schedule=[image]):

    @task
    def receive() -> None:
        """Do nothing: the watcher is what counts."""

    receive()
