"""
Records of versions, targets of waits, events of watchers, and cursors.

Pure: no Airflow, no boto, no clock, no log.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict, cast

import attrs

from airflow_provider_imageversions._parameters import (
    ImageVersionStatus,
    Parameters,
    invalid_parameter,
    parse_alias,
    parse_boolean,
    parse_image_name,
    parse_names,
    parse_scope,
    parse_seconds,
    parse_start_from,
    parse_time,
    parse_version,
    parse_versions,
    parsed_by,
    with_converters,
)
from airflow_provider_imageversions._requests import (
    CreateImageRequest,
    CreateImageVersionRequest,
    UpdateImageRequest,
    UpdateImageVersionRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "CreateImageRequest",
    "CreateImageVersionRequest",
    "ImageVersion",
    "ImageVersionStatus",
    "UpdateImageRequest",
    "UpdateImageVersionRequest",
    "event_id",
]


class ErrorKind(Enum):
    """The meaning of an error of AWS, the network or Airflow for a task that waits."""

    MISSING = "missing"
    """The image, version or alias does not exist (yet)."""
    CREDENTIALS = "credentials"
    """The credentials are expired, rotated or missing. Loading them again may help."""
    IN_USE = "in use"
    """Another change of the same image or version is in progress. The call may succeed after it."""
    THROTTLED = "throttled"
    """Too many calls. The call may succeed later; fewer calls should be made."""
    TRANSIENT = "transient"
    """A temporary failure. The call may succeed later."""
    PERMANENT = "permanent"
    """Access denied or an invalid request. Repeating the call cannot succeed until a person acts."""


def describe_error(error: BaseException | None) -> str:
    """
    Return an error as one line of text that starts with its class.

    :param error: The error.
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class ImageVersion(TypedDict, total=False):
    """
    A version's record: plain JSON with SageMaker's own keys, and times as ISO-8601 strings in UTC.

    A key that SageMaker omits is omitted here, too.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ImageVersion.html and
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeImageVersion.html
    """

    Version: int
    """Number of the version."""
    ImageVersionStatus: str
    """Status of the version, see :class:`ImageVersionStatus`. SageMaker may add statuses."""
    ImageArn: str
    """ARN of the image."""
    ImageVersionArn: str
    """ARN of the version."""
    CreationTime: str
    """When the version was created, such as ``2026-09-01T12:00:00.123000+00:00``."""
    LastModifiedTime: str
    """When the version was last modified."""
    FailureReason: str
    """Why the version could not be created or deleted."""

    BaseImage: str
    """Registry path that the version was created from. This and the following keys need ``include_details=True``."""
    ContainerImage: str
    """Registry path with the digest, as training jobs need it."""
    Aliases: list[str]
    """Aliases of the version."""
    JobType: str
    """``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``."""
    MLFramework: str
    """Name and version of the machine learning framework."""
    ProgrammingLang: str
    """Name and version of the programming language."""
    Processor: str
    """``CPU`` or ``GPU``."""
    Horovod: bool
    """Whether the version is compatible with Horovod."""
    ReleaseNotes: str
    """Release notes."""
    VendorGuidance: str
    """``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``."""


_FIELDS = tuple(ImageVersion.__annotations__)
_LISTED = _FIELDS.index("FailureReason") + 1
LISTED_FIELDS, DETAIL_FIELDS = _FIELDS[:_LISTED], _FIELDS[_LISTED:]
PAYLOAD_FIELDS = frozenset({*_FIELDS, "image_name", "region", "status", "event_id", "alias", "redelivered"})
"""Members of the payload of an event; see :func:`event_payload`."""

