"""
The nouns of this package: a request, a version's record, and what a wait is for.

Pure: no Airflow, no boto, no clock, no log. Limits are those of SageMaker's service model; a test compares
them with botocore's copy of it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import uuid
from bisect import bisect_right
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict, cast

from dateutil.parser import isoparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    _Parser: TypeAlias = Callable[[str, object], Any]


class ImageVersionStatus(str, Enum):
    """The statuses that SageMaker gives an image version."""

    CREATING = "CREATING"
    CREATED = "CREATED"
    CREATE_FAILED = "CREATE_FAILED"
    DELETING = "DELETING"
    DELETE_FAILED = "DELETE_FAILED"


class ErrorKind(Enum):
    """What an error of AWS, of the network or of Airflow means for a task that waits."""

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


class ImageVersion(TypedDict, total=False):
    """
    A version's record: plain JSON, keys as the service names them, times as ISO-8601 strings in UTC.

    The first group is what ListImageVersions answers, the second what ``include_details=True`` adds from
    DescribeImageVersion and ListAliases. A key that the service leaves out is left out here too.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ImageVersion.html and
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeImageVersion.html
    """

    Version: int
    ImageVersionStatus: str
    ImageArn: str
    ImageVersionArn: str
    CreationTime: str
    LastModifiedTime: str
    FailureReason: str

    BaseImage: str
    ContainerImage: str
    Aliases: list[str]
    JobType: str
    MLFramework: str
    ProgrammingLang: str
    Processor: str
    Horovod: bool
    ReleaseNotes: str
    VendorGuidance: str


LISTED_FIELDS = (
    "Version",
    "ImageVersionStatus",
    "ImageArn",
    "ImageVersionArn",
    "CreationTime",
    "LastModifiedTime",
    "FailureReason",
)
DETAIL_FIELDS = tuple(name for name in ImageVersion.__annotations__ if name not in LISTED_FIELDS)

# A lone surrogate or a NUL ends in an error in most databases, an escape sequence in a terminal's hands.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Replace what no database or log takes well: control characters but for tab and newline, surrogates."""
    return text if text.isprintable() else _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def to_record(item: Mapping[str, Any]) -> ImageVersion:
    """
    Make the record of a version from a boto3 answer.

    :param item: One element of ``ImageVersions``, or the whole answer of DescribeImageVersion.
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


class VersionSet:
    """
    A set of version numbers that stays small however many it holds: runs of neighbours are one pair.

    :param runs: Inclusive ``[first, last]`` pairs, as :attr:`runs` gives them.
    """

    def __init__(self, runs: Iterable[Iterable[int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted((first, last) for first, last in runs):
            self._firsts.append(first)
            self._lasts.append(last)

    @property
    def runs(self) -> list[list[int]]:
        """The set as inclusive, ascending ``[first, last]`` pairs; JSON."""
        return [[first, last] for first, last in zip(self._firsts, self._lasts, strict=True)]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, number: int) -> bool:
        """Add a number; ``False`` if it was in already."""
        at = bisect_right(self._firsts, number)
        if at and number <= self._lasts[at - 1]:
            return False
        joins_left = at > 0 and self._lasts[at - 1] == number - 1
        joins_right = at < len(self._firsts) and self._firsts[at] == number + 1
        if joins_left and joins_right:
            self._lasts[at - 1] = self._lasts.pop(at)
            self._firsts.pop(at)
        elif joins_left:
            self._lasts[at - 1] = number
        elif joins_right:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)
        return True


def event_id(version: ImageVersion) -> str:
    """
    Identify that a version reached its status: equal however often and by whichever way it is told.

    A digest of the version's ARN, its creation time to the millisecond and its status. The creation time tells a
    version from one of the same number after its image was deleted and made anew.
    """
    created = parse_time("CreationTime", version["CreationTime"]).isoformat(timespec="milliseconds")
    return _digest([version["ImageVersionArn"], created, version["ImageVersionStatus"]])


def _digest(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def event_payload(version: ImageVersion, image_name: str, region: str) -> dict[str, Any]:
    """
    Make what is told of a version that reached a status: its record, and what identifies it among other events.

    :param version: The version's record, with details or without.
    :param image_name: Name of the image; a record has it in lower case only.
    :param region: AWS region.
    """
    return {
        **version,
        "image_name": image_name,
        "region": region,
        "status": version["ImageVersionStatus"],
        "event_id": event_id(version),
    }


class SettledRun(NamedTuple):
    """
    Neighbouring version numbers of one life of an image, about which there is nothing to tell any more.

    :param first: The lowest number.
    :param last: The highest number.
    :param latest: The latest creation time among them. A version with one of these numbers that was created later is
        another: the image was deleted and made anew.
    """

    first: int
    last: int
    latest: str


@dataclass(frozen=True)
class Cursor:
    """
    Which versions of an image a watcher is done with.

    :param runs: Runs of settled versions, ascending.
    """

    KEY: ClassVar[str] = "runs"
    """Under which :meth:`to_json` is kept."""

    runs: tuple[SettledRun, ...] = ()

    @property
    def progress(self) -> int:
        """How far it came, to compare with another of the same image."""
        return sum(run.last - run.first + 1 for run in self.runs)

    def run_of(self, number: int) -> SettledRun | None:
        """Give the run that holds a number."""
        at = bisect_right(self.runs, (number, float("inf"))) - 1
        return self.runs[at] if at >= 0 and number <= self.runs[at].last else None

    def to_json(self) -> list[list[Any]]:
        """Give the cursor as JSON."""
        return [list(run) for run in self.runs]

    @classmethod
    def from_json(cls, runs: list[list[Any]]) -> Cursor:
        """
        Make the cursor of what :meth:`to_json` gave.

        :param runs: That.
        """
        return cls(tuple(SettledRun(*run) for run in runs))


@dataclass(frozen=True)
class AliasCursor:
    """
    Which version had an alias last, as far as a watcher knows.

    :param owner: What identifies that version; empty before the first.
    :param event_id: Identifies the move to it.
    :param progress: Moves so far.
    """

    KEY: ClassVar[str] = "alias"

    owner: str = ""
    event_id: str = ""
    progress: int = 0

    def after_move_to(self, version: ImageVersion, alias: str) -> AliasCursor:
        """
        Give the cursor after a move, which has an identity of its own even where the alias went there before.

        A digest of the move before, the alias and the version. The first, which has none before it, takes the time at
        which the version was modified last instead, which getting the alias does.

        :param version: The CREATED version that the alias moved to.
        :param alias: The alias.
        """
        owner = event_id(version)
        before = self.event_id or version.get("LastModifiedTime")
        return AliasCursor(owner, _digest([alias, before, owner]), self.progress + 1)

    def to_json(self) -> list[Any]:
        """Give the cursor as JSON."""
        return [self.owner, self.event_id, self.progress]

    @classmethod
    def from_json(cls, values: list[Any]) -> AliasCursor:
        """
        Make the cursor of what :meth:`to_json` gave.

        :param values: That.
        """
        return cls(*values)


@dataclass(frozen=True)
class Above:
    """
    What a watcher needs of a poll: every version above a number.

    :param number: The number; -1 for all versions.
    """

    number: int = -1


# --- What a DAG author writes, checked -------------------------------------------------------------------

_IMAGE_NAME = re.compile(r"[a-zA-Z0-9]([-.]?[a-zA-Z0-9]){0,62}")
_ALIAS = re.compile(r"(?![.-])[a-zA-Z0-9-_.]+")
_IMAGE_NAME_MAX = 63
_ALIAS_MAX = 128
_NEXT_TOKEN_MAX = 8192
PAGE_SIZE_MAX = 100
SORT_BY = ("CREATION_TIME", "LAST_MODIFIED_TIME", "VERSION")
SORT_ORDER = ("ASCENDING", "DESCENDING")
_TAGS_MAX, _TAG_KEY_MAX, _TAG_VALUE_MAX = 50, 128, 256
_EXCERPT = 200
_INTEGER_MAX = 2**31 - 1  # of a whole number in AWS's APIs
SECONDS_MAX = 100 * 365 * 86400.0  # beyond that, moments leave the calendar


def excerpt(value: object) -> str:
    """Show a value that may be anything, shortened."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001  # as of a number of 5,000 digits, or of a class of somebody's own
        return f"<{type(value).__name__}>"
    return shown if len(shown) <= _EXCERPT else f"{shown[:_EXCERPT]}... ({len(shown)} characters)"


