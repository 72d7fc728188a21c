"""Read the versions of an image for a poll."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import PAGE_SIZE_MAX
from airflow_provider_imageversions.errors import classify_error, none_if_not_found
from airflow_provider_imageversions.model import LISTED_FIELDS, ErrorKind, Target, VersionsAbove

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_imageversions._sessions import Log
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
    from airflow_provider_imageversions.model import ImageVersion


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


def poll_versions(
    hook: SageMakerImageVersionsHook, image_name: str, targets: frozenset[Target | VersionsAbove]
) -> PollResult:
    """
    Return what :func:`read_versions` returns, or its error. Blocks.

    :raises Exception: Only errors that :func:`~airflow_provider_imageversions.errors.classify_error` does not know.
    """
    try:
        return read_versions(hook, image_name, targets)
    except Exception as error:
        fault = classify_error(error)
        if fault is None:
            raise
        return PollResult(targets, fault=fault, error=error)


def read_versions(
    hook: SageMakerImageVersionsHook, image_name: str, targets: frozenset[Target | VersionsAbove]
) -> PollResult:
    """
    Read as much of an image's versions as the targets need. Blocks.

    Usually, this takes one call. A version that is not on the first page takes one more call, not all pages in between.

    :raises Exception: No target could be read.
    """
    found: dict[str | None, list[ImageVersion]] = {}
    refused: dict[str | None, Exception] = {}
    calls = 0
    for alias in set(map(alias_of, targets)):
        made = 1
        try:
            if alias is None:
                in_list = [target for target in targets if alias_of(target) is None]
                found[None], made = _list_down(hook, image_name, in_list)
            else:
                found[alias] = _describe(hook, image_name, alias=alias)
        except Exception as error:
            if classify_error(error) is not ErrorKind.PERMANENT:
                raise
            # The other targets can still be read.
            refused[alias] = error
        calls += made
    if refused and not found:
        raise next(iter(refused.values()))
    waits = [target for target in targets if isinstance(target, Target) and target.alias in found]
    outcomes: dict[Target | VersionsAbove, decide.Outcome] = {
        wait: decide.outcome(found[wait.alias], wait) for wait in waits
    }
    return PollResult(targets, tuple(found.get(None, ())), outcomes, refused, calls)


def alias_of(target: Target | VersionsAbove) -> str | None:
    return target.alias if isinstance(target, Target) else None


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
                try:
                    versions += _describe(hook, image_name, version=far_down.version)
                except Exception as error:
                    if classify_error(error) is not ErrorKind.PERMANENT:
                        raise
                    # It is also on one of the next pages.
                    continue
                if not isinstance(decide.outcome(versions, far_down), decide.Waiting):
                    pending.remove(far_down)
        if not pending:
            break
    return versions, described + max(1, -(-len(versions) // PAGE_SIZE_MAX))


def _describe(hook: SageMakerImageVersionsHook, image_name: str, **selector: Any) -> list[ImageVersion]:
    """Return one version, as it is in a list, because only some waits need details; none if it does not exist."""
    found = none_if_not_found(hook.describe_image_version, image_name, **selector) or {}
    record = {key: value for key, value in found.items() if key in LISTED_FIELDS}
    return [cast("ImageVersion", record)] if record else []


def write_logs(log: Any, image_name: str, lines: Iterable[Log]) -> None:
    """
    Write the log lines of a session.

    :param log: The logger of the task or the trigger.
    :param image_name: Name of the image.
    :param lines: The lines.
    """
    for line in lines:
        getattr(log, line.level)("SageMaker image %r: %s", image_name, line.text)
