"""
Parsers for parameters with SageMaker's limits, templates, and the base class of parameter lists.

Pure: no Airflow, no boto, no clock, no log. The limits are from SageMaker's service model; a test compares them with
botocore's copy of it.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import attrs
from dateutil.parser import isoparse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from typing_extensions import Self

    Parser: TypeAlias = Callable[[str, Any], Any]
    _Fields: TypeAlias = list[attrs.Attribute[Any]]


class ImageVersionStatus(str, Enum):
    """The statuses of an image version in SageMaker."""

    CREATING = "CREATING"
    CREATED = "CREATED"
    CREATE_FAILED = "CREATE_FAILED"
    DELETING = "DELETING"
    DELETE_FAILED = "DELETE_FAILED"


_IMAGE_NAME = re.compile(r"[a-zA-Z0-9]([-.]?[a-zA-Z0-9]){0,62}")
_ALIAS = re.compile(r"(?![.-])[a-zA-Z0-9-_.]+")
_IMAGE_NAME_MAX = 63
_ALIAS_MAX = 128
_NEXT_TOKEN_MAX = 8192
PAGE_SIZE_MAX = 100
SORT_ORDER = ("ASCENDING", "DESCENDING")
_TAGS_MAX, _TAG_KEY_MAX, _TAG_VALUE_MAX = 50, 128, 256
_REPR_MAX = 200
_INTEGER_MAX = 2**31 - 1  # limit of an integer in AWS's APIs
SECONDS_MAX = 100 * 365 * 86400.0  # beyond that, times are outside the calendar


def truncated_repr(value: object) -> str:
    """Return the representation of any value, shortened to 200 characters."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001  # a number of 5,000 digits, or a class whose repr fails
        return f"<{type(value).__name__}>"
    return shown if len(shown) <= _REPR_MAX else f"{shown[:_REPR_MAX]}... ({len(shown)} characters)"


def invalid_parameter(name: str, value: object, allowed: str) -> ValueError:
    """Return the error for a value that a parameter does not allow."""
    return ValueError(f"{name}={truncated_repr(value)} is not valid: {allowed}")


def blank_parameter(name: str, value: object) -> ValueError:
    """Return the error for a parameter that is set, but empty."""
    return invalid_parameter(
        name, value, "it is empty or rendered to nothing. Set a value, or leave the parameter out."
    )


