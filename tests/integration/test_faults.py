"""Every cell of tests/fault_table.py, over HTTP."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime, timedelta, timezone

import botocore.exceptions
import pytest
from botocore.parsers import ResponseParserError

from airflow_provider_imageversions import _schedule, _sessions, compat
from airflow_provider_imageversions.errors import (
    CredentialsError,
    ImageVersionFailedError,
    SageMakerImageOperationError,
    SageMakerImageOperationTimeoutError,
    SageMakerImageVersionPollingError,
)
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageVersionOperator,
    SageMakerDeleteImageVersionOperator,
    SageMakerListImageVersionsOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
    SageMakerRolloutImageVersionOperator,
)
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger
from tests.conftest import MODES, wait_until
from tests.credentials_endpoint import Agent
from tests.fault_table import PAGE, READERS, RENEWS, REPORTS, SENSORS, TABLE, UNNOTICED, WAITS, WORDS, render
from tests.studio import CONFIG, Store, Studio, custom_image

IMAGE = "my-image"
HOST = "sagemaker.invalid"
PAUSE = 0.02
EXCEPTIONS = {
    exception.__name__: exception
    for exception in (
        CredentialsError,
        ImageVersionFailedError,
        ResponseParserError,
        SageMakerImageOperationError,
        SageMakerImageVersionPollingError,
        SageMakerImageOperationTimeoutError,
        botocore.exceptions.ConnectionClosedError,
        botocore.exceptions.EndpointConnectionError,
        botocore.exceptions.PaginationError,
        botocore.exceptions.ReadTimeoutError,
        compat.AirflowSensorTimeout,
    )
}


class World:
    """An image with the versions 1, which has the alias prod, and 2; and what happens to it while a part runs."""

    def __init__(self, emulator, client, connection, run, context, pool, monkeypatch, cleanup):
        self.monkeypatch = monkeypatch
        self.cleanup = cleanup
        self.emulator = emulator
        self.connection = connection
        self.run = run
        self.context = context
        self.botocore_config = None
        self.timeout = 20
        self.client = client
        self._pool = pool
        self.happenings = []
        self.operation = None
        self.reasons = []
        emulator.creation_seconds = 0
        emulator.create_versions(IMAGE, 2)
        self.client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
        self.begin()

    def prepare_studio(self):
        """Attach version 1 to a domain."""
        self.context["task_state_store"] = Store()
        self.studio = Studio(self.client)
        self.studio.config()
        self.domain_id = self.studio.domain(JupyterLabAppSettings={"CustomImages": [custom_image(IMAGE, 1)]})
        self.begin()

    @property
    def custom_images(self):
        return self.studio.user_settings(self.domain_id)["JupyterLabAppSettings"]["CustomImages"]

    def attach(self, version):
        """Do what somebody else does to the domain."""
        settings = {"JupyterLabAppSettings": {"CustomImages": [custom_image(IMAGE, version)]}}
        self.client.update_domain(DomainId=self.domain_id, DefaultUserSettings=settings)

    def begin(self):
        self.calls_before = len(self.emulator.calls())

    def calls(self, operation=None):
        return [call for call in self.emulator.calls()[self.calls_before :] if operation in {None, call["operation"]}]

    def hits(self):
        return sum(call["fault"] is not None for call in self.calls())

    def when(self, condition, happening):
        """Let something happen as soon as a condition is met."""

        def wait():
            wait_until(condition)
            happening()

        self.happenings.append(self._pool.submit(wait))

    def during(self, call, operation, happening):
        """Let something happen between a call, counted from 1, and its answer."""
        self.emulator.add_fault("slow", operation=operation, after=call - 1, times=1, seconds=10)

        def let_it_happen():
            happening()
            self.emulator.clear_faults("slow")

        self.when(lambda: len(self.calls(operation)) >= call, let_it_happen)

    def numbers(self, records):
        self.reasons += [record["FailureReason"] for record in records if "FailureReason" in record]
        return [record["Version"] for record in records]

    def arguments(self, part):
        return {"task_id": part, "image_name": IMAGE, "botocore_config": self.botocore_config}

    def waiting(self, part):
        interval = "poke_interval" if part in SENSORS else "check_interval"
        return {**self.arguments(part), interval: PAUSE, "timeout": self.timeout}

    @property
    def listed(self):
        if not self.client.list_images()["Images"]:
            return None
        pages = self.client.get_paginator("list_image_versions").paginate(ImageName=IMAGE, SortBy="VERSION")
        return [version["Version"] for page in pages for version in page["ImageVersions"]]


# --- The parts: what each does, and what is right without a fault ----------------------------------------


def hook(world, **filters):
    return world.numbers(SageMakerImageVersionsHook(config=world.botocore_config).list_image_versions(IMAGE, **filters))


def list_operator(world, **filters):
    return world.numbers(
        SageMakerListImageVersionsOperator(**world.arguments("list"), **filters).execute(world.context)
    )


def sensor(mode):
    def wait(world, **target):
        task = SageMakerImageVersionSensor(**world.waiting(mode), **MODES[mode], **(target or {"version": 2}))
        return world.run(task)["Version"]

    return wait


def event_trigger(world, count=2, **arguments):
    async def watch():
        trigger = SageMakerImageVersionEventTrigger(
            image_name=IMAGE,
            botocore_config=world.botocore_config,
            **{"start_from": "earliest", "poll_interval": PAUSE, **arguments},
        )
        delivered = []

        async def hear():
            async with aclosing(trigger.run()) as events:
                async for event in events:
                    delivered.append(event.payload)  # noqa: PERF401 # seen as they come

        hearing = asyncio.create_task(hear())
        try:
            deadline = time.monotonic() + 15
            while len(delivered) < count or not all(happening.done() for happening in world.happenings):
                assert time.monotonic() < deadline, delivered
                assert not hearing.done(), hearing.result()
                await asyncio.sleep(0.01)
            before = len(world.calls("ListImageVersions"))
            while len(world.calls("ListImageVersions")) < before + 2 and time.monotonic() < deadline:  # noqa: ASYNC110 # HTTP
                await asyncio.sleep(0.01)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        return delivered

    return world.numbers(asyncio.run(watch()))


def create(world):
    task = SageMakerCreateImageVersionOperator(**world.waiting("create"), base_image="repository:tag")
    return task.execute(world.context)["Version"], world.listed


def promote(world, version=2):
    task = SageMakerPromoteImageVersionOperator(**world.waiting("promote"), version=version, aliases=["prod"])
    record = task.execute(world.context)
    return record["Version"], record["Aliases"]


def delete(world, version=1):
    task = SageMakerDeleteImageVersionOperator(**world.waiting("delete"), version=version)
    return task.execute(world.context), world.listed


def prune(world, **policy):
    task = SageMakerPruneImageVersionsOperator(
        **world.waiting("prune"), **(policy or {"keep_newest": 1, "keep_aliased": False})
    )
    return task.execute(world.context)["deleted"], world.listed


def rollout(world, version=2):
    task = SageMakerRolloutImageVersionOperator(
        **world.waiting("rollout"),
        version=version,
        domain_id=world.domain_id,
        app_image_config_name=CONFIG,
        report_remaining=False,
        deferrable=False,
    )
    result = task.execute(world.context)
    return result["previous"]["version"], world.custom_images


PARTS = {
    "hook": (hook, [2, 1]),
    "list": (list_operator, [2, 1]),
    **{mode: (sensor(mode), 2) for mode in SENSORS},
    "event": (event_trigger, [1, 2]),
    "create": (create, (3, [3, 2, 1])),
    "promote": (promote, (2, ["prod"])),
    "delete": (delete, (1, [2])),
    "prune": (prune, ([1], [2])),
    "rollout": (rollout, (1, [custom_image(IMAGE, 2)])),
}


# --- The faults that take more than a word to the emulator -----------------------------------------------
# Each returns the part's arguments and the expected result if they differ from the usual ones.

SCRIPTS = {}


def script(*names):
    def register(function):
        SCRIPTS.update(dict.fromkeys(names, function))
        return function

    return register


@script("timeout_once", "timeout_long")
def late_answers(world, part, row):
    # On a busy machine other answers may be as late, which costs an attempt and changes no result.
    attempts = 10 if row.name == "timeout_once" else 1
    world.botocore_config = {"read_timeout": 0.15, "retries": {"total_max_attempts": attempts}}
    world.cleanup.callback(world.emulator.clear_faults)


@script("dns_once", "dns_long")
def no_address(world, part, row):
    lookups, failures = [], 1 if row.name == "dns_once" else 2
    original = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **named):
        if host != HOST:
            return original(host, *arguments, **named)
        lookups.append(host)
        # A name of this kind has no address by definition.
        found = len(lookups) > failures and row.cells[part] in {UNNOTICED, WAITS}
        return original("127.0.0.1" if found else host, *arguments, **named)

    world.monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    world.connection(endpoint_url=world.emulator.endpoint_url.replace("127.0.0.1", HOST))
    world.hits = lambda: min(len(lookups), failures)


@script("outage")
def no_end(world, part, row):
    world.timeout = 0.1


@script("in_use", "lost_answer")
def changes_only(world, part, row):
    words = {"create": "CreateImageVersion", "promote": "UpdateImageVersion", "rollout": "UpdateDomain"}
    world.operation = words.get(part, "DeleteImageVersion")


@script("expired_rotated", "withdrawn_rotated")
def new_credentials(world, part, row):
    world.connection(login="stale")
    world.during(1, None, lambda: world.connection(login="fresh"))
    if part in SENSORS:
        world.emulator.set_version(IMAGE, 2, status="CREATING")
        world.when(lambda: len(world.calls()) > 1, lambda: world.emulator.set_version(IMAGE, 2, status="CREATED"))
    if part == "event":
        world.emulator.create_versions(IMAGE, 1, status="CREATING")
        world.when(lambda: world.hits() > 1, lambda: world.emulator.set_version(IMAGE, 3, status="CREATED"))
        return {"count": 3}, [1, 2, 3]
    return {"page_size": 1} if part in READERS else {}, None


@script("late_credentials", "no_credentials")
def credentials_from_an_endpoint(world, part, row):
    agent = world.cleanup.enter_context(Agent.started())
    cell = row.cells[part]
    agent.misbehave("expired", times=6 if cell == WAITS else 10_000)
    world.hits = lambda: agent.faults
    if cell == REPORTS:
        # Each poll loads them twice, with two requests.
        world.when(lambda: agent.faults > 12, lambda: agent.misbehave(None, times=0))
    world.connection(login=None)
    world.monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/credentials")


@script("future")
def a_clock_ahead(world, part, row):
    world.emulator.reset()
    world.emulator.creation_seconds = 0
    now = datetime.now(timezone.utc)
    world.emulator.create_versions(IMAGE, 2, start_time=now + timedelta(hours=1))
    if part in READERS:
        return {"creation_time_after": now + timedelta(minutes=59)}, None
    if part in SENSORS:
        return {"created_after": now}, None
    return ({"keep_younger_than": 60}, ([], [2, 1])) if part == "prune" else ({}, None)


@script("invalid_token")
def a_foreign_token(world, part, row):
    return {"starting_token": "bm90IG91cnM="}, None


def two_pages(world, part, count=150):
    """More than a page of versions, all of which the part has to read."""
    world.operation = "ListAliases" if part in {"create", "promote"} else "ListImageVersions"
    if part in {"create", "promote"}:
        return {}, None
    world.emulator.reset()
    world.emulator.creation_seconds = 0
    world.emulator.create_versions(IMAGE, count, status="CREATE_FAILED" if part in SENSORS else "CREATED")
    world.begin()
    if part in READERS:
        return {}, list(range(count, 0, -1))
    if part in SENSORS:
        world.emulator.set_version(IMAGE, 10, status="CREATED")
        return {"after_version": 5}, 10
    if part == "event":
        return {"count": count}, list(range(1, count + 1))
    return {"keep_newest": count - 1}, ([1], list(range(count, 1, -1)))


@script("repeating_once", "repeating", "cyclic", "empty_page")
def pages(world, part, row):
    # The circle is of two pages.
    return two_pages(world, part, 250 if row.name == "cyclic" else 150)


@script("added_between")
def added_between_pages(world, part, row):
    arguments, right = two_pages(world, part)
    status = "CREATE_FAILED" if part in SENSORS else "CREATED"
    world.during(2, "ListImageVersions", lambda: world.emulator.create_versions(IMAGE, 3, status=status))
    if part == "event":
        return {"count": 153}, list(range(1, 154))
    return arguments, ([1], list(range(153, 1, -1))) if part == "prune" else right


@script("deleted_between")
def deleted_between_pages(world, part, row):
    arguments, right = two_pages(world, part)

    def happening():
        # The last one of the first page, and one of the second.
        for number in (51, 40):
            world.client.delete_image_version(ImageName=IMAGE, Version=number)

    world.during(2, "ListImageVersions", happening)
    if part in READERS:
        right.remove(40)
    elif part == "event":
        return {"count": 149}, [number for number in right if number != 40]
    elif part == "prune":
        return {"keep_newest": 148}, ([1], [number for number in range(150, 1, -1) if number not in {51, 40}])
    return arguments, right


def make_anew(world, count):
    world.client.delete_image(ImageName=IMAGE)
    world.emulator.create_versions(IMAGE, count)


@script("image_deleted_between")
def image_deleted_between_pages(world, part, row):
    arguments, right = two_pages(world, part)
    world.during(2, "ListImageVersions", lambda: world.client.delete_image(ImageName=IMAGE))
    if part in SENSORS or part == "event":
        missing = [400]
        world.when(
            lambda: [call["status"] for call in world.calls()][-1:] == missing,
            lambda: world.emulator.create_versions(IMAGE, 6),
        )
    if part in SENSORS:
        return arguments, 6
    return ({"count": 6}, list(range(1, 7))) if part == "event" else (arguments, right)


@script("missing")
def no_image(world, part, row):
    world.client.delete_image(ImageName=IMAGE)
    world.begin()
    if row.cells[part] == WAITS:
        world.when(lambda: len(world.calls()) > 1, lambda: world.emulator.create_versions(IMAGE, 2))
    return None if part != "delete" else ({}, (1, None))


@script("recreated")
def image_made_anew(world, part, row):
    if part in SENSORS:
        world.client.delete_image_version(ImageName=IMAGE, Version=2)
    world.begin()
    world.when(lambda: len(world.calls()) > 1, lambda: make_anew(world, 2))
    return {"count": 4} if part == "event" else {}, [1, 2, 1, 2] if part == "event" else None


@script("deleting")
def being_deleted(world, part, row):
    world.emulator.creation_seconds = 60
    going = {"status": "DELETING"}
    if part == "create":
        world.during(1, "DescribeImageVersion", lambda: world.emulator.set_version(IMAGE, 3, **going))
        return None
    world.emulator.create_versions(IMAGE, 1, **going)
    world.begin()
    if part == "delete":
        world.client.delete_image_version(ImageName=IMAGE, Version=2)
        world.begin()
        world.when(
            lambda: len(world.calls("DescribeImageVersion")) > 2, lambda: setattr(world.emulator, "creation_seconds", 0)
        )
        return {"version": 2}, (2, [3, 1])
    if part == "prune":
        return {"keep_newest": 2}, ([], [3, 2, 1])
    return {} if part == "event" else {"version": 3}, None


@script("gone", "gone_and_succeeded")
def deleted_while_awaited(world, part, row):
    def happening():
        if row.cells[part] == "AirflowSensorTimeout":
            # As if the task had waited that long.
            waited, ti = timedelta(seconds=world.timeout), world.context["ti"]
            ti.start_date, ti.first_reschedule_date = ti.start_date - waited, ti.first_reschedule_date - waited
        world.emulator.creation_seconds = 0
        world.emulator.set_version(IMAGE, 3, status="CREATED")
        world.client.delete_image_version(ImageName=IMAGE, Version=3)
        if row.name == "gone_and_succeeded":
            world.emulator.create_versions(IMAGE, 1)

    if part in SENSORS or part == "event":
        world.emulator.create_versions(IMAGE, 1, status="CREATING")
        world.begin()
        world.during(2, "ListImageVersions", happening)
        if part in SENSORS:
            return {"version": 3}, None
        return ({"count": 3}, [1, 2, 4]) if row.name == "gone_and_succeeded" else None
    if part == "create":
        world.emulator.creation_seconds = 60
        world.during(2, "DescribeImageVersion", happening)
    elif part == "prune":
        world.emulator.create_versions(IMAGE, 1)
        remove = lambda: world.client.delete_image_version(ImageName=IMAGE, Version=1)  # noqa: E731 # used once
        world.during(1, "ListAliases", remove)
        return {"keep_newest": 2}, ([1], [3, 2])
    return {"version": 3} if part in {"promote", "delete", "rollout"} else {}, (3, [2, 1])


@script("unknown_status")
def unknown_status(world, part, row):
    return ({"keep_newest": 1}, ([], [2, 1])) if part == "prune" else None


REASON = ("\x1b[31mno\x00 base\nimage \N{SNOWMAN} \x85" + "x" * 1024)[:1024]


@script("long_reason")
def long_reason(world, part, row):
    failed = {"status": "CREATE_FAILED", "failure_reason": REASON}
    if part == "create":
        world.emulator.creation_seconds = 60
        world.during(1, "DescribeImageVersion", lambda: world.emulator.set_version(IMAGE, 3, **failed))
        return None
    if part == "delete":
        world.emulator.creation_seconds = 60
        failed["status"] = "DELETE_FAILED"
        world.during(3, "DescribeImageVersion", lambda: world.emulator.set_version(IMAGE, 2, **failed))
        return {"version": 2}, None
    world.emulator.set_version(IMAGE, 2, **failed)
    if part == "prune":
        return {"keep_newest": 1}, ([2], [1])
    return ({"count": 1, "statuses": ["CREATE_FAILED"]}, [2]) if part == "event" else None


@script("update_fails")
def update_that_fails(world, part, row):
    world.emulator.fail_updates(REASON)


@script("updating")
def update_of_somebody_else(world, part, row):
    world.emulator.creation_seconds = 60
    world.attach(7)
    world.begin()
    world.when(lambda: len(world.calls("DescribeDomain")) > 2, lambda: setattr(world.emulator, "creation_seconds", 0))
    return {}, (7, [custom_image(IMAGE, 2)])


@script("domain_missing")
def no_domain(world, part, row):
    world.domain_id = "d-doesnotexist"


# --- The cells -------------------------------------------------------------------------------------------

CELLS = [pytest.param(row, part, id=f"{row.name}-{part}") for row in TABLE for part, cell in row.cells.items() if cell]


@pytest.fixture(scope="module")
def client(emulator_server):
    return emulator_server.client("sagemaker")


@pytest.fixture
def world(emulator, client, connection, run, context, monkeypatch, cleanup):
    with ThreadPoolExecutor() as pool:
        yield World(emulator, client, connection, run, context, pool, monkeypatch, cleanup)


def provoke(world, part, row):
    """Cause the fault; return the part's arguments and the expected result."""
    cell = row.cells[part]
    if row.name.endswith("_long") or row.name == "outage":
        world.botocore_config = {"retries": {"total_max_attempts": 1}}
    world.monkeypatch.setattr(_sessions, "SLOW_PACE", 0.05)
    world.monkeypatch.setattr(_sessions, "BACKOFF_CAP", 5 * PAUSE)
    world.monkeypatch.setattr(_sessions, "LONGEST_PAUSE", PAUSE)
    world.monkeypatch.setattr(_sessions, "_SHORTEST_RETRY", PAUSE)
    world.monkeypatch.setattr(_schedule, "SHORTEST_RETRY", PAUSE)
    if cell != WAITS:
        # It is over at the third poll of a fault, however fast these are.
        world.monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, PAUSE / 2))
        world.monkeypatch.setattr(_sessions, "GRACE_PACE", PAUSE)
    if part == "rollout":
        world.prepare_studio()
    script = SCRIPTS.get(row.name, lambda *_: None)
    arguments, right = script(world, part, row) or ({}, None)
    if row.fault:
        world.emulator.add_fault(**{"operation": world.operation, **row.fault})
        if row.fault["times"] is None and cell in {WAITS, REPORTS}:
            # At least three polls, of which each may make two calls.
            world.when(lambda: world.hits() > 5, world.emulator.clear_faults)
    return arguments, PARTS[part][1] if right is None else right


