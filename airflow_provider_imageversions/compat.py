"""
Compatibility with Airflow versions. Only this module checks the version, by testing for features.

Newer names are tried first, because Airflow 3 keeps the old ones with a deprecation warning.
"""

from __future__ import annotations

import hashlib
import importlib.util
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async

try:
    from airflow.sdk import BaseHook, BaseOperator, Connection
    from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue
except ImportError:  # Airflow 2
    from airflow.hooks.base import BaseHook
    from airflow.models import Connection  # type: ignore[assignment]
    from airflow.models.baseoperator import BaseOperator
    from airflow.sensors.base import BaseSensorOperator, PokeReturnValue

try:
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
    )
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
    )

try:
    from airflow.sdk.configuration import conf
except ImportError:  # before Airflow 3.2
    from airflow.configuration import conf

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2 has no asset watchers
    BaseEventTrigger = BaseTrigger  # type: ignore[assignment]

try:
    from airflow.sdk import Variable
except ImportError:  # Airflow 2
    from airflow.models import Variable

try:
    from airflow.sdk.execution_time.xcom import XCom
except ImportError:  # Airflow 2
    from airflow.models.xcom import XCom

try:
    # The triggerer initializes this copy. It does not initialize that of the Task SDK, which sends nothing there.
    from airflow.observability.stats import Stats
except ImportError:  # before Airflow 3.2
    from airflow.stats import Stats  # type: ignore[assignment]

STARTS_FROM_TRIGGER = hasattr(BaseTrigger, "render_template_fields")
"""Whether Airflow can start a task with templates in the triggerer: from 3.3."""

ENDS_FROM_TRIGGER = hasattr(XCom, "aset")
"""Whether a trigger can write an XCom, and so end its task with a result: from 3.3."""

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


async def get_async_connection(conn_id: str, hook: type[BaseHook] = BaseHook) -> Any:
    """
    Look up a connection without blocking the event loop.

    :param conn_id: ID of the connection.
    :param hook: The hook class that looks it up. (default: Airflow's base class)
    """
    # Only newer versions of the common.compat provider have this, some with other parameters, and none considers that
    # aget_connection() masks secrets synchronously, on the event loop, before Airflow 3.3.2.
    if hasattr(Connection, "aextra_dejson"):
        return await hook.aget_connection(conn_id)
    return await sync_to_async(hook.get_connection)(conn_id)


def assets_have_access_control() -> bool:
    """Return whether assets have access control for teams: from Airflow 3.3."""
    return importlib.util.find_spec("airflow.sdk.definitions.asset.access_control") is not None


def keeps_xcom_in_database() -> bool:
    """Return whether XComs are stored in the metadata database, as without a custom XCom backend."""
    return bool(conf.get("core", "xcom_backend", fallback="BaseXCom").rpartition(".")[2] == "BaseXCom")


def stores_xcom_in_database(size: int) -> bool:
    """
    Return whether an XCom of this size is stored in the metadata database, also with the object storage backend.

    :param size: Size in bytes of JSON.
    """
    backend = conf.get("core", "xcom_backend", fallback="BaseXCom")
    if backend.rpartition(".")[2] != "XComObjectStorageBackend":
        return keeps_xcom_in_database()
    threshold: int = conf.getint("common.io", "xcom_objectstorage_threshold", fallback=-1)
    return threshold < 0 or size < threshold


def _state_stores(trigger: BaseTrigger) -> list[Any]:
    """Return the state store of each asset that the trigger watches for; none before Airflow 3.3."""
    store = getattr(trigger, "asset_state_store", None)
    if store is None:
        return []
    # Assets with equal triggers share a trigger; its store then rejects calls that do not name an asset.
    by_asset = [*getattr(store, "_by_name", {}).values(), *getattr(store, "_by_uri", {}).values()]
    return by_asset or [store]


def has_asset_state(trigger: BaseTrigger) -> bool:
    """
    Return whether a trigger's state outlives it.

    :param trigger: An asset watcher's trigger.
    """
    return bool(_state_stores(trigger))


async def read_asset_state(trigger: BaseTrigger, key: str) -> list[Any]:
    """
    Return the stored values of the assets that share the trigger.

    :param trigger: An asset watcher's trigger.
    :param key: The key.
    """
    # Airflow 3.3.0 and 3.3.1 have the blocking accessors only.
    values = [
        await (store.aget(key) if hasattr(store, "aget") else sync_to_async(store.get)(key))
        for store in _state_stores(trigger)
    ]
    return [value for value in values if value is not None]


async def write_asset_state(trigger: BaseTrigger, key: str, value: Any) -> None:
    """
    Store a value for each asset that shares the trigger.

    :param trigger: An asset watcher's trigger.
    :param key: The key.
    :param value: JSON.
    """
    for store in _state_stores(trigger):
        await (store.aset(key, value) if hasattr(store, "aset") else sync_to_async(store.set)(key, value))


def asset_or_time_schedule(assets: Any, interval: timedelta) -> Any:
    """
    Return a schedule that starts a DAG at an asset's events and at regular intervals.

    :param assets: The assets, as for ``DAG(schedule=...)``.
    :param interval: Time between scheduled runs.
    """
    try:
        from airflow.sdk import AssetOrTimeSchedule, DeltaTriggerTimetable  # noqa: PLC0415  # Airflow 3.2
    except ImportError:
        from airflow.timetables.assets import AssetOrTimeSchedule  # type: ignore[assignment]  # noqa: PLC0415
        from airflow.timetables.trigger import DeltaTriggerTimetable  # type: ignore[assignment]  # noqa: PLC0415
    return AssetOrTimeSchedule(timetable=DeltaTriggerTimetable(interval), assets=assets)


