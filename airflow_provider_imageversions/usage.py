"""Find who uses which version of an image, at a limited rate, starting with the scopes that need the fewest calls."""

from __future__ import annotations

import math
import random
import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import botocore.exceptions

from airflow_provider_imageversions import decide, errors, studio
from airflow_provider_imageversions._botocore import broken_response, complete, iter_pages, with_note
from airflow_provider_imageversions._parameters import USAGE_SCOPES
from airflow_provider_imageversions.model import ErrorKind, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from airflow_provider_imageversions._requests import UsageRequest
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

T = TypeVar("T")

LARGE = 100
"""Number of calls above which the log says how long reading will take."""
PROGRESS_PAUSE = 30.0
"""Minimum time in seconds between two log lines about progress."""
PATIENCE = 300.0
"""Maximum time in seconds to retry a call that is throttled, or that fails because of the network."""
_SLOWEST_RATE = 0.1
_LONGEST_PAUSE = 20.0
_PASSING = {ErrorKind.THROTTLED, ErrorKind.TRANSIENT}
_KINDS = {"domains": "domain", "apps": "app", "user_profiles": "user_profile", "spaces": "space"}
_REQUIRED = {
    "domains": ("DomainId",),
    "apps": ("DomainId", "AppType", "AppName"),
    "user_profiles": ("DomainId", "UserProfileName"),
    "spaces": ("DomainId", "SpaceName"),
}
_IDENTITY = ("DomainId", "UserProfileName", "SpaceName", "AppType", "AppName")


class Pace:
    """
    Limit the rate of API calls.

    :param calls_per_second: Maximum number of calls per second. While SageMaker throttles, it is halved repeatedly.
    :param timeout: Time in seconds after which no more calls are made. (default: no limit)
    """

    def __init__(self, calls_per_second: float, timeout: float | None = None) -> None:
        self._full_rate = self.rate = calls_per_second
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._next = time.monotonic()
        self.calls = 0

    def call(self, step: Callable[[], T]) -> T:
        """
        Make a call at the limited rate, and retry it after temporary errors.

        :param step: Function that makes one API call.
        :raises TimeoutError: The timeout is over.
        :raises Exception: The step's error, if it is not temporary, or lasts for five minutes or until the timeout.
        """
        patience_until = time.monotonic() + PATIENCE
        while True:
            if max(self._next, time.monotonic()) > self._deadline:
                raise TimeoutError("reading the settings of SageMaker Studio takes longer than the timeout.")
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = max(self._next, time.monotonic()) + 1 / self.rate
            self.calls += 1
            try:
                result = step()
            except Exception as error:
                now = time.monotonic()
                if errors.classify_error(error) not in _PASSING or now > patience_until or now >= self._deadline:
                    raise
                self.rate = max(self.rate / 2, min(_SLOWEST_RATE, self._full_rate))
                pause = random.uniform(0.5, 1.0) * min(1 / self.rate, _LONGEST_PAUSE)  # noqa: S311  # spreads calls
                # The last try is at the deadline, so that its error is raised rather than a TimeoutError.
                self._next = min(now + pause, self._deadline)
            else:
                self.rate = min(self.rate + self._full_rate / 20, self._full_rate)
                return result


def find_newest(hook: SageMakerImageVersionsHook, image_name: str) -> int | None:
    """
    Return the number of the newest CREATED version; ``None`` if no version is CREATED.

    :param hook: The hook.
    :param image_name: Name of the image.
    """
    return decide.newest_created(
        hook.iter_image_versions(image_name, sort_by="VERSION", statuses=[decide.CREATED], limit=1)
    )


