from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_imageversions import _reading, _sessions, _shared_poller
from airflow_provider_imageversions._cursor_store import CursorStore
from airflow_provider_imageversions.model import event_id
from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger

IMAGE = "my-image"


class Store:
    """The state store of an asset, as Airflow passes it to a trigger; it outlives the triggers."""

    def __init__(self):
        self.values = {}
        self.broken = False
        self.refused = self.writes = 0

    def _answer(self):
        if self.broken:
            self.refused += 1
            raise RuntimeError("the database is away")

    async def aget(self, key):
        self._answer()
        return json.loads(json.dumps(self.values.get(key)))

    async def aset(self, key, value):
        self._answer()
        self.writes += 1
        self.values[key] = json.loads(json.dumps(value))


class Accessors:
    """Several assets that share a trigger: asked as one, Airflow's accessors raise."""

    def __init__(self, *stores):
        self._by_name = dict(enumerate(stores))

    def aget(self, _key):
        raise ValueError("which asset?")


class BlockingStore:
    """The accessors of Airflow 3.3.0 and 3.3.1."""

    def __init__(self):
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value):
        self.values[key] = value


class Watching:
    """A trigger that runs as in a triggerer, until it is killed."""

    def __init__(self, emulator, store, **arguments):
        arguments = {"image_name": IMAGE, "poll_interval": 0.03, **arguments}
        path, stored = SageMakerImageVersionEventTrigger(**arguments).serialize()
        assert path == "airflow_provider_imageversions.triggers.SageMakerImageVersionEventTrigger"
        self.trigger = SageMakerImageVersionEventTrigger(**json.loads(json.dumps(stored)))
        self.trigger.asset_state_store = store
        self.emulator = emulator
        self.delivered = []
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        events = self.trigger.run()
        try:
            async for event in events:
                self.delivered.append(json.loads(json.dumps(event.payload)))
        finally:
            await events.aclose()

    @property
    def numbers(self):
        return [payload["Version"] for payload in self.delivered]

    async def until(self, condition, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.delivered
            if self.task.done():
                await self.task
            await asyncio.sleep(0.01)

    def polls(self):
        if self.trigger.alias is None:
            calls, first = self.emulator.calls("ListImageVersions"), "NextToken"
            return sum(first not in call["parameters"] for call in calls)
        return sum("Alias" in call["parameters"] for call in self.emulator.calls("DescribeImageVersion"))

    async def looked(self):
        """Wait until a poll that began from now on was judged."""
        before = self.polls()
        await self.until(lambda: self.polls() > before + 2)

    async def expect(self, *numbers):
        await self.until(lambda: len(self.delivered) >= len(numbers))
        await self.looked()
        assert self.numbers == list(numbers)

    async def kill(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def watch(store, emulator, connection, monkeypatch):
    """Start a watcher; what is still running at the end of the test is killed."""
    monkeypatch.setattr(_sessions, "STORED_AFTER", 0.1)
    monkeypatch.setattr(CursorStore, "RETRY", 0.05)
    monkeypatch.setattr(_sessions, "SLOW_PACE", 0.1)
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.1))
    monkeypatch.setattr(_sessions, "GRACE_PACE", 0.05)
    running = []

    def start(its_store=store, **arguments):
        running.append(Watching(emulator, its_store, **arguments))
        return running[-1]

    yield start
    for each in running:
        await each.kill()
    assert not _shared_poller._registries


def polls(emulator):
    return len(emulator.calls("ListImageVersions"))


async def settled(watching, store):
    """Wait until the emitted events are committed."""
    await watching.until(lambda: store.values and not next(iter(store.values.values()))["sent"])


async def test_an_event_has_the_record_and_what_identifies_it(watch, emulator):
    watching = watch(include_details=True)
    emulator.create_versions(IMAGE, 1, status="CREATING")
    await watching.until(lambda: polls(emulator) > 1)
    emulator.set_version(IMAGE, 1, status="CREATED")
    await watching.expect(1)
    (payload,) = watching.delivered
    assert payload["image_name"] == IMAGE
    assert payload["region"] == "us-east-1"
    assert payload["status"] == payload["ImageVersionStatus"] == "CREATED"
    assert "@sha256:" in payload["ContainerImage"]
    assert payload["Aliases"] == []
    assert payload["event_id"] == event_id(payload)
    assert payload["redelivered"] is False


