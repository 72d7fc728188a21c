"""
Errors of SageMaker whose text is public and that the emulator shows as a fault or for a quota.

Accounts and names are replaced. The recorded answers that need no fault are in tests/contract/answers.
"""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

ROLE = "arn:aws:iam::123456789012:role/sagemaker"
IMAGE_ARN = "arn:aws:sagemaker:us-east-1:123456789012:image/recorded"


@pytest.fixture
def ask(emulator):
    """Call an operation without an SDK; return the raw status and body."""

    def send(operation, **parameters):
        connection = http.client.HTTPConnection(urlsplit(emulator.endpoint_url).netloc, timeout=10)
        scope = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/sagemaker/aws4_request"
        headers = {
            "X-Amz-Target": f"SageMaker.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": f"{scope}, SignedHeaders=host, Signature=0",
        }
        try:
            connection.request("POST", "/", json.dumps(parameters), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return send


@pytest.fixture
def do(ask):
    """Call an operation that must succeed; return its response."""

    def call(operation, **parameters):
        status, body = ask(operation, **parameters)
        assert status == 200, body
        return json.loads(body)

    return call


@pytest.fixture
def image(do, emulator):
    emulator.creation_seconds = 0
    do("CreateImage", ImageName="recorded", RoleArn=ROLE, DisplayName="Recorded")
    return "recorded"


def somebody_changes_the_image(do, emulator, image):
    emulator.add_fault("in_use", operation="CreateImageVersion")


def tagging_is_not_allowed(do, emulator, image):
    do("DeleteImage", ImageName=image)
    emulator.add_fault("access_denied", operation="CreateImage", action="sagemaker:AddTags")


def there_are_too_many_calls(do, emulator, image):
    emulator.add_fault("throttling", operation=None)


def the_quota_is_used_up(do, emulator, image):
    do("DeleteImage", ImageName=image)
    do("CreateImage", ImageName="other", RoleArn=ROLE)
    emulator.image_quota = 1


CREATE_IMAGE = ("CreateImage", {"RoleArn": ROLE})
CREATE_VERSION = (
    "CreateImageVersion",
    {"BaseImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/recorded:0.0.1", "ClientToken": "again"},
)


@pytest.mark.parametrize(
    ("situation", "call", "code", "text"),
    [
        # hashicorp/terraform-provider-aws#44693, of October 2025
        (somebody_changes_the_image, CREATE_VERSION, "ResourceInUse", "Resource was modified concurrently"),
        # awslabs/autonomous-driving-data-framework#165
        (
            tagging_is_not_allowed,
            ("CreateImage", {"RoleArn": ROLE, "Tags": [{"Key": "team", "Value": "churn"}]}),
            "AccessDeniedException",
            (
                "User: arn:aws:sts::123456789012:assumed-role/airflow/worker is not authorized to perform: "
                f"sagemaker:AddTags on resource: {IMAGE_ARN} because no identity-based policy allows the "
                "sagemaker:AddTags action"
            ),
        ),
        # Of another quota, in aws/amazon-sagemaker-feedback#157, of December 2024
        (
            the_quota_is_used_up,
            CREATE_IMAGE,
            "ResourceLimitExceeded",
            (
                "The account-level service limit 'Maximum number of SageMakerImage images allowed per account' is "
                "1 Images, with current utilization of 1 Images and a request delta of 1 Images. Please use AWS "
                "Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, "
                "contact AWS support to request an increase for this quota."
            ),
        ),
        # aws/aws-sdk#486
        (there_are_too_many_calls, ("DescribeImage", {}), "ThrottlingException", "Rate exceeded"),
    ],
)
def test_an_error_has_the_recorded_code_and_text(ask, do, emulator, image, situation, call, code, text):
    situation(do, emulator, image)
    operation, parameters = call
    status, body = ask(operation, ImageName=image, **parameters)
    assert status == 400
    assert json.loads(body) == {"__type": code, "Message": text}


def test_the_body_of_an_error_is_as_long_as_the_recorded_one(ask, emulator):
    """The Content-Length of a ThrottlingException in aws/aws-sdk#486."""
    emulator.add_fault("throttling", operation="ListImages")
    _, body = ask("ListImages")
    assert len(body) == 58
