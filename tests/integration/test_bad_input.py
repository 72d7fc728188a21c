"""Whatever is given for a parameter: an error that names it, and nothing sent."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import time
from datetime import datetime, timedelta
from decimal import Decimal

import attrs
import botocore.exceptions
import pytest
from botocore.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_imageversions import _requests, _sessions, compat, model, operators
from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.errors import (
    MissingConnectionError,
    SageMakerImageOperationError,
    UnusableSettingError,
)
from airflow_provider_imageversions.hooks import AWS_PARAMETERS, SageMakerImageVersionsHook
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger, SageMakerImageVersionTrigger
from tests.conftest import TaskInstance, first_event, needs_watchers

IMAGE = "my-image"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
NAIVE = datetime(2026, 1, 31)  # noqa: DTZ001 # naive on purpose

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    # Too long to be printed.
    st.builds(pow, st.just(10), st.just(5000)),
    st.sampled_from([2**31, 2**63, math.inf, math.nan, 1e300, -0.0]),
    st.floats(),
    st.text(st.characters()),
    st.sampled_from(
        ["[" * 100_000, "9" * 5000, "x" * 10_000, "{", "\x00", "\ud800", "None", "True", "nan", "1e9", "{}"]
    ),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
JUNK = st.one_of(
    JSON,
    st.binary(max_size=5),
    st.decimals(),
    st.timedeltas(),
    st.datetimes(),
    st.sampled_from([object(), object, len, NAIVE.date(), NAIVE, timedelta.max, Decimal("sNaN"), 1j, range(3), b"x"]),
    st.tuples(SCALARS, SCALARS),
    st.frozensets(st.text(max_size=3) | st.integers(), max_size=3),
    st.dictionaries(st.integers() | st.text(max_size=3), JSON, max_size=2),
)
# botocore fills a pool of connections with a place for each of them: a huge one takes hours.
OPTIONS = st.dictionaries(
    st.sampled_from(sorted(Config.OPTION_DEFAULTS)),
    JSON.filter(lambda value: not isinstance(value, (int, float)) or abs(value) < 10_000),
    min_size=1,
    max_size=2,
)


def given_junk(values, examples=25):
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    number = min(examples, settings.default.max_examples)
    return lambda test: settings(max_examples=number, suppress_health_check=quiet)(given(value=values)(test))


LONG = "x" * 100_000
TASKS = {
    operators.SageMakerListImageVersionsOperator: {},
    operators.SageMakerCreateImageOperator: {"role_arn": ROLE},
    operators.SageMakerCreateImageVersionOperator: {"base_image": "repository:tag", "wait_for_completion": False},
    operators.SageMakerDeleteImageOperator: {"wait_for_completion": False},
    operators.SageMakerUpdateImageVersionOperator: {"version": 1, "release_notes": "x"},
    operators.SageMakerPromoteImageVersionOperator: {"version": 1, "aliases": ["prod"]},
    operators.SageMakerDeleteImageVersionOperator: {"version": 1, "wait_for_completion": False},
    operators.SageMakerPruneImageVersionsOperator: {"keep_newest": 1, "preview": True},
    operators.SageMakerRolloutImageVersionOperator: {
        "domain_id": "d-1",
        "version": 1,
        "app_image_config_name": "config",
    },
    operators.SageMakerImageVersionUsageOperator: {},
    SageMakerImageVersionSensor: {"timeout": 0},
}


def own_parameters(cls):
    """The parameters of a class and of its bases in this package."""
    names = {
        name
        for base in cls.__mro__
        if base.__module__.startswith("airflow_provider_imageversions.") and "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    return sorted(names - {"self"})


def make(cls, **arguments):
    return cls(**{"task_id": "task", "image_name": IMAGE, **TASKS[cls], **arguments})


def is_its_own(cls, name):
    """Return whether a parameter has code of its own: how to reach AWS is checked by the operators' base class."""
    return name not in AWS_PARAMETERS or cls in {operators.SageMakerCreateImageOperator, SageMakerImageVersionSensor}


OF_TASKS = [(cls, name) for cls in TASKS for name in own_parameters(cls)]
TEMPLATED = [(cls, name) for cls, name in OF_TASKS if name in cls.template_fields]