async def test_by_default_events_are_for_versions_created_from_now_on(watch, emulator):
    emulator.create_versions(IMAGE, 3)
    emulator.set_version(IMAGE, 2, status="CREATING")
    watching = watch()
    await watching.until(lambda: polls(emulator) > 1)
    emulator.create_versions(IMAGE, 1, status="CREATING")
    emulator.set_version(IMAGE, 4, status="CREATED")
    await watching.expect(4)
    emulator.set_version(IMAGE, 2, status="CREATED")
    await watching.expect(4, 2)


@pytest.mark.parametrize(("start_from", "expected"), [("earliest", [1, 2, 3]), (2, [2, 3]), ("time", [3])])
async def test_it_starts_from_start_from(watch, emulator, start_from, expected):
    start = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=10)
    emulator.create_versions(IMAGE, 3, start_time=start, spacing_seconds=86400)
    watching = watch(start_from=start + timedelta(days=2) if start_from == "time" else start_from)
    await watching.expect(*expected)


async def test_a_restart_without_new_versions_emits_no_event(watch, emulator, store):
    emulator.create_versions(IMAGE, 2)
    watching = watch(start_from="earliest")
    await watching.expect(1, 2)
    await settled(watching, store)
    await watching.kill()
    # Another pace or another detail is the same watch.
    again = watch(start_from="earliest", poll_interval=0.1, include_details=True)
    await again.until(lambda: polls(emulator) > 5)
    assert again.delivered == []
    emulator.create_versions(IMAGE, 1)
    await again.expect(3)


async def test_an_event_before_a_crash_is_emitted_again_with_the_same_id(watch, emulator, monkeypatch):
    monkeypatch.setattr(_sessions, "STORED_AFTER", 60.0)
    emulator.create_versions(IMAGE, 1)
    watching = watch()
    await watching.until(lambda: polls(emulator) > 1)
    emulator.create_versions(IMAGE, 2)
    await watching.expect(2, 3)
    await watching.kill()
    emulator.create_versions(IMAGE, 1)
    again = watch()
    await again.expect(2, 3, 4)
    assert [payload["redelivered"] for payload in again.delivered] == [True, True, False]
    assert [payload["event_id"] for payload in again.delivered[:2]] == [
        payload["event_id"] for payload in watching.delivered
    ]


async def test_versions_created_during_downtime_get_events(watch, emulator, store):
    emulator.create_versions(IMAGE, 1)
    watching = watch()
    await watching.until(lambda: store.values)
    await watching.kill()
    emulator.create_versions(IMAGE, 150)
    await watch().expect(*range(2, 152))


async def test_a_recreated_image_gets_events_from_its_first_version(watch, emulator, store):
    emulator.create_versions(IMAGE, 3)
    watching = watch()
    await watching.until(lambda: store.values)
    client = emulator.client("sagemaker")
    emulator.creation_seconds = 0
    client.delete_image(ImageName=IMAGE)
    await watching.until(lambda: client.list_images()["Images"] == [])
    await watching.looked()
    assert watching.delivered == []
    emulator.create_versions(IMAGE, 2, start_time=datetime.now(timezone.utc), spacing_seconds=0.01)
    await watching.expect(1, 2)


async def test_failures_can_be_watched_with_their_reason(watch, emulator):
    emulator.create_versions(IMAGE, 1)
    watching = watch(statuses=["CREATE_FAILED"])
    await watching.until(lambda: polls(emulator) > 1)
    emulator.create_versions(IMAGE, 2)
    reason = "\x00\x1b" + "r" * 1022
    emulator.set_version(IMAGE, 2, status="CREATE_FAILED", failure_reason=reason)
    await watching.expect(2)
    assert watching.delivered[0]["status"] == "CREATE_FAILED"
    assert watching.delivered[0]["FailureReason"] == "\ufffd\ufffd" + "r" * 1022


async def test_an_image_that_does_not_exist_yet_is_waited_for(watch, emulator):
    watching = watch()
    await watching.until(lambda: polls(emulator) > 2)
    emulator.create_versions(IMAGE, 1, status="CREATING")
    await watching.until(lambda: polls(emulator) > 5)
    emulator.set_version(IMAGE, 1, status="CREATED")
    await watching.expect(1)


