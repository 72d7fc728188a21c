"""
All decisions about images and versions. This is the only module that compares the status of a version.

Pure: no Airflow, no boto, no clock, no log. Callers fetch, wait and report; this module decides what a status or a list
of versions *means*.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_imageversions._parameters import parse_time
from airflow_provider_imageversions.model import Cursor, ImageVersionStatus, SettledRun, VersionsAbove, clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping

    from airflow_provider_imageversions.model import AliasCursor, ImageVersion, PrunePolicy, Target

R = TypeVar("R", bound="Mapping[str, Any]")

CREATED = ImageVersionStatus.CREATED.value
_GOING = {ImageVersionStatus.DELETING.value, ImageVersionStatus.DELETE_FAILED.value}
_FAILED = {ImageVersionStatus.CREATE_FAILED.value, ImageVersionStatus.DELETE_FAILED.value}
_KNOWN = {status.value for status in ImageVersionStatus}
# An image has its own statuses. A failed update leaves the image unchanged.
_NOT_UPDATED = "UPDATE_FAILED"
_USABLE_IMAGE = {"CREATED", _NOT_UPDATED}
_IMAGE_CREATE_FAILED, _IMAGE_DELETING, _IMAGE_DELETE_FAILED = "CREATE_FAILED", "DELETING", "DELETE_FAILED"
_LOST_IMAGE = {_IMAGE_CREATE_FAILED, _IMAGE_DELETING, _IMAGE_DELETE_FAILED}
_PASSING_IMAGE = {"CREATING", "UPDATING"}
# A higher number means a later creation, except for calls that SageMaker handled at the same time.
_DISORDER = timedelta(minutes=1)
_REASONS_SHOWN = 3
# A version may be listed shortly after one with a higher number.
_LATE = 20
_LATE_LISTING = timedelta(hours=1)
_NEVER = "9999"


@dataclass(frozen=True)
class Ready:
    """The awaited version exists and is CREATED."""

    version: ImageVersion


@dataclass(frozen=True)
class Failed:
    """The wait can no longer succeed."""

    reason: str


@dataclass(frozen=True)
class Waiting:
    """
    The wait can still succeed.

    :param note: What to wait for.
    :param unknown: Whether the status is unknown to this package.
    :param since: Start of the state, as an ISO-8601 string, if it is a version's status.
    :param version: Number of the awaited version, if it is listed.
    """

    note: str
    unknown: bool = False
    since: str | None = None
    version: int | None = None


Outcome = Ready | Failed | Waiting


def outcome(versions: Iterable[ImageVersion], target: Target) -> Outcome:
    """
    Return the outcome of a wait.

    :param versions: Versions of the image in any order: all of them, or as many of the newest as
        :func:`can_stop_reading` asks for. For an alias: the one version that has it, or none.
    :param target: The version to wait for.
    """
    newest_first = sorted(versions, key=lambda version: version["Version"], reverse=True)
    if target.version is not None:
        return _outcome_of_number(newest_first, target.version)
    if target.alias is None and target.after_version is None and target.created_after is None:
        alive = next((v for v in newest_first if v["ImageVersionStatus"] not in _GOING), None)
        if alive is None:
            return Waiting("the image has no version yet")
        return _outcome_of_version(alive)
    return _outcome_of_any([v for v in newest_first if _matches(v, target)], target)


def _outcome_of_number(newest_first: list[ImageVersion], number: int) -> Outcome:
    for version in newest_first:
        if version["Version"] == number:
            return _outcome_of_version(version)
    higher = next((v for v in newest_first if v["Version"] > number and v["ImageVersionStatus"] == CREATED), None)
    if higher is not None:
        return Failed(
            f"version {number} does not exist and never will, because version {higher['Version']} is already CREATED "
            "and version numbers only increase: it was deleted or never registered"
        )
    return Waiting(f"version {number} is not registered yet")


def _outcome_of_version(version: ImageVersion) -> Outcome:
    number, status = version["Version"], version["ImageVersionStatus"]
    if status == ImageVersionStatus.CREATED:
        return Ready(version)
    if status == ImageVersionStatus.CREATE_FAILED:
        return Failed(f"version {number} is CREATE_FAILED: {failure_reason(version)}")
    if status in _GOING:
        return Failed(f"version {number} is {status}")
    note, since = f"version {number} is {status}", version.get("LastModifiedTime")
    return Waiting(note, unknown=status not in _KNOWN, since=since, version=number)


def _outcome_of_any(newest_first: list[ImageVersion], target: Target) -> Outcome:
    outcomes = [_outcome_of_version(version) for version in newest_first]
    for kind in (Ready, Waiting):
        for result in outcomes:
            if isinstance(result, kind):
                return result
    reasons = [result.reason for result in outcomes if isinstance(result, Failed)]
    if not reasons:
        return Waiting(f"there is no match yet for {target}")
    more = f"; and {len(reasons) - _REASONS_SHOWN} more" if len(reasons) > _REASONS_SHOWN else ""
    return Failed(f"{target} can no longer become CREATED: {'; '.join(reasons[:_REASONS_SHOWN])}{more}")


def _matches(version: ImageVersion, target: Target) -> bool:
    if target.after_version is not None and version["Version"] <= target.after_version:
        return False
    return not isinstance(target.created_after, datetime) or _created(version) >= target.created_after


def _created(version: ImageVersion) -> datetime:
    return _moment(version["CreationTime"])


# Every wait evaluates the same versions at every poll.
@lru_cache(maxsize=4096)
def _moment(time: str) -> datetime:
    return parse_time("time", time)


def can_stop_reading(version: ImageVersion, target: Target | VersionsAbove) -> bool:
    """Return whether no version with a lower number than this one can change the outcome."""
    if isinstance(target, VersionsAbove):
        return version["Version"] <= target.number
    if target.version is not None:
        return version["Version"] <= target.version
    if target.after_version is None and target.created_after is None:
        return version["ImageVersionStatus"] not in _GOING
    if target.after_version is not None and version["Version"] <= target.after_version:
        return True
    if isinstance(target.created_after, datetime) and _created(version) + _DISORDER < target.created_after:
        return True
    return version["ImageVersionStatus"] == CREATED and _matches(version, target)


def detect_new_versions(
    versions: Iterable[ImageVersion],
    cursor: Cursor,
    *,
    statuses: tuple[str, ...] = (CREATED,),
    since: datetime | None = None,
    later: Container[int] = (),
) -> tuple[list[ImageVersion], Cursor]:
    """
    Find the versions that have reached a status since the cursor, and move the cursor past them.

    :param versions: All versions above :func:`lowest_unsettled`, in any order. More versions do no harm.
    :param cursor: The cursor before.
    :param statuses: CREATED, CREATE_FAILED or both. They are final, so each version is detected once.
    :param since: Ignore versions that were created before this moment.
    :param later: Numbers of versions to leave for later.
    :return: The versions to emit events for, ascending by number, and the cursor after them.
    """
    listed = {version["Version"]: version for version in versions}
    kept = tuple(run for run in cursor.runs if run not in _extinct(listed, cursor))
    before = Cursor(kept)
    settled = [
        version for number, version in sorted(listed.items()) if number not in later and _is_settled(version, before)
    ]
    fresh = [
        version
        for version in settled
        if version["ImageVersionStatus"] in statuses and (since is None or _created(version) >= since)
    ]
    newest = max((_created(version) for version in listed.values()), default=None)
    runs: list[SettledRun] = []
    for run in sorted([*kept, *(_run(version) for version in settled)]):
        if runs and newest is not None and _are_one(runs[-1], run, listed, newest):
            runs[-1] = SettledRun(runs[-1].first, run.last, max(runs[-1].latest, run.latest))
        else:
            runs.append(run)
    return fresh, Cursor(tuple(runs))


def detect_alias_move(
    result: Outcome, cursor: AliasCursor, alias: str, *, unsure: bool = False
) -> tuple[list[ImageVersion], AliasCursor]:
    """
    Detect whether an alias has moved to another version, and move the cursor there.

    A move is complete when the alias is on a version that is CREATED.

    :param result: What :func:`outcome` returned for the alias.
    :param cursor: The version that had the alias before; a new cursor at the first start.
    :param alias: The alias.
    :param unsure: Whether to return the move to that version again, as a crash may have lost its event.
    :return: The version to emit an event for, if there is one, and the cursor after it, with the move's ``event_id``.
    """
    if not isinstance(result, Ready):
        return [], cursor
    after = cursor.after_move_to(result.version, alias)
    if after.owner != cursor.owner:
        return [result.version], after
    return [result.version] if unsure else [], cursor


def baseline(
    versions: Iterable[ImageVersion], start_from: str | int | datetime, *, started: datetime | None = None
) -> Cursor:
    """
    Return the cursor of a watcher that starts for the first time.

    :param versions: All versions of the image.
    :param start_from: ``"latest"`` emits events for versions that are not final yet. A number emits events for this
        version and those above. ``"earliest"`` and a time emit events for all versions, because
        :func:`detect_new_versions` compares the time each time.
    :param started: When the watcher started, if it could not read the versions until now.
    """
    everything = list(versions)
    if start_from == "latest":
        changed = {v["Version"] for v in everything if started is not None and _moment(v["LastModifiedTime"]) > started}
        return detect_new_versions(everything, Cursor(), later=changed)[1]
    if not isinstance(start_from, int):
        return Cursor()
    passed = [_run(version) for version in everything if version["Version"] < start_from]
    ahead = max((run.last for run in passed), default=-1) + 1
    if ahead < start_from:
        passed.append(SettledRun(ahead, start_from - 1, _NEVER))
    return Cursor(tuple(sorted(passed)))


def lowest_unsettled(versions: Iterable[ImageVersion], cursor: Cursor) -> VersionsAbove:
    """
    Return the versions that the next poll has to read: down to the lowest one that may still need an event.

    :param versions: The versions that the last poll read; empty at the start.
    :param cursor: The cursor after it.
    """
    listed = {version["Version"]: version for version in versions}
    if not listed and cursor.runs and cursor.runs[0].first <= 1:
        # At the start, only the settled versions are known.
        return VersionsAbove(min(cursor.runs[0].last, cursor.runs[-1].last - _LATE) - 1)
    if not listed or _extinct(listed, cursor):
        return VersionsAbove()
    open_ones = [number for number in listed if cursor.run_of(number) is None]
    return VersionsAbove(min([*open_ones, max(listed) - _LATE]) - 1)


def _extinct(listed: Mapping[int, ImageVersion], cursor: Cursor) -> set[SettledRun]:
    """Return the runs from before the image was recreated: one of their numbers is now a later version."""
    runs = {number: cursor.run_of(number) for number in listed}
    return {run for number, run in runs.items() if run is not None and listed[number]["CreationTime"] > run.latest}


def _is_settled(version: ImageVersion, before: Cursor) -> bool:
    status = version["ImageVersionStatus"]
    return before.run_of(version["Version"]) is None and status in _KNOWN and status != ImageVersionStatus.CREATING


def _run(version: ImageVersion) -> SettledRun:
    return SettledRun(version["Version"], version["Version"], version["CreationTime"])


def _are_one(left: SettledRun, right: SettledRun, listed: Mapping[int, ImageVersion], newest: datetime) -> bool:
    """
    Return whether two runs belong to the same image, not one before its recreation, with no version missing in between.

    Their inner ends are both listed, so both belong to the present image. Unlisted numbers between them are deleted
    versions, once SageMaker has had time to list versions that were created a moment earlier.
    """
    if left.last not in listed or right.first not in listed:
        return False
    if _NEVER in (left.latest, right.latest):
        # Skipped numbers do not depend on the image's recreation, unlike their neighbours.
        return False
    if left.last + 1 == right.first:
        return True
    if newest - _created(listed[right.first]) <= _LATE_LISTING:
        return False
    return not any(number in listed for number in range(left.last + 1, right.first))


def failure_reason(failed: Mapping[str, Any]) -> str:
    """Return SageMaker's reason for a failure as one line, fit for a log or an exception."""
    return " ".join(clean_text(failed.get("FailureReason", "")).split()) or "SageMaker gave no reason"


