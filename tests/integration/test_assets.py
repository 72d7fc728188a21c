from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from itertools import product
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from airflow.sdk import Asset

from airflow_provider_imageversions.assets import image_version_asset, image_versions, sanitize_uri, uri_of
from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger

QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/image-versions"


def test_an_asset_has_its_watcher_and_a_stable_name_and_uri():
    asset = image_version_asset("My-image.1", region_name="eu-west-1", poll_interval=5, include_details=True)
    assert asset.name == asset.uri == "sagemaker-image://eu-west-1/My-image.1"
    (watcher,) = asset.watchers
    trigger = SageMakerImageVersionEventTrigger(
        image_name="My-image.1", region_name="eu-west-1", poll_interval=5, include_details=True
    )
    assert watcher.trigger.serialize() == trigger.serialize()


@pytest.mark.parametrize("aws_conn_id", [None, ""])
def test_without_a_connection_the_watcher_uses_boto3_s_default_chain(aws_conn_id):
    (watcher,) = image_version_asset("a", aws_conn_id=aws_conn_id).watchers
    assert watcher.trigger.serialize()[1]["aws_conn_id"] is None


@pytest.mark.parametrize(
    ("arguments", "uri"),
    [
        ({}, "sagemaker-image://default/a"),
        ({"statuses": ["CREATED"]}, "sagemaker-image://default/a"),
        ({"statuses": "CREATE_FAILED"}, "sagemaker-image://default/a?statuses=CREATE_FAILED"),
        (
            {"statuses": ["CREATE_FAILED", "CREATED"], "region_name": "us-gov-west-1"},
            "sagemaker-image://us-gov-west-1/a?statuses=CREATED-CREATE_FAILED",
        ),
        ({"alias": "prod", "region_name": "eu-west-1"}, "sagemaker-image://eu-west-1/a?alias=prod"),
        ({"region_name": "eusc-de-east-1"}, "sagemaker-image://eusc-de-east-1/a"),
        ({"alias": "_Prod-1.0", "statuses": "CREATED"}, "sagemaker-image://default/a?alias=_Prod-1.0"),
        ({"uri": "sagemaker-image://default/b", "name": "c"}, "sagemaker-image://default/b"),
        ({"aws_conn_id": "second"}, "sagemaker-image://default/a?connection=second"),
        ({"aws_conn_id": None}, "sagemaker-image://default/a?credentials=boto3"),
        ({"aws_conn_id": ""}, "sagemaker-image://default/a?credentials=boto3"),
        ({"name": "my image"}, "sagemaker-image://default/a?name=my+image"),
        (
            {"statuses": ["CREATE_FAILED"], "name": "a/?&", "aws_conn_id": "b:c", "region_name": "eu-west-1"},
            "sagemaker-image://eu-west-1/a?connection=b%3Ac&name=a%2F%3F%26&statuses=CREATE_FAILED",
        ),
    ],
)
def test_watchers_of_different_things_are_different_assets(arguments, uri):
    asset = image_version_asset("a", **arguments)
    assert asset.uri == uri
    assert asset.name == arguments.get("name", uri)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_name": "bad name!"},
        {"statuses": ["DELETING"]},
        {"start_from": "noon"},
        {"start_from": -1},
        {"alias": "-prod"},
        {"alias": ""},
        {"alias": "None"},
        {"start_from": 3, "alias": "prod"},
        {"start_from": "2026-01-31T12:00:00Z", "alias": "prod"},
        {"statuses": ["CREATE_FAILED"], "alias": "prod"},
        {"statuses": ["CREATED", "CREATE_FAILED"], "alias": "prod"},
        {"name": ""},
        {"name": 3},
        {"uri": " "},
        {"poll_interval": 0},
        {"poll_interval": "soon"},
        {"wake_queue": ""},
        {"wake_queue": "None"},
        {"wake_queue": "image-versions"},
        {"wake_queue": "arn:aws:sqs:us-east-1:123456789012:image-versions"},
        {"wake_queue": "http://sqs.us-east-1.amazonaws.com/image-versions"},
        {"wake_queue": "https://sqs.us-east-1.example.com/123456789012/image-versions"},
        {"wake_queue": "https://sqs.us-east-1.amazonaws.com/123456789012/image-versions.fifo"},
        {"botocore_config": {"no_such_option": 1}},
    ],
)
def test_bad_input_is_refused_when_the_dag_is_parsed(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        image_version_asset(**{"image_name": "a", **arguments})


@pytest.mark.parametrize("interval", [90, "90", timedelta(minutes=1.5)])
def test_an_interval_may_be_seconds_or_a_timedelta(interval):
    (watcher,) = image_version_asset("a", poll_interval=interval).watchers
    assert watcher.trigger.serialize()[1]["poll_interval"] == 90.0


def test_a_queue_is_stored_only_if_there_is_one_and_leaves_the_cursor_where_it_is():
    (plain,), (woken,) = (image_version_asset("a", **given).watchers for given in ({}, {"wake_queue": QUEUE}))
    assert "wake_queue" not in plain.trigger.serialize()[1]
    path, stored = woken.trigger.serialize()
    assert stored["wake_queue"] == QUEUE
    assert SageMakerImageVersionEventTrigger(**stored).serialize() == (path, stored)
    assert woken.trigger.state_key == plain.trigger.state_key


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="poll_intervall"):
        image_version_asset("a", poll_intervall=5)


