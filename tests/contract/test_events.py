"""EventBridge: the event that a change of a version's status sends."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from tests.contract.statement import documented

ROUNDS, SECONDS = 6, 30.0


@documented("EventBridge event reference for Amazon SageMaker AI; aws-samples' MLOps template has a rule on ImageArn")
def test_a_created_version_sends_an_event(account, image, queue):
    """A version that becomes CREATED sends an event with the image's ARN and the status, in upper or in mixed case."""
    sqs = account.session.client("sqs")
    image_arn = account.client.describe_image(ImageName=image)["ImageArn"]
    details = []
    # A new rule takes effect after up to a minute, and no event is guaranteed.
    for _ in range(ROUNDS):
        account.create_version(image)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not any(_is_created(detail) for detail in details):
            received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            events = [json.loads(message["Body"]) for message in received.get("Messages", ())]
            details += [event["detail"] for event in events if event["detail"].get("ImageArn") == image_arn]
        with suppress(StopIteration):
            created = next(detail for detail in details if _is_created(detail))
            break
    else:
        pytest.fail(f"no event of a CREATED version of {image_arn} within {ROUNDS * SECONDS:g} seconds: {details}")
    assert float(created["Version"]) >= 1
    assert "ImageVersionArn" in created


def _is_created(detail):
    return detail.get("ImageVersionStatus", "").upper() == "CREATED"
