"""One wait in each mode, for the comparison of what its success leaves in the database."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

MODES = {
    "poke": {"mode": "poke"},
    "deferrable": {"deferrable": True},
    "start": {"start_from_trigger": True},
    "end": {"end_from_trigger": True},
    "both": {"start_from_trigger": True, "end_from_trigger": True},
}
IMAGE = "rows-image"

with DAG("leaves_rows", schedule=None, catchup=False):
    for name, options in MODES.items():
        SageMakerImageVersionSensor(
            task_id=name, image_name=IMAGE, version=1, poke_interval=1, timeout=300, retries=1, retry_delay=1, **options
        )
        SageMakerImageVersionSensor.partial(
            task_id=f"mapped_{name}",
            image_name=IMAGE,
            poke_interval=1,
            timeout=300,
            map_index_template="{{ task.version }}",
            **options,
        ).expand(version=[1, 2])
