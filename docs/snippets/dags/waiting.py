"""The waits of docs/waiting.md, in a DAG."""

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG("waiting", schedule=None) as dag:
    # [START waiting_targets]
    SageMakerImageVersionSensor(task_id="latest", image_name="my-image")
    SageMakerImageVersionSensor(task_id="this_one", image_name="my-image", version=8)
    SageMakerImageVersionSensor(task_id="the_next", image_name="my-image", after_version=8)
    SageMakerImageVersionSensor(task_id="of_today", image_name="my-image", created_after="{{ dag_run.start_date }}")
    SageMakerImageVersionSensor(task_id="promoted", image_name="my-image", alias="prod")
    # [END waiting_targets]

    # [START waiting_no_worker]
    SageMakerImageVersionSensor(
        task_id="no_worker",
        image_name="my-image",
        after_version=8,
        start_from_trigger=True,
        end_from_trigger=True,
        poke_interval=60,
        timeout=timedelta(hours=2),
    )
    # [END waiting_no_worker]
