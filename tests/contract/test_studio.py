"""SageMaker Studio: what attaches a version, and what happens to it. Needs a domain that nobody uses."""

from __future__ import annotations

from tests.contract.statement import assumed, documented


def custom_images(*entries):
    return {
        "CustomImages": [
            dict(zip(("ImageName", "AppImageConfigName", "ImageVersionNumber"), e, strict=False)) for e in entries
        ]
    }


@assumed("AWS says to detach an image first, and mentions no error")
def test_a_version_that_a_user_profile_names_can_be_deleted(account, image, config, profile):
    """DeleteImageVersion succeeds for a version in the settings of a user profile, and does not change the settings."""
    account.create_version(image)
    attached = custom_images((image, config, 1))
    which = profile(JupyterLabAppSettings=attached)
    account.delete_version(image, 1)
    settings = account.client.describe_user_profile(**which)["UserSettings"]
    assert settings["JupyterLabAppSettings"] == attached


@assumed("not documented; the roll-out operator checks the version itself")
def test_settings_may_name_a_version_that_does_not_exist(account, image, config, profile):
    """UpdateUserProfile with a custom image whose version does not exist succeeds."""
    which = profile()
    attached = custom_images((image, config, 7))
    account.client.update_user_profile(**which, UserSettings={"JupyterLabAppSettings": attached})
    account.wait_until_in_service(which["UserProfileName"])
    settings = account.client.describe_user_profile(**which)["UserSettings"]
    assert settings["JupyterLabAppSettings"] == attached


@assumed("API Reference: `a collection of settings`; the roll-out operator writes the settings of one app")
def test_an_update_of_a_user_profile_replaces_the_settings_of_one_app(account, image, config, profile):
    """UpdateUserProfile replaces the list of custom images of the given app, and keeps the settings of other apps."""
    account.create_version(image)
    other = custom_images((image, config))
    which = profile(JupyterLabAppSettings=custom_images((image, config, 1)), CodeEditorAppSettings=other)
    empty = {"CustomImages": []}
    account.client.update_user_profile(**which, UserSettings={"JupyterLabAppSettings": empty})
    account.wait_until_in_service(which["UserProfileName"])
    settings = account.client.describe_user_profile(**which)["UserSettings"]
    assert settings.get("JupyterLabAppSettings", empty) == empty
    assert settings["CodeEditorAppSettings"] == other


@assumed("API Reference: `a collection of settings`; the roll-out operator writes the settings of one app")
def test_an_update_of_a_domain_keeps_the_settings_of_other_apps(account, image, config, domain_id):
    """UpdateDomain with the settings of one app keeps all other default user settings."""
    account.create_version(image)
    before = account.client.describe_domain(DomainId=domain_id)["DefaultUserSettings"]
    lab = before.get("JupyterLabAppSettings", {})
    entries = [*lab.get("CustomImages", ()), *custom_images((image, config, 1))["CustomImages"]]
    settings = {"JupyterLabAppSettings": {**lab, "CustomImages": entries}}
    account.client.update_domain(DomainId=domain_id, DefaultUserSettings=settings)
    try:
        account.wait_until_in_service()
        after = account.client.describe_domain(DomainId=domain_id)["DefaultUserSettings"]
    finally:
        account.detach()
    assert after == {**before, **settings}


@documented("API Reference, UpdateDomain and DescribeDomain")
def test_a_domain_is_updating_for_a_while(account, image, config, domain_id):
    """After UpdateDomain, the domain is Updating, another update fails with ResourceInUse, and it becomes InService."""
    account.create_version(image)
    lab = account.client.describe_domain(DomainId=domain_id)["DefaultUserSettings"].get("JupyterLabAppSettings", {})
    update = {"DomainId": domain_id, "DefaultUserSettings": {"JupyterLabAppSettings": lab}}
    with account.prolonged():
        account.client.update_domain(**update)
        status = account.client.describe_domain(DomainId=domain_id)["Status"]
        account.skip_if_over(status == "InService")
        assert status == "Updating"
        assert account.refused("update_domain", **update)[0] == "ResourceInUse"
    account.wait_until_in_service()
