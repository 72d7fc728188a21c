"""UpdateImageVersion, other than its aliases."""

from __future__ import annotations

from tests.contract.statement import assumed, documented


@documented("hashicorp/terraform-provider-aws and Ansible's amazon.ai collection read the values immediately")
def test_an_update_of_a_version_takes_effect_at_once(account, image):
    """Right after UpdateImageVersion, DescribeImageVersion returns the new values, and the version is CREATED."""
    account.create_version(image)
    account.client.update_image_version(ImageName=image, Version=1, ReleaseNotes="new", VendorGuidance="STABLE")
    described = account.client.describe_image_version(ImageName=image, Version=1)
    assert (described["ReleaseNotes"], described["VendorGuidance"]) == ("new", "STABLE")
    assert described["ImageVersionStatus"] == "CREATED"


@documented("hashicorp/terraform-provider-aws sends only what changed")
def test_an_update_keeps_what_it_does_not_name(account, image):
    """UpdateImageVersion does not change members that are left out."""
    account.create_version(image, MLFramework="PyTorch 2.4", Aliases=["prod"])
    account.client.update_image_version(ImageName=image, Version=1, ReleaseNotes="new")
    described = account.client.describe_image_version(ImageName=image, Alias="prod")
    assert (described["MLFramework"], described["ReleaseNotes"]) == ("PyTorch 2.4", "new")


@assumed("not documented; a sensor with `created_after` does not depend on it")
def test_an_update_changes_the_last_modified_time(account, image):
    """UpdateImageVersion sets LastModifiedTime."""
    account.create_version(image)
    before = account.client.describe_image_version(ImageName=image, Version=1)["LastModifiedTime"]
    account.client.update_image_version(ImageName=image, Version=1, ReleaseNotes="new")
    assert account.client.describe_image_version(ImageName=image, Version=1)["LastModifiedTime"] > before


@assumed("the service model declares ResourceInUse; the operators also accept ValidationException")
def test_a_version_that_is_creating_cannot_be_updated(account, image):
    """UpdateImageVersion of a version that is CREATING fails with ResourceInUse."""
    with account.prolonged():
        account.client.create_image_version(ImageName=image, BaseImage=account.base_image)
        status = account.client.describe_image_version(ImageName=image, Version=1)["ImageVersionStatus"]
        account.skip_if_over(status != "CREATING")
        code, _ = account.refused("update_image_version", ImageName=image, Version=1, ReleaseNotes="new")
    assert code == "ResourceInUse"
