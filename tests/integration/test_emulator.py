from __future__ import annotations

import http.client
import json
import re
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import boto3
import botocore.handlers
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.moto_api import state_manager

from airflow_provider_imageversions.emulator import Emulator, install
from airflow_provider_imageversions.emulator.models import (
    IMAGE_DELETION_MODEL,
    IMAGE_MODEL,
    IMAGE_QUOTA,
    VERSION_MODEL,
)
from airflow_provider_imageversions.emulator.wire import OPERATIONS
from tests.conftest import BUILTIN_HANDLERS, wait_until

ROLE = "arn:aws:iam::123456789012:role/sagemaker"
BASE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/churn:1.4"
MISSING_ROLE = "arn:aws:iam::123456789012:role/team/does-not-exist"
MISSING = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/churn:does-not-exist"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ONCE = Config(retries={"total_max_attempts": 1}, parameter_validation=False, connect_timeout=5, read_timeout=5)


@pytest.fixture(scope="module")
def shared_client(emulator_server):
    return emulator_server.client("sagemaker", config=ONCE)


@pytest.fixture
def client(emulator, shared_client):
    return shared_client


@pytest.fixture
def image(client):
    client.create_image(ImageName="churn", RoleArn=ROLE)
    return "churn"


@pytest.fixture
def at_once(emulator):
    emulator.creation_seconds = 0


@pytest.fixture
def five(emulator):
    """Versions 1 to 5, created at START and a day apart."""
    emulator.create_versions("churn", 5, start_time=START, spacing_seconds=86400)
    return "churn"


def error_of(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    return error["Error"]["Code"], error["Error"]["Message"]


def numbers(client, **parameters):
    pages = client.get_paginator("list_image_versions").paginate(**parameters)
    return [version["Version"] for page in pages for version in page["ImageVersions"]]


def image_status(client, image="churn"):
    """The status of an image, or None if there is no such image."""
    try:
        return client.describe_image(ImageName=image)["ImageStatus"]
    except client.exceptions.ResourceNotFound:
        return None


def status_of(client, version, image="churn"):
    return client.describe_image_version(ImageName=image, Version=version)["ImageVersionStatus"]


# Images


def test_an_image_is_described_as_it_was_created(client):
    arn = client.create_image(
        ImageName="Team.Churn", RoleArn=ROLE, Description="d", DisplayName="Churn", Tags=[{"Key": "a", "Value": "b"}]
    )["ImageArn"]
    described = client.describe_image(ImageName="Team.Churn")
    assert arn == described["ImageArn"] == "arn:aws:sagemaker:us-east-1:123456789012:image/team.churn"
    assert described["ImageName"] == "Team.Churn"
    assert described["ImageStatus"] == "CREATED"
    assert (described["RoleArn"], described["Description"], described["DisplayName"]) == (ROLE, "d", "Churn")
    assert abs(described["CreationTime"] - datetime.now(timezone.utc)) < timedelta(seconds=10)


def test_an_image_name_is_taken_whatever_its_case(client, image):
    code, message = error_of(client.create_image, ImageName="CHURN", RoleArn=ROLE)
    assert code == "ResourceInUse"
    assert message == "The Image with ImageName CHURN already exists. Please use a different ImageName."
    assert client.describe_image(ImageName=image)["ImageName"] == "churn"


def test_update_image_sets_and_deletes_properties(client, image):
    client.update_image(ImageName=image, Description="new", DisplayName="Shown")
    client.update_image(ImageName=image, DeleteProperties=["Description"], RoleArn=ROLE + "2")
    described = client.describe_image(ImageName=image)
    assert "Description" not in described
    assert described["DisplayName"] == "Shown"
    assert described["RoleArn"] == ROLE + "2"
    assert described["LastModifiedTime"] >= described["CreationTime"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["b-two", "C-one", "a-one"]),
        ({"SortOrder": "ASCENDING"}, ["a-one", "C-one", "b-two"]),
        ({"SortBy": "IMAGE_NAME", "SortOrder": "ASCENDING"}, ["C-one", "a-one", "b-two"]),
        ({"SortBy": "LAST_MODIFIED_TIME"}, ["a-one", "b-two", "C-one"]),
        ({"NameContains": "one"}, ["C-one", "a-one"]),
        ({"NameContains": "one", "MaxResults": 1}, ["C-one", "a-one"]),
        ({"CreationTimeAfter": START + timedelta(days=36500)}, []),
    ],
)
def test_images_are_listed_in_order_by_pages(client, query, expected):
    for name in ("a-one", "C-one", "b-two"):
        client.create_image(ImageName=name, RoleArn=ROLE)
        time.sleep(0.002)
    client.update_image(ImageName="a-one", Description="later")
    pages = client.get_paginator("list_images").paginate(**query)
    assert [found["ImageName"] for page in pages for found in page["Images"]] == expected


