"""Images, and what SageMaker answers if an image does not exist."""

from __future__ import annotations

from datetime import timedelta

from tests.contract.statement import assumed, documented, recorded


@assumed("botocore's pattern for ImageArn allows both cases; the recorded ARNs are of images with lower-case names")
def test_an_image_arn_has_the_name_in_lower_case(account):
    """An image's ARN ends in `image/` and the image's name in lower case; ImageName keeps its case."""
    name = account.create_image(account.new_name("-Mixed"))
    described = account.client.describe_image(ImageName=name)
    assert described["ImageName"] == name
    assert described["ImageArn"].endswith(f":image/{name.lower()}")


@assumed("AWS's CloudFormation handlers call DescribeImageVersion with the name from the ARN")
def test_image_names_are_case_insensitive(account):
    """DescribeImage finds an image by its name in lower case, even if it was created with upper-case letters."""
    name = account.create_image(account.new_name("-Mixed"))
    assert account.client.describe_image(ImageName=name.lower())["ImageName"] == name


@recorded("aws-samples/sagemaker-studio-custom-image-samples issue 17")
def test_an_image_name_that_exists_is_refused(account, image):
    """CreateImage with the name of an image that exists fails with ResourceInUse."""
    code, message = account.refused("create_image", ImageName=image, RoleArn=account.role_arn)
    assert code == "ResourceInUse"
    assert message == f"The Image with ImageName {image} already exists. Please use a different ImageName."


@recorded("aws/sagemaker-distribution issue 178")
def test_an_image_in_a_list_has_these_members(account):
    """ListImages returns name, ARN, status, both times and, if set, DisplayName, and nothing else."""
    name = account.create_image(DisplayName="Churn")
    (listed,) = account.client.list_images(NameContains=name)["Images"]
    times = ["CreationTime", "LastModifiedTime"]
    assert sorted(listed) == [times[0], "DisplayName", "ImageArn", "ImageName", "ImageStatus", times[1]]
    assert (listed["ImageName"], listed["ImageStatus"], listed["DisplayName"]) == (name, "CREATED", "Churn")
    assert timedelta(0) <= listed[times[1]] - listed[times[0]] < timedelta(minutes=1)


@recorded("boto/botocore issue 3782")
def test_an_image_that_does_not_exist_is_not_found(account):
    """DescribeImage of an image that does not exist fails with ResourceNotFound, whose message has the image's ARN."""
    code, message = account.refused("describe_image", ImageName=account.new_name())
    assert code == "ResourceNotFound"
    assert message.startswith("Image with ARN arn:")
    assert message.endswith(" does not exist")


@documented("botocore's service model: the only error of ListImageVersions and ListAliases")
def test_lists_of_an_image_that_does_not_exist_are_not_found(account):
    """ListImageVersions and ListAliases of an image that does not exist fail with ResourceNotFound."""
    name = account.new_name()
    assert account.refused("list_image_versions", ImageName=name)[0] == "ResourceNotFound"
    assert account.refused("list_aliases", ImageName=name)[0] == "ResourceNotFound"


@documented("hashicorp/terraform-provider-aws PR 16082, Ansible's amazon.ai collection")
def test_an_image_whose_role_cannot_be_assumed_fails_later(account, failed_image):
    """CreateImage succeeds with a role that SageMaker cannot assume; the image becomes CREATE_FAILED with a reason."""
    described = account.client.describe_image(ImageName=failed_image)
    assert described["ImageStatus"] == "CREATE_FAILED"
    assert described["FailureReason"]


@documented("hashicorp/terraform-provider-aws PR 16082")
def test_an_image_that_failed_keeps_its_name(account, failed_image):
    """CreateImage with the name of an image that is CREATE_FAILED fails with ResourceInUse."""
    assert account.refused("create_image", ImageName=failed_image, RoleArn=account.role_arn)[0] == "ResourceInUse"


@recorded("aws-samples/sagemaker-studio-custom-image-samples issue 17")
def test_an_image_that_failed_takes_no_version(account, failed_image):
    """CreateImageVersion for an image that is CREATE_FAILED fails with ValidationException."""
    code, message = account.refused("create_image_version", ImageName=failed_image, BaseImage=account.base_image)
    assert code == "ValidationException"
    assert message == f"Image {failed_image} is in an invalid state."


@documented("AWS's CloudFormation handler for AWS::SageMaker::Image, botocore's waiter ImageUpdated")
def test_an_updated_image_becomes_created_again(account, image):
    """After UpdateImage, the image becomes CREATED with the new values."""
    account.client.update_image(ImageName=image, Description="new")
    account.wait_until_created(image)
    described = account.client.describe_image(ImageName=image)
    assert (described["ImageStatus"], described["Description"]) == ("CREATED", "new")


@documented("API Reference, common errors; the format of the message is that of other AWS APIs")
def test_a_value_outside_its_limits_is_a_validation_error(account):
    """A request outside the limits of the service model fails with ValidationException."""
    code, message = account.refused("list_images", MaxResults=101)
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: ")
