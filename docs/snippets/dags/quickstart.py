"""The first DAG of docs/quickstart.md."""

# [START quickstart_dag]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.operators import SageMakerListImageVersionsOperator
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG("my_image", schedule=None) as dag:
    newest = SageMakerListImageVersionsOperator(task_id="newest", image_name="my-image", statuses=["CREATED"], limit=3)
    latest = SageMakerImageVersionSensor(
        task_id="latest", image_name="my-image", include_details=True, deferrable=True, poke_interval=5, timeout=600
    )

    @task
    def show(version):
        print(version["Version"], version["ContainerImage"])

    newest >> latest
    show(latest.output)
# [END quickstart_dag]
