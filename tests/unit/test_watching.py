"""The watcher's algorithm, against a model of the service that does all that a service may do."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_imageversions import decide, triggers
from airflow_provider_imageversions._reading import PollResult, StatusLogger
from airflow_provider_imageversions.model import (
    AliasCursor,
    Cursor,
    SettledRun,
    Target,
    VersionsAbove,
    WatchConfig,
    event_id,
)
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
    above: VersionsAbove = field(default_factory=VersionsAbove)

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

    @initialize(existing=st.integers(0, 3), start_from=st.sampled_from(["latest", "earliest", 1, 3, 6]))
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
        self.passed_over = range(0)
        if start_from == "earliest":
            self.owed = {event_id(v) for v in self.service.listed.values()}
        elif start_from != "latest":
            self.owed = {event_id(v) for number, v in self.service.listed.items() if number >= start_from}
            self.passed_over = range(existing + 1, start_from)
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
        if status == "CREATED" and chosen["Version"] not in self.passed_over:
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
            self.committed = decide.baseline(self.service.read(VersionsAbove()), self.start_from).to_json()

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
    assert decide.depth(again[1:], cursor) == VersionsAbove()
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
    assert decide.depth((), settle("2:CREATED 3:CREATED")) == VersionsAbove()
    assert decide.depth((), Cursor()) == VersionsAbove()


# --- An alias's moves ------------------------------------------------------------------------------------


class Crash(BaseException):
    """The triggerer is killed."""


class Store:
    def __init__(self):
        self.values = {}
        self.broken = False

    async def aget(self, key):
        return json.loads(self.values[key]) if key in self.values else None

    async def aset(self, key, value):
        if self.broken:
            raise RuntimeError("the database is away")
        self.values[key] = json.dumps(value)


class Clock(asyncio.SelectorEventLoop):
    now = 0.0

    def time(self):
        return self.now


class AliasWatcher:
    """What the event trigger does about an alias, with its own journal and without the waiting."""

    def __init__(self, stores, start_from):
        self.trigger = triggers.SageMakerImageVersionEventTrigger(image_name="my-image", alias="prod")
        self.trigger.asset_state_store = type("Accessors", (), {"_by_name": dict(enumerate(stores))})()
        self.journal = triggers._Journal(self.trigger, AliasCursor)
        watched = WatchConfig("my-image", ["CREATED"], start_from, "prod")
        self.search = triggers._Moves(watched, StatusLogger(logging.getLogger("quiet"), "my-image"), self.journal)
        self.cursor = None
        self.is_open = False

    async def poll(self, owner, tell, killed=None):
        if not self.is_open:
            self.cursor, self.is_open = await self.journal.open(), True
        outcomes = {self.search.target: decide.outcome(owner, self.search.target)}
        snapshot = PollResult(frozenset(outcomes), outcomes=outcomes)
        if self.cursor is None:
            self.cursor = self.search.baseline(snapshot, None)
            await self.journal.begin(self.cursor)
        fresh, after = self.search.look(snapshot, self.cursor)
        identities = [after.event_id for _ in fresh]
        if not await self.journal.announce(identities, after):
            return
        if killed == "before telling":
            raise Crash
        for record in fresh:
            tell(record, after.event_id, redelivered=self.journal.may_have_told(after.event_id))
        if killed == "after telling":
            raise Crash
        self.cursor = after
        await self.journal.advance(after, told=bool(fresh))


class WatchingAnAlias(RuleBasedStateMachine):
    """Promotions, roll-backs, removals, deletions, recreations; crashes at every point, writes that fail."""

    @initialize(start_from=st.sampled_from(["latest", "earliest"]), owned=st.booleans())
    def begin(self, start_from, owned):
        self.loop = Clock()
        self.service = Service()
        for _ in range(3):
            self.create()
            self.finish(self.service.next_number - 1)
        self.owner = None
        if owned:
            self.move(1)
        self.stores = [Store(), Store()]
        self.start_from = start_from
        self.in_flight, self.stored = [], []
        self.all_told = {}
        self.clear_the_state()

    def teardown(self):
        if hasattr(self, "loop"):
            self.nothing_is_missed()
            self.loop.close()

    def numbers(self, status):
        return sorted(n for n, v in self.service.listed.items() if v["ImageVersionStatus"] == status)

    def present(self):
        return [v for number, v in self.service.listed.items() if number == self.owner]

    def ready(self):
        return next((event_id(v) for v in self.present() if v["ImageVersionStatus"] == "CREATED"), None)

    @rule()
    def create(self):
        self.service.tick()
        self.service.create()
        self.touch(self.service.next_number - 1)

    def touch(self, number):
        self.service.tick()
        self.service.listed[number]["LastModifiedTime"] = self.service.clock.isoformat()

    def finish(self, number):
        self.service.listed[number]["ImageVersionStatus"] = "CREATED"

    @precondition(lambda self: self.numbers("CREATING"))
    @rule(data=st.data())
    def finish_one(self, data):
        self.finish(data.draw(st.sampled_from(self.numbers("CREATING"))))

    def move(self, number):
        if self.owner in self.service.listed:
            self.touch(self.owner)
        self.owner = number
        self.touch(number)

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def promote(self, data):
        self.move(data.draw(st.sampled_from(sorted(self.service.listed))))

    @rule()
    def remove_the_alias(self):
        self.owner = None

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def change_metadata(self, data):
        self.touch(data.draw(st.sampled_from(sorted(self.service.listed))))

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def delete(self, data):
        gone = data.draw(st.sampled_from(sorted(self.service.listed)))
        self.owner = None if self.owner == gone else self.owner
        del self.service.listed[gone]

    @rule()
    def recreate(self):
        self.service.tick()
        self.service.recreate()
        self.owner = None

    @rule()
    def let_time_pass(self):
        self.loop.now += 2 * self.watcher.trigger.PERSISTED_AFTER
        self.stored += self.in_flight
        self.in_flight = []

    def tell(self, record, identity, *, redelivered):
        owner = event_id(record)
        assert owner == self.ready()
        if identity in self.all_told:
            # A repetition needs a crash since the last time, and says so.
            assert self.crashed
            assert redelivered or self.cleared
            assert self.noted == (identity, owner) or self.cleared
        else:
            assert self.noted[1] != owner or redelivered
        assert self.all_told.setdefault(identity, owner) == owner
        self.noted, self.crashed, self.cleared = (identity, owner), False, False
        self.in_flight.append((identity, owner))

    def poll(self, killed=None):
        try:
            self.loop.run_until_complete(self.watcher.poll(self.present(), self.tell, killed))
        except Crash:
            if killed == "before telling":
                kept = json.loads(next(iter(self.stores[0].values.values())))["alias"]
                self.noted = (kept[1], kept[0])
            self.restart(lost=killed == "before telling")

    @rule(killed=st.sampled_from([None, None, "before telling", "after telling"]))
    def poll_once(self, killed):
        self.poll(killed)

    @rule(broken=st.sampled_from([0, 1]))
    def poll_while_a_store_is_broken(self, broken):
        self.stores[broken].broken = True
        self.poll()
        self.stores[broken].broken = False

    @rule(lost=st.booleans())
    def restart(self, lost):
        self.stored += [] if lost else self.in_flight
        self.in_flight = []
        self.crashed = True
        self.watcher = AliasWatcher(self.stores, self.start_from)

    @rule()
    def clear_the_state(self):
        self.restart(lost=False)
        for store in self.stores:
            store.values = {}
        self.noted, self.cleared = (None, None), True
        if self.start_from == "latest":
            self.noted = (None, self.ready())
            self.stored.append(self.noted)
        self.poll()

    def handled(self):
        """What a consumer that leaves out what it has processed deployed last."""
        deployed, done = None, set()
        for identity, owner in self.stored + self.in_flight:
            if identity not in done:
                deployed = owner
            done |= {identity} - {None}
        return deployed

    def nothing_is_missed(self):
        self.poll()
        assert self.ready() in {None, self.handled()}


class WatchingAnAliasAlways(WatchingAnAlias):
    """The same, with a poll after each change."""

    @invariant()
    def nothing_is_missed(self):
        if hasattr(self, "watcher"):
            WatchingAnAlias.nothing_is_missed(self)


TestWatchingAnAlias = WatchingAnAlias.TestCase
TestWatchingAnAliasAlways = WatchingAnAliasAlways.TestCase


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("polled", [True, False])
def test_a_move_that_could_not_be_noted_is_not_told_and_undone_leaves_no_trace(broken, polled):
    watching = WatchingAnAlias()
    watching.begin(start_from="latest", owned=True)
    watching.move(2)
    watching.poll()
    watching.move(3)
    watching.poll_while_a_store_is_broken(broken)
    watching.move(2)
    if polled:
        watching.poll()
    watching.restart(lost=False)
    watching.teardown()
    assert [owner for _, owner in watching.stored[1:]] == [watching.ready()]


def owner_of(number, status="CREATED", modified=0):
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:image-version/my-image/{number}"
    changed = (START + timedelta(days=100, seconds=modified)).isoformat()
    return version(number, status, ImageVersionArn=arn, LastModifiedTime=changed)


def follow(*owners, cursor=None):
    """Where an alias goes, as the numbers and the identities that are told."""
    told = []
    for owner in owners:
        outcome = decide.outcome([] if owner is None else [owner], Target(alias="prod"))
        fresh, cursor = decide.moved(outcome, cursor or AliasCursor(), "prod")
        told += [(record["Version"], cursor.event_id) for record in fresh]
    return told


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([owner_of(7), owner_of(8)], [7, 8]),
        ([owner_of(7), owner_of(7, modified=5)], [7]),
        ([owner_of(7), None, owner_of(7)], [7]),
        ([owner_of(7), owner_of(8, "CREATING"), owner_of(8)], [7, 8]),
        ([owner_of(8, "CREATE_FAILED"), owner_of(8, "DELETING"), owner_of(8, "ARCHIVED"), None], []),
        ([owner_of(7), {**owner_of(7), "CreationTime": (START + timedelta(days=90)).isoformat()}], [7, 7]),
        ([owner_of(7), owner_of(8), owner_of(7), owner_of(8)], [7, 8, 7, 8]),
    ],
)
def test_a_move_is_told_when_the_alias_is_on_another_created_version(owners, expected):
    told = follow(*owners)
    assert [number for number, _ in told] == expected
    assert len({identity for _, identity in told}) == len(told)


def test_a_move_is_told_again_with_its_identity_only_while_its_event_may_be_lost():
    ready = decide.outcome([owner_of(7)], Target(alias="prod"))
    cursor = decide.moved(ready, AliasCursor(), "prod")[1]
    assert AliasCursor.from_json(json.loads(json.dumps(cursor.to_json()))) == cursor
    assert decide.moved(ready, cursor, "prod") == ([], cursor)
    assert decide.moved(ready, cursor, "prod", unsure=True) == ([owner_of(7)], cursor)
    gone = decide.outcome([], Target(alias="prod"))
    assert decide.moved(gone, cursor, "prod", unsure=True) == ([], cursor)


def test_aliases_that_move_alike_and_watches_that_begin_anew_have_moves_of_their_own():
    there = decide.outcome([owner_of(8)], Target(alias="prod"))
    first = decide.moved(decide.outcome([owner_of(7)], Target(alias="prod")), AliasCursor(), "prod")[1]
    later = decide.moved(decide.outcome([owner_of(7, modified=5)], Target(alias="prod")), AliasCursor(), "prod")[1]
    identities = [decide.moved(there, cursor, alias)[1].event_id
                  for cursor, alias in [(first, "prod"), (first, "blue"), (later, "prod")]]  # fmt: skip
    assert len(set(identities)) == 3


@pytest.mark.parametrize("start_from", [3, 6])
def test_what_is_to_be_passed_over_ends_with_the_image_s_life(start_from):
    watching = Watching()
    watching.begin(existing=1, start_from=start_from)
    for _ in range(7):
        watching.create(gap=1)
        watching.poll()
    watching.recreate()
    watching.create(gap=1)
    watching.service.listed[1]["ImageVersionStatus"] = "CREATED"
    watching.owed.add(event_id(watching.service.listed[1]))
    watching.a_poll_leaves_nothing_owed()
