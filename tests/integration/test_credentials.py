"""What the credential chain, its endpoints and its files do wrong, in a worker and in the triggerer, over HTTP."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.exceptions import HTTPClientError
from botocore.utils import ContainerMetadataFetcher

from airflow_provider_imageversions import _reading, _schedule, _sessions, _shared_poller
from airflow_provider_imageversions.errors import (
    ConnectionLookupError,
    CredentialsError,
    ErrorKind,
    MissingConnectionError,
    SageMakerImageVersionPollingError,
    classify_error,
)
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.model import Target
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageVersionOperator,
    SageMakerDeleteImageVersionOperator,
)
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger, SageMakerStudioUpdateTrigger
from tests.conftest import first_event
from tests.credentials_endpoint import FAULTS, Agent

IMAGE = "my-image"
PAUSE = 0.02
QUICK = {"poke_interval": PAUSE, "timeout": 30}
QUICK_OP = {"check_interval": PAUSE, "timeout": 30}


@pytest.fixture
def agent(monkeypatch):
    """An endpoint for the credentials of boto3's default chain, which has no others."""
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with Agent.started() as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/credentials")
        yield agent


@pytest.fixture(params=FAULTS)
def fault(request, monkeypatch):
    """Each fault of the endpoint."""
    if request.param == "silence":
        # Not for the others: on a busy machine, an answer may take as long.
        monkeypatch.setattr(ContainerMetadataFetcher, "TIMEOUT_SECONDS", 0.04)
    return request.param


@pytest.fixture(autouse=True)
def image(emulator, monkeypatch):
    # A poll of the test before may still be under way.
    for thread in threading.enumerate():
        if thread.name.startswith("sagemaker-image-versions"):
            thread.join(1)
    emulator.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(_sessions, "GRACE_PACE", PAUSE)
    monkeypatch.setattr(_schedule, "SHORTEST_RETRY", PAUSE)
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 1)


@pytest.fixture
def ambient(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")


def end_of_grace(monkeypatch, seconds=PAUSE / 2):
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, seconds))


def sensor(**arguments):
    return SageMakerImageVersionSensor(**{"task_id": "wait", "image_name": IMAGE, **QUICK, **arguments})


def keys(emulator):
    return {call["access_key_id"] for call in emulator.calls("ListImageVersions")}


async def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def error_of(mode, error):
    return SageMakerImageVersionPollingError if mode.get("deferrable") else error


# --- Errors of the credential chain ----------------------------------------------------------------------


def test_credentials_that_are_late_are_waited_for_in_every_mode(emulator, agent, run, mode, fault):
    # botocore itself makes up to three attempts.
    agent.misbehave(fault, times=5)
    assert run(sensor(**mode, aws_conn_id=None))["Version"] == 1
    assert agent.times == 0
    assert keys(emulator) == {"of-the-agent"}


def test_missing_credentials_end_a_wait_even_with_soft_fail(agent, run, mode, fault, monkeypatch):
    end_of_grace(monkeypatch)
    agent.misbehave(fault, times=10_000)
    expected = error_of(mode, CredentialsError)
    with pytest.raises(expected, match="Could not load AWS credentials from boto3's default") as caught:
        run(sensor(**mode, aws_conn_id=None, soft_fail=True))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_operator_waits_for_late_credentials(emulator, agent, run, deferrable):
    agent.misbehave("expired", times=5)
    create = SageMakerCreateImageVersionOperator(
        task_id="t",
        image_name=IMAGE,
        base_image="repository:tag",
        aws_conn_id=None,
        deferrable=deferrable,
        **QUICK_OP,
    )
    assert run(create)["Version"] == 2
    agent.misbehave("nothing in it", times=5)
    delete = SageMakerDeleteImageVersionOperator(task_id="t", image_name=IMAGE, version=2, aws_conn_id=None, **QUICK_OP)
    assert run(delete) == 2
    assert agent.times == 0