def was_met(world, cell, row):
    """Whether the part really met the fault, for as long as it was there."""
    if cell == RENEWS:
        return {call["access_key_id"] for call in world.calls()} >= {"stale", "fresh"}
    if cell == WAITS and row.fault.get("times"):
        return world.hits() == row.fault["times"]
    return world.hits() > 0 or not (row.fault or "credentials" in row.name)


@pytest.mark.parametrize(("row", "part"), CELLS)
def test_a_fault_does_to_a_part_what_the_table_says(row, part, world, capsys, request):
    if row.name == "truncated" and part in READERS:
        request.getfixturevalue("truncation_unseen")
    cell, execute = row.cells[part], PARTS[part][0]
    arguments, right = provoke(world, part, row)
    if cell in WORDS:
        assert execute(world, **arguments) == right
    else:
        exception = EXCEPTIONS.get(cell, botocore.exceptions.ClientError)
        with pytest.raises(exception, match=row.says or None) as caught:
            execute(world, **arguments)
        if exception is botocore.exceptions.ClientError:
            assert caught.value.response["Error"]["Code"] == cell
        assert str(caught.value).isprintable()
    for happening in world.happenings:
        happening.result(20)
    assert was_met(world, cell, row)
    assert all(reason.replace("\n", "").isprintable() for reason in world.reasons)
    assert ("until this is resolved" in capsys.readouterr().out) == (cell == REPORTS)
    if part in READERS and RENEWS in row.cells.values():
        # With another hook.
        assert execute(world, **arguments) == right


def test_every_fault_of_the_table_can_be_had():
    assert {row.name for row in TABLE if not row.fault} <= set(SCRIPTS) <= {row.name for row in TABLE}


def test_the_page_in_the_docs_is_that_of_the_table():
    assert PAGE.read_text(encoding="utf-8") == render(), "Render it again: python -m tests.fault_table"
