from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_imageversions import decide
from airflow_provider_imageversions.decide import Failed, Fault, Ready, Waiting
from airflow_provider_imageversions.model import ImageVersionStatus, Target

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def version(number, status="CREATED", **more):
    created = (START + timedelta(days=number)).isoformat()
    return {"Version": number, "ImageVersionStatus": status, "CreationTime": created, **more}


def versions(text):
    """Versions from text such as '3:CREATED 4:CREATING'."""
    return [version(int(number), status) for number, _, status in (item.partition(":") for item in text.split())]


def at(day):
    return START + timedelta(days=day)


# target, versions, outcome, its version number or a part of its reason or note
TABLE = [
    # this very version
    ({"version": 3}, "3:CREATED", Ready, 3),
    ({"version": 3}, "4:CREATING 3:CREATED", Ready, 3),
    ({"version": 3}, "3:CREATE_FAILED", Failed, "3 is CREATE_FAILED: no base"),
    ({"version": 3}, "4:CREATED 3:CREATE_FAILED", Failed, "3 is CREATE_FAILED"),
    ({"version": 3}, "3:DELETING", Failed, "3 is DELETING"),
    ({"version": 3}, "3:DELETE_FAILED", Failed, "3 is DELETE_FAILED"),
    ({"version": 3}, "4:CREATED 2:CREATED", Failed, "version 3 does not exist"),
    ({"version": 3}, "3:CREATING", Waiting, "3 is CREATING"),
    ({"version": 3}, "4:CREATED 3:CREATING", Waiting, "3 is CREATING"),
    ({"version": 3}, "", Waiting, "not registered"),
    ({"version": 3}, "2:CREATED", Waiting, "not registered"),
    ({"version": 3}, "4:CREATING 2:CREATED", Waiting, "not registered"),
    ({"version": 3}, "4:CREATE_FAILED", Waiting, "not registered"),
    ({"version": 3}, "4:DELETING", Waiting, "not registered"),
    ({"version": 3}, "3:ARCHIVED", Waiting, "3 is ARCHIVED"),
    ({"version": 0}, "0:CREATED", Ready, 0),
    # the latest
    ({}, "3:CREATED", Ready, 3),
    ({}, "2:CREATED 10:CREATED 9:CREATING", Ready, 10),
    ({}, "4:DELETING 3:CREATED", Ready, 3),
    ({}, "4:DELETE_FAILED 3:CREATED", Ready, 3),
    ({}, "4:CREATE_FAILED 3:CREATED", Failed, "4 is CREATE_FAILED"),
    ({}, "4:DELETING 3:CREATE_FAILED", Failed, "3 is CREATE_FAILED"),
    ({}, "4:CREATING 3:CREATED", Waiting, "4 is CREATING"),
    ({}, "", Waiting, "no version yet"),
    ({}, "4:DELETING", Waiting, "no version yet"),
    ({}, "4:ARCHIVED 3:CREATED", Waiting, "4 is ARCHIVED"),
    # after a version
    ({"after_version": 3}, "5:CREATED 4:CREATED", Ready, 5),
    ({"after_version": 3}, "5:CREATING 4:CREATED", Ready, 4),
    ({"after_version": 3}, "5:CREATE_FAILED 4:CREATED", Ready, 4),
    ({"after_version": 3}, "5:ARCHIVED 4:CREATED", Ready, 4),
    ({"after_version": 3}, "5:CREATE_FAILED 4:DELETING 3:CREATED", Failed, "5 is CREATE_FAILED"),
    ({"after_version": 3}, "4:DELETE_FAILED", Failed, "4 is DELETE_FAILED"),
    ({"after_version": 3}, "5:CREATE_FAILED 4:CREATING", Waiting, "4 is CREATING"),
    ({"after_version": 3}, "4:ARCHIVED", Waiting, "4 is ARCHIVED"),
    ({"after_version": 3}, "3:CREATED", Waiting, "no match yet"),
    ({"after_version": 3}, "3:CREATING 2:CREATE_FAILED", Waiting, "no match yet"),
    ({"after_version": 3}, "", Waiting, "no match yet"),
    # created after a moment, which counts as after
    ({"created_after": at(4)}, "4:CREATED 3:CREATED", Ready, 4),
    ({"created_after": at(4)}, "5:CREATE_FAILED 3:CREATED", Failed, "5 is CREATE_FAILED"),
    ({"created_after": at(4)}, "5:CREATING 3:CREATED", Waiting, "5 is CREATING"),
    ({"created_after": at(4)}, "3:CREATED", Waiting, "no match yet"),
    # both
    ({"after_version": 3, "created_after": at(5)}, "4:CREATED", Waiting, "no match yet"),
    ({"after_version": 5, "created_after": at(3)}, "5:CREATED", Waiting, "no match yet"),
    ({"after_version": 3, "created_after": at(5)}, "5:CREATED 4:CREATED", Ready, 5),
    # an alias: the caller gives the one version that has it
    ({"alias": "prod"}, "3:CREATED", Ready, 3),
    ({"alias": "prod"}, "3:CREATE_FAILED", Failed, "3 is CREATE_FAILED"),
    ({"alias": "prod"}, "3:CREATING", Waiting, "3 is CREATING"),
    ({"alias": "prod"}, "", Waiting, "no match yet for the version with the alias 'prod'"),
    ({"alias": "prod", "after_version": 3}, "3:CREATED", Waiting, "no match yet"),
    ({"alias": "prod", "after_version": 3}, "4:CREATED", Ready, 4),
]


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
    assert "gives no reason" in decide.outcome(versions("4:CREATE_FAILED"), Target()).reason