@pytest.fixture
def slowed_down(emulator, monkeypatch, capsys):
    """Wait until the log has an error that is not resolved, and check the pace from then on; return the log."""
    # After access denied there are ten polls a second at most, whatever the interval.
    monkeypatch.setattr(_sessions, "SLOW_PACE", 0.3)

    async def wait(watching, operation):
        output = ""

        def reported():
            nonlocal output
            output += capsys.readouterr().out
            return "until this is resolved" in output

        await watching.until(reported)
        calls = len(emulator.calls(operation))
        await watching.until(lambda: len(emulator.calls(operation)) >= calls + 2)
        times = [call["monotonic"] for call in emulator.calls(operation)]
        # A call may be late, but the next one is not earlier than this after the last before it.
        assert times[calls + 1] - times[calls - 1] > 0.29
        assert not watching.task.done()
        assert watching.delivered == []
        return output + capsys.readouterr().out

    return wait


async def test_misconfiguration_is_an_error_in_the_log_at_a_slow_pace(watch, emulator, slowed_down):
    emulator.add_fault("access_denied", times=None)
    output = await slowed_down(watch(), "ListImageVersions")
    assert output.count("until this is resolved") == 1
    assert "not authorized" in output


async def test_denied_details_are_logged_as_an_error_and_retried_slowly(watch, emulator, slowed_down):
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("access_denied", operation="DescribeImageVersion", times=None)
    watching = watch(start_from="earliest", include_details=True)
    output = await slowed_down(watching, "DescribeImageVersion")
    assert "not authorized to perform: sagemaker:DescribeImageVersion" in output
    assert output.count("until this is resolved") == 1
    emulator.clear_faults()
    await watching.expect(1)


async def test_unreadable_details_do_not_hold_up_earlier_versions(watch, emulator, connection):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    emulator.create_versions(IMAGE, 25)
    emulator.add_fault("throttling", operation="DescribeImageVersion", after=14, times=3)
    watching = watch(start_from="earliest", include_details=True)
    await watching.until(lambda: len(watching.delivered) >= 14)
    assert len(emulator.calls("DescribeImageVersion")) < 25
    await watching.expect(*range(1, 26))
    assert all("ContainerImage" in payload and not payload["redelivered"] for payload in watching.delivered)
    # Each was asked for once, and again where the answer was none.
    assert len(emulator.calls("DescribeImageVersion")) == 25 + 3


async def test_without_a_state_store_a_failed_watcher_continues_where_it_was(watch, emulator, monkeypatch):
    emulator.create_versions(IMAGE, 1)
    watching = watch(None)
    await watching.until(lambda: polls(emulator) > 1)
    emulator.create_versions(IMAGE, 1)
    await watching.expect(2)
    await watching.until(lambda: not watching.trigger.kept[0]["sent"])
    with monkeypatch.context() as patch:
        patch.setattr(_reading, "read_versions", lambda *_: 1 / 0)
        await watching.until(lambda: not _shared_poller._registries)
    emulator.create_versions(IMAGE, 2)
    await watching.expect(2, 3, 4)


@pytest.mark.parametrize("arguments", [{}, {"start_from": 2}, {"alias": "prod"}])
async def test_all_versions_of_a_new_image_are_new_even_after_a_restart(watch, store, emulator, arguments):
    watching = watch(**arguments)
    await watching.until(lambda: store.values)
    await watching.kill()
    emulator.create_versions(IMAGE, 2)
    emulator.client("sagemaker").update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["prod"])
    await watch(**arguments).expect(*([2] if arguments else [1, 2]))


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("fault", ["access_denied", "server_error"])
async def test_versions_created_while_the_first_poll_fails_get_events(watch, emulator, fault, restarts):
    emulator.create_versions(IMAGE, 4)
    emulator.set_version(IMAGE, 2, status="CREATING")
    emulator.set_version(IMAGE, 3, status="CREATING")
    emulator.add_fault(fault, times=None)
    watching = watch()
    await watching.until(lambda: polls(emulator) > 3)  # botocore tries thrice
    emulator.create_versions(IMAGE, 1, status="CREATING")
    for number in (3, 5):
        emulator.set_version(IMAGE, number, status="CREATED")
    if restarts:
        await watching.kill()
        watching = watch()
    emulator.clear_faults()
    await watching.expect(3, 5)
    emulator.set_version(IMAGE, 2, status="CREATED")
    await watching.expect(3, 5, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_name": "bad name!"},
        {"statuses": ["DELETING"]},
        {"start_from": "noon"},
        {"start_from": 3, "alias": "prod"},
        {"statuses": ["CREATE_FAILED"], "alias": "prod"},
        {"alias": "-"},
        {"alias": "None"},
        {"wake_queue": ""},
        {"wake_queue": ["https://sqs.us-east-1.amazonaws.com/123456789012/queue"]},
    ],
)
async def test_bad_arguments_are_an_error_in_the_log_and_never_an_exception(watch, capsys, monkeypatch, arguments):
    pace, began = 0.05, time.monotonic()
    monkeypatch.setattr(_sessions, "SLOW_PACE", pace)
    watching, output = watch(**arguments), []

    def errors():
        output.append(capsys.readouterr().out)
        return "".join(output).count("Invalid watcher arguments")

    await watching.until(lambda: errors() > 1)
    assert not watching.task.done()
    # At a slow pace.
    assert errors() <= 1 + (time.monotonic() - began) / pace
    assert next(iter(arguments)) in "".join(output)