def test_an_image_can_take_time_by_motos_own_transitions(client):
    def take(seconds):
        for model in (IMAGE_MODEL, IMAGE_DELETION_MODEL):
            state_manager.set_transition(model, {"progression": "time", "seconds": seconds})

    try:
        take(3600)
        client.create_image(ImageName="churn", RoleArn=ROLE)
        assert client.describe_image(ImageName="churn")["ImageStatus"] == "CREATING"
        create = {"ImageName": "churn", "BaseImage": BASE, "ClientToken": "t"}
        assert error_of(client.create_image_version, **create)[0] == "ResourceInUse"
        take(0)
        wait_until(lambda: client.describe_image(ImageName="churn")["ImageStatus"] == "CREATED")
        client.create_image_version(**create)
        take(3600)
        client.delete_image(ImageName="churn")
        assert client.describe_image(ImageName="churn")["ImageStatus"] == "DELETING"
        take(0)
        wait_until(lambda: not client.list_images()["Images"])
    finally:
        state_manager.unset_transition(IMAGE_MODEL)


def test_a_deleted_image_is_deleting_for_a_while_and_its_name_is_taken(emulator, client, five):
    emulator.creation_seconds = 3600
    client.delete_image(ImageName=five)
    assert image_status(client) == "DELETING"
    assert [image["ImageStatus"] for image in client.list_images()["Images"]] == ["DELETING"]
    create = {"ImageName": five, "RoleArn": ROLE}
    assert error_of(client.create_image, **create)[0] == "ResourceInUse"
    version = {"ImageName": five, "BaseImage": BASE, "ClientToken": "t"}
    assert error_of(client.create_image_version, **version)[0] == "ResourceInUse"
    for call in (client.delete_image, client.update_image):
        code, message = error_of(call, ImageName=five)
        assert code == "ResourceInUse"
        assert message.endswith(":image/churn) is being deleted")
    emulator.creation_seconds = 0.01
    wait_until(lambda: image_status(client) is None)
    client.create_image(**create)
    assert numbers(client, ImageName=five) == []


def test_versions_can_be_seeded_though_the_image_is_deleting(emulator, client, five):
    emulator.creation_seconds = 3600
    client.delete_image(ImageName=five)
    assert emulator.create_versions(five, 2) == [1, 2]
    assert image_status(client) == "CREATED"


@pytest.mark.parametrize("with_update", [False, True])
def test_an_image_with_a_role_that_does_not_exist_fails(client, with_update):
    if with_update:
        client.create_image(ImageName="churn", RoleArn=ROLE)
        client.update_image(ImageName="churn", RoleArn=MISSING_ROLE)
    else:
        client.create_image(ImageName="churn", RoleArn=MISSING_ROLE)
    described = client.describe_image(ImageName="churn")
    assert described["ImageStatus"] == ("UPDATE_FAILED" if with_update else "CREATE_FAILED")
    assert described["RoleArn"] == MISSING_ROLE
    assert described["FailureReason"].startswith(f"Could not assume role {MISSING_ROLE}. ")
    (listed,) = client.list_images()["Images"]
    assert listed["FailureReason"] == described["FailureReason"]


def test_an_image_fails_when_it_is_due(client):
    state_manager.set_transition(IMAGE_MODEL, {"progression": "manual", "times": 2})
    try:
        client.create_image(ImageName="churn", RoleArn=MISSING_ROLE)
        first = client.describe_image(ImageName="churn")
        assert (first["ImageStatus"], first.get("FailureReason")) == ("CREATING", None)
        assert image_status(client) == "CREATE_FAILED"
    finally:
        state_manager.unset_transition(IMAGE_MODEL)


@pytest.mark.usefixtures("at_once")
def test_a_failed_image_stays_so_until_it_is_deleted_and_created_again(client):
    client.create_image(ImageName="churn", RoleArn=MISSING_ROLE)
    create = {"ImageName": "churn", "RoleArn": ROLE}
    version = {"ImageName": "churn", "BaseImage": BASE, "ClientToken": "t"}
    invalid = ("ValidationException", "Image churn is in an invalid state.")
    assert error_of(client.create_image, **create)[0] == "ResourceInUse"
    assert error_of(client.update_image, **create) == invalid
    assert error_of(client.create_image_version, **version) == invalid
    assert image_status(client) == "CREATE_FAILED"
    client.delete_image(ImageName="churn")
    client.create_image(**create)
    assert "FailureReason" not in client.describe_image(ImageName="churn")
    client.create_image_version(**version)
    assert numbers(client, ImageName="churn") == [1]


def test_one_image_more_than_the_quota_is_refused(emulator, client):
    emulator.image_quota = 2
    emulator.creation_seconds = 3600
    for name in ("one", "two"):
        client.create_image(ImageName=name, RoleArn=ROLE)
    create = {"ImageName": "three", "RoleArn": ROLE}
    code, message = error_of(client.create_image, **create)
    assert code == "ResourceLimitExceeded"
    assert " is 2 Images, with current utilization of 2 Images and a request delta of 1 Images. " in message
    assert error_of(client.create_image, ImageName="One", RoleArn=ROLE)[0] == "ResourceInUse"
    emulator.client("sagemaker", region_name="eu-west-1").create_image(**create)
    client.delete_image(ImageName="one")
    assert error_of(client.create_image, **create)[0] == "ResourceLimitExceeded"
    emulator.creation_seconds = 0
    client.create_image(**create)


