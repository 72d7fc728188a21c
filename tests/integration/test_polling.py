from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from asgiref.sync import async_to_sync

from airflow_provider_imageversions import _reading, _schedule, _sessions, _shared_poller
from airflow_provider_imageversions._reading import PollResult
from airflow_provider_imageversions._worker import WorkerPoller
from airflow_provider_imageversions.decide import Waiting
from airflow_provider_imageversions.errors import ErrorKind
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.model import LISTED_FIELDS, Target, VersionsAbove
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger
from tests.conftest import first_event

IMAGE = "my-image"
INTERVAL = 60.0
BURST = int(_schedule.BURST)


def trigger(**arguments):
    return SageMakerImageVersionTrigger(**{"image_name": IMAGE, "poll_interval": INTERVAL, **arguments})


def subscribe(target=None, interval=INTERVAL, image_name=IMAGE, wake_queue=None, **parameters):
    return _shared_poller.Subscription(
        trigger(**parameters), image_name, target or Target(), interval, wake_queue=wake_queue
    )


def polls(emulator):
    return len(emulator.calls("ListImageVersions"))


async def eventually(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        assert not _shared_poller._registries
        gc.collect()


async def test_a_thousand_waits_for_one_image_share_one_call(emulator, connection):
    emulator.create_versions(IMAGE, 3)
    waits = [asyncio.create_task(first_event(trigger(version=4))) for _ in range(1000)]
    with subscribe(Target(version=4)) as witness:
        await witness.next()
        assert polls(emulator) == 1
        emulator.create_versions(IMAGE, 1)
        # A poll for a further subscriber is as good for all as one at the interval.
        with subscribe(Target(version=4)):
            events = await asyncio.gather(*waits)
    assert {event.payload["version"]["Version"] for event in events} == {4}
    assert polls(emulator) == 2


async def test_a_thousand_waits_continue_in_batches_and_none_starves(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    turn = 0
    woken = Counter()

    async def count_turns():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def wait():
        with subscribe(interval=0.1) as subscription:
            for _ in range(3):
                await subscription.next()
                woken[turn] += 1

    async def come_back_at_once():
        with subscribe(interval=0.01) as subscription:
            while True:
                await subscription.next()

    others = [asyncio.create_task(count_turns()), asyncio.create_task(come_back_at_once())]
    await asyncio.wait_for(asyncio.gather(*(wait() for _ in range(1000))), 60)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert woken.total() == 3000
    # Two slices may fall between two turns of the one that counts.
    assert max(woken.values()) <= 2 * _shared_poller.WOKEN_AT_ONCE


async def test_no_wait_is_lost_while_others_start_end_and_are_cancelled(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    staying = [asyncio.create_task(first_event(trigger(poll_interval=0.02))) for _ in range(120)]

    async def come_and_go(seconds):
        while True:
            passing = asyncio.create_task(first_event(trigger(poll_interval=0.02)))
            try:
                await asyncio.sleep(seconds)
            finally:  # the last one goes as well
                passing.cancel()
                await asyncio.gather(passing, return_exceptions=True)

    coming = [asyncio.create_task(come_and_go(number / 2000)) for number in range(60)]
    await eventually(lambda: polls(emulator) > 15, 60)
    emulator.set_version(IMAGE, 1, status="CREATED")
    events = await asyncio.wait_for(asyncio.gather(*staying), 30)
    for task in coming:
        task.cancel()
    await asyncio.gather(*coming, return_exceptions=True)
    assert {event.payload["status"] for event in events} == {"ready"}


async def test_waits_for_different_versions_share_the_calls_that_the_lowest_needs(emulator, connection):
    emulator.create_versions(IMAGE, 5)
    waits = [first_event(trigger(**target)) for target in ({"version": 2}, {"version": 5}, {}, {"after_version": 1})]
    events = await asyncio.gather(*waits)
    assert [event.payload["version"]["Version"] for event in events] == [2, 5, 5, 5]
    assert polls(emulator) <= 2


async def test_details_are_requested_once_for_all_subscribers(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    events = await asyncio.gather(*(first_event(trigger(include_details=True)) for _ in range(50)))
    assert all("ContainerImage" in event.payload["version"] for event in events)
    assert len(emulator.calls("DescribeImageVersion")) == len(emulator.calls("ListAliases")) == 1


async def test_airflow_s_requests_during_client_creation_run_on_the_event_loop(emulator, connection, monkeypatch):
    emulator.create_versions(IMAGE, 1)
    loops = []

    async def ask():
        loops.append(asyncio.get_running_loop())

    def get_session(self, *arguments, **options):
        async_to_sync(ask)()  # as Airflow 3.0 to 3.2 send a secret to their supervisor
        return original(self, *arguments, **options)

    original = AwsBaseHook.get_session
    monkeypatch.setattr(AwsBaseHook, "get_session", get_session)
    await first_event(trigger())
    assert set(loops) == {asyncio.get_running_loop()}


async def test_a_bug_in_resolving_a_connection_is_not_mistaken_for_an_outage(emulator, connection, monkeypatch):
    for name in ("get_connection", "aget_connection"):
        monkeypatch.setattr(AwsBaseHook, name, lambda: None, raising=False)  # takes no connection's id
    with pytest.raises(TypeError):
        await SageMakerImageVersionsHook().preload_connection()


async def test_different_connections_regions_or_settings_do_not_share(emulator, connection):
    connection("other", login="other")
    emulator.create_versions(IMAGE, 1)
    emulator.create_versions(IMAGE, 1, region_name="eu-west-1")
    different = [{}, {"aws_conn_id": "other"}, {"region_name": "eu-west-1"}, {"botocore_config": {"read_timeout": 9}}]
    await asyncio.gather(*(first_event(trigger(**parameters)) for parameters in different))
    calls = emulator.calls("ListImageVersions")
    assert sorted((call["region"], call["access_key_id"]) for call in calls) == [
        ("eu-west-1", "testing"),
        ("us-east-1", "other"),
        ("us-east-1", "testing"),
        ("us-east-1", "testing"),
    ]


async def test_images_of_one_connection_share_one_client(emulator, connection, monkeypatch):
    made = []
    original = SageMakerImageVersionsHook.from_parameters

    def from_parameters(**parameters):
        made.append(parameters)
        return original(**parameters)

    monkeypatch.setattr(SageMakerImageVersionsHook, "from_parameters", from_parameters)
    images = [f"image-{number}" for number in range(5)]
    for image in images:
        emulator.create_versions(image, 1)
    await asyncio.gather(*(first_event(trigger(image_name=image)) for image in images))
    assert len(made) == 1
    assert polls(emulator) == 5


async def test_a_poll_follows_the_shortest_interval_of_its_subscribers(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    with subscribe(interval=60.0) as slow:
        await slow.next()
        with subscribe(interval=0.05) as fast:
            await fast.next()
            await fast.next()
            before = polls(emulator)
            await slow.next()
        assert polls(emulator) <= before + 1
        await asyncio.sleep(0.25)
        assert polls(emulator) <= before + 2


async def test_a_new_subscriber_gets_a_poll_that_began_after_it_joined(emulator, connection):
    emulator.create_versions(IMAGE, 7)
    with subscribe() as early:
        assert (await early.next()).outcomes[Target()].version["Version"] == 7
        emulator.create_versions(IMAGE, 1, status="CREATING")
        with subscribe() as late:
            assert isinstance((await asyncio.wait_for(late.next(), INTERVAL / 2)).outcomes[Target()], Waiting)
    assert polls(emulator) == 2


async def test_a_new_subscriber_does_not_get_the_result_of_a_running_poll(emulator, connection):
    emulator.create_versions(IMAGE, 7)
    emulator.add_fault("slow", times=1, seconds=30)
    with subscribe() as early:
        await eventually(lambda: polls(emulator) == 1)
        emulator.create_versions(IMAGE, 1, status="CREATING")
        with subscribe() as late:
            emulator.clear_faults()
            assert isinstance((await late.next()).outcomes[Target()], Waiting)
            assert (await early.next()).fault is None
    assert polls(emulator) == 2


async def test_a_new_subscriber_with_a_lower_target_gets_older_versions(emulator, connection):
    emulator.create_versions(IMAGE, 300)
    with subscribe(Target(version=300)) as early:
        await early.next()
        with subscribe(VersionsAbove(10)) as late:
            assert len((await late.next()).versions) >= 290


async def test_a_new_subscriber_of_a_missing_image_is_polled_for_at_once(emulator, connection):
    with subscribe() as early:
        assert (await early.next()).fault is ErrorKind.MISSING
        emulator.create_versions(IMAGE, 1)
        event = await asyncio.wait_for(first_event(trigger()), INTERVAL / 2)
        assert event.payload["status"] == "ready"


async def test_grace_starts_with_the_first_poll_that_met_this_kind_of_error(emulator, connection, monkeypatch):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.15))
    emulator.create_versions(IMAGE, 1)
    # After each of them there is a pause of 0.1 seconds or more.
    emulator.add_fault("unavailable", times=2)
    emulator.add_fault("access_denied", times=1)
    assert (await first_event(trigger(poll_interval=0.1))).payload["status"] == "ready"
    assert polls(emulator) == 4
    emulator.add_fault("access_denied", times=None)
    began = time.monotonic()
    assert (await first_event(trigger(poll_interval=0.1))).payload["status"] == "error"
    assert time.monotonic() - began > 0.15


async def test_a_connection_that_hangs_does_not_block_others(emulator, connection):
    connection("other")
    emulator.create_versions(IMAGE, 1)
    for number in range(6):
        emulator.create_versions(f"slow-{number}", 1)
        emulator.add_fault("slow", image_name=f"slow-{number}", times=1, seconds=3)
    slow = [asyncio.create_task(first_event(trigger(image_name=f"slow-{number}"))) for number in range(6)]
    await eventually(lambda: polls(emulator) >= 2)
    assert (await first_event(trigger(aws_conn_id="other"))).payload["status"] == "ready"
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_polls_for_other_subscribers_do_not_lengthen_a_backoff(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    backing_off = asyncio.create_task(first_event(trigger(poll_interval=0.5, exponential_backoff=True)))
    with subscribe(interval=0.01) as fast:
        for _ in range(20):
            await fast.next()
        (other,) = fast._poll._subscriptions - {fast}
        # Doubled after each poll, it would be 2**20.
        assert 1 <= other.interval < 100
        emulator.set_version(IMAGE, 1, status="CREATED")
        assert (await backing_off).payload["status"] == "ready"


async def test_a_wait_for_an_old_version_that_was_deleted_fails(emulator, connection):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 60)
    emulator.create_versions(IMAGE, 140, status="CREATE_FAILED")
    emulator.client("sagemaker").delete_image_version(ImageName=IMAGE, Version=50)
    payload = (await first_event(trigger(version=50))).payload
    assert payload["status"] == "failed"
    assert "version 50 does not exist" in payload["reason"]


@pytest.mark.parametrize("rate", ["0.0", "-1.0", "nan"])
async def test_a_rate_must_be_above_zero(emulator, connection, monkeypatch, rate):
    monkeypatch.setenv("AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND", rate)
    payload = (await first_event(trigger())).payload
    assert payload["status"] == "error"
    assert f"calls_per_second={rate} is not valid" in payload["error"]


async def test_records_of_old_versions_and_aliases_have_no_details_by_default(emulator, connection):
    emulator.create_versions(IMAGE, 300)
    emulator.client("sagemaker").update_image_version(ImageName=IMAGE, Version=3, AliasesToAdd=["prod"])
    for target in ({"version": 3}, {"alias": "prod"}, {"version": 300}):
        payload = (await first_event(trigger(**target))).payload
        assert set(payload["version"]) <= set(LISTED_FIELDS)


@pytest.mark.parametrize(
    ("denied", "ends", "waits"),
    [
        ("DescribeImageVersion", {"alias": "prod"}, {"after_version": 1}),
        ("ListImageVersions", {"after_version": 1}, {"alias": "prod"}),
    ],
)
async def test_denied_access_ends_only_the_waits_that_need_it(emulator, connection, monkeypatch, denied, ends, waits):
    monkeypatch.setitem(_sessions.GRACE, ErrorKind.PERMANENT, 0.15)
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("access_denied", operation=denied, times=None)
    waiting = asyncio.create_task(first_event(trigger(**waits, poll_interval=0.05)))
    began = time.monotonic()
    refused = await first_event(trigger(**ends, poll_interval=0.05))
    assert f"not authorized to perform: sagemaker:{denied}" in refused.payload["error"]
    assert time.monotonic() - began > 0.15
    emulator.create_versions(IMAGE, 1)
    emulator.client("sagemaker").update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["prod"])
    assert (await waiting).payload["version"]["Version"] == 2


async def test_an_old_version_that_cannot_be_described_is_found_by_listing(emulator, connection):
    emulator.create_versions(IMAGE, 300)
    emulator.add_fault("access_denied", operation="DescribeImageVersion", times=None)
    assert (await first_event(trigger(version=30))).payload["version"]["Version"] == 30
    assert polls(emulator) == 3


async def test_a_slow_poll_is_not_overtaken(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    emulator.add_fault("slow", times=None, seconds=30)
    with subscribe(interval=0.02) as subscription:
        await eventually(lambda: polls(emulator) > 0)
        await asyncio.sleep(0.2)
        assert polls(emulator) == 1
        emulator.clear_faults()
        await subscription.next()


async def test_cancelling_one_wait_does_not_affect_others(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    one, other = (asyncio.create_task(first_event(trigger(poll_interval=0.05))) for _ in range(2))
    await eventually(lambda: polls(emulator) > 0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    emulator.set_version(IMAGE, 1, status="CREATED")
    assert (await other).payload["status"] == "ready"


async def test_the_poll_and_the_client_end_with_the_last_subscriber(emulator, connection):
    emulator.create_versions(IMAGE, 1, status="CREATING")
    waits = [asyncio.create_task(first_event(trigger(poll_interval=0.02))) for _ in range(3)]
    await eventually(lambda: polls(emulator) > 1)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    before = polls(emulator)
    await asyncio.sleep(0.2)
    assert polls(emulator) <= before + 1
    assert not _shared_poller._registries


async def test_cancelling_one_request_for_details_does_not_affect_others(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    with subscribe() as subscription:
        version = (await subscription.next()).versions[0]
        emulator.add_fault("slow", operation="DescribeImageVersion", times=1, seconds=30)
        asking = [asyncio.create_task(subscription.add_details(version)) for _ in range(3)]
        await eventually(lambda: emulator.calls("DescribeImageVersion"))
        asking[0].cancel()
        await asyncio.wait(asking[:1])
        emulator.clear_faults()
        records = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(records[0], asyncio.CancelledError)
        assert all("ContainerImage" in record for record in records[1:])
        assert len(emulator.calls("DescribeImageVersion")) == 1
        # The result of a lookup is not kept, because it may change.
        await subscription.add_details(version)
        assert len(emulator.calls("DescribeImageVersion")) == 2


async def test_a_failed_request_for_details_reaches_all_subscribers(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    with subscribe() as subscription:
        version = (await subscription.next()).versions[0]
        emulator.add_fault("access_denied", operation="DescribeImageVersion", times=1)
        answers = await asyncio.gather(*(subscription.add_details(version) for _ in range(3)))
        assert [answer.fault for answer in answers] == [ErrorKind.PERMANENT] * 3
        assert "ContainerImage" in await subscription.add_details(version)


async def test_sockets_and_threads_are_closed_with_the_last_subscriber(emulator, connection):
    for image in (IMAGE, "other-image"):
        emulator.create_versions(image, 1, status="CREATING")
    port = urlsplit(emulator.endpoint_url).port

    def sockets():
        return [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]

    def threads():
        return [each for each in threading.enumerate() if each.name.startswith("sagemaker-image-versions")]

    gc.collect()  # clients of other tests
    before = len(sockets())
    with subscribe(image_name="other-image") as other, subscribe() as subscription:
        await asyncio.gather(other.next(), subscription.next())
        with subscribe(botocore_config={"read_timeout": 9}) as another_client:
            await another_client.next()
            of_both = len(sockets())
        of_one = len(sockets())
        assert before < of_one < of_both
        assert threads()
    await eventually(lambda: not threads())
    assert len(sockets()) == before


async def test_a_poll_that_is_woken_as_its_last_subscriber_leaves_ends(emulator, connection):
    emulator.create_versions(IMAGE, 3)
    with subscribe(VersionsAbove()) as subscription:
        await subscription.next()
        await asyncio.sleep(0.1)
        subscription.retarget(VersionsAbove(1))
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_the_last_subscriber_can_leave_during_a_call(emulator, connection, capsys):
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("slow", times=1, seconds=0.5)
    waiting = asyncio.create_task(first_event(trigger()))
    await eventually(lambda: polls(emulator) == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    (call,) = emulator.calls("ListImageVersions", IMAGE)
    assert call["status"] is None  # not answered yet
    assert not _shared_poller._registries
    emulator.set_version(IMAGE, 1, status="CREATED")
    assert (await first_event(trigger())).payload["status"] == "ready"
    assert "never retrieved" not in capsys.readouterr().err


async def test_an_unexpected_exception_reaches_every_waiter(emulator, connection, monkeypatch):
    emulator.create_versions(IMAGE, 1, status="CREATING")

    def broken(*_):
        raise KeyError("bug")

    many = 2 * _shared_poller.WOKEN_AT_ONCE + 1
    waits = [asyncio.create_task(first_event(trigger(poll_interval=0.2))) for _ in range(many)]
    await eventually(lambda: polls(emulator) > 0)
    monkeypatch.setattr(_reading, "read_versions", broken)
    events = await asyncio.wait_for(asyncio.gather(*waits), 5)
    assert all(event.payload["status"] == "error" and "bug" in event.payload["error"] for event in events)
    monkeypatch.undo()
    emulator.set_version(IMAGE, 1, status="CREATED")
    connection()
    assert (await first_event(trigger())).payload["status"] == "ready"


def test_two_event_loops_of_one_process_do_not_share_a_poll(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    for _ in range(2):
        assert asyncio.run(first_event(trigger())).payload["status"] == "ready"

    async def nested():
        with subscribe() as subscription:
            await subscription.next()
            other = await asyncio.to_thread(asyncio.run, first_event(trigger()))
            return other.payload["status"]

    assert asyncio.run(nested()) == "ready"


async def test_a_trigger_unsubscribes_when_its_generator_is_closed(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    run = trigger().run()
    await anext(run)
    assert not _shared_poller._registries
    await run.aclose()


async def test_the_event_loop_is_not_blocked(emulator, connection):
    emulator.create_versions(IMAGE, 1000, status="CREATING")
    emulator.add_fault("slow", times=1, after=4, seconds=30)
    with subscribe(Target(after_version=0)) as subscription:
        reading = asyncio.create_task(subscription.next())
        # Of ten calls that block the loop, it would see none, and not this one before its answer.
        await eventually(lambda: polls(emulator) == 5)
        assert emulator.calls("ListImageVersions")[-1]["status"] is None
        emulator.clear_faults()
        assert len((await reading).versions) == 1000


async def test_an_edited_connection_takes_effect_when_the_client_is_old(emulator, connection, monkeypatch):
    monkeypatch.setattr(_shared_poller, "CLIENT_LIFETIME", (0.1, 0.1))
    emulator.create_versions(IMAGE, 1, status="CREATING")
    with subscribe(interval=0.05) as subscription:
        await subscription.next()
        connection(login="edited")
        await eventually(lambda: "edited" in {call["access_key_id"] for call in emulator.calls("ListImageVersions")})


async def test_a_client_that_cannot_be_renewed_is_used_for_a_limited_time(emulator, connection, monkeypatch, caplog):
    monkeypatch.setattr(_shared_poller, "CLIENT_LIFETIME", (0.1, 0.1))
    monkeypatch.setattr(_shared_poller, "RENEWAL_PAUSE", 0.05)
    monkeypatch.setitem(_sessions.GRACE, ErrorKind.CREDENTIALS, 0.1)
    emulator.create_versions(IMAGE, 1, status="CREATING")
    waiting = asyncio.create_task(first_event(trigger(poll_interval=0.05)))
    await eventually(lambda: polls(emulator))
    with monkeypatch.context() as away:
        away.delenv("AIRFLOW_CONN_AWS_DEFAULT")
        await eventually(lambda: "'aws_default': could not be renewed; continuing" in caplog.text)
        seen = polls(emulator)
        await eventually(lambda: polls(emulator) > seen + 3)
    monkeypatch.setattr(_shared_poller, "LONGEST_LIFETIME", 0.3)
    connection(login="edited")
    await eventually(lambda: "edited" in {call["access_key_id"] for call in emulator.calls("ListImageVersions")})
    monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
    assert "MissingConnectionError: aws_conn_id='aws_default'" in (await waiting).payload["error"]


async def test_throttling_reduces_the_rate_and_success_restores_it(emulator, connection):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    emulator.create_versions(IMAGE, 1, status="CREATING")
    emulator.add_fault("throttling", times=1)
    with subscribe(interval=0.02) as subscription:
        assert (await subscription.next()).fault is ErrorKind.THROTTLED
        queue = _shared_poller._registry().limiter("aws_default", "us-east-1")._queue
        assert queue.rate == queue.full_rate / 2
        await subscription.next()
        assert queue.rate > queue.full_rate / 2


async def test_clients_of_one_connection_share_their_limit_in_a_region(emulator, connection, monkeypatch):
    monkeypatch.setenv("AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND", "0.001")
    connection("other", login="other")
    emulator.create_versions(IMAGE, 1)
    emulator.create_versions(IMAGE, 1, region_name="eu-west-1")
    # Each with a client of its own, for the region that the connection names or that is said again.
    settings = [{"botocore_config": {"read_timeout": 9 + number}} for number in range(BURST + 1)]
    together = [{}, {"region_name": "us-east-1"}, *settings]
    waits = [asyncio.create_task(first_event(trigger(**parameters))) for parameters in together]
    await eventually(lambda: sum(wait.done() for wait in waits) >= BURST, 20)
    for parameters in ({"aws_conn_id": "other"}, {"region_name": "eu-west-1"}):
        assert (await first_event(trigger(**parameters))).payload["status"] == "ready"
    assert sum(wait.done() for wait in waits) == BURST
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def test_calls_that_are_cancelled_before_their_turn_cost_nothing():
    limiter = _shared_poller._Limiter(1.0, "")
    await limiter.take(0, BURST)
    waits = [asyncio.create_task(limiter.take(0)) for _ in range(200)]
    await asyncio.sleep(0)
    # The first has its turn when it is cancelled, the others do not.
    limiter.learn(-1, throttled=False)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await asyncio.wait_for(limiter.take(0), 10)


async def test_details_go_first_but_one_image_does_not_hold_up_the_others(emulator, connection, monkeypatch):
    monkeypatch.setenv("AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND", "0.001")
    # So that calls are made in the order of their turns.
    monkeypatch.setattr(_shared_poller, "CALLS_AT_ONCE", 1)
    for image in ("ready", "known", "new"):
        emulator.create_versions(image, 2)
    with subscribe(VersionsAbove(), image_name="ready") as ready, subscribe(image_name="known") as known:
        versions = (await ready.next()).versions
        await known.next()
        limiter = _shared_poller._registry().limiter("aws_default", "us-east-1")
        limiter.learn(BURST, throttled=False)  # from now on, all calls queue
        before = len(emulator.calls())
        with subscribe(image_name="new") as new:
            await eventually(lambda: limiter._queue.backlog)
            known.retarget(VersionsAbove())
            asking = asyncio.gather(known.next(), new.next(), *map(ready.add_details, versions))
            await eventually(lambda: len(limiter._queue._waiting) == 4)
            limiter.learn(-2 * BURST, throttled=False)
            await asking
    calls = [(call["operation"], call["parameters"]["ImageName"]) for call in emulator.calls()[before:]]
    assert [image for operation, image in calls if operation != "ListAliases"] == ["new", "ready", "known", "ready"]


async def test_the_region_is_known_while_the_client_is_renewed(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    with subscribe() as subscription:
        await subscription.next()
        client = subscription._poll.client
        client.discard(client._hook)
        assert subscription.region == "us-east-1"


async def test_the_earliest_possible_time_does_not_break_a_shared_poll(emulator, connection):
    emulator.create_versions(IMAGE, 1)
    wait = asyncio.create_task(first_event(trigger(version=2, poll_interval=0.05)))
    event = await first_event(trigger(created_after="0001-01-01T00:00:00+00:00", poll_interval=0.05))
    assert event.payload["version"]["Version"] == 1
    emulator.create_versions(IMAGE, 1)
    assert (await wait).payload["version"]["Version"] == 2


def test_a_wait_in_a_worker_can_poll_a_thousand_times(connection):
    looks = itertools.count()
    task = WorkerPoller(trigger(), IMAGE, interval=1e-6, timeout=60.0)
    assert task.wait(lambda _hook: Waiting("not yet") if next(looks) < 1100 else "found") == "found"


def test_a_result_covers_a_watcher_that_needs_less():
    result = PollResult(targets=frozenset({VersionsAbove(5), Target()}))
    assert [result.covers(VersionsAbove(number)) for number in (4, 5, 6)] == [False, True, True]
    assert [result.covers(target) for target in (Target(), Target(version=9))] == [True, False]
    assert not PollResult(targets=frozenset({Target()})).covers(VersionsAbove(5))


def poll_lines(caplog, image=IMAGE):
    """The fields of the line about each poll of an image."""
    fields = [record.args for record in caplog.records if record.name == _shared_poller.__name__]
    return [each for each in fields if isinstance(each, dict) and each["image"] == image]


def life_lines(caplog):
    records = (record for record in caplog.records if record.name == _shared_poller.__name__)
    return [record.getMessage() for record in records if record.levelno == logging.INFO]


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG, logger=_shared_poller.__name__)
    return caplog


async def test_each_poll_is_logged_with_its_reason_and_its_cost(emulator, connection, logged):
    emulator.create_versions(IMAGE, 250)
    with subscribe(interval=0.1) as first:
        await first.next()
        first.interval = INTERVAL  # after the next poll, which is scheduled already
        await first.next()
        with subscribe() as second:
            await second.next()
            second.retarget(VersionsAbove(10))
            await second.next()
    reasons = [line["reason"] for line in poll_lines(logged)]
    assert reasons == ["new subscriber", "interval", "new subscriber", "read deeper"]
    alone, _, both, deeper = poll_lines(logged)
    assert {alone["connection"], both["connection"]} == {"aws_default"}
    assert {alone["region"], both["region"]} == {"us-east-1"}
    assert [line["subscribers"] for line in (alone, both, deeper)] == [1, 2, 2]
    assert [line["calls"] for line in (alone, both, deeper)] == [1, 1, 3]
    assert [line["result"] for line in (alone, deeper)] == ["versions: 1; aliases: 0", "versions: 241; aliases: 0"]
    assert sum(line["calls"] for line in poll_lines(logged)) == polls(emulator)
    assert 0 < deeper["duration"] < 60


async def test_a_retry_and_a_shorter_interval_are_logged_as_reasons(emulator, connection, logged):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("throttling", times=2)
    with subscribe(interval=60) as subscription:
        assert (await subscription.next()).fault is ErrorKind.THROTTLED
        with subscribe(interval=0.05) as faster:
            assert (await faster.next()).fault is ErrorKind.THROTTLED
            assert (await faster.next()).fault is None
    lines = poll_lines(logged)
    assert [line["reason"] for line in lines] == ["new subscriber", "shorter interval", "retry"]
    assert "throttled: " in lines[0]["result"]
    assert "Rate exceeded" in lines[0]["result"]


async def test_a_poll_logs_its_life_and_its_outages(emulator, connection, logged):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    emulator.create_versions(IMAGE, 1)
    with subscribe(interval=0.05) as subscription:
        await subscription.next()
        emulator.add_fault("unavailable", times=2)
        while (await subscription.next()).fault is None:
            pass
        while (await subscription.next()).fault is not None:
            pass
    started, outage, over, stopped = life_lines(logged)
    assert started == f"SageMaker image {IMAGE!r}: started polling through connection 'aws_default'"
    assert outage.startswith(f"SageMaker image {IMAGE!r}: polls started to fail: ")
    assert over.endswith("failed polls: 2")
    made = polls(emulator)
    assert stopped.endswith(f"no subscribers left: {made} polls, {made} API calls")


async def test_an_image_that_does_not_exist_yet_is_no_outage(emulator, connection, logged):
    with subscribe(interval=0.05) as subscription:
        assert (await subscription.next()).fault is ErrorKind.MISSING
        await subscription.next()
    assert len(life_lines(logged)) == 2
    assert [line["reason"] for line in poll_lines(logged)[:2]] == ["new subscriber", "interval"]
    assert poll_lines(logged)[0]["result"].startswith("missing: ")


async def test_too_many_images_for_the_rate_are_polled_equally_often_with_a_warning(
    emulator, connection, logged, monkeypatch
):
    # So low that the rate is the limit, however busy the machine is.
    monkeypatch.setenv("AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND", "25")
    images = [f"image-{number}" for number in range(12)]
    for image in images:
        emulator.create_versions(image, 1)

    def warnings():
        return [record.getMessage() for record in logged.records if record.levelno == logging.WARNING]

    with ExitStack() as stack:
        for image in images:
            stack.enter_context(subscribe(interval=0.1, image_name=image))
        await eventually(lambda: warnings() and min(len(poll_lines(logged, image)) for image in images) >= 3, 60)
    counts = [len(poll_lines(logged, image)) for image in images]
    assert max(counts) - min(counts) <= 1
    (warning,) = warnings()
    assert "through connection 'aws_default' in us-east-1" in warning
    assert "seconds behind" in warning
    assert "Raise [sagemaker_image_versions] calls_per_second" in warning


async def test_polls_that_caught_up_are_reported_once(emulator, connection, logged, monkeypatch):
    monkeypatch.setenv("AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND", "20")
    images = [f"image-{number}" for number in range(30)]
    for image in images:
        emulator.create_versions(image, 1)

    def lines(text):
        return [record for record in logged.records if text in record.getMessage()]

    with ExitStack() as few:
        with ExitStack() as many:
            for number, image in enumerate(images):
                (few if number < 4 else many).enter_context(subscribe(interval=0.4, image_name=image))
            await eventually(lambda: lines("seconds behind"), 60)
        await eventually(lambda: lines("on time again"), 60)
        seen = polls(emulator)
        await eventually(lambda: polls(emulator) > seen + 4)
    assert len(lines("seconds behind")) == len(lines("on time again")) == 1


async def test_the_warning_does_not_advise_to_raise_a_throttled_rate(emulator, connection, logged, monkeypatch):
    monkeypatch.setenv("AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND", "20")
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    images = [f"image-{number}" for number in range(12)]
    for image in images:
        emulator.create_versions(image, 1)
    emulator.add_fault("throttling", times=3)
    with ExitStack() as stack:
        for image in images:
            stack.enter_context(subscribe(interval=0.25, image_name=image))
        await eventually(lambda: "seconds behind" in logged.text, 60)
    (warning,) = [record.getMessage() for record in logged.records if record.levelno == logging.WARNING]
    assert "SageMaker throttles these calls" in warning
    assert warning.endswith("Raise poke_interval of sensors, or poll_interval of watchers")
