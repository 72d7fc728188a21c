from __future__ import annotations

import asyncio
import copy
import inspect
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import botocore.exceptions
import pytest

from airflow_provider_imageversions import _reading, _sessions, compat
from airflow_provider_imageversions.decide import Failed, Ready
from airflow_provider_imageversions.errors import (
    ImageVersionFailedError,
    MissingConnectionError,
    SageMakerImageVersionPollingError,
)
from airflow_provider_imageversions.hooks import AWS_PARAMETERS, SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger
from tests.conftest import first_event
from tests.decision_table import START, TABLE

try:
    from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred
except ImportError:
    from airflow.exceptions import AirflowRescheduleException, TaskDeferred

IMAGE = "my-image"


def sensor(**arguments):
    defaults = {"task_id": "wait", "image_name": IMAGE, "poke_interval": 0.05, "timeout": 30}
    return SageMakerImageVersionSensor(**{**defaults, **arguments})


def seed(emulator, listed, alias=None):
    """Bring the emulator's image into a state such as '4:CREATING 3:CREATED'."""
    statuses = {int(number): status for number, _, status in (item.partition(":") for item in listed.split())}
    client = emulator.client("sagemaker")
    if not statuses:
        client.create_image(ImageName=IMAGE, RoleArn="arn:aws:iam::123456789012:role/role")
        return
    emulator.creation_seconds = 0
    emulator.create_versions(
        IMAGE, max(statuses), start_time=START + timedelta(days=1), spacing_seconds=timedelta(days=1).total_seconds()
    )
    for number in range(1, max(statuses) + 1):
        if number not in statuses:
            client.delete_image_version(ImageName=IMAGE, Version=number)
            continue
        if alias is not None:
            client.update_image_version(ImageName=IMAGE, Version=number, AliasesToAdd=[alias])
        reason = "no base\n image" if statuses[number] == "CREATE_FAILED" else None
        emulator.set_version(IMAGE, number, status=statuses[number], failure_reason=reason)


def deferral_of(task, context):
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    return caught.value


def polls(emulator):
    return len(emulator.calls("ListImageVersions"))


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.05))
    monkeypatch.setattr(_sessions, "GRACE_PACE", 0.03)


# The table is tested in tests/unit; here are the first rows for each kind of target and outcome.
ROWS = {(*row[0], row[2]): row for row in reversed(TABLE)}.values()


@pytest.mark.parametrize(("target", "listed", "kind", "expected"), ROWS)
def test_a_sensor_follows_the_decision_table_in_every_mode(
    emulator, connection, run, mode, target, listed, kind, expected
):
    seed(emulator, listed, alias=target.get("alias"))
    # A wait polls once and times out; a deferral needs a moment to poll.
    task = sensor(**target, **mode, timeout=30 if kind in {Ready, Failed} else 0.1 * mode.get("deferrable", 0))
    if kind is Ready:
        record = run(task)
        assert record["Version"] == expected
        assert record["ImageVersionStatus"] == "CREATED"
    elif kind is Failed:
        with pytest.raises(ImageVersionFailedError) as caught:
            run(task)
        assert expected in str(caught.value)
        assert str(caught.value).startswith("SageMaker image 'my-image': ")
    else:
        with pytest.raises(compat.AirflowSensorTimeout):
            run(task)


@pytest.fixture
def after_looks(emulator):
    """Do something after this number of polls, however long that takes on a busy machine."""

    over = threading.Event()  # a test that is skipped or fails may never poll

    def act(looks, action):
        while polls(emulator) < looks:
            if over.wait(0.01):
                return
        action()

    with ThreadPoolExecutor(1) as pool:
        yield lambda looks, action: pool.submit(act, looks, action)
        over.set()


@pytest.fixture
def created_when_looked_at(emulator, after_looks):
    """Make a version CREATED after this number of polls."""
    return lambda version, looks: after_looks(looks, lambda: emulator.set_version(IMAGE, version, status="CREATED"))


def test_a_sensor_waits_until_the_version_is_created(emulator, connection, run, mode, created_when_looked_at):
    emulator.creation_seconds = 60
    emulator.create_versions(IMAGE, 3)
    client = emulator.client("sagemaker")
    client.create_image_version(ImageName=IMAGE, BaseImage="repository:tag", ClientToken="token", Aliases=["blue"])
    created_when_looked_at(4, looks=3)
    record = run(sensor(version="4", include_details="True", **mode))
    assert record["Version"] == 4
    assert record["ImageVersionStatus"] == "CREATED"
    assert record["Aliases"] == ["blue"]
    assert "@sha256:" in record["ContainerImage"]
    assert isinstance(record["CreationTime"], str)
    assert polls(emulator) > 2


def test_a_sensor_fails_with_the_service_s_reason(emulator, connection, run, mode):
    emulator.creation_seconds = 0.1
    client = emulator.client("sagemaker")
    emulator.create_versions(IMAGE, 1)
    client.create_image_version(ImageName=IMAGE, BaseImage="repository:does-not-exist", ClientToken="token")
    with pytest.raises(ImageVersionFailedError, match=r"version 2 is CREATE_FAILED: .*does-not-exist"):
        run(sensor(**mode))


def test_a_poke_is_one_call_whatever_the_number_of_versions(emulator, connection, run, mode):
    emulator.create_versions(IMAGE, 1000)
    emulator.create_versions(IMAGE, 1, status="CREATING")
    for target in ({}, {"version": 1001}, {"after_version": 1000}, {"created_after": datetime.now(timezone.utc)}):
        before = polls(emulator)
        with pytest.raises(compat.AirflowSensorTimeout):
            run(sensor(**target, **mode, timeout=0, poke_interval=60))
        # A deferral without any time may end before its first poll.
        assert polls(emulator) - before <= 1 + mode.get("deferrable", False)
    assert {call["parameters"]["MaxResults"] for call in emulator.calls("ListImageVersions")} == {100}
    assert not emulator.calls("DescribeImageVersion")