@pytest.mark.usefixtures("emulator")
def test_the_quota_is_that_of_sagemaker_unless_given():
    with Emulator() as other:
        assert other.image_quota == IMAGE_QUOTA == 250
    with Emulator(image_quota=1) as other:
        own = other.client("sagemaker", config=ONCE)
        own.create_image(ImageName="one", RoleArn=ROLE)
        assert error_of(own.create_image, ImageName="two", RoleArn=ROLE)[0] == "ResourceLimitExceeded"
        other.create_versions("seeded", 1)
        other.image_quota = 3
        own.create_image(ImageName="three", RoleArn=ROLE)
        other.reset()
        assert other.image_quota == 1


# Versions


@pytest.mark.usefixtures("at_once")
def test_a_version_is_described_with_all_it_was_created_with(client, image):
    details = {
        "BaseImage": BASE,
        "JobType": "TRAINING",
        "MLFramework": "PyTorch 2.4",
        "ProgrammingLang": "Python 3.11",
        "Processor": "GPU",
        "Horovod": True,
        "VendorGuidance": "STABLE",
        "ReleaseNotes": "first",
    }
    created = client.create_image_version(ImageName=image, ClientToken="t", Aliases=["1.4", "latest"], **details)
    described = client.describe_image_version(ImageName=image, Version=1)
    assert details.items() <= described.items()
    assert described["ImageVersionStatus"] == "CREATED"
    assert described["ImageVersionArn"] == created["ImageVersionArn"]
    assert described["ImageArn"] == client.describe_image(ImageName=image)["ImageArn"]
    assert re.fullmatch(
        r"123456789012\.dkr\.ecr\.us-east-1\.amazonaws\.com/team/churn@sha256:[0-9a-f]{64}",
        described["ContainerImage"],
    )
    assert client.list_aliases(ImageName=image, Version=1)["SageMakerImageVersionAliases"] == ["1.4", "latest"]


def test_a_version_moves_from_creating_to_created_when_it_is_due(emulator, client, image):
    emulator.creation_seconds = 3600
    client.create_image_version(ImageName=image, BaseImage=BASE, ClientToken="t")
    before = client.describe_image_version(ImageName=image, Version=1)
    assert before["ImageVersionStatus"] == "CREATING"
    assert "ContainerImage" not in before
    assert before["LastModifiedTime"] == before["CreationTime"]
    # However long that took.
    seconds = time.time() - before["CreationTime"].timestamp() + 0.05
    emulator.creation_seconds = seconds
    time.sleep(0.2)  # Nobody looks when it is due, and the time that it is modified is that all the same.
    (after,) = client.list_image_versions(ImageName=image)["ImageVersions"]
    assert after["ImageVersionStatus"] == "CREATED"
    took = (after["LastModifiedTime"] - after["CreationTime"]).total_seconds()
    assert took == pytest.approx(seconds, abs=0.01)
    assert "ContainerImage" in client.describe_image_version(ImageName=image)


def test_a_new_creation_time_span_affects_versions_that_are_creating(emulator, client, image):
    emulator.creation_seconds = 3600
    client.create_image_version(ImageName=image, BaseImage=BASE, ClientToken="t")
    assert status_of(client, 1) == "CREATING"
    emulator.creation_seconds = 0
    assert emulator.creation_seconds == 0
    assert status_of(client, 1) == "CREATED"


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_version_is_not_modified_before_it_was_seen_creating(emulator, client, image, seconds):
    emulator.creation_seconds = 3600
    client.create_image_version(ImageName=image, BaseImage=BASE, ClientToken="t")
    time.sleep(0.1)  # the time that it is seen CREATING for, asserted below
    assert status_of(client, 1) == "CREATING"
    emulator.creation_seconds = seconds
    described = client.describe_image_version(ImageName=image, Version=1)
    assert described["ImageVersionStatus"] == "CREATED"
    assert described["LastModifiedTime"] - described["CreationTime"] >= timedelta(seconds=0.1)


@pytest.mark.usefixtures("at_once")
def test_a_base_image_tagged_does_not_exist_fails(client, image):
    client.create_image_version(ImageName=image, BaseImage=MISSING, ClientToken="t")
    described = client.describe_image_version(ImageName=image, Version=1)
    assert described["ImageVersionStatus"] == "CREATE_FAILED"
    assert MISSING in described["FailureReason"]
    assert "ContainerImage" not in described
    (listed,) = client.list_image_versions(ImageName=image)["ImageVersions"]
    assert listed["FailureReason"] == described["FailureReason"]
    client.delete_image_version(ImageName=image, Version=1)


def test_a_base_image_fails_after_a_while(emulator, client, image):
    emulator.creation_seconds = 3600
    client.create_image_version(ImageName=image, BaseImage=MISSING, ClientToken="t")
    described = client.describe_image_version(ImageName=image, Version=1)
    assert (described["ImageVersionStatus"], described.get("FailureReason")) == ("CREATING", None)
    emulator.creation_seconds = 0.01
    wait_until(lambda: status_of(client, 1) == "CREATE_FAILED")
    assert MISSING in client.describe_image_version(ImageName=image, Version=1)["FailureReason"]


