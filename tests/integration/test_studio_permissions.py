"""The actions for Studio in docs/security.md are those of the calls that are made, no more and no fewer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import (
    SageMakerDeleteImageOperator,
    SageMakerDeleteImageVersionOperator,
    SageMakerImageVersionUsageOperator,
    SageMakerPruneImageVersionsOperator,
    SageMakerRolloutImageVersionOperator,
)
from tests.studio import CONFIG, custom_image

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
IMAGE = "churn"
ARN = f"arn:aws:sagemaker:us-east-1:123456789012:image/{IMAGE}"


def listed(label):
    (cell,) = re.findall(rf"^\| {re.escape(label)} \| (.+) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`(?:ecr:)?([A-Z]\w+)`", cell))


USAGE = listed("hook: `find_image_version_usage`, `SageMakerImageVersionUsageOperator`")
ROLLOUT = "`SageMakerRolloutImageVersionOperator`, "


@pytest.fixture
def domain(studio, connection, context):
    """A domain in which something names the image in each way."""

    class Store(dict):
        def set(self, key, value):
            self[key] = value

    context["task_state_store"] = Store()
    studio.image(IMAGE, 4, aliases={2: ["1.0"]})
    studio.config()
    alias = {"SageMakerImageArn": ARN, "SageMakerImageVersionAlias": "1.0"}
    domain = studio.domain(JupyterLabAppSettings={"CustomImages": [custom_image(IMAGE)], "DefaultResourceSpec": alias})
    studio.profile(domain)
    studio.space(domain)
    return domain


@pytest.fixture
def called(emulator, domain, run):
    """Run a task; return the operations that it called."""

    def call(operator):
        before = len(emulator.calls())
        run(operator)
        return {call["operation"] for call in emulator.calls()[before:]}

    return call


def rollout(domain, **arguments):
    given = {"version": 3, "app_image_config_name": CONFIG, "report_remaining": False, "check_interval": 0.2}
    return SageMakerRolloutImageVersionOperator(
        task_id="rollout", image_name=IMAGE, domain_id=domain, **{**given, **arguments}
    )


def test_usage(called):
    assert called(SageMakerImageVersionUsageOperator(task_id="usage", image_name=IMAGE)) == USAGE


def test_comparison(domain, emulator):
    before = len(emulator.calls())
    SageMakerImageVersionsHook().compare_image_versions(IMAGE, 1, "1.0")
    calls = {call["operation"] for call in emulator.calls()[before:]}
    assert calls == listed("hook: `compare_image_versions`")


def test_rollout_to_a_domain_and_back(called, domain, run, emulator):
    needed = listed(f"{ROLLOUT}domain")
    assert called(rollout(domain)) == needed
    previous = run(rollout(domain, version=4))["previous"]
    assert called(rollout(domain, version=None, app_image_config_name=None, restore=previous)) == needed


def test_rollout_to_a_user_profile(called, domain):
    assert called(rollout(domain, user_profile_name="ann")) == listed(f"{ROLLOUT}user profile")


def test_rollout_with_more(called, domain):
    needed = listed(f"{ROLLOUT}domain")
    # An entry without a number counts for the newest version, which is higher here.
    newer = rollout(domain, version=4, only_if_newer=True)
    assert called(newer) - needed == listed(f"{ROLLOUT}`only_if_newer`")
    assert called(rollout(domain, report_remaining=True)) - needed <= listed(f"{ROLLOUT}`report_remaining`")


def test_cleaning_up(called, domain):
    prune = SageMakerPruneImageVersionsOperator(task_id="prune", image_name=IMAGE, keep_newest=1, keep_used=True)
    assert called(prune) - USAGE == {"ListAliases", "DeleteImageVersion"}
    delete = SageMakerDeleteImageVersionOperator(task_id="delete", image_name=IMAGE, version=3, refuse_if_used=True)
    assert called(delete) - USAGE <= {"DescribeImageVersion", "DeleteImageVersion"}
    image = SageMakerDeleteImageOperator(
        task_id="delete", image_name=IMAGE, delete_if_aliased=True, refuse_if_used=["apps"]
    )
    assert called(image) - USAGE == {"DeleteImage"}


def allowed(page, heading):
    """The actions of the policy below a heading."""
    policy = json.loads(re.search(rf"^#+ {heading}\n.*?```json\n(.*?)```", page, re.DOTALL | re.MULTILINE)[1])
    actions = [statement["Action"] for statement in policy["Statement"]]
    return sorted(action for each in actions for action in ([each] if isinstance(each, str) else each))


def test_the_policy_allows_rolling_out_to_a_domain_and_no_more():
    needed = [listed(f"{ROLLOUT}{label}") for label in ("domain", "`only_if_newer`", "`report_remaining`")]
    assert allowed(PAGE, "Studio") == sorted(f"sagemaker:{action}" for action in set().union(*needed))


def test_the_policy_of_the_clean_up_guide_allows_pruning_and_no_more():
    page = (Path(__file__).parents[2] / "docs" / "cleanup.md").read_text()
    needed = {*USAGE, "ListAliases", "DeleteImageVersion", "ListImages"}
    found = allowed(page, "Allow the task to read and delete")
    assert sorted(set(found)) == sorted(f"sagemaker:{action}" for action in needed)
    assert {action for action in found if found.count(action) > 1} == {"sagemaker:ListAliases"}
