"""Helpers for botocore: settings, sessions and responses."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from functools import cache
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import botocore.loaders
import botocore.parsers
import botocore.utils
from botocore.config import Config

from airflow_provider_imageversions._parameters import truncated_repr
from airflow_provider_imageversions.model import to_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_imageversions._requests import Request
    from airflow_provider_imageversions.model import ImageVersion


def parse_stored_config(name: str, value: object) -> dict[str, Any]:
    """Return botocore's settings, which are stored in a trigger's arguments and in a task's rendered fields."""
    config = parse_config(name, value)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid, it is not JSON: {error}") from error
    if re.search(r"//[^/\"@]*@", text) or "@" in json.dumps(config.get("proxies")):
        raise ValueError(
            f"{name} contains an address with a password, which the task's rendered fields would show. Set it in "
            "config_kwargs of the Airflow connection."
        )
    return config


def parse_config(name: str, value: object) -> dict[str, Any]:
    """Return the keyword arguments of botocore's Config. Error messages do not show values, which may be secrets."""
    if not isinstance(value, dict):
        raise ValueError(
            f"{name} is not valid, it is a {type(value).__name__}: it must be a dict of botocore.config.Config's "
            "keyword arguments."
        )
    try:
        Config(**value)
    except (AttributeError, TypeError, ValueError, botocore.exceptions.BotoCoreError) as error:
        raise ValueError(
            f"{name} is not valid, {truncated_repr(str(error))}: {[truncated_repr(option) for option in value]}"
        ) from error
    return value


# The resources of a call, from the part to the whole.
_SUBJECTS = (
    ("Alias", "alias {!r}"),
    ("Version", "version {}"),
    ("ImageName", "image {!r}"),
    ("UserProfileName", "user profile {!r}"),
    ("SpaceName", "space {!r}"),
    ("DomainId", "domain {!r}"),
    ("DomainIdEquals", "domain {!r}"),
    ("AppImageConfigName", "app image config {!r}"),
)


def subject_of(request: Mapping[str, Any]) -> str:
    """Return the resource of a call, such as ``version 3 of image 'my-image'``."""
    return " of ".join(form.format(request[name]) for name, form in _SUBJECTS if name in request)


def with_note(error: botocore.exceptions.ClientError, note: str) -> botocore.exceptions.ClientError:
    """Return the error with a note added to its message."""
    details = error.response["Error"]
    answer: Any = {**error.response, "Error": {**details, "Message": f"{details.get('Message', '')} ({note})"}}
    return type(error)(answer, error.operation_name)


def fractional_bounds(request: Request) -> dict[str, datetime]:
    """Return the bounds that :func:`whole_seconds` changes."""
    return {
        name: value for name, value in request.to_boto().items() if isinstance(value, datetime) and value.microsecond
    }


def whole_seconds(request: Request) -> dict[str, Any]:
    """Return the members of a request, with upper bounds rounded up to whole seconds."""
    # Older versions of botocore truncate fractions of a second, so that an upper bound would exclude too much.
    return {name: _ceiled(value) if "Before" in name else value for name, value in request.to_boto().items()}


def _ceiled(moment: datetime) -> datetime:
    """Round a moment in UTC up to a whole second, but not beyond the calendar."""
    whole = moment.replace(microsecond=0)
    return whole if moment.microsecond == 0 or whole == _LAST_SECOND else whole + timedelta(seconds=1)


_LAST_SECOND = datetime.max.replace(microsecond=0, tzinfo=timezone.utc)


def is_of_request(error: Exception) -> bool:
    """
    Return whether botocore raised an error while it signed or sent a request, rather than for its response.

    :param error: An exception that is not one of botocore's own.
    """
    modules = {frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__)}
    return not modules.isdisjoint({"botocore.auth", "botocore.awsrequest", "botocore.httpsession", "botocore.signers"})


def broken_response(problem: str, service: str = "SageMaker") -> botocore.parsers.ResponseParserError:
    """Return the error for a response that the service would not send."""
    return botocore.parsers.ResponseParserError(f"{service}'s response is broken: {problem}.")


def complete(answer: Any, *keys: str, what: str = "it") -> Mapping[str, Any]:
    """Return a response that has some keys. botocore returns an empty response for a body that is not JSON."""
    for key in keys:
        if not isinstance(answer, dict) or answer.get(key) is None:
            raise broken_response(f"{what} has no {key}")
    return answer  # type: ignore[no-any-return]  # it is a dict now


def iter_pages(
    fetch: Callable[[str | None], Mapping[str, Any]], what: str, token: str | None = None
) -> Iterator[Mapping[str, Any]]:
    """
    Yield the pages of a list. Unlike botocore's paginator, this detects tokens that repeat in a longer cycle.

    :param fetch: Function that returns the page for a NextToken; ``None`` for the first page.
    :param what: The list, for the error message.
    :param token: NextToken of the page to start from. (default: the first page)
    :raises botocore.exceptions.PaginationError: SageMaker returned a repeating NextToken.
    """
    tokens = {token}
    while True:
        page = fetch(token)
        yield page
        token = page.get("NextToken")
        if not token:
            return
        if token in tokens:
            raise botocore.exceptions.PaginationError(message=f"{what}: SageMaker returned a repeating NextToken")
        tokens.add(token)


_RECORD_TYPES = {"Version": int, "ImageVersionStatus": str, "ImageVersionArn": str, "CreationTime": datetime}


def version_record(item: Any) -> ImageVersion:
    """Return the record of a version from an item of a response, after checking its required members."""
    for key, expected in _RECORD_TYPES.items():
        if not isinstance(item, dict) or not isinstance(item.get(key), expected):
            raise broken_response(f"a version has no {key}")
    return to_record(item)


@cache
def shared_loader(data_path: str | None) -> botocore.loaders.Loader:
    """Return the loader of service models that all sessions share."""
    # Otherwise, each session loads SageMaker's service model again: a third of a second and 2 MB.
    return botocore.loaders.create_loader(data_path)


def parse_timestamp(value: Any) -> datetime:
    """Return a timestamp of a response as a datetime in UTC."""
    # botocore's own parser, which converts to the local time zone first, takes half of the time of a page.
    try:
        return datetime.fromtimestamp(value, timezone.utc)
    except TypeError:
        parsed: datetime = botocore.utils.parse_timestamp(value)
        return parsed