def test_fifty_concurrent_creates_make_fifty_versions(client, image):
    def create(index):
        return client.create_image_version(ImageName=image, BaseImage=BASE, ClientToken=f"t{index}")

    with ThreadPoolExecutor(25) as pool:
        arns = {answer["ImageVersionArn"] for answer in pool.map(create, range(50))}
    assert len(arns) == 50
    assert sorted(numbers(client, ImageName=image)) == list(range(1, 51))


@pytest.mark.parametrize(
    ("region", "partition", "suffix"),
    [("eu-west-1", "aws", ""), ("cn-north-1", "aws-cn", ".cn"), ("us-gov-west-1", "aws-us-gov", "")],
)
def test_regions_are_separate_and_have_their_partition(emulator, client, region, partition, suffix):
    emulator.create_versions("Churn", 1, region_name=region)
    there = emulator.client("sagemaker", region_name=region)
    described = there.describe_image_version(ImageName="Churn")
    assert described["ImageVersionArn"] == f"arn:{partition}:sagemaker:{region}:123456789012:image-version/churn/1"
    assert f".dkr.ecr.{region}.amazonaws.com{suffix}/churn@" in described["ContainerImage"]
    assert client.list_images()["Images"] == []


# Aliases


def test_aliases_move_between_versions(client, five):
    client.update_image_version(ImageName=five, Version=1, AliasesToAdd=["prod", "old"], ReleaseNotes="n")
    client.update_image_version(ImageName=five, Alias="prod", AliasesToDelete=["prod"], VendorGuidance="STABLE")
    client.update_image_version(ImageName=five, Version=2, AliasesToAdd=["prod"])
    described = client.describe_image_version(ImageName=five, Alias="prod")
    assert described["Version"] == 2
    first = client.describe_image_version(ImageName=five, Alias="old")
    assert (first["Version"], first["ReleaseNotes"], first["VendorGuidance"]) == (1, "n", "STABLE")
    assert client.list_aliases(ImageName=five)["SageMakerImageVersionAliases"] == ["old", "prod"]
    assert client.list_aliases(ImageName=five, Alias="old")["SageMakerImageVersionAliases"] == ["old"]


def test_an_alias_of_a_deleted_version_is_free_again(emulator, client, five):
    emulator.creation_seconds = 0.05
    client.update_image_version(ImageName=five, Version=3, AliasesToAdd=["prod"])
    client.delete_image_version(ImageName=five, Version=3)
    wait_until(lambda: 3 not in numbers(client, ImageName=five))
    client.update_image_version(ImageName=five, Version=2, AliasesToAdd=["prod"])
    assert client.describe_image_version(ImageName=five, Alias="prod")["Version"] == 2
    client.delete_image_version(ImageName=five, Version=2)
    time.sleep(0.1)
    # Free when the version is gone, also where nobody asked for it in between.
    client.create_image_version(ImageName=five, BaseImage=BASE, ClientToken="t", Aliases=["prod"])
    assert client.list_aliases(ImageName=five, Version=6)["SageMakerImageVersionAliases"] == ["prod"]


@pytest.mark.usefixtures("at_once")
def test_an_alias_of_a_deleted_image_is_free_again(client, five):
    client.update_image_version(ImageName=five, Version=3, AliasesToAdd=["prod"])
    client.delete_image(ImageName=five)
    client.create_image(ImageName=five, RoleArn=ROLE)
    assert client.list_aliases(ImageName=five)["SageMakerImageVersionAliases"] == []
    client.create_image_version(ImageName=five, BaseImage=BASE, ClientToken="t", Aliases=["prod"])
    assert client.describe_image_version(ImageName=five, Alias="prod")["Version"] == 1


def test_aliases_come_in_pages(client, five):
    names = [f"a{index:02}" for index in range(25)]
    client.update_image_version(ImageName=five, Version=1, AliasesToAdd=names)
    first = client.list_aliases(ImageName=five)
    assert first["SageMakerImageVersionAliases"] == names[:10]
    pages = client.get_paginator("list_aliases").paginate(ImageName=five)
    assert [alias for page in pages for alias in page["SageMakerImageVersionAliases"]] == names


@pytest.mark.parametrize("call", ["delete_image_version", "update_image_version"])
@pytest.mark.parametrize("which", [{}, {"Version": 1, "Alias": "x"}])
def test_a_change_names_its_version_in_one_way(client, five, call, which):
    assert error_of(getattr(client, call), ImageName=five, **which)[0] == "ValidationException"