def test_an_old_version_far_down_the_list_takes_one_call_more(emulator, connection, run, mode):
    emulator.create_versions(IMAGE, 1000)
    assert run(sensor(version=7, **mode))["Version"] == 7
    assert [call["operation"] for call in emulator.calls() if call["operation"] != "CreateImage"] == [
        "ListImageVersions",
        "DescribeImageVersion",
    ]


def test_an_image_that_does_not_exist_yet_is_waited_for_with_one_warning(
    emulator, connection, run, mode, capsys, after_looks
):
    after_looks(2, lambda: emulator.create_versions(IMAGE, 1))
    # A process logs again what the one before may not have, half an interval after it at most.
    assert run(sensor(**mode, poke_interval=0.2))["Version"] == 1
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "does not exist yet" in line]
    assert "'my-image' in region us-east-1 through connection 'aws_default'" in warning
    with pytest.raises(compat.AirflowSensorTimeout):
        run(sensor(**mode, image_name="other", timeout=0.1))


def error_of(mode, in_poke):
    return SageMakerImageVersionPollingError if mode.get("deferrable") else in_poke


@pytest.mark.parametrize("kind", ["access_denied", "expired_token"])
@pytest.mark.parametrize("soft_fail", [False, True])
def test_access_denied_ends_a_wait_and_soft_fail_does_not_hide_it(emulator, connection, run, mode, kind, soft_fail):
    seed(emulator, "1:CREATED")
    emulator.add_fault(kind, times=None)
    with pytest.raises(error_of(mode, botocore.exceptions.ClientError), match=r"not authorized|expired"):
        run(sensor(**mode, soft_fail=soft_fail))


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_missing_connection_ends_a_wait_even_with_soft_fail(emulator, connection, run, mode, soft_fail):
    with pytest.raises(error_of(mode, MissingConnectionError), match="'nope'"):
        run(sensor(**mode, soft_fail=soft_fail, aws_conn_id="nope"))


def test_never_fail_skips_whatever_happens(emulator, connection, run, mode):
    seed(emulator, "1:CREATED")
    emulator.add_fault("access_denied", times=None)
    with pytest.raises(compat.AirflowSkipException):
        run(sensor(**mode, never_fail=True))


def test_silent_fail_logs_access_denied_and_continues(emulator, connection, run, mode):
    seed(emulator, "1:CREATED")
    # The last one is after the grace time.
    emulator.add_fault("access_denied", times=3)
    assert run(sensor(**mode, silent_fail=True))["Version"] == 1
    assert polls(emulator) == 4


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("listed", ["1:CREATE_FAILED", "1:CREATING"], ids=["failed", "timeout"])
def test_a_failed_version_and_a_timeout_are_skipped_with_soft_fail_or_never_fail(
    emulator, connection, run, mode, flag, listed
):
    seed(emulator, listed)
    with pytest.raises(compat.AirflowSkipException):
        run(sensor(**mode, **{flag: True}, timeout=0.1 if listed == "1:CREATING" else 30))


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_the_reason_of_a_skip_is_logged_once(emulator, connection, run, mode, flag, capsys):
    emulator.create_versions(IMAGE, 1)
    emulator.set_version(IMAGE, 1, status="CREATE_FAILED", failure_reason="no such tag")
    with pytest.raises(compat.AirflowSkipException):
        run(sensor(**mode, **{flag: True}))
    assert capsys.readouterr().out.count("Skipping the task instead of failing it: ImageVersionFailedError: ") == 1


def test_details_that_can_t_be_read_yet_are_tried_again(emulator, connection, run, mode):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    seed(emulator, "1:CREATED")
    emulator.add_fault("throttling", operation="DescribeImageVersion", times=2)
    emulator.add_fault("server_error", operation="ListAliases", times=1)
    assert "ContainerImage" in run(sensor(**mode, include_details=True))


def test_denied_details_have_the_same_grace_as_a_list(emulator, connection, run, monkeypatch):
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 20.0))
    seed(emulator, "1:CREATED")
    emulator.add_fault("access_denied", operation="DescribeImageVersion", times=2)
    assert "ContainerImage" in run(sensor(deferrable=True, include_details=True))


@pytest.mark.parametrize("soft_fail", [False, True])
def test_denied_details_end_the_wait_even_with_soft_fail(emulator, connection, run, mode, soft_fail):
    seed(emulator, "1:CREATED")
    emulator.add_fault("access_denied", operation="DescribeImageVersion", times=None)
    with pytest.raises(
        error_of(mode, botocore.exceptions.ClientError),
        match="not authorized to perform: sagemaker:DescribeImageVersion",
    ):
        run(sensor(**mode, include_details=True, soft_fail=soft_fail))


def test_silent_fail_waits_for_denied_details(emulator, connection, run, mode):
    seed(emulator, "1:CREATED")
    emulator.add_fault("access_denied", operation="DescribeImageVersion", times=3)
    assert "ContainerImage" in run(sensor(**mode, include_details=True, silent_fail=True))


@pytest.mark.parametrize("soft_fail", [False, True])
def test_with_silent_fail_access_denied_to_the_end_is_a_timeout(emulator, connection, run, mode, soft_fail):
    seed(emulator, "1:CREATED")
    emulator.add_fault("access_denied", times=None)
    with pytest.raises(compat.AirflowSkipException if soft_fail else compat.AirflowSensorTimeout):
        run(sensor(**mode, silent_fail=True, soft_fail=soft_fail, timeout=0.1))


def test_a_deferral_has_the_sensor_s_timeout_and_a_last_check(emulator, connection, run, monkeypatch):
    seed(emulator, "1:CREATED")

    async def never(_self):
        await asyncio.Event().wait()

    monkeypatch.setattr(SageMakerImageVersionTrigger, "_wait", never)
    assert run(sensor(deferrable=True, timeout=0.1))["Version"] == 1
    assert run.timeout == 0.1