def parse_image_name(name: str, value: object) -> str:
    """Return an image's name."""
    if (
        not isinstance(value, str)
        or len(value) > _IMAGE_NAME_MAX
        or not _IMAGE_NAME.fullmatch(value)
        or is_blank(value)  # "None" would be a valid name
    ):
        hint = (
            " Set it to the image's name, not its ARN." if isinstance(value, str) and value.startswith("arn:") else ""
        )
        raise invalid_parameter(
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

    :param registry: ID of the AWS account.
    :param region: The AWS region.
    :param repository: Name of the repository.
    :param tag: The tag.
    :param digest: The digest, if the path has one.
    """

    registry: str
    region: str
    repository: str
    tag: str
    digest: str | None


def parse_ecr_image(name: str, value: object) -> EcrImage:
    """Return the parts of a registry path in Amazon ECR."""
    found = _ECR_URI.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise invalid_parameter(
            name,
            value,
            "only_if_changed needs a registry path in Amazon ECR, "
            "ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY with a tag or a digest.",
        )
    return EcrImage(found["registry"], found["region"], found["repository"], found["tag"] or "latest", found["digest"])


def pattern_parser(pattern: str | re.Pattern[str], allowed: str) -> Callable[[str, object], str]:
    """Return a parser of text that matches a pattern; the error for other values says what is allowed."""
    matches = re.compile(pattern).fullmatch

    def parse(name: str, value: object) -> str:
        if not isinstance(value, str) or not matches(value):
            raise invalid_parameter(name, value, allowed)
        return value

    return parse


parse_domain_id = pattern_parser(
    r"d-(-*[a-z0-9]){1,61}", "set it to the domain's id, such as d-abcdefghijkl, not its name or ARN."
)
# "None" would be a valid name of a user profile or of an app image config.
parse_studio_name = pattern_parser(
    r"(?!None$)[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
    "it must be 1 to 63 letters, digits and hyphens, and not start or end with a hyphen.",
)


def parse_alias(name: str, value: object) -> str:
    """Return an image version's alias."""
    if is_blank(value):  # "None" would be a valid alias
        raise blank_parameter(name, value)
    if not isinstance(value, str) or len(value) > _ALIAS_MAX or not _ALIAS.fullmatch(value):
        raise invalid_parameter(
            name,
            value,
            f"an alias has 1 to {_ALIAS_MAX} letters, digits, hyphens, underscores and dots, and starts with "
            "a letter, digit or underscore.",
        )
    return value


def parse_time(name: str, value: object) -> datetime:
    """Return an aware datetime, or an ISO-8601 string with an offset, as a datetime in UTC."""
    moment = value
    if isinstance(value, str):
        # Otherwise, it remains a string, which is not a time. The end of the last day of the calendar overflows.
        with suppress(ValueError, OverflowError):
            moment = isoparse(value.strip())
    if not isinstance(moment, datetime):
        raise invalid_parameter(
            name, value, "a time is an aware datetime or an ISO-8601 string such as 2026-01-31T12:00:00+00:00."
        )
    if moment.utcoffset() is None:
        raise invalid_parameter(
            name,
            value,
            "it has no time zone, so it could mean different moments. Make it aware: append +00:00 to the "
            "string, or use datetime(..., tzinfo=timezone.utc) or pendulum.datetime(...).",
        )
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError as error:
        raise invalid_parameter(name, value, "it is outside the years 1 to 9999 in UTC.") from error


def parse_integer(name: str, value: object, *, minimum: int, maximum: int = _INTEGER_MAX) -> int:
    """Return an integer from an integer or a string of digits, as templates render to strings."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        number = int(value.strip())
    if isinstance(number, bool) or not isinstance(number, int):
        raise invalid_parameter(name, value, "it must be a whole number.")
    if not minimum <= number <= maximum:
        raise invalid_parameter(name, value, f"it must be {minimum} to {maximum}.")
    return number


def parse_version(name: str, value: object) -> int:
    """Return the number of a version, 0 or more."""
    return parse_integer(name, value, minimum=0)


def parse_mapping(name: str, value: object) -> dict[str, Any]:
    """Return a dict from a dict or from its JSON or Python text, as templates render to strings."""
    given = _parse_literal(name, value) if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise invalid_parameter(name, value, "it must be a dict.")
    return given


def parse_seconds(name: str, value: object, *, maximum: float = SECONDS_MAX) -> float:
    """Return a time in seconds above 0, from a number, a string or a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", seconds.strip()):
        seconds = float(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= maximum:
        raise invalid_parameter(
            name, value, f"it must be a time in seconds above 0, or a timedelta, up to {maximum:.0f} seconds."
        )
    return float(seconds)


def parse_rate(name: str, value: object) -> float:
    """Return a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise invalid_parameter(name, value, "it must be a number above 0.")
    return float(value)


def parse_boolean(name: str, value: object) -> bool:
    """Return a boolean from a boolean or the string ``True`` or ``False``."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    raise invalid_parameter(name, value, "it must be True or False.")


def choice_parser(*choices: str) -> Parser:
    """Return a parser of one of several choices, whose case does not matter."""
    spelled = {choice.upper(): choice for choice in choices}

    def parse(name: str, value: object) -> str:
        if isinstance(value, str) and value.strip().upper() in spelled:
            return spelled[value.strip().upper()]
        raise invalid_parameter(name, value, f"allowed are {', '.join(choices)}.")

    return parse


def parse_member(name: str, value: object, *, choices: tuple[str, ...]) -> str:
    """Return one of several choices, which are case-sensitive."""
    if isinstance(value, str) and value in choices:
        return value
    raise invalid_parameter(name, value, f"allowed are {', '.join(choices)}.")


def _parse_literal(name: str, value: str) -> object:
    """Return a list or a dict from JSON or Python text, as templates render to strings."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value.strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # noqa: PERF203  # one of two
            continue
    raise invalid_parameter(name, value, "it cannot be parsed as a list or a dict.")


def _parse_items(name: str, value: object, what: str) -> Collection[Any]:
    """Return the items of a list, a list as text or a comma-separated string."""
    items = value
    if isinstance(value, str):
        items = _parse_literal(name, value) if value.lstrip()[:1] in {"[", "("} else value.split(",")
    if isinstance(items, Sequence) and not isinstance(items, (str, bytes, bytearray)):
        items = list(items)  # the result of a mapped task, for example
    if not isinstance(items, (list, set, frozenset)):
        raise invalid_parameter(name, value, f"it must be a list of {what}, or a string that separates them by commas.")
    return items


def _parse_list(name: str, value: object) -> tuple[str, ...]:
    """Return strings from a list, a list as text or a comma-separated string."""
    items = _parse_items(name, value, "names")
    if not all(isinstance(item, str) for item in items):
        raise invalid_parameter(name, value, "each item must be a string.")
    # The order of a set differs between processes, and a retry must make the same request.
    ordered = sorted(items) if isinstance(items, (set, frozenset)) else items
    return tuple(dict.fromkeys(item.strip() for item in ordered))


def parse_names(name: str, value: object, *, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return some of several choices, from a list, a JSON list or a comma-separated string."""
    parsed = _parse_list(name, value)
    unknown = [item for item in parsed if item not in choices]
    if unknown or not parsed:
        raise invalid_parameter(name, value, f"allowed are {', '.join(choices)}, at least one of them.")
    return parsed


USAGE_SCOPES = ("domains", "apps", "user_profiles", "spaces")
"""Scopes in which a version can be in use, starting with those that need the fewest API calls."""


def parse_scope(name: str, value: object) -> tuple[str, ...]:
    """Return scopes, from a list, a comma-separated string, or a boolean for all scopes or none."""
    if value == ():
        return ()
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in {"true", "false"}):
        return USAGE_SCOPES if parse_boolean(name, value) else ()
    return parse_names(name, value, choices=USAGE_SCOPES)


def parse_aliases(name: str, value: object) -> tuple[str, ...]:
    """Return aliases, from a list, a JSON list or a comma-separated string."""
    return tuple(parse_alias(name, alias) for alias in _parse_list(name, value))


def parse_versions(name: str, value: object) -> tuple[int, ...]:
    """Return version numbers in ascending order, from a list, a JSON list, a comma-separated string or one number."""
    items = [value] if isinstance(value, int) else _parse_items(name, value, "version numbers")
    return tuple(sorted({parse_version(name, item) for item in items}))


def parse_tags(name: str, value: object) -> tuple[dict[str, str], ...]:
    """Return AWS's list of tags from such a list or a dict, which may be text."""
    given = _parse_literal(name, value) if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"} else value
    tags = [{"Key": key, "Value": tag} for key, tag in given.items()] if isinstance(given, dict) else given
    if not isinstance(tags, (list, tuple)) or len(tags) > _TAGS_MAX or not all(map(_is_tag, tags)):
        raise invalid_parameter(
            name,
            value,
            f"it must be up to {_TAGS_MAX} tags, as {{'key': 'value'}} or [{{'Key': 'key', 'Value': 'value'}}], with "
            "keys of 1 to 128 and values of up to 256 characters.",
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


def text_parser(maximum: int, form: str = "one line of text", pattern: str = ".*", minimum: int = 1) -> Parser:
    """Return a parser of text with SageMaker's limits."""

    def parse(name: str, value: object) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum or not re.fullmatch(pattern, value):
            raise invalid_parameter(name, value, f"it must be {form}, of {minimum} to {maximum} characters.")
        return value

    return parse


# It is opaque.
parse_token = text_parser(_NEXT_TOKEN_MAX, "the NextToken of an earlier response", r"(?s:.*)")


def parse_statuses(name: str, value: object) -> tuple[str, ...]:
    """Return statuses, from a list, a JSON list or a comma-separated string; lower case is accepted."""
    statuses = [item.upper() for item in _parse_list(name, value)]
    return parse_names(name, statuses, choices=tuple(status.value for status in ImageVersionStatus))


def parse_start_from(name: str, value: object) -> str | int | datetime:
    """Return where a watcher starts: ``"latest"``, ``"earliest"``, a version number or an aware time."""
    if value in ("latest", "earliest"):
        return str(value)
    if isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal()):
        return parse_version(name, value)
    try:
        return parse_time(name, value)
    except ValueError as error:
        raise ValueError(f"{error} Or set it to 'latest', 'earliest' or a version number.") from error


_CONN_ID = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]{1,250}")
_UNUSABLE_PATH = re.compile("[\x00\ud800-\udfff]")


