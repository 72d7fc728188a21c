from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.decide import Failed, Ready, Waiting
from airflow_provider_imageversions.errors import ErrorKind, classify_code
from airflow_provider_imageversions.model import ImageVersionStatus, Target
from tests.decision_table import TABLE, at, version, versions


@pytest.mark.parametrize(("target", "listed", "kind", "expected"), TABLE)
def test_an_outcome_follows_the_decision_table(target, listed, kind, expected):
    given_versions = [{**v, "FailureReason": "no base\n image"} for v in versions(listed)]
    result = decide.outcome(given_versions, Target(**target))
    assert type(result) is kind
    if kind is Ready:
        assert result.version["Version"] == expected
        assert result.version in given_versions
    else:
        assert expected in (result.reason if kind is Failed else result.note)


def test_a_status_never_seen_before_is_marked_for_a_warning():
    assert decide.outcome(versions("4:ARCHIVED"), Target()).unknown
    assert not decide.outcome(versions("4:CREATING"), Target()).unknown


def test_a_failure_without_a_reason_says_so():
    assert "gave no reason" in decide.outcome(versions("4:CREATE_FAILED"), Target()).reason


def test_a_failure_of_many_versions_shows_the_newest_reasons_only():
    listed = [version(number, "CREATE_FAILED", FailureReason=f"reason {number}.") for number in range(1, 500)]
    reason = decide.outcome(listed, Target(after_version=0)).reason
    assert "reason 499." in reason
    assert "reason 3." not in reason
    assert "and 496 more" in reason


def test_a_failure_of_three_versions_shows_all_reasons_and_no_number_of_others():
    listed = [version(number, "CREATE_FAILED", FailureReason=f"reason {number}.") for number in range(1, 4)]
    assert decide.outcome(listed, Target(after_version=0)).reason.endswith("reason 1.")


def test_a_wait_knows_since_when_its_version_has_its_status():
    waiting = decide.outcome([version(3, "CREATING", LastModifiedTime="2026-01-02T00:00:00+00:00")], Target())
    assert (waiting.since, waiting.version) == ("2026-01-02T00:00:00+00:00", 3)


ALL = "3:CREATED 2:CREATED 1:CREATED"
STATUSES = st.sampled_from([*(status.value for status in ImageVersionStatus), "ARCHIVED"])
HISTORIES = st.dictionaries(st.integers(0, 12), STATUSES).map(
    lambda history: [version(number, status) for number, status in sorted(history.items(), reverse=True)]
)
TARGETS = st.one_of(
    st.builds(Target, version=st.integers(0, 12)),
    st.builds(
        Target,
        after_version=st.none() | st.integers(0, 12),
        created_after=st.none() | st.integers(0, 12).map(at),
    ),
)


@given(HISTORIES, TARGETS)
def test_reading_only_as_far_as_needed_does_not_change_the_outcome(history, target):
    read = []
    for item in history:
        read.append(item)
        if decide.can_stop_reading(item, target):
            break
    partial, whole = decide.outcome(read, target), decide.outcome(history, target)
    assert type(partial) is type(whole)
    if isinstance(whole, Ready):
        assert partial == whole


@pytest.mark.parametrize(
    ("target", "listed", "last"),
    [
        (Target(version=3), "5:CREATED 4:CREATED 3:CREATING 2:CREATED", 3),
        (Target(version=3), "5:CREATED 4:CREATED 2:CREATED 1:CREATED", 2),
        (Target(), "5:DELETING 4:DELETE_FAILED 3:CREATING 2:CREATED", 3),
        (Target(), "5:CREATE_FAILED 4:CREATED", 5),
        (Target(after_version=2), "5:CREATING 4:CREATE_FAILED 3:CREATED 2:CREATED", 3),
        (Target(after_version=3), "5:CREATING 4:CREATING 3:CREATED 2:CREATED", 3),
        (Target(created_after=at(3)), "5:CREATING 4:CREATE_FAILED 3:CREATED 2:CREATED", 3),
        # Two calls at the same time may get their numbers in the other order.
        (Target(created_after=at(4) + timedelta(seconds=60)), "4:CREATED 3:CREATED 2:CREATED", 3),
        (Target(created_after=at(4) + timedelta(seconds=61)), "4:CREATED 3:CREATED 2:CREATED", 4),
        (Target(after_version=1, created_after=at(4)), "5:CREATING 4:CREATING 3:CREATED 2:CREATED", 3),
        (Target(after_version=3, created_after=at(1)), "5:CREATING 4:CREATING 3:CREATED 2:CREATED", 3),
    ],
)
def test_a_list_is_read_as_far_as_a_target_needs(target, listed, last):
    read = next(each for each in versions(listed) if decide.can_stop_reading(each, target))
    assert read["Version"] == last


