"""The second DAG of README.md."""

# [START readme_retrain]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

image = image_version_asset("my-training-image", include_details=True)

with DAG("retrain", schedule=None) as retrain:

    @task
    def train(dag_run=None):
        print(dag_run.conf["Version"], dag_run.conf["ContainerImage"])

    train()

dispatch = run_dag_per_version(retrain, image)
# [END readme_retrain]
