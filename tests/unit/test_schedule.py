"""When polls are due, in which order calls are made and at which rate: tables, with the clock passed in."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics

import pytest

from airflow_provider_imageversions._reading import PollResult
from airflow_provider_imageversions._schedule import (
    BURST,
    FIRST,
    SLOWEST_RATE,
    BacklogMonitor,
    CallQueue,
    gap,
    queue_retry_delay,
)
from airflow_provider_imageversions.errors import ErrorKind


def last(fault=None, lasting=0.0, failures=0, **options):
    return {"last": PollResult(frozenset(), fault=fault, lasting=lasting), "failures": failures, **options}


@pytest.mark.parametrize(
    ("poll", "earliest", "latest"),
    [
        (last(), 60, 60),
        (last(is_first=True), 30, 60),
        (last(woken=True), 60, 60),
        (last(ErrorKind.MISSING), 60, 60),
        (last(ErrorKind.MISSING, is_first=True), 30, 60),
        (last(ErrorKind.TRANSIENT, failures=1), 1, 60),
        (last(ErrorKind.TRANSIENT, failures=1, is_first=True), 1, 60),
        (last(ErrorKind.TRANSIENT, failures=2), 1, 120),
        (last(ErrorKind.TRANSIENT, failures=3), 1, 240),
        (last(ErrorKind.TRANSIENT, failures=4), 1, 300),
        (last(ErrorKind.THROTTLED, failures=5000), 1, 300),
        (last(ErrorKind.IN_USE, failures=1), 1, 60),
        (last(ErrorKind.TRANSIENT, failures=1, woken=True), 1, 5),
        (last(ErrorKind.TRANSIENT, failures=3, woken=True), 1, 20),
        (last(ErrorKind.PERMANENT, failures=1), 5, 5),
        (last(ErrorKind.PERMANENT, lasting=9.9, failures=2), 5, 5),
        (last(ErrorKind.PERMANENT, lasting=10, failures=3), 60, 60),
        (last(ErrorKind.CREDENTIALS, lasting=119.9, failures=9), 5, 5),
        (last(ErrorKind.CREDENTIALS, lasting=120, failures=9), 60, 60),
    ],
)
def test_the_gap_between_two_polls_follows_the_last_result(poll, earliest, latest):
    assert gap(interval=60, jitter=0, **poll) == earliest
    assert gap(interval=60, jitter=1, **poll) == latest


@pytest.mark.parametrize(
    ("interval", "poll", "earliest", "latest"),
    [
        (0.5, last(ErrorKind.TRANSIENT, failures=1), 0.5, 0.5),
        (2, last(ErrorKind.PERMANENT, failures=1), 2, 2),
        (900, last(ErrorKind.TRANSIENT, failures=1), 1, 900),
        (900, last(ErrorKind.TRANSIENT, failures=2), 1, 900),
        (900, last(ErrorKind.TRANSIENT, failures=1, woken=True), 1, 5),
    ],
)
def test_back_off_keeps_to_short_and_long_intervals(interval, poll, earliest, latest):
    assert gap(interval=interval, jitter=0, **poll) == earliest
    assert gap(interval=interval, jitter=1, **poll) == latest


@pytest.mark.parametrize("kind", sorted(set(ErrorKind) - {ErrorKind.MISSING}, key=str))
@pytest.mark.parametrize("lasting", [0.0, 1e6])
def test_without_an_interval_a_failed_poll_is_not_repeated_at_once(kind, lasting):
    """A look-up of the connection that fails takes no turn of the rate limit."""
    assert gap(interval=0, jitter=0, **last(kind, lasting=lasting, failures=1)) > 0
    assert gap(interval=0, jitter=0, **last()) == 0


@pytest.mark.parametrize(("failures", "earliest", "latest"), [(1, 5, 10), (2, 10, 20), (6, 150, 300), (5000, 150, 300)])
def test_a_queue_is_read_again_after_a_growing_pause(failures, earliest, latest):
    assert queue_retry_delay(failures, 0) == earliest
    assert queue_retry_delay(failures, 1) == latest


def test_calls_beyond_the_burst_keep_to_the_rate():
    queue = CallQueue(rate=2, now=100)
    for turn in range(int(BURST) + 3):
        queue.add(turn, FIRST)
    assert queue.take_turns(100) == list(range(10))
    assert queue.delay(100) == 0.5
    assert queue.take_turns(100.4) == []
    assert queue.take_turns(100.5) == [10]
    assert queue.take_turns(102) == [11, 12]
    assert queue.delay(102) == 0


def test_a_quiet_time_saves_up_one_burst_and_no_more():
    queue = CallQueue(rate=2, now=0)
    for turn in range(30):
        queue.add(turn, FIRST)
    assert len(queue.take_turns(0)) == 10
    assert len(queue.take_turns(1000)) == 10


def test_the_image_that_was_polled_longest_ago_is_next_and_a_new_one_before_all():
    queue = CallQueue(rate=1, now=0)
    queue.count(BURST)
    for image, began in {"late": 30, "early": 10, "new": FIRST, "same": 10}.items():
        queue.add(image, began)
    assert [queue.take_turns(second) for second in (1, 2, 3, 4)] == [["new"], ["early"], ["same"], ["late"]]


def test_further_calls_of_a_poll_delay_the_next_turn():
    queue = CallQueue(rate=1, now=0)
    queue.count(BURST + 3)
    queue.add("details", FIRST, calls=2)
    assert queue.delay(0) == 5
    assert queue.backlog == 2


def test_a_turn_of_more_calls_than_a_burst_comes_after_a_full_burst():
    queue = CallQueue(rate=1, now=0)
    queue.add("many", FIRST, calls=BURST + 5)
    assert queue.take_turns(0) == ["many"]
    queue.add("one", FIRST)
    assert queue.delay(0) == 6


def test_a_turn_that_is_given_up_costs_nothing():
    queue = CallQueue(rate=1, now=0)
    queue.count(BURST)
    queue.add("given up", FIRST)
    queue.add("kept", 5)
    queue.cancel("given up", 1)
    assert queue.take_turns(1) == ["kept"]
    queue.cancel("kept", 1)
    queue.add("next", FIRST)
    assert queue.delay(1) == 0


@pytest.mark.parametrize(
    ("full", "answers", "rate"),
    [
        (1.0, [True], 0.5),
        (1.0, [True] * 2, 0.25),
        (1.0, [True] * 20, SLOWEST_RATE),
        (0.01, [True] * 20, 0.01),
        (1.0, [False] * 20, 1.0),
        (1.0, [True, False], 0.52),
        (1.0, [True, *[False] * 25], 1.0),
    ],
)
def test_throttling_halves_the_rate_and_other_answers_restore_it(full, answers, rate):
    queue = CallQueue(full, now=0)
    for throttled in answers:
        queue.adapt(throttled=throttled)
    assert queue.rate == pytest.approx(rate)


FELL, CAUGHT = True, False


@pytest.mark.parametrize(
    ("polls", "changes"),
    [
        ([(0, 50, 60), (59, 50, 60)], {}),
        ([(0, 50, 60), (60, 50, 60)], {60: FELL}),
        ([(0, 6, 60), (60, 6, 60)], {}),
        ([(0, 50, 60), (30, 0, 60), (60, 50, 60), (119, 50, 60)], {}),
        ([(0, 50, 60), (60, 50, 60), (200, 50, 60)], {60: FELL}),
        ([(0, 50, 60), (60, 50, 60), (70, 0, 60), (129, 0, 60)], {60: FELL}),
        ([(0, 50, 60), (60, 50, 60), (70, 0, 60), (130, 0, 60)], {60: FELL, 130: CAUGHT}),
        ([(0, 50, 60), (60, 50, 60), (70, 0, 60), (90, 50, 60), (140, 0, 60)], {60: FELL}),
        # A poll that is in time for its long interval says nothing about the short one.
        ([(0, 50, 60), (30, 50, 900), (60, 50, 60)], {60: FELL}),
        ([(0, 50, 60), (60, 50, 60), (70, 50, 900), (140, 50, 900)], {60: FELL}),
        ([(0, 0, 900), (10, 50, 900), (920, 50, 900)], {}),
    ],
)
def test_only_polls_that_are_late_for_a_whole_interval_count_as_behind(polls, changes):
    monitor = BacklogMonitor()
    observed = {now: monitor.is_behind for now, late, interval in polls if monitor.observe(now, late, interval)}
    assert observed == changes


def simulate(images, interval, rate, seconds, seed):
    """Return when each image was polled, and what changed when, with a clock that goes from one event to the next."""
    jitter = random.Random(seed).random  # noqa: S311  # spreads polls
    queue, monitor = CallQueue(rate, 0.0), BacklogMonitor()
    due, now = [(0.0, image) for image in range(images)], 0.0
    polled, changes = {image: [] for image in range(images)}, []
    while now < seconds:
        while due and due[0][0] <= now:
            at, image = heapq.heappop(due)
            queue.add((image, at), polled[image][-1] if polled[image] else FIRST)
        for image, at in queue.take_turns(now):
            if monitor.observe(now, now - at, interval):
                changes.append((monitor.is_behind, queue.backlog))
            polled[image].append(now)
            pause = gap(interval=interval, jitter=jitter(), **last(is_first=len(polled[image]) == 1))
            heapq.heappush(due, (now + pause, image))
        upcoming = [at for at, _ in due[:1]] + ([now + queue.delay(now)] if queue.backlog else [])
        now = max(now, min(upcoming))
    return polled, changes


@pytest.mark.parametrize("seed", range(3))
def test_images_that_are_too_many_for_the_rate_are_polled_equally_often(seed):
    polled, changes = simulate(500, 60, 1.0, 4 * 3600, seed)
    gaps = [after - before for times in polled.values() for before, after in itertools.pairwise(times[1:])]
    assert statistics.median(gaps) == pytest.approx(500, rel=0.01)
    assert max(gaps) <= 1.15 * statistics.median(gaps)
    counts = [len(times) for times in polled.values()]
    assert max(counts) - min(counts) <= 1
    ((change, seconds_behind),) = changes
    assert change == FELL
    # 500 calls take 500 seconds, 60 of which the interval allows for.
    assert seconds_behind == pytest.approx(440, abs=30)


@pytest.mark.parametrize("images", [1, 30, 60])
def test_images_that_the_rate_allows_for_are_polled_in_time_even_after_a_restart(images):
    polled, changes = simulate(images, 60, 1.0, 3600, seed=images)
    assert changes == []
    gaps = [after - before for times in polled.values() for before, after in itertools.pairwise(times[3:])]
    assert statistics.median(gaps) == pytest.approx(60)
