"""One wait: tables for its arithmetic, and a machine that answers a session with whatever a service may answer."""

from __future__ import annotations

import math
import sys
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from airflow_provider_imageversions import _sessions, decide
from airflow_provider_imageversions._reading import PollResult
from airflow_provider_imageversions._sessions import (
    Fail,
    FaultTimer,
    Log,
    NeedDetails,
    PollAgain,
    Raise,
    Retry,
    StatusLogger,
    Succeed,
    TimeOut,
    WaitSession,
    has_outlasted_grace,
)
from airflow_provider_imageversions.decide import Failed, Ready, Waiting
from airflow_provider_imageversions.model import ErrorKind, Target
from tests.decision_table import version

NOTHING, LISTED = Waiting("version 3 is not registered yet"), Waiting("version 3 is CREATING", version=3)
ERROR = OSError("no answer\nfrom SageMaker")
NO_ANSWER = Waiting("OSError: no answer from SageMaker")
THIRD = Target(version=3)


def failed(session, kind, now=0.0, *, lasting=0.0, jitter=1.0, of_details=False):
    return session.receive_error(kind, ERROR, now, lasting=lasting, jitter=jitter, of_details=of_details)


def bare(step):
    """Return a step without what it logs."""
    return type(step)(**{name: value for name, value in vars(step).items() if name != "logs"})


# --- When to poll again ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "polls", "expected"),
    [
        ({"interval": 60}, [(0, 0.3), (60, 0.3), (120, 0.3)], [60, 60, 60]),
        ({"interval": 0}, [(0, 0.3)], [0]),
        ({"interval": 60, "deadline": 100}, [(0, 0.3), (60, 0.3), (99.5, 0.3)], [60, 40, 0.5]),
        ({"interval": 60, "patience_until": 70, "deadline": 100}, [(0, 0.3), (60, 0.3)], [60, 10]),
        # Twice the interval each time, unless another wait's poll came in between.
        ({"interval": 10, "backoff_from": 0}, [(10, 0.3), (30, 0.3), (70, 0.3)], [20, 40, 80]),
        ({"interval": 10, "backoff_from": 0}, [(4.9, 0.3), (5, 0.3), (14.9, 0.3), (15, 0.3)], [10, 20, 20, 40]),
        ({"interval": 10, "backoff_from": 0, "max_wait": 30}, [(10, 0.3), (30, 0.3), (60, 0.3)], [20, 30, 30]),
        ({"interval": 10, "backoff_from": 0, "max_wait": 2}, [(2, 0.3)], [2]),
        ({"interval": 0, "backoff_from": 0}, [(1, 0.3), (3, 0.3)], [2, 4]),
        # An operator polls soon at first, and tasks spread.
        ({"interval": 30, "eager": True}, [(t, 0.0) for t in range(8)], [0.5, 1, 2, 4, 8, 16, 30, 30]),
        ({"interval": 30, "eager": True}, [(t, 1.0) for t in range(7)], [1, 2, 4, 8, 16, 30, 30]),
        ({"interval": 30, "eager": True}, [(0, 0.5)], [0.75]),
        ({"interval": 1e-6, "eager": True}, [(0, 0.0)] * 1100, [1e-6] * 1100),
    ],
)
def test_the_pause_until_the_next_poll(options, polls, expected):
    session = WaitSession(**options)
    assert [session.receive(NOTHING, now, jitter).seconds for now, jitter in polls] == expected