class UsageReader:
    """
    Read who uses which version of an image.

    :param hook: The hook.
    :param request: Which image, and where to check.
    :param pace: Limits the rate of API calls.
    """

    def __init__(self, hook: SageMakerImageVersionsHook, request: UsageRequest, pace: Pace) -> None:
        self._hook = hook
        self._image_name = request.image_name
        self._scope = [name for name in USAGE_SCOPES if name in request.scope]
        self._domain_id = request.domain_id
        self._pace = pace
        self._logged_at = time.monotonic()

    def read(self) -> dict[str, list[dict[str, Any]]]:
        """
        Read the settings, and resolve their references.

        :return: See :meth:`SageMakerImageVersionsHook.find_image_version_usage`.
        """
        arn = self._pace.call(lambda: self._hook.describe_image(self._image_name))["ImageArn"]
        found = [
            reference
            for name in self._scope
            for document in self._documents(name)
            for reference in self._references(name, document, arn)
        ]
        follows_newest = any(reference.version is None and reference.alias is None for reference in found)
        newest = self._pace.call(partial(find_newest, self._hook, self._image_name)) if follows_newest else None
        aliases = {reference.alias for reference in found if reference.alias is not None}
        owners = {alias: self._pace.call(partial(self._owner, alias)) for alias in aliases}
        used = studio.usage(found, newest=newest, owners=owners, knows_apps="apps" in self._scope)
        self._log("found %d versions in use (%s; %d API calls)", len(used), ", ".join(self._scope), self._pace.calls)
        return used

    def _references(self, scope: str, document: Mapping[str, Any], image_arn: str) -> list[studio.Reference]:
        try:
            return list(studio.references(_KINDS[scope], document, self._image_name, image_arn))
        except (AttributeError, KeyError, TypeError) as error:
            raise broken_response(describe_error(error)) from error

    def _documents(self, scope: str) -> Iterator[Mapping[str, Any]]:
        listed = self._list(scope)
        if scope == "apps":
            # The list has what the settings of other resources have.
            yield from listed
            return
        describe: Callable[..., Mapping[str, Any] | None] = self._call
        if scope != "domains" or self._domain_id is None:
            # One that was listed may be deleted before it is described.
            describe = partial(errors.none_if_not_found, self._call)
        total, what, rate = len(listed), scope.replace("_", " "), self._pace.rate
        if total >= LARGE:
            self._log(
                "describing %d %s takes about %.0f seconds at %g calls per second", total, what, total / rate, rate
            )
        for number, item in enumerate(listed):
            if time.monotonic() - self._logged_at > PROGRESS_PAUSE:
                self._logged_at = time.monotonic()
                self._log("described %d of %d %s", number, total, what)
            identity = {name: item[name] for name in _IDENTITY if name in item}
            described = describe(scope, self._hook.describe_studio, f"describe_{_KINDS[scope]}", identity=identity)
            if described is not None:
                yield described

    def _list(self, scope: str) -> Collection[Mapping[str, Any]]:
        """List all resources, each once, even if one moves to a later page because another was added in between."""
        operation, domain = f"list_{scope}", self._domain_id
        if scope == "domains" and domain is not None:
            return [{"DomainId": domain}]
        pages = iter_pages(
            lambda token: self._call(scope, self._hook.list_studio, operation, domain_id=domain, next_token=token),
            operation,
        )
        listed = chain.from_iterable(page[studio.LISTS[operation]] for page in pages)
        items = (complete(item, *_REQUIRED[scope], what="an item of a list") for item in listed)
        return {tuple(item.get(name) for name in _IDENTITY): item for item in items}.values()

    def _owner(self, alias: str) -> int | None:
        version = errors.none_if_not_found(self._hook.describe_image_version, self._image_name, alias=alias)
        if version is None:
            self._hook.log.warning(
                "SageMaker image %r: Studio refers to the alias %r, which no version has", self._image_name, alias
            )
            return None
        return version["Version"]

    def _call(self, scope: str, method: Callable[..., T], operation: str, **arguments: Any) -> T:
        """Make a call; if access is denied, add the permission to the error, and how to avoid needing it."""
        try:
            return self._pace.call(partial(method, operation, **arguments))
        except botocore.exceptions.ClientError as error:
            if not error.response["Error"].get("Code", "").startswith("AccessDenied"):
                raise
            action = "".join(word.capitalize() for word in operation.split("_"))
            note = (
                f"finding out who uses SageMaker image {self._image_name!r} needs sagemaker:{action}: allow it, or "
                f"leave {scope!r} out of the scope"
            )
            raise with_note(error, note) from error

    def _log(self, message: str, *arguments: Any) -> None:
        self._hook.log.info("SageMaker image %r: %s", self._image_name, message % arguments)
