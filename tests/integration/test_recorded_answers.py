"""
What SageMaker answered where its answer is public, against what the emulator answers over HTTP.

Accounts and names are replaced; members, their types, texts and times are as recorded.
"""

from __future__ import annotations

import http.client
import json
import re
from urllib.parse import urlsplit

import pytest

ROLE = "arn:aws:iam::123456789012:role/sagemaker"
REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/recorded"
IMAGE_ARN = "arn:aws:sagemaker:us-east-1:123456789012:image/recorded"
VERSION_ARN = "arn:aws:sagemaker:us-east-1:123456789012:image-version/recorded"
HOUR = 3600


@pytest.fixture
def ask(emulator):
    """Call an operation without an SDK in between; gives the status and the body as they came."""

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
    """Call an operation that has to succeed; gives its answer."""

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


def create_version(do, image, tag):
    base = f"{REPOSITORY}:{tag}"
    return do("CreateImageVersion", ImageName=image, BaseImage=base, ClientToken=tag.replace(".", "-"))


def test_versions_are_numbered_from_1(do, image):
    """Acceptance tests of hashicorp/terraform-provider-aws, internal/service/sagemaker/image_version_test.go."""
    answers = [create_version(do, image, tag) for tag in ("0.0.1", "0.0.2")]
    assert answers == [{"ImageVersionArn": f"{VERSION_ARN}/1"}, {"ImageVersionArn": f"{VERSION_ARN}/2"}]


def test_a_version_that_was_created_without_optional_members(do, emulator, image):
    """DescribeImageVersion in the tests of the package amazon_sagemaker_jupyter_scheduler, of October 2022."""
    for tag in ("0.0.0", "0.0.1"):
        create_version(do, image, tag)
    emulator.set_version(image, 2, creation_time=1666064247.19, last_modified_time=1666064247.561)
    answer = do("DescribeImageVersion", ImageName=image, Version=2)
    assert re.fullmatch(re.escape(REPOSITORY) + "@sha256:[0-9a-f]{64}", answer.pop("ContainerImage"))
    assert answer == {
        "BaseImage": f"{REPOSITORY}:0.0.1",
        "CreationTime": 1666064247.19,
        "Horovod": False,
        "ImageArn": IMAGE_ARN,
        "ImageVersionArn": f"{VERSION_ARN}/2",
        "ImageVersionStatus": "CREATED",
        "LastModifiedTime": 1666064247.561,
        "Version": 2,
    }


def test_an_image_in_a_list(do, emulator, image):
    """ListImages in aws/sagemaker-distribution#178, of February 2024."""
    emulator.set_image(image, creation_time=1707914687.086, last_modified_time=1707914688.064)
    assert do("ListImages") == {
        "Images": [
            {
                "CreationTime": 1707914687.086,
                "DisplayName": "Recorded",
                "ImageArn": IMAGE_ARN,
                "ImageName": "recorded",
                "ImageStatus": "CREATED",
                "LastModifiedTime": 1707914688.064,
            }
        ]
    }


def test_a_deleted_image_is_deleting_and_then_not_found(ask, do, emulator, image):
    """DescribeImage right after DeleteImage in boto/botocore#3782, of August 2026."""
    create_version(do, image, "0.0.1")
    emulator.creation_seconds = HOUR
    assert do("DeleteImage", ImageName=image) == {}
    assert do("DescribeImage", ImageName=image)["ImageStatus"] == "DELETING"
    emulator.creation_seconds = 0
    missing = {"__type": "ResourceNotFound", "Message": f"Image with ARN {IMAGE_ARN} does not exist"}
    calls = {"DescribeImage": {}, "DescribeImageVersion": {"Version": 1}, "ListImageVersions": {}}
    for operation, more in calls.items():
        status, body = ask(operation, ImageName=image, **more)
        assert (status, json.loads(body)) == (400, missing)


def the_image_is_there(do, emulator, image):
    pass


def the_image_failed(do, emulator, image):
    """With a role that SageMaker cannot assume yet, as in hashicorp/terraform-provider-aws#16082."""
    do("DeleteImage", ImageName=image)
    do("CreateImage", ImageName=image, RoleArn="arn:aws:iam::123456789012:role/does-not-exist")


def a_version_is_being_deleted(do, emulator, image):
    create_version(do, image, "0.0.1")
    emulator.creation_seconds = HOUR
    do("DeleteImageVersion", ImageName=image, Version=1)


def a_version_is_gone(do, emulator, image):
    create_version(do, image, "0.0.1")
    do("DeleteImageVersion", ImageName=image, Version=1)


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
CREATE_VERSION = ("CreateImageVersion", {"BaseImage": f"{REPOSITORY}:0.0.1", "ClientToken": "again"})
ALREADY_EXISTS = "The Image with ImageName recorded already exists. Please use a different ImageName."


@pytest.mark.parametrize(
    ("situation", "call", "code", "text"),
    [
        # aws-samples/sagemaker-studio-custom-image-samples#17, of October 2021
        (the_image_is_there, CREATE_IMAGE, "ResourceInUse", ALREADY_EXISTS),
        (the_image_failed, CREATE_IMAGE, "ResourceInUse", ALREADY_EXISTS),
        (the_image_failed, CREATE_VERSION, "ValidationException", "Image recorded is in an invalid state."),
        (
            the_image_is_there,
            ("DescribeImageVersion", {}),
            "ResourceNotFound",
            "Latest ImageVersion with ImageName recorded does not exist. Please provide a valid ImageName.",
        ),
        # hashicorp/terraform-provider-aws#44693, of October 2025; what stands in the brackets is left out there
        (
            a_version_is_being_deleted,
            ("DeleteImageVersion", {"Version": 1}),
            "ResourceInUse",
            f"ImageVersion ({VERSION_ARN}/1) is being deleted",
        ),
        (somebody_changes_the_image, CREATE_VERSION, "ResourceInUse", "Resource was modified concurrently"),
        # hashicorp/terraform-provider-aws#42536: contains "does not exist"; the rest as of an image
        (
            a_version_is_gone,
            ("DescribeImageVersion", {"Version": 1}),
            "ResourceNotFound",
            f"ImageVersion with ARN {VERSION_ARN}/1 does not exist",
        ),
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