def of(pairs):
    cells = [pytest.param(cls, name, id=f"{cls.__name__}-{name}") for cls, name in pairs]
    return pytest.mark.parametrize(("cls", "name"), cells)


def taken_or_refused(call, name, emulator=None):
    """Check that a value that is refused is refused by name, and before anything is sent."""
    try:
        call()
    except (ValueError, TypeError, MissingConnectionError, UnusableSettingError) as error:
        assert name in str(error), repr(error)  # noqa: PT017 # both ends are right
        assert len(str(error)) < 2000  # noqa: PT017 # likewise
        assert emulator is None or emulator.calls() == []


def taken(call, service):
    """Use a value that was accepted: later errors are those of SageMaker, of credentials or of a wait."""
    try:
        call()
    except (botocore.exceptions.ClientError, compat.AirflowSensorTimeout):
        assert service.calls()
    except (botocore.exceptions.NoCredentialsError, SageMakerImageOperationError):
        pass


@pytest.fixture
def service(emulator, connection):
    return emulator


@of(pair for pair in OF_TASKS if is_its_own(*pair))
@given_junk(JUNK | OPTIONS)
def test_parameters_of_tasks_are_checked_at_parse_time(cls, name, value):
    taken_or_refused(lambda: make(cls, **{name: value}), name)


@pytest.mark.parametrize(
    "option", [{"signature_version": {}}, {"signature_version": ""}, {"max_pool_connections": {}}], ids=str
)
@pytest.mark.parametrize("cls", [operators.SageMakerDeleteImageVersionOperator, SageMakerImageVersionSensor])
def test_a_setting_that_no_request_can_be_sent_with_fails_the_task(service, monkeypatch, cls, option):
    """No retry can help, although botocore's Config accepts the value and the call raises no error of botocore."""
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.0))
    with pytest.raises(Exception, match="botocore_config"):  # a sensor adds its own
        make(cls, botocore_config=option, aws_conn_id="aws_default").execute({"ti": TaskInstance()})
    assert service.calls() == []


@of(pair for pair in TEMPLATED if is_its_own(*pair))
@given_junk(JUNK | OPTIONS, 15)
def test_rendered_values_are_checked_before_any_call(service, cls, name, value):
    service.reset()
    task = make(cls)
    setattr(task, name, value)
    taken_or_refused(lambda: taken(lambda: task.execute({"ti": TaskInstance()}), service), name, service)


@pytest.mark.parametrize("config", [{"defaults_mode": LONG}, {"s3": {"addressing_style": LONG}}])
def test_what_botocore_says_of_a_long_value_is_shortened(service, config):
    task = make(operators.SageMakerListImageVersionsOperator)
    task.botocore_config = config
    with pytest.raises(ValueError, match="botocore_config") as raised:
        task.execute({"ti": TaskInstance()})
    assert len(str(raised.value)) < 2000


@of(TEMPLATED)
def test_no_parameter_takes_whatever_it_is_given(service, cls, name):
    task = make(cls)
    setattr(task, name, 1j)
    with pytest.raises(ValueError, match=name):
        task.execute({"ti": TaskInstance()})
    assert service.calls() == []


METHODS = {
    "iter_image_versions": {},
    "list_image_versions": {},
    "describe_image_version": {},
    "list_aliases": {},
    "describe_image": {},
    "delete_image_version": {"version": 1},
}


def parameters(function):
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name != "self"
    ]


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, id=f"{method}-{name}")
        for method in METHODS
        for name in parameters(getattr(SageMakerImageVersionsHook, method))
    ],
)
@given_junk(JUNK, 15)
def test_parameters_of_the_hook_s_methods_are_checked_before_any_call(service, method, name, value):
    service.reset()
    call = getattr(SageMakerImageVersionsHook(), method)
    arguments = {"image_name": IMAGE, **METHODS[method], name: value}
    if method == "iter_image_versions":
        call = lambda **given: list(SageMakerImageVersionsHook().iter_image_versions(**given))  # noqa: E731 # lazy
    taken_or_refused(lambda: taken(lambda: call(**arguments), service), name, service)