def parse_conn_id(name: str, value: object) -> str | None:
    """Return the id of an Airflow connection; ``None`` and ``""`` mean boto3's default credentials."""
    if value is None or (isinstance(value, str) and (value == "" or _CONN_ID.fullmatch(value))):
        return value
    raise invalid_parameter(
        name, value, "it must be the id of an Airflow connection, or None for boto3's default credentials."
    )


parse_region = pattern_parser(
    r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)", "it must be the name of an AWS region, such as us-east-1."
)


def parse_verify(name: str, value: object) -> bool | str:
    """Return whether to verify TLS certificates, or the path of a CA bundle."""
    if isinstance(value, bool) or (isinstance(value, str) and not _UNUSABLE_PATH.search(value)):
        return value
    raise invalid_parameter(name, value, "it must be True, False or the path of a CA bundle.")


_QUEUE_URL = re.compile(
    r"(?:https://sqs(?:-fips)?\.(?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]+)\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov|api\.aws)|(?P<origin>http://[^/@\s?#]+))"
    r"/[0-9]{12}/[a-zA-Z0-9_-]{1,80}",
)


parse_queue_url = pattern_parser(
    _QUEUE_URL,
    "it must be the URL of a standard SQS queue, such as https://sqs.us-east-1.amazonaws.com/123456789012/NAME.",
)