def is_dag_of_parsed_file(dag_id: str) -> bool:
    """
    Return whether the DAG file that Airflow is parsing has a DAG with this id; ``False`` if it is not parsing any.

    :param dag_id: The id.
    """
    try:
        from airflow.sdk.definitions._internal.contextmanager import DagContext  # noqa: PLC0415  # only Airflow 3 has it
    except ImportError:
        return False
    # Airflow empties it before and after each file.
    return any(dag.dag_id == dag_id for dag, _ in DagContext.autoregistered_dags)


def read_asset_events(context: Mapping[str, Any], asset: Any, since: datetime, limit: int) -> list[Any]:
    """
    Return the events of an asset since a time, oldest first.

    :param context: The context of a task that has the asset among its inlets.
    :param asset: The asset.
    :param since: Timestamp of the earliest event to return.
    :param limit: Maximum number of events.
    """
    events = context["inlet_events"][asset]
    if hasattr(events, "after"):
        return list(events.after(since.isoformat()).ascending().limit(limit))
    # Before Airflow 3.2, events can only be read all at once.
    return sorted((event for event in events if event.timestamp >= since), key=lambda event: event.timestamp)[:limit]


def _progress_variable(asset: Any, key: str) -> str:
    return f"{key}-{hashlib.sha256(asset.uri.encode()).hexdigest()[:16]}"


def read_asset_progress(context: Mapping[str, Any], asset: Any, key: str) -> Any:
    """
    Return what :func:`write_asset_progress` has stored for an asset; ``None`` if nothing is stored.

    :param context: The context of a task that has the asset among its inlets.
    :param asset: The asset.
    :param key: The key.
    """
    store = context["asset_state_store"][asset] if "asset_state_store" in context else None
    stored = None if store is None else store.get(key)
    if stored is None:
        variable = _progress_variable(asset, key)
        stored = Variable.get(variable, None, deserialize_json=True)
        if store is not None and stored is not None and not stored.get("provisional"):
            # Stored before the upgrade to Airflow 3.3. It is moved, so that clearing the asset's state also clears it.
            store.set(key, stored)
            Variable.delete(variable)
    return stored


def write_asset_progress(
    context: Mapping[str, Any], asset: Any, key: str, value: Any, *, early: bool = False, was_early: bool = False
) -> None:
    """
    Store a value for an asset in its state store or, before Airflow 3.3, in an Airflow Variable.

    :param context: The context of a task that has the asset among its inlets.
    :param asset: The asset.
    :param key: The key.
    :param value: JSON.
    :param early: Use a Variable in any case, so that the state store stays empty. (default: False)
    :param was_early: Whether the last value was stored with ``early``. (default: False)
    """
    if early or "asset_state_store" not in context:
        Variable.set(_progress_variable(asset, key), value, serialize_json=True)
        return
    context["asset_state_store"][asset].set(key, value)
    if was_early:
        Variable.delete(_progress_variable(asset, key))


def _task_of_xcom(task_instance: Any) -> dict[str, Any]:
    return {name: getattr(task_instance, name) for name in ("dag_id", "task_id", "run_id", "map_index")}


async def push_xcom(task_instance: Any, key: str, value: Any) -> None:
    """
    Write an XCom from a trigger. XComs of a task's last event would be encoded twice.

    :param task_instance: The trigger's task instance.
    :param key: The XCom's key.
    :param value: The XCom's value.
    """
    await XCom.aset(key=key, value=value, **_task_of_xcom(task_instance))


def delete_xcom(task_instance: Any, key: str) -> None:
    """
    Delete an XCom of a task from its worker, if there is one.

    :param task_instance: The task instance.
    :param key: The XCom's key.
    """
    task = _task_of_xcom(task_instance)
    if XCom.get_one(key=key, **task) is not None:
        XCom.delete(key=key, **task)


def waits_since(context: Mapping[str, Any]) -> datetime | None:
    """
    Return when a sensor in reschedule mode poked first; ``None`` for the first poke, or if Airflow does not know.

    :param context: The task's context.
    """
    task_instance = context["ti"]
    if hasattr(task_instance, "get_first_reschedule_date"):
        first: datetime | None = task_instance.get_first_reschedule_date(context)
        return first
    # Airflow 2 keeps the first start date over reschedules.
    return getattr(task_instance, "start_date", None)


def is_trigger_timeout(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """
    Return whether Airflow resumes a task because its deferral timed out.

    Airflow reports it only with these texts: the first is that of Airflow 3, the second that of Airflow 2.
    """
    reasons = {"Trigger timeout", "Trigger/execution timeout"}
    return next_method == "__fail__" and (next_kwargs or {}).get("error") in reasons


def read_task_state(context: Mapping[str, Any], key: str) -> Any:
    """
    Return what an earlier try of a task has stored; ``None`` if nothing is stored.

    :param context: The task's context.
    :param key: The key, which is the name of an Airflow Variable if Airflow has no state store for tasks.
    """
    store = context.get("task_state_store")
    if store is not None:
        return store.get(key)
    # The parameter for the default has another name in Airflow 2.
    return Variable.get(key, None, deserialize_json=True)


def write_task_state(context: Mapping[str, Any], key: str, value: Any) -> None:
    """
    Store a value for later tries of a task.

    :param context: The task's context.
    :param key: See :func:`read_task_state`.
    :param value: JSON.
    """
    store = context.get("task_state_store")
    if store is not None:
        store.set(key, value)
    else:
        Variable.set(key, value, serialize_json=True)
