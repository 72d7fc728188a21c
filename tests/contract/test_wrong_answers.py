"""Each statement, against an emulator that answers one thing wrongly: it has to fail."""

from __future__ import annotations

import http.client
import inspect
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.contract import (
    test_aliases,
    test_deletion,
    test_events,
    test_images,
    test_lists,
    test_studio,
    test_updates,
    test_versions,
)
from tests.contract.account import USER_AGENT, Account
from tests.contract.conftest import environment
from tests.contract.statement import statements

MODULES = [test_aliases, test_deletion, test_events, test_images, test_lists, test_studio, test_updates, test_versions]
FAILURES = (AssertionError, ClientError, KeyError, ValueError, TimeoutError, pytest.fail.Exception)


class Between:
    """
    An HTTP server in front of the emulator that can change what it answers to the statements.

    The package's own calls pass unchanged: a wrong answer should fail the statement rather than its wait.

    :param endpoint_url: the emulator
    """

    def __init__(self, endpoint_url):
        between = self
        self.wrong = None

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                status, content_type, answer = between.ask(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._emulator = urlsplit(endpoint_url).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self):
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        thread.join()
        self._server.server_close()

    def ask(self, path, headers, body):
        connection = http.client.HTTPConnection(self._emulator, timeout=60)
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        status, answer = response.status, response.read()
        connection.close()
        operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
        is_ours = USER_AGENT in headers.get("User-Agent", "")
        if is_ours and self.wrong is not None and operation in self.wrong.operations:
            status, changed = self.wrong.change(status, json.loads(answer), json.loads(body))
            answer = json.dumps(changed).encode()
        return status, response.headers["Content-Type"], answer


class Wrong:
    """
    A wrong answer.

    :param operations: of these operations
    :param change: takes the status, the answer and the request, and returns another status and answer
    """

    def __init__(self, operations, change):
        self.operations = operations.split()
        self.change = change


def edited(operations, edit):
    """Answer something else where the emulator succeeds."""
    return Wrong(
        operations, lambda status, answer, request: (status, edit(answer, request) if status == 200 else answer)
    )


def member(operations, **values):
    """Answer with other values of members; None leaves one out."""

    def edit(answer, _request):
        changed = {**answer, **values}
        return {name: value for name, value in changed.items() if value is not None}

    return edited(operations, edit)


def code(operations, wrong="InternalError"):
    """Refuse with another code what the emulator refuses."""
    return Wrong(
        operations,
        lambda status, answer, _: (
            status,
            answer if status == 200 else {"__type": wrong, "Message": answer["Message"]},
        ),
    )


def text(operations, wrong="No."):
    """Refuse with another text what the emulator refuses."""
    return Wrong(
        operations, lambda status, answer, _: (status, answer if status == 200 else {**answer, "Message": wrong})
    )


def success(operations, **answer):
    """Accept what the emulator refuses."""
    return Wrong(operations, lambda status, given, _: (200, given if status == 200 else answer))


def items(operations, key, edit):
    """Answer with another list."""
    return edited(operations, lambda answer, _: {**answer, key: edit(answer[key])})


def summary(**values):
    """Answer with other members in a list of images."""
    return items("ListImages", "Images", lambda images: [{**image, **values} for image in images])


def versions(edit):
    """Answer with another list of versions."""
    return items("ListImageVersions", "ImageVersions", edit)


def without(*sent):
    """Answer as if parameters had not been sent, by an error that nobody expects."""
    refuse = {"__type": "ValidationException", "Message": "unknown parameter"}
    return Wrong(
        "ListImageVersions ListImages ListAliases",
        lambda status, answer, request: (400, refuse) if set(sent) & set(request) else (status, answer),
    )


def settings(operation, key, **apps):
    """Answer with other settings of Studio's apps."""
    return edited(operation, lambda answer, _: {**answer, key: {**answer.get(key, {}), **apps}})


def numbered(number):
    """Answer with the ARN of another version."""
    return edited(
        "CreateImageVersion",
        lambda answer, _: {"ImageVersionArn": f"{answer['ImageVersionArn'].rpartition('/')[0]}/{number}"},
    )


