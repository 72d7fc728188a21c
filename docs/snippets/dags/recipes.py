"""The recipes of docs/retraining.md."""

from __future__ import annotations

from airflow.providers.amazon.aws.operators.sns import SnsPublishOperator
from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

# [START several_images]
images = [image_version_asset(name, include_details=True) for name in ("churn-model", "fraud-model")]


def name_run(version):
    return f"{version['image_name']}-{version['Version']}-{version['event_id'][:8]}"


with DAG("retrain_several", schedule=None) as retrain_several:

    @task
    def train(dag_run=None):
        print("training", dag_run.conf["image_name"], "with", dag_run.conf["ContainerImage"])

    train()

dispatch_several = run_dag_per_version(retrain_several, *images, run_id=name_run)
# [END several_images]

# [START failed_versions]
failed = image_version_asset("churn-model", statuses=["CREATE_FAILED"])

with DAG("notify_of_failed_version", schedule=None) as notify_of_failed_version:
    SnsPublishOperator(
        task_id="publish",
        target_arn="arn:aws:sns:us-east-1:123456789012:image-versions",
        subject="Version {{ dag_run.conf['Version'] }} of {{ dag_run.conf['image_name'] }} failed",
        message="{{ dag_run.conf['FailureReason'] }}",
    )

dispatch_failed = run_dag_per_version(notify_of_failed_version, failed)
# [END failed_versions]
