"""A wait without this package, of README.md."""

# [START readme_plain_boto3]
import boto3
from airflow.sdk import DAG, task

with DAG("train_on_known_version", schedule=None, params={"version": 8}) as dag:

    @task
    def container_image(params):
        sagemaker = boto3.client("sagemaker")
        version = {"ImageName": "my-image", "Version": params["version"]}
        sagemaker.get_waiter("image_version_created").wait(**version)
        return sagemaker.describe_image_version(**version)["ContainerImage"]

    container_image()
# [END readme_plain_boto3]