# Lists


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"SortOrder": "ASCENDING"}, [1, 2, 3, 4, 5]),
        ({"SortBy": "VERSION", "SortOrder": "ASCENDING"}, [1, 2, 3, 4, 5]),
        ({"SortBy": "VERSION"}, [5, 4, 3, 2, 1]),
        ({"SortBy": "LAST_MODIFIED_TIME"}, [2, 5, 4, 3, 1]),
        ({"SortBy": "LAST_MODIFIED_TIME", "SortOrder": "ASCENDING"}, [1, 3, 4, 5, 2]),
        ({"CreationTimeAfter": 2}, [5, 4, 3]),
        ({"CreationTimeBefore": 2}, [3, 2, 1]),
        ({"CreationTimeAfter": 1, "CreationTimeBefore": 3}, [4, 3, 2]),
        ({"CreationTimeAfter": 2, "CreationTimeBefore": 2, "SortBy": "VERSION"}, [3]),
        ({"LastModifiedTimeAfter": 4}, [5, 2]),
        ({"LastModifiedTimeBefore": 2}, [3, 1]),
        ({"LastModifiedTimeAfter": 4, "SortBy": "LAST_MODIFIED_TIME"}, [2, 5]),
        ({"CreationTimeBefore": 3, "LastModifiedTimeAfter": 2, "SortOrder": "ASCENDING"}, [2, 3, 4]),
        ({"CreationTimeAfter": 9}, []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.usefixtures("five")
def test_versions_are_listed_in_order_within_inclusive_bounds(emulator, client, query, expected, size):
    emulator.set_version("churn", 2, last_modified_time=START + timedelta(days=9))
    days = {k: START + timedelta(days=v) if isinstance(v, int) else v for k, v in query.items()}
    assert numbers(client, ImageName="churn", MaxResults=size, **days) == expected


def test_versions_of_one_moment_are_ordered_by_number(emulator, client):
    emulator.create_versions("churn", 7, start_time=START, spacing_seconds=0)
    assert numbers(client, ImageName="churn", MaxResults=2) == [7, 6, 5, 4, 3, 2, 1]
    assert numbers(client, ImageName="churn", MaxResults=2, SortOrder="ASCENDING") == [1, 2, 3, 4, 5, 6, 7]


def test_a_token_keeps_its_place_when_versions_come_and_go(emulator, client, five):
    emulator.creation_seconds = 0
    first = client.list_image_versions(ImageName=five, MaxResults=2)
    client.delete_image_version(ImageName=five, Version=4)
    wait_until(lambda: 4 not in numbers(client, ImageName=five))
    client.create_image_version(ImageName=five, BaseImage=BASE, ClientToken="t")
    rest = client.list_image_versions(ImageName=five, NextToken=first["NextToken"], MaxResults=100)
    assert [version["Version"] for version in rest["ImageVersions"]] == [3, 2, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"ImageName": "other"},
        {"SortOrder": "ASCENDING"},
        {"SortBy": "VERSION"},
        {"CreationTimeAfter": START},
        {"NextToken": "garbage"},
        {"NextToken": "WzEsMiwzXQ=="},
    ],
)
def test_a_token_is_good_for_its_query_only(emulator, client, five, other):
    emulator.create_versions("other", 5)
    token = client.list_image_versions(ImageName=five, MaxResults=2)["NextToken"]
    again = {"ImageName": five, "NextToken": token, **other}
    assert error_of(client.list_image_versions, **again)[0] == "ValidationException"


@pytest.mark.parametrize("call", ["list_images", "list_image_versions", "list_aliases"])
def test_an_empty_token_is_the_first_page(emulator, client, five, call):
    client.update_image_version(ImageName=five, Version=1, AliasesToAdd=["a", "b"])
    emulator.create_versions("other", 1)
    query = {"MaxResults": 1} if call == "list_images" else {"MaxResults": 1, "ImageName": five}
    first, again = (getattr(client, call)(**query, **token) for token in ({}, {"NextToken": ""}))
    del first["ResponseMetadata"], again["ResponseMetadata"]
    assert again == first
    assert first["NextToken"]


# Validation


@pytest.mark.parametrize(
    ("call", "parameters", "problem"),
    [
        (
            "list_image_versions",
            {"ImageName": "churn", "MaxResults": 101},
            (
                "Value '101' at 'maxResults' failed to satisfy constraint: "
                "Member must have value less than or equal to 100"
            ),
        ),
        (
            "list_image_versions",
            {"ImageName": "churn", "MaxResults": 0},
            "Value '0' at 'maxResults' failed to satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            "list_image_versions",
            {"ImageName": "churn", "SortBy": "STATUS"},
            (
                "Value 'STATUS' at 'sortBy' failed to satisfy constraint: "
                "Member must satisfy enum value set: [CREATION_TIME, LAST_MODIFIED_TIME, VERSION]"
            ),
        ),
        (
            "describe_image",
            {"ImageName": "-churn"},
            (
                "Value '-churn' at 'imageName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9]([-.]?[a-zA-Z0-9]){0,62}"
            ),
        ),
        (
            "describe_image",
            {},
            "Value null at 'imageName' failed to satisfy constraint: Member must not be null",
        ),
        (
            "create_image",
            {"ImageName": "churn", "RoleArn": ROLE, "Tags": [{"Key": "k" * 129, "Value": ""}]},
            (
                f"Value '{'k' * 129}' at 'tags.1.member.key' failed to satisfy constraint: "
                "Member must have length less than or equal to 128"
            ),
        ),
        (
            "update_image_version",
            {"ImageName": "churn", "Version": 1, "AliasesToAdd": ["ok", "not ok"]},
            (
                "Value '[ok, not ok]' at 'aliasesToAdd' failed to satisfy constraint: Member must satisfy constraint: "
                "[Member must have length less than or equal to 128, "
                "Member must have length greater than or equal to 1, "
                "Member must satisfy regular expression pattern: (?!^[.-])^([a-zA-Z0-9-_.]+)]"
            ),
        ),
    ],
)
def test_the_services_limits_are_checked_in_its_words(client, call, parameters, problem):
    code, message = error_of(getattr(client, call), **parameters)
    assert code == "ValidationException"
    assert message == f"1 validation error detected: {problem}"