@given(HISTORIES, TARGETS)
def test_only_created_is_ready_and_the_order_of_the_versions_does_not_matter(history, target):
    result = decide.outcome(history, target)
    assert decide.outcome(history[::-1], target) == result
    if isinstance(result, Ready):
        assert result.version["ImageVersionStatus"] == "CREATED"


def test_select_filters_and_stops_without_reading_on():
    def source():
        yield from versions("5:CREATING 4:CREATED 3:CREATED")
        raise AssertionError

    selected = decide.select(source(), statuses=("CREATED",), limit=2)
    assert [v["Version"] for v in selected] == [4, 3]
    assert list(decide.select(source(), limit=0)) == []


@pytest.mark.parametrize(
    ("bounds", "selected"),
    [
        ({}, [3, 2, 1]),
        ({"CreationTimeAfter": at(2)}, [3, 2]),
        ({"CreationTimeAfter": at(2) + timedelta(milliseconds=1)}, [3]),
        ({"CreationTimeBefore": at(2)}, [2, 1]),
        ({"CreationTimeBefore": at(2) - timedelta(milliseconds=1)}, [1]),
        ({"CreationTimeAfter": at(2), "CreationTimeBefore": at(2)}, [2]),
        ({"LastModifiedTimeAfter": at(9), "CreationTimeBefore": at(2)}, [1]),
    ],
)
def test_select_keeps_what_is_within_inclusive_bounds(bounds, selected):
    modified = {1: at(9), 2: at(8), 3: at(9)}
    listed = [{**each, "LastModifiedTime": modified[each["Version"]].isoformat()} for each in versions(ALL)]
    assert [each["Version"] for each in decide.select(listed, bounds=bounds)] == selected
    assert [each["Version"] for each in decide.select(listed, statuses=("CREATING",), bounds=bounds)] == []


def test_select_without_a_limit_returns_all():
    assert len(list(decide.select(iter(versions("3:CREATED 2:CREATING"))))) == 2


@pytest.mark.parametrize(
    ("code", "http_status", "kind"),
    [
        ("ResourceNotFound", 400, ErrorKind.MISSING),
        ("ResourceNotFoundException", 400, ErrorKind.MISSING),
        ("ExpiredTokenException", 400, ErrorKind.CREDENTIALS),
        ("ExpiredToken", 403, ErrorKind.CREDENTIALS),
        ("UnrecognizedClientException", 400, ErrorKind.CREDENTIALS),
        ("InvalidClientTokenId", 403, ErrorKind.CREDENTIALS),
        ("SignatureDoesNotMatch", 403, ErrorKind.CREDENTIALS),
        ("InvalidSignatureException", 400, ErrorKind.CREDENTIALS),
        ("RequestExpired", 400, ErrorKind.CREDENTIALS),
        ("ThrottlingException", 400, ErrorKind.THROTTLED),
        ("TooManyRequestsException", 429, ErrorKind.THROTTLED),
        ("Odd", 429, ErrorKind.THROTTLED),
        ("InternalFailure", 500, ErrorKind.TRANSIENT),
        ("503", 503, ErrorKind.TRANSIENT),
        ("ServiceUnavailable", 503, ErrorKind.TRANSIENT),
        ("AccessDeniedException", 400, ErrorKind.PERMANENT),
        ("ValidationException", 400, ErrorKind.PERMANENT),
        ("", 0, ErrorKind.PERMANENT),
    ],
)
def test_an_error_code_is_classified(code, http_status, kind):
    assert classify_code(code, http_status) is kind


def image(status, **more):
    return {"ImageStatus": status, "CreationTime": at(0), "LastModifiedTime": at(0), **more}


WAIT, FAIL, DONE = Waiting, Failed, type(None)


@pytest.mark.parametrize(
    ("status", "new_version", "update", "deletion", "remaining"),
    [
        # what keeps it from: a new version, the end of an update, its deletion, the end of a deletion
        ("CREATED", DONE, DONE, DONE, WAIT),
        ("UPDATE_FAILED", DONE, FAIL, DONE, WAIT),
        ("CREATING", WAIT, WAIT, WAIT, WAIT),
        ("UPDATING", WAIT, WAIT, WAIT, WAIT),
        ("CREATE_FAILED", FAIL, FAIL, DONE, WAIT),
        ("DELETING", FAIL, FAIL, DONE, WAIT),
        ("DELETE_FAILED", FAIL, FAIL, DONE, FAIL),
        ("ARCHIVED", WAIT, WAIT, DONE, WAIT),
    ],
)
def test_the_status_of_an_image_allows_or_prevents(status, new_version, update, deletion, remaining):
    described = image(status, FailureReason="role\n cannot be used")
    results = [
        decide.obstacle(described),
        decide.obstacle(described, updated=True),
        decide.keeps_from_deletion(described),
        decide.image_remains(described, deleted=image("CREATED")),
    ]
    assert [type(result) for result in results] == [new_version, update, deletion, remaining]
    for result in results:
        if isinstance(result, Failed):
            assert f"the image is {status}: role cannot be used" in result.reason
            assert ("action_if_image_exists='recreate'" in result.reason) is (status == "CREATE_FAILED")
        elif result is not None:
            assert result.note == f"the image is {status}"
    assert getattr(results[0], "unknown", False) is (status == "ARCHIVED")
    assert decide.is_failed_creation(described) is (status == "CREATE_FAILED")
    assert decide.is_image_being_deleted(described) is (status == "DELETING")


