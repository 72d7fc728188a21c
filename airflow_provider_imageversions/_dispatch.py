"""
Start one run of a DAG per event of an asset: the parts of the DAG that :func:`run_dag_per_version` returns.

Airflow delivers events at least once, and not every event is among a run's triggering events. Each event gets exactly
one run for two reasons: the run id is derived from the event, and Airflow's database rejects a second run with the same
id; and the events are read from the asset's history, starting at a lower bound that is kept between runs.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import re
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_imageversions._parameters import invalid_parameter, parse_alias, parse_seconds
from airflow_provider_imageversions.compat import (
    asset_or_time_schedule,
    conf,
    is_dag_of_parsed_file,
    read_asset_events,
    read_asset_progress,
    write_asset_progress,
)
from airflow_provider_imageversions.model import PAYLOAD_FIELDS, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from airflow.sdk import DAG, Asset

log = logging.getLogger(__name__)

READ_AT_ONCE = 1000
"""Maximum number of events that one run of the dispatching DAG reads per asset."""
STARTED_AT_ONCE = 100
"""Maximum number of runs that one run of the dispatching DAG starts, each with a mapped task."""
REMEMBERED = 600
"""Maximum number of keys to store, two of each event: less than what is read at once, so that the bound advances."""
REMEMBERED_AS_IT_IS = 60
"""Maximum length of a run id to store; longer ones are hashed. Airflow's state store takes 64 KB: 109 bytes each."""
OVERLAP = timedelta(minutes=10)
"""Time from the lower bound to the latest event: an event may be stored after one with a later timestamp."""
SLACK = timedelta(seconds=5)
"""Events up to this long before the event that queued the first run do not count as history."""
QUEUED_WITHIN = timedelta(minutes=10)
"""Maximum time in the queue of the first run if one of several assets has started it."""
RECHECK_INTERVAL = 3600.0
"""Seconds between scheduled runs of the dispatching DAG: an event while it is paused queues no run."""
RETRIES: dict[str, Any] = {
    "retries": 20,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}
"""Retries for at least two and a half hours while the target DAG does not exist."""
_DAG_ID = re.compile(r"[\w.-]{1,250}")
_DAG_ID_HINT = "1 to 250 letters, digits, dots, hyphens and underscores"
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
# Airflow's default limits. Without them, "a#1" and "a#2" would both start the run "a", because the id is part of a URL.
# Airflow allows two characters more, but then the name of the directory with the run's logs is too long for ext4.
_RUN_ID = re.compile(
    r"(?!.*\.\.)(?!(asset_materialization|asset_triggered|backfill|operator_triggered|scheduled)__)"
    r"[A-Za-z0-9_.~:+-]{1,248}"
)


class Event(NamedTuple):
    """An asset event with an image version as its payload."""

    asset: str
    timestamp: datetime
    run_id: str
    payload: dict[str, Any]

    @property
    def keys(self) -> tuple[str, str]:
        """
        What is stored for the event: its run id, or a digest of a long run id, and its ``event_id``.

        Events with the same run id get one run, and an event keeps its run when another ``run_id`` function is set.
        """
        short = self.run_id
        if len(short) > REMEMBERED_AS_IT_IS:
            short = f"sha256-{hashlib.sha256(short.encode()).hexdigest()[:32]}"
        return short, self.payload["event_id"]


