"""``make contract``, with an emulator in place of the account."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.contract.account import BASE_IMAGE, PREFIX, ROLE_ARN
from tests.contract.conftest import environment
from tests.contract.statement import HERE
from tests.studio import Studio

pytestmark = pytest.mark.e2e

ROOT = HERE.parents[1]
RUN = ("run", "--role-arn", ROLE_ARN, "--base-image", BASE_IMAGE, "--interval", "0.1")


@pytest.fixture
def emulator(distant_emulator):
    """An emulator in a process of its own, as the rehearsal has one in its process."""
    distant_emulator.reset()
    # Long enough to see that something is CREATING, also on a busy machine.
    distant_emulator.creation_seconds = 0.5
    return distant_emulator


@pytest.fixture
def start(emulator, tmp_path, cleanup):
    """Start the command."""

    def popen(*arguments, stdin=subprocess.DEVNULL):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment(emulator.endpoint_url), "CONTRACT_OUT": str(tmp_path)},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        cleanup.callback(process.wait)
        cleanup.callback(process.kill)
        return process

    return popen


def left(emulator):
    """Return the names that the command left in the emulator."""
    sagemaker, queues, rules = (emulator.client(service) for service in ("sagemaker", "sqs", "events"))
    return [
        *(image["ImageName"] for image in sagemaker.list_images(NameContains=PREFIX, MaxResults=100)["Images"]),
        *(each["AppImageConfigName"] for each in sagemaker.list_app_image_configs()["AppImageConfigs"]),
        *(profile["UserProfileName"] for profile in sagemaker.list_user_profiles()["UserProfiles"]),
        *queues.list_queues(QueueNamePrefix=PREFIX).get("QueueUrls", ()),
        *(rule["Name"] for rule in rules.list_rules(NamePrefix=PREFIX)["Rules"]),
    ]


def read_until(process, end):
    """Return the command's output up to a text without a line break at its end."""
    output = ""
    while not output.endswith(end):
        character = process.stdout.read(1)
        assert character, output
        output += character
    return output


def test_a_run_asks_writes_a_report_and_answers_and_leaves_nothing(emulator, start, tmp_path):
    domain_id = Studio(emulator.client("sagemaker")).domain()
    before = emulator.client("sagemaker").describe_domain(DomainId=domain_id)["DefaultUserSettings"]
    calls = len(emulator.calls())
    process = start(*RUN, "--domain-id", domain_id, "--only", "studio", stdin=subprocess.PIPE)
    plan = read_until(process, "Create them? [y/N] ")
    assert "Estimated cost: 0.00 USD" in plan
    assert " user profiles\n" in plan
    assert len(emulator.calls()) == calls
    output, _ = process.communicate("y\n", timeout=500)
    assert process.returncode == 0, output
    report = (tmp_path / "report.md").read_text()
    assert set(re.findall(r"\| ([^|]+) \|$", report, re.MULTILINE)) == {"seen", "holds", "not checked"}, report
    assert report.endswith("## Differences of the emulator\n\nNone.\n"), report
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert "test_a_version_that_a_user_profile_names_can_be_deleted" in {answer["statement"] for answer in answers}
    assert PREFIX not in json.dumps(answers)
    assert left(emulator) == []
    after = emulator.client("sagemaker").describe_domain(DomainId=domain_id)["DefaultUserSettings"]
    assert after.pop("JupyterLabAppSettings") == {"CustomImages": []}
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(emulator, start, number):
    process = start(*RUN, "--interval", "1", "--confirm", "--only", "updates")
    deadline = time.monotonic() + 300
    sagemaker = emulator.client("sagemaker")
    while not sagemaker.list_images(NameContains=PREFIX)["Images"]:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "Deleting image airflow-contract-" in output
    assert left(emulator) == [], output


def test_what_a_killed_run_left_is_deleted_alone_with_consent(emulator, start):
    sagemaker, queues, rules = (emulator.client(service) for service in ("sagemaker", "sqs", "events"))
    studio = Studio(sagemaker)
    emulator.creation_seconds = 0
    ours, others = f"{PREFIX}abcdef-0001", "churn"
    entries = [{"ImageName": name, "AppImageConfigName": name} for name in (ours, others)]
    domain_id = studio.domain(JupyterLabAppSettings={"CustomImages": entries})
    emulator.creation_seconds = 0.5
    for name in (ours, others):
        studio.image(name, 1, aliases={1: ["prod"]})
        studio.config(name)
    sagemaker.create_user_profile(DomainId=domain_id, UserProfileName=ours)
    queues.create_queue(QueueName=ours)
    rules.put_rule(Name=ours, EventPattern="{}")
    rules.put_targets(Rule=ours, Targets=[{"Id": "queue", "Arn": f"arn:aws:sqs:us-east-1:123456789012:{ours}"}])
    there = left(emulator)
    process = start("clean-up")
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "CONFIRM=yes" in output
    assert left(emulator) == there
    process = start("clean-up", "--confirm", "--domain-id", domain_id, "--events", "--interval", "0.1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert left(emulator) == [others]  # its app image config
    assert [image["ImageName"] for image in sagemaker.list_images()["Images"]] == [others]
    assert studio.user_settings(domain_id)["JupyterLabAppSettings"]["CustomImages"] == entries[1:]
