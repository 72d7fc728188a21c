"""The decision table, for the pure function and for the sensor in each of its modes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_provider_imageversions.decide import Failed, Ready, Waiting

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