@dataclass
class Progress:
    """
    Progress of a dispatching DAG with an asset.

    :param since: Events before it are not dispatched.
    :param dispatched: Timestamps of dispatched events at or after ``since``, by their keys. Earlier versions stored
        the run ids only.
    :param is_provisional: Whether no run that events queued has confirmed ``since`` yet.
    """

    since: datetime
    dispatched: dict[str, datetime] = field(default_factory=dict)
    is_provisional: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the progress as JSON."""
        dispatched = {key: timestamp.isoformat() for key, timestamp in self.dispatched.items()}
        provisional = {"provisional": True} if self.is_provisional else {}
        return {"since": self.since.isoformat(), "dispatched": dispatched, **provisional}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        """
        Return the progress from the result of :meth:`to_json`.

        :param stored: The JSON.
        """
        dispatched = {key: datetime.fromisoformat(text) for key, text in stored["dispatched"].items()}
        return cls(datetime.fromisoformat(stored["since"]), dispatched, stored.get("provisional", False))

    def includes(self, event: Event) -> bool:
        """
        Return whether an event was dispatched, or is too old.

        :param event: The event.
        """
        return event.timestamp < self.since or not self.dispatched.keys().isdisjoint(event.keys)

    def after(self, dispatched: Iterable[Event], read: Sequence[datetime], pending: Iterable[Event]) -> Progress:
        """
        Return the progress after a run.

        :param dispatched: Events that have a run now.
        :param read: Timestamps of all events that were read, ascending.
        :param pending: Events left for a later run.
        """
        all_dispatched = dict(self.dispatched)
        for event in dispatched:
            for key in event.keys:
                all_dispatched[key] = max(event.timestamp, all_dispatched.get(key, event.timestamp))
        newest = sorted(all_dispatched.items(), key=lambda item: item[1])
        forgotten = newest[:-REMEMBERED]
        since = self.since
        if read:
            # If the overlap holds more events than one run reads, the bound would never advance.
            since = max(since, read[-1] - (timedelta(0) if len(read) == READ_AT_ONCE else OVERLAP))
        since = max([since, *(timestamp for _, timestamp in forgotten)])
        since = max(self.since, min([since, *(event.timestamp for event in pending)]))
        return Progress(since, dict(newest[-REMEMBERED:]), self.is_provisional)

    def merged_with(self, other: Progress) -> Progress:
        """
        Return the combined progress of two runs, so that clearing a task of an old run does not undo later ones.

        :param other: The progress of the other run.
        """
        newest = sorted({**self.dispatched, **other.dispatched}.items(), key=lambda item: item[1])
        is_provisional = self.is_provisional and other.is_provisional
        return Progress(max(self.since, other.since), dict(newest[-REMEMBERED:]), is_provisional)


class Plan(NamedTuple):
    """What one run of a dispatching DAG has to do."""

    start: list[Event]
    progress: dict[str, Progress]
    more: bool
    """Whether another run has to continue."""
    shared: list[Event]
    """Events without a run of their own, because another event has the same run id."""


def default_run_id(payload: Mapping[str, Any]) -> str:
    """
    Return the run id for an event: ``version-8-3f2a9c01``, or ``prod-8-3f2a9c01`` if the alias ``prod`` moved.

    :param payload: The event's payload.
    """
    # Airflow rejects two dots in a row in a run id, and reserves prefixes that end with two underscores.
    name = re.sub(r"([._])\1+", r"\1", payload.get("alias") or "version")
    return f"{name}-{payload['Version']}-{payload['event_id'][:8]}"


def payload_of(event: Any) -> dict[str, Any] | None:
    """
    Return the payload of an asset event, or ``None`` if it is not an image version: users can create any event.

    :param event: The event. Its ``extra`` has the payload, whether a watcher or an operator has emitted it.
    """
    extra = event.extra or {}
    payload = extra.get("payload", extra)
    if not isinstance(payload, dict):
        return None
    number, identity, alias = (payload.get(key) for key in ("Version", "event_id", "alias"))
    if type(number) is not int or not isinstance(identity, str) or not _EVENT_ID.fullmatch(identity):
        return None
    try:
        if alias is not None:
            parse_alias("alias", alias)
    except ValueError:
        return None
    return payload


def first_bound(triggering: Sequence[datetime], run_after: datetime, *, among_several: bool) -> datetime:
    """
    Return the lower bound at the first run that events queued.

    Airflow passes the whole history of an asset to it. Only the latest of those events queued the run: if an earlier
    one had, the run would have been queued then.

    :param triggering: Timestamps of the run's triggering events.
    :param run_after: When the run was queued.
    :param among_several: Whether an event of another asset may have queued the run instead.
    """
    if not triggering:
        return run_after - SLACK
    # The latest event of several assets may have come a while after the one that queued the run.
    return run_after - QUEUED_WITHIN if among_several else max(triggering) - SLACK


def plan(
    read: Mapping[str, Sequence[tuple[datetime, Event | None]]],
    progress: Mapping[str, Progress],
    existing: Callable[[list[str]], set[str]],
    limit: int,
) -> Plan:
    """
    Decide which runs to start.

    :param read: By asset, the timestamps of the events that were read, ascending, with each event that has an image
        version.
    :param progress: The progress of each asset.
    :param existing: Returns the ids, among those passed, of the runs that exist.
    :param limit: Maximum number of runs to start.
    """
    # Several assets may have events for the same version, such as two assets of one image.
    dispatched = {key for each in progress.values() for key in each.dispatched}
    candidates: dict[str, list[Event]] = {}
    # They may have one key more: earlier versions stored the run id only, and several events may have one run.
    known: list[Event] = []
    for asset, events in read.items():
        for _, event in events:
            if event is None:
                continue
            if not dispatched.isdisjoint(event.keys):
                known.append(event)
            elif not progress[asset].includes(event):
                candidates.setdefault(event.run_id, []).append(event)
    exist = existing(list(candidates))
    missing = sorted((run_id for run_id in candidates if run_id not in exist), key=lambda each: candidates[each][0][1])
    started, left = set(missing[:limit]), set(missing[limit:])
    after = {}
    for asset, events in read.items():
        own = [event for group in candidates.values() for event in group if event.asset == asset]
        after[asset] = progress[asset].after(
            [event for event in [*known, *own] if event.asset == asset and event.run_id not in left],
            [timestamp for timestamp, _ in events],
            [event for event in own if event.run_id in left],
        )
    full = [asset for asset, events in read.items() if len(events) == READ_AT_ONCE]
    # Only if there is progress, or runs would start each other endlessly.
    more = bool(full) and (bool(started) or any(after[asset].since > progress[asset].since for asset in full))
    shared = {event.payload["event_id"]: event for event in known if event.payload["event_id"] not in dispatched}
    for run_id in started | exist:
        own_identity = candidates[run_id][0].payload["event_id"]
        shared |= {
            each.payload["event_id"]: each for each in candidates[run_id] if each.payload["event_id"] != own_identity
        }
    return Plan(
        [candidates[run_id][0] for run_id in missing if run_id in started],
        after,
        bool(left) or more,
        list(shared.values()),
    )


def count_existing(count: Callable[[list[str]], int], run_ids: list[str], at_once: int = 50) -> set[str]:
    """
    Return the ids of the runs that exist, with few requests if none or all of them do.

    :param count: Returns how many of the runs passed exist; Airflow has no other query.
    :param run_ids: The ids of the runs.
    :param at_once: Maximum number of ids in one request, because they are in its URL. (default: 50)
    """
    if len(run_ids) > at_once:
        return count_existing(count, run_ids[:at_once]) | count_existing(count, run_ids[at_once:])
    found = count(run_ids) if run_ids else 0
    if found in {0, len(run_ids)}:
        return set(run_ids) if found else set()
    half = len(run_ids) // 2
    return count_existing(count, run_ids[:half]) | count_existing(count, run_ids[half:])


def run_dag_per_version(
    dag: DAG | str,
    asset: Asset,
    *more_assets: Asset,
    dag_id: str | None = None,
    run_id: Callable[[dict[str, Any]], str] | None = None,
    recheck_interval: float | timedelta | None = RECHECK_INTERVAL,
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that starts another DAG once for each event of an image's asset.

    Assign the returned DAG to a variable of the DAG file, and unpause both DAGs::

        image = image_version_asset("churn-model", include_details=True)

        with DAG("retrain", schedule=None) as retrain:
            ...  # "{{ dag_run.conf['ContainerImage'] }}"

        dispatch = run_dag_per_version(retrain, image)

    Each version gets its own run. The run's ``conf`` is the event's payload, and its id is derived from the version:
    ``version-8-3f2a9c01``, or ``prod-8-3f2a9c01`` when the alias ``prod`` has moved to version 8. An existing run is
    never started again, so events that Airflow delivers more than once start one run. The runs have no logical date.
    The ``max_active_runs`` of the started DAG limits how many of them are active at a time.

    Events from before the first run of the returned DAG do not start runs, except that with several assets, those of
    the last ten minutes may. The progress is kept in the asset's state store or, until the first event and before
    Airflow 3.3, in an Airflow Variable, so that neither ``airflow db clean`` nor deleting a run starts a run again.

    :param dag: The DAG to start, or its id. The tasks that start runs are retried if it does not exist yet.
    :param asset: The image's asset, from :func:`~airflow_provider_imageversions.assets.image_version_asset`.
    :param more_assets: More assets whose events start runs.
    :param dag_id: Id of the returned DAG. (default: the id of ``dag``, followed by ``__image_versions``)
    :param run_id: Function that returns the run id for an event's payload. Events with the same id start one run, and
        events that have a run already keep it. An id has 1 to 248 letters, digits and ``_.~:+-`` characters, no two
        dots in a row, and no prefix that Airflow reserves, such as ``scheduled__``. (default: the alias or
        ``version``, the version's number and the first 8 digits of the ``event_id``)
    :param recheck_interval: Time in seconds, or as a timedelta, between scheduled runs of the returned DAG, which start
        the runs for events that arrived while it was paused, or that a failed run left over. ``None`` runs it only
        after events. (default: 3600)
    :param dag_arguments: More arguments of the returned DAG, such as ``tags``. (default: ``max_active_runs=1``,
        ``catchup=False``, and 20 retries in ``default_args``)
    :raises ValueError: A parameter is invalid.
    :raises ImportError: This is Airflow 2, which has no asset watchers.
    """
    # Not at the top, because Airflow imports this module, with assets.py, everywhere.
    try:
        from airflow.sdk import DAG, task  # noqa: PLC0415

        from airflow_provider_imageversions._start_run import StartRunOperator  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "run_dag_per_version() needs Airflow 3 and apache-airflow-providers-standard, which comes with it."
        ) from error

    target = dag.dag_id if isinstance(dag, DAG) else dag
    own_id = f"{target}__image_versions" if dag_id is None else dag_id
    assets = [asset, *more_assets]
    _check(target, own_id, assets, run_id, dag_arguments)
    if isinstance(dag, DAG):
        _check_target(dag, assets)
    dispatching = DAG(own_id, schedule=_schedule(assets, recheck_interval), **_with_defaults(target, dag_arguments))
    # In its own task group, or a task group around the call would contain the tasks.
    with dispatching, dispatching.task_group:

        @task(inlets=assets)
        def find_new_versions(**context: Any) -> list[dict[str, Any]]:
            """Return the arguments of each task that starts a run, one for each event without a run."""
            planned = _find(context, target, own_id, assets, run_id or default_run_id)
            progress = {name: each.to_json() for name, each in planned.progress.items()}
            context["ti"].xcom_push(key="progress", value=progress)
            context["ti"].xcom_push(key="more", value=planned.more)
            return [{"trigger_run_id": event.run_id, "conf": event.payload} for event in planned.start]

        @task.short_circuit(inlets=assets, trigger_rule="none_failed")
        def remember(**context: Any) -> bool:
            """Store the progress; return whether another run has to continue."""
            return _remember(context, own_id, assets)

        start = StartRunOperator.partial(
            task_id="start",
            trigger_dag_id=target,
            logical_date=None,
            skip_when_already_exists=True,
            map_index_template="{{ task.trigger_run_id }}",
        ).expand_kwargs(find_new_versions())
        start_next_run = StartRunOperator(task_id="start_next_run", trigger_dag_id=own_id, logical_date=None)
        start >> remember() >> start_next_run
    # Without a DAG file, as in dag.test(), Airflow would set it to this file.
    dispatching.fileloc = dag.fileloc if isinstance(dag, DAG) else sys._getframe(1).f_code.co_filename  # noqa: SLF001
    return dispatching


