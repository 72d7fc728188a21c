"""
Train when EventBridge says, through an SQS queue, that a version of a SageMaker image is CREATED. For Airflow 3.

Needs apache-airflow-providers-common-messaging and aiobotocore; without them this file defines no DAG. Change what is
in capitals. The rule that feeds the queue is in docs/retraining.md.
"""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, Variable, task

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

try:
    from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
except ImportError:
    MessageQueueTrigger = None

IMAGE_NAME = "demo-image"
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/image-versions"

if MessageQueueTrigger is not None:
    # [START howto_asset_push]
    queue = Asset(
        "image_version_queue",
        watchers=[
            AssetWatcher(
                name="image_version_queue",
                trigger=MessageQueueTrigger(scheme="sqs", sqs_queue=QUEUE, max_messages=10, waiter_delay=10),
            )
        ],
    )

    with DAG(
        dag_id="example_push_with_eventbridge",
        description="Trains when EventBridge says that a version of a SageMaker image is CREATED.",
        doc_md=__doc__,
        schedule=[queue],
        max_active_runs=1,
        catchup=False,
        tags=["example", "sagemaker"],
    ) as dag:

        @task(inlets=[queue])
        def new_versions(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[dict[str, Any]]:
            """Give the versions that are CREATED and were not trained with, by this way or by the watcher's."""
            hook = SageMakerImageVersionsHook()
            told: dict[str, dict[str, Any]] = {}
            for event in [*triggering_asset_events[queue], *list(inlet_events[queue])[-100:]]:
                for message in (event.extra or {}).get("payload", {}).get("message_batch", []):
                    version = hook.describe_state_change(json.loads(message["Body"]), IMAGE_NAME)
                    told[version["event_id"]] = version
            trained = Variable.get("trained_image_versions", default=[], deserialize_json=True)
            return [
                version
                for identity, version in told.items()
                if version["status"] == "CREATED" and identity not in trained
            ]

        new_versions()
    # [END howto_asset_push]
