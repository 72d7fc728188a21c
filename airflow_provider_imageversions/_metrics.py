"""Metrics about polling and events, which Airflow sends to statsd, Datadog or OpenTelemetry as configured."""

from __future__ import annotations

import logging
import socket
from datetime import datetime, timedelta, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any

from airflow_provider_imageversions._parameters import parse_time
from airflow_provider_imageversions.compat import Stats
from airflow_provider_imageversions.model import ErrorKind, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ParamSpec

    from airflow_provider_imageversions._reading import PollResult

    P = ParamSpec("P")

_log = logging.getLogger(__name__)

_PREFIX = "sagemaker_image_versions"
_HOST = socket.gethostname()
_warned: set[type[Exception]] = set()


def _never_raises(send: Callable[P, None]) -> Callable[P, None]:
    """Log errors of a metrics client, once for each class of error: they must not end a poll, and with it all waits."""

    @wraps(send)
    def guarded(*arguments: P.args, **named: P.kwargs) -> None:
        try:
            send(*arguments, **named)
        except Exception as error:  # noqa: BLE001  # Airflow's setting can name any class as the client
            if type(error) not in _warned:
                _warned.add(type(error))
                _log.warning("Could not send metrics about SageMaker images: %s", describe_error(error))

    return guarded


@_never_raises
def warm_up() -> None:
    """Make Airflow prepare its metrics. Blocks."""
    # At the first metric of a process, Airflow 3.3 reads its list of metrics, which takes a third of a second.
    Stats.incr(f"{_PREFIX}.polls", 0)


@_never_raises
def count_poll(result: PollResult, seconds: float, tags: Mapping[str, str]) -> None:
    """
    Count a poll and its errors.

    :param result: The poll's result.
    :param seconds: Duration of the poll in seconds, without the wait for its turn.
    :param tags: What was polled.
    """
    Stats.incr(f"{_PREFIX}.polls", tags=dict(tags))
    # A timedelta has the same meaning with each backend and each setting of Airflow's.
    Stats.timing(f"{_PREFIX}.poll_duration", timedelta(seconds=seconds), tags=dict(tags))
    count_errors([result.fault] if result.fault is not None else [ErrorKind.PERMANENT] * len(result.refused), tags)


@_never_raises
def count_calls(calls: int, tags: Mapping[str, str]) -> None:
    """
    Count calls of SageMaker's API.

    :param calls: Number of calls.
    :param tags: What was polled.
    """
    if calls:
        Stats.incr(f"{_PREFIX}.api_calls", calls, tags=dict(tags))


@_never_raises
def count_errors(faults: list[ErrorKind], tags: Mapping[str, str]) -> None:
    """
    Count errors by their kind, and throttling by itself.

    :param faults: The kinds.
    :param tags: What was polled.
    """
    for fault in faults:
        # The kind is part of the name, as plain statsd knows no tags.
        Stats.incr(f"{_PREFIX}.errors.{fault.value.replace(' ', '_')}", tags=dict(tags))
        if fault is ErrorKind.THROTTLED:
            Stats.incr(f"{_PREFIX}.throttles", tags=dict(tags))


@_never_raises
def report_subscribers(subscribers: int) -> None:
    """
    Report the number of deferred tasks and asset watchers that this triggerer polls for.

    :param subscribers: The number.
    """
    Stats.gauge(f"{_PREFIX}.subscribers", subscribers, tags={"hostname": _HOST})


@_never_raises
def count_event(payload: Mapping[str, Any]) -> None:
    """
    Count an event of an asset watcher, and measure the time since SageMaker created the version.

    :param payload: The event's payload.
    """
    tags = {"image_name": str(payload["image_name"]), "region_name": str(payload["region"])}
    Stats.incr(f"{_PREFIX}.events", tags=tags)
    if "alias" in payload:
        # An alias moves to versions of any age.
        return
    age = datetime.now(timezone.utc) - parse_time("CreationTime", payload["CreationTime"])
    # SageMaker's clock may be ahead of this one.
    Stats.timing(f"{_PREFIX}.event_delay", max(age, timedelta()), tags=tags)