def _with_defaults(target: str, dag_arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": f"Starts a run of {target} for each image version.",
        "max_active_runs": 1,
        "catchup": False,
        **dag_arguments,
        # The tasks pass what to start by XCom.
        "default_args": {**RETRIES, **(dag_arguments.get("default_args") or {}), "do_xcom_push": True},
    }


def _schedule(assets: list[Asset], recheck_interval: float | timedelta | None) -> Any:
    from airflow.sdk import AssetAny  # noqa: PLC0415  # only Airflow 3 has it

    schedule: Any = assets if len(assets) == 1 else AssetAny(*assets)
    if recheck_interval is None:
        return schedule
    return asset_or_time_schedule(schedule, timedelta(seconds=parse_seconds("recheck_interval", recheck_interval)))


def _check(
    target: object, own_id: str, assets: Iterable[object], run_id: object, dag_arguments: Mapping[str, Any]
) -> None:
    from airflow.sdk import Asset  # noqa: PLC0415  # only Airflow 3 has it

    if not isinstance(target, str) or not _DAG_ID.fullmatch(target):
        raise invalid_parameter("dag", target, f"it must be a DAG or the id of one, which has {_DAG_ID_HINT}.")
    if not isinstance(own_id, str) or not _DAG_ID.fullmatch(own_id):
        raise invalid_parameter("dag_id", own_id, f"an id has {_DAG_ID_HINT}. Set dag_id to another one.")
    if own_id == target:
        raise invalid_parameter("dag_id", own_id, "it is the id of the DAG to start. Use another id.")
    if is_dag_of_parsed_file(own_id):
        raise invalid_parameter(
            "dag_id",
            own_id,
            "this DAG file has another DAG with this id, and Airflow would keep one of them. Pass all assets to one "
            "call of run_dag_per_version(), or set a different dag_id.",
        )
    for asset in assets:
        if not isinstance(asset, Asset):
            raise invalid_parameter("asset", asset, "it must be an asset, as image_version_asset() returns.")
    if run_id is not None and not callable(run_id):
        raise invalid_parameter(
            "run_id", run_id, "it must be a function that returns the run's id for an event's payload."
        )
    if "schedule" in dag_arguments:
        raise invalid_parameter(
            "schedule", dag_arguments["schedule"], "the DAG is scheduled on the assets; leave it out."
        )
    if native := dag_arguments.get("render_template_as_native_obj"):
        raise invalid_parameter(
            "render_template_as_native_obj", native, "a run id such as '8' would become a number; leave it out."
        )


