"""Find who uses which version of an image, at a limited rate, starting with the scopes that need the fewest calls."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

import botocore.exceptions

from airflow_provider_imageversions import decide, studio
from airflow_provider_imageversions._parameters import USAGE_SCOPES
from airflow_provider_imageversions.errors import ErrorKind, classify_error, none_if_not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

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
# Each scope needs calls to list its resources and, except for apps, a call to describe each of them.
_IDENTITY = ("DomainId", "UserProfileName", "SpaceName", "AppType", "AppName")
_ACTIONS = {
    "domains": ("domain", "list_domains", "describe_domain"),
    "apps": ("app", "list_apps", None),
    "user_profiles": ("user_profile", "list_user_profiles", "describe_user_profile"),
    "spaces": ("space", "list_spaces", "describe_space"),
}


class Pace:
    """
    Limit the rate of API calls.

    :param calls_per_second: Maximum number of calls per second. While SageMaker throttles, it is halved repeatedly.
    """

    def __init__(self, calls_per_second: float) -> None:
        self._full_rate = self.rate = calls_per_second
        self._next = time.monotonic()
        self.calls = 0

    def call(self, step: Callable[[], T]) -> T:
        """
        Make a call at the limited rate, and retry it after temporary errors.

        :param step: Function that makes one API call.
        :raises Exception: The step's error, if it is not temporary or has lasted for five minutes.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = max(self._next, time.monotonic()) + 1 / self.rate
            self.calls += 1
            try:
                result = step()
            except Exception as error:
                if classify_error(error) not in _PASSING or time.monotonic() > deadline:
                    raise
                self.rate = max(self.rate / 2, min(_SLOWEST_RATE, self._full_rate))
                pause = random.uniform(0.5, 1.0) * min(1 / self.rate, _LONGEST_PAUSE)  # noqa: S311  # spreads calls
                self._next = time.monotonic() + pause
            else:
                self.rate = min(self.rate + self._full_rate / 20, self._full_rate)
                return result


class UsageReader:
    """
    Read who uses which version of an image.

    :param hook: The hook.
    :param image_name: Name of the image.
    :param pace: Limits the rate of API calls.
    :param domain_id: Read only this domain. (default: all domains)
    """

    def __init__(
        self, hook: SageMakerImageVersionsHook, image_name: str, pace: Pace, domain_id: str | None = None
    ) -> None:
        self._hook = hook
        self._image_name = image_name
        self._pace = pace
        self._domain_id = domain_id
        self._logged_at = time.monotonic()

    def read(self, scope: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """
        Read the settings, and resolve their references.

        :param scope: Some of :data:`~airflow_provider_imageversions.model.USAGE_SCOPES`.
        :return: See :meth:`SageMakerImageVersionsHook.find_image_version_usage`.
        """
        wanted = [name for name in USAGE_SCOPES if name in set(scope)]
        arn = self._pace.call(lambda: self._hook.describe_image(self._image_name))["ImageArn"]
        found = [
            reference
            for name in wanted
            for document in self._documents(name)
            for reference in studio.references(_ACTIONS[name][0], document, self._image_name, arn)
        ]
        newest, owners = None, {}
        if any(reference.version is None and reference.alias is None for reference in found):
            newest = self._newest()
        for alias in {reference.alias for reference in found if reference.alias is not None}:
            owners[alias] = self._owner(alias)
        used = studio.usage(found, newest=newest, owners=owners, knows_apps="apps" in wanted)
        self._log("found %d versions in use (%s; %d API calls)", len(used), ", ".join(wanted), self._pace.calls)
        return used

    def _documents(self, scope: str) -> Iterator[Mapping[str, Any]]:
        _, list_operation, describe_operation = _ACTIONS[scope]
        if scope == "domains" and self._domain_id is not None:
            listed: dict[tuple[Any, ...], Mapping[str, Any]] = {(self._domain_id,): {"DomainId": self._domain_id}}
        else:
            listed = self._list(scope, list_operation)
        if describe_operation is None:
            yield from listed.values()
            return
        if len(listed) >= LARGE:
            self._log(
                f"describing %d {scope.replace('_', ' ')} takes about %.0f seconds at %g calls per second",
                len(listed),
                len(listed) / self._pace.rate,
                self._pace.rate,
            )
        for number, item in enumerate(listed.values()):
            if time.monotonic() - self._logged_at > PROGRESS_PAUSE:
                self._logged_at = time.monotonic()
                self._log(f"described %d of %d {scope.replace('_', ' ')}", number, len(listed))
            identity = {name: item[name] for name in ("DomainId", "UserProfileName", "SpaceName") if name in item}
            described = self._describe(scope, describe_operation, identity)
            # Otherwise, it was deleted after it was listed.
            if described is not None:
                yield described

    def _list(self, scope: str, operation: str) -> dict[tuple[Any, ...], Mapping[str, Any]]:
        """List all resources, each once, even if one moves to a later page because another was added in between."""
        listed: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        tokens: set[str | None] = {None}
        token: str | None = None
        while True:
            page = self._pace.call(lambda: self._list_page(scope, operation, token))  # noqa: B023  # called at once
            listed.update({tuple(item.get(name) for name in _IDENTITY): item for item in page[studio.LISTS[operation]]})
            token = page.get("NextToken") or None
            if token is None:
                return listed
            if token in tokens:
                raise botocore.exceptions.PaginationError(
                    message=f"{operation}: SageMaker returned a repeating NextToken"
                )
            tokens.add(token)

    def _list_page(self, scope: str, operation: str, token: str | None) -> Mapping[str, Any]:
        domain = self._domain_id if scope != "domains" else None
        return self._explained(
            scope, operation, lambda: self._hook.list_studio(operation, domain_id=domain, next_token=token)
        )

    def _describe(self, scope: str, operation: str, identity: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return self._pace.call(
            lambda: self._explained(
                scope, operation, lambda: none_if_not_found(self._hook.describe_studio, operation, identity)
            )
        )

    def _newest(self) -> int | None:
        def newest() -> int | None:
            versions = self._hook.iter_image_versions(
                self._image_name, sort_by="VERSION", statuses=[decide.CREATED], limit=1
            )
            return decide.newest_created(versions)

        return self._pace.call(newest)

    def _owner(self, alias: str) -> int | None:
        version = self._pace.call(
            lambda: none_if_not_found(self._hook.describe_image_version, self._image_name, alias=alias)
        )
        if version is None:
            self._hook.log.warning(
                "SageMaker image %r: Studio refers to the alias %r, which no version has", self._image_name, alias
            )
            return None
        return version["Version"]

    def _explained(self, scope: str, operation: str, step: Callable[[], T]) -> T:
        """Add the missing permission, and how to avoid needing it, to an access-denied error."""
        try:
            return step()
        except botocore.exceptions.ClientError as error:
            code = error.response["Error"].get("Code", "")
            if not code.startswith("AccessDenied"):
                raise
            action = "".join(word.capitalize() for word in operation.split("_"))
            answer: Any = {**error.response, "Error": {**error.response["Error"]}}
            answer["Error"]["Message"] = (
                f"{answer['Error'].get('Message', 'access denied')} (finding out who uses SageMaker image "
                f"{self._image_name!r} needs sagemaker:{action}: allow it, or leave {scope!r} out of the scope)"
            )
            raise type(error)(answer, error.operation_name) from error

    def _log(self, message: str, *arguments: Any) -> None:
        self._hook.log.info("SageMaker image %r: %s", self._image_name, message % arguments)
