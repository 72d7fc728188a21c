from __future__ import annotations

import inspect
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow.sdk", reason="Airflow 2 has no asset watchers")

from airflow.sdk import DAG, Asset
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_imageversions import _dispatch
from airflow_provider_imageversions._dispatch import (
    OVERLAP,
    READ_AT_ONCE,
    REMEMBERED,
    Event,
    Progress,
    count_existing,
    default_run_id,
    first_bound,
    payload_of,
    plan,
)
from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

START = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def at(seconds):
    return START + timedelta(seconds=seconds)


def event(seconds, run_id, asset="a"):
    return Event(asset, at(seconds), run_id, {"Version": 1})


def read(*events):
    return {"a": [(each.timestamp, each) for each in events]}


class Airflow:
    """What a dispatching DAG sees of Airflow: events, runs and what it stored."""

    def __init__(self, limit=3):
        self.events, self.runs, self.limit = [], [], limit
        self.stored = Progress(at(0)).to_json()

    def dispatch(self):
        """Run the dispatching DAG, with the further runs that it starts."""
        for _ in range(1000):
            progress = Progress.from_json(self.stored)
            seen = sorted(each for each in self.events if each.timestamp >= progress.since)[:READ_AT_ONCE]
            planned = plan(read(*seen), {"a": progress}, lambda ids: set(ids) & set(self.runs), self.limit)
            self.runs += [each.run_id for each in planned.start]
            self.stored = planned.progress["a"].to_json()
            if not planned.more:
                return
        pytest.fail("it never ends")


def test_each_event_starts_one_run_however_often_it_is_delivered():
    airflow = Airflow()
    airflow.events = [event(1, "x"), event(2, "y"), event(3, "x")]
    airflow.dispatch()
    airflow.events.append(event(4, "y"))
    airflow.dispatch()
    assert airflow.runs == ["x", "y"]


def test_more_events_than_a_run_may_start_are_started_by_further_runs():
    airflow = Airflow(limit=3)
    airflow.events = [event(number, f"r{number}") for number in range(10)]
    airflow.dispatch()
    assert airflow.runs == [f"r{number}" for number in range(10)]


@pytest.mark.parametrize("seconds", [1, 0], ids=["over hours", "at the same moment"])
def test_more_events_than_are_read_at_once_are_all_started_once(seconds):
    airflow = Airflow(limit=500)
    count = 3 * READ_AT_ONCE if seconds else READ_AT_ONCE
    airflow.events = [event(1 + number * seconds, f"r{number:04}") for number in range(count)]
    airflow.dispatch()
    assert sorted(airflow.runs) == [f"r{number:04}" for number in range(count)]


def test_a_run_that_exists_is_left_alone_and_not_started_when_it_is_deleted():
    airflow = Airflow()
    airflow.events, airflow.runs = [event(1, "x")], ["x"]
    airflow.dispatch()
    airflow.runs.remove("x")
    airflow.events.append(event(2, "y"))
    airflow.dispatch()
    assert airflow.runs == ["y"]


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30)), max_size=60), st.integers(1, 5))
def test_whatever_the_order_each_run_is_started_once_and_never_again(deliveries, batches):
    airflow = Airflow(limit=4)
    for batch in range(batches):
        # An event may be stored after one with a later timestamp, by less than the overlap.
        airflow.events += [
            event(batch * 60 + seconds % 60, f"r{number}") for seconds, number in deliveries[batch::batches]
        ]
        airflow.dispatch()
        assert len(airflow.runs) == len(set(airflow.runs))
    started = set(airflow.runs)
    assert started == {each.run_id for each in airflow.events}
    airflow.runs = []  # airflow db clean
    airflow.dispatch()
    assert airflow.runs == []


def test_what_is_remembered_is_bounded_and_the_bound_takes_its_place():
    events = [event(number, f"r{number}") for number in range(REMEMBERED + 5)]
    progress = Progress(at(0)).after(events, [each.timestamp for each in events], [])
    assert len(progress.dispatched) == REMEMBERED
    assert all(progress.includes(each) for each in events if each.timestamp != at(4))
    assert Progress.from_json(progress.to_json()) == progress


def test_what_is_left_for_later_is_never_below_the_bound():
    late = event(3 * OVERLAP.total_seconds(), "late")
    progress = Progress(at(0)).after([late], [at(1), late.timestamp], [event(1, "left")])
    assert progress.since == at(1)