def test_the_timeout_of_a_task_ends_the_wait_for_credentials(agent, run, mode):
    agent.misbehave("expired", times=10_000)
    with pytest.raises(CredentialsError, match="still expired"):
        run(sensor(**mode, aws_conn_id=None, timeout=0.1, soft_fail=True))


async def test_credentials_that_expire_during_a_wait_end_it_for_nobody(emulator, agent):
    emulator.set_version(IMAGE, 1, status="CREATING")
    # Of which botocore refreshes some before each call.
    agent.lifetime = 300
    triggers = [
        SageMakerImageVersionTrigger(image_name=IMAGE, aws_conn_id=None, poll_interval=PAUSE, include_details=details)
        for details in (False, True)
    ]
    waits = [asyncio.create_task(first_event(trigger)) for trigger in triggers]
    await eventually(lambda: emulator.calls("ListImageVersions"))
    agent.misbehave("a null", times=5)
    await eventually(lambda: not agent.times)
    emulator.set_version(IMAGE, 1, status="CREATED")
    assert [event.payload["status"] for event in await asyncio.gather(*waits)] == ["ready", "ready"]


PROGRAMS = {
    "fails": "echo 'signed out' >&2; exit 1",
    "prints garbage": "echo garbage",
    "prints nothing": ":",
    "prints a list": "echo '[]'",
    "prints no text": r"printf '\377\376'",
    "prints no credentials": """echo '{"Version": 1}'""",
}
GOOD = """echo '{"Version": 1, "AccessKeyId": "of-the-program", "SecretAccessKey": "testing"}'"""


@pytest.mark.parametrize("fault", PROGRAMS)
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_credential_process_that_fails_for_a_while_is_waited_for(
    emulator, run, monkeypatch, tmp_path, deferrable, fault
):
    tries, program = tmp_path / "tries", tmp_path / "program"
    program.write_text(
        f"#!/bin/sh\necho >> {tries}\nif [ $(wc -l < {tries}) -gt 4 ]; then {GOOD}; else {PROGRAMS[fault]}; fi\n"
    )
    program.chmod(0o755)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert run(sensor(deferrable=deferrable, aws_conn_id=None))["Version"] == 1
    assert keys(emulator) == {"of-the-program"}


