from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    PaginationError,
    ReadTimeoutError,
)

from airflow_provider_imageversions.emulator import faults
from airflow_provider_imageversions.emulator.faults import KINDS, Fault


@pytest.fixture(scope="module")
def shared_client(emulator_server):
    return emulator_server.client(
        "sagemaker", config=Config(retries={"total_max_attempts": 1}, read_timeout=20, connect_timeout=5)
    )


@pytest.fixture
def client(emulator, shared_client):
    emulator.create_versions("churn", 5)
    emulator.create_versions("other", 5)
    return shared_client


def one_list(client, image="churn"):
    return client.list_image_versions(ImageName=image, MaxResults=2)


def pages(client):
    return [
        [version["Version"] for version in page["ImageVersions"]]
        for page in client.get_paginator("list_image_versions").paginate(
            ImageName="churn", PaginationConfig={"PageSize": 2}
        )
    ]


@pytest.mark.parametrize(
    ("kind", "expected", "text"),
    [
        ("throttling", (400, "ThrottlingException"), "Rate exceeded"),
        ("server_error", (500, "InternalFailure"), "unknown error"),
        ("invalid_state", (400, "ValidationException"), "Image churn is in an invalid state."),
        ("unavailable", (503, "ServiceUnavailable"), "temporary failure"),
        ("in_use", (400, "ResourceInUse"), "Resource was modified concurrently"),
        (
            "not_found",
            (400, "ResourceNotFound"),
            "Image with ARN arn:aws:sagemaker:us-east-1:123456789012:image/churn does not exist",
        ),
        ("limit_exceeded", (400, "ResourceLimitExceeded"), "is 250 Images, with current utilization of 250 Images"),
        ("expired_token", (400, "ExpiredTokenException"), "security token included in the request is expired"),
        ("invalid_token", (400, "UnrecognizedClientException"), "security token included in the request is invalid"),
        ("clock_skew", (400, "InvalidSignatureException"), "Signature expired: "),
        (
            "access_denied",
            (400, "AccessDeniedException"),
            (
                "is not authorized to perform: sagemaker:ListImageVersions on resource: "
                "arn:aws:sagemaker:us-east-1:123456789012:image/churn"
            ),
        ),
    ],
)
def test_an_error_of_the_service_comes_once(emulator, client, kind, expected, text):
    emulator.add_fault(kind)
    with pytest.raises(ClientError) as caught:
        one_list(client)
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == expected
    assert text in answer["Error"]["Message"]
    assert [version["Version"] for version in one_list(client)["ImageVersions"]] == [5, 4]
    assert [(call["status"], call["fault"]) for call in emulator.calls()] == [(expected[0], kind), (200, None)]


@pytest.mark.parametrize("operation", ["CreateImage", "CreateImageVersion"])
def test_a_quota_can_be_used_up_for_one_call(emulator, client, operation):
    emulator.add_fault("limit_exceeded", operation=operation)
    calls = {
        "CreateImage": lambda: client.create_image(ImageName="new", RoleArn="arn:aws:iam::123456789012:role/sagemaker"),
        "CreateImageVersion": lambda: client.create_image_version(
            ImageName="churn", BaseImage="churn:6", ClientToken="t"
        ),
    }
    with pytest.raises(client.exceptions.ResourceLimitExceeded):
        calls[operation]()
    assert calls[operation]()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_version_that_is_not_found_is_named(emulator, client):
    emulator.add_fault("not_found", operation="DescribeImageVersion")
    with pytest.raises(ClientError, match=r"ImageVersion with ARN \S+:image-version/churn/5 does not exist"):
        client.describe_image_version(ImageName="churn", Version=5)
    assert client.describe_image_version(ImageName="churn", Version=5)["Version"] == 5


def test_a_reset_connection_has_no_answer(emulator, client):
    emulator.add_fault("reset")
    with pytest.raises(ConnectionClosedError) as caught:
        one_list(client)
    assert "Connection reset by peer" in str(caught.value.kwargs["error"])
    assert one_list(client)["ImageVersions"]
    assert [call["status"] for call in emulator.calls()] == [None, 200]


def test_a_slow_answer_is_the_true_one(emulator, client):
    emulator.add_fault("slow", seconds=0.05)
    begin = time.monotonic()
    assert one_list(client)["ImageVersions"]
    assert time.monotonic() - begin >= 0.05
    one_list(client)
    assert [call["fault"] for call in emulator.calls()] == ["slow", None]


def test_a_delayed_call_continues_when_the_faults_are_cleared(emulator, client):
    emulator.add_fault("slow", seconds=60)
    emulator.add_fault("throttling")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(one_list, client)
        while not emulator.calls():
            assert not answer.done()
        emulator.clear_faults("slow")
        assert answer.result(timeout=10)["ImageVersions"]
    with pytest.raises(ClientError, match="Rate exceeded"):
        one_list(client)


def test_an_answer_can_be_slower_than_the_client_waits(emulator, client):
    emulator.add_fault("timeout", seconds=30)
    impatient = emulator.client("sagemaker", config=Config(retries={"total_max_attempts": 1}, read_timeout=0.1))
    with pytest.raises(ReadTimeoutError):
        one_list(impatient)
    emulator.clear_faults()
    assert one_list(client)["ImageVersions"]