def test_an_image_is_deleted_when_it_is_gone_or_another_has_its_name():
    assert decide.image_remains(None, deleted=image("DELETING")) is None
    assert decide.image_remains(image("DELETE_FAILED", CreationTime=at(1)), deleted=image("DELETING")) is None


@pytest.mark.parametrize("changed", ["CreationTime", "LastModifiedTime", "ImageStatus"])
def test_an_image_has_changed_if_one_of_three_members_has(changed):
    before = image("CREATED", DisplayName="a")
    assert not decide.has_image_changed(before, {**before, "DisplayName": "b"})
    assert decide.has_image_changed(before, {**before, changed: "other"})


@pytest.mark.parametrize(
    ("status", "refusal", "remaining", "is_adopted"),
    [
        ("CREATED", None, WAIT, True),
        ("CREATING", "is CREATING, and only a CREATED version can be promoted. Wait for it", WAIT, True),
        ("ARCHIVED", "is ARCHIVED, and only a CREATED version can be promoted. Wait for it", WAIT, True),
        ("CREATE_FAILED", "is CREATE_FAILED (no base), and only a CREATED version can be promoted. Use", WAIT, False),
        ("DELETING", "is DELETING, and only a CREATED version can be promoted. Use", WAIT, False),
        ("DELETE_FAILED", "is DELETE_FAILED, and only a CREATED version can be promoted. Use", FAIL, False),
    ],
)
def test_the_status_of_a_version_allows_or_prevents(status, refusal, remaining, is_adopted):
    described = version(3, status, FailureReason="no base")
    refused = decide.refusal(described, "promoted")
    assert refusal is None if refused is None else refused.reason.startswith(f"version 3 {refusal}")
    remains = decide.remains(described, described)
    assert type(remains) is remaining
    expected = "version 3 is DELETE_FAILED: no base" if remaining is FAIL else f"version 3 is {status}"
    assert (remains.reason if remaining is FAIL else remains.note) == expected
    assert decide.adoptable(described) is is_adopted
    assert decide.is_being_deleted(described) is (status == "DELETING")


def test_a_version_that_does_not_exist_is_deleted_and_cannot_be_continued():
    deleted = version(3, "DELETING")
    assert decide.remains(None, deleted) is None
    later = {**version(3, "CREATED"), "CreationTime": "2999-01-01T00:00:00+00:00"}
    assert decide.remains(later, deleted) is None  # of an image with the same name
    assert not decide.adoptable(None)


@pytest.mark.parametrize(
    ("listed", "containers", "kind", "number"),
    [
        ("3:CREATED 2:CREATED", {3: "same", 2: "other"}, Ready, 3),
        ("3:CREATED 2:CREATED", {3: "other", 2: "same"}, DONE, None),
        ("4:CREATE_FAILED 3:DELETING 2:CREATED", {4: "same", 3: "same", 2: "same"}, Ready, 2),
        ("3:CREATING 2:CREATED", {3: "", 2: "same"}, Waiting, None),
        ("3:CREATING 2:CREATED", {3: "same", 2: "other"}, Waiting, None),
        ("3:CREATING 2:CREATED", {3: "other", 2: "same"}, Ready, 2),
        # Deleted between the two calls.
        ("3:CREATED 2:CREATED", {2: "same"}, Ready, 2),
        ("", {}, DONE, None),
    ],
)
def test_the_newest_created_version_may_have_the_container_image_already(listed, containers, kind, number):
    described = {
        each["Version"]: {**each, "ContainerImage": f"registry/name@{containers[each['Version']]}"}
        for each in versions(listed)
        if each["Version"] in containers
    }
    result = decide.unchanged_since(versions(listed), {"same"}, described.get)
    assert type(result) is kind
    assert number is None or result.version == described[number]


def test_what_differs_from_a_request_is_named():
    recorded = version(3, JobType="TRAINING", Horovod=False, Aliases=["blue", "extra"])
    wanted = {"ImageName": "other", "BaseImage": "other", "JobType": "INFERENCE", "Horovod": False, "Vendor": "x"}
    assert decide.differing_members(recorded, {**wanted, "Aliases": ["blue", "prod"]}) == [
        "JobType",
        "Vendor",
        "alias 'prod'",
    ]
    assert decide.differing_members(recorded, {"JobType": "TRAINING", "Aliases": ["blue"]}) == []