@pytest.mark.parametrize(
    ("options", "kinds", "jitter", "expected"),
    [
        ({"interval": 60}, [ErrorKind.THROTTLED, ErrorKind.IN_USE, ErrorKind.MISSING], 0.3, [60] * 3),
        ({"interval": 10, "backoff_from": -10}, [ErrorKind.TRANSIENT], 0.3, [20]),
        ({"interval": 60, "eager": True}, [ErrorKind.THROTTLED] * 7, 1.0, [1, 2, 4, 8, 16, 20, 20]),
        ({"interval": 60, "eager": True}, [ErrorKind.TRANSIENT] * 3, 0.0, [0.1] * 3),
        ({"interval": 1, "eager": True}, [ErrorKind.IN_USE] * 3, 0.5, [0.55, 1.05, 2.05]),
        ({"interval": 60, "deadline": 7}, [ErrorKind.TRANSIENT], 0.3, [7]),
    ],
)  # fmt: skip
def test_the_pause_after_an_error_that_passes(options, kinds, jitter, expected):
    session = WaitSession(**options)
    steps = [failed(session, kind, jitter=jitter) for kind in kinds]
    assert [type(step) for step in steps] == [PollAgain] * len(steps)
    assert [step.seconds for step in steps] == pytest.approx(expected)


def test_a_success_between_errors_ends_the_back_off():
    session = WaitSession(interval=60, eager=True)
    assert [failed(session, ErrorKind.THROTTLED).seconds for _ in range(3)] == [1, 2, 4]
    session.receive(NOTHING, 0.0)
    assert failed(session, ErrorKind.THROTTLED).seconds == 1


