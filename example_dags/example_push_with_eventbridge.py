"""
Train as soon as EventBridge says, through an SQS queue, that a version of a SageMaker image is CREATED. For Airflow 3.

The queue is for speed and the watcher for certainty. Both tell of a version to the same ``event_id``, so that what was
trained with is left out, whichever way it comes again.

Needs apache-airflow-providers-common-messaging and aiobotocore; without the first this file defines no DAG. Change what
is in capitals. The rule that feeds the queue is in docs/push.md.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, Variable, task

from airflow_provider_imageversions.assets import image_version_asset, image_versions
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

try:
    from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
except ImportError:
    MessageQueueTrigger = None

IMAGE_NAME = "demo-image"
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/image-versions"
LATEST, REMEMBERED = 20, 1000

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
        description="Trains when EventBridge or the watcher says that a version of a SageMaker image is CREATED.",
        doc_md=__doc__,
        schedule=(queue | image),
        max_active_runs=1,  # so that two runs do not both find a version untrained
        catchup=False,
        tags=["example", "sagemaker"],
    ) as dag:

        @task(inlets=[queue, image])
        def new_versions(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[dict[str, Any]]:
            """Give the versions that are CREATED and were not trained with, whichever way they were told of."""
            told = {
                version["event_id"]: version
                for version in image_versions(triggering_asset_events, list(inlet_events[image])[-LATEST:])
            }
            pushed = [*triggering_asset_events.get(queue, []), *list(inlet_events[queue])[-LATEST:]]
            messages = [message for event in pushed for message in event.extra["payload"]["message_batch"]]
            changes = [json.loads(message["Body"]) for message in messages]
            hook = SageMakerImageVersionsHook()
            # Several messages tell of one version, which is described as it is now.
            for change in {change["detail"]["ImageVersionArn"]: change for change in changes}.values():
                try:
                    version = hook.describe_state_change(change, IMAGE_NAME)
                except hook.conn.exceptions.ResourceNotFound:
                    continue  # deleted since
                except ValueError as error:
                    log.warning("the rule lets through what is not for this DAG: %s", error)
                    continue
                told[version["event_id"]] = version
            trained = Variable.get("trained_image_versions", default=[], deserialize_json=True)
            return [
                version
                for identity, version in told.items()
                if version["status"] == "CREATED" and identity not in trained
            ]

        @task
        def train(versions: list[dict[str, Any]]) -> list[int]:
            """Train, as example_retrain_on_new_image_version.py does in earnest, and note what was trained with."""
            for version in versions:
                log.info("training with %s", version["ContainerImage"])
            trained = Variable.get("trained_image_versions", default=[], deserialize_json=True)
            trained += [version["event_id"] for version in versions]
            Variable.set("trained_image_versions", trained[-REMEMBERED:], serialize_json=True)
            return [version["Version"] for version in versions]

        train(new_versions())
    # [END howto_asset_push]