def _check_target(target: DAG, assets: Iterable[Asset]) -> None:
    """Refuse a DAG that would start twice for each version, or never."""
    scheduled = set(_names_of(getattr(target.timetable, "asset_condition", None)))
    if both := sorted(asset.name for asset in assets if (asset.name, asset.uri) in scheduled):
        raise invalid_parameter(
            "dag",
            target.dag_id,
            f"it is scheduled on the asset {both[0]!r}, so each version would start it twice. Leave out its schedule.",
        )
    for name, param in target.params.items():
        if not param.has_value and name not in PAYLOAD_FIELDS:
            raise invalid_parameter(
                "dag", target.dag_id, f"its param {name!r} has no value, and no event has one. Set a default."
            )


def _names_of(condition: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the URI of each asset of a schedule."""
    if hasattr(condition, "uri") and hasattr(condition, "name"):
        yield condition.name, condition.uri
    for part in getattr(condition, "objects", ()):
        yield from _names_of(part)


def _find(
    context: Mapping[str, Any],
    target: str,
    own_id: str,
    assets: Sequence[Asset],
    run_id_of: Callable[[dict[str, Any]], str],
) -> Plan:
    progress = {}
    for asset in assets:
        stored = read_asset_progress(context, asset, state_key(own_id))
        known = None if stored is None else Progress.from_json(stored)
        progress[asset.name] = _begin(context, asset, known, among_several=len(assets) > 1)
        if progress[asset.name] != known:
            since = progress[asset.name].since.isoformat()
            log.info("First run for asset %r: events before %s are not dispatched", asset.name, since)
            # Before any run is started, because the next run has other events if this one fails.
            _write(context, asset, own_id, progress[asset.name], known)
    dispatched = {key for each in progress.values() for key in each.dispatched}
    # One id for all events with the same event_id, whatever the function returns for the others.
    run_ids: dict[str, str] = {}
    read = {
        asset.name: [
            (event.timestamp, _event(asset.name, event, run_id_of, dispatched, run_ids))
            for event in read_asset_events(context, asset, progress[asset.name].since, READ_AT_ONCE)
        ]
        for asset in assets
    }
    planned = plan(
        read,
        progress,
        lambda run_ids: count_existing(lambda some: context["ti"].get_dr_count(dag_id=target, run_ids=some), run_ids),
        max(1, min(STARTED_AT_ONCE, conf.getint("core", "max_map_length", fallback=STARTED_AT_ONCE))),
    )
    for event in planned.start:
        log.info("Starting run %s of DAG %s", event.run_id, target)
    for event in planned.shared:
        log.warning(
            "Not starting a run for version %d of asset %r (event_id %s): another event has the run id %s",
            event.payload["Version"],
            event.asset,
            event.payload["event_id"],
            event.run_id,
        )
    return planned


def _remember(context: Mapping[str, Any], own_id: str, assets: Sequence[Asset]) -> bool:
    progress = context["ti"].xcom_pull(task_ids="find_new_versions", key="progress")
    for asset in assets:
        own = Progress.from_json(progress[asset.name])
        stored = read_asset_progress(context, asset, state_key(own_id))
        known = None if stored is None else Progress.from_json(stored)
        _write(context, asset, own_id, own if known is None else own.merged_with(known), known)
    more: bool = context["ti"].xcom_pull(task_ids="find_new_versions", key="more")
    return more


def _write(context: Mapping[str, Any], asset: Asset, own_id: str, progress: Progress, known: Progress | None) -> None:
    write_asset_progress(
        context,
        asset,
        state_key(own_id),
        progress.to_json(),
        # What the state store has for an asset shows people that its watcher is ready.
        early=progress.is_provisional,
        was_early=known is not None and known.is_provisional,
    )


def _begin(context: Mapping[str, Any], asset: Asset, known: Progress | None, *, among_several: bool) -> Progress:
    """Return the progress at the beginning of a run; what came before the very first run is history."""
    run = context["dag_run"]
    if run.run_type != "asset_triggered":
        # Its own run or a later one may find that the first event came before this run.
        return known or Progress(run.start_date.astimezone(timezone.utc) - SLACK, is_provisional=True)
    if known is not None and not known.is_provisional:
        return known
    triggering = [event.timestamp for event in context["triggering_asset_events"].get(asset, ())]
    bound = first_bound(triggering, run.run_after, among_several=among_several).astimezone(timezone.utc)
    if known is None:
        return Progress(bound, is_provisional=not triggering)
    return Progress(min(known.since, bound), known.dispatched)


def _event(
    asset: str,
    event: Any,
    run_id_of: Callable[[dict[str, Any]], str],
    dispatched: Container[str],
    run_ids: dict[str, str],
) -> Event | None:
    payload = payload_of(event)
    if payload is None:
        log.info("Skipping an event of asset %r of %s that has no image version", asset, event.timestamp.isoformat())
        return None
    identity = payload["event_id"]
    if identity in dispatched:
        # The function may not be made for it, such as for one from before the asset had details.
        return None
    if identity not in run_ids:
        run_ids[identity] = _run_id(payload, run_id_of)
    return Event(asset, event.timestamp, run_ids[identity], payload)


def _run_id(payload: dict[str, Any], run_id_of: Callable[[dict[str, Any]], str]) -> str:
    try:
        # A copy, as the payload becomes the run's conf.
        run_id = run_id_of(copy.deepcopy(payload))
    except Exception as error:
        raise invalid_parameter(
            "run_id",
            getattr(run_id_of, "__name__", run_id_of),
            f"the function raised {describe_error(error)} for version {payload['Version']} (event_id "
            f"{payload['event_id']!r}). Change it so that it returns an id for each event, also for those from before "
            "the asset had include_details=True.",
        ) from error
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise invalid_parameter(
            "run_id",
            run_id,
            f"the function returned it for version {payload['Version']}; a run id has 1 to 248 letters, digits and "
            "_.~:+- characters, no two dots in a row, and no prefix that Airflow reserves, such as 'scheduled__'.",
        )
    return run_id


def state_key(dag_id: str) -> str:
    """
    Return the key for the progress of a dispatching DAG in an asset's state.

    :param dag_id: Id of the dispatching DAG.
    """
    return f"sagemaker-image-versions-dispatched-{hashlib.sha256(dag_id.encode()).hexdigest()[:16]}"