# botocore neither checks a body's length nor minds that it is not JSON: it returns a success without content.
@pytest.mark.parametrize("kind", ["broken_json", "truncated"])
def test_botocore_takes_a_damaged_answer_for_one_without_content(emulator, client, kind, request):
    if kind == "truncated":
        request.getfixturevalue("truncation_unseen")
    emulator.add_fault(kind)
    answer = one_list(client)
    assert answer.keys() == {"ResponseMetadata"}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert one_list(client)["ImageVersions"]


def test_a_truncated_answer_is_shorter_than_announced(emulator):
    emulator.create_versions("churn", 5)
    emulator.add_fault("truncated")
    connection = http.client.HTTPConnection(urlsplit(emulator.endpoint_url).netloc, timeout=5)
    scope = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/sagemaker/aws4_request"
    headers = {"X-Amz-Target": "SageMaker.ListImageVersions", "Authorization": f"{scope}, Signature=0"}
    connection.request("POST", "/", '{"ImageName": "churn"}', headers)
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize("after", [0, 1])
def test_a_repeating_token_returns_the_same_page_again(emulator, client, after):
    emulator.add_fault("repeating_token", times=None, after=after)
    with pytest.raises(PaginationError, match="same next token"):
        pages(client)
    emulator.clear_faults()
    assert pages(client) == [[5, 4], [3, 2], [1]]


def test_a_repeating_token_ends_when_the_fault_does(emulator, client):
    emulator.add_fault("repeating_token")
    assert pages(client) == [[5, 4], [5, 4], [3, 2], [1]]


@pytest.mark.parametrize(("size", "expected"), [(2, [5, 3, 5, 3, 5, 3]), (100, [5, 5, 5, 5, 5, 5])])
def test_a_cycle_of_tokens_has_no_end(emulator, client, size, expected):
    emulator.add_fault("cyclic_token", times=None)
    walk = client.get_paginator("list_image_versions").paginate(ImageName="churn", PaginationConfig={"PageSize": size})
    tokens, firsts = [], []
    for page, _ in zip(walk, range(6), strict=False):
        tokens.append(page["NextToken"])
        firsts.append(page["ImageVersions"][0]["Version"])
    assert firsts == expected
    assert tokens == tokens[:2] * 3
    assert tokens[0] != tokens[1]


def test_an_empty_page_does_not_end_the_list(emulator, client):
    emulator.add_fault("empty_page", after=1, times=2)
    assert pages(client) == [[5, 4], [], [], [3, 2], [1]]


def test_an_unknown_status_replaces_the_true_one(emulator, client):
    emulator.add_fault("unknown_status")
    emulator.add_fault("unknown_status", operation="DescribeImageVersion", status="QUARANTINED")
    assert {v["ImageVersionStatus"] for v in one_list(client)["ImageVersions"]} == {"ARCHIVED"}
    assert client.describe_image_version(ImageName="churn")["ImageVersionStatus"] == "QUARANTINED"
    assert client.describe_image_version(ImageName="churn")["ImageVersionStatus"] == "CREATED"


def outcome(client, image="churn"):
    try:
        one_list(client, image)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "ok"


def outcomes(client, count):
    return [outcome(client) for _ in range(count)]


@pytest.mark.parametrize(
    ("times", "after", "expected"),
    [
        (1, 0, ["ThrottlingException", "ok", "ok", "ok"]),
        (2, 1, ["ok", "ThrottlingException", "ThrottlingException", "ok"]),
        (None, 2, ["ok", "ok", "ThrottlingException", "ThrottlingException"]),
    ],
)
def test_a_fault_comes_so_many_times_after_so_many_calls(emulator, client, times, after, expected):
    emulator.add_fault("throttling", times=times, after=after)
    assert outcomes(client, 4) == expected


def test_faults_are_taken_in_the_order_they_were_added(emulator, client):
    emulator.add_fault("throttling")
    emulator.add_fault("server_error")
    assert outcomes(client, 3) == ["ThrottlingException", "InternalFailure", "ok"]


def test_a_fault_hits_only_its_image_operation_and_credentials(emulator, client):
    emulator.add_fault("throttling", image_name="other", times=None)
    emulator.add_fault("server_error", operation="DescribeImage", times=None)
    emulator.add_fault("expired_token", access_key_id="OLD", operation=None, times=None)
    assert outcome(client) == "ok"
    assert outcome(client, "other") == "ThrottlingException"
    old = emulator.client("sagemaker", aws_access_key_id="OLD")
    assert outcome(old) == "ExpiredTokenException"
    assert [call["access_key_id"] for call in emulator.calls()] == ["testing", "testing", "OLD"]


def test_an_error_of_the_service_stays_an_error_under_a_page_fault(emulator, client):
    emulator.add_fault("empty_page")
    with pytest.raises(ClientError, match=r"Image with ARN .*:image/missing does not exist"):
        one_list(client, image="missing")


def test_an_unknown_kind_lists_the_kinds(emulator):
    with pytest.raises(ValueError, match="Unknown fault 'throtling'; there are: throttling, ") as caught:
        emulator.add_fault("throtling")
    assert all(kind in str(caught.value) for kind in KINDS)


def test_an_option_of_another_kind_is_refused(emulator):
    with pytest.raises(ValueError, match="'throttling' has no option seconds"):
        emulator.add_fault("throttling", seconds=3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_documented(kind):
    assert f"``{kind}``" in faults.__doc__
    assert Fault(kind).times == 1