def obstacle(image: Mapping[str, Any], *, updated: bool = False) -> Waiting | Failed | None:
    """
    Return why an image cannot have new versions; ``None`` if it can.

    :param image: The response of DescribeImage.
    :param updated: Whether the image must also have been updated successfully.
    """
    status = image["ImageStatus"]
    if status in _USABLE_IMAGE and not (updated and status == _NOT_UPDATED):
        return None
    if status == _IMAGE_CREATE_FAILED:
        return Failed(
            f"the image is {status}: {failure_reason(image).rstrip('.')}. The usual cause is a role that SageMaker "
            "cannot use yet. If the image has no version, SageMakerCreateImageOperator with "
            "action_if_image_exists='recreate' deletes it and creates it again"
        )
    if status in {*_LOST_IMAGE, _NOT_UPDATED}:
        return Failed(f"the image is {status}: {failure_reason(image)}")
    return Waiting(f"the image is {status}", unknown=status not in _PASSING_IMAGE)


def is_failed_creation(image: Mapping[str, Any]) -> bool:
    """
    Return whether the creation of an image failed.

    :param image: The response of DescribeImage.
    """
    return bool(image["ImageStatus"] == _IMAGE_CREATE_FAILED)


def is_image_being_deleted(image: Mapping[str, Any]) -> bool:
    """
    Return whether SageMaker is already deleting an image.

    :param image: The response of DescribeImage.
    """
    return bool(image["ImageStatus"] == _IMAGE_DELETING)