@pytest.mark.filterwarnings("ignore:Two assets have the name 'c'")
def test_all_that_distinguishes_watchers_distinguishes_their_assets():
    values = {
        "image_name": ["a", "b"],
        "name": [None, "c"],
        "region_name": [None, "eu-west-1"],
        "aws_conn_id": ["aws_default", "other", None],
        "statuses": [["CREATED"], ["CREATE_FAILED"], ["CREATE_FAILED", "CREATED"]],
    }
    combinations = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    combinations += [{**each, "alias": "prod"} for each in combinations if each["statuses"] == ["CREATED"]]
    assets = [image_version_asset(**arguments) for arguments in combinations]
    assert len({asset.uri for asset in assets}) == len(combinations)
    assert len({(asset.name, asset.uri) for asset in assets}) == len(combinations)
    keys = {(asset.watchers[0].trigger.state_key, asset.name) for asset in assets}
    assert len(keys) == len(combinations)


def test_all_else_shares_the_asset_and_a_conflict_is_a_warning(recwarn):
    kept = image_version_asset("shared", poll_interval=5)
    same = image_version_asset("shared", poll_interval=5)
    assert (kept.name, kept.uri) == (same.name, same.uri)
    assert not recwarn
    others = {"poll_interval": 6, "include_details": True, "wake_queue": QUEUE, "start_from": 3, "verify": False,
              "botocore_config": {"read_timeout": 9}}  # fmt: skip
    for label, value in others.items():
        with pytest.warns(UserWarning, match=rf"'{kept.name}' has two watchers .*\({label}\)") as caught:
            other = image_version_asset("shared", **{"poll_interval": 5, label: value})
        assert caught[0].filename == __file__
        assert (other.name, other.uri) == (kept.name, kept.uri)
        with pytest.warns(UserWarning, match="two watchers"):
            same = image_version_asset("shared", poll_interval=5)


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ({"image_name": "one", "name": "n1"}, {"image_name": "two", "name": "n1"}, "name 'n1'"),
        ({"name": "n2", "alias": "prod"}, {"name": "n2", "alias": "dev"}, "name 'n2'"),
        (
            {"name": "n3", "uri": "sagemaker-image://default/n3"},
            {"name": "n4", "uri": "sagemaker-image://default/n3"},
            "URI 'sagemaker-image://default/n3'",
        ),
    ],
)
def test_two_assets_with_one_name_or_one_uri_are_a_warning(one, two, shared):
    first = image_version_asset(**{"image_name": "a", **one})
    with pytest.warns(UserWarning, match=rf"^Two assets have the {shared}, .* different names and URIs") as caught:
        second = image_version_asset(**{"image_name": "a", **two})
    assert [warning.filename for warning in caught] == [__file__]
    assert (first.name, first.uri) != (second.name, second.uri)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"statuses": ["CREATE_FAILED", "CREATED"]}, {"statuses": "CREATED,CREATE_FAILED"}),
        ({"start_from": 3}, {"start_from": "3"}),
        ({"start_from": "2026-01-31T13:00:00+01:00"}, {"start_from": datetime(2026, 1, 31, 12, tzinfo=timezone.utc)}),
    ],
)
def test_two_ways_to_write_an_argument_are_no_conflict(recwarn, one, two):
    (first,), (second,) = (image_version_asset("written", **given).watchers for given in (one, two))
    assert first.trigger.serialize() == second.trigger.serialize()
    assert not recwarn


def test_assets_that_are_gone_conflict_with_none(recwarn):
    image_version_asset("gone", poll_interval=5)
    image_version_asset("gone", poll_interval=6)
    assert not recwarn


