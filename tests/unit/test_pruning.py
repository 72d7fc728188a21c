from __future__ import annotations

from datetime import timedelta

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.decide import Failed, Waiting
from airflow_provider_imageversions.errors import may_be_status_conflict
from airflow_provider_imageversions.model import ImageVersionStatus, PrunePolicy
from tests.decision_table import at, version, versions

DAYS = 86400.0


def pruned(listed, aliases=(), now=100, **policy):
    deleted, found = [], []
    for verdict, reason in decide.prune(
        listed,
        PrunePolicy(**policy),
        now=at(now),
        aliases_of=lambda number: ["x"] if number in aliases else [],
        deleted=deleted,
    ):
        found.append((verdict["Version"], reason))
        deleted.extend([verdict["Version"]] if reason is None else [])
    return found


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
        ({"keep_newest": 1, "keep_versions": [1, 9]}, "1:CREATED 2:CREATED 3:CREATED", [2]),
        ({"keep_newest": 1, "keep_versions": [1]}, "1:CREATE_FAILED 2:CREATED 3:CREATED", [2]),
        ({"keep_newest": 1}, "", []),
    ],
)
def test_what_a_policy_lets_go(policy, text, expected):
    assert gone(versions(text), **policy) == expected


@pytest.mark.parametrize(
    "name", ["keep_newest", "keep_younger_than", "keep_versions", "keep_aliased", "limit", "preview"]
)
@pytest.mark.parametrize("value", ["", " ", "None"])
def test_what_rendered_to_nothing_does_not_let_more_go(name, value):
    with pytest.raises(ValueError, match=f"{name}=.*rendered to nothing"):
        PrunePolicy(**{"keep_newest": 1, "keep_younger_than": 1, name: value})


@pytest.mark.parametrize("name", ["keep_aliased", "keep_used", "preview"])
def test_neither_does_none_in_place_of_yes_or_no(name):
    with pytest.raises(ValueError, match=f"{name}=None is not valid"):
        PrunePolicy(**{"keep_newest": 1, name: None})


def test_an_aliased_version_is_kept_and_does_not_count_for_the_limit():
    listed = versions("1:CREATED 2:CREATED 3:CREATED 4:CREATED")
    assert pruned(listed, {1}, keep_newest=1, limit=1) == [
        (4, "newest"),
        (1, "alias"),
        (2, None),
        (3, "limit"),
    ]
    assert gone(listed, {1}, keep_newest=1, keep_aliased=False) == [1, 2, 3]


def test_a_version_that_could_not_be_deleted_does_not_count_for_the_limit():
    deleted = []
    verdicts = decide.prune(
        versions("1:CREATED 2:CREATED 3:CREATED 4:CREATED"),
        PrunePolicy(keep_newest=1, limit=1),
        now=at(100),
        aliases_of=lambda _: [],
        deleted=deleted,
    )
    assert [next(verdicts)[1] for _ in range(3)] == ["newest", None, None]
    deleted.append(2)
    assert [(verdict["Version"], reason) for verdict, reason in verdicts] == [(3, "limit")]


def test_aliases_are_read_directly_before_each_deletion():
    asked = []
    verdicts = decide.prune(
        versions("1:CREATED 2:CREATED 3:CREATED"),
        PrunePolicy(keep_newest=1),
        now=at(100),
        aliases_of=lambda number: asked.append(number) or [],
    )
    assert next(verdicts)[1] == "newest"
    assert asked == []
    assert next(verdicts)[0]["Version"] == 1
    assert asked == [1]


statuses = st.sampled_from([*(status.value for status in ImageVersionStatus), "ARCHIVED"])