async def test_what_is_created_while_airflow_s_database_is_away_at_the_first_start_gets_an_event(
    watch, emulator, store
):
    emulator.create_versions(IMAGE, 1)
    store.broken = True
    watching = watch()
    await watching.until(lambda: store.refused > 1)
    emulator.create_versions(IMAGE, 1, start_time=time.time())
    store.broken = False
    await watching.until(lambda: watching.numbers == [2])


async def test_a_missing_connection_is_waited_for(watch, emulator, connection, capsys):
    emulator.create_versions(IMAGE, 1)
    watching = watch(aws_conn_id="later", start_from="earliest")
    await watching.until(lambda: "until this is resolved" in capsys.readouterr().out)
    assert not watching.task.done()
    connection("later")
    await watching.expect(1)


async def test_a_state_that_can_t_be_read_is_never_taken_for_a_first_start(watch, emulator, store):
    emulator.create_versions(IMAGE, 1)
    watching = watch()
    await watching.until(lambda: store.values)
    await watching.kill()
    emulator.create_versions(IMAGE, 1)
    store.broken = True
    again = watch()
    await again.until(lambda: store.refused > 2)
    assert again.delivered == []
    store.broken = False
    await again.expect(2)


async def test_a_state_that_can_t_be_written_is_written_later(watch, emulator, store):
    emulator.create_versions(IMAGE, 1)
    watching = watch()
    await watching.until(lambda: store.values)
    store.broken = True
    emulator.create_versions(IMAGE, 1)
    await watching.expect(2)
    before = store.refused
    await watching.until(lambda: store.refused > before + 2)
    store.broken = False
    await watching.until(lambda: next(iter(store.values.values()))["runs"][0][1] == 2)
    await watching.kill()
    again = watch()
    await again.looked()
    assert again.delivered == []


async def test_nothing_is_written_while_nothing_changes(watch, emulator, store):
    emulator.create_versions(IMAGE, 5)
    watching = watch()
    await watching.until(lambda: polls(emulator) > 8)
    assert store.writes == 1


async def test_what_was_read_further_down_than_needed_is_not_read_again_at_once(watch, emulator, store):
    emulator.create_versions(IMAGE, 150)
    watching = watch(poll_interval=60.0)
    await watching.until(lambda: store.values, 20)
    await asyncio.sleep(0.1)
    assert polls(emulator) == 2  # pages of the first poll, which needs all versions


async def test_assets_that_share_a_trigger_share_its_events_and_each_keeps_the_state(watch, emulator):
    one, other = Store(), Store()
    emulator.create_versions(IMAGE, 1)
    watching = watch(Accessors(one, other))
    await watching.until(lambda: one.values and other.values)
    await watching.kill()
    emulator.create_versions(IMAGE, 1)
    # One of them came less far, as after a failed write.
    other.values = {key: {"runs": [], "sent": []} for key in other.values}
    await watch(Accessors(one, other)).expect(1, 2)


async def test_the_blocking_accessors_of_airflow_3_3_0_do(watch, emulator):
    store = BlockingStore()
    emulator.create_versions(IMAGE, 1)
    watching = watch(store, start_from="earliest")
    await watching.expect(1)
    await watching.until(lambda: store.values and next(iter(store.values.values()))["runs"])
    await watching.kill()
    again = watch(store, start_from="earliest")
    await again.looked()
    assert again.delivered == []


async def test_without_a_state_store_it_warns_once_and_keeps_its_state_in_memory(watch, emulator, capsys):
    emulator.create_versions(IMAGE, 2)
    watching = watch(None, start_from="earliest")
    await watching.expect(1, 2)
    assert capsys.readouterr().out.count("no state store") == 1
    await watching.kill()
    await watch(None, start_from="earliest").expect(1, 2)