# Most databases reject a lone surrogate or a NUL; a terminal interprets an escape sequence.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Replace characters that databases or logs reject: surrogates, and control characters except tab and newline."""
    return text if text.isprintable() else _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def to_record(item: Mapping[str, Any]) -> ImageVersion:
    """
    Return the record of a version.

    :param item: An item of ``ImageVersions``, or the whole response of DescribeImageVersion.
    """
    record: dict[str, Any] = {}
    for key, value in item.items():
        if isinstance(value, str):
            record[key] = value if value.isprintable() else clean_text(value)
        elif isinstance(value, datetime):
            record[key] = value.astimezone(timezone.utc).isoformat()
        elif key != "ResponseMetadata":
            record[key] = value
    return cast("ImageVersion", record)


def event_id(version: ImageVersion) -> str:
    """
    Return the ``event_id`` of the event that a version reached its status.

    It is a digest of the version's ARN, its creation time to the millisecond and its status, so it is equal each time
    the event is emitted. The creation time distinguishes versions with the same number if the image was deleted and
    created again.

    :param version: The version's record.
    """
    created = parse_time("CreationTime", version["CreationTime"]).isoformat(timespec="milliseconds")
    return _digest([version["ImageVersionArn"], created, version["ImageVersionStatus"]])


def _digest(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def event_payload(
    version: ImageVersion,
    image_name: str,
    region: str,
    *,
    alias: str | None = None,
    identity: str | None = None,
    redelivered: bool = False,
) -> dict[str, Any]:
    """
    Return the payload of an event: the version's record, and the members that identify the event.

    :param version: The version's record, with or without details.
    :param image_name: Name of the image, which a record has in lower case only.
    :param region: AWS region.
    :param alias: The alias that moved to the version. (default: none, the version reached its status)
    :param identity: The event's ``event_id``. (default: that of the version reaching its status)
    :param redelivered: Whether the event may have been emitted before.
    """
    return {
        **version,
        "image_name": image_name,
        "region": region,
        "status": version["ImageVersionStatus"],
        "event_id": event_id(version) if identity is None else identity,
        **({} if alias is None else {"alias": alias}),
        "redelivered": redelivered,
    }


class SettledRun(NamedTuple):
    """
    Consecutive version numbers for which no more events will be emitted.

    :param first: The lowest number.
    :param last: The highest number.
    :param latest: The latest creation time among them. A version with one of these numbers that was created later is
        a different one: the image was deleted and created again.
    """

    first: int
    last: int
    latest: str


@dataclass(frozen=True)
class Cursor:
    """
    The versions of an image for which a watcher has emitted all events.

    :param runs: Runs of such versions, ascending.
    """

    KEY: ClassVar[str] = "runs"
    """Key under which :meth:`to_json` is stored."""

    runs: tuple[SettledRun, ...] = ()

    @property
    def progress(self) -> int:
        """Number of versions, to compare with another cursor of the same image."""
        return sum(run.last - run.first + 1 for run in self.runs)

    def run_of(self, number: int) -> SettledRun | None:
        """Return the run that contains a number, or ``None``."""
        at = bisect_right(self.runs, (number, float("inf"))) - 1
        return self.runs[at] if at >= 0 and number <= self.runs[at].last else None

    def to_json(self) -> list[list[Any]]:
        """Return the cursor as JSON."""
        return [list(run) for run in self.runs]

    @classmethod
    def from_json(cls, runs: list[list[Any]]) -> Cursor:
        """
        Return the cursor that :meth:`to_json` stored.

        :param runs: The stored value.
        """
        return cls(tuple(SettledRun(*run) for run in runs))


@dataclass(frozen=True)
class AliasCursor:
    """
    The version that last had an alias, as far as a watcher knows.

    :param owner: Identity of that version; empty before the first.
    :param event_id: Identity of the move to it.
    :param progress: Number of moves so far.
    """

    KEY: ClassVar[str] = "alias"

    owner: str = ""
    event_id: str = ""
    progress: int = 0

    def after_move_to(self, version: ImageVersion, alias: str) -> AliasCursor:
        """
        Return the cursor after a move, which has an identity of its own even if the version had the alias before.

        The identity is a digest of the previous move, the alias and the version. The first move has the time at which
        the version was last modified instead of a previous move.

        :param version: The CREATED version that the alias moved to.
        :param alias: The alias.
        """
        owner = event_id(version)
        before = self.event_id or version.get("LastModifiedTime")
        return AliasCursor(owner, _digest([alias, before, owner]), self.progress + 1)

    def to_json(self) -> list[Any]:
        """Return the cursor as JSON."""
        return [self.owner, self.event_id, self.progress]

    @classmethod
    def from_json(cls, values: list[Any]) -> AliasCursor:
        """
        Return the cursor that :meth:`to_json` stored.

        :param values: The stored value.
        """
        return cls(*values)


@dataclass(frozen=True)
class VersionsAbove:
    """
    The versions that a watcher needs from a poll: all above a number.

    :param number: The number; -1 for all versions. (default: -1)
    """

    number: int = -1


_IMAGE_ARN = re.compile(r"arn:[^:]+:sagemaker:(?P<region>[^:]+):[0-9]+:image/(?P<image_name>.+)", re.IGNORECASE)


@dataclass(frozen=True)
class StateChange:
    """
    A change of an image version's status, as EventBridge reports it. Equal for all events of one change.

    :param region: AWS region.
    :param image_name: Name of the image, in lower case.
    :param version: Identity of the version; an opaque text.
    :param status: The status, in capitals and without underscores.
    """

    region: str
    image_name: str
    version: str
    status: str

    @classmethod
    def from_message(cls, body: str) -> StateChange | None:
        """
        Read a message that EventBridge has sent to a queue; return ``None`` if it is anything else.

        The ARN of the version may have an opaque id, so the image is the one in ``detail.ImageArn``.

        :param body: The message.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
        """
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return None
        match event:
            case {"detail-type": "SageMaker Image Version State Change", "detail": {"ImageArn": str(arn)} as detail}:
                image = _IMAGE_ARN.fullmatch(arn)
            case _:
                image = None
        if image is None:
            return None
        return cls(
            region=image["region"].lower(),
            image_name=image["image_name"].lower(),
            version=f"{detail.get('ImageVersionArn')} {detail.get('Version')}".lower(),
            status=str(detail.get("ImageVersionStatus")).upper().replace("_", ""),
        )


WATCHED_STATUSES = (ImageVersionStatus.CREATED.value, ImageVersionStatus.CREATE_FAILED.value)

WATCHED_BY_DEFAULT = (ImageVersionStatus.CREATED.value,)


def _parse_watched_statuses(name: str, value: object) -> tuple[str, ...]:
    return parse_names(name, value, choices=WATCHED_STATUSES)


def _check_policy(keep_newest: int | None, keep_younger_than: float | None) -> None:
    if keep_newest is None and keep_younger_than is None:
        raise ValueError(
            "keep_newest=None, keep_younger_than=None: set at least one of them. Set keep_newest, for example to 10, "
            "or keep_younger_than, for example to timedelta(days=90)."
        )


@attrs.frozen(field_transformer=with_converters)
class PrunePolicy(Parameters):
    """
    Which versions of an image to keep when the others are deleted.

    :param keep_newest: Number of the newest CREATED versions to keep. (default: ``None``)
    :param keep_younger_than: Keep versions created within this time, in seconds. Set at least one of the two.
        (default: ``None``)
    :param keep_versions: Keep the versions with these numbers. (default: none)
    :param keep_aliased: Keep versions that have an alias. (default: True)
    :param keep_used: Keep versions that are used in these scopes. (default: none)
    :param limit: Maximum number of versions to delete. (default: no limit)
    :param preview: Return what would be deleted, without deleting anything. (default: False)
    :raises ValueError: A value is outside its limits, or neither ``keep_newest`` nor ``keep_younger_than`` is set.
    """

    keep_newest: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    keep_younger_than: float | None = attrs.field(default=None, metadata=parsed_by(parse_seconds))
    keep_versions: tuple[int, ...] = attrs.field(default=(), metadata=parsed_by(parse_versions))
    keep_aliased: bool = attrs.field(default=True, metadata=parsed_by(parse_boolean, accepts_none=False))
    keep_used: tuple[str, ...] = attrs.field(default=(), metadata=parsed_by(parse_scope, accepts_none=False))
    limit: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    preview: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_check_policy,)