def test_reschedule_mode_asks_for_the_poke_interval(emulator, connection, context):
    seed(emulator, "1:CREATING")
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        sensor(mode="reschedule", poke_interval=40).execute(context)
    assert 38 < (rescheduled.value.reschedule_date - datetime.now(timezone.utc)).total_seconds() <= 40


# --- The deferral carries everything ---------------------------------------------------------------------

GIVEN = {
    "image_name": IMAGE,
    "version": None,
    "alias": "prod",
    "after_version": 3,
    "created_after": "2026-01-01T00:00:00+00:00",
    "include_details": True,
    "poll_interval": 7.5,
    "exponential_backoff": True,
    "max_wait": 120.0,
    "silent_fail": True,
    "end_from_trigger": False,
    "aws_conn_id": "other",
    "region_name": "eu-west-1",
    "verify": "/etc/ssl/own.pem",
    "botocore_config": {"read_timeout": 9},
}


def test_every_parameter_survives_the_deferral(emulator, connection, context):
    connection("other")
    arguments = {("poke_interval" if name == "poll_interval" else name): value for name, value in GIVEN.items()}
    trigger = deferral_of(sensor(**arguments, deferrable=True), context).trigger
    assert trigger.serialize() == ("airflow_provider_imageversions.triggers.SageMakerImageVersionTrigger", GIVEN)
    again = SageMakerImageVersionTrigger(**GIVEN)
    assert again.serialize() == trigger.serialize()


def test_sensor_and_trigger_take_the_same_parameters():
    def parameters(cls):
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs", "_later"}

    of_sensor, of_trigger = parameters(SageMakerImageVersionSensor), parameters(SageMakerImageVersionTrigger)
    assert of_sensor - of_trigger == {"deferrable", "start_from_trigger"}
    of_trigger_alone = of_trigger - of_sensor - parameters(compat.BaseSensorOperator)
    assert of_trigger_alone == {"poll_interval", "rendered", "created_by_task"}
    not_templated = of_sensor - set(SageMakerImageVersionSensor.template_fields)
    assert not_templated == {"deferrable", "start_from_trigger", "end_from_trigger"}
    trigger = SageMakerImageVersionTrigger(image_name=IMAGE, rendered={}, created_by_task=True)
    assert set(trigger.serialize()[1]) == of_trigger


def test_the_trigger_s_hook_gets_region_tls_and_botocore_settings(emulator, connection, run, monkeypatch):
    connection("other", region_name="us-west-2")
    emulator.create_versions(IMAGE, 1, region_name="eu-west-1")
    seen = []
    original = _reading.read_versions

    def take(hook, *arguments):
        seen.append(hook)
        return original(hook, *arguments)

    monkeypatch.setattr(_reading, "read_versions", take)
    given = {name: GIVEN[name] for name in AWS_PARAMETERS} | {"verify": False}
    for mode in ({"deferrable": True}, {"mode": "poke"}):
        run(sensor(**given, **mode))
    for hook in seen:
        assert hook.aws_conn_id == "other"
        assert hook.conn.meta.region_name == "eu-west-1"
        assert hook.verify is False
        assert hook.conn.meta.config.read_timeout == 9
    assert len(seen) == 2


