"""The check of each answer, which tests/conftest.py makes in all tests."""

from __future__ import annotations

import re

import pytest

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from tests.service_model import violations

ARN = "arn:aws:sagemaker:us-east-1:123456789012:image/churn"
VERSION = {
    "CreationTime": 1.5,
    "ImageArn": ARN,
    "ImageVersionArn": ARN.replace("image/", "image-version/") + "/1",
    "ImageVersionStatus": "CREATED",
    "LastModifiedTime": 1.5,
    "Version": 1,
}


def test_an_answer_of_the_model_has_no_violations():
    assert violations("ListImageVersions", 200, {"ImageVersions": [VERSION], "NextToken": "t"}) == []
    assert violations("DescribeImageVersion", 400, {"__type": "ResourceNotFound", "Message": "m"}) == []
    assert violations("ListImages", 400, {"__type": "ThrottlingException", "Message": "Rate exceeded"}) == []
    assert violations("DeleteImage", 200, {}) == []
    assert violations("DeleteDomain", 200, {}) == []


@pytest.mark.parametrize(
    ("operation", "status", "body", "problem"),
    [
        ("ListImageVersions", 200, {"ImageVersions": [{**VERSION, "Version": "1"}]}, "Invalid type for parameter"),
        ("ListImageVersions", 200, {"ImageVersions": [{**VERSION, "Number": 1}]}, 'Unknown parameter .*"Number"'),
        ("ListImageVersions", 200, {"ImageVersions": [{"Version": 1}]}, 'Missing required .*"CreationTime"'),
        ("ListImageVersions", 200, {"ImageVersions": [{**VERSION, "ImageVersionStatus": "NEW"}]}, "NEW.*has to be one"),
        ("DescribeImageVersion", 200, {"ImageVersionArn": "churn/1"}, "churn/1.*has to match"),
        ("DescribeImageVersion", 200, {"FailureReason": "f" * 1025}, "1025 and the maximum 1024"),
        ("ListImages", 400, {"__type": "ResourceNotFound", "Message": "m"}, "not an error of ListImages"),
        ("DescribeImage", 400, {"__type": "ResourceNotFound", "message": "m"}, 'Unknown parameter .*"message"'),
        ("ListImages", 400, {"__type": "ThrottlingException"}, "has the members"),
        ("DeleteDomain", 200, {"DomainId": "d"}, "answers nothing"),
    ],
)
def test_what_is_not_in_the_model_is_found(operation, status, body, problem):
    (found,) = violations(operation, status, body)
    assert re.search(problem, found)


@pytest.mark.beyond_model
def test_each_client_of_a_test_is_checked(emulator, answer_check, connection):
    emulator.create_versions("churn", 1, status="NEW")
    emulator.client("sagemaker").list_image_versions(ImageName="churn")
    assert len(answer_check.found) == 1
    SageMakerImageVersionsHook().list_image_versions("churn")
    assert len(answer_check.found) == 2


def test_what_a_fault_makes_of_an_answer_is_not_checked(emulator):
    emulator.create_versions("churn", 1)
    emulator.add_fault("unknown_status", status="NEW")
    listed = emulator.client("sagemaker").list_image_versions(ImageName="churn")["ImageVersions"]
    assert listed[0]["ImageVersionStatus"] == "NEW"
