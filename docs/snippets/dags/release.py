"""A DAG that registers a version, and has the image's asset as its outlet, of docs/retraining.md."""

# [START retraining_release]
from airflow.sdk import DAG

from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.operators import SageMakerCreateImageVersionOperator

with DAG("release", schedule=None) as release:
    SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name="my-training-image",
        base_image="123456789012.dkr.ecr.us-east-1.amazonaws.com/training:latest",
        outlets=[image_version_asset("my-training-image", include_details=True)],
    )
# [END retraining_release]