async def test_a_trigger_takes_arguments_of_another_version_of_this_package(capsys):
    trigger = SageMakerImageVersionTrigger(image_name="bad name!", version="x", added_later=1)
    assert "added_later" not in trigger.serialize()[1]
    await anext(trigger.run())
    assert (
        "Ignoring unknown arguments of the trigger for SageMaker image 'bad name!': added_later"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("arguments", [{"image_name": "bad name!"}, {"version": "x"}, {"created_after": "today"}])
async def test_a_trigger_reports_invalid_arguments_with_an_event(arguments):
    trigger = SageMakerImageVersionTrigger(**{"image_name": IMAGE, **arguments})
    event = await anext(trigger.run())
    assert event.payload["status"] == "error"
    assert next(iter(arguments)) in event.payload["error"]


def test_exponential_backoff_is_kept_up_in_the_triggerer(emulator, connection, run, created_when_looked_at):
    seed(emulator, "1:CREATING")
    # The thirteenth poll would be after 40 seconds if pauses doubled without limit.
    created_when_looked_at(1, looks=13)
    run(sensor(deferrable=True, poke_interval=0.01, exponential_backoff=True, max_wait=0.04, timeout=30))
    times = [call["monotonic"] for call in emulator.calls("ListImageVersions")]
    # Between these there are twelve pauses: of 0.04 seconds, if the first ones doubled.
    assert times[-1] - times[-13] > 6 * 0.04


# --- Without a worker -------------------------------------------------------------------------------------


needs_start = pytest.mark.skipif(not compat.STARTS_FROM_TRIGGER, reason="this Airflow starts no task in the triggerer")
needs_end = pytest.mark.skipif(not compat.ENDS_FROM_TRIGGER, reason="this Airflow's triggerer writes no XCom")


@needs_start
def test_a_start_from_the_trigger_has_the_same_arguments_as_a_deferral():
    task = sensor(version="{{ params.version }}", start_from_trigger=True, timeout=77, region_name="eu-west-1")
    arguments = task.start_trigger_args
    assert task.start_from_trigger
    assert task.deferrable
    assert arguments.trigger_cls == "airflow_provider_imageversions.triggers.SageMakerImageVersionTrigger"
    assert arguments.next_method == "execute_complete"
    assert arguments.timeout == timedelta(seconds=77)
    trigger = SageMakerImageVersionTrigger(**arguments.trigger_kwargs)
    assert trigger.serialize()[1] == arguments.trigger_kwargs
    assert trigger.version == "{{ params.version }}"
    assert trigger.region_name == "eu-west-1"


@needs_start
def test_what_json_changes_in_a_parameter_does_not_look_like_another_wait(emulator, connection, context):
    emulator.create_versions(IMAGE, 1)
    task = sensor(version=1, start_from_trigger=True, botocore_config={"client_cert": ("c.pem", "k.pem")})
    arguments = json.loads(json.dumps(task.start_trigger_args.trigger_kwargs))
    event = asyncio.run(first_event(SageMakerImageVersionTrigger(**arguments)))
    assert task.execute_complete(context, json.loads(json.dumps(event.payload)))["Version"] == 1


async def test_a_trigger_takes_what_templates_render_to(emulator, connection):
    emulator.create_versions(IMAGE, 2)
    trigger = SageMakerImageVersionTrigger(image_name=IMAGE, version="2", include_details="True", region_name="None")
    payload = (await first_event(trigger)).payload
    assert payload["version"]["Version"] == 2
    assert "ContainerImage" in payload["version"]


def schema():
    try:
        from airflow.sdk import Param
    except ImportError:  # Airflow 2
        from airflow.models.param import Param
    return {"version": Param(1, type="integer")}  # noqa: AIR311  # Airflow 2's


def asset(name):
    try:
        from airflow.sdk import Asset
    except ImportError:  # Airflow 2
        from airflow.datasets import Dataset as Asset
    return Asset(name)


def upstream():
    return SageMakerImageVersionSensor(task_id="upstream", image_name=IMAGE)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (lambda: {"after_version": upstream().output["Version"]}, "XComArg"),
        (lambda: {"alias": lambda **_: "prod"}, "callable"),
        (lambda: {"version": "{{ ti.xcom_pull('a') }}"}, "ti.xcom_pull"),
        (lambda: {"botocore_config": {"user_agent_extra": "{{ ti.xcom_pull('a') }}"}}, "ti.xcom_pull"),
        (lambda: {"created_after": "{{ prev_start_date_success }}"}, "prev_start_date_success"),
        (lambda: {"alias": "{{ var.value.alias }}"}, "var.value.alias"),
        (lambda: {"pool": "small"}, "pool slots"),
        (lambda: {"pool_slots": 2}, "pool slots"),
        (lambda: {"max_active_tis_per_dag": 1}, "max_active_tis"),
        (lambda: {"max_active_tis_per_dagrun": 1}, "max_active_tis"),
        (lambda: {"execution_timeout": timedelta(minutes=1)}, "execution_timeout"),
        (lambda: {"on_execute_callback": print}, "on_execute_callback would not run"),
        (lambda: {"pre_execute": print}, "pre_execute would not run"),
        (lambda: {"params": schema()}, "JSON schema"),
        (lambda: {"inlets": [asset("in")]}, "inlets"),
    ],
)
def test_a_worker_defers_with_a_warning_where_a_start_in_the_trigger_is_impossible(arguments, reason):
    try:
        from airflow.sdk import DAG
    except ImportError:  # Airflow 2
        from airflow import DAG

    warning = pytest.warns(UserWarning, match=f"start_from_trigger=True of task 'wait'.*{reason}")
    with DAG("ordinary_way", schedule=None), warning:
        task = sensor(start_from_trigger=True, **arguments())
    assert not task.start_from_trigger
    assert task.start_trigger_args is None
    assert task.deferrable


@pytest.mark.skipif(compat.STARTS_FROM_TRIGGER and compat.ENDS_FROM_TRIGGER, reason="this Airflow can do both")
def test_an_older_airflow_uses_a_worker_and_warns_once_per_option():
    with pytest.warns(UserWarning, match=r"_from_trigger=True of task 'wait'") as warned:
        task = sensor(start_from_trigger=True, end_from_trigger=True)
    assert sorted(str(warning.message).partition("=")[0] for warning in warned) == [
        "end_from_trigger",
        "start_from_trigger",
    ]
    assert all("this Airflow, older than 3.3, cannot" in str(warning.message) for warning in warned)
    assert not getattr(task, "start_from_trigger", False)
    assert not task.end_from_trigger
    assert task.deferrable


@needs_start
@pytest.mark.parametrize(
    "environment", [{"user_defined_macros": {"newest": 3}}, {"user_defined_filters": {"newest": max}}]
)
def test_custom_macros_and_filters_prevent_a_start_in_the_trigger(environment):
    from airflow.sdk import DAG

    with DAG("macros", schedule=None, **environment):
        assert sensor(version=3, start_from_trigger=True, task_id="known").start_from_trigger
        with pytest.warns(UserWarning, match="macros"):
            task = sensor(version="{{ params.version }}", start_from_trigger=True)
    assert not task.start_from_trigger


@needs_start
@pytest.mark.parametrize("of", ["dag", "task"])
def test_params_that_may_be_invalid_prevent_a_start_from_the_trigger(of):
    from airflow.sdk import DAG, Param

    for param in (Param(), Param(1, type="integer")):
        params = {"plain": 1, "odd": param}
        dag = DAG("params", schedule=None, params=params if of == "dag" else {})
        with dag, pytest.warns(UserWarning, match="JSON schema or without a value"):
            task = sensor(start_from_trigger=True, params=params if of == "task" else {})
        assert not task.start_from_trigger


@needs_start
def test_native_rendering_prevents_a_start_in_the_trigger():
    from airflow.sdk import DAG

    with DAG("native", schedule=None, render_template_as_native_obj=True):
        assert sensor(alias="1.0", start_from_trigger=True, task_id="literal").start_from_trigger
        with pytest.warns(UserWarning, match="render_template_as_native_obj"):
            assert not sensor(alias="{{ params.alias }}", start_from_trigger=True).start_from_trigger


@needs_start
def test_custom_jinja_delimiters_prevent_a_start_in_the_trigger():
    from airflow.sdk import DAG

    delimiters = {"variable_start_string": "[[", "variable_end_string": "]]"}
    with DAG("delimiters", schedule=None, jinja_environment_kwargs=delimiters):
        task = sensor(version="[[ params.version ]]")
        assert task.version == "[[ params.version ]]"
        with pytest.raises(ValueError, match="version"):
            sensor(version="{{ params.version }}", task_id="literal")
        with pytest.warns(UserWarning, match="Jinja environment"):
            direct = sensor(version="[[ params.version ]]", start_from_trigger=True, task_id="direct")
    assert not direct.start_from_trigger