def test_all_violations_are_reported_at_once(client):
    _, message = error_of(client.list_image_versions, ImageName="a b", MaxResults=0, SortOrder="UP")
    assert message.startswith("3 validation errors detected: ")


@pytest.mark.parametrize("body", [b'{"ImageName": 7}', b'{"ImageName": "a", "MaxResults": "7"}', b"{"])
def test_a_body_of_other_types_is_a_serialization_error(emulator, body):
    request = urllib.request.Request(  # noqa: S310 - the emulator's http URL
        emulator.endpoint_url,
        body,
        {
            "X-Amz-Target": "SageMaker.ListImageVersions",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/sagemaker/aws4_request, "
            "SignedHeaders=host, Signature=0",
        },
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)  # noqa: S310 - the emulator's http URL
    assert caught.value.code == 400
    assert json.load(caught.value)["__type"] == "SerializationException"


# The emulator's own interface


@pytest.mark.usefixtures("at_once")
def test_each_operation_answers_in_the_form_of_the_model(emulator, client):
    """Each test compares the answers with botocore's model; here every operation answers with all it has."""
    version = {"BaseImage": BASE, "JobType": "INFERENCE", "MLFramework": "PyTorch 2.4", "Processor": "CPU"}
    version |= {"ProgrammingLang": "Python 3.11", "Horovod": True, "ReleaseNotes": "n", "VendorGuidance": "STABLE"}
    client.create_image(ImageName="Churn", RoleArn=ROLE, Description="d", DisplayName="Churn")
    client.create_image_version(ImageName="Churn", ClientToken="1", Aliases=["a", "b"], **version)
    client.create_image_version(ImageName="Churn", ClientToken="2", BaseImage=MISSING)
    client.update_image_version(ImageName="Churn", Alias="a", AliasesToAdd=["c"])
    client.update_image(ImageName="Churn", RoleArn=MISSING_ROLE)
    assert client.describe_image(ImageName="Churn").keys() > {"Description", "DisplayName", "FailureReason"}
    assert client.describe_image_version(ImageName="Churn", Version=1).keys() > {*version, "ContainerImage"}
    assert "FailureReason" in client.describe_image_version(ImageName="Churn")
    client.create_image(ImageName="other", RoleArn=ROLE)
    lists = [
        client.list_images(MaxResults=1),
        client.list_image_versions(ImageName="Churn", MaxResults=1),
        client.list_aliases(ImageName="Churn", MaxResults=1),
    ]
    assert all(page["NextToken"] for page in lists)
    client.delete_image_version(ImageName="Churn", Version=2)
    client.delete_image(ImageName="Churn")
    assert {call["operation"] for call in emulator.calls() if call["status"] == 200} == set(OPERATIONS)


@pytest.mark.beyond_model
def test_a_status_set_by_hand_stays(emulator, client, image):
    emulator.creation_seconds = 0.02
    client.create_image_version(ImageName=image, BaseImage=BASE, ClientToken="t")
    emulator.set_version(image, 1, status="CREATE_FAILED", failure_reason="no disk")
    time.sleep(0.05)  # longer than it would be CREATING
    described = client.describe_image_version(ImageName=image, Version=1)
    assert (described["ImageVersionStatus"], described["FailureReason"]) == ("CREATE_FAILED", "no disk")
    emulator.set_version(image, 1, status="SOMETHING_NEW")
    assert status_of(client, 1) == "SOMETHING_NEW"
    moment = START + timedelta(milliseconds=123)
    emulator.set_version(image, 1, creation_time=START, last_modified_time=moment)
    (listed,) = client.list_image_versions(ImageName=image)["ImageVersions"]
    assert (listed["CreationTime"], listed["LastModifiedTime"]) == (START, moment)


@pytest.mark.beyond_model
def test_a_status_of_an_image_set_by_hand_stays(emulator, client, image):
    emulator.creation_seconds = 0
    emulator.set_image(image, status="DELETE_FAILED", failure_reason="in use by a domain")
    described = client.describe_image(ImageName=image)
    assert (described["ImageStatus"], described["FailureReason"]) == ("DELETE_FAILED", "in use by a domain")
    emulator.set_image(image, status="CREATING")
    assert [image_status(client) for _ in range(3)] == ["CREATING"] * 3
    emulator.set_image(image, status="SOMETHING_NEW")
    assert image_status(client) == "SOMETHING_NEW"
    emulator.set_image(image, creation_time=START, last_modified_time=START + timedelta(milliseconds=123))
    (listed,) = client.list_images()["Images"]
    assert (listed["CreationTime"], listed["LastModifiedTime"]) == (START, START + timedelta(milliseconds=123))
    client.delete_image(ImageName=image)
    assert image_status(client) is None


def test_seeded_versions_stay_in_their_status_and_numbers_go_on(emulator, client):
    emulator.creation_seconds = 0
    assert emulator.create_versions("churn", 2, status="CREATING") == [1, 2]
    assert emulator.create_versions("churn", 2) == [3, 4]
    assert [status_of(client, number) for number in (1, 2, 3, 4)] == ["CREATING"] * 2 + ["CREATED"] * 2