@pytest.mark.parametrize(
    ("options", "kind", "lasting", "expected"),
    [
        ({}, ErrorKind.PERMANENT, 0, Retry(5)),
        ({}, ErrorKind.PERMANENT, 9.9, Retry(5)),
        ({}, ErrorKind.PERMANENT, 10, Raise(ERROR)),
        # There may be new credentials already.
        ({}, ErrorKind.CREDENTIALS, 0, Retry(0)),
        ({}, ErrorKind.CREDENTIALS, 0.1, Retry(5)),
        ({}, ErrorKind.CREDENTIALS, 119, Retry(5)),
        ({}, ErrorKind.CREDENTIALS, 120, Raise(ERROR)),
        ({"interval": 2}, ErrorKind.PERMANENT, 0, Retry(2)),
        ({"interval": 0}, ErrorKind.PERMANENT, 0, Retry(5)),
        ({"deadline": 3}, ErrorKind.PERMANENT, 0, Retry(3)),
        ({"deadline": 0}, ErrorKind.PERMANENT, 0, Raise(ERROR)),
        ({"deadline": 0}, ErrorKind.CREDENTIALS, 0, Retry(0)),
        ({"deadline": 0}, ErrorKind.CREDENTIALS, 1, Raise(ERROR)),
        # What it has no grace for is waited out, however long it takes.
        ({}, ErrorKind.MISSING, 1e6, PollAgain(60)),
        ({}, ErrorKind.THROTTLED, 1e6, PollAgain(60)),
        ({}, ErrorKind.IN_USE, 1e6, PollAgain(60)),
        ({"deadline": 0}, ErrorKind.TRANSIENT, 0, TimeOut(NO_ANSWER, ERROR)),
        # It may be the answer to the very call that changes something.
        ({"changes": True}, ErrorKind.PERMANENT, 0, Raise(ERROR)),
        ({"changes": True}, ErrorKind.MISSING, 0, Raise(ERROR)),
        ({"changes": True}, ErrorKind.CREDENTIALS, 0, Retry(0)),
        ({"changes": True}, ErrorKind.CREDENTIALS, 119, Retry(5)),
        ({"changes": True}, ErrorKind.CREDENTIALS, 120, Raise(ERROR)),
        ({"changes": True}, ErrorKind.IN_USE, 0, PollAgain(60)),
        # Somebody else's change is waited for no longer than the patience lasts.
        ({"patience_until": 0}, ErrorKind.IN_USE, 0, Raise(ERROR)),
        ({"patience_until": 1}, ErrorKind.IN_USE, 0, PollAgain(60)),
        ({"patience_until": 0}, ErrorKind.THROTTLED, 0, PollAgain(60)),
        # With silent_fail nothing but the deadline ends a wait.
        ({"silent_fail": True}, ErrorKind.PERMANENT, 0, Retry(5)),
        ({"silent_fail": True}, ErrorKind.PERMANENT, 10, PollAgain(60)),
        ({"silent_fail": True, "deadline": 0}, ErrorKind.PERMANENT, 10, TimeOut(NO_ANSWER, ERROR)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("of_details", [False, True])
def test_an_error_ends_a_wait_only_when_it_has_outlasted_its_grace(options, kind, lasting, expected, of_details):
    session = WaitSession(**{"interval": 60, **options})
    step = failed(session, kind, lasting=lasting, of_details=of_details)
    if of_details and expected == PollAgain(60) and "silent_fail" not in options:
        # The version is CREATED.
        expected = Retry(5)
    assert bare(step) == expected


def test_details_that_cannot_be_read_are_retried_sooner_than_the_interval():
    session = WaitSession(interval=60)
    pauses = [failed(session, ErrorKind.TRANSIENT, of_details=True).seconds for _ in range(5)]
    assert pauses == [5, 10, 20, 40, 60]
    session = WaitSession(interval=2, deadline=9)
    assert failed(session, ErrorKind.TRANSIENT, of_details=True).seconds == 2


@pytest.mark.parametrize(("kind", "grace"), [(ErrorKind.PERMANENT, 10), (ErrorKind.CREDENTIALS, 120)])
def test_grace_is_over_when_an_error_has_lasted_that_long(kind, grace):
    assert not has_outlasted_grace(kind, grace - 0.1)
    assert has_outlasted_grace(kind, grace)


@pytest.mark.parametrize(
    "kind", [None, *sorted(set(ErrorKind) - {ErrorKind.PERMANENT, ErrorKind.CREDENTIALS}, key=str)]
)
def test_what_has_no_grace_never_ends_a_wait(kind):
    assert not has_outlasted_grace(kind, math.inf)


def test_a_timer_measures_since_when_the_same_kind_of_error_is_met():
    timer = FaultTimer()
    kinds = {"p": ErrorKind.PERMANENT, "t": ErrorKind.TRANSIENT, "-": None}
    met = [(kinds[letter], now) for now, letter in enumerate("ppptpp--pp")]
    assert [timer.lasts(kind, now) for kind, now in met] == [0, 1, 2, 0, 0, 1, 0, 0, 0, 1]


# --- What ends a wait ------------------------------------------------------------------------------------


def test_a_version_that_is_ready_ends_a_wait_with_its_details_if_they_are_needed():
    ready, detailed = Ready(version(3)), {**version(3), "Aliases": []}
    assert WaitSession(interval=60).receive(ready, 0.0) == Succeed(ready)
    session = WaitSession(interval=60, include_details=True)
    assert session.receive(ready, 0.0) == NeedDetails(version(3))
    assert session.receive_details(detailed, 0.0) == Succeed(Ready(detailed))


@pytest.mark.parametrize(
    "changed",
    [{"ImageVersionStatus": "DELETING"}, {"ImageVersionStatus": "ARCHIVED"}, {"CreationTime": "2999-01-01T00:00:00Z"}],
)
def test_a_version_that_changed_before_its_details_were_read_is_judged_at_the_next_poll(changed):
    session = WaitSession(interval=60, target=THIRD, include_details=True, deadline=90)
    session.receive(Ready(version(3)), 0.0)
    assert session.receive_details({**version(3), **changed}, 0.0) == PollAgain(60)
    assert session.receive_details({**version(3), **changed}, 80.0) == PollAgain(10)
    session.receive(Ready(version(3)), 80.0)
    assert session.receive_details(version(3), 80.0) == Succeed(Ready(version(3)))


def test_what_a_step_returns_ends_a_wait_whatever_it_is():
    for found in (None, 7, {"ImageName": "my-image"}):
        assert WaitSession(interval=60).receive(found, 0.0) == Succeed(found)
    assert WaitSession(interval=60).receive(Failed("no base image"), 0.0) == Fail("no base image")


def test_a_wait_polls_once_more_when_its_time_is_over():
    session = WaitSession(interval=60, deadline=90)
    assert session.receive(NOTHING, 60.0).seconds == 30
    assert bare(session.receive(NOTHING, 90.0)) == TimeOut(NOTHING)
    # A session whose time is over from the start polls, too.
    assert WaitSession(interval=60, deadline=0).receive(Ready(version(3)), 5.0) == Succeed(Ready(version(3)))
    assert bare(WaitSession(interval=60, patience_until=0).receive(NOTHING, 0.0)) == TimeOut(NOTHING)


@pytest.mark.parametrize("result", [NOTHING, Failed("x"), Ready(version(3))])
def test_a_shared_poll_is_judged_like_one_of_ones_own(result):
    shared, own = (WaitSession(interval=60, target=THIRD) for _ in range(2))
    read = PollResult(frozenset({THIRD}), outcomes={THIRD: result})
    assert shared.receive_poll(read, 0.0) == own.receive(result, 0.0)


@pytest.mark.parametrize("lasting", [0.0, 10.0])
def test_a_shared_poll_s_error_has_lasted_as_long_as_the_poll_says(lasting):
    error = PollResult(frozenset(), fault=ErrorKind.PERMANENT, error=ERROR, lasting=lasting)
    expected = Raise(ERROR) if lasting else Retry(5)
    assert bare(WaitSession(interval=60, target=THIRD).receive_poll(error, 0.0)) == expected
    step = WaitSession(interval=60, target=THIRD).receive_details(error, 0.0)
    assert bare(step) == expected
    if not lasting:
        assert step.logs[0].level == "warning"
        assert "its details cannot be read yet" in step.logs[0].text


@pytest.mark.parametrize("options", [{}, {"changes": True, "eager": True}])
def test_a_version_that_was_listed_and_is_gone_was_deleted(options):
    session = WaitSession(interval=60, target=THIRD, **options)
    assert isinstance(session.receive(NOTHING, 0.0), PollAgain)
    assert isinstance(session.receive(LISTED, 0.0), PollAgain)
    failed(session, ErrorKind.THROTTLED)
    assert session.receive(NOTHING, 0.0).reason == "version 3 was deleted before it was CREATED"


def test_a_version_that_the_task_created_is_deleted_with_its_image():
    missing = PollResult(frozenset(), fault=ErrorKind.MISSING, error=ERROR, lasting=0.0)
    session = WaitSession(interval=60, target=THIRD, created_by_task=True)
    step = session.receive_poll(missing, 0.0)
    assert (type(step), step.reason) == (Fail, "version 3 was deleted with its image before it was CREATED")
    assert isinstance(WaitSession(interval=60, target=THIRD).receive_poll(missing, 0.0), PollAgain)
    throttled = PollResult(frozenset(), fault=ErrorKind.THROTTLED, error=ERROR, lasting=0.0)
    assert isinstance(session.receive_poll(throttled, 0.0), PollAgain)
    ready = PollResult(frozenset({THIRD}), outcomes={THIRD: Ready(version(3))})
    assert isinstance(session.receive_poll(ready, 0.0), Succeed)


@pytest.mark.parametrize("kind", [ErrorKind.THROTTLED, ErrorKind.MISSING])
def test_a_version_that_is_gone_while_its_details_cannot_be_read_was_deleted(kind):
    session = WaitSession(interval=60, target=THIRD, include_details=True)
    assert isinstance(session.receive(Ready(version(3)), 0.0), NeedDetails)
    failed(session, kind, of_details=True)
    assert isinstance(session.receive(NOTHING, 0.0), Fail)


def test_a_version_of_an_image_that_is_gone_may_come_again():
    session = WaitSession(interval=60, target=THIRD)
    session.receive(LISTED, 0.0)
    failed(session, ErrorKind.MISSING)
    assert isinstance(session.receive(NOTHING, 0.0), PollAgain)


@pytest.mark.parametrize("target", [None, Target(), Target(alias="prod"), Target(after_version=2)])
def test_a_wait_without_a_number_continues_with_another_version(target):
    session = WaitSession(interval=60, target=target)
    session.receive(LISTED, 0.0)
    assert isinstance(session.receive(NOTHING, 0.0), PollAgain)


# --- What is logged --------------------------------------------------------------------------------------


def test_the_log_has_what_changed_and_no_more():
    session = WaitSession(interval=60, target=THIRD)
    steps = [
        session.receive(NOTHING, 0.0),
        session.receive(NOTHING, 0.0),
        session.receive(LISTED, 0.0),
        failed(session, ErrorKind.MISSING),
        failed(session, ErrorKind.MISSING),
        failed(session, ErrorKind.THROTTLED),
        failed(session, ErrorKind.TRANSIENT),
        failed(session, ErrorKind.PERMANENT),
        failed(session, ErrorKind.PERMANENT, lasting=1),
        session.receive(LISTED, 0.0),
        session.receive(Waiting("version 3 is ARCHIVED", unknown=True, version=3), 0.0),
        session.receive(Failed("no base image"), 0.0),
    ]
    error = "OSError: no answer from SageMaker"
    assert [[(log.level, log.text) for log in step.logs] for step in steps] == [
        [("info", "waiting for version 3: version 3 is not registered yet")],
        [],
        [("info", "waiting for version 3: version 3 is CREATING")],
        [("warning", f"does not exist yet: {error}")],
        [],
        [("warning", f"cannot be polled; retrying: {error}")],
        [],
        [],
        [],
        [("info", "can be polled again"), ("info", "waiting for version 3: version 3 is CREATING")],
        [("warning", "waiting for version 3: version 3 is ARCHIVED, which this package does not know")],
        [],
    ]


def test_an_error_that_may_end_a_wait_is_logged_even_during_an_outage():
    status = StatusLogger()
    kinds = [ErrorKind.TRANSIENT, ErrorKind.PERMANENT, ErrorKind.PERMANENT, ErrorKind.CREDENTIALS, ErrorKind.TRANSIENT]
    logs = [status.log_fault(kind, OSError(str(at))) for at, kind in enumerate(kinds)]
    assert [bool(lines) for lines in logs] == [True, True, False, True, False]
    assert status.log_recovery() == (Log("info", "can be polled again"),)
    assert status.log_recovery() == ()


def test_an_operator_logs_what_it_retries_and_a_sensor_what_silent_fail_hides():
    session = WaitSession(interval=60, changes=True, eager=True)
    assert failed(session, ErrorKind.IN_USE).logs == (
        Log("info", "retrying after an error: OSError: no answer from SageMaker"),
    )
    assert session.receive(NOTHING, 0.0).logs == (Log("info", "version 3 is not registered yet"),)
    session = WaitSession(interval=60, silent_fail=True)
    assert failed(session, ErrorKind.PERMANENT, lasting=10).logs == (
        Log("error", "still waiting, because silent_fail is set: OSError: no answer from SageMaker"),
    )
    assert failed(WaitSession(interval=60), ErrorKind.CREDENTIALS).logs == ()


@pytest.mark.parametrize(("minutes", "level"), [(-1, "debug"), (0, "info"), (1, "info")])
def test_what_another_process_logged_before_is_not_logged_again(minutes, level):
    until = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    since = (until + timedelta(minutes=minutes)).isoformat()
    session = WaitSession(interval=60, target=THIRD, status=StatusLogger(until))
    (log,) = session.receive(Waiting("version 3 is CREATING", version=3, since=since), 0.0).logs
    assert log.level == level
    assert failed(session, ErrorKind.MISSING).logs[0].level == "debug"
    assert failed(session, ErrorKind.THROTTLED).logs[0].level == "warning"
    assert session.receive(NOTHING, 0.0).logs[-1].level == "info"


def test_a_session_is_small():
    """A triggerer may hold ten thousand."""
    session = WaitSession(interval=60, target=THIRD)
    assert sys.getsizeof(session) + sys.getsizeof(session.status) < 300
    assert not hasattr(session, "__dict__")
    assert not hasattr(session.status, "__dict__")


# --- Whatever a service may answer -----------------------------------------------------------------------


class AnyWait(RuleBasedStateMachine):
    """Answers of every kind, and a driver that makes exactly the pauses that it is asked for."""

    @initialize(
        interval=st.sampled_from([0.0, 1.0, 60.0]),
        timeout=st.sampled_from([0.0, 30.0, 3600.0, math.inf]),
        changes=st.booleans(),
        silent_fail=st.booleans(),
        backoff=st.booleans(),
    )
    def begin(self, interval, timeout, changes, silent_fail, backoff):
        self.changes, self.silent_fail = changes, silent_fail
        self.longest = 80.0 if backoff else interval
        self.timeout = timeout
        self.options = {"interval": interval, "changes": changes, "eager": changes, "silent_fail": silent_fail}
        self.backoff = backoff
        self.begin_again()

    @precondition(lambda self: hasattr(self, "session") and self.is_over)
    @rule()
    def begin_again(self):
        self.now = 100.0
        self.deadline = self.now + self.timeout
        backoff = {"backoff_from": self.now, "max_wait": 80.0} if self.backoff else {}
        self.session = WaitSession(target=THIRD, deadline=self.deadline, **self.options, **backoff)
        self.timer = FaultTimer()
        self.since = {}
        self.was_listed = False
        self.is_over = False
        self.note = None

    waits = precondition(lambda self: hasattr(self, "session") and not self.is_over)

    def follow(self, step):
        for log in step.logs:
            assert log.text != self.note
            self.note = log.text
        self.is_over = not isinstance(step, PollAgain)
        if isinstance(step, PollAgain):
            assert 0 <= step.seconds <= max(self.longest, _sessions.GRACE_PACE, self.changes * _sessions.LONGEST_PAUSE)
            # The last poll is at the deadline.
            assert self.now + step.seconds <= max(self.deadline, self.now)
            self.now += step.seconds
        if isinstance(step, TimeOut):
            assert self.now >= self.deadline
        return step

    @waits
    @rule(is_listed=st.booleans())
    def wait(self, is_listed):
        self.timer.lasts(None, self.now)
        self.since = {}
        step = self.follow(self.session.receive(LISTED if is_listed else NOTHING, self.now, 0.5))
        if self.was_listed and not is_listed:
            assert isinstance(step, Fail)
        else:
            assert isinstance(step, PollAgain | TimeOut)
            assert not isinstance(step, Retry)
        self.was_listed = is_listed

    @waits
    @rule(found=st.sampled_from([Ready(version(3)), Failed("no base image")]))
    def end(self, found):
        step = self.follow(self.session.receive(found, self.now, 0.5))
        assert bare(step) == (Succeed(found) if isinstance(found, Ready) else Fail("no base image"))

    @waits
    @rule(kind=st.sampled_from(sorted(ErrorKind, key=str)))
    def meet_an_error(self, kind):
        lasting = self.timer.lasts(kind, self.now)
        self.since = {kind: self.since.get(kind, self.now)}
        assert lasting == self.now - self.since[kind]
        if kind is ErrorKind.MISSING:
            self.was_listed = False
        now = self.now
        step = self.follow(self.session.receive_error(kind, ERROR, self.now, lasting=lasting, jitter=0.5))
        grace = _sessions.GRACE.get(kind, math.inf)
        if self.changes and kind in {ErrorKind.PERMANENT, ErrorKind.MISSING}:
            grace = 0.0
        if isinstance(step, Raise):
            assert not self.silent_fail
            assert lasting >= grace or (now >= self.deadline and grace < math.inf)
        elif grace < math.inf and not self.silent_fail:
            assert isinstance(step, Retry)
            assert lasting < grace
        # Nobody asks faster than once in a tenth of a second for long.
        if isinstance(step, PollAgain) and step.seconds < 0.1 and now < self.deadline - 1 and self.session.interval > 0:
            assert kind is ErrorKind.CREDENTIALS
            assert lasting == 0


AnyWait.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestAnyWait = AnyWait.TestCase


def test_decide_says_which_version_an_outcome_is_about():
    assert decide.outcome([version(3, "CREATING")], THIRD).version == 3
    assert decide.outcome([], THIRD).version is None
