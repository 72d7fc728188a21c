"""Deletion of images and versions, and what comes after it."""

from __future__ import annotations

from botocore.exceptions import ClientError

from tests.contract.statement import assumed, documented, recorded


@recorded("boto/botocore issue 3782")
def test_a_deleted_image_is_deleting_and_then_not_found(account, image):
    """After DeleteImage, an image is DELETING; later, DescribeImage fails with ResourceNotFound."""
    with account.prolonged():
        account.client.delete_image(ImageName=image)
        assert account.client.describe_image(ImageName=image)["ImageStatus"] == "DELETING"
    account.wait_until_gone(image)
    assert account.refused("describe_image", ImageName=image)[0] == "ResourceNotFound"


@documented("API Reference, DeleteImage")
def test_deleting_an_image_deletes_its_versions(account, image):
    """DeleteImage of an image that has versions succeeds, and deletes them."""
    account.create_version(image)
    account.client.delete_image(ImageName=image)
    account.wait_until_gone(image)
    assert account.refused("describe_image_version", ImageName=image, Version=1)[0] == "ResourceNotFound"


@assumed("DescribeImage still returns the image; SageMakerCreateImageOperator waits after this error")
def test_an_image_that_is_being_deleted_keeps_its_name(account, image):
    """CreateImage with the name of an image that is DELETING fails with ResourceInUse."""
    with account.prolonged():
        account.client.delete_image(ImageName=image)
        try:
            account.client.create_image(ImageName=image, RoleArn=account.role_arn)
            code = None
        except ClientError as error:
            code = error.response["Error"]["Code"]
    account.skip_if_over(code is None)
    assert code == "ResourceInUse"


@assumed("not documented; the watcher compares creation times")
def test_an_image_that_is_created_again_starts_at_1(account):
    """If an image is deleted and created again, its first version has the number 1."""
    image = account.create_image()
    account.create_version(image)
    account.client.delete_image(ImageName=image)
    account.wait_until_gone(image)
    account.client.create_image(ImageName=image, RoleArn=account.role_arn)
    account.wait_until_created(image)
    account.create_version(image)
    assert account.versions(image) == [1]


@assumed("ImageVersionStatus has the value DELETING; hashicorp/terraform-provider-aws waits for ResourceNotFound")
def test_a_deleted_version_is_deleting_and_then_not_found(account, three):
    """After DeleteImageVersion, a version is DELETING; later, DescribeImageVersion fails with ResourceNotFound."""
    with account.prolonged():
        account.client.delete_image_version(ImageName=three, Version=2)
        try:
            status = account.client.describe_image_version(ImageName=three, Version=2)["ImageVersionStatus"]
        except account.client.exceptions.ResourceNotFound:
            status = None
        account.skip_if_over(status is None)
        assert status == "DELETING"
    account.wait_until_gone(three, 2)
    assert account.refused("describe_image_version", ImageName=three, Version=2)[0] == "ResourceNotFound"
    assert account.versions(three) == [3, 1]


@recorded("hashicorp/terraform-provider-aws issue 44693, which leaves out the text in the brackets")
def test_a_version_that_is_being_deleted_cannot_be_deleted(account, image):
    """DeleteImageVersion of a version that is DELETING fails with ResourceInUse."""
    account.create_version(image)
    with account.prolonged():
        account.client.delete_image_version(ImageName=image, Version=1)
        code, message = account.refused("delete_image_version", ImageName=image, Version=1)
    account.skip_if_over(code == "ResourceNotFound")
    assert code == "ResourceInUse"
    assert message.startswith("ImageVersion (")
    assert message.endswith(") is being deleted")


@assumed("not documented; a sensor for a number fails if a higher one is CREATED, and watchers store a number")
def test_the_number_of_a_deleted_version_is_not_reused(account, three):
    """The number of a deleted version is not used again, even if it was the highest."""
    account.delete_version(three, 3)
    assert account.create_version(three) == 4
    assert account.versions(three) == [4, 2, 1]


@assumed("not documented")
def test_the_latest_version_is_the_highest_that_exists(account, three):
    """After the highest version is deleted, DescribeImageVersion without a number returns the next lower one."""
    account.delete_version(three, 3)
    assert account.client.describe_image_version(ImageName=three)["Version"] == 2


@documented("botocore's service model: an error of DeleteImageVersion")
def test_a_version_that_does_not_exist_cannot_be_deleted(account, image):
    """DeleteImageVersion of a number that does not exist fails with ResourceNotFound."""
    assert account.refused("delete_image_version", ImageName=image, Version=7)[0] == "ResourceNotFound"
