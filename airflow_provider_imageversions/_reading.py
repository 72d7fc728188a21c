"""Read what a poll needs of an image's versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_imageversions import _sessions, decide
from airflow_provider_imageversions._parameters import PAGE_SIZE_MAX, parse_time
from airflow_provider_imageversions.errors import classify_error, describe_error, none_if_not_found
from airflow_provider_imageversions.model import LISTED_FIELDS, ErrorKind, Target, VersionsAbove

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
    from airflow_provider_imageversions.model import ImageVersion

T = TypeVar("T")


@dataclass(frozen=True)
class PollResult:
    """
    What one poll saw.

    :param targets: Whom it was read for; it may lack what others would need.
    :param versions: Versions from the highest number down, as far as the targets need them.
    :param outcomes: What it means for each of the targets that is waited for.
    :param refused: What may not be read of all that was asked for, and why: an alias's version, or the list (``None``).
    :param calls: How many API calls it took.
    :param fault: What went wrong, if something did; then the rest is empty.
    :param error: The exception behind the fault.
    :param lasting: Seconds since the first poll that met this fault.
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
        """Whether the target can be judged by this result."""
        if self.fault is not None or target in self.targets:
            return True
        return isinstance(target, VersionsAbove) and any(
            isinstance(read, VersionsAbove) and read.number <= target.number for read in self.targets
        )

    @property
    def is_fatal(self) -> bool:
        """Whether an error that only a person can mend has lasted long enough to end a wait."""
        return self.fault in _sessions.GRACE and self.lasting >= _sessions.GRACE[self.fault]


def read_versions(
    hook: SageMakerImageVersionsHook, image_name: str, targets: Collection[Target | VersionsAbove]
) -> PollResult:
    """
    Read as much of an image's versions as the targets need. Blocks.

    One call in the ordinary case. A number further down than the first page costs one more call, not the pages
    between.

    :raises Exception: Only what :func:`~airflow_provider_imageversions.errors.classify_error` does not know.
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
    """Read something, or give the error if only a person can mend it: who needs something else can have that."""
    try:
        return read(*arguments, **named)
    except Exception as error:
        if classify_error(error) is not ErrorKind.PERMANENT:
            raise
        return error


def _list_down(
    hook: SageMakerImageVersionsHook, image_name: str, targets: Collection[Target | VersionsAbove]
) -> tuple[list[ImageVersion], int]:
    """Give versions from the highest number down, as far as the targets need them, and how many calls it took."""
    versions: list[ImageVersion] = []
    pending = set(targets)
    described = 0
    for version in hook.iter_image_versions(image_name, sort_by="VERSION"):
        versions.append(version)
        pending = {target for target in pending if not decide.suffices(version, target)}
        if len(versions) == PAGE_SIZE_MAX:
            for far_down in [target for target in pending if isinstance(target, Target) and target.version is not None]:
                described += 1
                found = _unless_refused(_describe, hook, image_name, version=far_down.version)
                if isinstance(found, Exception):
                    # It is on one of the next pages, too.
                    continue
                versions += [] if found is None else [found]
                if not isinstance(decide.outcome(versions, far_down), decide.Waiting):
                    pending.remove(far_down)
        if not pending:
            break
    return versions, described + max(1, -(-len(versions) // PAGE_SIZE_MAX))


def _describe(hook: SageMakerImageVersionsHook, image_name: str, **which: Any) -> ImageVersion | None:
    found = none_if_not_found(hook.describe_image_version, image_name, **which)
    # The same record as from a list: details are for those who ask for them.
    return found and cast("ImageVersion", {key: value for key, value in found.items() if key in LISTED_FIELDS})


class StatusLogger:
    """
    What one who waits says: logs when something changes, rather than every poll.

    :param log: Where to, for one who reads the task's log.
    :param image_name: Name of the image.
    :param looked_at: When another process looked and told last, if one did; what did not change since is not told.
    """

    def __init__(self, log: Any, image_name: str, looked_at: datetime | None = None) -> None:
        self._log = log
        self._looked_at = looked_at
        self._label = f"SageMaker image {image_name!r}"
        self._note: str | None = None
        self._fault: ErrorKind | None = None

    def sees(self, result: PollResult) -> bool:
        """Whether a result shows the image's versions; what keeps it from that is reported."""
        if result.fault is None:
            if self._fault is not None:
                self.report("can be polled again", warn=False)
            self._fault = None
            return True
        if result.fault is ErrorKind.MISSING:
            self.report(f"does not exist yet: {describe_error(result.error)}", warn=True, told=self._was_told(None))
        elif self._fault in {None, ErrorKind.MISSING} or (
            result.fault in _sessions.GRACE and result.fault is not self._fault
        ):
            self.report(f"can't be polled, will go on trying: {describe_error(result.error)}", warn=True)
        self._fault = result.fault
        return False

    def judge(self, result: PollResult, target: Target) -> decide.Outcome:
        """
        Judge a result.

        :param result: One with a fault only ever means to wait; whether for long is the caller's question.
        :param target: What is waited for.
        """
        if not self.sees(result):
            return decide.Waiting(f"the versions can't be read: {describe_error(result.error)}")
        outcome = result.outcomes[target]
        if isinstance(outcome, decide.Waiting):
            note = f"{outcome.note}, which this package does not know" if outcome.unknown else outcome.note
            self.report(f"waiting for {target}: {note}", warn=outcome.unknown, told=self._was_told(outcome.since))
        return outcome

    def report_details(self, error: Exception | None) -> None:
        """Say that the version is there and its details can't be read yet."""
        self.report(f"CREATED, but its details can't be read yet: {describe_error(error)}", warn=True)

    def _was_told(self, since: str | None) -> bool:
        return self._looked_at is not None and (since is None or parse_time("since", since) < self._looked_at)

    def report(self, note: str, *, warn: bool = False, told: bool = False) -> None:
        """
        Say something, unless it was the last thing said.

        :param note: What.
        :param warn: Whether somebody should look at it.
        :param told: Whether another process said it before.
        """
        if note != self._note:
            log = self._log.debug if told else self._log.warning if warn else self._log.info
            log("%s: %s", self._label, note)
            self._note = note