def locate_queue(queue_url: str) -> tuple[str | None, str | None]:
    """
    Return the AWS region of a queue, or the endpoint of an emulator's queue, whose URL has no region.

    :param queue_url: URL of the queue.
    """
    found = _QUEUE_URL.fullmatch(queue_url)
    return (None, None) if found is None else (found["region"], found["origin"])


def is_blank(value: object) -> bool:
    """Return whether a string is empty, as when a template renders to nothing: ``""`` or ``"None"``."""
    return isinstance(value, str) and value.strip() in {"", "None"}


def is_rendered_blank(value: object) -> bool:
    """Return whether a template rendered to nothing, also if a filter such as ``tojson`` or ``lower`` spelled that."""
    return is_blank(value) or (isinstance(value, str) and value.strip().lower() in {"none", "null"})


def template_pattern(jinja_options: Mapping[str, Any] | None) -> re.Pattern[str]:
    """
    Return a pattern that matches the start of a template in a string.

    :param jinja_options: The ``jinja_environment_kwargs`` of a DAG, which may set other delimiters.
    """
    if not jinja_options:
        return TEMPLATE
    return _pattern_of(str(jinja_options.get(name, default)) for name, default in _JINJA_STARTS.items())


def _pattern_of(starts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(start) for start in starts if start))


_JINJA_STARTS = {
    "variable_start_string": "{{",
    "block_start_string": "{%",
    "comment_start_string": "{#",
    "line_statement_prefix": "",
    "line_comment_prefix": "",
}


TEMPLATE = _pattern_of(_JINJA_STARTS.values())


