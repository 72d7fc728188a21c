"""Waits of every kind, for the end-to-end tests; what a run waits for comes from its conf."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_provider_imageversions.operators import SageMakerListImageVersionsOperator
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

IMAGE = "{{ dag_run.conf['image_name'] }}"
VERSION = "{{ dag_run.conf['version'] }}"
MODES = {
    "poke": {"mode": "poke", "poke_interval": 1},
    # At shorter intervals, the executor reports the end of a poke after the next is queued, and the scheduler takes
    # the task for killed.
    "reschedule": {"mode": "reschedule", "poke_interval": 4},
    "deferrable": {"deferrable": True, "poke_interval": 1},
}


def note(event, context):
    """Write down that Airflow called back, for the tests to count; a line is too short to be torn apart."""
    ti = context["ti"]
    with Path(os.environ["AIRFLOW_HOME"], "callbacks.txt").open("a", encoding="utf-8") as file:
        file.write(f"{ti.run_id} {ti.task_id} {ti.map_index} {event}\n")


CALLBACKS = {f"on_{event}_callback": partial(note, event) for event in ("success", "failure", "retry", "skipped")}

with DAG("waits_in_every_mode", schedule=None):
    for name, mode in MODES.items():
        SageMakerImageVersionSensor(
            task_id=name,
            image_name=IMAGE,
            version=VERSION,
            include_details=True,
            timeout=600,
            retries=2,
            retry_delay=1,
            **mode,
        )

with DAG("skips_in_every_mode", schedule=None, default_args=CALLBACKS):
    for name, mode in MODES.items():
        SageMakerImageVersionSensor(task_id=name, image_name=IMAGE, version=VERSION, soft_fail=True, timeout=3, **mode)

with DAG("times_out_in_every_mode", schedule=None, default_args=CALLBACKS):
    for name, mode in MODES.items():
        SageMakerImageVersionSensor(
            task_id=name,
            image_name=IMAGE,
            version=VERSION,
            timeout=3,
            retries=3,
            retry_delay=1,
            **mode,
        )

with DAG("retries_in_every_mode", schedule=None, default_args=CALLBACKS):
    for name, mode in MODES.items():
        SageMakerImageVersionSensor(
            task_id=name, image_name=IMAGE, aws_conn_id="denied", soft_fail=True, retries=1,
            retry_delay=1, **mode,
        )  # fmt: skip

WITHOUT_A_WORKER = {"poke_interval": 1, "timeout": 15, "retries": 2, "retry_delay": 1}


def wait_without_a_worker(dag_id: str, timeout: float) -> DAG:
    """Start and end in the triggerer, or one of the two."""
    common = {**WITHOUT_A_WORKER, "timeout": timeout}
    with DAG(dag_id, schedule=None) as dag:
        for name, options in {
            "start": {"start_from_trigger": True, "on_failure_callback": CALLBACKS["on_failure_callback"]},
            "end": {"end_from_trigger": True, "soft_fail": True},
        }.items():
            SageMakerImageVersionSensor(
                task_id=name,
                image_name=IMAGE,
                version=VERSION,
                include_details="{{ dag_run.conf.get('include_details', False) }}",
                **common,
                **options,
            )
        # Without a worker before and after, nobody could check what a template rendered to.
        SageMakerImageVersionSensor(
            task_id="both",
            image_name="unattended-image",
            version=3,
            include_details=True,
            start_from_trigger=True,
            end_from_trigger=True,
            **common,
        )
    return dag


# When a triggerer first calls Airflow, it does nothing else for many seconds. A worker ends what timed out meanwhile.
waits_without_a_worker = wait_without_a_worker("waits_without_a_worker", 90)
gives_up_without_a_worker = wait_without_a_worker("gives_up_without_a_worker", 15)

with DAG("fails_without_a_worker", schedule=None):
    for name, version in {"failed": 1, "late": 9}.items():
        SageMakerImageVersionSensor(
            task_id=name,
            image_name="unattended-failure",
            version=version,
            start_from_trigger=True,
            end_from_trigger=True,
            **WITHOUT_A_WORKER,
        )

with DAG("waits_for_many", schedule=None, default_args=CALLBACKS):

    @task
    def targets(dag_run=None) -> list[dict]:
        """Name an image and a version for each sensor."""
        return dag_run.conf["targets"]

    SageMakerImageVersionSensor.partial(
        task_id="waits", poke_interval=2, timeout=900, deferrable=True, retries=2, retry_delay=1
    ).expand_kwargs(targets())

with DAG("lists_and_waits_for_many", schedule=None):
    listed = SageMakerListImageVersionsOperator(
        task_id="listed", image_name=IMAGE, sort_by="VERSION", sort_order="ASCENDING", fields=["Version"]
    )

    @task
    def numbers(records: list[dict]) -> list[int]:
        """Make targets of a list of versions."""
        return [record["Version"] for record in records]

    waits = SageMakerImageVersionSensor.partial(
        task_id="waits", image_name=IMAGE, poke_interval=1, timeout=120, deferrable=True
    ).expand(version=numbers(listed.output))

    @task
    def ready(records: list[dict]) -> list[int]:
        """Show that the records arrive in the next task."""
        return sorted(record["Version"] for record in records)

    ready(waits.output)
    lists = SageMakerListImageVersionsOperator.partial(task_id="lists", limit=1).expand(image_name=[IMAGE, IMAGE])
