"""Read the versions of an image for a poll."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import PAGE_SIZE_MAX
from airflow_provider_imageversions.errors import classify_error, none_if_not_found
from airflow_provider_imageversions.model import LISTED_FIELDS, ErrorKind, Target, VersionsAbove

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airflow_provider_imageversions._sessions import Log
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
    from airflow_provider_imageversions.model import ImageVersion

T = TypeVar("T")


@dataclass(frozen=True)
class PollResult:
    """
    The result of one poll.

    :param targets: The targets that were read. The result may not cover other targets.
    :param versions: Versions from the highest number down, as far as the targets need them. (default: none)
    :param outcomes: The outcome of each wait among the targets. (default: none)
    :param refused: Errors of aliases that could not be read, by alias, or of the list (``None``). (default: none)
    :param calls: Number of API calls. (default: 1)
    :param fault: Kind of error if the poll failed; the other fields are then empty. (default: ``None``)
    :param error: The exception, if the poll failed. (default: ``None``)
    :param lasting: Seconds since the first poll that failed with this kind of error. (default: 0)
    """

    targets: frozenset[Target | VersionsAbove]
    versions: tuple[ImageVersion, ...] = ()
    outcomes: Mapping[Target | VersionsAbove, decide.Outcome] = field(default_factory=dict)
    refused: Mapping[str | None, Exception] = field(default_factory=dict)
    calls: int = 1
    fault: ErrorKind | None = None
    error: Exception | None = None
    lasting: float = 0.0

    def covers(self, target: Target | VersionsAbove) -> bool:
        """Return whether this result is sufficient for the target."""
        if self.fault is not None or target in self.targets:
            return True
        return isinstance(target, VersionsAbove) and any(
            isinstance(read, VersionsAbove) and read.number <= target.number for read in self.targets
        )


def read_versions(
    hook: SageMakerImageVersionsHook, image_name: str, targets: Collection[Target | VersionsAbove]
) -> PollResult:
    """
    Read as much of an image's versions as the targets need. Blocks.

    Usually, this takes one call. A version that is not on the first page takes one more call, not all pages in between.

    :raises Exception: Only errors that :func:`~airflow_provider_imageversions.errors.classify_error` does not know.
    """
    try:
        return _read(hook, image_name, frozenset(targets))
    except Exception as error:
        fault = classify_error(error)
        if fault is None:
            raise
        return PollResult(targets=frozenset(targets), fault=fault, error=error)


def _read(hook: SageMakerImageVersionsHook, image_name: str, targets: frozenset[Target | VersionsAbove]) -> PollResult:
    in_list = [target for target in targets if alias_of(target) is None]
    aliases = {alias for alias in map(alias_of, targets) if alias is not None}
    found: dict[str | None, list[ImageVersion]] = {}
    refused: dict[str | None, Exception] = {}
    calls = len(aliases)
    if in_list:
        listed = _unless_refused(_list_down, hook, image_name, in_list)
        if isinstance(listed, Exception):
            refused[None] = listed
            calls += 1
        else:
            found[None], pages = listed
            calls += pages
    for alias in aliases:
        version = _unless_refused(_describe, hook, image_name, alias=alias)
        if isinstance(version, Exception):
            refused[alias] = version
        else:
            found[alias] = [] if version is None else [version]
    if refused and not found:
        raise next(iter(refused.values()))
    waits = [target for target in targets if isinstance(target, Target) and target.alias in found]
    outcomes: dict[Target | VersionsAbove, decide.Outcome] = {
        wait: decide.outcome(found[wait.alias], wait) for wait in waits
    }
    return PollResult(targets, tuple(found.get(None, ())), outcomes, refused, calls)


def alias_of(target: Target | VersionsAbove) -> str | None:
    return target.alias if isinstance(target, Target) else None


def _unless_refused(read: Callable[..., T], *arguments: Any, **named: Any) -> T | Exception:
    """Return the result of a call, or its error if it is permanent, so that other targets can still be read."""
    try:
        return read(*arguments, **named)
    except Exception as error:
        if classify_error(error) is not ErrorKind.PERMANENT:
            raise
        return error


def _list_down(
    hook: SageMakerImageVersionsHook, image_name: str, targets: Collection[Target | VersionsAbove]
) -> tuple[list[ImageVersion], int]:
    """Return versions from the highest number down, as far as the targets need them, and the number of calls."""
    versions: list[ImageVersion] = []
    pending = set(targets)
    described = 0
    for version in hook.iter_image_versions(image_name, sort_by="VERSION"):
        versions.append(version)
        pending = {target for target in pending if not decide.can_stop_reading(version, target)}
        if len(versions) == PAGE_SIZE_MAX:
            for far_down in [target for target in pending if isinstance(target, Target) and target.version is not None]:
                described += 1
                found = _unless_refused(_describe, hook, image_name, version=far_down.version)
                if isinstance(found, Exception):
                    # It is also on one of the next pages.
                    continue
                versions += [] if found is None else [found]
                if not isinstance(decide.outcome(versions, far_down), decide.Waiting):
                    pending.remove(far_down)
        if not pending:
            break
    return versions, described + max(1, -(-len(versions) // PAGE_SIZE_MAX))


def _describe(hook: SageMakerImageVersionsHook, image_name: str, **selector: Any) -> ImageVersion | None:
    found = none_if_not_found(hook.describe_image_version, image_name, **selector)
    # The same record as in a list, because only some waits need details.
    return found and cast("ImageVersion", {key: value for key, value in found.items() if key in LISTED_FIELDS})


def write_logs(log: Any, image_name: str, lines: Iterable[Log]) -> None:
    """
    Write the log lines of a session.

    :param log: The logger of the task or the trigger.
    :param image_name: Name of the image.
    :param lines: The lines.
    """
    for line in lines:
        getattr(log, line.level)("SageMaker image %r: %s", image_name, line.text)
