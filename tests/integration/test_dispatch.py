from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import re
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow.sdk", reason="Airflow 2 has no asset watchers")

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, Param, TaskGroup, Variable
from airflow.utils.types import DagRunType
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_imageversions import _dispatch
from airflow_provider_imageversions._dispatch import (
    OVERLAP,
    READ_AT_ONCE,
    REMEMBERED,
    REMEMBERED_AS_IT_IS,
    Event,
    Progress,
    count_existing,
    default_run_id,
    first_bound,
    payload_of,
    plan,
)
from airflow_provider_imageversions._parameters import _ALIAS, _ALIAS_MAX
from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version
from airflow_provider_imageversions.compat import (
    asset_or_time_schedule,
    conf,
    read_asset_progress,
    write_asset_progress,
)

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag

STORED_BYTES = 65535
"""Airflow's default for ``max_value_storage_bytes``."""
START = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def at(seconds):
    return START + timedelta(seconds=seconds)


def event(seconds, run_id, asset="a", identity=None):
    return Event(asset, at(seconds), run_id, {"Version": 1, "event_id": identity or identity_of(run_id)})


def identity_of(name):
    return hashlib.sha256(name.encode()).hexdigest()[:32]


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


def test_a_run_that_was_started_for_one_asset_and_deleted_is_not_started_for_another():
    progress = {"a": Progress(at(0), {"x": at(1)}), "b": Progress(at(0))}
    both = {**read(event(1, "x")), "b": [(at(60), event(60, "x", "b")), (at(61), event(61, "y", "b"))]}
    planned = plan(both, progress, lambda _: set(), 10)
    assert [each.run_id for each in planned.start] == ["y"]


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
    events = [event(number, f"r{number}") for number in range(REMEMBERED // 2 + 5)]
    progress = Progress(at(0)).after(events, [each.timestamp for each in events], [])
    assert len(progress.dispatched) == REMEMBERED
    assert all(progress.includes(each) for each in events if each.timestamp != at(4))
    assert Progress.from_json(progress.to_json()) == progress


@pytest.mark.parametrize("length", [REMEMBERED_AS_IT_IS, 248])
def test_what_is_remembered_fits_into_airflow_s_state_store(length):
    events = [event(number, f"{number:0{length}}") for number in range(REMEMBERED + 5)]
    progress = Progress(at(0)).after(events, [each.timestamp for each in events], [])
    stored = progress.to_json()
    assert len(json.dumps(stored)) <= STORED_BYTES
    assert all(Progress.from_json(stored).includes(each) for each in events[-REMEMBERED // 2 :])
    assert not Progress.from_json(stored).includes(event(9999, "x" * length))


def test_as_many_run_ids_as_are_remembered_fit_too():
    """An earlier version stored run ids only."""
    many = {f"{number:0{REMEMBERED_AS_IT_IS}}": at(number + 1e-6) for number in range(REMEMBERED)}
    assert len(json.dumps(Progress(at(0), many).to_json())) <= STORED_BYTES


def test_another_run_id_starts_no_second_run_of_an_event():
    airflow = Airflow()
    airflow.events = [event(1, "version-8"), event(2, "version-9")]
    airflow.dispatch()
    renamed = [event(1, "churn-8", identity=identity_of("version-8")), event(3, "churn-10")]
    airflow.events = [*renamed, event(4, "churn-9", identity=identity_of("version-9"))]
    airflow.dispatch()
    assert airflow.runs == ["version-8", "version-9", "churn-10"]


def test_the_run_ids_that_an_earlier_version_stored_start_no_run_and_gain_their_event_ids():
    airflow = Airflow()
    airflow.stored = {"since": at(0).isoformat(), "dispatched": {"version-8": at(1).isoformat()}}
    airflow.events = [event(1, "version-8"), event(2, "version-9")]
    airflow.dispatch()
    assert airflow.runs == ["version-9"]
    airflow.events = [event(1, "churn-8", identity=identity_of("version-8"))]
    airflow.dispatch()
    assert airflow.runs == ["version-9"]


def test_a_key_keeps_its_latest_time():
    """Or it would be forgotten while the bound is below it."""
    progress = Progress(at(0), {"x": at(5)}).after([event(3, "x")], [at(3)], [])
    assert progress.dispatched == {"x": at(5), identity_of("x"): at(3)}


def test_the_progress_of_an_old_run_does_not_undo_that_of_a_later_one():
    """A person may clear a task of an old run."""
    old = Progress(at(0), {"x": at(1)})
    later = Progress(at(5), {"x": at(1), "y": at(6)})
    assert old.merged_with(later) == later.merged_with(old) == later
    many = Progress(at(0), {f"r{number}": at(number) for number in range(REMEMBERED)})
    merged = many.merged_with(Progress(at(0), {"newest": at(9999)}))
    assert len(merged.dispatched) == REMEMBERED
    assert {"newest", f"r{REMEMBERED - 1}"} < merged.dispatched.keys()


def test_what_is_left_for_later_is_never_below_the_bound():
    late = event(3 * OVERLAP.total_seconds(), "late")
    progress = Progress(at(0)).after([late], [at(1), late.timestamp], [event(1, "left")])
    assert progress.since == at(1)


def test_of_the_first_run_s_history_only_what_queued_it_counts():
    history = [at(0), at(1000), at(2000)]
    assert at(1000) < first_bound(history, at(2000.1), among_several=False) < at(2000)
    # Of another asset that did not queue the run: its events are history.
    assert first_bound(history, at(9000), among_several=True) > at(2000)
    # Of another asset that did, some time before; it may have had further events since.
    assert at(1000) < first_bound(history, at(2100), among_several=True) < at(2000) - timedelta(seconds=60)
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


PAYLOAD = {"Version": 8, "event_id": "3f2a9c01" * 4}


def test_a_run_is_named_after_the_version_or_the_alias():
    assert default_run_id(PAYLOAD) == "version-8-3f2a9c01"
    assert default_run_id({**PAYLOAD, "alias": "prod"}) == "prod-8-3f2a9c01"


@given(st.from_regex(_ALIAS, fullmatch=True).filter(lambda alias: len(alias) <= _ALIAS_MAX))
@example("v1..2")
@example("scheduled__2026")
@example("x" * _ALIAS_MAX)
def test_airflow_takes_the_run_id_of_each_alias(alias):
    payload = {**PAYLOAD, "alias": alias}
    assert payload_of(SimpleNamespace(extra=payload)) == payload
    run_id = default_run_id(payload)
    assert _dispatch._RUN_ID.fullmatch(run_id)
    assert re.fullmatch(conf.get("scheduler", "allowed_run_id_pattern"), run_id)
    assert DagRunType.from_run_id(run_id) == DagRunType.MANUAL


@pytest.mark.parametrize(
    "extra",
    [
        None,
        {},
        {"payload": 1},
        {"payload": {"Version": 8}},
        {"event_id": 1, "Version": 8},
        {"event_id": "my-event-1", "Version": 8},
        {**PAYLOAD, "Version": "8"},
        {**PAYLOAD, "Version": True},
        {**PAYLOAD, "alias": "a b"},
        {**PAYLOAD, "alias": 1},
    ],
)
def test_an_event_without_an_image_version_is_not_ours(extra):
    assert payload_of(SimpleNamespace(extra=extra)) is None


def test_a_payload_is_found_in_either_place():
    assert payload_of(SimpleNamespace(extra=PAYLOAD)) == PAYLOAD
    assert payload_of(SimpleNamespace(extra={"from_trigger": True, "payload": PAYLOAD})) == PAYLOAD


def target():
    return DAG("retrain", schedule=None)


@pytest.mark.parametrize("options", [{}, {"recheck_interval": None}])
def test_the_dispatching_dag_is_scheduled_on_the_assets(options):
    first, second = image_version_asset("first"), image_version_asset("second")
    dag = run_dag_per_version(target(), first, second, **options)
    assert dag.dag_id == "retrain__image_versions"
    assert list(dag.timetable.asset_condition.objects) == [first, second]
    assert type(dag.timetable.asset_condition) is type(first | second)
    assert hasattr(dag.timetable, "timetable") is not bool(options)
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert all(task.retries == 20 for task in dag.tasks)
    assert dag.task_dict["find_new_versions"].inlets == [first, second]


@pytest.mark.parametrize("interval", [600, timedelta(minutes=10)])
def test_the_dispatching_dag_is_started_by_the_clock_too(interval):
    dag = run_dag_per_version(target(), image_version_asset("a"), recheck_interval=interval)

    def comparable(timetable):
        return getattr(timetable, "serialize", lambda: timetable)()

    def clock(minutes):
        return comparable(asset_or_time_schedule([], timedelta(minutes=minutes)).timetable)

    assert comparable(dag.timetable.timetable) == clock(10)
    assert comparable(dag.timetable.timetable) != clock(60)


def test_tasks_are_those_of_the_dispatching_dag_wherever_it_is_made():
    with DAG("outer", schedule=None) as outer, TaskGroup("group"):
        dag = run_dag_per_version("retrain", image_version_asset("a"))
        EmptyOperator(task_id="last")
    assert outer.task_ids == ["group.last"]
    assert sorted(dag.task_ids) == ["find_new_versions", "remember", "start", "start_next_run"]
    assert dag.task_dict["remember"].upstream_task_ids == {"start"}


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
        {"recheck_interval": 0},
        {"recheck_interval": "@hourly"},
        {"dag": "my dag"},
        {"dag_id": ""},
        {"dag_id": 5},
        {"dag_id": "a" * 251},
        {"render_template_as_native_obj": True},
    ],
)
def test_a_parameter_that_is_not_valid_is_refused(arguments):
    values = {"dag": "retrain", "asset": Asset("a"), **arguments}
    with pytest.raises(ValueError, match=next(iter(arguments))):
        run_dag_per_version(values.pop("dag"), values.pop("asset"), **values)


def test_an_id_that_is_too_long_for_the_dispatching_dag_asks_for_another_one():
    with pytest.raises(ValueError, match=r"dag_id='a+\.\.\. .* is not valid: .*Set dag_id"):
        run_dag_per_version("a" * 240, Asset("a"))
    assert run_dag_per_version("a" * 240, Asset("a"), dag_id="short").dag_id == "short"


def test_a_dag_that_is_scheduled_on_the_asset_is_refused():
    asset = image_version_asset("a")
    for schedule in ([asset], asset, asset | image_version_asset("b"), asset_or_time_schedule([asset], timedelta(1))):
        with pytest.raises(ValueError, match=r"dag='retrain' .*is scheduled on the asset .*twice"):
            run_dag_per_version(DAG("retrain", schedule=schedule), asset)
    for schedule in ("@daily", None, image_version_asset("b")):
        assert run_dag_per_version(DAG("retrain", schedule=schedule), asset)


def test_a_dag_with_a_param_that_no_event_has_is_refused():
    with pytest.raises(ValueError, match=r"dag='retrain' .*its param 'epochs' has no value"):
        run_dag_per_version(DAG("retrain", schedule=None, params={"epochs": Param(type="integer")}), Asset("a"))
    params = {"epochs": Param(3, type="integer"), "Version": Param(type="integer"), "region": Param(type="string")}
    assert run_dag_per_version(DAG("retrain", schedule=None, params=params), Asset("a"))


def test_the_tasks_push_what_they_pass_on_whatever_the_default_arguments_are():
    dag = run_dag_per_version(target(), Asset("a"), default_args={"do_xcom_push": False, "owner": "ml"})
    assert {task.do_xcom_push for task in dag.tasks if not task.is_mapped} == {True}
    assert dag.task_dict["start"].partial_kwargs["do_xcom_push"] is True


def test_a_run_id_function_cannot_change_the_conf():
    payload = dict(PAYLOAD)
    assert _dispatch._run_id(payload, lambda version: version.pop("event_id")) == PAYLOAD["event_id"]
    assert payload == PAYLOAD


def test_events_that_share_a_run_id_are_named():
    shared, other = (event(seconds, "v1", identity=identity_of(f"event {seconds}")) for seconds in (2, 3))
    planned = plan(read(event(1, "v1"), shared, other), {"a": Progress(at(0))}, lambda _: set(), 10)
    assert [each.run_id for each in planned.start] == ["v1"]
    assert [each.payload["event_id"] for each in planned.shared] == [
        each.payload["event_id"] for each in (shared, other)
    ]
    known = Progress(at(0), {"v1": at(1), event(1, "v1").payload["event_id"]: at(1)})
    assert plan(read(event(1, "v1"), shared), {"a": known}, lambda _: set(), 10).shared == [shared]


def test_a_run_id_function_is_used_and_checked():
    assert _dispatch._run_id(PAYLOAD, lambda payload: f"v{payload['Version']}") == "v8"
    # Airflow would start the run "image" for the first of "image#8" and "image#9", and none for the second.
    for wrong in (None, "", 8, "image#8", "a/8", "v 8", "a..8", "é8", "8\n", "scheduled__8", "v" * 249):
        with pytest.raises(ValueError, match=r"run_id=.*version 8; a run id has 1 to 248"):
            _dispatch._run_id(PAYLOAD, lambda _, wrong=wrong: wrong)


def test_a_run_id_function_that_raises_is_named_with_the_version():
    def name_run(version):
        return version["ContainerImage"]

    with pytest.raises(ValueError, match=r"run_id='name_run' .*'ContainerImage' for version 8 .*details=True"):
        _dispatch._run_id(PAYLOAD, name_run)


class Stored(dict):
    """An asset's state store, or Airflow's variables."""

    def set(self, key, value, **_):
        self[key] = value

    def delete(self, key):
        del self[key]


@pytest.fixture
def variables(monkeypatch):
    """Airflow's variables."""
    stored = Stored()
    monkeypatch.setattr(Variable, "get", lambda key, default, **_: stored.get(key, default))
    monkeypatch.setattr(Variable, "set", stored.set)
    monkeypatch.setattr(Variable, "delete", stored.delete)
    return stored


class StateStores:
    """What Airflow has in a task's context; a dictionary would need the hash of an asset, which it lacks before 3.2."""

    def __init__(self, store):
        self._store = store

    def __getitem__(self, _asset):
        return self._store


@pytest.mark.parametrize("stored", [Progress(at(0), {"x": at(1)}), Progress(at(5), {"x": at(1), "y": at(6)})])
def test_a_task_of_an_old_run_that_is_cleared_keeps_what_later_runs_stored(stored):
    asset = image_version_asset("a")
    dag = run_dag_per_version(target(), asset)
    old = Progress(at(0), {"x": at(1)})
    pushed = {"progress": {asset.name: old.to_json()}, "more": False}
    context = {"ti": SimpleNamespace(xcom_pull=lambda task_ids, key: pushed[key])}  # noqa: ARG005  # Airflow's names
    store = Stored({_dispatch.state_key(dag.dag_id): stored.to_json()})
    dag.task_dict["remember"].python_callable(**context, asset_state_store=StateStores(store))
    assert Progress.from_json(store[_dispatch.state_key(dag.dag_id)]) == stored


def test_progress_moves_to_the_state_store_after_an_upgrade(variables):
    """Or the upgrade would make the next run a first one."""
    store, asset = Stored(), Asset("a")
    before, after = {}, {"asset_state_store": StateStores(store)}
    assert read_asset_progress(before, asset, "key") is read_asset_progress(after, asset, "key") is None
    write_asset_progress(before, asset, "key", {"since": 1})
    assert read_asset_progress(before, asset, "key") == {"since": 1}
    assert read_asset_progress(after, asset, "key") == {"since": 1}
    assert (variables, store) == ({}, {"key": {"since": 1}})
    store.clear()  # by a person
    assert read_asset_progress(after, asset, "key") is None


def test_the_signature_is_what_it_was_and_documented():
    parameters = inspect.signature(run_dag_per_version).parameters
    assert list(parameters) == ["dag", "asset", "more_assets", "dag_id", "run_id", "recheck_interval", "dag_arguments"]
    assert [name for name in parameters if f":param {name}:" not in run_dag_per_version.__doc__] == []


needs_progress = pytest.mark.skipif(
    importlib.metadata.version("apache-airflow").startswith("3.0."), reason="Airflow 3.0 reads Variables only in a task"
)


class History(list):
    """The events of an asset as a task of Airflow before 3.2 reads them, which is all of them."""

    def __getitem__(self, _asset):
        return self


def payload_at(number):
    return {**PAYLOAD, "Version": number, "event_id": f"{number:032x}"}


def run_of(run_type, asset, *events, store, start=600, triggering=()):
    """The context of a run, ten minutes after the start; ``triggering`` are the numbers of events that queued it."""
    return {
        "dag_run": SimpleNamespace(run_type=run_type, run_after=at(start), start_date=at(start)),
        # Not a dictionary, for the same reason as StateStores.
        "triggering_asset_events": SimpleNamespace(
            get=lambda *_: [SimpleNamespace(timestamp=at(n)) for n in triggering]
        ),
        "inlet_events": History(SimpleNamespace(timestamp=at(n), extra=payload_at(n)) for n in events),
        "asset_state_store": StateStores(store),
        "ti": SimpleNamespace(get_dr_count=lambda dag_id, run_ids: 0),  # noqa: ARG005  # Airflow's names
    }


def find(context, asset, run_id=default_run_id):
    return _dispatch._find(context, "retrain", "dispatch", [asset], run_id)


def versions(planned):
    return [started.payload["Version"] for started in planned.start]


@needs_progress
@pytest.mark.parametrize("run_type", ["scheduled", "manual", "asset_triggered"])
def test_an_event_while_paused_after_the_first_scheduled_run_is_not_lost(variables, run_type):
    """Whatever the next run is; and the asset's state stays empty, because tests take that for the watcher's."""
    asset, store = Asset("a"), Stored()
    assert versions(find(run_of("scheduled", asset, 1, store=store, start=100), asset)) == []
    assert store == {}
    assert len(variables) == 1
    later = run_of(run_type, asset, 1, 300, 700, store=store, start=701, triggering=[1, 300, 700])
    assert versions(find(later, asset)) == [300, 700]
    assert (len(store), len(variables)) == ((1, 0) if run_type == "asset_triggered" else (0, 1))


@needs_progress
def test_an_event_that_came_before_the_first_scheduled_run_has_its_own_run(variables):
    """As when the scheduler was slow."""
    asset, store = Asset("a"), Stored()
    assert versions(find(run_of("scheduled", asset, 1, 590, store=store), asset)) == []
    own = run_of("asset_triggered", asset, 1, 590, store=store, start=601, triggering=[1, 590])
    assert versions(find(own, asset)) == [590]


@needs_progress
def test_earlier_events_of_several_assets_are_not_lost_at_the_first_run(variables):
    one, two, store = Asset("one"), Asset("two"), {"one": Stored(), "two": Stored()}
    own = run_of("asset_triggered", one, 580, 590, store=store["one"], triggering=[580, 590])
    assert versions(_dispatch._find(own, "retrain", "dispatch", [one, two], default_run_id)) == [580, 590]


@needs_progress
def test_a_first_run_that_fails_loses_nothing(variables):
    asset, store = Asset("a"), Stored()
    find(run_of("scheduled", asset, store=store, start=100), asset)
    # The run of 300 has failed, and Airflow passes the next one its own event only.
    own = run_of("asset_triggered", asset, 300, 700, store=store, start=701, triggering=[700])
    assert versions(find(own, asset)) == [300, 700]


@needs_progress
def test_a_run_id_function_is_called_once_for_an_event_and_not_for_one_that_has_a_run():
    asset, calls = Asset("a"), []

    def name_run(payload):
        calls.append(payload["event_id"])
        return f"v{len(calls)}"

    store = Stored({_dispatch.state_key("dispatch"): Progress(at(0), {payload_at(1)["event_id"]: at(1)}).to_json()})
    context = run_of("scheduled", asset, 1, 1, store=store)
    context["inlet_events"] += [
        SimpleNamespace(timestamp=at(seconds), extra={"Version": 9, "event_id": "a" * 32}) for seconds in (3, 4)
    ]
    assert [started.run_id for started in find(context, asset, name_run).start] == ["v1"]
    assert calls == ["a" * 32]


TWICE = """
from airflow.sdk import DAG
from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

with DAG("retrain", schedule=None) as retrain:
    pass

one = run_dag_per_version(retrain, image_version_asset("one"))
two = run_dag_per_version({target}, image_version_asset("two"){more})
"""


@pytest.mark.parametrize("target", ["retrain", "'retrain'"])
@pytest.mark.parametrize(("more", "refused"), [("", True), (", dag_id='second'", False)])
def test_a_second_dispatching_dag_with_the_same_id_is_refused_however_often_a_file_is_parsed(
    tmp_path, target, more, refused
):
    file = tmp_path / "twice.py"
    file.write_text(TWICE.format(target=target, more=more))
    # Both are alive, as is what was parsed first.
    for bag in [DagBag(dag_folder=str(file)) for _ in range(2)]:
        assert bool(bag.import_errors) == refused
        assert all("Pass all assets to one call" in error for error in bag.import_errors.values())
        assert sorted(bag.dags) == ([] if refused else ["retrain", "retrain__image_versions", "second"])
