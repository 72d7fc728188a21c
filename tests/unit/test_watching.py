"""The watcher's algorithm, against a model of the service that does all that a service may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.model import Above, Cursor, SettledRun, event_id
from tests.decision_table import version, versions

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(autouse=True, scope="module")
def short_reach():
    """Let a history of a few versions reach below what a poll reads anyway."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "_LATE", 0)
        yield


def numbers(records):
    return [record["Version"] for record in records]


@dataclass
class Watcher:
    """What the event trigger does with the algorithm, without the waiting."""

    cursor: Cursor | None = None
    above: Above = field(default_factory=Above)

    def poll(self, service, start_from="latest", since=None):
        while True:
            listed = service.read(self.above)
            if self.cursor is None:
                self.cursor = decide.baseline(listed, start_from)
            needed = decide.depth(listed, self.cursor)
            if needed.number < self.above.number:
                self.above = needed
                continue
            fresh, self.cursor = decide.unseen(listed, self.cursor, since=since)
            self.above = decide.depth(listed, self.cursor)
            return fresh


class Service:
    def __init__(self):
        self.life = 0
        self.clock = START
        self.next_number = 1
        self.listed = {}

    def tick(self, seconds=1):
        self.clock += timedelta(seconds=seconds)

    def create(self):
        number = self.next_number
        self.next_number += 1
        self.listed[number] = {
            "Version": number,
            "ImageVersionStatus": "CREATING",
            "CreationTime": self.clock.isoformat(),
            "ImageVersionArn": f"arn:aws:sagemaker:us-east-1:123456789012:image-version/my-image/{number}",
            "life": self.life,
        }

    def recreate(self):
        self.life += 1
        self.next_number = 1
        self.listed = {}

    def read(self, above):
        read = []
        for number in sorted(self.listed, reverse=True):
            read.append(dict(self.listed[number]))
            if decide.suffices(read[-1], above):
                break
        return read


class Watching(RuleBasedStateMachine):
    """Creations, completions out of order, failures, deletions, recreations, crashes, redeliveries."""

    @initialize(existing=st.integers(0, 3), start_from=st.sampled_from(["latest", "earliest"]))
    def begin(self, existing, start_from):
        self.service = Service()
        for _ in range(existing):
            self.create(gap=1)
            self.service.listed[self.service.next_number - 1]["ImageVersionStatus"] = "CREATED"
        self.watcher = Watcher()
        self.committed = None
        self.told = {}
        self.crashed_since = {}
        self.crashes = 0
        self.owed = set()
        self.start_from = start_from
        if start_from == "earliest":
            self.owed = {event_id(v) for v in self.service.listed.values()}
        self.poll()

    @rule(gap=st.sampled_from([1, 1, 1, 4000]))
    def create(self, gap):
        self.service.tick(gap)
        self.service.create()

    @precondition(lambda self: any(v["ImageVersionStatus"] == "CREATING" for v in self.service.listed.values()))
    @rule(data=st.data(), status=st.sampled_from(["CREATED", "CREATED", "CREATED", "CREATE_FAILED"]))
    def finish(self, data, status):
        creating = [n for n, v in self.service.listed.items() if v["ImageVersionStatus"] == "CREATING"]
        chosen = self.service.listed[data.draw(st.sampled_from(sorted(creating)))]
        chosen["ImageVersionStatus"] = status
        if status == "CREATED":
            self.owed.add(event_id(chosen))

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def delete(self, data):
        gone = self.service.listed.pop(data.draw(st.sampled_from(sorted(self.service.listed))))
        self.forgive([gone])

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def begin_to_delete(self, data):
        going = self.service.listed[data.draw(st.sampled_from(sorted(self.service.listed)))]
        self.forgive([going])
        going["ImageVersionStatus"] = "DELETING"

    @rule()
    def recreate(self):
        self.service.tick()
        self.forgive(list(self.service.listed.values()))
        self.service.recreate()

    def forgive(self, gone):
        # Nobody can tell of what was deleted before it was looked at.
        for each in gone:
            self.owed.discard(event_id(each))

    @rule()
    def poll(self):
        for record in self.watcher.poll(self.service, self.start_from):
            identity = event_id(record)
            assert record["ImageVersionStatus"] == "CREATED"
            # A repetition needs a crash since the last time.
            assert identity not in self.told or self.told[identity] < self.crashes
            assert identity in self.owed or identity in self.told
            self.told[identity] = self.crashes
            self.owed.discard(identity)
        if self.committed is None:
            self.committed = decide.baseline(self.service.read(Above()), self.start_from).to_json()

    @rule()
    def commit(self):
        self.committed = self.watcher.cursor.to_json()
        assert Cursor.from_json(self.committed) == self.watcher.cursor

    @rule()
    def crash(self):
        self.crashes += 1
        cursor = Cursor.from_json(self.committed)
        self.watcher = Watcher(cursor, decide.depth((), cursor))

    @invariant()
    def a_poll_leaves_nothing_owed(self):
        if not hasattr(self, "service"):
            return
        for _ in range(2):
            self.poll()
        assert not self.owed

    @invariant()
    def the_cursor_is_in_order_and_never_overlaps(self):
        if hasattr(self, "watcher") and self.watcher.cursor:
            runs = self.watcher.cursor.runs
            assert all(run.first <= run.last for run in runs)
            assert all(left.last < right.first for left, right in pairwise(runs))