def is_same(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """
    Return whether two descriptions are of the same image or version, rather than of a later one with the same name.

    :param now: A response of DescribeImage, or a version's record.
    :param before: A response or a record at another time.
    """
    return bool(now["CreationTime"] == before["CreationTime"])


def is_unchanged(now: ImageVersion, before: ImageVersion) -> bool:
    """
    Return whether a version is still the same one, in the same status.

    :param now: Its record.
    :param before: Its record at another time.
    """
    return is_same(now, before) and now["ImageVersionStatus"] == before["ImageVersionStatus"]


def has_image_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """
    Return whether an image was changed, or replaced with another one of the same name.

    :param before: The first response of DescribeImage.
    :param after: A later response.
    """
    return any(before.get(key) != after.get(key) for key in ("CreationTime", "LastModifiedTime", "ImageStatus"))


def keeps_from_deletion(image: Mapping[str, Any]) -> Waiting | None:
    """
    Return what to wait for before an image can be deleted; ``None`` if it can be deleted now.

    :param image: The response of DescribeImage.
    """
    status = image["ImageStatus"]
    return Waiting(f"the image is {status}") if status in _PASSING_IMAGE else None


def image_remains(image: Mapping[str, Any] | None, deleted: Mapping[str, Any]) -> Waiting | Failed | None:
    """
    Return what to wait for until an image is deleted; ``None`` if it is deleted.

    :param image: The response of DescribeImage; ``None`` if no image has this name.
    :param deleted: The response before the deletion.
    """
    if image is None or not is_same(image, deleted):
        return None
    status = image["ImageStatus"]
    if status == _IMAGE_DELETE_FAILED:
        return Failed(f"the image is {status}: {failure_reason(image)}")
    return Waiting(f"the image is {status}")


def adoptable(version: ImageVersion | None) -> bool:
    """
    Return whether a try can continue with the version that an earlier try of the same task created.

    :param version: The version; ``None`` if it does not exist.
    """
    return version is not None and not isinstance(_outcome_of_version(version), Failed)


def refusal(version: ImageVersion, done: str) -> Failed | None:
    """
    Return why a version cannot be promoted or rolled out; ``None`` if it can.

    :param version: The version.
    :param done: What is to be done with it, such as ``"promoted"``.
    """
    outcome, status = _outcome_of_version(version), version["ImageVersionStatus"]
    if isinstance(outcome, Ready):
        return None
    reason = f" ({failure_reason(version)})" if status == ImageVersionStatus.CREATE_FAILED else ""
    advice = "Wait for it with SageMakerImageVersionSensor, or use" if isinstance(outcome, Waiting) else "Use"
    return Failed(
        f"version {version['Version']} is {status}{reason}, and only a CREATED version can be {done}. "
        f"{advice} another version"
    )


def unchanged_since(
    newest_first: Iterable[ImageVersion], digests: Container[str], describe: Callable[[int], ImageVersion | None]
) -> Ready | Waiting | None:
    """
    Determine whether the newest CREATED version already has a container image.

    :param newest_first: The image's versions, from the highest number down.
    :param digests: The container image's digest, and those of its platforms.
    :param describe: Returns a version with details by its number; ``None`` if it does not exist.
    :return: ``Ready`` with the version if it has; ``Waiting`` if a version that is CREATING may have it; otherwise
        ``None``.
    """
    for listed in newest_first:
        if listed["ImageVersionStatus"] not in (CREATED, ImageVersionStatus.CREATING):
            continue
        version = describe(listed["Version"])
        if version is None:
            continue
        container = version.get("ContainerImage", "").rpartition("@")[2]
        if version["ImageVersionStatus"] == CREATED:
            return Ready(version) if container in digests else None
        # The container image may be unknown while a version is CREATING.
        if version["ImageVersionStatus"] == ImageVersionStatus.CREATING and (not container or container in digests):
            return Waiting(f"version {version['Version']} is CREATING and may have the same container image")
    return None


def differing_members(version: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """
    Return the members of a request in which a version differs from the request.

    :param version: The version's record with details.
    :param wanted: Members of CreateImageVersion. The image and the base image are not compared; additional aliases of
        the version are ignored.
    """
    missing = {
        name: value
        for name, value in wanted.items()
        if name not in {"ImageName", "BaseImage", "Aliases"} and version.get(name) != value
    }
    aliases = [alias for alias in wanted.get("Aliases", ()) if alias not in version.get("Aliases", ())]
    return [*missing, *(f"alias {alias!r}" for alias in aliases)]


def remains(version: ImageVersion | None, deleted: ImageVersion) -> Waiting | Failed | None:
    """
    Return what to wait for until a version is deleted; ``None`` if it is deleted.

    :param version: The version; ``None`` if SageMaker does not find it.
    :param deleted: Its record before the deletion.
    """
    if version is None or not is_same(version, deleted):
        return None
    number, status = version["Version"], version["ImageVersionStatus"]
    if status == ImageVersionStatus.DELETE_FAILED:
        return Failed(f"version {number} is DELETE_FAILED: {failure_reason(version)}")
    return Waiting(f"version {number} is {status}")


def is_being_deleted(version: ImageVersion) -> bool:
    """Return whether SageMaker is already deleting a version."""
    return version["ImageVersionStatus"] == ImageVersionStatus.DELETING


def in_creation(version: ImageVersion) -> Waiting | None:
    """
    Return what to wait for before a version can be changed or deleted; ``None`` if it is not CREATING.

    :param version: The version.
    """
    number, status = version["Version"], version["ImageVersionStatus"]
    return Waiting(f"version {number} is {status}") if status == ImageVersionStatus.CREATING else None


KEPT = ("newest", "age", "alias", "limit", "in_use", "status", "listed", "used")
"""Reasons why pruning keeps a version."""


def prune(
    versions: Iterable[ImageVersion],
    policy: PrunePolicy,
    *,
    now: datetime,
    aliases_of: Callable[[int], Iterable[str]],
    is_used: Callable[[int], bool] = lambda _: False,
    deleted: Collection[int] = (),
) -> Iterator[tuple[ImageVersion, str | None]]:
    """
    Decide lazily which versions of an image to delete, so that each is checked directly before its deletion.

    The newest CREATED version and versions that are CREATING, DELETING or in an unknown status are always kept. Failed
    versions come first, then the oldest.

    :param versions: All versions of the image, in any order.
    :param policy: What to keep.
    :param now: The current time.
    :param aliases_of: Returns the aliases of a version by its number; called only for versions that would otherwise be
        deleted.
    :param is_used: Returns whether a version is in use, by its number; called only for versions that would otherwise be
        deleted.
    :param deleted: The versions that the caller has deleted so far. A version that could not be deleted does not count
        for the limit, or the same ones would use it up each time.
    :return: Each version with one of :data:`KEPT`, or ``None`` if it is to be deleted.
    """
    newest_first = sorted(versions, key=lambda version: version["Version"], reverse=True)
    created = [version["Version"] for version in newest_first if version["ImageVersionStatus"] == CREATED]
    newest, listed = set(created[: max(policy.keep_newest or 0, 1)]), set(policy.keep_versions)
    kept_since = None if policy.keep_younger_than is None else now - timedelta(seconds=policy.keep_younger_than)
    turns: list[ImageVersion] = []
    for version in newest_first:
        status = version["ImageVersionStatus"]
        if version["Version"] in newest:
            yield version, "newest"
        elif status != CREATED and status not in _FAILED:
            yield version, "status"
        elif version["Version"] in listed:
            yield version, "listed"
        elif kept_since is not None and _created(version) > kept_since:
            yield version, "age"
        else:
            turns.append(version)
    for version in sorted(turns, key=lambda turn: (turn["ImageVersionStatus"] == CREATED, turn["Version"])):
        if policy.limit is not None and len(deleted) >= policy.limit:
            yield version, "limit"
        elif policy.keep_aliased and any(True for _ in aliases_of(version["Version"])):
            yield version, "alias"
        elif is_used(version["Version"]):
            yield version, "used"
        else:
            yield version, None


def newest_created(versions: Iterable[ImageVersion]) -> int | None:
    """
    Return the number of the newest CREATED version; ``None`` if no version is CREATED.

    :param versions: Versions in any order.
    """
    return max((v["Version"] for v in versions if v["ImageVersionStatus"] == CREATED), default=None)


def select(
    versions: Iterable[R],
    *,
    statuses: tuple[str, ...] | None = None,
    limit: int | None = None,
    bounds: Mapping[str, datetime] | None = None,
) -> Iterator[R]:
    """
    Filter lazily what the API or botocore cannot filter exactly.

    :param versions: Versions or images; their order is kept.
    :param statuses: Only versions in one of these statuses; ``None`` for all.
    :param limit: Maximum number; nothing is read from ``versions`` beyond the last one.
    :param bounds: Only versions whose times are within these, by the API's names, such as ``CreationTimeAfter``.
    """
    selected = (
        version
        for version in versions
        if (statuses is None or version["ImageVersionStatus"] in statuses) and _is_within(version, bounds or {})
    )
    return islice(selected, limit)


def _is_within(version: Mapping[str, Any], bounds: Mapping[str, datetime]) -> bool:
    for name, bound in bounds.items():
        if name.endswith("After") and _moment(version[name.removesuffix("After")]) < bound:
            return False
        if name.endswith("Before") and _moment(version[name.removesuffix("Before")]) > bound:
            return False
    return True
