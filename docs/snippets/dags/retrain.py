"""The second DAG of README.md."""

# [START readme_retrain]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, image_versions

with DAG("retrain", schedule=[image_version_asset("my-training-image", include_details=True)]):

    @task
    def train(triggering_asset_events=None):
        for version in image_versions(triggering_asset_events):
            print(version["Version"], version["ContainerImage"])

    train()
# [END readme_retrain]
