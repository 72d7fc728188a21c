"""EventBridge events that start polls at once."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import threading
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_provider_imageversions import _sessions, _shared_poller, _wake_queue
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.model import ErrorKind, Target
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger
from tests.conftest import first_event
from tests.integration.test_event_trigger import Store, Watching
from tests.integration.test_polling import eventually, poll_lines, polls, subscribe

DOCS = Path(__file__).parents[2] / "docs"
IMAGE = "My-image"
INTERVAL = 900.0


def readers():
    return [each for each in threading.enumerate() if each.name.startswith("sagemaker-image-versions-queue")]


@pytest.fixture
def sqs(emulator, connection):
    return emulator.client("sqs")


def end_calls(sqs):
    """Let the readers' calls return, rather than wait for messages that do not come."""
    for url in sqs.list_queues().get("QueueUrls", ()):
        sqs.send_message(QueueUrl=url, MessageBody="{}")


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch, sqs):
    monkeypatch.setattr(_wake_queue, "RECEIVE_SECONDS", 1)
    monkeypatch.setattr(_wake_queue, "HIDDEN_FROM_OTHERS", 1)
    monkeypatch.setattr(_sessions, "GRACE_PACE", 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        assert not _shared_poller._registries
        end_calls(sqs)
        deadline = time.monotonic() + 10
        while readers():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        gc.collect()


@pytest.fixture
def queue(sqs):
    return sqs.create_queue(QueueName="image-versions")["QueueUrl"]


def message(image=IMAGE, number=1, status="CREATED", region="us-east-1", **detail):
    prefix = f"arn:aws:sagemaker:{region}:123456789012"
    defaults = {
        "ImageArn": f"{prefix}:image/{image.lower()}",
        "ImageVersionArn": f"{prefix}:image-version/0d1f4f3e-3a5c-4a4e-8b0c-1a2b3c4d5e6f",
        "ImageVersionStatus": status,
        "Version": float(number),
    }
    event = {"detail-type": "SageMaker Image Version State Change", "detail": {**defaults, **detail}}
    return json.dumps(event)


@pytest.fixture
def send(sqs, queue):
    return lambda *bodies: [sqs.send_message(QueueUrl=queue, MessageBody=body) for body in bodies]


@pytest.fixture
def called(monkeypatch):
    """The names of the calls that readers make."""
    names = []
    original = SageMakerImageVersionsHook.get_queue_client

    def get_queue_client(hook, *arguments, **named):
        client = original(hook, *arguments, **named)
        client.meta.events.register("before-call.sqs", lambda model, **_: names.append(model.name))
        return client

    monkeypatch.setattr(SageMakerImageVersionsHook, "get_queue_client", get_queue_client)
    return names


@pytest.fixture
def visible(monkeypatch):
    """Let each call receive all messages that are left, as after the time for which they are hidden."""
    monkeypatch.setattr(_wake_queue, "HIDDEN_FROM_OTHERS", 0)


def left(sqs, queue):
    """How many messages there are, those that are just hidden included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def waiting(queue=None, image=IMAGE, version=2, **parameters):
    return subscribe(Target(version=version), INTERVAL, image, wake_queue=queue, **parameters)


async def test_an_event_of_an_image_starts_its_poll_and_is_deleted(emulator, sqs, queue, send, caplog):
    caplog.set_level(logging.DEBUG, logger=_shared_poller.__name__)
    for image in (IMAGE, "other-image"):
        emulator.create_versions(image, 1)
    with waiting(queue) as subscription, waiting(queue, "other-image") as other:
        await asyncio.gather(subscription.next(), other.next())
        emulator.create_versions(IMAGE, 1)
        send(message(number=2))
        result = await asyncio.wait_for(subscription.next(), 10)
        assert result.versions[0]["Version"] == 2
        await eventually(lambda: left(sqs, queue) == 0)
        assert len(emulator.calls("ListImageVersions", IMAGE)) == 2
        assert len(emulator.calls("ListImageVersions", "other-image")) == 1
    assert [line["reason"] for line in poll_lines(caplog, IMAGE)] == ["new subscriber", "wake-up"]


async def test_events_of_the_emulator_wake_a_watcher_and_a_deferred_sensor(emulator, queue):
    emulator.create_versions(IMAGE, 1)
    emulator.creation_seconds = 0.1
    emulator.send_state_changes_to(queue)
    watching = Watching(emulator, Store(), image_name=IMAGE, poll_interval=INTERVAL, wake_queue=queue)
    sensor = SageMakerImageVersionTrigger(image_name=IMAGE, after_version=1, poll_interval=INTERVAL)
    ready = asyncio.create_task(first_event(sensor))
    try:
        await watching.until(lambda: watching.trigger.asset_state_store.values)
        await eventually(lambda: polls(emulator) > 0)
        emulator.client("sagemaker").create_image_version(ImageName=IMAGE, BaseImage="r:2", ClientToken="t" * 36)
        await watching.until(lambda: watching.numbers == [2])
        assert (await asyncio.wait_for(ready, 10)).payload["version"]["Version"] == 2
    finally:
        ready.cancel()
        await watching.kill()


async def test_messages_for_one_change_cause_one_poll(emulator, sqs, queue, send, monkeypatch):
    monkeypatch.setattr(_shared_poller, "SAME_CHANGE_WITHIN", 60.0)
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        send(message(status="CREATED"))
        await subscription.next()
        send(message(status="Created"), message(status="created"))
        await eventually(lambda: left(sqs, queue) == 0)
        await asyncio.sleep(0.1)
        assert polls(emulator) == 2
        monkeypatch.setattr(_shared_poller, "SAME_CHANGE_WITHIN", 0.0)
        send(message(status="CREATED"))
        await eventually(lambda: polls(emulator) == 3)


async def test_a_change_that_is_reported_during_a_poll_causes_a_further_one(emulator, sqs, queue, send):
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        emulator.add_fault("slow", times=1, seconds=30)
        send(message(status="CREATING"))
        await eventually(lambda: polls(emulator) == 2)
        send(message(number=2), message(number=3))
        await eventually(lambda: left(sqs, queue) == 0)
        assert polls(emulator) == 2
        emulator.clear_faults()
        await eventually(lambda: polls(emulator) == 3)
        await subscription.next()
        await asyncio.sleep(0.1)
        assert polls(emulator) == 3


async def test_a_poll_that_fails_after_an_event_is_retried_before_the_interval(emulator, queue, send):
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        emulator.add_fault("throttling", times=3)
        send(message(number=2))
        assert (await subscription.next()).fault is ErrorKind.THROTTLED
        assert (await asyncio.wait_for(subscription.next(), 10)).fault is None


STRANGE = [
    "no JSON",
    "[" * 100_000,
    "[]",
    "{}",
    json.dumps({"detail-type": "SageMaker Image State Change", "detail": {}}),
    json.dumps({"detail-type": "SageMaker Image Version State Change", "detail": None}),
    message(ImageArn=None),
    message(ImageArn="arn:aws:sagemaker:us-east-1:123456789012:image"),
]


@pytest.mark.usefixtures("visible")
async def test_a_message_about_nothing_that_is_polled_is_deleted_when_it_is_old(
    emulator, sqs, queue, send, called, monkeypatch
):
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        strange = [*STRANGE, message(region="eu-west-1"), message("other-image")]
        send(*strange)
        before = len(called)
        await eventually(lambda: len(called) > before + 3)
        assert set(called) == {"ReceiveMessage"}
        # moto counts messages that are hidden and those that are not one after the other.
        await eventually(lambda: left(sqs, queue) == len(strange))
        monkeypatch.setattr(_wake_queue, "KEPT_FOR_OTHERS", 0.0)
        await eventually(lambda: left(sqs, queue) == 0, 15)
        assert polls(emulator) == 1
        send(message(number=2, Version="junk", ImageVersionStatus=["x"]))
        await asyncio.wait_for(subscription.next(), 10)


async def test_messages_about_other_images_do_not_delay_those_behind_them(emulator, queue, send, monkeypatch):
    """A rule of EventBridge has no filter for the image."""
    monkeypatch.setattr(_wake_queue, "HIDDEN_FROM_OTHERS", 600)
    emulator.create_versions(IMAGE, 1)
    send(*[message("other-image", number) for number in range(30)], message())
    with waiting(queue) as subscription:
        await subscription.next()
        await asyncio.wait_for(subscription.next(), 20)


async def test_another_triggerer_receives_the_event_of_an_image_that_only_it_polls(emulator, queue, send):
    emulator.create_versions(IMAGE, 1)
    emulator.create_versions("other-image", 1)
    ready = threading.Event()

    async def other_triggerer():
        with waiting(queue, "other-image") as subscription:
            await subscription.next()
            ready.set()
            return await asyncio.wait_for(subscription.next(), 30)

    with waiting(queue) as subscription:
        await subscription.next()
        thread = asyncio.create_task(asyncio.to_thread(asyncio.run, other_triggerer()))
        await eventually(ready.is_set)
        send(*(message("other-image", number) for number in range(3)))
        assert (await thread).fault is None
        assert len(emulator.calls("ListImageVersions", IMAGE)) == 1


@pytest.mark.usefixtures("visible")
async def test_a_sensor_in_one_triggerer_does_not_take_the_message_from_a_watcher_in_another(
    emulator, sqs, queue, send, called
):
    for image in (IMAGE, "other-image"):
        emulator.create_versions(image, 1)
    ready, over = threading.Event(), threading.Event()

    async def other_triggerer():
        # The sensor waits for the image, but not for messages of the queue.
        with waiting(queue, "other-image") as watcher, waiting() as sensor:
            await asyncio.gather(watcher.next(), sensor.next())
            ready.set()
            await eventually(over.is_set)

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, other_triggerer()))
    await eventually(ready.is_set)
    try:
        send(message(number=2))
        before = len(called)
        await eventually(lambda: len(called) > before + 3)
        with waiting(queue) as watcher:
            await watcher.next()
            await asyncio.wait_for(watcher.next(), 30)
            await eventually(lambda: left(sqs, queue) == 0)
    finally:
        over.set()
        await thread


@pytest.fixture
def late_answers(monkeypatch):
    """Functions that hold back what polls read from now on, so that it is from before, and that let them continue."""
    original, going_on, read = _shared_poller.poll_versions, threading.Event(), []
    going_on.set()

    def poll_versions(*arguments):
        read.append(original(*arguments))
        going_on.wait(60)
        return read[-1]

    async def hold():
        going_on.clear()
        before = len(read)
        await eventually(lambda: len(read) > before)

    monkeypatch.setattr(_shared_poller, "poll_versions", poll_versions)
    yield hold, going_on.set
    going_on.set()


async def test_an_event_during_the_poll_that_ends_an_outage_causes_a_further_one(
    emulator, sqs, queue, send, late_answers
):
    hold, go_on = late_answers
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        emulator.add_fault("throttling", times=3)
        send(message(status="CREATING"))
        assert (await subscription.next()).fault is ErrorKind.THROTTLED
        await hold()
        emulator.create_versions(IMAGE, 1)
        send(message(number=2))
        await eventually(lambda: left(sqs, queue) == 0)
        go_on()
        assert [version["Version"] for version in (await subscription.next()).versions] == [1]
        result = await asyncio.wait_for(subscription.next(), INTERVAL / 10)
        assert result.versions[0]["Version"] == 2


@pytest.mark.usefixtures("visible")
async def test_a_message_that_cannot_be_deleted_starts_one_poll(emulator, queue, send, called, monkeypatch):
    monkeypatch.setattr(_sessions, "GRACE_PACE", 0.02)
    monkeypatch.setattr(_shared_poller, "SAME_CHANGE_WITHIN", 0.0)

    def refuse(**_):
        raise ConnectionError("no network")

    def get_queue_client(self, *arguments, **options):
        client = original(self, *arguments, **options)
        client.delete_message_batch = refuse
        return client

    original = SageMakerImageVersionsHook.get_queue_client
    monkeypatch.setattr(SageMakerImageVersionsHook, "get_queue_client", get_queue_client)
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        send(message(number=2))
        await subscription.next()
        before = len(called)
        await eventually(lambda: len(called) > before + 3)
        assert polls(emulator) == 2


async def test_a_queue_that_cannot_be_read_is_reported_once_and_its_recovery_too(
    emulator, sqs, queue, caplog, monkeypatch
):
    monkeypatch.setattr(_sessions, "GRACE_PACE", 0.02)
    caplog.set_level(logging.INFO, logger=_wake_queue.__name__)
    emulator.create_versions(IMAGE, 1)
    missing = queue.replace("image-versions", "missing")
    with subscribe(Target(version=2), 0.1, IMAGE, wake_queue=missing) as subscription:
        await eventually(lambda: "could not be read" in caplog.text)
        before = polls(emulator)
        await eventually(lambda: polls(emulator) > before + 2)
        (reader,) = _shared_poller._registry().readers.values()
        await eventually(lambda: reader._failures > 3)
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert missing in warning.getMessage()
        assert "NonExistentQueue" in warning.getMessage() or "QueueDoesNotExist" in warning.getMessage()
        sqs.create_queue(QueueName="missing")
        end_calls(sqs)
        await eventually(lambda: "read again after" in caplog.text, 20)
        assert (await subscription.next()).fault is None


async def test_one_reader_serves_all_images_and_ends_with_the_last_subscriber(emulator, sqs, queue):
    for image in (IMAGE, "other-image"):
        emulator.create_versions(image, 1)
    port = urlsplit(emulator.endpoint_url).port

    def sockets():
        return [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]

    gc.collect()  # clients of other tests
    before = len(sockets())
    # Otherwise, polls at the same time leave another connection open.
    shared = {"botocore_config": {"max_pool_connections": 1}}
    with waiting(**shared) as plain:
        await plain.next()
        assert not readers()
        of_poll = len(sockets())
        with waiting(queue, **shared) as subscription, waiting(queue, "other-image", **shared) as other:
            await asyncio.gather(subscription.next(), other.next())
            await eventually(lambda: len(sockets()) > of_poll)
            assert len(readers()) == 1
        end_calls(sqs)
        await eventually(lambda: not readers())
        await eventually(lambda: len(sockets()) == of_poll)
    assert len(sockets()) == before


async def test_an_edited_connection_takes_effect_in_the_reader(emulator, connection, queue, send, monkeypatch):
    emulator.create_versions(IMAGE, 1)
    monkeypatch.setattr(_shared_poller, "CLIENT_LIFETIME", (0.1, 0.1))
    monkeypatch.setattr(_shared_poller, "SAME_CHANGE_WITHIN", 60.0)
    made = []
    get_queue_client = SageMakerImageVersionsHook.get_queue_client

    def note(hook, *arguments, **named):
        made.append(get_queue_client(hook, *arguments, **named))
        return made[-1]

    monkeypatch.setattr(SageMakerImageVersionsHook, "get_queue_client", note)
    with waiting(queue) as subscription:
        await subscription.next()
        await eventually(lambda: made)
        connection(login="edited")

        def is_edited():
            send(message())  # so that the reader's call ends
            return made[-1]._request_signer._credentials.access_key == "edited"

        await eventually(is_edited, 10)
        await subscription.next()
        send(message(number=2))
        await asyncio.wait_for(subscription.next(), 10)


async def test_a_queue_without_messages_does_not_block_the_event_loop(emulator, queue, called):
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        await eventually(lambda: called)
        for _ in range(20):
            await asyncio.sleep(0.005)
    # Calls of a second that block the loop would let it turn only in between.
    assert len(called) < 10


async def test_the_permissions_on_the_queue_are_those_of_the_calls(emulator, queue, send, called):
    emulator.create_versions(IMAGE, 1)
    with waiting(queue) as subscription:
        await subscription.next()
        send(message(number=2))
        await eventually(lambda: "DeleteMessageBatch" in called)
    # AWS allows a batch by the same action.
    assert {f"sqs:{name.removesuffix('Batch')}" for name in called} == {"sqs:ReceiveMessage", "sqs:DeleteMessage"}
    pages = [(DOCS / name).read_text() for name in ("security.md", "eventbridge.md")]
    assert [set(re.findall(r"sqs:(?:Receive|Delete|Change|Get)\w+", page)) for page in pages] == [
        {"sqs:ReceiveMessage", "sqs:DeleteMessage"}
    ] * 2


def test_the_client_waits_longer_than_a_call_for_messages(connection, emulator):
    def timeout(config=None):
        hook = SageMakerImageVersionsHook(config=config)
        url = "https://sqs.eu-west-1.amazonaws.com/123456789012/q"
        client = hook.get_queue_client(url, wait_seconds=20)
        try:
            assert client.meta.region_name == "eu-west-1"
            assert client.meta.endpoint_url == emulator.endpoint_url
            return client.meta.config.read_timeout
        finally:
            client.close()

    assert timeout() == 35
    assert timeout({"read_timeout": 1}) == 21
    assert timeout({"read_timeout": None}) is None


def test_a_queue_of_an_emulator_needs_no_endpoint_in_the_connection(emulator, queue, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT",
        json.dumps({"conn_type": "aws", "login": "x", "password": "y", "extra": {"region_name": "us-east-1"}}),
    )
    client = SageMakerImageVersionsHook().get_queue_client(queue, wait_seconds=1)
    assert client.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client.close()