async def test_watchers_and_sensors_of_one_image_share_a_poll(watch, emulator):
    emulator.create_versions(IMAGE, 1)
    stores = [Store() for _ in range(5)]
    watchers = [watch(each, poll_interval=30.0) for each in stores]
    await watchers[-1].until(lambda: all(each.values for each in stores))
    assert polls(emulator) <= 2


@pytest.mark.parametrize("is_first", [False, True])
async def test_a_crashed_poll_is_restarted(watch, emulator, monkeypatch, is_first):
    emulator.create_versions(IMAGE, 1)
    emulator.create_versions(IMAGE, 1, status="CREATING")
    original = _reading.read_versions

    def broken(*_):
        # The watcher waits before it starts again.
        emulator.set_version(IMAGE, 2, status="CREATED")
        monkeypatch.setattr(_reading, "read_versions", original)
        raise KeyError("bug")

    if is_first:
        monkeypatch.setattr(_reading, "read_versions", broken)
        watching = watch()
    else:
        watching = watch()
        await watching.until(lambda: polls(emulator) > 1)
        monkeypatch.setattr(_reading, "read_versions", broken)
    await watching.expect(2)


def test_its_arguments_hold_no_secret_and_survive_another_version_of_this_package(connection):
    trigger = SageMakerImageVersionEventTrigger(
        image_name=IMAGE, added_later={"secret": "hidden"}, start_from=datetime.now(timezone.utc)
    )
    text = json.dumps(trigger.serialize())
    assert "testing" not in text
    assert "hidden" not in text


async def test_a_misspelled_argument_is_logged_once_in_the_triggerer(watch, emulator, capsys):
    emulator.create_versions(IMAGE, 1)
    watching = watch(poll_intervall=5, start_from="earliest")
    await watching.expect(1)
    expected = f"Ignoring unknown arguments of the trigger for SageMaker image '{IMAGE}': poll_intervall. "
    assert capsys.readouterr().out.count(expected) == 1


async def test_dag_files_that_replace_each_other_s_watcher_are_logged_once(watch, emulator, capsys, caplog):
    caplog.set_level("INFO")
    emulator.create_versions("contested", 1)
    text = ""
    for interval, expected in ((1, 0), (2, 0), (2, 0), (1, 1), (2, 1)):
        # Not by the emulator's calls: a poll of the watcher before may end late.
        caplog.clear()
        watching = watch(image_name="contested", poll_interval=interval, include_details=interval == 2)
        await watching.until(lambda: "started polling" in caplog.text)
        await watching.kill()
        text += capsys.readouterr().out
        assert text.count("DAG files disagree about the watcher of SageMaker image 'contested'") == expected
    assert "(include_details, poll_interval)" in text


def test_the_key_of_the_state_goes_with_what_is_watched():
    def key(**arguments):
        return SageMakerImageVersionEventTrigger(**{"image_name": IMAGE, **arguments}).state_key

    same = [{}, {"poll_interval": 5}, {"start_from": 3}, {"include_details": True}, {"verify": False}]
    assert len({key(**arguments) for arguments in same}) == 1
    others = [{"image_name": "b"}, {"region_name": "eu-west-1"}, {"aws_conn_id": "b"}, {"statuses": ["CREATE_FAILED"]},
              {"alias": "prod"}, {"alias": "blue"}]  # fmt: skip
    assert len({key(**arguments) for arguments in [{}, *others]}) == 7
    # What is stored already is found by it.
    assert key() == "sagemaker-image-versions-4d51c3547fb224de"


# --- An alias's moves ------------------------------------------------------------------------------------


@pytest.fixture
def promote(emulator):
    """Move the alias prod to a version, or away from all of them."""
    client = emulator.client("sagemaker")

    def move(number=None):
        if "prod" in client.list_aliases(ImageName=IMAGE)["SageMakerImageVersionAliases"]:
            client.update_image_version(ImageName=IMAGE, Alias="prod", AliasesToDelete=["prod"])
        if number is not None:
            client.update_image_version(ImageName=IMAGE, Version=number, AliasesToAdd=["prod"])

    return move


async def test_an_alias_move_has_the_record_and_an_id(watch, emulator, promote):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod", include_details=True)
    await watching.looked()
    promote(8)
    await watching.expect(8)
    (payload,) = watching.delivered
    assert payload["alias"] == "prod"
    assert payload["image_name"] == IMAGE
    assert payload["region"] == "us-east-1"
    assert payload["status"] == payload["ImageVersionStatus"] == "CREATED"
    assert "@sha256:" in payload["ContainerImage"]
    assert payload["Aliases"] == ["prod"]
    assert payload["event_id"] != event_id(payload)
    assert payload["redelivered"] is False


