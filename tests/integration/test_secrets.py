"""No secret of a connection gets to logs, errors, XComs, links, stored triggers and rendered fields."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from contextlib import aclosing
from urllib.parse import quote, urlencode

import pytest

from airflow_provider_imageversions import _reading, _schedule, _sessions, operators
from airflow_provider_imageversions.errors import CredentialsError, SageMakerImageVersionPollingError
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger
from tests.conftest import MODES

IMAGE = "my-image"
KEY, TOKEN, NOTE, PROXY = "MarkerOfTheKey/+", "MarkerOfTheToken", "MarkerOfAnExtraField", "MarkerOfTheProxy"
# Airflow shows addresses and errors in one form or another.
SECRETS = [KEY, quote(KEY, safe=""), TOKEN, NOTE, PROXY]
PAUSE = 0.02
QUICK = {"check_interval": PAUSE, "timeout": 30}
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/queue"
TASKS = {
    "list": lambda: operators.SageMakerListImageVersionsOperator(task_id="t", image_name=IMAGE, include_details=True),
    **{
        mode: lambda arguments=arguments: SageMakerImageVersionSensor(
            task_id="t", image_name=IMAGE, include_details=True, poke_interval=PAUSE, timeout=30, **arguments
        )
        for mode, arguments in MODES.items()
    },
    "create image": lambda: operators.SageMakerCreateImageOperator(
        task_id="t", image_name=IMAGE, role_arn="arn:aws:iam::123456789012:role/sagemaker", **QUICK
    ),
    **{
        f"create, {kind}": lambda deferrable=deferrable: operators.SageMakerCreateImageVersionOperator(
            task_id="t", image_name=IMAGE, base_image="repository:tag", deferrable=deferrable, **QUICK
        )
        for kind, deferrable in {"waiting": False, "deferred": True}.items()
    },
    "update": lambda: operators.SageMakerUpdateImageVersionOperator(
        task_id="t", image_name=IMAGE, version=1, aliases_to_add=["prod"], **QUICK
    ),
    "promote": lambda: operators.SageMakerPromoteImageVersionOperator(
        task_id="t", image_name=IMAGE, version=1, aliases=["prod"], **QUICK
    ),
    "delete image": lambda: operators.SageMakerDeleteImageOperator(task_id="t", image_name=IMAGE, **QUICK),
    "delete": lambda: operators.SageMakerDeleteImageVersionOperator(task_id="t", image_name=IMAGE, version=1, **QUICK),
    "prune": lambda: operators.SageMakerPruneImageVersionsOperator(
        task_id="t", image_name=IMAGE, keep_newest=1, **QUICK
    ),
}


def as_json(endpoint_url, config):
    extra = {
        "endpoint_url": endpoint_url,
        "region_name": "us-east-1",
        "aws_session_token": TOKEN,
        "note": NOTE,
        "config_kwargs": config,
    }
    return json.dumps({"conn_type": "aws", "login": "AKIDEXAMPLE", "password": KEY, "extra": extra})


def as_uri(endpoint_url, config):
    extra = json.loads(as_json(endpoint_url, config))["extra"]
    return f"aws://AKIDEXAMPLE:{quote(KEY, safe='')}@/?{urlencode({'__extra__': json.dumps(extra)})}"


CONNECTIONS = {"JSON": as_json, "URI": as_uri}
ONCE = {"retries": {"total_max_attempts": 1}}


def all_is_well(emulator, monkeypatch):
    return ONCE


def access_denied(emulator, monkeypatch):
    emulator.add_fault("access_denied", operation=None, times=None)
    return ONCE


def expired(emulator, monkeypatch):
    emulator.add_fault("expired_token", operation=None, times=None)
    return ONCE


def outage(emulator, monkeypatch):
    emulator.add_fault("unavailable", operation=None, times=None)
    return ONCE


def version_failed(emulator, monkeypatch):
    emulator.set_version(IMAGE, 2, status="CREATE_FAILED", failure_reason="no base")
    return ONCE


def proxy_unreachable(emulator, monkeypatch):
    return {**ONCE, "proxies": {"http": f"http://me:{PROXY}@127.0.0.1:9"}, "connect_timeout": 0.5}


def settings_wrong(emulator, monkeypatch):
    return {"proxies": {"http": f"http://me:{PROXY}@127.0.0.1:9"}, "read_timeout": "soon"}


def bug(emulator, monkeypatch):
    def broken(*_):
        raise KeyError("bug")

    monkeypatch.setattr(_reading, "read_versions", broken)
    return ONCE


SITUATIONS = [all_is_well, access_denied, expired, outage, version_failed, proxy_unreachable, settings_wrong, bug]


@pytest.fixture
def connection_format():
    return "JSON"


@pytest.fixture
def secret_connection(connection_format, emulator, monkeypatch):
    """Set the connection with the secrets."""
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 2)
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, PAUSE))
    monkeypatch.setattr(_sessions, "GRACE_PACE", PAUSE)
    monkeypatch.setattr(_sessions, "SLOW_PACE", PAUSE)
    monkeypatch.setattr(_sessions, "BACKOFF_CAP", PAUSE)
    monkeypatch.setattr(_schedule, "SHORTEST_RETRY", PAUSE)

    def set_connection(config):
        value = CONNECTIONS[connection_format](emulator.endpoint_url, config)
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", value)

    return set_connection


@pytest.fixture
def said(capsys, caplog):
    """Return everything that was logged or printed, with our own loggers at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="airflow_provider_imageversions")
    caplog.set_level(logging.DEBUG, logger="airflow.task")

    def text():
        out, err = capsys.readouterr()
        return f"{out}\n{err}\n{caplog.text}"

    return text


