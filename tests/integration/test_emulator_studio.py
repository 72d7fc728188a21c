from __future__ import annotations

import time
from datetime import timedelta

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.moto_api import state_manager

from airflow_provider_imageversions.emulator import install, models
from airflow_provider_imageversions.emulator.studio import STUDIO_MODEL, STUDIO_OPERATIONS
from tests.studio import CONFIG, ROLE, Studio, custom_image, spec

START_MS = 1_767_225_600_000
ONCE = Config(retries={"total_max_attempts": 1}, parameter_validation=False)


@pytest.fixture(scope="module")
def shared_client(emulator_server):
    return emulator_server.client("sagemaker", config=ONCE)


@pytest.fixture
def client(emulator, shared_client):
    emulator.creation_seconds = 0
    return shared_client


@pytest.fixture
def studio(client):
    return Studio(client)


def error_of(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def everything(pages, key):
    return [item for page in pages for item in page[key]]


def test_each_operation_answers_in_the_form_of_the_model(emulator, studio, client):
    """Each test compares the answers with botocore's model; here every operation answers with all it has."""
    lab = {"CustomImages": [custom_image("churn", 1)], "DefaultResourceSpec": spec("churn", 1)}
    domain = studio.domain(JupyterLabAppSettings=lab, space_settings={"JupyterLabAppSettings": lab})
    ann = studio.profile(domain, JupyterLabAppSettings=lab)
    notes, other = studio.space(domain, AppType="JupyterLab"), studio.space(domain, "other")
    app = studio.app(domain, space=notes)
    studio.app(domain, "KernelGateway", profile=ann)
    for name in ("a", "b"):
        studio.config(name)
    client.update_domain(DomainId=domain, DefaultUserSettings={}, AppNetworkAccessType="VpcOnly")
    client.update_user_profile(DomainId=domain, UserProfileName=ann, UserSettings={})
    client.update_space(DomainId=domain, SpaceName=notes, SpaceDisplayName="My notes")
    client.update_app_image_config(AppImageConfigName="a", CodeEditorAppImageConfig={})
    assert client.describe_app(**app)["ResourceSpec"] == spec("churn", 1)
    assert client.describe_domain(DomainId=domain).keys() > {"DefaultUserSettings", "DefaultSpaceSettings", "VpcId"}
    assert client.describe_user_profile(DomainId=domain, UserProfileName=ann)["UserSettings"]
    assert client.describe_space(DomainId=domain, SpaceName=notes)["SpaceDisplayName"] == "My notes"
    assert "CodeEditorAppImageConfig" in client.describe_app_image_config(AppImageConfigName="a")
    lists = [
        client.list_user_profiles(MaxResults=1),
        client.list_spaces(MaxResults=1),
        client.list_apps(MaxResults=1),
        client.list_app_image_configs(MaxResults=1),
    ]
    assert ["NextToken" in page for page in lists] == [False, True, True, True]
    assert client.list_domains()["Domains"][0]["DomainId"] == domain
    client.delete_app_image_config(AppImageConfigName="b")
    client.delete_app(**app)
    client.delete_space(DomainId=domain, SpaceName=other)
    client.delete_app(DomainId=domain, UserProfileName=ann, AppType="KernelGateway", AppName="default")
    client.delete_user_profile(DomainId=domain, UserProfileName=ann)
    client.delete_space(DomainId=domain, SpaceName=notes)
    client.delete_domain(DomainId=domain)
    assert client.list_domains()["Domains"] == []
    assert {call["operation"] for call in emulator.calls() if call["status"] == 200} == set(STUDIO_OPERATIONS)


def test_an_update_replaces_the_settings_of_one_app_and_keeps_the_others(studio, client):
    lab = {"CustomImages": [custom_image("a"), custom_image("b")], "LifecycleConfigArns": []}
    kernel = {"CustomImages": [custom_image("c", 3)]}
    domain = studio.domain(JupyterLabAppSettings=lab, KernelGatewayAppSettings=kernel)
    client.update_domain(
        DomainId=domain, DefaultUserSettings={"JupyterLabAppSettings": {"CustomImages": [custom_image("d")]}}
    )
    assert studio.user_settings(domain) == {
        "ExecutionRole": ROLE,
        "SecurityGroups": ["sg-1"],
        "JupyterLabAppSettings": {"CustomImages": [custom_image("d")]},
        "KernelGatewayAppSettings": kernel,
    }


def test_a_domain_is_pending_updating_and_deleting_for_a_while(emulator, client):
    emulator.creation_seconds = 3600
    domain = Studio(client).domain()
    update = {"DomainId": domain, "DefaultUserSettings": {"ExecutionRole": f"{ROLE}-2"}}

    def status():
        return client.describe_domain(DomainId=domain)["Status"]

    assert status() == "Pending"
    assert error_of(client.update_domain, **update) == ("ResourceInUse", f"Domain [{domain}] is being created.")
    emulator.creation_seconds = 0
    assert status() == "InService"
    emulator.creation_seconds = 3600
    client.update_domain(**update)
    assert status() == "Updating"
    assert error_of(client.update_domain, **update)[0] == "ResourceInUse"
    emulator.creation_seconds = 0
    assert status() == "InService"
    emulator.creation_seconds = 3600
    client.delete_domain(DomainId=domain)
    assert status() == "Deleting"
    assert error_of(client.delete_domain, DomainId=domain)[0] == "ResourceInUse"
    emulator.creation_seconds = 0
    code, message = error_of(client.describe_domain, DomainId=domain)
    assert code == "ResourceNotFound"
    assert message.endswith(f":domain/{domain} does not exist")


def test_an_update_that_fails_keeps_the_new_settings_and_can_be_repeated(emulator, studio, client):
    domain = studio.domain()
    settings = {"JupyterLabAppSettings": {"CustomImages": [custom_image("churn", 2)]}}
    emulator.fail_updates("the image cannot be pulled")
    client.update_domain(DomainId=domain, DefaultUserSettings=settings)
    described = client.describe_domain(DomainId=domain)
    assert (described["Status"], described["FailureReason"]) == ("Update_Failed", "the image cannot be pulled")
    assert described["DefaultUserSettings"].items() >= settings.items()
    client.update_domain(DomainId=domain, DefaultUserSettings={})
    described = client.describe_domain(DomainId=domain)
    assert described["Status"] == "InService"
    assert "FailureReason" not in described


def test_deleting_what_is_in_use_succeeds(studio, client):
    studio.image("churn", 2)
    studio.config()
    studio.domain(JupyterLabAppSettings={"CustomImages": [custom_image("churn", 1)]})
    client.delete_image_version(ImageName="churn", Version=1)
    client.delete_app_image_config(AppImageConfigName=CONFIG)
    client.delete_image(ImageName="churn")


def test_what_has_dependents_cannot_be_deleted(studio, client):
    domain = studio.domain()
    ann, notes = studio.profile(domain), studio.space(domain)
    app = studio.app(domain, space=notes)
    code, message = error_of(client.delete_domain, DomainId=domain)
    assert (code, "UserProfile" in message) == ("ResourceInUse", True)
    assert error_of(client.delete_space, DomainId=domain, SpaceName=notes)[0] == "ResourceInUse"
    client.delete_app(**app)
    assert [app["Status"] for app in client.list_apps()["Apps"]] == ["Deleted"]
    client.delete_space(DomainId=domain, SpaceName=notes)
    client.delete_user_profile(DomainId=domain, UserProfileName=ann)


@pytest.mark.parametrize(
    ("place", "expected"),
    [(4, "request"), (3, "space"), (2, "default space"), (1, "domain"), (0, None)],
)
def test_an_app_starts_with_the_most_specific_image(studio, client, place, expected):
    def settings(name):
        return {"JupyterLabAppSettings": {"DefaultResourceSpec": spec(name.replace(" ", "-"), 1)}}

    domain = studio.domain(
        **(settings("domain") if place >= 1 else {}), space_settings=settings("default space") if place >= 2 else {}
    )
    space = studio.space(domain, **(settings("space") if place >= 3 else {}))
    given = spec("request", 1) if place >= 4 else None
    app = studio.app(domain, space=space, spec=given)
    wanted = {} if expected is None else spec(expected.replace(" ", "-"), 1)
    assert client.describe_app(**app)["ResourceSpec"] == wanted


def test_lists_are_paged_filtered_and_sorted(studio, client):
    first, second = studio.domain("one"), studio.domain("two")
    for number in range(5):
        studio.space(first, f"space-{number}")
        studio.app(first, space=f"space-{number}")
        time.sleep(0.002)
    studio.space(second, "elsewhere")

    def names(**parameters):
        pages = client.get_paginator("list_spaces").paginate(**parameters)
        return [space["SpaceName"] for space in everything(pages, "Spaces")]

    inside = [f"space-{number}" for number in range(5)]
    assert names(DomainIdEquals=first, MaxResults=2) == inside
    assert names(DomainIdEquals=first, SortOrder="Descending") == inside[::-1]
    assert names(SpaceNameContains="where") == ["elsewhere"]
    apps = everything(client.get_paginator("list_apps").paginate(SpaceNameEquals="space-3"), "Apps")
    assert [app["SpaceName"] for app in apps] == ["space-3"]
    domains = everything(client.get_paginator("list_domains").paginate(MaxResults=1), "Domains")
    assert {domain["DomainName"] for domain in domains} == {"one", "two"}


def test_app_image_configs_are_filtered_by_name_and_time(studio, client, monkeypatch):
    for number, name in enumerate(("lab", "lab-2", "other")):
        # In seconds of their own, as older botocore sends whole seconds.
        monkeypatch.setattr(models, "now_ms", lambda number=number: START_MS + 1010 * number)
        studio.config(name)
    listed = client.list_app_image_configs(SortBy="Name", SortOrder="Ascending")["AppImageConfigs"]
    assert [config["AppImageConfigName"] for config in listed] == ["lab", "lab-2", "other"]
    first, second, _ = (config["CreationTime"].replace(microsecond=0) for config in listed)
    found = client.list_app_image_configs(NameContains="lab", CreationTimeAfter=second)
    assert [config["AppImageConfigName"] for config in found["AppImageConfigs"]] == ["lab-2"]
    until = first + timedelta(seconds=1)
    before = client.list_app_image_configs(ModifiedTimeBefore=until)["AppImageConfigs"]
    assert [config["AppImageConfigName"] for config in before] == ["lab"]


@pytest.mark.parametrize(
    ("call", "parameters", "code"),
    [
        ("describe_domain", {"DomainId": "d-missing"}, "ResourceNotFound"),
        ("update_domain", {"DomainId": "d-missing"}, "ResourceNotFound"),
        ("describe_domain", {"DomainId": "no id"}, "ValidationException"),
        ("describe_domain", {}, "ValidationException"),
        ("create_user_profile", {"DomainId": "d-missing", "UserProfileName": "ann"}, "ValidationException"),
        ("describe_app_image_config", {"AppImageConfigName": "missing"}, "ResourceNotFound"),
        ("create_app", {"DomainId": "d-missing", "AppType": "JupyterLab", "AppName": "default"}, "ValidationException"),
        ("describe_app", {"DomainId": "d-missing", "AppType": "JupyterLab", "AppName": "a"}, "ValidationException"),
        ("list_apps", {"SortBy": "Name"}, "ValidationException"),
        ("list_apps", {"NextToken": "bm9uZQ=="}, "ValidationException"),
    ],
)
def test_what_cannot_be_is_refused(client, call, parameters, code):
    assert error_of(getattr(client, call), **parameters)[0] == code


def test_a_name_is_taken_once(studio, client):
    domain = studio.domain()
    studio.profile(domain)
    studio.config()
    for create in (
        studio.domain,
        studio.config,
        lambda: studio.profile(domain),
    ):
        assert error_of(create)[0] == "ResourceInUse"


def test_the_limits_of_a_list_of_custom_images_are_those_of_the_model(studio):
    images = [custom_image(f"image-{number}") for number in range(201)]
    code, message = error_of(studio.domain, JupyterLabAppSettings={"CustomImages": images})
    assert (code, "less than or equal to 200" in message) == ("ValidationException", True)


def test_faults_apply_to_studio(emulator, studio, client):
    domain = studio.domain()
    emulator.add_fault("access_denied", operation="DescribeDomain")
    code, message = error_of(client.describe_domain, DomainId=domain)
    assert code == "AccessDeniedException"
    assert f"sagemaker:DescribeDomain on resource: arn:aws:sagemaker:us-east-1:123456789012:domain/{domain}" in message
    emulator.add_fault("empty_page", operation="ListDomains")
    pages = list(client.get_paginator("list_domains").paginate())
    assert [len(page["Domains"]) for page in pages] == [0, 1]
    emulator.add_fault("not_found", operation="DescribeDomain")
    assert error_of(client.describe_domain, DomainId=domain)[1].endswith(f"domain/{domain} does not exist")


def test_an_unknown_status_of_a_domain(emulator, studio):
    domain = studio.domain()
    unchecked = emulator.client("sagemaker", config=ONCE)
    emulator.add_fault("unknown_status", operation="DescribeDomain", status="Frozen")
    assert unchecked.describe_domain(DomainId=domain)["Status"] == "Frozen"


@mock_aws
def test_studio_in_mocks_of_moto():
    install()
    import boto3

    client = boto3.client("sagemaker", "us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing")
    state_manager.set_transition(STUDIO_MODEL, {"progression": "manual", "times": 2})
    try:
        domain = Studio(client).domain()
        assert [client.describe_domain(DomainId=domain)["Status"] for _ in range(2)] == ["Pending", "InService"]
    finally:
        state_manager.unset_transition(STUDIO_MODEL)