FILES = {
    "no such program": b"[default]\ncredential_process = /no/such/program\n",
    "garbled": b"[default\nregion",
    "binary": b"\xff\xfe\x00[",
    "another profile": b"[profile other]\nregion = us-east-1\n",
    "no such source": b"[profile mine]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = nope\n",
    "no such token": b"[profile mine]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /no/token\n",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_broken_boto3_configuration_file_is_not_a_bug(run, mode, monkeypatch, tmp_path, content):
    end_of_grace(monkeypatch)
    config = tmp_path / "config"
    config.write_bytes(content)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    if b"profile" in content:
        monkeypatch.setenv("AWS_PROFILE", "mine")
    with pytest.raises(error_of(mode, CredentialsError), match="Could not load AWS credentials from boto3's default"):
        run(sensor(**mode, aws_conn_id=None))


def test_a_broken_configuration_file_that_is_replaced_in_time_is_waited_for(run, mode, monkeypatch, tmp_path, ambient):
    config = tmp_path / "config"
    config.write_bytes(FILES["garbled"])
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    failures = 0
    lasts = _sessions.FaultTimer.lasts

    def replace_after_three(timer, kind, now):
        nonlocal failures
        if kind is ErrorKind.CREDENTIALS:
            failures += 1
            if failures == 3:
                replacement = tmp_path / "replacement"
                replacement.write_text("[default]\n")
                replacement.replace(config)
        return lasts(timer, kind, now)

    monkeypatch.setattr(_sessions.FaultTimer, "lasts", replace_after_three)
    assert run(sensor(**mode, aws_conn_id=None))["Version"] == 1
    assert failures >= 3


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("AccessDenied", ErrorKind.CREDENTIALS),
        ("InvalidIdentityToken", ErrorKind.CREDENTIALS),
        # Not to be taken for an image that does not exist.
        ("ResourceNotFoundException", ErrorKind.CREDENTIALS),
        ("ExpiredToken", ErrorKind.CREDENTIALS),
        ("Throttling", ErrorKind.THROTTLED),
        ("InternalFailure", ErrorKind.TRANSIENT),
    ],
)
def test_an_error_of_a_credential_service_is_not_one_of_sagemaker(connection, serve, code, fault):
    refusal = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    connection(
        role_arn="arn:aws:iam::123456789012:role/role",
        service_config={"sts": {"endpoint_url": f"http://{serve(refusal.encode(), status=400)}"}},
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(Exception, match=code) as caught:  # judged below
        SageMakerImageVersionsHook().list_image_versions(IMAGE)
    assert classify_error(caught.value) is fault
    if fault is ErrorKind.CREDENTIALS:
        assert "Could not load AWS credentials from connection 'aws_default'" in str(caught.value)


ROLE = {"role_arn": "arn:aws:iam::123456789012:role/role"}


@pytest.mark.parametrize(
    "extra",
    [
        {"profile_name": "nope"},
        {**ROLE, "assume_role_method": "assume_role_with_saml"},
        {**ROLE, "assume_role_method": "assume_role_with_saml", "assume_role_with_saml": {"principal_arn": "a"}},
        {**ROLE, "assume_role_method": "assume_role_with_web_identity"},
        {
            **ROLE,
            "assume_role_method": "assume_role_with_web_identity",
            "assume_role_with_web_identity_federation": "file",
            "assume_role_with_web_identity_token_file": "/no/such/token",
        },
    ],
    ids=str,
)
def test_whatever_the_session_factory_raises_is_about_credentials(connection, extra):
    connection(**extra)
    with pytest.raises(CredentialsError, match="Could not load AWS credentials from connection 'aws_default'"):
        SageMakerImageVersionsHook().list_image_versions(IMAGE)


@pytest.mark.parametrize(
    "extra",
    [
        {"config_kwargs": {"no_such_option": 1}},
        {"config_kwargs": {"retries": 5}},
        {**ROLE, "assume_role_method": "no_such_method"},
    ],
    ids=str,
)
def test_a_connection_whose_settings_are_not_valid_ends_a_wait(connection, run, mode, extra, monkeypatch):
    end_of_grace(monkeypatch)
    connection(**extra)
    with pytest.raises(error_of(mode, ValueError), match="aws_conn_id='aws_default': the connection's settings"):
        run(sensor(**mode))


def test_a_client_that_does_not_sign_needs_no_credentials(connection, agent):
    agent.misbehave("an error", times=10_000)
    connection(login=None, config_kwargs={"signature_version": "unsigned"})
    assert SageMakerImageVersionsHook().conn.meta.region_name == "us-east-1"
    assert agent.requests == 0


def test_a_bug_of_ours_in_a_call_is_not_taken_for_one_of_the_chain(connection, monkeypatch):
    def broken(_item):
        raise TypeError("bug")

    monkeypatch.setattr("airflow_provider_imageversions._botocore.to_record", broken)
    with pytest.raises(TypeError, match="bug") as caught:
        SageMakerImageVersionsHook().list_image_versions(IMAGE)
    assert classify_error(caught.value) is None


# --- Connections -----------------------------------------------------------------------------------------


def lookup_fails(monkeypatch, times):
    """Make Airflow fail to look up the connection a number of times."""
    left = [times]

    def fail():
        if left[0]:
            left[0] -= 1
            raise RuntimeError("the database is away")

    original = AwsBaseHook.get_connection

    def get_connection(_cls, conn_id):
        fail()
        return original(conn_id)

    monkeypatch.setattr(AwsBaseHook, "get_connection", classmethod(get_connection))
    if hasattr(AwsBaseHook, "aget_connection"):
        original_async = AwsBaseHook.aget_connection

        async def aget_connection(_cls, conn_id):
            fail()
            return await original_async(conn_id)

        monkeypatch.setattr(AwsBaseHook, "aget_connection", classmethod(aget_connection))
    return left


def test_an_airflow_that_does_not_answer_is_waited_for(emulator, connection, run, mode, monkeypatch):
    left = lookup_fails(monkeypatch, times=5)
    assert run(sensor(**mode))["Version"] == 1
    assert left == [0]
    assert keys(emulator) == {"testing"}


def test_an_airflow_that_does_not_answer_is_an_error_of_its_own_in_the_hook(connection, monkeypatch):
    lookup_fails(monkeypatch, times=1)
    with pytest.raises(ConnectionLookupError, match="'aws_default' could not be looked up: RuntimeError: the database"):
        SageMakerImageVersionsHook().list_image_versions(IMAGE)


def test_a_missing_aws_default_means_boto3_s_default_chain(emulator, ambient, run, mode, capsys):
    assert run(sensor(**mode))["Version"] == 1
    assert keys(emulator) == {"ambient"}
    assert "Connection 'aws_default' does not exist; using boto3's default credential chain" in capsys.readouterr().out


def test_a_worker_decides_for_the_trigger_whether_aws_default_is_missing(emulator, connection, ambient, run):
    emulator.set_version(IMAGE, 1, status="CREATED")
    run(sensor(deferrable=True))
    assert run.trigger.aws_conn_id == "aws_default"
    create = SageMakerCreateImageVersionOperator(
        task_id="t", image_name=IMAGE, base_image="repository:tag", deferrable=True, **QUICK_OP
    )
    run(create)
    assert run.trigger.aws_conn_id == "aws_default"
    del os.environ["AIRFLOW_CONN_AWS_DEFAULT"]
    run(sensor(deferrable=True))
    assert run.trigger.aws_conn_id is None
    run(create)
    assert run.trigger.aws_conn_id is None


def test_another_missing_connection_is_an_error_after_its_grace(emulator, ambient, run, mode, monkeypatch):
    end_of_grace(monkeypatch)
    with pytest.raises(error_of(mode, MissingConnectionError), match="aws_conn_id='nope': there is no such"):
        run(sensor(**mode, aws_conn_id="nope", soft_fail=True))
    assert keys(emulator) == set()


def test_a_known_connection_never_falls_back_in_a_worker(emulator, connection, ambient, run, monkeypatch):
    end_of_grace(monkeypatch, 0.1)
    emulator.add_fault("expired_token", times=None)

    def fail(error):
        monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT", raising=False)
        return classify_error(error)

    monkeypatch.setattr(_reading, "classify_error", fail)
    with pytest.raises(MissingConnectionError, match="'aws_default'"):
        run(sensor())
    assert keys(emulator) == {"testing"}


def subscribe(**arguments):
    trigger = SageMakerImageVersionTrigger(image_name=IMAGE, **arguments)
    return _shared_poller.Subscription(trigger, IMAGE, Target(), PAUSE)


async def test_without_a_worker_aws_default_must_be_missing_for_a_while(emulator, ambient, monkeypatch, capsys):
    with subscribe() as subscription:
        snapshots = [await subscription.next() for _ in range(4)]
        assert {snapshot.fault for snapshot in snapshots} == {ErrorKind.CREDENTIALS}
        assert {type(snapshot.error) for snapshot in snapshots} == {MissingConnectionError}
        assert not emulator.calls("ListImageVersions")
        end_of_grace(monkeypatch)
        while snapshots[-1].fault is not None:
            snapshots.append(await subscription.next())
        # Many a poll met it, and none ended a wait.
        assert not any(_sessions.has_outlasted_grace(snapshot.fault, snapshot.lasting) for snapshot in snapshots)
        assert keys(emulator) == {"ambient"}
        assert capsys.readouterr().out.count("Connection 'aws_default' does not exist") == 1
        # From then on it is no news.
        client = subscription._poll.client
        client.discard(client._hook)
        assert (await subscription.next()).fault is None


async def test_without_a_worker_other_connections_are_an_error(emulator, ambient, monkeypatch):
    end_of_grace(monkeypatch)
    event = await first_event(SageMakerImageVersionTrigger(image_name=IMAGE, aws_conn_id="nope", poll_interval=PAUSE))
    assert "aws_conn_id='nope': there is no such" in event.payload["error"]


async def test_a_connection_that_comes_in_time_is_used(emulator, ambient, connection, monkeypatch):
    found = os.environ.pop("AIRFLOW_CONN_AWS_DEFAULT")
    with subscribe() as subscription:
        assert isinstance((await subscription.next()).error, MissingConnectionError)
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", found)
        while (await subscription.next()).fault is not None:
            pass
    assert keys(emulator) == {"testing"}


async def test_a_known_connection_never_falls_back_in_the_triggerer(emulator, connection, ambient, monkeypatch):
    end_of_grace(monkeypatch, 0.1)
    emulator.set_version(IMAGE, 1, status="CREATING")
    waiting = asyncio.create_task(first_event(SageMakerImageVersionTrigger(image_name=IMAGE, poll_interval=PAUSE)))
    await eventually(lambda: emulator.calls("ListImageVersions"))
    monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
    emulator.add_fault("expired_token", times=None)
    assert "MissingConnectionError: aws_conn_id='aws_default'" in (await waiting).payload["error"]
    assert keys(emulator) == {"testing"}


async def test_no_credentials_after_the_fallback_are_an_error_with_a_grace_of_its_own(emulator, monkeypatch):
    end_of_grace(monkeypatch, 0.1)
    event = await first_event(SageMakerImageVersionTrigger(image_name=IMAGE, poll_interval=PAUSE))
    assert "NoCredentialsError" in event.payload["error"]


# --- Settings that no request can be made with -----------------------------------------------------------


def test_an_invalid_proxy_ends_a_wait_even_with_soft_fail(ambient, run, mode, monkeypatch):
    end_of_grace(monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:notaport")
    once = {"retries": {"total_max_attempts": 1}}
    with pytest.raises(error_of(mode, HTTPClientError), match="notaport"):
        run(sensor(**mode, aws_conn_id=None, botocore_config=once, timeout=10, soft_fail=True))


def test_a_region_of_the_connection_that_is_not_a_text_is_an_error_that_names_it(connection, run, mode, monkeypatch):
    end_of_grace(monkeypatch)
    connection(region_name=5)
    with pytest.raises(error_of(mode, ValueError), match=r"aws_default.*region_name=5 is not valid"):
        run(sensor(**mode, soft_fail=True))


async def test_a_deferred_update_goes_on_with_its_client_while_airflow_s_database_is_away(
    studio, emulator, connection, monkeypatch
):
    """In Airflow 3, an outage of the database looks like a connection that does not exist."""
    end_of_grace(monkeypatch)
    connection("mine")
    emulator.creation_seconds = 60
    domain = studio.domain()
    trigger = SageMakerStudioUpdateTrigger(domain_id=domain, check_interval=PAUSE, aws_conn_id="mine")
    update = asyncio.create_task(first_event(trigger))
    await eventually(lambda: emulator.calls("DescribeDomain"))
    monkeypatch.delenv("AIRFLOW_CONN_MINE")
    calls_before = len(emulator.calls("DescribeDomain"))
    await eventually(lambda: len(emulator.calls("DescribeDomain")) > calls_before + 3)
    emulator.creation_seconds = 0
    assert (await asyncio.wait_for(update, 20)).payload["status"] == "done"
