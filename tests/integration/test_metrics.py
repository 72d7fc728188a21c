"""Metrics as Airflow's statsd client sends them, about polls over HTTP."""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest

from airflow_provider_imageversions import _metrics
from airflow_provider_imageversions.errors import ErrorKind
from airflow_provider_imageversions.model import Target
from tests.conftest import needs_watchers
from tests.integration.test_event_trigger import Store, Watching
from tests.integration.test_polling import eventually, subscribe
from tests.statsd_sink import StatsdSink

IMAGE = "my-image"
TAGS = {"image_name": IMAGE, "aws_conn_id": "aws_default", "region_name": "us-east-1"}


@pytest.fixture
def sink(monkeypatch):
    try:
        from airflow.observability.metrics.statsd_logger import get_statsd_logger
    except ImportError:  # before Airflow 3.2, where it is the method of a class
        from airflow.metrics import statsd_logger

        get_statsd_logger = partial(statsd_logger.get_statsd_logger, None)

    with StatsdSink() as statsd:
        for name, value in statsd.settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(_metrics, "Stats", get_statsd_logger())
        yield statsd


async def received(sink, name, number):
    await eventually(lambda: len(sink.metrics(name)) >= number)
    await asyncio.sleep(0.05)
    assert len(sink.metrics(name)) == number
    return sink.metrics(name)


async def test_polls_and_their_calls_are_counted_and_timed(emulator, connection, sink):
    emulator.create_versions(IMAGE, 250)
    with subscribe(Target(after_version=10)) as subscription:
        await subscription.next()
    _, poll = await received(sink, "polls", 2)  # the first is 0, sent from a thread
    assert sink.total("polls") == 1
    assert poll == (poll.name, 1, "c", TAGS)
    (duration,) = await received(sink, "poll_duration", 1)
    assert duration.kind == "ms"
    assert duration.tags == TAGS
    assert sink.total("api_calls") == len(emulator.calls("ListImageVersions"))


async def test_metrics_are_prepared_in_a_thread_even_if_no_client_can_be_created(emulator, sink):
    with subscribe(aws_conn_id="missing") as subscription:
        assert (await subscription.next()).fault is ErrorKind.CREDENTIALS
    await eventually(lambda: sink.total("polls") == 1)
    assert sink.metrics("polls")[0].value == 0


async def test_a_poll_s_duration_is_sent_in_milliseconds(emulator, connection, sink):
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("slow", times=1, seconds=0.1)
    with subscribe() as subscription:
        await subscription.next()
    (duration,) = await received(sink, "poll_duration", 1)
    assert duration.value >= 100


async def test_errors_are_counted_by_kind_and_throttles_by_themselves(emulator, connection, sink):
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    with subscribe(interval=0.05) as subscription:
        assert (await subscription.next()).fault is ErrorKind.MISSING
        emulator.create_versions(IMAGE, 1)
        emulator.add_fault("throttling", times=2)
        while (await subscription.next()).fault is not ErrorKind.THROTTLED:
            pass
        while (await subscription.next()).fault is not None:
            pass
    await received(sink, "throttles", 2)
    assert sink.total("errors.throttled") == 2
    assert sink.total("errors.missing") >= 1
    assert not sink.metrics("errors.permanent")


async def test_a_denied_alias_counts_as_an_error_of_a_successful_poll(emulator, connection, sink):
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("access_denied", operation="DescribeImageVersion", times=None)
    with subscribe() as subscription, subscribe(Target(alias="prod")) as refused:
        assert (await subscription.next()).fault is None
        assert (await refused.next()).fault is ErrorKind.PERMANENT
    await received(sink, "errors.permanent", 1)


async def test_calls_and_errors_of_details_are_counted(emulator, connection, sink):
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("throttling", operation="DescribeImageVersion", times=None)
    with subscribe() as subscription:
        version = (await subscription.next()).versions[0]
        assert (await subscription.add_details(version)).fault is ErrorKind.THROTTLED
    await received(sink, "throttles", 1)
    assert sink.total("api_calls") == 3


async def test_subscribers_are_reported_until_the_last_one_leaves(emulator, connection, sink):
    for image in (IMAGE, "other-image"):
        emulator.create_versions(image, 1)
    with subscribe() as one, subscribe() as two, subscribe(image_name="other-image") as three:
        await asyncio.gather(*(subscription.next() for subscription in (one, two, three)))
    await eventually(lambda: sink.metrics("subscribers") and not sink.metrics("subscribers")[-1].value)
    gauges = sink.metrics("subscribers")
    assert max(gauge.value for gauge in gauges) == 3
    assert {gauge.kind for gauge in gauges} == {"g"}
    assert all(gauge.tags == {"hostname": socket.gethostname()} for gauge in gauges)


@needs_watchers
async def test_events_of_a_watcher_are_counted_with_the_time_since_creation(emulator, connection, sink):
    emulator.create_versions(IMAGE, 2)
    watching = Watching(emulator, Store(), image_name=IMAGE, poll_interval=0.05)
    await watching.until(lambda: watching.trigger.asset_state_store.values)
    try:
        emulator.create_versions(IMAGE, 2)
        await watching.until(lambda: watching.numbers == [3, 4])
    finally:
        await watching.kill()
    delays = await received(sink, "event_delay", 2)
    assert sink.total("events") == 2
    assert all(delay.tags == {"image_name": IMAGE, "region_name": "us-east-1"} for delay in delays)
    assert all(delay.kind == "ms" and 0 <= delay.value < 60_000 for delay in delays)


def payload(**further):
    return {"image_name": IMAGE, "region": "us-east-1", **further}


async def test_a_delay_is_never_negative_and_a_move_of_an_alias_has_none(sink):
    ahead = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    _metrics.count_event(payload(CreationTime=ahead))
    _metrics.count_event(payload(CreationTime=ahead, alias="prod"))
    await received(sink, "events", 2)
    (delay,) = await received(sink, "event_delay", 1)
    assert delay.value == 0


class Unreachable:
    """A client that raises, as one over TCP does while its server is down."""

    def __getattr__(self, name):
        def send(*_arguments, **_named):
            raise ConnectionRefusedError(f"{name}: no server")

        return send


@needs_watchers
async def test_metrics_that_cannot_be_sent_end_no_wait(emulator, connection, monkeypatch, caplog):
    monkeypatch.setattr(_metrics, "Stats", Unreachable())
    monkeypatch.setattr(_metrics, "_warned", set())
    emulator.create_versions(IMAGE, 1)
    with subscribe(interval=0.05) as subscription:
        results = [await subscription.next() for _ in range(3)]
        assert (await subscription.add_details(results[0].versions[0]))["Version"] == 1
    assert [result.fault for result in results] == [None] * 3
    watching = Watching(emulator, Store(), image_name=IMAGE, start_from="earliest")
    try:
        await watching.until(lambda: watching.numbers == [1])
    finally:
        await watching.kill()
    warnings = [text for text in caplog.messages if text.startswith("Could not send metrics")]
    assert len(warnings) == 1