def test_of_the_first_run_s_history_only_what_queued_it_counts():
    history = [at(0), at(1000), at(2000)]
    assert at(1000) < first_bound(history, at(2000.1), among_several=False) < at(2000)
    # Of another asset that did not queue the run: its events are history.
    assert first_bound(history, at(9000), among_several=True) > at(2000)
    # Of another asset that did, some time before.
    assert at(1000) < first_bound(history, at(2100), among_several=True) < at(2000)
    assert at(1990) < first_bound([], at(2000), among_several=False) < at(2000)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 120])
def test_which_runs_exist_is_found_by_counting(count):
    ids = [f"r{number}" for number in range(count)]
    for existing in (set(), set(ids), set(ids[::3]), set(ids[:1])):
        asked = []

        def counted(some, existing=existing, asked=asked):
            asked.append(some)
            return len(existing.intersection(some))

        assert count_existing(counted, ids) == existing
        assert all(len(some) <= 50 for some in asked)


def test_a_run_is_named_after_the_version_or_the_alias():
    payload = {"Version": 8, "event_id": "3f2a9c0123456789"}
    assert default_run_id(payload) == "version-8-3f2a9c01"
    assert default_run_id({**payload, "alias": "prod"}) == "prod-8-3f2a9c01"


@pytest.mark.parametrize(
    "extra", [None, {}, {"payload": 1}, {"payload": {"Version": 8}}, {"event_id": 1, "Version": 8}]
)
def test_an_event_without_an_image_version_is_not_ours(extra):
    assert payload_of(SimpleNamespace(extra=extra)) is None


def test_a_payload_is_found_in_either_place():
    payload = {"Version": 8, "event_id": "x"}
    assert payload_of(SimpleNamespace(extra=payload)) == payload
    assert payload_of(SimpleNamespace(extra={"from_trigger": True, "payload": payload})) == payload


def target():
    return DAG("retrain", schedule=None)


def test_the_dispatching_dag_is_scheduled_on_the_assets():
    first, second = image_version_asset("first"), image_version_asset("second")
    dag = run_dag_per_version(target(), first, second)
    assert dag.dag_id == "retrain__image_versions"
    assert list(dag.timetable.asset_condition.objects) == [first, second]
    assert type(dag.timetable.asset_condition) is type(first | second)
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert all(task.retries == 20 for task in dag.tasks)
    assert dag.task_dict["find_new_versions"].inlets == [first, second]


def test_the_dispatching_dag_takes_what_a_dag_takes():
    dag = run_dag_per_version(
        "elsewhere",
        image_version_asset("a"),
        dag_id="dispatch",
        tags=["ml"],
        default_args={"retries": 1, "owner": "me"},
    )
    assert (dag.dag_id, dag.tags, dag.fileloc) == ("dispatch", {"ml"}, __file__)
    assert {task.retries for task in dag.tasks} == {1}
    assert {task.owner for task in dag.tasks} == {"me"}
    start = dag.task_dict["start"]
    assert "conf" not in start.template_fields  # or Airflow would render what SageMaker wrote
    assert start.partial_kwargs["trigger_dag_id"] == "elsewhere"
    assert start.partial_kwargs["logical_date"] is None
    assert start.partial_kwargs["skip_when_already_exists"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        {"dag": None},
        {"dag": ""},
        {"asset": "sagemaker-image://default/a"},
        {"dag_id": "retrain"},
        {"run_id": "version-{{ Version }}"},
        {"schedule": "@daily"},
    ],
)
def test_a_parameter_that_is_not_valid_is_refused(arguments):
    values = {"dag": "retrain", "asset": Asset("a"), **arguments}
    with pytest.raises(ValueError, match=next(iter(arguments))):
        run_dag_per_version(values.pop("dag"), values.pop("asset"), **values)


def test_a_run_id_function_is_used_and_checked():
    stored = SimpleNamespace(timestamp=at(0), extra={"Version": 8, "event_id": "x"})
    assert _dispatch._event("a", stored, lambda payload: f"v{payload['Version']}").run_id == "v8"
    with pytest.raises(ValueError, match=r"run_id=None.*version 8"):
        _dispatch._event("a", stored, lambda _: None)


def test_the_signature_is_what_it_was_and_documented():
    parameters = inspect.signature(run_dag_per_version).parameters
    assert list(parameters) == ["dag", "asset", "more_assets", "dag_id", "run_id", "dag_arguments"]
    assert [name for name in parameters if f":param {name}:" not in run_dag_per_version.__doc__] == []