def test_the_asset_has_the_group_extra_and_access_control_that_it_is_given():
    plain = image_version_asset("a")
    assert (plain.group, plain.extra) == (Asset("b").group, {})
    asset = image_version_asset("a", group="images", extra={"team": "churn"})
    assert (asset.group, asset.extra) == ("images", {"team": "churn"})
    try:
        from airflow.sdk import AssetAccessControl
    except ImportError:
        with pytest.raises(ValueError, match=r"access_control.*Leave it out"):
            image_version_asset("a", access_control=object())
    else:
        access = AssetAccessControl(consumer_teams=["ml"])
        assert image_version_asset("a", access_control=access).access_control == access


@pytest.mark.parametrize(
    "uri",
    [
        "sagemaker-image://default/a",
        "sagemaker-image://us-gov-west-1/A.b-c?statuses=CREATED",
        "sagemaker-image://us-gov-west-1/A.b-c?alias=_Prod-1.0",
        "sagemaker-image://default/a?connection=other&name=c+d&statuses=CREATE_FAILED",
        "sagemaker-image://default/a?credentials=boto3",
    ],
)
def test_airflow_takes_a_valid_uri_as_it_is(uri):
    assert Asset("a", uri=uri).uri == uri
    assert sanitize_uri(urlsplit(uri)) == urlsplit(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "sagemaker-image://default",
        "sagemaker-image://moon/a",
        "sagemaker-image://default/a/b",
        "sagemaker-image:///a",
        "sagemaker-image://default/a?alias=-prod",
        "sagemaker-image://default/a?alias=",
        "sagemaker-image://default/a?connection=a%00b",
    ],
)
def test_an_invalid_uri_is_refused_with_the_form_it_should_have(uri):
    with pytest.raises(ValueError, match="sagemaker-image://REGION/IMAGE"):
        sanitize_uri(urlsplit(uri))


def test_an_alias_is_watched_with_what_goes_with_it():
    asset = image_version_asset("a", alias="prod", start_from="earliest", include_details=True)
    trigger = SageMakerImageVersionEventTrigger(
        image_name="a", alias="prod", start_from="earliest", include_details=True
    )
    assert asset.watchers[0].trigger.serialize() == trigger.serialize()
    for arguments, way_out in [
        ({"start_from": 3}, "'latest'.*'earliest'"),
        ({"statuses": "CREATE_FAILED"}, "leave out"),
    ]:
        with pytest.raises(ValueError, match=f"alias='prod'.*{way_out}"):
            image_version_asset("a", alias="prod", **arguments)


def test_the_uri_of_an_image_can_be_made_without_a_watcher():
    assert uri_of("a", "us-east-1") == "sagemaker-image://us-east-1/a"
    assert uri_of("a", "us-east-1", alias="prod") == "sagemaker-image://us-east-1/a?alias=prod"
    assert uri_of("a", aws_conn_id="b", name="c") == image_version_asset("a", aws_conn_id="b", name="c").uri


def event(number, identity, **extra):
    created = f"2026-01-01T00:00:{number:02}+00:00"
    payload = {"Version": number, "CreationTime": created, "event_id": identity * 32, **extra}
    return SimpleNamespace(extra={"from_trigger": True, "payload": payload})


def test_all_events_of_a_run_are_returned_once_and_in_order():
    triggering = {"one": [event(8, "c"), event(7, "b")], "other": [event(8, "c", redelivered=True)]}
    by_hand = [SimpleNamespace(extra=extra) for extra in (None, {"other": 1}, {"event_id": "x"})]
    latest = [event(6, "a"), event(7, "b"), *by_hand]
    assert [delivered["Version"] for delivered in image_versions(triggering, latest)] == [6, 7, 8]
    assert image_versions({}) == image_versions([]) == []


def test_events_that_a_person_made_are_no_versions_without_a_time_of_creation():
    ready = {"Version": 8, "event_id": "a" * 32, "CreationTime": "2026-01-31T12:00:00.5Z"}
    earlier = {"Version": 7, "event_id": "b" * 32, "CreationTime": "2026-01-31T12:00:00+00:00"}
    strange = [{"Version": 9, "event_id": "c" * 32, **more} for more in ({}, {"CreationTime": 5}, {"CreationTime": ""})]
    made = [SimpleNamespace(extra=extra) for extra in (ready, *strange, earlier)]
    assert [version["Version"] for version in image_versions(made)] == [7, 8]


def test_airflow_2_gets_an_error_with_an_alternative(monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.sdk", None)
    with pytest.raises(ImportError, match=r"needs Airflow 3.*SageMakerImageVersionSensor"):
        image_version_asset("my-image")