@needs_start
def test_with_trigger_queues_a_worker_defers(monkeypatch):
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    with pytest.warns(UserWarning, match="trigger queue"):
        assert not sensor(start_from_trigger=True).start_from_trigger


def test_a_mapped_task_goes_through_a_worker():
    assert SageMakerImageVersionSensor.start_trigger_args is None
    assert SageMakerImageVersionSensor.start_from_trigger is False
    mapped = SageMakerImageVersionSensor.partial(task_id="a", image_name=IMAGE, start_from_trigger=True).expand(
        version=[1, 2]
    )
    assert mapped.start_trigger_args is None


class Announced(SageMakerImageVersionSensor):
    """A subclass that does something of its own before it waits."""

    def execute(self, context):
        self.log.info("announced")
        return super().execute(context)


class Counted(SageMakerImageVersionSensor):
    """A subclass that does something of its own when the wait is over."""

    def execute_complete(self, context, event=None, began=None):
        return {"counted": super().execute_complete(context, event, began)}


@needs_start
@needs_end
def test_what_a_subclass_does_in_a_worker_keeps_it_going_through_one():
    arguments = {"task_id": "a", "image_name": IMAGE, "start_from_trigger": True, "end_from_trigger": True}
    with pytest.warns(UserWarning, match=r"Announced\.execute\(\) would not run"):
        task = Announced(**arguments)
    assert not task.start_from_trigger
    assert task.end_from_trigger
    with pytest.warns(UserWarning, match=r"Counted\.execute_complete\(\)"):
        task = Counted(**arguments)
    assert task.start_from_trigger
    assert not task.end_from_trigger


class Noted(SageMakerImageVersionSensor):
    """A subclass with a template field of its own, which it sets after the package's constructor."""

    template_fields = (*SageMakerImageVersionSensor.template_fields, "note")

    def __init__(self, *, note, **arguments):
        super().__init__(**arguments)
        self.note = note


@needs_start
@needs_end
def test_a_template_field_of_a_subclass_allows_a_start_in_the_trigger():
    task = Noted(
        task_id="a",
        image_name=IMAGE,
        note="{{ var.value.note }}",
        start_from_trigger=True,
        end_from_trigger=True,
    )
    assert task.start_from_trigger
    assert task.end_from_trigger
    assert "note" not in task.start_trigger_args.trigger_kwargs


class Particular(SageMakerImageVersionSensor):
    """A subclass with a condition of its own."""

    def poke(self, context):
        found = super().poke(context)
        return found if found.is_done and found.xcom_value["Version"] > 5 else False


def test_a_condition_of_a_subclass_counts_in_every_mode(emulator, connection, run, mode, caplog, capsys):
    emulator.create_versions(IMAGE, 1)
    given = {"task_id": "a", "image_name": IMAGE, "poke_interval": 0.05, "timeout": 0.1, **mode}
    with pytest.raises(compat.AirflowSensorTimeout):
        run(Particular(**given))
    warned = "waiting in a worker, because a trigger would not call Particular.poke()" in (
        capsys.readouterr().out + caplog.text
    )
    assert warned == ("deferrable" in mode)


@needs_start
@needs_end
def test_a_condition_of_a_subclass_prevents_a_start_and_an_end_in_the_trigger():
    given = {"task_id": "a", "image_name": IMAGE, "end_from_trigger": True}
    with pytest.warns(UserWarning, match=r"start_from_trigger=True .*Particular\.poke\(\)"):
        assert not Particular(**given, start_from_trigger=True).start_from_trigger
    with pytest.warns(UserWarning, match=r"end_from_trigger=True .*Particular\.poke\(\)"):
        assert not Particular(**given).end_from_trigger


FLAGS = ("soft_fail", "never_fail", "silent_fail", "exponential_backoff", "deferrable")


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_is_no_boolean_is_refused_whenever_it_is_set(name):
    with pytest.raises(ValueError, match=f"{name}='no' is not valid: it must be True or False"):
        sensor(**{name: "no"})
    task = sensor(**{name: "True"})
    assert getattr(task, name) is True
    setattr(task, name, "False")
    assert getattr(task, name) is False
    with pytest.raises(ValueError, match=f"{name}=2 is not valid"):
        setattr(task, name, 2)


@needs_start
@needs_end
def test_a_task_may_end_in_the_trigger_as_well():
    task = sensor(start_from_trigger=True, end_from_trigger=True)
    assert task.start_trigger_args.trigger_kwargs["end_from_trigger"]
    assert sensor(end_from_trigger=True).deferrable


@needs_start
@needs_end
def test_a_worker_renders_map_index_template():
    named = {"start_from_trigger": True, "map_index_template": "{{ task.image_name }}"}
    assert sensor(**named).start_from_trigger
    with pytest.warns(UserWarning, match="map_index_template"):
        task = sensor(**named, end_from_trigger=True)
    assert not task.start_from_trigger
    assert task.end_from_trigger


@needs_start
@needs_end
def test_a_template_starts_in_the_trigger_only_where_a_worker_checks_what_it_rendered_to():
    assert sensor(version="{{ params.version }}", start_from_trigger=True).start_from_trigger
    with pytest.warns(UserWarning, match="no worker checks"):
        task = sensor(version="{{ params.version }}", start_from_trigger=True, end_from_trigger=True)
    assert not task.start_from_trigger
    assert task.end_from_trigger


@needs_end
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_success_callback", print),
        ("on_execute_callback", print),
        ("pre_execute", print),
        ("post_execute", print),
        ("outlets", [asset("a")]),
        ("multiple_outputs", True),
    ],
)
def test_a_worker_ends_a_task_where_airflow_would_skip_something_in_the_triggerer(name, value):
    with pytest.warns(UserWarning, match=f"end_from_trigger=True of task 'wait': a worker completes.*{name}"):
        assert not sensor(end_from_trigger=True, **{name: value}).end_from_trigger