def _check_one_version(
    version: int | None, alias: str | None, after_version: int | None, created_after: datetime | None
) -> None:
    others = {"alias": alias, "after_version": after_version, "created_after": created_after}
    given = [name for name, value in others.items() if value is not None]
    if version is not None and given:
        raise ValueError(
            f"version={version} names one version and can't be combined with {', '.join(given)}: "
            f"leave out either version or {' and '.join(given)}."
        )


@attrs.frozen(field_transformer=with_converters)
class Target(Parameters):
    """
    The target of a wait. Without parameters, it is the image's latest version.

    :param version: The version with this number, 0 or more. It cannot be combined with the others. (default: ``None``)
    :param alias: The version that has this alias. (default: ``None``)
    :param after_version: Any version with a higher number than this one, 0 or more. (default: ``None``)
    :param created_after: Any version created at or after this time; an aware datetime, or an ISO-8601 string with an
        offset. (default: ``None``)
    :raises ValueError: A value is outside its limits, or ``version`` is combined with another.
    """

    version: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    alias: str | None = attrs.field(default=None, metadata=parsed_by(parse_alias))
    after_version: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    created_after: datetime | str | None = attrs.field(default=None, metadata=parsed_by(parse_time))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_check_one_version,)

    def __str__(self) -> str:
        if self.version is not None:
            return f"version {self.version}"
        what = "the latest version" if self.alias is None else f"the version with the alias {self.alias!r}"
        if self.after_version is None and self.created_after is None:
            return what
        conditions = []
        if self.after_version is not None:
            conditions.append(f"after version {self.after_version}")
        if isinstance(self.created_after, datetime):
            conditions.append(f"created at or after {self.created_after.isoformat()}")
        return f"{'a version' if self.alias is None else what} {' and '.join(conditions)}"


