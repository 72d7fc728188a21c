from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.contract.account import Account

ANSWERS = Path(__file__).parent / "answers"


@pytest.fixture
def account(request, monkeypatch):
    """The account that the command has been given, or the emulator."""
    command = request.config.pluginmanager.get_plugin("contract")
    if command is not None:
        yield command.account
        return
    emulator = request.getfixturevalue("emulator")
    emulator.creation_seconds = 0.1
    for name, value in environment(emulator.endpoint_url).items():
        monkeypatch.setenv(name, value)
    account = Account(emulator=emulator)
    yield account
    answers = account.take_answers()
    if hasattr(request.function, "basis"):
        _keep(request.function.__name__, answers)
        missing = [answer for answer in _recorded(request.function.__name__) if answer not in answers]
        assert missing == [], f"The emulator did not give these recorded answers, but {json.dumps(answers, indent=1)}"


def environment(endpoint_url):
    """Return what makes boto3 talk to an emulator."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _recorded(name):
    entries = [entry for file in sorted(ANSWERS.glob("*.json")) for entry in json.loads(file.read_text())]
    members = ("operation", "parameters", "status", "answer")
    return [{member: entry[member] for member in members} for entry in entries if entry["statement"] == name]


def _keep(name, answers):
    """Append to the file that `make contract` compares the account's answers with."""
    if "CONTRACT_ANSWERS" in os.environ:
        with Path(os.environ["CONTRACT_ANSWERS"]).open("a", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps({'statement': name, **answer})}\n" for answer in answers))


@pytest.fixture
def image(account):
    """The name of an image that is CREATED and has no version."""
    return account.create_image()


@pytest.fixture
def three(account, image):
    """The name of an image with the versions 1 to 3."""
    for _ in range(3):
        account.create_version(image)
    return image
