"""The events that EventBridge reports when a version changes its status, sent to a queue of moto's SQS."""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from moto.sqs.exceptions import QueueDoesNotExist
from moto.sqs.models import sqs_backends

from airflow_provider_imageversions.emulator.models import ImageBackend, image_backends

if TYPE_CHECKING:
    from airflow_provider_imageversions.emulator.models import ImageVersion

_PACE = 0.02
"""Seconds between two checks whether a status has changed."""


class StateChanges:
    """
    Send events for each change of a version's status, as a rule of EventBridge would.

    Like SageMaker, it sends several events per change, with the status in upper or lower case, the number as a float
    and an opaque ID in the version's ARN.

    :param queue_url: URL of a queue of moto
    :param region_name: the queue's region
    :raises ValueError: The queue does not exist.
    """

    def __init__(self, queue_url: str, region_name: str) -> None:
        account_id, self._queue_name = queue_url.rsplit("/", 2)[1:]
        self._queues = sqs_backends[account_id][region_name]
        try:
            self._queues.get_queue(self._queue_name)
        except QueueDoesNotExist as error:
            raise ValueError(f"Queue {queue_url!r} does not exist in region {region_name!r}.") from error
        self._account_id = account_id
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._settle, name="sagemaker-image-state-changes", daemon=True)

    def start(self) -> None:
        """Send what changes from now on."""
        ImageBackend.report_change = self._send
        self._thread.start()

    def stop(self) -> None:
        """Send nothing any more."""
        ImageBackend.report_change = None
        self._stopping.set()
        self._thread.join()

    def _settle(self) -> None:
        # A status changes when it is read, and here an event has to be sent before that.
        while not self._stopping.wait(_PACE):
            for backend in list(image_backends[self._account_id].values()):
                backend.settle()

    def _send(self, version: ImageVersion) -> None:
        status = version.current
        for text in (status.upper(), status.title().replace("_", "")):
            with suppress(QueueDoesNotExist):  # the queue was deleted, so that no one receives it
                self._queues.send_message(self._queue_name, json.dumps(_event(version, text)))


def _event(version: ImageVersion, status: str) -> dict[str, Any]:
    backend = version.image.backend
    prefix, _, _ = version.arn.partition("image-version/")
    arn = f"{prefix}image-version/{uuid.uuid5(uuid.NAMESPACE_URL, version.arn)}"
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "SageMaker Image Version State Change",
        "source": "aws.sagemaker",
        "account": backend.account_id,
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": backend.region_name,
        "resources": [arn],
        "detail": {
            "ImageArn": version.image.arn,
            "ImageVersionArn": arn,
            "ImageVersionStatus": status,
            "Version": float(version.number),
            "Tags": {},
        },
    }