@attrs.frozen(field_transformer=with_converters, kw_only=True)
class Wait(Target):
    """What a sensor and its trigger wait for; see also :class:`Target`."""

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    include_details: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))

    @property
    def target(self) -> Target:
        """The version to wait for, which may be equal for several images."""
        return Target.of(self)

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON, equal for equal waits."""
        values = attrs.asdict(self).items()
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values}


WAIT_PARAMETERS = ("image_name", *Target.names(), "include_details")


def _check_alias_watch(statuses: tuple[str, ...], start_from: object, alias: str | None) -> None:
    if alias is None:
        return
    if set(statuses) != set(WATCHED_BY_DEFAULT):
        raise invalid_parameter(
            "statuses",
            statuses,
            f"with alias={alias!r} an event is emitted when the version is CREATED; leave out statuses or alias.",
        )
    if start_from not in {"latest", "earliest"}:
        raise invalid_parameter(
            "start_from",
            start_from,
            f"with alias={alias!r} it is 'latest' (emit events for moves from now on) or 'earliest' (emit an event for "
            "the version that has the alias now, too).",
        )


@attrs.frozen(field_transformer=with_converters)
class WatchConfig(Parameters):
    """
    The events of a watcher: versions that reach a status, or moves of an alias.

    :param image_name: Name of the image.
    :param statuses: CREATED, CREATE_FAILED or both; only CREATED with ``alias``.
    :param start_from: ``"latest"``, ``"earliest"``, a version number or an aware datetime. With ``alias``, ``"latest"``
        or ``"earliest"``.
    :param alias: The alias; ``None`` for versions. (default: ``None``)
    :raises ValueError: A value is outside its limits, or cannot be combined with ``alias``.
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    statuses: Iterable[str] | str = attrs.field(metadata=parsed_by(_parse_watched_statuses))
    start_from: str | int | datetime = attrs.field(metadata=parsed_by(parse_start_from))
    alias: str | None = attrs.field(default=None, metadata=parsed_by(parse_alias))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_check_alias_watch,)