REVERSED = versions(lambda found: found[::-1])
LAB = {"CustomImages": [{"ImageName": "other", "AppImageConfigName": "other"}]}
WRONG = {
    # Images
    "test_an_image_arn_has_the_name_in_lower_case": member("DescribeImage", ImageArn="arn:aws:sagemaker:image/Mixed"),
    "test_image_names_are_case_insensitive": member("DescribeImage", ImageName="other"),
    "test_an_image_name_that_exists_is_refused": code("CreateImage"),
    "test_an_image_in_a_list_has_these_members": summary(Description=""),
    "test_an_image_that_does_not_exist_is_not_found": text("DescribeImage"),
    "test_lists_of_an_image_that_does_not_exist_are_not_found": success("ListAliases", SageMakerImageVersionAliases=[]),
    "test_an_image_whose_role_cannot_be_assumed_fails_later": member("DescribeImage", FailureReason=""),
    "test_an_image_that_failed_keeps_its_name": success("CreateImage", ImageArn="arn:aws:sagemaker"),
    "test_an_image_that_failed_takes_no_version": code("CreateImageVersion", "ResourceInUse"),
    "test_an_updated_image_becomes_created_again": member("DescribeImage", Description=None),
    "test_a_value_outside_its_limits_is_a_validation_error": success("ListImages", Images=[]),
    # Versions
    "test_versions_are_numbered_from_1": numbered(1),
    "test_a_version_without_optional_members_has_these": member("DescribeImageVersion", VendorGuidance="NOT_PROVIDED"),
    "test_a_version_arn_has_the_name_and_the_number": numbered(0),
    "test_the_container_image_is_the_base_image_by_digest": member("DescribeImageVersion", ContainerImage="churn:1.4"),
    "test_a_version_is_modified_when_it_becomes_created": member("DescribeImageVersion", LastModifiedTime=1),
    "test_optional_members_come_back": member("DescribeImageVersion", Processor=None),
    "test_the_latest_version_is_described_by_default": member("DescribeImageVersion", Version=1),
    "test_an_image_without_versions_has_no_latest_version": text("DescribeImageVersion"),
    "test_a_version_that_does_not_exist_is_not_found": code("DescribeImageVersion"),
    "test_the_same_request_with_the_same_client_token_is_one_version": versions(lambda found: found * 2),
    "test_another_request_with_the_same_client_token_is_refused": success(
        "CreateImageVersion", ImageVersionArn="arn/2"
    ),
    "test_a_base_image_that_does_not_exist_fails_later": member("DescribeImageVersion", FailureReason=None),
    # Updates
    "test_an_update_of_a_version_takes_effect_at_once": member("DescribeImageVersion", ReleaseNotes="old"),
    "test_an_update_keeps_what_it_does_not_name": member("DescribeImageVersion", MLFramework="none"),
    "test_an_update_changes_the_last_modified_time": member("DescribeImageVersion", LastModifiedTime=1),
    "test_a_version_that_is_creating_cannot_be_updated": success("UpdateImageVersion", ImageVersionArn="arn"),
    # Deletion
    "test_a_deleted_image_is_deleting_and_then_not_found": member("DescribeImage", ImageStatus="CREATED"),
    "test_deleting_an_image_deletes_its_versions": success("DescribeImageVersion", Version=1),
    "test_an_image_that_is_being_deleted_keeps_its_name": success("CreateImage", ImageArn="arn"),
    "test_an_image_that_is_created_again_starts_at_1": versions(lambda found: [{**v, "Version": 2} for v in found]),
    "test_a_deleted_version_is_deleting_and_then_not_found": versions(lambda found: [*found, {"Version": 2}]),
    "test_a_version_that_is_being_deleted_cannot_be_deleted": text("DeleteImageVersion"),
    "test_the_number_of_a_deleted_version_is_not_reused": versions(lambda found: [{**v, "Version": 3} for v in found]),
    "test_the_latest_version_is_the_highest_that_exists": member("DescribeImageVersion", Version=3),
    "test_a_version_that_does_not_exist_cannot_be_deleted": success("DeleteImageVersion"),
    # Aliases
    "test_an_alias_describes_its_version": member("DescribeImageVersion", Version=3),
    "test_aliases_are_listed_for_an_image_or_a_version": member("ListAliases", SageMakerImageVersionAliases=["a"]),
    "test_one_update_adds_and_removes_aliases": member("ListAliases", SageMakerImageVersionAliases=["kept"]),
    "test_an_alias_of_another_version_is_refused": success("UpdateImageVersion", ImageVersionArn="arn"),
    "test_an_alias_that_does_not_exist_is_not_found": success("DescribeImageVersion", Version=3),
    "test_an_alias_of_another_version_cannot_be_removed": success("UpdateImageVersion", ImageVersionArn="arn"),
    "test_an_alias_of_a_deleted_version_is_free": member("ListAliases", SageMakerImageVersionAliases=["prod"]),
    # Lists
    "test_versions_are_listed_newest_first": REVERSED,
    "test_versions_can_be_ordered_by_number_and_by_modification": REVERSED,
    "test_a_page_has_ten_versions_by_default": versions(lambda found: found[:9]),
    "test_pages_show_each_version_once": versions(lambda found: found * 2),
    "test_the_last_page_has_no_token": member("ListImageVersions", NextToken="more"),
    "test_an_empty_token_is_none": without("NextToken"),
    "test_a_token_is_valid_for_its_own_query": success("ListImageVersions", ImageVersions=[]),
    "test_a_token_keeps_its_place": versions(lambda found: [{**v, "Version": v["Version"] + 1} for v in found]),
    "test_bounds_of_the_creation_time_are_inclusive": without("CreationTimeBefore"),
    "test_bounds_of_the_modification_time_are_inclusive": without("LastModifiedTimeAfter"),
    "test_images_are_found_by_a_part_of_their_name": items("ListImages", "Images", lambda _: []),
    "test_images_are_listed_newest_first": items("ListImages", "Images", lambda images: images[::-1]),
    # SageMaker Studio
    "test_a_version_that_a_user_profile_names_can_be_deleted": settings(
        "DescribeUserProfile", "UserSettings", JupyterLabAppSettings={}
    ),
    "test_settings_may_name_a_version_that_does_not_exist": settings(
        "DescribeUserProfile", "UserSettings", JupyterLabAppSettings={}
    ),
    "test_an_update_of_a_user_profile_replaces_the_settings_of_one_app": settings(
        "DescribeUserProfile", "UserSettings", CodeEditorAppSettings={}
    ),
    "test_an_update_of_a_domain_keeps_the_settings_of_other_apps": settings(
        "DescribeDomain", "DefaultUserSettings", JupyterLabAppSettings=LAB
    ),
    "test_a_domain_is_updating_for_a_while": member("DescribeDomain", Status="InService"),
    # EventBridge
    "test_a_created_version_sends_an_event": member("DescribeImage", ImageArn="arn:aws:sagemaker:image/other"),
}


@pytest.fixture
def between(emulator):
    with Between(emulator.endpoint_url).serving() as server:
        yield server


@pytest.fixture
def account(between, emulator, monkeypatch):
    for name, value in environment(between.endpoint_url).items():
        monkeypatch.setenv(name, value)
    emulator.creation_seconds = 0.1
    return Account(emulator=emulator)


def test_there_is_a_wrong_answer_to_each_statement():
    assert sorted(WRONG) == sorted(statement.name for statement in statements())


@pytest.mark.beyond_model
@pytest.mark.parametrize("name", WRONG)
def test_a_statement_fails_with_a_wrong_answer(name, between, account, request, monkeypatch):
    statement = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    monkeypatch.setattr(test_events, "ROUNDS", 1)
    monkeypatch.setattr(test_events, "SECONDS", 1.0)
    arguments = {each: request.getfixturevalue(each) for each in inspect.signature(statement).parameters}
    between.wrong = WRONG[name]
    with pytest.raises(FAILURES):
        statement(**arguments)