def refuse(name: str, value: object, allowed: str) -> ValueError:
    """Make the error for a parameter's value."""
    return ValueError(f"{name}={excerpt(value)} is not valid: {allowed}")


def blank_value(name: str, value: object) -> ValueError:
    """Make the error for a parameter that was given and has nothing in it."""
    return refuse(name, value, "it is empty or rendered to nothing. Set a value, or leave the parameter out.")


def parse_image_name(name: str, value: object) -> str:
    """Check an image's name."""
    if (
        not isinstance(value, str)
        or len(value) > _IMAGE_NAME_MAX
        or not _IMAGE_NAME.fullmatch(value)
        or is_blank(value)  # "None" has the form of a name
    ):
        hint = " Give the image's name, not its ARN." if isinstance(value, str) and value.startswith("arn:") else ""
        raise refuse(
            name,
            value,
            f"a SageMaker image name has 1 to {_IMAGE_NAME_MAX} letters, digits, hyphens and dots, starts and "
            f"ends with a letter or digit, and has no two hyphens or dots in a row.{hint}",
        )
    return value


_ECR_URI = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.(com|com\.cn|eu)"
    r"/(?P<repository>[^:@]+)(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class EcrImage(NamedTuple):
    """
    A container image in Amazon ECR.

    :param registry: The account's number.
    :param region: The AWS region.
    :param repository: Name of the repository.
    :param tag: The tag.
    :param digest: The digest, if the path has it.
    """

    registry: str
    region: str
    repository: str
    tag: str
    digest: str | None


def parse_ecr_image(name: str, value: object) -> EcrImage:
    """Read account, region, repository and tag or digest from a registry path in Amazon ECR."""
    found = _ECR_URI.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise refuse(
            name,
            value,
            "only_if_changed needs a registry path in Amazon ECR, "
            "ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY with a tag or a digest.",
        )
    return EcrImage(found["registry"], found["region"], found["repository"], found["tag"] or "latest", found["digest"])