def test_a_failure_of_many_versions_shows_the_newest_reasons_only():
    listed = [version(number, "CREATE_FAILED", FailureReason=f"reason {number}.") for number in range(1, 500)]
    reason = decide.outcome(listed, Target(after_version=0)).reason
    assert "reason 499." in reason
    assert "reason 3." not in reason
    assert "and 496 more" in reason


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
def test_reading_newest_first_as_far_as_suffices_gives_the_outcome_of_the_whole(history, target):
    read = []
    for item in history:
        read.append(item)
        if decide.suffices(item, target):
            break
    partial, whole = decide.outcome(read, target), decide.outcome(history, target)
    assert type(partial) is type(whole)
    if isinstance(whole, Ready):
        assert partial == whole


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


def test_select_without_a_limit_gives_all():
    assert len(list(decide.select(iter(versions("3:CREATED 2:CREATING"))))) == 2


@pytest.mark.parametrize(
    ("code", "http_status", "fault"),
    [
        ("ResourceNotFound", 400, Fault.MISSING),
        ("ResourceNotFoundException", 400, Fault.MISSING),
        ("ExpiredTokenException", 400, Fault.CREDENTIALS),
        ("ExpiredToken", 403, Fault.CREDENTIALS),
        ("UnrecognizedClientException", 400, Fault.CREDENTIALS),
        ("InvalidClientTokenId", 403, Fault.CREDENTIALS),
        ("SignatureDoesNotMatch", 403, Fault.CREDENTIALS),
        ("InvalidSignatureException", 400, Fault.CREDENTIALS),
        ("ThrottlingException", 400, Fault.THROTTLED),
        ("TooManyRequestsException", 429, Fault.THROTTLED),
        ("Odd", 429, Fault.THROTTLED),
        ("InternalFailure", 500, Fault.TRANSIENT),
        ("503", 503, Fault.TRANSIENT),
        ("ServiceUnavailable", 503, Fault.TRANSIENT),
        ("AccessDeniedException", 400, Fault.PERMANENT),
        ("ValidationException", 400, Fault.PERMANENT),
        ("", 0, Fault.PERMANENT),
    ],
)
def test_an_error_code_is_judged(code, http_status, fault):
    assert decide.fault(code, http_status) is fault