def is_literal(value: object, template: re.Pattern[str] = TEMPLATE) -> bool:
    """
    Return whether a value is known when the DAG is parsed, rather than a template or an XComArg.

    :param value: The value.
    :param template: See :func:`template_pattern`.
    """
    if isinstance(value, str):
        return not template.search(value)
    if isinstance(value, dict):
        return all(is_literal(item, template) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(is_literal(item, template) for item in value)
    return value is None or isinstance(value, (int, float, bytes, datetime, timedelta))


def iter_strings(value: object) -> Iterator[str]:
    """Yield all strings in a value, including nested ones, as Airflow finds templates."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple, set, frozenset)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from iter_strings(item)


# --- Parameter lists -------------------------------------------------------------------------------------


def parsed_by(parse: Parser, *, accepts_none: bool = True, member: str | None = "") -> dict[str, Any]:
    """
    Return the ``metadata`` of a field of :class:`Parameters`.

    :param parse: Parses the field's value.
    :param accepts_none: Whether ``None`` means the field's default, if it has one. (default: True)
    :param member: The member of the API's request; ``None`` if the field is not sent. (default: the field's name in
        camel case)
    """
    return {"parse": parse, "accepts_none": accepts_none, "member": member}


def with_converters(_cls: type, fields: _Fields) -> _Fields:
    """Convert each field with its parser; for ``attrs.frozen(field_transformer=...)`` of every parameter list."""
    return [field.evolve(converter=partial(_convert, field)) for field in fields]


def _convert(field: attrs.Attribute[Any], value: Any) -> Any:
    if is_blank(value):
        raise blank_parameter(field.name, value)
    if value is None and field.default is not attrs.NOTHING and field.metadata["accepts_none"]:
        return field.default
    return field.metadata["parse"](field.name, value)


@attrs.frozen(field_transformer=with_converters, slots=False)
class Parameters:
    """
    A parameter list. It defines template fields, keyword arguments and checks.

    Numbers and times may also be strings, as templates render them. ``""`` and ``"None"`` are errors.
    """

    RULES: ClassVar[tuple[Callable[..., None], ...]] = ()
    """Functions that raise a ValueError for values that cannot be combined; their arguments are named like fields."""
    PRESENCE_RULES: ClassVar[tuple[Callable[..., None], ...]] = ()
    """Rules that check only which values are set, so that they also apply to templates before rendering."""

    def __attrs_post_init__(self) -> None:
        _apply_rules((*self.PRESENCE_RULES, *self.RULES), {name: getattr(self, name) for name in self.names()})

    @classmethod
    @cache
    def names(cls) -> tuple[str, ...]:
        """Return the names of the parameters."""
        return tuple(field.name for field in attrs.fields(cls))

    @classmethod
    def of(cls, source: object) -> Self:
        """
        Parse the parameters from the attributes of an object, or from the items of a mapping.

        :param source: An operator, another parameter list, or ``locals()`` of a function with such arguments.
        :raises ValueError: A value is outside its limits; the message names the parameter and its value.
        """
        return cls(**cls._read(source))

    @classmethod
    def check_literals(cls, source: object, template: re.Pattern[str]) -> None:
        """
        Check the parameters that are known when a DAG is parsed; templates are checked when the task runs.

        :param source: See :meth:`of`.
        :param template: See :func:`template_pattern`.
        :raises ValueError: A value is outside its limits; the message names the parameter and its value.
        """
        fields, values = attrs.fields_dict(cls), cls._read(source)
        literals = {name: value for name, value in values.items() if is_literal(value, template)}
        parsed = {name: _convert(fields[name], value) for name, value in literals.items()}
        others = {name: value for name, value in values.items() if name not in literals}
        # A template always counts as set, whatever it renders to. An XComArg that is None does not.
        templates = {name: value for name, value in others.items() if any(map(template.search, iter_strings(value)))}
        _apply_rules(cls.PRESENCE_RULES, {**parsed, **templates})
        _apply_rules(cls.RULES, parsed)

    @classmethod
    def _read(cls, source: object) -> dict[str, Any]:
        if isinstance(source, dict):
            return {name: source[name] for name in cls.names()}
        return {name: getattr(source, name) for name in cls.names()}


def _apply_rules(rules: tuple[Callable[..., None], ...], values: Mapping[str, Any]) -> None:
    for rule in rules:
        names = _arguments_of(rule)
        if values.keys() >= set(names):
            rule(**{name: values[name] for name in names})


@lru_cache
def _arguments_of(rule: Callable[..., None]) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)
