"""The watcher's algorithm, against a model of SageMaker with all of its possible behaviour."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_imageversions import _sessions, decide
from airflow_provider_imageversions._reading import PollResult
from airflow_provider_imageversions._sessions import Emit, Log, NeedDetails, Poll, Save, WatchSession
from airflow_provider_imageversions.model import (
    AliasCursor,
    Cursor,
    ErrorKind,
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


class Crash(BaseException):
    """The triggerer is killed."""


class Driver:
    """Drives a session as the trigger does, with a clock, a store for each asset and a triggerer that has delays."""

    def __init__(self, world, config, stores, *, include_details=False):
        self.world = world
        self.stores = stores
        states = [json.loads(store.text) for store in stores if store.text is not None]
        self.session = WatchSession(
            config, states, interval=60, include_details=include_details, started=world.service.clock
        )
        self.steps = self.session.run()
        self.step = next(self.steps)
        self.saves = 0
        self.logs = []

    def send(self, answer):
        self.step = self.steps.send((answer, self.world.now))
        self.logs += self.step.logs

    def poll(self, read, *, unreadable=None, killed=None):
        """Poll until what the session needs is read; the details of one version may be unreadable."""
        while True:
            target = self.step.target
            self.send(read(target))
            self.follow(unreadable, killed)
            if not (isinstance(target, VersionsAbove) and self.step.target.number < target.number):
                return

    def follow(self, unreadable, killed):
        while not isinstance(self.step, Poll):
            if killed == "before" and isinstance(self.step, Emit):
                raise Crash
            match self.step:
                case Save(state):
                    self.saves += 1
                    self.send(self.save(state))
                    self.world.answered()
                case NeedDetails(version):
                    error = PollResult(frozenset(), fault=ErrorKind.TRANSIENT, error=OSError("reset"))
                    self.send(error if version["Version"] == unreadable else {**version, "Aliases": []})
                case Emit(version, event):
                    self.world.emitted(version, **event)
                    if killed == "after":
                        raise Crash
                    self.send(None)

    def save(self, state):
        for store in self.stores:
            if store.broken:
                return False
            store.text = json.dumps(state)
        return True


class Store:
    """What one asset has stored."""

    text = None
    broken = False


class Service:
    def __init__(self):
        self.life = 0
        self.clock = START
        self.next_number = 1
        self.listed = {}
        self.is_missing = False

    def tick(self, seconds=1):
        self.clock += timedelta(seconds=seconds)

    def create(self):
        number = self.next_number
        self.next_number += 1
        self.is_missing = False
        self.listed[number] = {
            "Version": number,
            "ImageVersionStatus": "CREATING",
            "CreationTime": self.clock.isoformat(),
            "ImageVersionArn": f"arn:aws:sagemaker:us-east-1:123456789012:image-version/my-image/{number}",
            "life": self.life,
        }
        self.touch(number)

    def touch(self, number):
        self.tick()
        self.listed[number]["LastModifiedTime"] = self.clock.isoformat()

    def finish(self, number, status="CREATED"):
        self.listed[number]["ImageVersionStatus"] = status
        self.touch(number)

    def recreate(self):
        self.life += 1
        self.next_number = 1
        self.listed = {}

    def read(self, target):
        if self.is_missing:
            return PollResult(frozenset({target}), fault=ErrorKind.MISSING, error=LookupError("no image"))
        read = []
        for number in sorted(self.listed, reverse=True):
            read.append(dict(self.listed[number]))
            if decide.can_stop_reading(read[-1], target):
                break
        return PollResult(frozenset({target}), versions=tuple(read))


class Watching(RuleBasedStateMachine):
    """Creations, completions out of order, failures, deletions, recreations, outages, crashes, lost events."""

    @initialize(
        existing=st.integers(0, 3),
        start_from=st.sampled_from(["latest", "earliest", 1, 3, 6]),
        include_details=st.booleans(),
        blind=st.booleans(),
    )
    def begin(self, *, existing, start_from, include_details=False, blind=False):
        self.service = Service()
        for _ in range(existing):
            self.service.tick()
            self.service.create()
            self.service.finish(self.service.next_number - 1)
        self.config = WatchConfig("my-image", ["CREATED"], start_from, None)
        self.include_details = include_details
        self.now = 0.0
        self.store = Store()
        self.delivered = {}
        self.in_flight = []
        self.crashes = 0
        self.start()
        # A number that is passed over is one only for the image's life in which the first poll succeeds.
        if blind and isinstance(start_from, str):
            self.poll_in_an_outage()
        else:
            self.poll()

    def start(self):
        if self.store.text is None:
            start_from, listed = self.config.start_from, self.service.listed
            lowest = {"earliest": 0, "latest": self.service.next_number}.get(start_from, start_from)
            self.passed_over = range(self.service.next_number, lowest)
            self.owed = {
                event_id(v) for number, v in listed.items() if number >= lowest and v["ImageVersionStatus"] == "CREATED"
            }
        self.sent_before = [] if self.store.text is None else json.loads(self.store.text)["sent"]
        self.driver = Driver(self, self.config, [self.store], include_details=self.include_details)

    @rule(gap=st.sampled_from([1, 1, 1, 4000]))
    def create(self, gap):
        self.service.tick(gap)
        self.service.create()

    @precondition(lambda self: any(v["ImageVersionStatus"] == "CREATING" for v in self.service.listed.values()))
    @rule(data=st.data(), status=st.sampled_from(["CREATED", "CREATED", "CREATED", "CREATE_FAILED"]))
    def finish(self, data, status):
        creating = [n for n, v in self.service.listed.items() if v["ImageVersionStatus"] == "CREATING"]
        number = data.draw(st.sampled_from(sorted(creating)))
        self.service.finish(number, status)
        if status == "CREATED" and number not in self.passed_over:
            self.owed.add(event_id(self.service.listed[number]))

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def delete(self, data):
        gone = self.service.listed.pop(data.draw(st.sampled_from(sorted(self.service.listed))))
        self.forgive([gone])

    @precondition(lambda self: self.service.listed)
    @rule(data=st.data())
    def begin_to_delete(self, data):
        number = data.draw(st.sampled_from(sorted(self.service.listed)))
        self.forgive([self.service.listed[number]])
        self.service.finish(number, "DELETING")

    @rule(missing=st.booleans())
    def recreate(self, *, missing=False):
        self.service.tick()
        self.forgive(list(self.service.listed.values()))
        self.service.recreate()
        self.service.is_missing = missing
        self.passed_over = range(0) if self.store.text is None else self.passed_over

    def forgive(self, gone):
        # Nobody can report what was deleted before it was listed.
        for each in gone:
            self.owed.discard(event_id(each))

    def emitted(self, record, identity, alias, redelivered):
        assert alias is None
        assert identity == event_id(record)
        assert record["ImageVersionStatus"] == "CREATED"
        assert ("Aliases" in record) == self.include_details
        # A repetition needs a crash since the last time, and is marked unless that could not be stored.
        assert identity not in self.delivered or self.delivered[identity] < self.crashes
        assert identity in self.owed or identity in self.delivered
        assert redelivered == (identity in self.sent_before)
        self.delivered[identity] = self.crashes
        self.owed.discard(identity)
        self.in_flight.append([identity, None])

    def answered(self):
        """Let the triggerer hand over what was emitted before, as it handles requests one after the other."""
        for event in self.in_flight:
            event[1] = self.now + _sessions.STORED_AFTER if event[1] is None else event[1]

    @rule(seconds=st.sampled_from([1, 9, 11, 40]))
    def let_time_pass(self, seconds):
        self.now += seconds
        self.in_flight = [event for event in self.in_flight if event[1] is None or event[1] > self.now]

    @rule(unreadable=st.integers(1, 6))
    def poll_with_unreadable_details(self, unreadable):
        self.driver.poll(self.service.read, unreadable=unreadable)

    @rule()
    def poll(self):
        self.driver.poll(self.service.read)

    @rule()
    def poll_while_the_store_is_broken(self):
        self.store.broken = True
        self.poll()
        self.store.broken = False

    @rule()
    def poll_in_an_outage(self):
        error = OSError("unreachable")
        self.driver.poll(lambda target: PollResult(frozenset({target}), fault=ErrorKind.TRANSIENT, error=error))

    @rule(killed=st.sampled_from(["before", "after"]))
    def poll_and_be_killed(self, killed):
        try:
            self.driver.poll(self.service.read, killed=killed)
        except Crash:
            self.crash()

    @rule()
    def crash(self):
        self.crashes += 1
        there = {event_id(v) for v in self.service.listed.values() if v["ImageVersionStatus"] == "CREATED"}
        self.owed |= there & {identity for identity, _ in self.in_flight}
        self.in_flight = []
        self.start()

    @invariant()
    def a_poll_leaves_nothing_owed(self):
        if not hasattr(self, "service"):
            return
        for _ in range(2):
            self.poll()
        assert not self.owed

    @invariant()
    def the_stored_cursor_is_in_order_and_never_overlaps(self):
        if hasattr(self, "store") and self.store.text is not None:
            # Before the first successful poll, the state has no cursor.
            runs = Cursor.from_json(json.loads(self.store.text).get("runs", [])).runs
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
    return decide.detect_new_versions(versions(text), Cursor())[1]


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
def test_new_versions_are_detected_in_ascending_order(before, listed, expected):
    assert numbers(decide.detect_new_versions(versions(listed), settle(before))[0]) == expected


def test_failures_can_be_watched_alone_or_too():
    listed = versions("1:CREATED 2:CREATE_FAILED")
    assert numbers(decide.detect_new_versions(listed, Cursor(), statuses=("CREATE_FAILED",))[0]) == [2]
    assert numbers(decide.detect_new_versions(listed, Cursor(), statuses=("CREATE_FAILED", "CREATED"))[0]) == [1, 2]


def test_a_known_number_that_was_created_later_is_a_new_version():
    cursor = settle("1:CREATED 2:CREATED 3:CREATED")
    again = [{**each, "CreationTime": (START + timedelta(days=90 + each["Version"])).isoformat()}
             for each in versions("1:CREATED 2:CREATING")]  # fmt: skip
    assert decide.lowest_unsettled(again[1:], cursor) == VersionsAbove()
    fresh, after = decide.detect_new_versions(again, cursor)
    assert numbers(fresh) == [1]
    again[1]["ImageVersionStatus"] = "CREATED"
    assert numbers(decide.detect_new_versions(again, after)[0]) == [2]


@pytest.mark.parametrize(
    ("start_from", "expected"),
    [("latest", [2]), ("earliest", [1, 2, 3]), (3, [3]), (2, [2, 3]), (0, [1, 2, 3]), (99, []),
     (START + timedelta(days=3), [3])],
)  # fmt: skip
def test_the_first_start_respects_start_from(start_from, expected):
    since = start_from if isinstance(start_from, datetime) else None
    cursor = decide.baseline(versions("1:CREATED 2:CREATING 3:CREATED"), start_from)
    finished = versions("1:CREATED 2:CREATED 3:CREATED")
    assert numbers(decide.detect_new_versions(finished, cursor, since=since)[0]) == expected


def test_a_start_ahead_of_the_newest_version_waits_for_its_number():
    cursor = decide.baseline(versions("1:CREATED"), 4)
    fresh, _ = decide.detect_new_versions([version(number) for number in range(1, 7)], cursor)
    assert numbers(fresh) == [4, 5, 6]


def test_ten_thousand_settled_versions_are_one_run_and_a_poll_reads_the_newest_only():
    listed = [version(number) for number in range(1, 10_001)]
    cursor = decide.detect_new_versions(listed, Cursor())[1]
    assert [run[:2] for run in cursor.runs] == [(1, 10_000)]
    assert decide.lowest_unsettled(listed[-100:], cursor).number > 9_990
    assert decide.lowest_unsettled((), cursor).number > 9_990


def test_gaps_close_once_no_late_listing_can_fill_them():
    listed = [version(number) for number in range(1, 200, 2)]
    cursor = decide.detect_new_versions(listed, Cursor())[1]
    assert len(cursor.runs) <= 2


def test_a_run_of_neighbours_of_two_lives_of_the_image_is_never_made():
    old = Cursor((SettledRun(3, 3, START.isoformat()),))
    new = [{**version(2), "CreationTime": (START + timedelta(days=1)).isoformat()}]
    assert len(decide.detect_new_versions(new, old)[1].runs) == 2


def test_an_event_s_identity_does_not_depend_on_how_the_time_is_written():
    one = {"ImageVersionArn": "a", "CreationTime": "2026-01-01T00:00:00.123000+00:00", "ImageVersionStatus": "CREATED"}
    assert event_id(one) == event_id({**one, "CreationTime": "2026-01-01T01:00:00.123+01:00", "Version": 3})
    for other in ({"ImageVersionStatus": "CREATE_FAILED"}, {"CreationTime": "2026-01-02T00:00:00Z"}):
        assert event_id(one) != event_id({**one, **other})


def test_after_a_restart_the_first_poll_reads_down_to_the_lowest_version_that_may_be_open():
    cursor = settle("1:CREATED 2:CREATING 3:CREATED 4:CREATING 5:CREATED")
    assert decide.lowest_unsettled((), cursor).number < 2
    assert decide.lowest_unsettled((), settle("2:CREATED 3:CREATED")) == VersionsAbove()
    assert decide.lowest_unsettled((), Cursor()) == VersionsAbove()


# --- An alias's moves ------------------------------------------------------------------------------------


class WatchingAnAlias(RuleBasedStateMachine):
    """Promotions, roll-backs, removals, deletions, recreations; crashes at every point, writes that fail."""

    @initialize(start_from=st.sampled_from(["latest", "earliest"]), owned=st.booleans())
    def begin(self, start_from, owned):
        self.now = 0.0
        self.service = Service()
        for _ in range(3):
            self.service.create()
            self.service.finish(self.service.next_number - 1)
        self.owner = None
        if owned:
            self.move(1)
        self.stores = [Store(), Store()]
        self.start_from = start_from
        self.in_flight, self.stored = [], []
        self.all_delivered = {}
        self.clear_the_state()

    def teardown(self):
        if hasattr(self, "service"):
            self.nothing_is_missed()

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

    def answered(self):
        pass

    @precondition(lambda self: self.numbers("CREATING"))
    @rule(data=st.data())
    def finish_one(self, data):
        self.service.finish(data.draw(st.sampled_from(self.numbers("CREATING"))))

    def move(self, number):
        if self.owner in self.service.listed:
            self.service.touch(self.owner)
        self.owner = number
        self.service.touch(number)

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
        self.service.touch(data.draw(st.sampled_from(sorted(self.service.listed))))

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
        self.now += 2 * _sessions.STORED_AFTER
        self.stored += self.in_flight
        self.in_flight = []

    def emitted(self, record, identity, alias, redelivered):
        owner = event_id(record)
        assert alias == "prod"
        assert owner == self.ready()
        if identity in self.all_delivered:
            # A repetition needs a crash since the last time, and says so.
            assert self.crashed
            assert redelivered or self.cleared
            assert self.noted == (identity, owner) or self.cleared
        else:
            assert self.noted[1] != owner or redelivered
        assert self.all_delivered.setdefault(identity, owner) == owner
        self.noted, self.crashed, self.cleared = (identity, owner), False, False
        self.in_flight.append((identity, owner))

    def poll(self, killed=None):
        try:
            self.driver.poll(self.read, killed=killed)
        except Crash:
            if killed == "before":
                kept = json.loads(self.stores[0].text)["alias"]
                self.noted = (kept[1], kept[0])
            self.restart(lost=killed == "before")

    def read(self, target):
        return PollResult(frozenset({target}), outcomes={target: decide.outcome(self.present(), target)})

    @rule(killed=st.sampled_from([None, None, "before", "after"]))
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
        self.driver = Driver(self, WatchConfig("my-image", ["CREATED"], self.start_from, "prod"), self.stores)

    @rule()
    def clear_the_state(self):
        for store in self.stores:
            store.text = None
        self.restart(lost=False)
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
        if hasattr(self, "driver"):
            WatchingAnAlias.nothing_is_missed(self)


TestWatchingAnAlias = WatchingAnAlias.TestCase
TestWatchingAnAliasAlways = WatchingAnAliasAlways.TestCase


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("polled", [True, False])
def test_a_move_that_could_not_be_stored_is_not_emitted(broken, polled):
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
    """The moves of an alias, as version numbers and event ids."""
    delivered = []
    for owner in owners:
        outcome = decide.outcome([] if owner is None else [owner], Target(alias="prod"))
        fresh, cursor = decide.detect_alias_move(outcome, cursor or AliasCursor(), "prod")
        delivered += [(record["Version"], cursor.event_id) for record in fresh]
    return delivered


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
def test_a_move_is_detected_when_the_alias_is_on_another_created_version(owners, expected):
    delivered = follow(*owners)
    assert [number for number, _ in delivered] == expected
    assert len({identity for _, identity in delivered}) == len(delivered)


def test_a_move_is_detected_again_only_while_its_event_may_be_lost():
    ready = decide.outcome([owner_of(7)], Target(alias="prod"))
    cursor = decide.detect_alias_move(ready, AliasCursor(), "prod")[1]
    assert AliasCursor.from_json(json.loads(json.dumps(cursor.to_json()))) == cursor
    assert decide.detect_alias_move(ready, cursor, "prod") == ([], cursor)
    assert decide.detect_alias_move(ready, cursor, "prod", unsure=True) == ([owner_of(7)], cursor)
    gone = decide.outcome([], Target(alias="prod"))
    assert decide.detect_alias_move(gone, cursor, "prod", unsure=True) == ([], cursor)


def test_moves_of_other_aliases_and_watchers_have_other_ids():
    there = decide.outcome([owner_of(8)], Target(alias="prod"))
    first = decide.detect_alias_move(decide.outcome([owner_of(7)], Target(alias="prod")), AliasCursor(), "prod")[1]
    later = decide.detect_alias_move(
        decide.outcome([owner_of(7, modified=5)], Target(alias="prod")), AliasCursor(), "prod"
    )[1]
    identities = [decide.detect_alias_move(there, cursor, alias)[1].event_id
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


# --- What is stored --------------------------------------------------------------------------------------

VERSIONS_STATE = """{"runs": [[1, 1, "2026-01-02T00:00:00+00:00"], [3, 3, "2026-01-04T00:00:00+00:00"]],
 "sent": ["e517da2f7d4dcbbcda5473460c67a5c8", "c0ad252e4a991aef00d26ea44312f47d"]}"""
ALIAS_STATE = """{"alias": ["c0ad252e4a991aef00d26ea44312f47d", "2a6920d3f9f80c9ba6ddcb9958376fae", 2],
 "sent": ["2a6920d3f9f80c9ba6ddcb9958376fae"]}"""


class Recorder:
    """A world in which nothing goes wrong."""

    def __init__(self, alias=None, *texts, start_from="latest", **options):
        self.service = Service()
        self.now = 0.0
        self.events = []
        self.stores = [Store() for _ in texts or [None]]
        for store, text in zip(self.stores, texts, strict=False):
            store.text = text
        self.config = WatchConfig("my-image", ["CREATED"], start_from, alias)
        self.options = options
        self.restart()

    def restart(self):
        self.driver = Driver(self, self.config, self.stores, **self.options)

    def emitted(self, record, **event):
        self.events.append((record["Version"], event["identity"], event["redelivered"]))

    def answered(self):
        pass

    def poll(self, listed, **more):
        """Poll an image that has these versions; for an alias, the last of them has it."""

        def read(target):
            if isinstance(target, VersionsAbove):
                return PollResult(frozenset({target}), versions=tuple(reversed(listed)))
            return PollResult(frozenset({target}), outcomes={target: decide.outcome(listed[-1:], target)})

        before = len(self.events)
        self.driver.poll(read, **more)
        return self.events[before:]


@pytest.mark.parametrize(
    ("alias", "text", "expected"),
    [
        (None, VERSIONS_STATE, [(2, "e517da2f7d4dcbbcda5473460c67a5c8"), (4, "c0ad252e4a991aef00d26ea44312f47d")]),
        ("prod", ALIAS_STATE, [(4, "2a6920d3f9f80c9ba6ddcb9958376fae")]),
    ],
)
def test_a_state_that_an_earlier_version_stored_is_continued(alias, text, expected):
    """Rows as the watchers before the sessions wrote them, when the triggerer was killed after it emitted events."""
    world = Recorder(alias, text)
    listed = [owner_of(number) for number in range(1, 5)]
    assert world.poll(listed) == [(number, identity, True) for number, identity in expected]
    assert world.poll([*listed, owner_of(5)])[0][::2] == (5, False)
    assert world.stores[0].text != text
    kind = AliasCursor if alias else Cursor
    assert json.loads(world.stores[0].text).keys() == {kind.KEY, "sent"}


def stored(world):
    return json.loads(world.stores[0].text)


def test_an_event_is_stored_ten_seconds_after_the_next_request():
    world = Recorder()
    world.poll([owner_of(1)])
    listed = [owner_of(1), owner_of(2)]
    world.stores[0].broken = True
    world.poll(listed)
    # The database has been away since: what holds up the store may hold up the event.
    world.now = 1000.0
    world.poll(listed)
    world.stores[0].broken = False
    world.poll(listed)
    assert [run[1] for run in stored(world)["runs"]] == [1]
    assert len(stored(world)["sent"]) == 1
    world.now += _sessions.STORED_AFTER - 0.1
    world.poll(listed)
    assert [run[1] for run in stored(world)["runs"]] == [1]
    world.now += 0.1
    world.poll(listed)
    assert [run[1] for run in stored(world)["runs"]] == [2]
    assert stored(world)["sent"] == []
    world.restart()
    assert world.poll(listed) == []


def test_a_state_that_could_not_be_stored_is_stored_by_the_next_poll():
    world = Recorder()
    world.stores[0].broken = True
    world.poll([owner_of(1)])
    world.stores[0].broken = False
    assert world.poll([owner_of(1)]) == []
    assert [run[1] for run in stored(world)["runs"]] == [1]


def test_a_new_version_is_emitted_even_if_the_state_cannot_be_stored():
    world = Recorder()
    world.poll([owner_of(1)])
    world.stores[0].broken = True
    assert [event[0] for event in world.poll([owner_of(1), owner_of(2)])] == [2]
    assert world.poll([owner_of(1), owner_of(2)]) == []


def test_what_needs_no_event_is_stored_at_once_or_with_the_events_before_it():
    world = Recorder()
    listed = [owner_of(1), owner_of(2, "CREATE_FAILED")]
    world.poll(listed[:1])
    world.poll(listed)
    assert [run[:2] for run in stored(world)["runs"]] == [[1, 2]]
    listed += [owner_of(3), owner_of(4, "CREATE_FAILED")]
    world.poll(listed[:3])
    world.poll(listed)
    assert [run[:2] for run in stored(world)["runs"]] == [[1, 2]]
    world.now += _sessions.STORED_AFTER
    world.poll(listed)
    assert [run[:2] for run in stored(world)["runs"]] == [[1, 4]]


def test_each_emission_has_its_own_time_to_be_stored():
    world = Recorder()
    world.poll([owner_of(1)])
    world.poll([owner_of(1), owner_of(2)])
    world.now = _sessions.STORED_AFTER - 4
    world.poll([owner_of(1), owner_of(2), owner_of(3)])
    world.now = _sessions.STORED_AFTER
    world.poll([owner_of(1), owner_of(2), owner_of(3)])
    assert [run[1] for run in stored(world)["runs"]] == [2]
    assert stored(world)["sent"] == [event_id(owner_of(3))]
    world.now = 2 * _sessions.STORED_AFTER - 4
    world.poll([owner_of(1), owner_of(2), owner_of(3)])
    assert [run[1] for run in stored(world)["runs"]] == [3]


def test_nothing_is_stored_while_nothing_changes():
    world = Recorder()
    for _ in range(5):
        world.poll([owner_of(1)])
        world.now += 60
    assert world.driver.saves == 1
    world.poll([owner_of(1), owner_of(2)])
    # Before the event and after it.
    assert world.driver.saves == 3
    for _ in range(5):
        world.now += 60
        world.poll([owner_of(1), owner_of(2)])
    assert world.driver.saves == 4


def test_the_least_advanced_asset_of_a_shared_trigger_counts():
    further = json.dumps({"runs": [[1, 3, "2026-01-04T00:00:00+00:00"]], "sent": []})
    behind = json.dumps({"runs": [[1, 1, "2026-01-02T00:00:00+00:00"]], "sent": [event_id(owner_of(2))]})
    for texts in ([further, behind], [behind, further]):
        world = Recorder(None, *texts)
        events = world.poll([owner_of(number) for number in range(1, 4)])
        assert [(number, redelivered) for number, _, redelivered in events] == [(2, True), (3, False)]


def test_what_is_kept_of_the_events_that_were_sent_has_a_limit():
    world = Recorder(start_from="earliest")
    world.poll([owner_of(number) for number in range(1, _sessions.SENT_KEPT + 11)])
    assert stored(world)["sent"][-1] == event_id(owner_of(_sessions.SENT_KEPT + 10))
    assert len(stored(world)["sent"]) == _sessions.SENT_KEPT


# --- Details and errors ----------------------------------------------------------------------------------


def test_details_are_read_ten_at_a_time_and_an_event_follows_each_batch():
    world = Recorder(start_from="earliest", include_details=True)
    order = []
    world.driver.send(PollResult(frozenset(), versions=tuple(owner_of(number) for number in range(25, 0, -1))))
    while not isinstance(world.driver.step, Poll):
        match world.driver.step:
            case NeedDetails(version):
                order.append("d")
                world.driver.send({**version, "Aliases": []})
            case Emit():
                order.append("e")
                world.driver.send(None)
            case Save():
                world.driver.send(answer=True)
    assert "".join(order) == "d" * 10 + "e" * 10 + "d" * 10 + "e" * 10 + "d" * 5 + "e" * 5


def test_records_before_failed_details_are_emitted_and_the_rest_later():
    world = Recorder(start_from="earliest", include_details=True)
    listed = [owner_of(number) for number in range(1, 15)]
    assert [event[0] for event in world.poll(listed, unreadable=4)] == [1, 2, 3]
    assert world.driver.step.interval == _sessions.GRACE_PACE
    assert [event[0] for event in world.poll(listed, unreadable=4)] == []
    assert world.driver.step.interval == 2 * _sessions.GRACE_PACE
    assert world.driver.logs == [Log("warning", "CREATED, but its details cannot be read yet: OSError: reset")]
    assert [event[0] for event in world.poll(listed)] == list(range(4, 15))
    assert world.driver.step.interval == 60


@pytest.mark.parametrize("changed", [{"ImageVersionStatus": "DELETING"}, {"CreationTime": "2999-01-01T00:00:00+00:00"}])
def test_a_version_that_changed_before_its_details_were_read_is_judged_at_the_next_poll(changed):
    world = Recorder(start_from="earliest", include_details=True)
    listed = [owner_of(1), owner_of(2)]
    world.driver.send(PollResult(frozenset(), versions=tuple(listed)))
    events = []
    while not isinstance(world.driver.step, Poll):
        match world.driver.step:
            case NeedDetails(version):
                world.driver.send({**version, **(changed if version["Version"] == 2 else {})})
            case Emit(version):
                events.append(version["Version"])
                world.driver.send(None)
            case Save():
                world.driver.send(answer=True)
    assert events == [1]
    assert [event[0] for event in world.poll(listed)] == [2]


def test_a_watcher_that_could_not_start_at_once_misses_nothing_that_was_created_since():
    config = WatchConfig("my-image", ["CREATED"], "latest", None)
    for is_blind, first in ((False, Save), (True, Emit)):
        steps = WatchSession(config, [], interval=60, include_details=False, started=START, is_blind=is_blind).run()
        next(steps)
        step = steps.send((PollResult(frozenset(), versions=(owner_of(1, modified=5),)), 60.0))
        kinds = [type(step)]
        while not isinstance(step, Poll):
            step = steps.send((True, 60.0))
            kinds.append(type(step))
        assert (Emit in kinds) == is_blind
        assert first in kinds


def refused(lasting, kind=ErrorKind.PERMANENT):
    return PollResult(frozenset(), fault=kind, error=OSError("denied"), lasting=lasting)


@pytest.mark.parametrize(("interval", "pace"), [(60, 300), (600, 600)])
def test_a_permanent_error_slows_a_watcher_down_and_is_logged_once(interval, pace):
    config = WatchConfig("my-image", ["CREATED"], "latest", None)
    steps = WatchSession(config, [], interval=interval, include_details=True, started=START).run()
    assert next(steps) == Poll(VersionsAbove(), interval)
    step = steps.send((refused(9.9), 0.0))
    assert step == Save({"since": START.isoformat(), "sent": []})
    step = steps.send((True, 0.0))
    assert (step.interval, [log.level for log in step.logs]) == (interval, ["warning"])
    step = steps.send((refused(10.0), 10.0))
    text = f"No events will be emitted until this is resolved. Retrying every {pace} seconds: OSError: denied"
    assert (step.interval, step.logs) == (pace, (Log("error", text),))
    step = steps.send((refused(20.0), 20.0))
    assert (step.interval, step.logs) == (pace, ())
    old = owner_of(1, modified=-(10**7))
    step = steps.send((PollResult(frozenset(), versions=(old,)), 30.0))
    assert isinstance(step, Save)
    assert step.logs == ()
    step = steps.send((True, 30.0))
    assert (step.interval, step.logs) == (interval, (Log("info", "can be polled again"),))
    step = steps.send((PollResult(frozenset(), versions=(owner_of(2), old)), 30.0))
    assert step == NeedDetails(owner_of(2))
    step = steps.send((refused(10.0), 30.0))
    assert (step.interval, [log.level for log in step.logs]) == (pace, ["warning", "error"])


@pytest.mark.parametrize("kind", sorted(set(ErrorKind) - set(_sessions.GRACE), key=str))
def test_what_passes_by_itself_does_not_slow_a_watcher_down(kind):
    config = WatchConfig("my-image", ["CREATED"], "latest", None)
    steps = WatchSession(config, [], interval=60, include_details=False, started=START).run()
    next(steps)
    step = steps.send((refused(1e6, kind), 0.0))
    step = steps.send((True, 0.0)) if isinstance(step, Save) else step
    assert step.interval == 60
    assert [log.level for log in step.logs] == ["warning"] if kind is not ErrorKind.MISSING else True


def test_an_alias_that_waits_is_logged_when_that_changes():
    world = Recorder("prod")
    world.poll([owner_of(1)])
    for owner in (owner_of(2, "CREATING"), owner_of(2, "CREATING"), owner_of(2, "ARCHIVED"), owner_of(2)):
        world.poll([owner])
    prefix = "waiting for the version with the alias 'prod': version 2 is"
    assert world.driver.logs == [
        Log("info", f"{prefix} CREATING"),
        Log("warning", f"{prefix} ARCHIVED, which this package does not know"),
    ]
    assert [event[0] for event in world.events] == [2]


def test_failures_are_emitted_with_their_own_identities():
    world = Recorder()
    world.config = WatchConfig("my-image", ["CREATED", "CREATE_FAILED"], "earliest", None)
    world.restart()
    events = world.poll([owner_of(1, "CREATE_FAILED"), owner_of(2)])
    assert [event[:2] for event in events] == [(1, event_id(owner_of(1, "CREATE_FAILED"))), (2, event_id(owner_of(2)))]


def test_only_what_was_created_from_a_moment_on_is_emitted():
    world = Recorder(start_from=START + timedelta(days=2))
    assert [event[0] for event in world.poll([owner_of(number) for number in range(1, 4)])] == [2, 3]


def test_a_poll_that_read_too_little_is_repeated_with_a_deeper_target():
    """After a restart all that is known is what is settled; the image may be another one by now."""
    state = json.dumps({"runs": [[1, 50, "2026-02-20T00:00:00+00:00"]], "sent": []})
    world = Recorder(None, state)
    assert world.driver.step.target.number > 0
    again = {**version(50, "CREATING"), "CreationTime": "2026-03-01T00:00:00+00:00"}
    world.driver.send(PollResult(frozenset(), versions=(again,)))
    assert world.driver.step == Poll(VersionsAbove(), 60)


def test_a_poll_reads_down_to_the_lowest_version_that_may_still_need_an_event():
    world = Recorder()
    world.poll([owner_of(number) for number in range(1, 6)])
    assert world.driver.step == Poll(VersionsAbove(4), 60)
    world.poll([*(owner_of(number) for number in range(1, 6)), owner_of(6, "CREATING"), owner_of(7)])
    assert world.driver.step == Poll(VersionsAbove(5), 60)


@pytest.mark.parametrize("restarts", [False, True])
def test_what_becomes_created_while_a_first_start_cannot_read_it_gets_an_event(restarts):
    world = Recorder()
    world.driver.send(refused(0.0))
    world.driver.follow(None, None)
    if restarts:
        world.service.tick(10**9)
        world.restart()
    assert [event[0] for event in world.poll([owner_of(1, modified=-(10**7)), owner_of(2)])] == [2]


def test_a_move_whose_details_cannot_be_read_is_emitted_at_the_next_poll():
    world = Recorder("prod", include_details=True)
    world.poll([owner_of(1)])
    assert world.poll([owner_of(2)], unreadable=2) == []
    assert [event[0] for event in world.poll([owner_of(2)])] == [2]


def test_a_move_back_after_a_crash_is_a_move_from_where_the_alias_went():
    world = Recorder("prod")
    world.poll([owner_of(1)])
    with pytest.raises(Crash):
        world.poll([owner_of(2)], killed="after")
    world.restart()
    assert [(number, redelivered) for number, _, redelivered in world.poll([owner_of(1)])] == [(1, False)]


def test_a_move_that_may_be_lost_is_emitted_again_even_if_the_alias_is_away_at_first():
    world = Recorder("prod", ALIAS_STATE)
    assert world.poll([owner_of(4, "DELETING")]) == []
    assert world.poll([owner_of(4)]) == [(4, "2a6920d3f9f80c9ba6ddcb9958376fae", True)]
    assert world.poll([owner_of(4)]) == []


def test_an_image_that_does_not_exist_at_the_first_start_has_moved_no_alias():
    world = Recorder("prod")
    world.driver.send(refused(0.0, ErrorKind.MISSING))
    world.driver.follow(None, None)
    assert [event[0] for event in world.poll([owner_of(1)])] == [1]


def test_details_are_not_read_unless_they_are_asked_for():
    config = WatchConfig("my-image", ["CREATED"], "earliest", None)
    steps = WatchSession(config, [], interval=60, include_details=False, started=START).run()
    next(steps)
    asked = [steps.send((PollResult(frozenset(), versions=(owner_of(1),)), 0.0))]
    while not isinstance(asked[-1], Poll):
        asked.append(steps.send((True, 0.0)))
    assert [type(step) for step in asked] == [Save, Save, Emit, Save, Poll]
