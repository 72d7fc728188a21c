"""
Train as soon as EventBridge reports through SQS that a version of a SageMaker image is CREATED. For Airflow 3.

The queue is for speed and the watcher for certainty. Both emit events of the image's asset with the same ``event_id``,
so each version starts one run, whichever way it is reported first.

Needs apache-airflow-providers-common-messaging and aiobotocore; without the first this file defines no DAG. Change what
is in capitals. The rule that feeds the queue is in docs/push.md.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

try:
    from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
except ImportError:
    MessageQueueTrigger = None

IMAGE_NAME = "demo-image"
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/image-versions"
TAGS = ["example", "sagemaker"]

log = logging.getLogger(__name__)

if MessageQueueTrigger is not None:
    # [START howto_asset_push]
    image = image_version_asset(IMAGE_NAME, include_details=True, poll_interval=10)
    queue = Asset(
        "image_version_queue",
        watchers=[
            AssetWatcher(
                name="image_version_queue",
                trigger=MessageQueueTrigger(scheme="sqs", sqs_queue=QUEUE, max_messages=10, waiter_delay=5),
            )
        ],
    )

    with DAG(
        dag_id="example_push_with_eventbridge",
        description="Emits an event of the image's asset for each version that EventBridge reports.",
        doc_md=__doc__,
        schedule=[queue],
        max_active_runs=1,
        catchup=False,
        tags=TAGS,
    ) as push:

        @task(inlets=[queue])
        def changed_versions(
            dag_run: Any = None, triggering_asset_events: Any = None, inlet_events: Any = None
        ) -> list[dict[str, Any]]:
            """Return the versions that the messages name and that are CREATED, as they are now."""
            # What arrives after the run was queued and before it is created is in no run's triggering events.
            later = [event for event in inlet_events[queue] if event.timestamp > dag_run.run_after]
            events = [*triggering_asset_events.get(queue, []), *later]
            messages = [message for event in events for message in event.extra["payload"]["message_batch"]]
            changes = [json.loads(message["Body"]) for message in messages]
            hook = SageMakerImageVersionsHook()
            versions = []
            # Several messages name one version.
            for change in {change["detail"]["ImageVersionArn"]: change for change in changes}.values():
                try:
                    version = hook.describe_state_change(change, IMAGE_NAME)
                except hook.conn.exceptions.ResourceNotFound:
                    continue  # deleted since
                except ValueError as error:
                    log.warning("The rule lets through what is not for this DAG: %s", error)
                    continue
                versions += [version] if version["status"] == "CREATED" else []
            return versions

        @task(outlets=[image])
        def emit(version: dict[str, Any], outlet_events: Any = None) -> None:
            """Emit what the watcher would, only sooner."""
            outlet_events[image].extra.update(payload=version)

        emit.expand(version=changed_versions())

    with DAG(dag_id="example_train_when_pushed", schedule=None, catchup=False, tags=TAGS) as train_when_pushed:

        @task
        def train(dag_run: Any = None) -> int:
            """Train, as example_retrain_on_new_image_version.py does in earnest."""
            log.info("Training with %s", dag_run.conf["ContainerImage"])
            return dag_run.conf["Version"]

        train()

    train_each = run_dag_per_version(train_when_pushed, image, tags=TAGS)
    # [END howto_asset_push]
