from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

# [START eventbridge]
image = image_version_asset(
    "my-image",
    wake_queue="https://sqs.us-east-1.amazonaws.com/123456789012/image-versions",
    poll_interval=900,
)

with DAG("retrain_in_seconds", schedule=None) as retrain:

    @task
    def train(dag_run=None):
        print("training with", dag_run.conf["ImageVersionArn"])

    train()

dispatch = run_dag_per_version(retrain, image)
# [END eventbridge]
