"""Aliases of versions."""

from __future__ import annotations

from tests.contract.statement import assumed, documented


def aliases(account, image, **query):
    """Return the aliases that ListAliases shows, in alphabetical order."""
    pages = account.client.get_paginator("list_aliases").paginate(ImageName=image, **query)
    return sorted(alias for page in pages for alias in page["SageMakerImageVersionAliases"])


@documented("API Reference, CreateImageVersion and DescribeImageVersion")
def test_an_alias_describes_its_version(account, three):
    """DescribeImageVersion with an alias that CreateImageVersion or UpdateImageVersion added returns that version."""
    account.client.update_image_version(ImageName=three, Version=1, AliasesToAdd=["old"])
    account.create_version(three, Aliases=["new"])
    assert account.client.describe_image_version(ImageName=three, Alias="old")["Version"] == 1
    assert account.client.describe_image_version(ImageName=three, Alias="new")["Version"] == 4


@documented("API Reference, ListAliases")
def test_aliases_are_listed_for_an_image_or_a_version(account, three):
    """ListAliases returns the aliases of all versions, or of the given one."""
    account.client.update_image_version(ImageName=three, Version=1, AliasesToAdd=["a", "b"])
    account.client.update_image_version(ImageName=three, Version=2, AliasesToAdd=["c"])
    assert aliases(account, three) == ["a", "b", "c"]
    assert aliases(account, three, Version=1) == ["a", "b"]


@documented("hashicorp/terraform-provider-aws and Ansible's amazon.ai collection do so")
def test_one_update_adds_and_removes_aliases(account, image):
    """UpdateImageVersion adds and removes aliases of the same version in one call."""
    account.create_version(image, Aliases=["old", "kept"])
    account.client.update_image_version(ImageName=image, Version=1, AliasesToAdd=["new"], AliasesToDelete=["old"])
    assert aliases(account, image) == ["kept", "new"]


@assumed("an alias identifies one version; the promote operator removes it from the other version first")
def test_an_alias_of_another_version_is_refused(account, three):
    """Adding an alias that another version of the image has fails with ResourceInUse."""
    account.client.update_image_version(ImageName=three, Version=1, AliasesToAdd=["prod"])
    code, _ = account.refused("update_image_version", ImageName=three, Version=2, AliasesToAdd=["prod"])
    assert code == "ResourceInUse"
    create = {"ImageName": three, "BaseImage": account.base_image, "Aliases": ["prod"]}
    assert account.refused("create_image_version", **create)[0] == "ResourceInUse"
    assert account.client.describe_image_version(ImageName=three, Alias="prod")["Version"] == 1


@assumed("the only error of DescribeImageVersion in the service model")
def test_an_alias_that_does_not_exist_is_not_found(account, three):
    """DescribeImageVersion with an alias that no version has fails with ResourceNotFound."""
    assert account.refused("describe_image_version", ImageName=three, Alias="missing")[0] == "ResourceNotFound"


@assumed("the only error in the service model that fits")
def test_an_alias_of_another_version_cannot_be_removed(account, three):
    """Removing an alias that the version does not have fails with ResourceNotFound."""
    account.client.update_image_version(ImageName=three, Version=1, AliasesToAdd=["prod"])
    code, _ = account.refused("update_image_version", ImageName=three, Version=2, AliasesToDelete=["prod"])
    assert code == "ResourceNotFound"
    assert aliases(account, three, Version=1) == ["prod"]


@assumed("an alias belongs to a version")
def test_an_alias_of_a_deleted_version_is_free(account, three):
    """After a version is deleted, another version can have its alias."""
    account.client.update_image_version(ImageName=three, Version=3, AliasesToAdd=["prod"])
    account.delete_version(three, 3)
    assert aliases(account, three) == []
    account.client.update_image_version(ImageName=three, Version=2, AliasesToAdd=["prod"])
    assert account.client.describe_image_version(ImageName=three, Alias="prod")["Version"] == 2