@needs_start
@needs_end
@pytest.mark.filterwarnings("ignore:.*_from_trigger=True of task")
@pytest.mark.parametrize(
    ("change", "starts", "ends"),
    [
        (lambda _task: None, True, True),
        (lambda task: task.add_outlets([asset("late")]), True, False),
        (lambda task: setattr(task, "on_success_callback", print), True, False),
        (lambda task: setattr(task, "on_execute_callback", print), False, False),
        (lambda task: setattr(task, "do_xcom_push", False), True, False),
        (lambda task: setattr(task, "pool", "small"), False, True),
        (lambda task: setattr(task, "execution_timeout", timedelta(seconds=9)), False, True),
        (lambda task: setattr(task, "version", "{{ params.version }}"), False, True),
        (lambda task: setattr(task, "deferrable", False), False, False),
        (lambda task: setattr(task, "deferrable", "False"), False, False),
        (lambda task: setattr(task, "pre_execute", print), False, False),
        (lambda task: setattr(task, "post_execute", print), True, False),
        (lambda task: setattr(task, "execute", print), False, True),
        (lambda task: setattr(task, "render_template_fields", print), False, False),
    ],
)
def test_what_is_changed_after_the_construction_counts_when_the_dag_is_serialized(change, starts, ends):
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import BaseSerialization, DagSerialization

    with DAG("changed", schedule=None, params={"version": 1}) as dag:
        task = sensor(version=1, timeout=600, start_from_trigger=True, end_from_trigger=True)
    change(task)
    task.timeout = 4
    (stored,) = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).tasks
    assert stored.start_from_trigger is starts
    if starts:
        assert stored.start_trigger_args.timeout == timedelta(seconds=4)
        assert BaseSerialization.deserialize(stored.start_trigger_args.trigger_kwargs)["end_from_trigger"] is ends
    assert task.end_from_trigger is ends


def test_a_version_that_is_deleted_before_its_details_are_read_ends_no_wait(
    emulator, connection, run, mode, monkeypatch
):
    emulator.create_versions(IMAGE, 1)
    original = SageMakerImageVersionsHook.add_details

    def delete_before(*arguments):
        emulator.set_version(IMAGE, 1, status="DELETING")
        return original(*arguments)

    monkeypatch.setattr(SageMakerImageVersionsHook, "add_details", delete_before)
    with pytest.raises(ImageVersionFailedError, match="version 1 is DELETING"):
        run(sensor(**mode, version=1, include_details=True))
    assert emulator.calls("DescribeImageVersion")


@pytest.mark.parametrize("kind", ["expired_token", "access_denied"])
async def test_an_error_of_the_details_that_passes_does_not_cost_an_interval(emulator, connection, kind):
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault(kind, operation="DescribeImageVersion", times=1)
    trigger = SageMakerImageVersionTrigger(image_name=IMAGE, version=1, include_details=True, poll_interval=600)
    event = await asyncio.wait_for(first_event(trigger), 60)
    assert event.payload["version"]["Version"] == 1
    assert len(emulator.calls("DescribeImageVersion")) == 2


@pytest.mark.parametrize(
    "spans",
    [
        {"timeout": timedelta(seconds=0.1)},
        {"poke_interval": timedelta(seconds=0.05)},
        {"max_wait": 0.05, "exponential_backoff": True},
    ],
)
def test_a_time_span_set_later_means_the_same_in_every_mode(emulator, connection, run, mode, spans):
    """Airflow's constructor takes seconds and timedeltas; a cluster policy sets either."""
    emulator.create_versions(IMAGE, 1)
    task = sensor(version=9, **{"timeout": 0.1, **mode})
    for name, value in spans.items():
        setattr(task, name, value)
    with pytest.raises(compat.AirflowSensorTimeout):
        run(task)


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", float("nan")), ("timeout", None), ("timeout", "soon"), ("poke_interval", -1), ("max_wait", True)],
)
def test_a_time_span_set_later_is_checked_in_every_mode(emulator, connection, run, mode, name, value):
    task = sensor(version=9, timeout=5, **mode)
    setattr(task, name, value)
    with pytest.raises(ValueError, match=f"^{name}={value!r} is not valid"):
        run(task)
    assert emulator.calls("ListImageVersions", IMAGE) == []


@pytest.mark.beyond_model
@pytest.mark.parametrize("arn", ["", "None"])
def test_a_version_without_an_arn_that_names_the_region_is_found(connection, serve, run, mode, arn):
    """The pattern in SageMaker's service model allows ``None``."""
    version = {"Version": 1, "ImageVersionStatus": "CREATED", "ImageVersionArn": arn, "CreationTime": 1.7e9}
    connection(endpoint_url=f"http://{serve(json.dumps({'ImageVersions': [version]}).encode())}")
    assert run(sensor(version=1, timeout=5, **mode))["Version"] == 1


def test_a_timeout_beyond_the_calendar_ends_neither_a_deferral_nor_the_scheduler(emulator, connection, context):
    """Airflow adds it to the time now."""
    deferral = deferral_of(sensor(version=9, timeout=1e12, deferrable=True), context)
    assert datetime.now(timezone.utc) + deferral.timeout
    if compat.STARTS_FROM_TRIGGER:
        assert datetime.now(timezone.utc) + sensor(timeout=1e12, start_from_trigger=True).start_trigger_args.timeout


@needs_end
def test_a_task_that_another_is_mapped_over_is_ended_by_a_worker():
    from airflow.sdk import DAG, task

    @task
    def show(item):
        return item

    with DAG("mapped_over", schedule=None):
        wait = sensor(end_from_trigger=True)
        assert wait.end_from_trigger
        show.expand(item=wait.output)
        with pytest.warns(UserWarning, match="mapped over its result"):
            assert not wait.end_from_trigger


@needs_end
def test_with_a_custom_xcom_backend_a_worker_ends_the_task(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "some.other.Backend")
    with pytest.warns(UserWarning, match="custom XCom backend"):
        assert not sensor(end_from_trigger=True).end_from_trigger