def assert_no_secret_in(*texts):
    for text in texts:
        assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@pytest.mark.parametrize(("name", "connection_format"), [*((name, "JSON") for name in TASKS), ("list", "URI")])
def test_a_task_exposes_no_secret(name, situation, emulator, secret_connection, monkeypatch, run, context, said):
    secret_connection(situation(emulator, monkeypatch))
    task = TASKS[name]()
    if situation in {outage, proxy_unreachable}:
        task.timeout = 0.05
    task.render_template_fields({"params": {}})
    delivered = ""
    try:
        delivered = json.dumps(run(task))
    except Exception as error:  # noqa: BLE001 # whatever it is
        delivered = "".join(traceback.format_exception(error))
    rendered = str({field: getattr(task, field) for field in task.template_fields})
    stored = str(run.trigger.serialize()) if run.trigger else ""
    pushed = json.dumps(context["ti"].xcoms)
    logged = said()
    assert delivered
    assert "my-image" in pushed
    assert_no_secret_in(delivered, rendered, stored, pushed, logged)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@pytest.mark.parametrize("connection_format", CONNECTIONS)
def test_a_watcher_exposes_no_secret(situation, emulator, secret_connection, monkeypatch, said, caplog):
    secret_connection(situation(emulator, monkeypatch))
    trigger = SageMakerImageVersionEventTrigger(
        image_name=IMAGE, start_from="earliest", include_details=True, poll_interval=PAUSE
    )

    delivered = []

    async def watch():
        async with aclosing(trigger.run()) as events:
            delivered.append(json.dumps((await anext(events)).payload))

    def is_over():
        if situation in {all_is_well, version_failed}:
            return delivered
        # By the third poll it reports an error that only a person can fix; after a bug it starts again.
        return caplog.text.count(": polled; ") + caplog.text.count(": started polling ") > 4

    async def listen():
        watching = asyncio.create_task(watch())
        while not is_over():  # noqa: ASYNC110 # a log
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(asyncio.wait_for(listen(), 15))
    assert_no_secret_in(*delivered, str(trigger.serialize()), said())


@pytest.mark.parametrize("connection_format", CONNECTIONS)
def test_the_secrets_are_those_that_the_calls_are_signed_with(emulator, secret_connection):
    secret_connection(ONCE)
    hook = SageMakerImageVersionsHook()
    credentials = hook.get_credentials()
    assert (credentials.secret_key, credentials.token) == (KEY, TOKEN)
    assert hook.conn_config.extra_config["note"] == NOTE
    assert len(hook.list_image_versions(IMAGE)) == 2
    assert_no_secret_in(repr(hook), str(vars(hook).get("_config")))


@pytest.mark.parametrize("mode", [*MODES.values(), {"start_from_trigger": True}])
def test_a_password_that_a_template_brings_into_the_botocore_settings_is_refused(mode, emulator, connection, run, said):
    task = SageMakerImageVersionSensor(
        task_id="t",
        image_name=IMAGE,
        botocore_config={"proxies": {"https": "http://me:{{ params.password }}@proxy:1"}},
        poke_interval=0.1,
        timeout=1,
        **mode,
    )
    task.render_template_fields({"params": {"password": PROXY}})
    with pytest.raises(ValueError, match="botocore_config contains an address with a password") as caught:
        run(task)
    assert run.trigger is None
    assert_no_secret_in("".join(traceback.format_exception(caught.value)), said())
    assert emulator.calls() == []


def test_a_connection_in_the_wrong_form_is_not_shown(emulator, monkeypatch, run, said):
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", f'{{"conn_type": "aws", "password": "{PROXY}", "extra": "{{"}}')
    task = TASKS["list"]()
    with pytest.raises(Exception) as caught:  # noqa: PT011 # Airflow's, or boto3's for want of credentials
        run(task)
    assert_no_secret_in("".join(traceback.format_exception(caught.value)), said())


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_invalid_session_token_is_not_shown_even_with_soft_fail(deferrable, emulator, monkeypatch, run, said):
    """As with a line break at its end, where the error of Python's HTTP client shows it."""
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, PAUSE))
    monkeypatch.setattr(_sessions, "GRACE_PACE", PAUSE)
    monkeypatch.setattr(_schedule, "SHORTEST_RETRY", PAUSE)
    value = json.loads(as_json(emulator.endpoint_url, ONCE))
    value["extra"]["aws_session_token"] += "\n"
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(value))
    wait = SageMakerImageVersionSensor(
        task_id="t", image_name=IMAGE, poke_interval=PAUSE, timeout=30, soft_fail=True, deferrable=deferrable
    )
    for task in (wait, TASKS["list"]()):
        with pytest.raises((CredentialsError, SageMakerImageVersionPollingError), match="line break") as caught:
            run(task)
        assert_no_secret_in("".join(traceback.format_exception(caught.value)), said())


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.find_container_digests("123456789012.dkr.ecr.us-east-1.amazonaws.com/team/churn"),
        lambda hook: hook.get_queue_client(QUEUE, wait_seconds=1).receive_message(QueueUrl=QUEUE),
    ],
    ids=["ecr", "sqs"],
)
def test_other_services_do_not_show_an_invalid_session_token_either(call, connection):
    connection(aws_session_token=f"{TOKEN}\n")
    with pytest.raises(CredentialsError, match="line break") as caught:
        call(SageMakerImageVersionsHook())
    assert_no_secret_in("".join(traceback.format_exception(caught.value)))