def test_setting_what_is_not_there_is_an_error(emulator):
    with pytest.raises(ValueError, match=r"Image with ARN .*:image/churn does not exist"):
        emulator.set_image("churn", status="CREATED")
    with pytest.raises(ValueError, match=r"Image with ARN .*:image/churn does not exist"):
        emulator.set_version("churn", 1, status="CREATED")
    emulator.create_versions("churn", 1)
    with pytest.raises(ValueError, match=r"ImageVersion with ARN .*:image-version/churn/2 does not exist"):
        emulator.set_version("churn", 2, status="CREATED")


def test_calls_are_logged_as_received(emulator, client, five):
    client.list_image_versions(ImageName=five, MaxResults=7)
    error_of(client.describe_image, ImageName="other")
    (call,) = emulator.calls("ListImageVersions")
    assert call["parameters"] == {"ImageName": "churn", "MaxResults": 7}
    assert (call["region"], call["access_key_id"], call["status"]) == ("us-east-1", "testing", 200)
    assert "Boto3" in call["user_agent"]
    assert abs(call["time"] - time.time()) < 5
    assert [call["status"] for call in emulator.calls(image_name="other")] == [400]
    assert [call["operation"] for call in emulator.calls()] == ["ListImageVersions", "DescribeImage"]


@pytest.mark.usefixtures("five")
def test_reset_forgets_everything(emulator, client):
    at_first = emulator.creation_seconds
    emulator.creation_seconds = 77
    emulator.image_quota = 7
    emulator.add_fault("throttling", operation="ListImages", times=None)
    error_of(client.list_images)
    emulator.reset()
    assert client.list_images()["Images"] == []
    assert len(emulator.calls()) == 1
    assert emulator.creation_seconds == at_first
    assert emulator.image_quota == IMAGE_QUOTA


def test_connect_returns_the_same_interface(emulator, client):
    remote = Emulator.connect(emulator.endpoint_url + "/")
    remote.create_versions("churn", 3)
    assert numbers(client, ImageName="churn") == [3, 2, 1]
    assert remote.client("sagemaker").list_images()["Images"]
    assert [call["operation"] for call in remote.calls()] == ["ListImageVersions", "ListImages"]
    assert remote.airflow_connection() == emulator.airflow_connection()


def test_the_airflow_connection_points_here(emulator):
    assert json.loads(emulator.airflow_connection("eu-west-1")) == {
        "conn_type": "aws",
        "login": "testing",
        "password": "testing",
        "extra": {"endpoint_url": emulator.endpoint_url, "region_name": "eu-west-1"},
    }


def test_motos_other_services_are_there(emulator, monkeypatch):
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", BUILTIN_HANDLERS)  # S3 has many
    s3 = Emulator.connect(emulator.endpoint_url).client("s3")
    s3.create_bucket(Bucket="emulator")
    s3.put_object(Bucket="emulator", Key="health", Body=b"x" * 300_000)
    assert s3.get_object(Bucket="emulator", Key="health")["Body"].read() == b"x" * 300_000
    assert s3.head_object(Bucket="emulator", Key="health")["ContentLength"] == 300_000
    assert emulator.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert emulator.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []


def test_an_operation_that_moto_lacks_is_an_internal_failure(client):
    with pytest.raises(ClientError) as caught:
        client.list_hubs()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "list_hubs" in caught.value.response["Error"]["Message"]


def test_health_answers_a_plain_get(emulator):
    with urllib.request.urlopen(emulator.endpoint_url + "/emulator/health") as answer:  # noqa: S310 - ours
        assert json.load(answer) == {"status": "ok"}


def test_connections_are_kept_open(emulator):
    connection = http.client.HTTPConnection(urlsplit(emulator.endpoint_url).netloc, timeout=5)
    sockets = set()
    for path in ("/emulator/health", "/moto-api/data.json", "/emulator/health"):
        connection.request("GET", path)
        connection.getresponse().read()
        sockets.add(connection.sock)
    assert len(sockets) == 1
    assert None not in sockets
    connection.close()


def test_transitions_can_be_set_through_motos_own_route(emulator, client, image):
    transition = {"progression": "manual", "times": 1}
    body = json.dumps({"model_name": VERSION_MODEL, "transition": transition}).encode()
    url = emulator.endpoint_url + "/moto-api/state-manager/set-transition"
    urllib.request.urlopen(url, body).close()  # noqa: S310 - the emulator's http URL
    client.create_image_version(ImageName=image, BaseImage=BASE, ClientToken="t")
    assert [status_of(client, 1) for _ in range(2)] == ["CREATED", "CREATED"]


def test_a_stopped_emulator_answers_nobody():
    other = Emulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = other.endpoint_url
    other.start()
    client = other.client("sagemaker", config=ONCE)
    client.list_images()
    other.stop()
    with pytest.raises(Exception, match=r"Could not connect|Connection was closed|Connection reset"):
        client.list_images()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org"])  # noqa: S104 - to be refused
def test_an_address_that_others_reach_is_refused(host):
    with pytest.raises(ValueError, match="loopback"):
        Emulator(host=host)


