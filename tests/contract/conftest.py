from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.contract.account import TAG_LIST, TAGS, Account
from tests.studio import Studio

ANSWERS = Path(__file__).parent / "answers"
EVENTS = {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Image Version State Change"]}


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
        _keep({"statement": request.function.__name__, "created": account.created, "answers": answers})
        missing = [
            entry for entry in _recorded(request.function.__name__) if not any(_is(entry, answer) for answer in answers)
        ]
        assert missing == [], f"The emulator did not return these recorded answers, but {json.dumps(answers, indent=1)}"


def environment(endpoint_url):
    """Return what makes boto3 talk to an emulator."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _recorded(name):
    """Return the answers that SageMaker is known to give to a statement's calls, each with its source."""
    entries = [entry for file in sorted(ANSWERS.glob("*.json")) for entry in json.loads(file.read_text())]
    return [entry for entry in entries if entry["statement"] == name]


def _is(entry, answer):
    return all(answer[member] == value for member, value in entry.items() if member not in {"statement", "source"})


def _keep(entry):
    """Append to the file that `make contract` compares the account's answers with."""
    if "CONTRACT_ANSWERS" in os.environ:
        with Path(os.environ["CONTRACT_ANSWERS"]).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry)}\n")


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


@pytest.fixture
def failed_image(account):
    """The name of an image that SageMaker could not create, as its role does not exist."""
    name = account.new_name()
    role_arn = f"{account.role_arn.partition('/')[0]}/airflow-contract/does-not-exist"
    account.client.create_image(ImageName=name, RoleArn=role_arn, Tags=TAG_LIST)
    describe = account.client.describe_image
    account.wait_until(lambda: describe(ImageName=name)["ImageStatus"] != "CREATING", f"image {name} is not CREATING")
    return name


@pytest.fixture
def domain_id(account):
    """The id of the domain that the command has been given, or of one in the emulator."""
    if account.domain_id is None:
        account.domain_id = Studio(account.client).domain()
        account.wait_until_in_service()
    return account.domain_id


@pytest.fixture
def config(account):
    """The name of an app image config for JupyterLab."""
    name = account.new_name()
    account.client.create_app_image_config(AppImageConfigName=name, JupyterLabAppImageConfig={}, Tags=TAG_LIST)
    return name


@pytest.fixture
def profile(account, domain_id):
    """Returns a function that creates a user profile with settings, and returns what identifies it."""

    def create(**settings):
        which = {"DomainId": domain_id, "UserProfileName": account.new_name()}
        account.client.create_user_profile(**which, UserSettings=settings, Tags=TAG_LIST)
        account.wait_until_in_service(which["UserProfileName"])
        return which

    return create


@pytest.fixture
def queue(account):
    """The URL of a queue that gets the events."""
    sqs = account.session.client("sqs")
    name = account.new_name()
    url = sqs.create_queue(QueueName=name, tags=TAGS)["QueueUrl"]
    if account.emulator is not None:
        account.emulator.send_state_changes_to(url)
        return url
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Resource": arn}
    policy = {"Version": "2012-10-17", "Statement": [{**allow, "Action": "sqs:SendMessage"}]}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    rules = account.session.client("events")
    rules.put_rule(Name=name, EventPattern=json.dumps(EVENTS), Tags=TAG_LIST)
    rules.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    return url