@pytest.mark.parametrize("name", parameters(SageMakerImageVersionsHook.__init__))
@given_junk(JUNK | OPTIONS)
def test_parameters_of_the_hook_are_checked_before_any_call(service, name, value):
    service.reset()
    make_and_call = lambda: SageMakerImageVersionsHook(**{name: value}).list_image_versions(IMAGE)  # noqa: E731 # twice
    taken_or_refused(lambda: taken(make_and_call, service), name, service)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        pytest.param(cls, field.name, id=f"{cls.__name__}-{field.name}")
        for cls in (
            _requests.ListImageVersionsRequest,
            _requests.ListImagesRequest,
            model.CreateImageRequest,
            model.CreateImageVersionRequest,
            model.UpdateImageVersionRequest,
            model.PrunePolicy,
            model.Target,
        )
        for field in attrs.fields(cls)
    ],
)
@given_junk(JUNK)
def test_a_field_of_a_request_is_taken_or_refused_by_name(cls, name, value):
    valid = {"image_name": IMAGE, "role_arn": ROLE, "base_image": "b", "version": 1, "keep_newest": 1}
    given_fields = {field.name: valid[field.name] for field in attrs.fields(cls) if field.name in valid}
    if cls is model.Target:
        given_fields = {}
    taken_or_refused(lambda: cls(**{**given_fields, name: value}), name)


WATCHER = [name for name in parameters(SageMakerImageVersionEventTrigger.__init__) if name != "_later"]


@needs_watchers
@pytest.mark.parametrize("name", [*WATCHER, "name", "uri"])
@given_junk(JUNK | OPTIONS)
def test_a_parameter_of_an_asset_is_taken_or_refused_by_name(name, value):
    taken_or_refused(lambda: image_version_asset(**{"image_name": IMAGE, name: value}), name)


# A trigger's arguments come from a row of Airflow's database, which another version of this package may have written:
# they are JSON, and it reports invalid ones when it runs.


@pytest.mark.parametrize(
    "name", [name for name in parameters(SageMakerImageVersionTrigger.__init__) if name != "_later"]
)
@given_junk(JSON | OPTIONS, 15)
def test_invalid_arguments_of_stored_triggers_are_reported_by_an_event(service, monkeypatch, name, value):
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.0))
    service.reset()
    service.create_versions(IMAGE, 1)
    trigger = SageMakerImageVersionTrigger(**{"image_name": IMAGE, "poll_interval": 0.1, name: value})
    trigger.serialize()
    try:
        payload = asyncio.run(asyncio.wait_for(first_event(trigger), 0.5)).payload
    except asyncio.TimeoutError:
        # Waits for what there is not yet.
        return
    json.dumps(payload)
    # Values that a worker rendered are parameters themselves.
    names = [name, "credentials", *(value if name == "rendered" and isinstance(value, dict) else ())]
    assert payload["status"] != "error" or any(each in payload["error"] for each in names)


INACTIVE = "the watcher stays inactive"


@pytest.mark.parametrize("name", WATCHER)
@given_junk(JSON | OPTIONS, 8)
def test_an_argument_of_a_stored_watcher_never_ends_it(service, monkeypatch, capsys, name, value):
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.0))
    service.reset()
    service.create_versions(IMAGE, 1)
    trigger = SageMakerImageVersionEventTrigger(
        **{"image_name": IMAGE, "start_from": "earliest", "poll_interval": 0.1, name: value}
    )
    trigger.serialize()

    async def watch():
        """Return the first event; None if the watcher is inactive, or still waits after a moment."""
        events, deadline = trigger.run(), time.monotonic() + 0.2
        first = asyncio.ensure_future(anext(events))
        while not first.done() and time.monotonic() < deadline:
            await asyncio.wait([first], timeout=0.01)
            log.append(capsys.readouterr().out)
            if INACTIVE in log[-1]:
                break
        done = first.done()
        first.cancel()
        await asyncio.wait([first])
        await events.aclose()
        return first.result() if done else None

    log = []
    event = asyncio.run(watch())
    json.dumps(event and event.payload)
    assert "failed unexpectedly" not in "".join(log), log