@pytest.mark.parametrize("option", ["start_from_trigger", "end_from_trigger"])
def test_they_need_a_deferrable_task(option):
    with pytest.raises(ValueError, match="deferrable=True"):
        sensor(deferrable=False, **{option: True})


async def test_when_the_xcom_can_t_be_pushed_a_worker_ends_the_task(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    # Outside a triggerer there is nobody to push to.
    event = await first_event(SageMakerImageVersionTrigger(image_name=IMAGE, end_from_trigger=True))
    assert event.payload["status"] == "ready"


# --- What templates render to ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "blank"),
    [("image_name", ""), ("version", "None"), ("alias", " "), ("after_version", ""), ("created_after", "None")],
)
def test_a_value_that_renders_to_nothing_fails_the_task_in_every_mode(emulator, connection, run, mode, name, blank):
    emulator.create_versions(IMAGE, 2)
    task = sensor(**{name: "{{ params.x }}"}, **mode)
    setattr(task, name, blank)
    with pytest.raises(ValueError, match=f"^{name}='{blank}' is not valid"):
        run(task)


@needs_start
def test_never_fail_hides_it_in_no_mode(emulator, connection, run, mode, context):
    emulator.create_versions(IMAGE, 2)
    for options in (mode, {"start_from_trigger": True}):
        task = sensor(alias="{{ params.x }}", never_fail=True, **options)
        task.alias = "None"
        with pytest.raises(ValueError, match=r"^alias='None' is not valid"):
            run(task)
    # With start_from_trigger the triggerer rendered it first.
    with pytest.raises(ValueError, match=r"^alias='None' is not valid"):
        task.resume_execution("execute_complete", {"event": asyncio.run(event_of(alias="None"))}, context)


def test_an_empty_connection_id_means_boto3_s_default_credentials():
    assert aws_parameters(sensor(aws_conn_id=""))["aws_conn_id"] is None


async def test_a_trigger_reports_a_template_that_rendered_to_nothing(emulator, connection):
    emulator.create_versions(IMAGE, 2)
    payload = (await first_event(SageMakerImageVersionTrigger(image_name=IMAGE, version=""))).payload
    assert payload["status"] == "error"
    assert payload["error"].startswith("version='' is not valid")
    assert payload["waited_for"] is None


@needs_start
async def test_a_template_that_is_undefined_in_the_triggerer_is_an_error_of_the_wait(emulator, connection):
    emulator.create_versions(IMAGE, 2)
    trigger = SageMakerImageVersionTrigger(image_name=IMAGE, alias="{% if params.typo %}a{% else %}b{% endif %}")
    trigger.template_fields = ("alias",)
    trigger.render_template_fields({"params": {}})
    payload = (await first_event(trigger)).payload
    assert payload["status"] == "error"
    assert "typo" in payload["error"]


async def event_of(**arguments):
    trigger = SageMakerImageVersionTrigger(**{"image_name": IMAGE, "poll_interval": 1, **arguments})
    return json.loads(json.dumps((await first_event(trigger)).payload))


@needs_start
def test_a_worker_takes_what_the_triggerer_waited_for_if_both_rendered_the_same(emulator, connection, context):
    emulator.create_versions(IMAGE, 3)
    event = asyncio.run(event_of(version="2", include_details="False"))
    task = sensor(version=2, start_from_trigger=True)
    assert task.execute_complete(context, event)["Version"] == 2


@needs_start
@pytest.mark.parametrize(
    "other", [{"version": "1"}, {"image_name": "other"}, {"include_details": True}, {"region_name": "eu-west-1"}]
)
def test_a_worker_waits_again_where_the_triggerer_rendered_something_else(emulator, connection, context, other):
    for image_name, region_name in [(IMAGE, "us-east-1"), ("other", "us-east-1"), (IMAGE, "eu-west-1")]:
        emulator.create_versions(image_name, 3, region_name=region_name)
    event = asyncio.run(event_of(**{"version": "2", **other}))
    assert event["status"] == "ready"
    task = sensor(version=2, start_from_trigger=True, timeout=60)
    deferral = resumed(task, context, event)
    assert deferral.method_name == "execute_complete"
    # The triggerer renders those of its arguments again that are template fields of the task.
    _path, arguments = deferral.trigger.serialize()
    assert {name for name in task.template_fields if arguments.get(name)} == {"image_name", "aws_conn_id"}
    again = asyncio.run(first_event(SageMakerImageVersionTrigger(**arguments))).payload
    assert again["version"]["ImageVersionArn"].endswith(f":image-version/{IMAGE}/2")
    assert ":us-east-1:" in again["version"]["ImageVersionArn"]
    assert task.execute_complete(context, again, **deferral.kwargs)["Version"] == 2


def resumed(task, context, event):
    try:
        task.execute_complete(context, event)
    except BaseException as raised:  # noqa: BLE001 # Airflow's way to defer a task is no Exception
        return raised
    raise AssertionError


# --- What soft_fail cannot hide --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        {"error": "Trigger failure", "traceback": ["ModuleNotFoundError: No module named 'airflow_provider'"]},
        {"error": "Trigger failure"},
        {},
    ],
)
def test_soft_fail_does_not_hide_a_trigger_that_failed(context, failure):
    with pytest.raises(SageMakerImageVersionPollingError, match="The trigger failed in the triggerer"):
        sensor(deferrable=True, soft_fail=True).resume_execution("__fail__", failure, context)


@pytest.mark.parametrize(
    "event", [None, {}, [], "ready", {"status": "ready"}, {"status": "done"}, {"status": "ready", "version": 3}]
)
def test_soft_fail_does_not_hide_an_event_that_can_t_be_read(context, event):
    task = sensor(deferrable=True, soft_fail=True)
    arguments = {"event": event, "began": "2026-01-01T00:00:00+00:00"}
    with pytest.raises(SageMakerImageVersionPollingError, match="trigger"):
        task.resume_execution("execute_complete", arguments, context)