class WatchingSeldom(Watching):
    """The same, with polls between the changes only where the rules say so, and nothing owed in the end."""

    @invariant()
    def a_poll_leaves_nothing_owed(self):
        return

    def teardown(self):
        if hasattr(self, "service"):
            Watching.a_poll_leaves_nothing_owed(self)


Watching.TestCase.settings = WatchingSeldom.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None
)
TestWatchingAlways = Watching.TestCase
TestWatchingSeldom = WatchingSeldom.TestCase


def settle(text):
    return decide.unseen(versions(text), Cursor())[1]


@pytest.mark.parametrize(
    ("before", "listed", "expected"),
    [
        ("1:CREATED", "1:CREATED 2:CREATED 3:CREATED", [2, 3]),
        ("1:CREATED 2:CREATING 3:CREATED", "1:CREATED 2:CREATED 3:CREATED", [2]),
        ("1:CREATED", "1:CREATED 2:CREATE_FAILED 3:DELETING 4:DELETE_FAILED 5:CREATING 6:ARCHIVED", []),
        ("1:ARCHIVED", "1:CREATED", [1]),
        ("1:CREATED 2:CREATED", "2:CREATED", []),
        ("1:CREATED", "", []),
    ],
)
def test_what_newly_became_created_is_told_in_ascending_order(before, listed, expected):
    assert numbers(decide.unseen(versions(listed), settle(before))[0]) == expected


def test_failures_can_be_watched_alone_or_too():
    listed = versions("1:CREATED 2:CREATE_FAILED")
    assert numbers(decide.unseen(listed, Cursor(), statuses=("CREATE_FAILED",))[0]) == [2]
    assert numbers(decide.unseen(listed, Cursor(), statuses=("CREATE_FAILED", "CREATED"))[0]) == [1, 2]


def test_a_known_number_that_was_created_later_is_a_new_version():
    cursor = settle("1:CREATED 2:CREATED 3:CREATED")
    again = [{**each, "CreationTime": (START + timedelta(days=90 + each["Version"])).isoformat()}
             for each in versions("1:CREATED 2:CREATING")]  # fmt: skip
    assert decide.depth(again[1:], cursor) == Above()
    fresh, after = decide.unseen(again, cursor)
    assert numbers(fresh) == [1]
    again[1]["ImageVersionStatus"] = "CREATED"
    assert numbers(decide.unseen(again, after)[0]) == [2]


@pytest.mark.parametrize(
    ("start_from", "expected"),
    [("latest", [2]), ("earliest", [1, 2, 3]), (3, [3]), (2, [2, 3]), (0, [1, 2, 3]), (99, []),
     (START + timedelta(days=3), [3])],
)  # fmt: skip
def test_the_first_start_tells_of_what_was_asked_for(start_from, expected):
    since = start_from if isinstance(start_from, datetime) else None
    cursor = decide.baseline(versions("1:CREATED 2:CREATING 3:CREATED"), start_from)
    finished = versions("1:CREATED 2:CREATED 3:CREATED")
    assert numbers(decide.unseen(finished, cursor, since=since)[0]) == expected


def test_a_start_ahead_of_the_newest_version_waits_for_its_number():
    cursor = decide.baseline(versions("1:CREATED"), 4)
    fresh, _ = decide.unseen([version(number) for number in range(1, 7)], cursor)
    assert numbers(fresh) == [4, 5, 6]


def test_ten_thousand_settled_versions_are_one_run_and_a_poll_reads_the_newest_only():
    listed = [version(number) for number in range(1, 10_001)]
    cursor = decide.unseen(listed, Cursor())[1]
    assert [run[:2] for run in cursor.runs] == [(1, 10_000)]
    assert decide.depth(listed[-100:], cursor).number > 9_990
    assert decide.depth((), cursor).number > 9_990


def test_gaps_close_once_no_late_listing_can_fill_them():
    listed = [version(number) for number in range(1, 200, 2)]
    cursor = decide.unseen(listed, Cursor())[1]
    assert len(cursor.runs) <= 2


def test_a_run_of_neighbours_of_two_lives_of_the_image_is_never_made():
    old = Cursor((SettledRun(3, 3, START.isoformat()),))
    new = [{**version(2), "CreationTime": (START + timedelta(days=1)).isoformat()}]
    assert len(decide.unseen(new, old)[1].runs) == 2


def test_an_event_s_identity_does_not_depend_on_how_the_time_is_written():
    one = {"ImageVersionArn": "a", "CreationTime": "2026-01-01T00:00:00.123000+00:00", "ImageVersionStatus": "CREATED"}
    assert event_id(one) == event_id({**one, "CreationTime": "2026-01-01T01:00:00.123+01:00", "Version": 3})
    for other in ({"ImageVersionStatus": "CREATE_FAILED"}, {"CreationTime": "2026-01-02T00:00:00Z"}):
        assert event_id(one) != event_id({**one, **other})


def test_after_a_restart_the_first_poll_reads_down_to_the_lowest_version_that_may_be_open():
    cursor = settle("1:CREATED 2:CREATING 3:CREATED 4:CREATING 5:CREATED")
    assert decide.depth((), cursor).number < 2
    assert decide.depth((), settle("2:CREATED 3:CREATED")) == Above()
    assert decide.depth((), Cursor()) == Above()
