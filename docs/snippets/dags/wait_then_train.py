"""The first DAG of README.md."""

# [START readme_wait]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG("train_on_next_version", schedule=None, params={"last": 7}):
    wait = SageMakerImageVersionSensor(
        task_id="wait", image_name="my-image", after_version="{{ params.last }}", include_details=True
    )

    @task
    def train(version):
        print("training in", version["ContainerImage"])

    train(wait.output)
# [END readme_wait]
