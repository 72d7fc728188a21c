"""
Pages of an ordered list, and the tokens between them.

A token holds the sort key of the last item that was handed out, not an offset: the next page begins right
after that key, so a version that appears or goes away between two pages neither repeats nor hides others.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_imageversions.emulator.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What an item is ordered by, and a tie-break that is unique in its list.
Key: TypeAlias = "tuple[Any, Any]"

DEFAULT_PAGE_SIZE = 10


@dataclass(frozen=True)
class Token:
    """
    A place in the answer to one query.

    :param query: the operation and all its parameters but the token and the page size
    :param position: key of the last item handed out; None is the beginning
    :param salt: makes tokens for the same place differ; only injected faults need it
    """

    query: str
    position: Key | None = None
    salt: int = 0

    @classmethod
    def of(cls, operation: str, parameters: dict[str, Any]) -> Token:
        """
        Return the place where a request starts.

        :param operation: the list operation
        :param parameters: the request's parameters
        :raises ApiError: if the request's NextToken is malformed or belongs to another query
        """
        asked = {k: v for k, v in parameters.items() if k not in {"NextToken", "MaxResults"}}
        start = cls(json.dumps([operation, asked], sort_keys=True))
        # AWS's own templates send an empty NextToken with the first call.
        if not parameters.get("NextToken"):
            return start
        try:
            _, position, salt = json.loads(base64.urlsafe_b64decode(parameters["NextToken"]))
            token = replace(start, position=None if position is None else tuple(position), salt=salt)
        except (ValueError, TypeError) as error:
            raise _invalid_token() from error
        if str(token) != parameters["NextToken"]:
            raise _invalid_token()
        return token

    def at(self, position: Key) -> Token:
        """
        Return the token for another place of the same query.

        :param position: key of the last item handed out
        """
        return replace(self, position=position, salt=0)

    def __str__(self) -> str:
        place = [self.position, self.salt]
        seal = hashlib.sha256(json.dumps([self.query, *place]).encode()).hexdigest()[:24]
        return base64.urlsafe_b64encode(json.dumps([seal, *place]).encode()).decode()


def _invalid_token() -> ApiError:
    return ApiError("ValidationException", "The NextToken is invalid or belongs to another request.")


def cut_page(
    keys: list[Key],
    token: Token,
    size: int | None,
    *,
    descending: bool = False,
    bounds: tuple[Any, Any] = (None, None),
    matches: Callable[[Key], bool] | None = None,
) -> tuple[list[Key], Token | None]:
    """
    Cut one page out of sorted keys; return it with the token of the next one, if there is one.

    :param keys: all keys, ascending
    :param token: where the page starts
    :param size: how many keys at most
    :param descending: walk from the highest key down
    :param bounds: lowest and highest sort value, both inclusive
    :param matches: which keys to keep
    """
    low, high = bounds
    start = 0 if low is None else bisect_left(keys, low, key=_sort_value)
    end = len(keys) if high is None else bisect_right(keys, high, key=_sort_value)
    if token.position is not None and descending:
        end = min(end, bisect_left(keys, token.position))
    elif token.position is not None:
        start = max(start, bisect_right(keys, token.position))
    indexes = range(end - 1, start - 1, -1) if descending else range(start, end)
    wanted: Iterator[Key] = (keys[index] for index in indexes)
    if matches is not None:
        wanted = filter(matches, wanted)
    page = list(itertools.islice(wanted, size or DEFAULT_PAGE_SIZE))
    more = next(wanted, None) is not None
    return page, token.at(page[-1]) if more else None


def _sort_value(key: Key) -> Any:
    return key[0]