def test_a_page_costs_the_same_however_many_versions_there_are(emulator, client):
    paginator = client.get_paginator("list_image_versions")

    def cost(image):
        begin = time.process_time()
        pages = paginator.paginate(ImageName=image, PaginationConfig={"PageSize": 30, "MaxItems": 300})
        assert sum(len(page["ImageVersions"]) for page in pages) == 300
        return time.process_time() - begin

    for image, count in (("small", 500), ("large", 10_000)):
        emulator.create_versions(image, count)
    # A scan or sort of all versions per page would take many times as much.
    assert min(cost("large") for _ in range(3)) < 4 * min(cost("small") for _ in range(3))


# In-process


def test_mock_aws_has_the_image_operations_after_install(emulator):
    emulator.reset()
    for model in (VERSION_MODEL, IMAGE_DELETION_MODEL):
        state_manager.unset_transition(model)
    install()
    install()
    with mock_aws():
        client = boto3.client("sagemaker", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_image(ImageName="churn", RoleArn=ROLE)
        client.create_image_version(ImageName="churn", BaseImage=BASE)
        assert status_of(client, 1) == "CREATED"
        state_manager.set_transition(VERSION_MODEL, {"progression": "manual", "times": 2})
        client.create_image_version(ImageName="churn", BaseImage=BASE)
        assert [status_of(client, 2) for _ in range(3)] == ["CREATING", "CREATED", "CREATED"]
        state_manager.unset_transition(VERSION_MODEL)
        client.delete_image(ImageName="churn")
        assert [image_status(client) for _ in range(2)] == ["DELETING", None]
        client.create_image(ImageName="churn", RoleArn=ROLE)
        client.delete_image(ImageName="churn")
        # What waits for the name, and asks for nothing else, gets it as well.
        assert error_of(client.create_image, ImageName="churn", RoleArn=ROLE)[0] == "ResourceInUse"
        client.create_image(ImageName="churn", RoleArn=ROLE)
    with mock_aws():
        client = boto3.client("sagemaker", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        assert client.list_images()["Images"] == []


# --- State changes ---------------------------------------------------------------------------------------


@pytest.fixture
def sent(emulator):
    """Send the events to a queue; return a function that returns the messages since its last call."""
    sqs = emulator.client("sqs")
    queue = sqs.create_queue(QueueName="image-versions")["QueueUrl"]
    emulator.send_state_changes_to(queue)

    def receive(count):
        events, deadline = [], time.monotonic() + 10
        while len(events) < count:
            assert time.monotonic() < deadline, events
            for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", ()):
                events.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        assert "Messages" not in sqs.receive_message(QueueUrl=queue)
        return events

    return receive


def test_each_change_of_a_version_is_sent_several_times_in_the_documented_shape(emulator, sent):
    emulator.creation_seconds = 0.1
    client = emulator.client("sagemaker")
    emulator.create_versions("My-image", 1)
    assert len(sent(2)) == 2
    client.create_image_version(ImageName="My-image", BaseImage="repository:2", ClientToken="t" * 36)
    # Nothing reads the version.
    events = sent(4)
    details = [event["detail"] for event in events]
    assert [detail["ImageVersionStatus"] for detail in details] == ["CREATING", "Creating", "CREATED", "Created"]
    assert {detail["ImageArn"] for detail in details} == {"arn:aws:sagemaker:us-east-1:123456789012:image/my-image"}
    assert [repr(detail["Version"]) for detail in details] == ["2.0"] * 4
    (arn,) = {detail["ImageVersionArn"] for detail in details}
    assert re.fullmatch(r"arn:aws:sagemaker:us-east-1:123456789012:image-version/[0-9a-f-]{36}", arn)
    assert {(event["source"], event["detail-type"], event["region"]) for event in events} == {
        ("aws.sagemaker", "SageMaker Image Version State Change", "us-east-1")
    }
    # What changes no status is no event.
    client.update_image_version(ImageName="My-image", Version=2, AliasesToAdd=["prod"])
    emulator.set_version("My-image", 2, status="CREATE_FAILED")
    assert [event["detail"]["ImageVersionStatus"] for event in sent(2)] == ["CREATE_FAILED", "CreateFailed"]


def test_nothing_is_sent_any_more_without_a_queue(emulator, sent):
    emulator.send_state_changes_to(None)
    emulator.create_versions("my-image", 1)
    assert sent(0) == []


def test_a_queue_that_is_deleted_disturbs_no_call(emulator, sent):
    sqs = emulator.client("sqs")
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName="image-versions")["QueueUrl"])
    assert emulator.create_versions("my-image", 1) == [1]


def test_a_queue_that_does_not_exist_is_refused(emulator):
    with pytest.raises(ValueError, match=r"Queue '.*/missing' does not exist in region 'eu-west-1'"):
        emulator.send_state_changes_to(f"{emulator.endpoint_url}/123456789012/missing", "eu-west-1")


def test_a_reset_ends_the_events(emulator, sent):
    emulator.reset()
    assert emulator.create_versions("my-image", 1) == [1]
    assert emulator.client("sqs").list_queues().get("QueueUrls", []) == []
    assert not [each for each in threading.enumerate() if each.name == "sagemaker-image-state-changes"]