def test_execution_timeout_ends_a_deferral_as_it_ends_a_worker(emulator, connection, context):
    emulator.create_versions(IMAGE, 1)
    task = sensor(version=9, deferrable=True, soft_fail=True, timeout=3600, execution_timeout=timedelta(seconds=5))
    assert deferral_of(task, context).timeout == timedelta(seconds=5)
    with pytest.raises(compat.AirflowTaskTimeout, match="execution_timeout of 5 seconds"):
        task.resume_execution("__fail__", {"error": "Trigger timeout"}, context)


# --- What a DAG author sees ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_name": "bad name!"},
        {"version": "one"},
        {"version": -1},
        {"after_version": 1.5},
        {"alias": "-x"},
        {"created_after": "2026-01-01"},
        {"include_details": "maybe"},
        {"botocore_config": {"no_such_option": 1}},
        {"version": 1, "alias": "prod"},
    ],
)
def test_bad_input_is_refused_when_the_dag_is_parsed(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        sensor(**arguments)


@pytest.mark.parametrize("arguments", [{"version": "{{ params.v }}"}, {"image_name": "{{ params.image }}"}])
def test_a_template_is_checked_when_it_is_rendered(emulator, connection, run, mode, arguments):
    task = sensor(**arguments, **mode)
    name = next(iter(arguments))
    setattr(task, name, "not valid!")
    with pytest.raises(ValueError, match=f"^{name}='not valid!'"):
        run(task)


@pytest.mark.parametrize(("rendered", "taken"), [("None", None), ("", None), ("eu-west-1", "eu-west-1")])
def test_a_region_that_renders_to_nothing_is_the_connection_s(rendered, taken):
    assert aws_parameters(sensor(region_name=rendered))["region_name"] == taken
    assert aws_parameters(sensor(verify="False"))["verify"] is False


@pytest.mark.parametrize(
    "value",
    [{"retries": {"max_attempts": "{{ params.n }}"}}, {"proxies": {"https": "http://u:{{ conn.p.password }}@p:1"}}],
)
def test_a_template_deep_in_the_botocore_settings_is_left_alone_when_the_dag_is_parsed(value):
    assert sensor(botocore_config=value).botocore_config == value


def test_a_copy_of_a_sensor_that_has_polled_can_poll(emulator, connection, context):
    emulator.create_versions(IMAGE, 1)
    original = sensor(version=2)
    assert not original.poke(context).is_done
    twin = copy.deepcopy(original)
    emulator.create_versions(IMAGE, 1)
    assert twin.poke(context).xcom_value == original.poke(context).xcom_value


def test_deferrable_follows_airflow_s_default(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert sensor().deferrable
    assert not sensor(deferrable=False).deferrable


def test_the_log_has_changes_of_state_rather_than_polls_and_the_time_it_took(
    emulator, connection, run, mode, capsys, created_when_looked_at
):
    emulator.creation_seconds = 60
    emulator.create_versions(IMAGE, 1)
    emulator.client("sagemaker").create_image_version(ImageName=IMAGE, BaseImage="repository:tag", ClientToken="token")
    created_when_looked_at(2, looks=7)
    run(sensor(version=2, **mode, poke_interval=0.1))
    text = capsys.readouterr().out
    # A change directly before a poke may be logged again at the next one, in another process.
    assert 1 <= text.count("version 2 is CREATING") <= (2 if mode.get("mode") == "reschedule" else 1)
    (seconds,) = re.findall(r"version 2 is CREATED, after (\d+) seconds of waiting", text)
    assert int(seconds) >= 1


@pytest.mark.parametrize("exponential_backoff", [False, True])
def test_a_reschedule_logs_an_old_state_only_if_the_poll_before_may_not_have(
    emulator, connection, context, capsys, exponential_backoff
):
    emulator.create_versions(IMAGE, 1, status="CREATING", start_time=time.time() - 60)
    began = datetime.now(timezone.utc) - timedelta(minutes=5)
    context["ti"].start_date = context["ti"].first_reschedule_date = began
    with pytest.raises(AirflowRescheduleException):
        sensor(version=1, mode="reschedule", timeout=3600, exponential_backoff=exponential_backoff).execute(context)
    assert ("version 1 is CREATING" in capsys.readouterr().out) == exponential_backoff


@pytest.mark.parametrize("region", ["us-iso-east-1", "us-isob-east-1"])
def test_there_is_no_button_to_a_console_whose_address_airflow_does_not_know(
    emulator, connection, run, context, region
):
    connection(region_name=region)
    emulator.create_versions(IMAGE, 1, region_name=region)
    assert run(sensor())["Version"] == 1
    assert "sagemaker_image" not in context["ti"].xcoms


def test_the_button_leads_to_the_image_in_the_console(emulator, connection, run, mode, context):
    connection(region_name="us-gov-west-1")
    emulator.create_versions(IMAGE, 1, region_name="us-gov-west-1")
    run(sensor(**mode))
    assert context["ti"].xcoms["sagemaker_image"] == {
        "region_name": "us-gov-west-1",
        "aws_domain": "amazonaws-us-gov.com",
        "image_name": IMAGE,
    }


@needs_start
@pytest.mark.parametrize("end", ["event", "Trigger timeout", "Trigger failure"])
def test_a_task_that_started_in_the_trigger_has_its_button_whatever_ends_the_wait(emulator, connection, context, end):
    emulator.create_versions(IMAGE, 1)
    task = sensor(version=1, start_from_trigger=True)
    if end == "event":
        trigger = SageMakerImageVersionTrigger(**task.start_trigger_args.trigger_kwargs)
        task.resume_execution("execute_complete", {"event": asyncio.run(first_event(trigger)).payload}, context)
    elif end == "Trigger timeout":
        task.resume_execution("__fail__", {"error": end}, context)
    else:
        with pytest.raises(SageMakerImageVersionPollingError):
            task.resume_execution("__fail__", {"error": end}, context)
    assert context["ti"].xcoms["sagemaker_image"]["image_name"] == IMAGE
