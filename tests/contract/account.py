"""The AWS account that statements run against: SageMaker's own, or the emulator in its place."""

from __future__ import annotations

import functools
import itertools
import json
import re
import time
import uuid
from collections import Counter
from contextlib import contextmanager, suppress

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

PREFIX = "airflow-contract-"
TAGS = {"created-by": "airflow-provider-imageversions"}
TAG_LIST = [{"Key": key, "Value": value} for key, value in TAGS.items()]
# As in the documentation of AWS; what is written down of an account has these in place of its own.
ACCOUNT_ID, REGION = "123456789012", "us-east-1"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT_ID}:role/sagemaker"

_REPOSITORY_NAME = "team/churn"
BASE_IMAGE = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/{_REPOSITORY_NAME}:1.4"

TIMEOUT = 300.0
USER_AGENT = "imageversions-contract"
"""The user agent of the statements' calls, which distinguishes them from calls that only wait."""
_TIME = re.compile("(Creation|LastModified)Time(After|Before)?")
_NOT_THE_ANSWER = {"ThrottlingException", "InternalFailure", "ServiceUnavailable"}
_IMAGE_OPERATION = re.compile("(Create|Describe|Update|Delete)Image(Version)?|List(Images|ImageVersions|Aliases)")


class Account:
    """
    An account, the names in it that are ours, and the answers that it gave.

    Credentials, region and endpoint are boto3's own: from the environment and its configuration.

    :param role_arn: a role that SageMaker can assume
    :param base_image: a container image in Amazon ECR
    :param domain_id: a domain of Studio
    :param emulator: the emulator, if it is one of this process that may be controlled
    :param interval: seconds between two checks of a status
    """

    def __init__(self, role_arn=ROLE_ARN, base_image=BASE_IMAGE, domain_id=None, emulator=None, interval=0.05):
        self.role_arn, self.base_image, self.domain_id = role_arn, base_image, domain_id
        self.emulator, self._interval = emulator, interval
        self._run = uuid.uuid4().hex[:6]
        self.prefix = f"{PREFIX}{self._run}-"
        self.session = _session()
        self.answers, self.created = [], Counter()
        self._numbers = itertools.count(1)
        # A statement may ask what botocore would refuse to send.
        config = Config(
            parameter_validation=False,
            retries={"mode": "standard", "total_max_attempts": 10},
            user_agent_extra=USER_AGENT,
        )
        self.client = self.session.client("sagemaker", config=config)
        self.client.meta.events.register("before-call.sagemaker", self._note_request)
        self.client.meta.events.register("response-received.sagemaker", self._note_answer)
        self._request = {}

    @property
    def repository(self):
        """The base image's repository: its path without tag and digest."""
        return self.base_image.partition("@")[0].rpartition(":")[0]

    # Names and resources

    def new_name(self, suffix=""):
        """Return a name that only this run has."""
        return f"{self.prefix}{next(self._numbers):04}{suffix}"

    def create_image(self, name=None, **parameters):
        """Create an image, wait until it is CREATED, and return its name."""
        name = name or self.new_name()
        self.client.create_image(**{"ImageName": name, "RoleArn": self.role_arn, "Tags": TAG_LIST, **parameters})
        self.wait_until_created(name)
        return name

    def create_version(self, image, **parameters):
        """Create a version, wait until it is CREATED, and return its number."""
        answer = self.client.create_image_version(**{"ImageName": image, "BaseImage": self.base_image, **parameters})
        number = int(answer["ImageVersionArn"].rpartition("/")[2])
        self.wait_until_created(image, number)
        return number

    def delete_version(self, image, number):
        """Delete a version and wait until it is gone."""
        self.client.delete_image_version(ImageName=image, Version=number)
        self.wait_until_gone(image, number)

    def versions(self, image, **query):
        """Return the numbers of all versions that a query finds, in the order of the pages."""
        pages = self.client.get_paginator("list_image_versions").paginate(ImageName=image, **query)
        return [version["Version"] for page in pages for version in page["ImageVersions"]]

    # Waiting, by the means of the package

    def wait_until_created(self, image, number=None):
        """Wait until an image, or one of its versions, is CREATED; raise if it fails."""
        from airflow_provider_imageversions.operators import SageMakerCreateImageOperator
        from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

        if number is None:
            create = SageMakerCreateImageOperator(
                image_name=image, role_arn=self.role_arn, check_interval=self._interval, **self._task
            )
            return create.execute(_CONTEXT)
        wait = SageMakerImageVersionSensor(
            image_name=image, version=number, poke_interval=self._interval, mode="poke", **self._task
        )
        return wait.execute(_CONTEXT)

    def wait_until_gone(self, image, number=None):
        """Wait until an image or a version that is being deleted is gone."""
        from airflow_provider_imageversions.operators import (
            SageMakerDeleteImageOperator,
            SageMakerDeleteImageVersionOperator,
        )

        if number is None:
            wait = SageMakerDeleteImageOperator(
                image_name=image, delete_if_aliased=True, check_interval=self._interval, **self._task
            )
        else:
            wait = SageMakerDeleteImageVersionOperator(
                image_name=image, version=number, check_interval=self._interval, **self._task
            )
        wait.execute(_CONTEXT)

    def wait_until(self, look, what):
        """Call a function until it returns something true; return that."""
        deadline = time.monotonic() + TIMEOUT
        while not (found := look()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Waited {TIMEOUT:g} seconds until {what}")
            time.sleep(self._interval)
        return found

    @property
    def _task(self):
        return {"task_id": "contract", "aws_conn_id": None, "timeout": TIMEOUT}

    @contextmanager
    def prolonged(self):
        """Let changes of a status that begin meanwhile last until the end, where the emulator can do so."""
        if self.emulator is None:
            yield
            return
        before = self.emulator.creation_seconds
        self.emulator.creation_seconds = 3600
        try:
            yield
        finally:
            self.emulator.creation_seconds = before

    def skip_if_over(self, is_over):
        """Skip a statement whose state SageMaker left before it was seen; the emulator keeps it."""
        if is_over and self.emulator is None:
            pytest.skip("it was over before it could be seen")

    # Answers

    def refused(self, operation, **parameters):
        """Call an operation that has to be refused with HTTP status 400; return the code and the text."""
        with pytest.raises(ClientError) as caught:
            getattr(self.client, operation)(**parameters)
        answer = caught.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
        return answer["Error"]["Code"], answer["Error"]["Message"]

    def _note_request(self, params, **_):
        self._request = json.loads(params["body"])

    def _note_answer(self, response_dict, event_name, **_):
        if response_dict is None:
            return  # the connection broke
        operation = event_name.rpartition(".")[2]
        if operation.startswith("Create") and response_dict["status_code"] == 200:
            self.created[operation] += 1
        if _IMAGE_OPERATION.fullmatch(operation) is None:
            return  # what Studio and EventBridge answer has more of the account in it than a report should show
        try:
            answer = json.loads(response_dict["body"])
        except ValueError:
            return  # of a proxy between here and SageMaker
        if answer.get("__type") not in _NOT_THE_ANSWER:
            request = {"operation": operation, "parameters": self._request}
            self.answers.append({**request, "status": response_dict["status_code"], "answer": answer})

    def take_answers(self):
        """Return the answers since the last call, without what is only of this account and run, each once."""
        taken, self.answers = self.answers, []
        names = {}
        replacements = {
            self.role_arn: ROLE_ARN,
            self.base_image: BASE_IMAGE,
            f"/{self.repository.partition('/')[2]}:": f"/{_REPOSITORY_NAME}:",
            f"/{self.repository.partition('/')[2]}@": f"/{_REPOSITORY_NAME}@",
            _account_of(self.role_arn): ACCOUNT_ID,
            self.session.region_name: REGION,
        }

        def numbered(match):
            return f"name-{names.setdefault(match[0], len(names) + 1)}"

        seen = []
        for entry in taken:
            text = json.dumps(entry)
            for own, public in replacements.items():
                text = text.replace(own, public) if own else text
            text = re.sub(rf"(?<=-){self._run}-\d+", numbered, text).replace(PREFIX, "")
            text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:DIGEST", text)
            clean = _without_times(json.loads(text))
            if clean not in seen:
                seen.append(clean)
        return seen

    # Cleaning up

    def leftovers(self, prefix=PREFIX):
        """Yield what there is with a prefix, as a text and what deletes it; what names another comes before that."""
        if self.domain_id is not None:
            yield from self._leftovers_in_domain(prefix)
        for page in self.client.get_paginator("list_images").paginate(NameContains=prefix):
            for image in page["Images"]:
                if image["ImageName"].startswith(prefix):
                    yield f"image {image['ImageName']}", _deletion(self.wait_until_gone, image["ImageName"])

    def _leftovers_in_domain(self, prefix):
        domain = self.client.describe_domain(DomainId=self.domain_id)
        lab = domain["DefaultUserSettings"].get("JupyterLabAppSettings", {})
        if any(entry["ImageName"].startswith(prefix) for entry in lab.get("CustomImages", ())):
            yield f"custom images in domain {self.domain_id}", _deletion(self.detach, prefix)
        # These two filters take no hyphen at the end.
        pages = self.client.get_paginator("list_user_profiles").paginate(
            DomainIdEquals=self.domain_id, UserProfileNameContains=prefix.rstrip("-")
        )
        for name in [profile["UserProfileName"] for page in pages for profile in page["UserProfiles"]]:
            if name.startswith(prefix):
                yield f"user profile {name}", _deletion(self.delete_user_profile, name)
        pages = self.client.get_paginator("list_app_image_configs").paginate(NameContains=prefix.rstrip("-"))
        for name in [config["AppImageConfigName"] for page in pages for config in page["AppImageConfigs"]]:
            if name.startswith(prefix):
                yield (
                    f"app image config {name}",
                    _deletion(self.client.delete_app_image_config, AppImageConfigName=name),
                )

    def detach(self, prefix=None):
        """Take the custom images with a prefix out of the domain's default user settings."""
        settings = self.client.describe_domain(DomainId=self.domain_id)["DefaultUserSettings"]
        lab = settings.get("JupyterLabAppSettings", {})
        kept = [e for e in lab.get("CustomImages", ()) if not e["ImageName"].startswith(prefix or self.prefix)]
        self.client.update_domain(
            DomainId=self.domain_id,
            DefaultUserSettings={"JupyterLabAppSettings": {**lab, "CustomImages": kept}},
        )
        self.wait_until_in_service()

    def wait_until_in_service(self, user_profile=None):
        """Wait until the domain, or a user profile in it, is InService."""
        which, describe = {"DomainId": self.domain_id}, self.client.describe_domain
        if user_profile is not None:
            which, describe = {**which, "UserProfileName": user_profile}, self.client.describe_user_profile
        self.wait_until(lambda: describe(**which)["Status"] == "InService", f"{which} is InService")

    def delete_user_profile(self, name):
        """Delete a user profile and wait until it is gone."""
        which = {"DomainId": self.domain_id, "UserProfileName": name}
        self.client.delete_user_profile(**which)
        self.wait_until(lambda: not _exists(self.client.describe_user_profile, which), f"{which} is gone")

    def event_leftovers(self, prefix=PREFIX):
        """Yield the rules and queues with a prefix, as :meth:`leftovers` does."""
        rules, queues = self.session.client("events"), self.session.client("sqs")
        for rule in rules.list_rules(NamePrefix=prefix)["Rules"]:
            yield f"EventBridge rule {rule['Name']}", _deletion(_delete_rule, rules, rule["Name"])
        for url in queues.list_queues(QueueNamePrefix=prefix).get("QueueUrls", ()):
            yield f"SQS queue {url.rpartition('/')[2]}", _deletion(queues.delete_queue, QueueUrl=url)


@functools.cache
def _session():
    # One for all tests of a process: reading the model of the service takes longer than a statement.
    return boto3.Session()


def _deletion(call, *arguments, **named):
    return lambda: call(*arguments, **named)


def _delete_rule(rules, name):
    targets = rules.list_targets_by_rule(Rule=name)["Targets"]
    if targets:
        rules.remove_targets(Rule=name, Ids=[target["Id"] for target in targets])
    rules.delete_rule(Name=name)


def _exists(describe, which):
    with suppress(describe.__self__.exceptions.ResourceNotFound):
        return bool(describe(**which))
    return False


def _account_of(arn):
    return arn.split(":")[4]


def _without_times(value):
    if isinstance(value, dict):
        return {name: _replaced(name, item) for name, item in value.items() if name != "ClientToken"}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _replaced(name, value):
    if _TIME.fullmatch(name):
        return "TIME"
    return "TOKEN" if name == "NextToken" and value else _without_times(value)


class _TaskInstance:
    """What operators use of a task instance, which nothing reads here."""

    try_number, map_index = 1, -1
    dag_id = run_id = task_id = "contract"
    start_date = None

    def xcom_push(self, key, value, **_):
        pass


_CONTEXT = {"ti": _TaskInstance()}
