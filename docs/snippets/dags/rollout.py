"""The DAGs of docs/rollout.md and docs/cleanup.md, and one of docs/lifecycle.md."""

from __future__ import annotations

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

# [START rollout]
from airflow_provider_imageversions.operators import SageMakerRolloutImageVersionOperator

with DAG("rollout", schedule=None):
    SageMakerRolloutImageVersionOperator(
        task_id="rollout",
        image_name="my-image",
        alias="prod",
        domain_id="d-abcdefghijkl",
        app_image_config_name="my-config",
        app_type="JupyterLab",
        only_if_newer=True,
        pool="domain-d-abcdefghijkl",
    )
# [END rollout]

# [START rollback]
with DAG("rollback", schedule=None):
    SageMakerRolloutImageVersionOperator(
        task_id="rollback",
        image_name="my-image",
        domain_id="d-abcdefghijkl",
        restore="{{ dag_run.conf['previous'] }}",
        pool="domain-d-abcdefghijkl",
    )
# [END rollback]

# [START only_if_changed]
from airflow_provider_imageversions.operators import SageMakerCreateImageVersionOperator

with DAG("nightly", schedule="@daily"):
    SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name="my-image",
        base_image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/my-image:latest",
        only_if_changed=True,
        if_unchanged="skip",
    )
# [END only_if_changed]

# [START mapped]
DOMAINS = [
    {"region_name": "eu-west-1", "domain_id": "d-abcdefghijkl", "aws_conn_id": "team_a"},
    {"region_name": "us-east-1", "domain_id": "d-mnopqrstuvwx", "aws_conn_id": "team_b"},
]

with DAG("rollout_everywhere", schedule=None):
    rollout_everywhere = SageMakerRolloutImageVersionOperator.partial(
        task_id="rollout",
        image_name="my-image",
        alias="prod",
        app_image_config_name="my-config",
        pool="studio",
    ).expand_kwargs(DOMAINS)
# [END mapped]

# [START prune]
from datetime import timedelta

from airflow_provider_imageversions.operators import SageMakerPruneImageVersionsOperator

with DAG("clean_up", schedule="@weekly"):
    SageMakerPruneImageVersionsOperator(
        task_id="prune",
        image_name="my-image",
        keep_newest=5,
        keep_younger_than=timedelta(days=90),
        keep_used=True,
        preview=True,  # remove this when you agree with what would be deleted
    )
# [END prune]

# [START usage]
from airflow_provider_imageversions.operators import SageMakerImageVersionUsageOperator

with DAG("who_uses_what", schedule=None):
    SageMakerImageVersionUsageOperator(task_id="usage", image_name="my-image", scope=["domains", "apps"])
# [END usage]

# [START pin_newest]
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG("pin_newest", schedule=None):
    newest = SageMakerImageVersionSensor(task_id="newest", image_name="my-image")
    pin = SageMakerRolloutImageVersionOperator(
        task_id="rollout",
        image_name="my-image",
        version="{{ ti.xcom_pull('newest')['Version'] }}",
        domain_id="d-abcdefghijkl",
        app_image_config_name="my-config",
        pool="domain-d-abcdefghijkl",
    )
    newest >> pin
# [END pin_newest]