def parse_domain_id(name: str, value: object) -> str:
    """Check the id of a Studio domain."""
    if not isinstance(value, str) or not re.fullmatch(r"d-(-*[a-z0-9]){1,61}", value):
        raise refuse(name, value, "give the domain's id, such as d-abcdefghijkl, not its name or ARN.")
    return value


def parse_studio_name(name: str, value: object) -> str:
    """Check the name of a user profile or of an app image config."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", value) or is_blank(value):
        raise refuse(name, value, "it must be 1 to 63 letters, digits and hyphens, and not start or end with a hyphen.")
    return value


def parse_alias(name: str, value: object) -> str:
    """Check an image version's alias."""
    if is_blank(value):  # "None" has the form of an alias
        raise blank_value(name, value)
    if not isinstance(value, str) or len(value) > _ALIAS_MAX or not _ALIAS.fullmatch(value):
        raise refuse(
            name,
            value,
            f"an alias has 1 to {_ALIAS_MAX} letters, digits, hyphens, underscores and dots, and starts with "
            "a letter, digit or underscore.",
        )
    return value


def parse_time(name: str, value: object) -> datetime:
    """Make an aware UTC time of an aware datetime or an ISO-8601 string with an offset."""
    moment = value
    if isinstance(value, str):
        try:
            moment = isoparse(value.strip())
        except ValueError as error:
            raise refuse(
                name,
                value,
                "a time is an aware datetime or an ISO-8601 string such as 2026-01-31T12:00:00+00:00.",
            ) from error
    if not isinstance(moment, datetime):
        raise refuse(
            name,
            value,
            "a time is an aware datetime or an ISO-8601 string such as 2026-01-31T12:00:00+00:00.",
        )
    if moment.utcoffset() is None:
        raise refuse(
            name,
            value,
            "it has no time zone, so it could mean different moments. Make it aware: append +00:00 to the "
            "string, or use datetime(..., tzinfo=timezone.utc) or pendulum.datetime(...).",
        )
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError as error:
        raise refuse(name, value, "it lies outside the years 1 to 9999 in UTC.") from error


