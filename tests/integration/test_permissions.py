"""The permissions in docs/security.md are those of the calls that each class makes, no more and no fewer."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import botocore.exceptions
import pytest

from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.errors import SageMakerImageOperationError
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.model import (
    CreateImageRequest,
    CreateImageVersionRequest,
    UpdateImageRequest,
    UpdateImageVersionRequest,
)
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerDeleteImageOperator,
    SageMakerDeleteImageVersionOperator,
    SageMakerListImageVersionsOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
    SageMakerUpdateImageVersionOperator,
)
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
MISSING_ROLE = "arn:aws:iam::123456789012:role/does-not-exist"
IMAGE, ROLE, BASE = "my-image", "arn:aws:iam::123456789012:role/sagemaker", "my-repository:1"
# What AWS's service authorization reference says an action applies to.
RESOURCES = {
    "CreateImage": {"image"},
    "CreateImageVersion": {"image"},
    "DeleteImage": {"image"},
    "DeleteImageVersion": {"image-version"},
    "DescribeImage": {"image"},
    "DescribeImageVersion": {"image-version"},
    "ListAliases": {"image", "image-version"},
    "ListImageVersions": {"image"},
    # It has no resource, so a policy allows it on *.
    "ListImages": {"image"},
    "UpdateImage": {"image"},
    "UpdateImageVersion": {"image-version"},
}
QUICK = {"check_interval": 0.02}


def table():
    """For each line of the table: what it is for, and on what it allows which actions."""
    lines, last = {}, ""
    for label, *cells in re.findall(r"^\| (hook: .+?|with .+?|`.+?) \|(.*?)\|(.*?)\|$", PAGE, re.MULTILINE):
        last = last if label.startswith("with ") else label
        images, versions = (set(re.findall(r"`([A-Z]\w+)`", cell)) for cell in cells)
        lines[last if last == label else f"{last} {label}"] = {"image": images, "image-version": versions}
    return lines


TABLE = table()


def hook_calls(call):
    return lambda _: call(SageMakerImageVersionsHook())


def operator(kind, **arguments):
    return lambda run: run(kind(task_id="task", image_name=IMAGE, **arguments))


def watcher(**arguments):
    def watch(_):
        pytest.importorskip("airflow.sdk", reason="Airflow 2 has no asset watchers")

        async def first():
            trigger = image_version_asset(IMAGE, start_from="earliest", **arguments).watchers[0].trigger
            events = trigger.run()
            await anext(events)
            await events.aclose()

        asyncio.run(first())

    return watch


def faulty(kind, operation, step):
    def act(run):
        run.emulator.add_fault(kind, operation=operation)
        step(run)

    return act


def refused(step):
    def act(run):
        with pytest.raises(botocore.exceptions.ClientError):
            step(run)

    return act


def deleted_without_aliases(run):
    run.emulator.create_versions("other", 1)
    run(SageMakerDeleteImageOperator(task_id="task", image_name="other", **QUICK))


def recreated(run):
    run.emulator.client("sagemaker").create_image(ImageName="failed", RoleArn=MISSING_ROLE)
    run(CREATE(task_id="task", image_name="failed", role_arn=ROLE, action_if_image_exists="recreate", **QUICK))


def retried_after_failure(run):
    """The first try's version fails while it has the alias; a retry takes the alias back and makes another version."""
    create = operator(CREATE_VERSION, base_image="r:does-not-exist", aliases=["new"], **QUICK)
    with pytest.raises(SageMakerImageOperationError):
        create(run)
    run.context["ti"].try_number = 2
    with pytest.raises(SageMakerImageOperationError):
        create(run)


