"""Versions: numbers, ARNs, members and ClientToken."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from airflow_provider_imageversions.errors import ImageVersionFailedError
from tests.contract.statement import assumed, documented, recorded


@recorded("hashicorp/terraform-provider-aws, internal/service/sagemaker/image_version_test.go")
def test_versions_are_numbered_from_1(account, image):
    """The first version of an image has the number 1, and the number of each further version is one higher."""
    assert [account.create_version(image) for _ in range(2)] == [1, 2]


@recorded("the tests of amazon_sagemaker_jupyter_scheduler, a response of October 2022")
def test_a_version_without_optional_members_has_these(account, image):
    """For a version created without optional members, DescribeImageVersion returns only Horovod of them, as false."""
    account.create_version(image)
    described = account.client.describe_image_version(ImageName=image, Version=1)
    del described["ResponseMetadata"]
    assert sorted(described) == [
        "BaseImage",
        "ContainerImage",
        "CreationTime",
        "Horovod",
        "ImageArn",
        "ImageVersionArn",
        "ImageVersionStatus",
        "LastModifiedTime",
        "Version",
    ]
    assert (described["BaseImage"], described["Horovod"]) == (account.base_image, False)
    assert (described["Version"], described["ImageVersionStatus"]) == (1, "CREATED")


@recorded("the tests of amazon_sagemaker_jupyter_scheduler, a response of October 2022")
def test_a_version_arn_has_the_name_and_the_number(account, image):
    """A version's ARN ends in `image-version/`, the image's name in lower case, and the number."""
    arn = account.client.create_image_version(ImageName=image, BaseImage=account.base_image)["ImageVersionArn"]
    assert arn.endswith(f":image-version/{image}/1")
    account.wait_until_created(image, 1)
    assert account.client.describe_image_version(ImageName=image)["ImageVersionArn"] == arn


@recorded("the tests of amazon_sagemaker_jupyter_scheduler, a response of October 2022")
def test_the_container_image_is_the_base_image_by_digest(account, image):
    """ContainerImage of a CREATED version is the base image's repository with a digest instead of the tag."""
    account.create_version(image)
    described = account.client.describe_image_version(ImageName=image)
    assert re.fullmatch(re.escape(account.repository) + "@sha256:[0-9a-f]{64}", described["ContainerImage"])


@recorded("responses of 2021 and 2022: 0.4 seconds between the two times")
def test_a_version_is_modified_when_it_becomes_created(account, image):
    """LastModifiedTime of a version is later than its CreationTime: the time when the version became CREATED."""
    account.create_version(image)
    described = account.client.describe_image_version(ImageName=image)
    assert timedelta(0) < described["LastModifiedTime"] - described["CreationTime"] < timedelta(minutes=5)


@documented("hashicorp/terraform-provider-aws and Ansible's amazon.ai collection read them")
def test_optional_members_come_back(account, image):
    """DescribeImageVersion returns the optional members that CreateImageVersion was called with."""
    given = {"JobType": "TRAINING", "MLFramework": "PyTorch 2.4", "Processor": "GPU", "Horovod": True}
    given |= {"ProgrammingLang": "Python 3.11", "ReleaseNotes": "first", "VendorGuidance": "STABLE"}
    account.create_version(image, **given)
    described = account.client.describe_image_version(ImageName=image)
    assert {name: described.get(name) for name in given} == given


@documented("API Reference, DescribeImageVersion")
def test_the_latest_version_is_described_by_default(account, three):
    """DescribeImageVersion without a number or an alias returns the version with the highest number."""
    assert account.client.describe_image_version(ImageName=three)["Version"] == 3


@recorded("aws-samples/sagemaker-studio-custom-image-samples issue 17")
def test_an_image_without_versions_has_no_latest_version(account, image):
    """DescribeImageVersion without a number fails with ResourceNotFound if the image has no version."""
    code, message = account.refused("describe_image_version", ImageName=image)
    assert code == "ResourceNotFound"
    assert message == (f"Latest ImageVersion with ImageName {image} does not exist. Please provide a valid ImageName.")


@recorded("hashicorp/terraform-provider-aws PR 42536: the message contains `does not exist`")
def test_a_version_that_does_not_exist_is_not_found(account, image):
    """DescribeImageVersion of a number that does not exist fails with ResourceNotFound."""
    code, message = account.refused("describe_image_version", ImageName=image, Version=7)
    assert code == "ResourceNotFound"
    assert "does not exist" in message


@assumed(
    "API Reference: `a unique ID`; AWS's CloudFormation handler passes its token. How long it is remembered is unknown"
)
def test_the_same_request_with_the_same_client_token_is_one_version(account, image):
    """CreateImageVersion twice with the same ClientToken and parameters creates one version, and returns its ARN."""
    create = {"ImageName": image, "BaseImage": account.base_image, "ClientToken": account.new_name()}
    first = account.client.create_image_version(**create)["ImageVersionArn"]
    account.wait_until_created(image, 1)
    assert account.client.create_image_version(**create)["ImageVersionArn"] == first
    assert account.versions(image) == [1]


@assumed("other AWS APIs do so; the package never sends a token with other parameters")
def test_another_request_with_the_same_client_token_is_refused(account, image):
    """CreateImageVersion with the ClientToken of a request with other parameters fails with ResourceInUse."""
    create = {"ImageName": image, "BaseImage": account.base_image, "ClientToken": account.new_name()}
    account.client.create_image_version(**create)
    account.wait_until_created(image, 1)
    code, _ = account.refused("create_image_version", **create, ReleaseNotes="other")
    assert code == "ResourceInUse"
    assert account.versions(image) == [1]


@assumed("API Reference: FailureReason is for `when a create or delete operation fails`")
def test_a_base_image_that_does_not_exist_fails_later(account, image):
    """CreateImageVersion succeeds with a tag that Amazon ECR does not have; the version becomes CREATE_FAILED."""
    missing = f"{account.repository}:does-not-exist"
    account.client.create_image_version(ImageName=image, BaseImage=missing)
    with pytest.raises(ImageVersionFailedError):
        account.wait_until_created(image, 1)
    described = account.client.describe_image_version(ImageName=image, Version=1)
    assert described["ImageVersionStatus"] == "CREATE_FAILED"
    assert described["FailureReason"]
    assert "ContainerImage" not in described