def parse_integer(name: str, value: object, *, minimum: int, maximum: int = _INTEGER_MAX) -> int:
    """Make an integer of an ``int`` or, as templates render to text, of a string of digits."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        number = int(value.strip())
    if isinstance(number, bool) or not isinstance(number, int):
        raise refuse(name, value, "it must be a whole number.")
    if not minimum <= number <= maximum:
        raise refuse(name, value, f"it must be {minimum} to {maximum}.")
    return number


def parse_mapping(name: str, value: object) -> dict[str, Any]:
    """Make a dict of one, or of the text that a template renders one to."""
    given = _parse_literal(name, value) if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise refuse(name, value, "it must be a dict.")
    return given


def parse_seconds(name: str, value: object, *, maximum: float = SECONDS_MAX) -> float:
    """Make a number of seconds above 0 of a number, of the text that a template renders one to, or of a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", seconds.strip()):
        seconds = float(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= maximum:
        raise refuse(name, value, f"it must be a number of seconds above 0, or a timedelta, of {maximum:.0f} at most.")
    return float(seconds)


def parse_boolean(name: str, value: object) -> bool:
    """Make a boolean of a ``bool`` or of the text that a template renders one to."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    raise refuse(name, value, "it must be True or False.")


def parse_choice(name: str, value: object, *, choices: tuple[str, ...]) -> str:
    """Check a member of an enumeration of the service; lower case is taken as well."""
    if isinstance(value, str) and value.strip().upper() in choices:
        return value.strip().upper()
    raise refuse(name, value, f"allowed are {', '.join(choices)}.")


def parse_member(name: str, value: object, *, choices: tuple[str, ...]) -> str:
    """Check a member of an enumeration whose case counts."""
    if isinstance(value, str) and value in choices:
        return value
    raise refuse(name, value, f"allowed are {', '.join(choices)}.")


def _parse_literal(name: str, value: str) -> object:
    """Read a list or a dict as JSON writes it, or as Python does and so a template that renders to one."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value.strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # noqa: PERF203  # one of two
            continue
    raise refuse(name, value, "it looks like a list or a dict but is none.")


def _parse_list(name: str, value: object) -> tuple[Any, ...]:
    """Make a tuple of an iterable, a list as text or a comma-separated string."""
    items = value
    if isinstance(value, str):
        items = _parse_literal(name, value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(items, (list, tuple, set, frozenset)) or not all(isinstance(item, str) for item in items):
        raise refuse(name, value, "it must be a list of names, or a string that separates them by commas.")
    # A set's order is another one in each process, and a retry must make the same request.
    ordered = sorted(items) if isinstance(items, (set, frozenset)) else items
    return tuple(dict.fromkeys(item.strip() for item in ordered))


def parse_names(name: str, value: object, *, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Make a tuple of known names of an iterable, a JSON list or a comma-separated string."""
    parsed = _parse_list(name, value)
    unknown = [item for item in parsed if item not in choices]
    if unknown or not parsed:
        raise refuse(name, value, f"allowed are {', '.join(choices)}, at least one of them.")
    return parsed


USAGE_SCOPES = ("domains", "apps", "user_profiles", "spaces")
"""Where a version can be in use, the cheapest to read first."""


def parse_scope(name: str, value: object) -> tuple[str, ...]:
    """Make a tuple of scopes of a list, a string with commas, or a boolean: all scopes, or none."""
    if value == ():
        return ()
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in {"true", "false"}):
        return USAGE_SCOPES if parse_boolean(name, value) else ()
    return parse_names(name, value, choices=USAGE_SCOPES)


def parse_aliases(name: str, value: object) -> tuple[str, ...]:
    """Make a tuple of aliases of an iterable, a JSON list or a comma-separated string."""
    return tuple(parse_alias(name, alias) for alias in _parse_list(name, value))


def parse_versions(name: str, value: object) -> tuple[int, ...]:
    """Make a tuple of version numbers of an iterable, a JSON list, a comma-separated string or one number."""
    items = value
    if isinstance(value, str):
        items = _parse_literal(name, value) if value.lstrip()[:1] in {"[", "("} else value.split(",")
    elif isinstance(value, int):
        items = [value]
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise refuse(name, value, "it must be a list of version numbers, or a string that separates them by commas.")
    return tuple(sorted({parse_integer(name, item, minimum=0) for item in items}))


def parse_tags(name: str, value: object) -> tuple[dict[str, str], ...]:
    """Make AWS's list of tags of one, or of a dict from key to value, or of either as text."""
    given = _parse_literal(name, value) if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"} else value
    tags = [{"Key": key, "Value": tag} for key, tag in given.items()] if isinstance(given, dict) else given
    if not isinstance(tags, (list, tuple)) or len(tags) > _TAGS_MAX or not all(map(_is_tag, tags)):
        raise refuse(
            name,
            value,
            f"give up to {_TAGS_MAX} tags, as {{'key': 'value'}} or [{{'Key': 'key', 'Value': 'value'}}], with keys of "
            "1 to 128 and values of up to 256 characters.",
        )
    return tuple(tags)


def _is_tag(tag: object) -> bool:
    return (
        isinstance(tag, dict)
        and tag.keys() == {"Key", "Value"}
        and all(isinstance(part, str) for part in tag.values())
        and 1 <= len(tag["Key"]) <= _TAG_KEY_MAX
        and len(tag["Value"]) <= _TAG_VALUE_MAX
    )


def _text(maximum: int, form: str = "one line of text", pattern: str = ".*", minimum: int = 1) -> _Parser:
    """Make the parser of a text with the service's own limits."""

    def parse(name: str, value: object) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum or not re.fullmatch(pattern, value):
            raise refuse(name, value, f"it must be {form}, of {minimum} to {maximum} characters.")
        return value

    return parse


def _choice(*choices: str) -> _Parser:
    return lambda name, value: parse_choice(name, value, choices=choices)


def parse_statuses(name: str, value: object) -> tuple[str, ...]:
    """Make a tuple of statuses of a list, a JSON list or a comma-separated string; lower case is taken as well."""
    if isinstance(value, (list, tuple, set, frozenset)):
        value = [item.upper() if isinstance(item, str) else item for item in value]
    elif isinstance(value, str):
        value = value.upper()
    return parse_names(name, value, choices=tuple(status.value for status in ImageVersionStatus))


WATCHED_STATUSES = (ImageVersionStatus.CREATED.value, ImageVersionStatus.CREATE_FAILED.value)

WATCHED_BY_DEFAULT = (ImageVersionStatus.CREATED.value,)


def parse_start_from(name: str, value: object) -> str | int | datetime:
    """Check where a watcher starts: ``"latest"``, ``"earliest"``, a version number or an aware time."""
    if value in ("latest", "earliest"):
        return str(value)
    if isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal()):
        return parse_integer(name, value, minimum=0)
    try:
        return parse_time(name, value)
    except ValueError as error:
        raise ValueError(f"{error} Or give 'latest', 'earliest' or a version number.") from error


def parse_token(name: str, value: object) -> str:
    """Check a pagination token, which is opaque."""
    if not isinstance(value, str) or len(value) > _NEXT_TOKEN_MAX:
        raise refuse(
            name,
            value,
            f"it must be a NextToken of an earlier answer, of {_NEXT_TOKEN_MAX} characters at most.",
        )
    return value


_CONN_ID = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]{1,250}")
_REGION = re.compile(r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)")
_UNUSABLE_PATH = re.compile("[\x00\ud800-\udfff]")


def parse_conn_id(name: str, value: object) -> str | None:
    """Check the id of an Airflow connection; ``None`` and ``""`` stand for boto3's default credentials."""
    if value is None or (isinstance(value, str) and (value == "" or _CONN_ID.fullmatch(value))):
        return value
    raise refuse(name, value, "it must be the id of an Airflow connection, or None for boto3's default credentials.")


def parse_region(name: str, value: object) -> str:
    """Check the name of an AWS region."""
    if not isinstance(value, str) or not _REGION.fullmatch(value):
        raise refuse(name, value, "it must be the name of an AWS region, such as us-east-1.")
    return value


def parse_verify(name: str, value: object) -> bool | str:
    """Check whether to verify TLS certificates, or the path of a CA bundle."""
    if isinstance(value, bool) or (isinstance(value, str) and not _UNUSABLE_PATH.search(value)):
        return value
    raise refuse(name, value, "it must be True, False or the path of a CA bundle.")


_QUEUE_URL = re.compile(
    r"(?:https://sqs(?:-fips)?\.(?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]+)\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov|api\.aws)|(?P<origin>http://[^/@\s?#]+))"
    r"/[0-9]{12}/[a-zA-Z0-9_-]{1,80}",
)


def parse_queue_url(name: str, value: object) -> str:
    """Check the URL of a standard SQS queue, or of an emulator's."""
    if not isinstance(value, str) or not _QUEUE_URL.fullmatch(value):
        raise refuse(
            name,
            value,
            "it must be the URL of a standard SQS queue, such as https://sqs.us-east-1.amazonaws.com/123456789012/NAME.",
        )
    return value


def locate_queue(queue_url: str) -> tuple[str | None, str | None]:
    """
    Return the AWS region of a queue and, if it is an emulator's, which has no region in its URL, the address of that.

    :param queue_url: URL of the queue.
    """
    found = _QUEUE_URL.fullmatch(queue_url)
    return (None, None) if found is None else (found["region"], found["origin"])


_STATE_CHANGE = "SageMaker Image Version State Change"
_IMAGE_ARN = re.compile(r"arn:[^:]+:sagemaker:(?P<region>[^:]+):[0-9]+:image/(?P<image_name>.+)", re.IGNORECASE)


@dataclass(frozen=True)
class StateChange:
    """
    What EventBridge reports: an image version has changed its status. Equal for all events of one change.

    :param region: AWS region.
    :param image_name: Name of the image, in lower case.
    :param version: What identifies the version; an opaque text.
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
        if not isinstance(event, dict) or event.get("detail-type") != _STATE_CHANGE:
            return None
        detail = event.get("detail")
        if not isinstance(detail, dict):
            return None
        image = _IMAGE_ARN.fullmatch(str(detail.get("ImageArn")))
        if image is None:
            return None
        return cls(
            region=image["region"].lower(),
            image_name=image["image_name"].lower(),
            version=f"{detail.get('ImageVersionArn')} {detail.get('Version')}".lower(),
            status=str(detail.get("ImageVersionStatus")).upper().replace("_", ""),
        )


def is_blank(value: object) -> bool:
    """Return whether a text has nothing in it, as a template that renders to nothing: ``""`` or ``"None"``."""
    return isinstance(value, str) and value.strip() in {"", "None"}


def template_pattern(jinja_options: Mapping[str, Any] | None) -> re.Pattern[str]:
    """
    Return a pattern that finds where a template begins in a text.

    :param jinja_options: The ``jinja_environment_kwargs`` of a DAG, which may set other delimiters.
    """
    options = jinja_options or {}
    starts = [str(options.get(name, default)) for name, default in _JINJA_STARTS.items()]
    return _pattern_of(tuple(start for start in starts if start))


_JINJA_STARTS = {
    "variable_start_string": "{{",
    "block_start_string": "{%",
    "comment_start_string": "{#",
    "line_statement_prefix": "",
    "line_comment_prefix": "",
}


@lru_cache
def _pattern_of(starts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, starts)))


TEMPLATE = template_pattern(None)


def is_settled(value: object, template: re.Pattern[str] = TEMPLATE) -> bool:
    """
    Return whether a value is known already, rather than a template or an XComArg that is resolved at run time.

    :param value: The value.
    :param template: See :func:`template_pattern`.
    """
    if isinstance(value, str):
        return not template.search(value)
    if isinstance(value, dict):
        return all(is_settled(item, template) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(is_settled(item, template) for item in value)
    return value is None or isinstance(value, (int, float, bytes, datetime, timedelta))


def texts_in(value: object) -> Iterator[str]:
    """Return all strings of a value, however deep, as Airflow finds templates."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple, set, frozenset)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


# Words that the API's members do not write with one capital.
_MEMBER_WORDS = {"ml": "ML"}


class _Checked:
    """A frozen dataclass that parses its fields, by the table of its class, when it is made."""

    PARSERS: ClassVar[Mapping[str, _Parser]]
    REQUIRED: ClassVar[frozenset[str]] = frozenset()
    # The hook, the operator and boto3's paginator call these fields by other names than the API.
    LABELS: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            object.__setattr__(self, field.name, self.parse(field.name, getattr(self, field.name)))

    @classmethod
    def parse(cls, name: str, value: object) -> Any:
        """Parse one field's value, or raise a ValueError that names it."""
        label = cls.LABELS.get(name, name)
        if is_blank(value):
            raise blank_value(label, value)
        if value is None and name not in cls.REQUIRED:
            return next(field.default for field in fields(cls) if field.name == name)  # type: ignore[arg-type]
        return cls.PARSERS[name](label, value)

    def to_boto(self) -> dict[str, Any]:
        """Give the keyword arguments for boto3."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]  # as above
        return {
            "".join(_MEMBER_WORDS.get(word, word.capitalize()) for word in name.split("_")): (
                list(value) if isinstance(value, tuple) else value
            )
            for name, value in given.items()
            if value is not None
        }

    @classmethod
    def check_settled(cls, template: re.Pattern[str] = TEMPLATE, /, **values: object) -> None:
        """
        Parse what is known when a DAG is parsed; what is still a template is checked when it runs.

        :param template: See :func:`template_pattern`.
        :param values: The fields' values.
        """
        settled = {name: value for name, value in values.items() if is_settled(value, template)}
        for name, value in settled.items():
            cls.parse(name, value)
        if len(settled) == len(values):
            cls(**values)


def _check_bounds(request: ListImageVersionsRequest | ListImagesRequest, listed: str) -> None:
    for kind in ("creation_time", "last_modified_time"):
        after, before = getattr(request, f"{kind}_after"), getattr(request, f"{kind}_before")
        if after is not None and before is not None and after > before:
            raise refuse(
                f"{kind}_after",
                after.isoformat(),
                f"it is later than {kind}_before={before.isoformat()!r}, so no {listed} could match.",
            )


@dataclass(frozen=True)
class ListImageVersionsRequest(_Checked):
    """
    A call of ListImageVersions, every member of it, checked against the service's own limits.

    Numbers and times may also be strings, as templates render them. ``""`` and ``"None"`` are errors.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param creation_time_after: Only versions created at or after this moment; an aware datetime or an ISO-8601
        string with an offset.
    :param creation_time_before: Only versions created at or before this moment.
    :param last_modified_time_after: Only versions modified at or after this moment.
    :param last_modified_time_before: Only versions modified at or before this moment.
    :param sort_by: ``CREATION_TIME`` (default), ``LAST_MODIFIED_TIME`` or ``VERSION``.
    :param sort_order: ``DESCENDING`` (default) or ``ASCENDING``.
    :param max_results: Versions a page, 1 to 100. Default 100, where the service's own default is 10.
    :param next_token: ``NextToken`` of an earlier answer to the same query, to go on from there.
    :raises ValueError: A value is outside the limits; the message names parameter, value and what is allowed.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
    """

    image_name: str
    creation_time_after: datetime | str | None = None
    creation_time_before: datetime | str | None = None
    last_modified_time_after: datetime | str | None = None
    last_modified_time_before: datetime | str | None = None
    sort_by: str = "CREATION_TIME"
    sort_order: str = "DESCENDING"
    max_results: int = PAGE_SIZE_MAX
    next_token: str | None = None

    REQUIRED: ClassVar[frozenset[str]] = frozenset({"image_name"})
    LABELS: ClassVar[Mapping[str, str]] = {
        "max_results": "page_size (MaxResults)",
        "next_token": "starting_token (NextToken)",
    }
    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        "image_name": parse_image_name,
        "creation_time_after": parse_time,
        "creation_time_before": parse_time,
        "last_modified_time_after": parse_time,
        "last_modified_time_before": parse_time,
        "sort_by": lambda name, value: parse_choice(name, value, choices=SORT_BY),
        "sort_order": lambda name, value: parse_choice(name, value, choices=SORT_ORDER),
        "max_results": lambda name, value: parse_integer(name, value, minimum=1, maximum=PAGE_SIZE_MAX),
        "next_token": parse_token,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self, "version")


@dataclass(frozen=True)
class ListImagesRequest(_Checked):
    """
    A call of ListImages, every member of it, checked against SageMaker's own limits.

    :param name_contains: Only images with this text in their names: 1 to 63 letters, digits, hyphens and dots.
    :param creation_time_after: Only images created at or after this moment; an aware datetime or an ISO-8601 string
        with an offset.
    :param creation_time_before: Only images created at or before this moment.
    :param last_modified_time_after: Only images modified at or after this moment.
    :param last_modified_time_before: Only images modified at or before this moment.
    :param sort_by: ``CREATION_TIME``, ``LAST_MODIFIED_TIME`` or ``IMAGE_NAME``. (default: ``CREATION_TIME``)
    :param sort_order: ``DESCENDING`` or ``ASCENDING``. (default: ``DESCENDING``)
    :param max_results: Images per page, 1 to 100. (default: 100, where SageMaker's own default is 10)
    :param next_token: ``NextToken`` of an earlier answer to the same query, to continue from there.
    :raises ValueError: A value is outside the limits; the message names parameter, value and what is allowed.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImages.html
    """

    name_contains: str | None = None
    creation_time_after: datetime | str | None = None
    creation_time_before: datetime | str | None = None
    last_modified_time_after: datetime | str | None = None
    last_modified_time_before: datetime | str | None = None
    sort_by: str = "CREATION_TIME"
    sort_order: str = "DESCENDING"
    max_results: int = PAGE_SIZE_MAX
    next_token: str | None = None

    LABELS: ClassVar[Mapping[str, str]] = ListImageVersionsRequest.LABELS
    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        **{name: parse for name, parse in ListImageVersionsRequest.PARSERS.items() if name != "image_name"},
        "name_contains": _text(_IMAGE_NAME_MAX, "a part of an image's name", r"[a-zA-Z0-9\-.]+"),
        "sort_by": _choice("CREATION_TIME", "LAST_MODIFIED_TIME", "IMAGE_NAME"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self, "image")


@dataclass(frozen=True)
class CreateImageRequest(_Checked):
    """
    A call of CreateImage, every member of it, checked against the service's own limits.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param role_arn: ARN of the IAM role that SageMaker pulls the container images with.
    :param display_name: Name to show, 1 to 128 characters.
    :param description: Up to 512 characters.
    :param tags: Up to 50, as a dict or as AWS's list of ``{"Key": ..., "Value": ...}``.
    :raises ValueError: A value is outside the limits; the message names parameter, value and what is allowed.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImage.html
    """

    image_name: str
    role_arn: str
    display_name: str | None = None
    description: str | None = None
    tags: Mapping[str, str] | Iterable[Mapping[str, str]] | None = None

    REQUIRED: ClassVar[frozenset[str]] = frozenset({"image_name", "role_arn"})
    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        "image_name": parse_image_name,
        "role_arn": _text(
            2048, "the ARN of an IAM role", r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+", minimum=20
        ),
        "display_name": _text(128, "text that neither starts nor ends with a space", r"\S(.*\S)?"),
        "description": _text(512),
        "tags": parse_tags,
    }


_METADATA: Mapping[str, _Parser] = {
    "vendor_guidance": _choice("NOT_PROVIDED", "STABLE", "TO_BE_ARCHIVED", "ARCHIVED"),
    "job_type": _choice("TRAINING", "INFERENCE", "NOTEBOOK_KERNEL"),
    "ml_framework": _text(128, "a name and a version such as 'PyTorch 2.4'", r"[a-zA-Z]+ ?\d+\.\d+(\.\d+)?"),
    "programming_lang": _text(128, "a name and a version such as 'Python 3.11'", r"[a-zA-Z]+ ?\d+\.\d+(\.\d+)?"),
    "processor": _choice("CPU", "GPU"),
    "horovod": parse_boolean,
    "release_notes": _text(255),
}


@dataclass(frozen=True)
class CreateImageVersionRequest(_Checked):
    """
    A call of CreateImageVersion, every member of it but the ClientToken, checked against the service's own limits.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param base_image: Registry path of the container image in Amazon ECR, up to 255 characters.
    :param aliases: Aliases for the version, each of 1 to 128 letters, digits, hyphens, underscores and dots.
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``.
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``.
    :param ml_framework: Name and version, such as ``PyTorch 2.4``.
    :param programming_lang: Name and version, such as ``Python 3.11``.
    :param processor: ``CPU`` or ``GPU``.
    :param horovod: Whether it is compatible with Horovod.
    :param release_notes: Up to 255 characters.
    :raises ValueError: A value is outside the limits; the message names parameter, value and what is allowed.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImageVersion.html
    """

    image_name: str
    base_image: str
    aliases: Iterable[str] | str | None = None
    vendor_guidance: str | None = None
    job_type: str | None = None
    ml_framework: str | None = None
    programming_lang: str | None = None
    processor: str | None = None
    horovod: bool | str | None = None
    release_notes: str | None = None

    REQUIRED: ClassVar[frozenset[str]] = frozenset({"image_name", "base_image"})
    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        "image_name": parse_image_name,
        "base_image": _text(255, "the registry path of a container image"),
        "aliases": parse_aliases,
        **_METADATA,
    }

    def client_token(self, *identity: object) -> str:
        """
        Return the ClientToken by which SageMaker knows a repetition of the request, as long as it remembers the token.

        :param identity: JSON that names whose request it is.
        """
        said = json.dumps([*identity, self.to_boto()], sort_keys=True)
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"airflow_provider_imageversions:{said}"))


@dataclass(frozen=True)
class UpdateImageVersionRequest(_Checked):
    """
    A call of UpdateImageVersion, every member of it but Alias, checked against the service's own limits.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param version: The version's number, 0 or more.
    :param aliases_to_add: Aliases that the version is to have and no other version has.
    :param aliases_to_delete: Aliases that the version has.
    :param vendor_guidance: Like the rest, as in :class:`CreateImageVersionRequest`.
    :param job_type: See there.
    :param ml_framework: See there.
    :param programming_lang: See there.
    :param processor: See there.
    :param horovod: See there.
    :param release_notes: See there.
    :raises ValueError: A value is outside the limits; the message names parameter, value and what is allowed.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImageVersion.html
    """

    image_name: str
    version: int
    aliases_to_add: Iterable[str] | str | None = None
    aliases_to_delete: Iterable[str] | str | None = None
    vendor_guidance: str | None = None
    job_type: str | None = None
    ml_framework: str | None = None
    programming_lang: str | None = None
    processor: str | None = None
    horovod: bool | str | None = None
    release_notes: str | None = None

    REQUIRED: ClassVar[frozenset[str]] = frozenset({"image_name", "version"})
    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        "image_name": parse_image_name,
        "version": lambda name, value: parse_integer(name, value, minimum=0),
        "aliases_to_add": parse_aliases,
        "aliases_to_delete": parse_aliases,
        **_METADATA,
    }


@dataclass(frozen=True)
class PrunePolicy(_Checked):
    """
    Which versions of an image to keep when the others are deleted.

    :param keep_newest: Keep this number of the newest CREATED versions.
    :param keep_younger_than: Keep versions created within this time, in seconds. Give at least one of the two.
    :param keep_versions: Keep the versions with these numbers. (default: none)
    :param keep_aliased: Keep versions that have an alias. (default: True)
    :param keep_used: Where to look for who uses a version, which keeps it. (default: nowhere)
    :param limit: Maximum number of versions to delete. (default: no limit)
    :param preview: Delete nothing, but return what would be deleted. (default: False)
    :raises ValueError: A value is outside the limits, or nothing says what to keep.
    """

    keep_newest: int | None = None
    keep_younger_than: float | None = None
    keep_versions: Iterable[int] | str = ()
    keep_aliased: bool = True
    keep_used: Iterable[str] | str | bool = ()
    limit: int | None = None
    preview: bool = False

    REQUIRED: ClassVar[frozenset[str]] = frozenset({"keep_aliased", "preview"})
    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        "keep_newest": lambda name, value: parse_integer(name, value, minimum=0),
        "keep_younger_than": parse_seconds,
        "keep_versions": parse_versions,
        "keep_aliased": parse_boolean,
        "keep_used": parse_scope,
        "limit": lambda name, value: parse_integer(name, value, minimum=0),
        "preview": parse_boolean,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_newest is None and self.keep_younger_than is None:
            raise ValueError(
                "keep_newest=None, keep_younger_than=None: say what to keep, for example keep_newest=10, or "
                "keep_younger_than=timedelta(days=90)."
            )


@dataclass(frozen=True)
class Target(_Checked):
    """
    What a wait is for. Without any of these: the image's latest version.

    :param version: This very version number, 0 or more; excludes the others.
    :param alias: The version that has this alias.
    :param after_version: Any version with a higher number than this one, 0 or more.
    :param created_after: Any version created at or after this moment; an aware datetime or an ISO-8601 string
        with an offset.
    :raises ValueError: A value is outside the limits, or ``version`` is combined with another.
    """

    version: int | None = None
    alias: str | None = None
    after_version: int | None = None
    created_after: datetime | str | None = None

    PARSERS: ClassVar[Mapping[str, _Parser]] = {
        "version": lambda name, value: parse_integer(name, value, minimum=0),
        "alias": parse_alias,
        "after_version": lambda name, value: parse_integer(name, value, minimum=0),
        "created_after": parse_time,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        others = [
            name
            for name in ("alias", "after_version", "created_after")
            if self.version is not None and getattr(self, name) is not None
        ]
        if others:
            raise ValueError(
                f"version={self.version} names one version and can't be combined with {', '.join(others)}: "
                f"leave out either version or {' and '.join(others)}."
            )

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


class Wait(NamedTuple):
    """What a sensor and its trigger wait for."""

    image_name: str
    target: Target
    include_details: bool

    @classmethod
    def of(cls, source: Any) -> Wait:
        """
        Parse the parameters of a sensor or a trigger.

        :param source: What has an attribute for each of :data:`WAIT_PARAMETERS`.
        :raises ValueError: One of them is outside its limits.
        """
        return cls(
            parse_image_name("image_name", source.image_name),
            Target(**{field.name: getattr(source, field.name) for field in fields(Target)}),
            parse_boolean("include_details", source.include_details),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON, equal for equal waits."""
        target = {field.name: getattr(self.target, field.name) for field in fields(Target)}
        texts = {name: value.isoformat() for name, value in target.items() if isinstance(value, datetime)}
        return {"image_name": self.image_name, **target, **texts, "include_details": self.include_details}


WAIT_PARAMETERS = ("image_name", *(field.name for field in fields(Target)), "include_details")


@dataclass(frozen=True)
class Watched(_Checked):
    """
    What a watcher tells of: versions that reach a status, or the moves of an alias.

    :param image_name: Name of the image.
    :param statuses: CREATED, CREATE_FAILED or both; only CREATED with ``alias``.
    :param start_from: ``"latest"``, ``"earliest"``, a version number or an aware time; one of the words with ``alias``.
    :param alias: The alias; ``None``: versions.
    :raises ValueError: A value is outside the limits, or goes with no ``alias``.
    """

    image_name: str
    statuses: Iterable[str] | str
    start_from: str | int | datetime
    alias: str | None

    REQUIRED: ClassVar[frozenset[str]] = frozenset({"image_name", "statuses", "start_from", "alias"})
    PARSERS: ClassVar[Mapping[str, Callable[[str, object], Any]]] = {
        "image_name": parse_image_name,
        "statuses": lambda name, value: parse_names(name, value, choices=WATCHED_STATUSES),
        "start_from": parse_start_from,
        "alias": lambda name, value: None if value is None else parse_alias(name, value),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alias is None:
            return
        if set(self.statuses) != set(WATCHED_BY_DEFAULT):
            raise refuse(
                "statuses",
                self.statuses,
                f"with alias={self.alias!r} a version is told of when it is CREATED; leave out statuses or alias.",
            )
        if self.start_from not in {"latest", "earliest"}:
            raise refuse(
                "start_from",
                self.start_from,
                f"with alias={self.alias!r} it is 'latest' (tell of moves from now on) or 'earliest' (tell of the "
                "version that has the alias now, too).",
            )