CREATE = SageMakerCreateImageOperator
CREATE_VERSION = SageMakerCreateImageVersionOperator
SENSOR, SENSOR_LABEL = SageMakerImageVersionSensor, "`SageMakerImageVersionSensor`"
WATCHER = "`image_version_asset`, `SageMakerImageVersionEventTrigger`"
# What each line is for, done in every way that calls something else; on an image with 150 versions.
SCENARIOS = {
    "hook: `iter_image_versions`, `list_image_versions`": [hook_calls(lambda hook: hook.list_image_versions(IMAGE))],
    "hook: `describe_image_version`": [hook_calls(lambda hook: hook.describe_image_version(IMAGE, version=1))],
    "hook: `list_aliases`": [hook_calls(lambda hook: hook.list_aliases(IMAGE))],
    "hook: `add_details`": [
        hook_calls(lambda hook: hook.add_details(IMAGE, {"Version": 1})),
    ],
    "hook: `iter_images`": [hook_calls(lambda hook: list(hook.iter_images()))],
    "hook: `create_image`": [hook_calls(lambda hook: hook.create_image(CreateImageRequest("other", ROLE)))],
    "hook: `describe_image`": [hook_calls(lambda hook: hook.describe_image(IMAGE))],
    "hook: `update_image`": [hook_calls(lambda hook: hook.update_image(UpdateImageRequest(IMAGE, ROLE)))],
    "hook: `delete_image`": [hook_calls(lambda hook: hook.delete_image(IMAGE))],
    "hook: `create_image_version`": [
        hook_calls(lambda hook: hook.create_image_version(CreateImageVersionRequest(IMAGE, BASE), "token"))
    ],
    "hook: `update_image_version`": [
        hook_calls(lambda hook: hook.update_image_version(UpdateImageVersionRequest(IMAGE, 1, release_notes="x")))
    ],
    "hook: `delete_image_version`": [hook_calls(lambda hook: hook.delete_image_version(IMAGE, 1))],
    "`SageMakerListImageVersionsOperator`": [operator(SageMakerListImageVersionsOperator)],
    "`SageMakerListImageVersionsOperator` with `include_details`": [
        operator(SageMakerListImageVersionsOperator, include_details=True, limit=1)
    ],
    SENSOR_LABEL: [
        operator(SENSOR, **wait, **mode)
        for wait in ({}, {"version": 1}, {"after_version": 1}, {"created_after": "2020-01-01T00:00:00Z"})
        for mode in ({}, {"deferrable": True})
    ],
    f"{SENSOR_LABEL} with `alias`": [operator(SENSOR, alias="prod", **mode) for mode in ({}, {"deferrable": True})],
    f"{SENSOR_LABEL} with `include_details`": [
        operator(SENSOR, include_details=True, **mode) for mode in ({}, {"deferrable": True})
    ],
    WATCHER: [watcher()],
    f"{WATCHER} with `include_details`": [watcher(include_details=True)],
    f"{WATCHER} with `alias`": [watcher(alias="prod")],
    "`SageMakerCreateImageOperator`": [
        operator(CREATE, role_arn=ROLE),
        lambda run: run(CREATE(task_id="task", image_name="other", role_arn=ROLE, **QUICK)),
    ],
    '`SageMakerCreateImageOperator` with `action_if_image_exists="update"`': [
        operator(CREATE, role_arn=ROLE, action_if_image_exists="update", **QUICK)
    ],
    '`SageMakerCreateImageOperator` with `action_if_image_exists="recreate"`': [recreated],
    "`SageMakerDeleteImageOperator`": [deleted_without_aliases],
    "`SageMakerDeleteImageOperator` with `delete_if_aliased`": [
        operator(SageMakerDeleteImageOperator, delete_if_aliased=True, **QUICK)
    ],
    "`SageMakerCreateImageVersionOperator`": [
        operator(CREATE_VERSION, base_image=BASE, **QUICK),
        operator(CREATE_VERSION, base_image=BASE, wait_for_completion=False),
        faulty("in_use", "CreateImageVersion", operator(CREATE_VERSION, base_image=f"{BASE}2", **QUICK)),
    ],
    "`SageMakerCreateImageVersionOperator` with `deferrable`": [
        faulty("in_use", "CreateImageVersion", operator(CREATE_VERSION, base_image=BASE, deferrable=True, **QUICK)),
    ],
    "`SageMakerCreateImageVersionOperator` with `aliases`": [
        faulty("in_use", "CreateImageVersion", retried_after_failure),
    ],
    "`SageMakerUpdateImageVersionOperator`": [
        operator(SageMakerUpdateImageVersionOperator, version=2, aliases_to_delete=["prod"], aliases_to_add=["x"]),
        faulty(
            "invalid_state",
            "UpdateImageVersion",
            refused(operator(SageMakerUpdateImageVersionOperator, version=2, release_notes="y")),
        ),
        operator(SageMakerUpdateImageVersionOperator, version=2, release_notes="x"),
    ],
    "`SageMakerPromoteImageVersionOperator`": [
        operator(SageMakerPromoteImageVersionOperator, version=2, aliases=["prod"]),
    ],
    "`SageMakerDeleteImageVersionOperator`": [
        operator(SageMakerDeleteImageVersionOperator, version=3, **QUICK),
        operator(SageMakerDeleteImageVersionOperator, alias="prod", **QUICK),
    ],
    "`SageMakerPruneImageVersionsOperator`": [
        faulty("in_use", "DeleteImageVersion", operator(SageMakerPruneImageVersionsOperator, keep_newest=148)),
    ],
}


def test_the_table_has_a_line_for_each_scenario():
    assert list(TABLE) == list(SCENARIOS)


@pytest.mark.parametrize("label", SCENARIOS)
def test_the_permissions_are_those_of_the_calls(label, emulator, connection, run):
    emulator.creation_seconds = 0.05
    emulator.create_versions(IMAGE, 150)
    emulator.client("sagemaker").update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
    run.emulator = emulator
    before = len(emulator.calls())
    for step in SCENARIOS[label]:
        step(run)
    calls = [call for call in emulator.calls()[before:] if "Airflow" in call["user_agent"]]
    called = {call["operation"] for call in calls}
    assert called == TABLE[label]["image"] | TABLE[label]["image-version"]


@pytest.mark.parametrize("label", SCENARIOS)
def test_the_permissions_are_on_what_aws_says_they_apply_to(label):
    for resource, actions in TABLE[label].items():
        assert actions == {
            action for action in TABLE[label]["image"] | TABLE[label]["image-version"] if resource in RESOURCES[action]
        }


def allowed(*policies):
    given = {"image": set(), "image-version": set()}
    for statement in (statement for policy in policies for statement in policy["Statement"]):
        resource = re.search(r":(image|image-version)/my-image", statement["Resource"])[1]
        given[resource] |= {action.removeprefix("sagemaker:") for action in statement["Action"]}
    return given


def needed(*labels):
    lines = [line for label, line in TABLE.items() if label.startswith(labels)]
    return {resource: set().union(*(line[resource] for line in lines)) for resource in ("image", "image-version")}


def test_the_policies_allow_what_the_classes_need_and_no_more():
    reading, changing, _studio = map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    readers = ("`SageMakerListImageVersionsOperator`", SENSOR_LABEL, WATCHER)
    changers = (
        "`SageMakerCreateImageVersion",
        "`SageMakerUpdate",
        "`SageMakerPromote",
        "`SageMakerDeleteImageVersion",
        "`SageMakerPrune",
    )
    assert allowed(reading) == needed(*readers)
    assert allowed(reading, changing) == needed(*readers, *changers)