async def test_to_watch_an_alias_is_one_call_a_poll_whatever_the_number_of_versions(watch, emulator, promote):
    emulator.create_versions(IMAGE, 1_000)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    assert not emulator.calls("ListImageVersions")
    assert {call["parameters"]["Alias"] for call in emulator.calls("DescribeImageVersion")} == {"prod"}


async def test_earliest_emits_an_event_for_the_present_owner(watch, emulator, promote):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod", start_from="earliest")
    await watching.expect(7)
    promote(8)
    await watching.expect(7, 8)


async def test_an_image_that_gets_the_alias_later_is_waited_for(watch, emulator, promote):
    watching = watch(alias="prod")
    await watching.looked()
    emulator.create_versions(IMAGE, 2)
    await watching.looked()
    promote(1)
    await watching.expect(1)


async def test_an_alias_on_a_creating_version_gets_an_event_when_it_is_created(watch, emulator, promote):
    emulator.create_versions(IMAGE, 7)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    promote()
    emulator.creation_seconds = 60
    client = emulator.client("sagemaker")
    client.create_image_version(ImageName=IMAGE, BaseImage="repository:tag", ClientToken="token", Aliases=["prod"])
    await watching.looked()
    assert watching.delivered == []
    emulator.set_version(IMAGE, 8, status="CREATED")
    await watching.expect(8)


async def test_an_alias_given_back_to_the_same_version_has_not_moved(watch, emulator, promote):
    emulator.create_versions(IMAGE, 7)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    promote()
    await watching.looked()
    promote(7)
    await watching.looked()
    assert watching.delivered == []


async def test_each_way_of_an_alias_that_goes_back_and_forth_is_a_move_of_its_own(watch, emulator, promote):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod", start_from="earliest")
    expected = [7]
    await watching.expect(*expected)
    for number in (8, 7, 8):
        promote(number)
        expected.append(number)
        await watching.expect(*expected)
    assert len({payload["event_id"] for payload in watching.delivered}) == 4


async def test_a_move_before_a_crash_is_emitted_again_with_the_same_id(watch, emulator, promote, monkeypatch):
    monkeypatch.setattr(_sessions, "STORED_AFTER", 60.0)
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    promote(8)
    await watching.expect(8)
    await watching.kill()
    again = watch(alias="prod")
    await again.expect(8)
    assert again.delivered == [{**watching.delivered[0], "redelivered": True}]


async def test_a_move_back_during_downtime_gets_an_event(watch, emulator, promote, monkeypatch):
    monkeypatch.setattr(_sessions, "STORED_AFTER", 60.0)
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    promote(8)
    await watching.expect(8)
    await watching.kill()
    promote(7)
    again = watch(alias="prod")
    await again.expect(7)
    assert again.delivered[0]["redelivered"] is False
    assert again.delivered[0]["event_id"] != watching.delivered[0]["event_id"]


async def test_a_restart_emits_an_event_only_if_the_alias_has_moved(watch, emulator, promote, store):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod", start_from="earliest")
    await watching.expect(7)
    await settled(watching, store)
    await watching.kill()
    again = watch(alias="prod", start_from="earliest", poll_interval=0.1)
    await again.looked()
    assert again.delivered == []
    await again.kill()
    promote(8)
    await watch(alias="prod").expect(8)


async def test_a_move_is_emitted_only_after_its_state_is_stored(watch, emulator, promote, store):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    store.broken = True
    promote(8)
    await watching.looked()
    assert watching.delivered == []
    store.broken = False
    await watching.expect(8)


async def test_nothing_is_written_while_an_alias_stays(watch, emulator, promote, store):
    emulator.create_versions(IMAGE, 7)
    promote(7)
    watching = watch(alias="prod")
    await watching.looked()
    await watching.looked()
    assert store.writes == 1


async def test_alias_moves_get_events_without_a_state_store(watch, emulator, promote):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    watching = watch(None, alias="prod")
    await watching.looked()
    promote(8)
    await watching.expect(8)


async def test_watchers_of_versions_and_of_aliases_do_not_disturb_each_other(watch, emulator, promote, store):
    emulator.create_versions(IMAGE, 8)
    promote(7)
    versions, moves = watch(), watch(alias="prod")
    await moves.looked()
    emulator.create_versions(IMAGE, 1)
    await versions.expect(9)
    promote(9)
    await moves.expect(9)
    assert versions.numbers == [9]
    assert len(store.values) == 2
