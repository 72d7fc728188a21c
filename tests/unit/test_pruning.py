from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.decide import Failed, Waiting
from airflow_provider_imageversions.model import ImageVersionStatus, PrunePolicy
from tests.decision_table import at, version, versions

DAYS = 86400.0


def pruned(listed, aliases=(), now=100, **policy):
    verdicts = decide.prune(
        listed, PrunePolicy(**policy), now=at(now), aliases_of=lambda number: ["x"] if number in aliases else []
    )
    return [(verdict["Version"], reason) for verdict, reason in verdicts]


def gone(*arguments, **policy):
    return [number for number, reason in pruned(*arguments, **policy) if reason is None]


@pytest.mark.parametrize(
    ("policy", "text", "expected"),
    [
        ({"keep_newest": 2}, "1:CREATED 2:CREATED 3:CREATED 4:CREATED", [1, 2]),
        ({"keep_newest": 0}, "1:CREATED 2:CREATED", [1]),
        ({"keep_newest": 1}, "1:CREATED 2:CREATED 3:CREATE_FAILED", [3, 1]),
        ({"keep_newest": 1}, "1:CREATED 2:DELETE_FAILED 3:CREATE_FAILED 4:CREATED", [2, 3, 1]),
        ({"keep_newest": 1}, "1:CREATED 2:CREATING 3:DELETING 4:ARCHIVED", []),
        ({"keep_newest": 1, "limit": 1}, "1:CREATED 2:CREATE_FAILED 3:CREATED", [2]),
        ({"keep_newest": 1, "limit": 0}, "1:CREATED 2:CREATED", []),
        ({"keep_younger_than": 97.5 * DAYS}, "1:CREATED 2:CREATED 3:CREATED 4:CREATE_FAILED", [1, 2]),
        ({"keep_younger_than": DAYS}, "1:CREATED 2:CREATED", [1]),
        ({"keep_newest": 1, "keep_younger_than": 97.5 * DAYS}, "2:CREATED 3:CREATED 4:CREATED", [2]),
        ({"keep_newest": 1}, "", []),
    ],
)
def test_what_a_policy_lets_go(policy, text, expected):
    assert gone(versions(text), **policy) == expected


@pytest.mark.parametrize("name", ["keep_newest", "keep_younger_than", "keep_aliased", "limit", "dry_run"])
@pytest.mark.parametrize("value", ["", " ", "None"])
def test_what_rendered_to_nothing_does_not_let_more_go(name, value):
    with pytest.raises(ValueError, match=f"{name}=.*rendered to nothing"):
        PrunePolicy(**{"keep_newest": 1, "keep_younger_than": 1, name: value})


@pytest.mark.parametrize("name", ["keep_aliased", "dry_run"])
def test_neither_does_none_in_place_of_yes_or_no(name):
    with pytest.raises(ValueError, match=f"{name}=None is not valid: it must be True or False"):
        PrunePolicy(**{"keep_newest": 1, name: None})


def test_an_aliased_version_is_kept_and_does_not_count_for_the_limit():
    listed = versions("1:CREATED 2:CREATED 3:CREATED 4:CREATED")
    assert pruned(listed, {1}, keep_newest=1, limit=1) == [
        (4, "newest CREATED"),
        (1, "alias"),
        (2, None),
        (3, "limit"),
    ]
    assert gone(listed, {1}, keep_newest=1, keep_aliased=False) == [1, 2, 3]


def test_aliases_are_asked_for_one_by_one_when_a_version_s_turn_comes():
    asked = []
    verdicts = decide.prune(
        versions("1:CREATED 2:CREATED 3:CREATED"),
        PrunePolicy(keep_newest=1),
        now=at(100),
        aliases_of=lambda number: asked.append(number) or [],
    )
    assert next(verdicts)[1] == "newest CREATED"
    assert asked == []
    assert next(verdicts)[0]["Version"] == 1
    assert asked == [1]


statuses = st.sampled_from([*(status.value for status in ImageVersionStatus), "ARCHIVED"])


@settings(max_examples=1000, deadline=None)
@given(
    history=st.dictionaries(st.integers(0, 60), statuses, max_size=30),
    aliases=st.sets(st.integers(0, 60)),
    keep_newest=st.none() | st.integers(0, 10),
    keep_days=st.none() | st.integers(1, 80),
    keep_aliased=st.booleans(),
    limit=st.none() | st.integers(0, 10),
)
def test_never_an_aliased_version_never_the_newest_created_never_more_than_asked(
    history, aliases, keep_newest, keep_days, keep_aliased, limit
):
    if keep_newest is None and keep_days is None:
        keep_newest = 3
    age = None if keep_days is None else timedelta(days=keep_days)
    listed = [version(number, status) for number, status in history.items()]
    verdicts = pruned(
        listed, aliases, now=61, keep_newest=keep_newest, keep_younger_than=age, keep_aliased=keep_aliased, limit=limit
    )
    assert sorted(number for number, _ in verdicts) == sorted(history)
    going = [number for number, reason in verdicts if reason is None]
    created = sorted((number for number, status in history.items() if status == "CREATED"), reverse=True)
    assert not set(created[: max(keep_newest or 0, 1)]) & set(going)
    assert all(history[number] in {"CREATED", "CREATE_FAILED", "DELETE_FAILED"} for number in going)
    assert limit is None or len(going) <= limit
    if keep_aliased:
        assert not aliases & set(going)
    if age is not None:
        assert all(61 - number >= keep_days for number in going)
    order = [(history[number] == "CREATED", number) for number in going]
    assert order == sorted(order)
    if limit is None:
        # Whatever stays has a reason.
        kept_by_alias = {number for number, reason in verdicts if reason == "alias"}
        assert kept_by_alias <= aliases


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("CREATED", None),
        ("UPDATE_FAILED", None),
        ("CREATING", Waiting("the image is CREATING")),
        ("UPDATING", Waiting("the image is UPDATING")),
        ("ARCHIVED", Waiting("the image is ARCHIVED", unknown=True)),
        ("CREATE_FAILED", Failed("the image is CREATE_FAILED: no role")),
        ("DELETING", Failed("the image is DELETING: no role")),
        ("DELETE_FAILED", Failed("the image is DELETE_FAILED: no role")),
    ],
)
def test_what_keeps_an_image_from_getting_versions(status, expected):
    assert decide.obstacle({"ImageStatus": status, "FailureReason": "no role"}) == expected


@pytest.mark.parametrize(
    ("status", "adopted", "promoted", "remaining"),
    [
        ("CREATED", True, True, Waiting),
        ("CREATING", True, False, Waiting),
        ("ARCHIVED", True, False, Waiting),
        ("CREATE_FAILED", False, False, Waiting),
        ("DELETING", False, False, Waiting),
        ("DELETE_FAILED", False, False, Failed),
    ],
)
def test_what_a_status_means_for_a_retry_a_promotion_and_a_deletion(status, adopted, promoted, remaining):
    one = version(1, status)
    assert decide.adoptable(one) == adopted
    assert (decide.promotable(one) is None) == promoted
    assert isinstance(decide.remains(one), remaining)
    assert decide.is_being_deleted(one) == (status == "DELETING")


def test_a_version_that_is_gone_is_not_adopted_and_does_not_remain():
    assert not decide.adoptable(None)
    assert decide.remains(None) is None