@settings(max_examples=5 * settings.default.max_examples)
@given(
    history=st.dictionaries(st.integers(0, 60), statuses, max_size=30),
    aliases=st.sets(st.integers(0, 60)),
    keep_newest=st.none() | st.integers(0, 10),
    keep_days=st.none() | st.integers(1, 80),
    keep_aliased=st.booleans(),
    limit=st.none() | st.integers(0, 10),
    listed=st.sets(st.integers(0, 60), max_size=5),
)
def test_pruning_keeps_aliased_and_newest_versions_and_its_limit(
    history, aliases, keep_newest, keep_days, keep_aliased, limit, listed
):
    if keep_newest is None and keep_days is None:
        keep_newest = 3
    age = None if keep_days is None else timedelta(days=keep_days)
    verdicts = pruned(
        [version(number, status) for number, status in history.items()],
        aliases,
        now=61,
        keep_newest=keep_newest,
        keep_younger_than=age,
        keep_versions=listed,
        keep_aliased=keep_aliased,
        limit=limit,
    )
    assert {reason for _, reason in verdicts} <= {None, *decide.KEPT}
    assert sorted(number for number, _ in verdicts) == sorted(history)
    going = [number for number, reason in verdicts if reason is None]
    created = sorted((number for number, status in history.items() if status == "CREATED"), reverse=True)
    assert not set(created[: max(keep_newest or 0, 1)]) & set(going)
    assert all(history[number] in {"CREATED", "CREATE_FAILED", "DELETE_FAILED"} for number in going)
    assert not listed & set(going)
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
        ("DELETING", Failed("the image is DELETING: no role")),
        ("DELETE_FAILED", Failed("the image is DELETE_FAILED: no role")),
    ],
)
def test_what_keeps_an_image_from_getting_versions(status, expected):
    assert decide.obstacle({"ImageStatus": status, "FailureReason": "no role"}) == expected


def test_what_to_do_about_an_image_that_failed_is_part_of_the_reason():
    found = decide.obstacle({"ImageStatus": "CREATE_FAILED", "FailureReason": "no role"})
    assert isinstance(found, Failed)
    assert found.reason.startswith("the image is CREATE_FAILED: no role. The usual cause is a role")
    assert "action_if_image_exists='recreate'" in found.reason


@pytest.mark.parametrize(
    ("status", "failed", "going", "remaining"),
    [
        ("CREATED", False, False, Waiting),
        ("CREATING", False, False, Waiting),
        ("CREATE_FAILED", True, False, Waiting),
        ("DELETING", False, True, Waiting),
        ("DELETE_FAILED", False, False, Failed),
        ("ARCHIVED", False, False, Waiting),
    ],
)
def test_what_a_status_means_for_a_recreation_and_for_a_deletion_of_an_image(status, failed, going, remaining):
    image = {"ImageStatus": status, "CreationTime": "2026-01-01T00:00:00+00:00"}
    assert decide.is_failed_creation(image) == failed
    assert decide.is_image_being_deleted(image) == going
    assert isinstance(decide.image_remains(image, image), remaining)
    assert decide.image_remains(None, image) is None
    assert decide.image_remains({**image, "CreationTime": "2026-01-02T00:00:00+00:00"}, image) is None
    waits = decide.keeps_from_deletion(image)
    assert (waits is not None) == (status == "CREATING")


@pytest.mark.parametrize("key", ["CreationTime", "LastModifiedTime", "ImageStatus"])
def test_an_image_that_differs_in_one_of_these_was_changed(key):
    image = {"CreationTime": "1", "LastModifiedTime": "2", "ImageStatus": "CREATED"}
    assert not decide.has_image_changed(image, dict(image))
    assert decide.has_image_changed(image, {**image, key: "other"})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ResourceInUse", True),
        ("ConflictException", True),
        ("ValidationException", True),
        ("AccessDeniedException", False),
        ("ThrottlingException", False),
    ],
)
def test_which_errors_may_come_from_the_status(code, expected):
    error = ClientError({"Error": {"Code": code, "Message": "no"}}, "DeleteImageVersion")
    assert may_be_status_conflict(error) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            "CREATE_FAILED",
            "version 1 is CREATE_FAILED (no base image), and only a CREATED version can be promoted. Use",
        ),
        ("CREATING", "is CREATING, and only a CREATED version can be promoted. Wait for it with SageMakerImageVersion"),
        ("DELETING", "version 1 is DELETING, and only a CREATED version can be promoted. Use another version"),
    ],
)
def test_a_refusal_has_the_reason_and_what_to_do(status, expected):
    one = {**version(1, status), "FailureReason": "no base image"}
    assert expected in decide.refusal(one, "promoted").reason
