"""What a task does before and after it waits in the triggerer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import truncated_repr
from airflow_provider_imageversions.compat import AirflowTaskTimeout
from airflow_provider_imageversions.errors import SageMakerImageVersionPollingError
from airflow_provider_imageversions.hooks import aws_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_imageversions.model import ImageVersion, Wait


def describe_wait(wait: Wait, source: object) -> dict[str, Any]:
    """
    Return a wait as JSON, equal for waits with equal results.

    :param wait: The parsed parameters.
    :param source: The sensor or trigger with the parameters of the connection.
    """
    described: dict[str, Any] = json.loads(json.dumps({**wait.to_json(), **aws_parameters(source)}, default=str))
    return described


def deferral_limit(task: Any, left: float, *, spent: float = 0.0) -> float:
    """
    Return the seconds after which Airflow ends a deferral; ``execution_timeout`` includes the time in the triggerer.

    :param task: The task.
    :param left: Seconds that are left of its own ``timeout``.
    :param spent: Seconds that the task has spent before. (default: 0)
    """
    return min(left, task.execution_timeout.total_seconds() - spent) if task.execution_timeout else left


def raise_execution_timeout(task: Any, timeout: float, unmet: str) -> None:
    """
    Raise the error of ``execution_timeout``, as in a worker, if it ended a deferral.

    :param task: The task.
    :param timeout: Seconds of its own ``timeout``.
    :param unmet: What did not happen, such as ``version 3 did not become CREATED``.
    :raises airflow.exceptions.AirflowTaskTimeout: ``execution_timeout`` is shorter than the task's own timeout.
    """
    if deferral_limit(task, timeout) < timeout:
        limit = task.execution_timeout.total_seconds()
        raise AirflowTaskTimeout(f"{unmet} within the execution_timeout of {limit:g} seconds.")


def raise_if_trigger_failed(next_method: str, next_kwargs: Mapping[str, Any] | None) -> None:
    """
    Raise an error that ``soft_fail`` cannot hide if Airflow resumes a task because its trigger failed.

    The trigger could not be imported or constructed, or ended without an event, which does not mean that the version
    failed.

    :param next_method: The method with which Airflow resumes the task.
    :param next_kwargs: Its arguments.
    :raises SageMakerImageVersionPollingError: The trigger failed.
    """
    if next_method != "__fail__":
        return
    details = dict(next_kwargs or {})
    lines = [str(line).rstrip() for line in details.get("traceback") or ()]
    raise SageMakerImageVersionPollingError(
        f"The trigger failed in the triggerer: {details.get('error', 'unknown error')}. Make sure that the triggerer "
        "has the same version of airflow-provider-imageversions as the workers."
        + ("\n" + "\n".join(lines) if lines else "")
    )


def read_event(event: Any) -> ImageVersion | decide.Failed:
    """
    Read the event of a :class:`~airflow_provider_imageversions.triggers.SageMakerImageVersionTrigger`.

    :param event: The payload.
    :return: The version's record, or why it can no longer become CREATED.
    :raises SageMakerImageVersionPollingError: The wait failed, or the payload is invalid.
    """
    match event:
        case {"status": "ready", "version": dict(version)}:
            return cast("ImageVersion", version)
        case {"status": "failed", "reason": str(reason)}:
            return decide.Failed(reason)
        case {"status": "error", "error": str(error)}:
            raise SageMakerImageVersionPollingError(error)
        case None:
            raise SageMakerImageVersionPollingError("The trigger ended without an event.")
    raise unreadable_event(event)


def unreadable_event(event: object) -> SageMakerImageVersionPollingError:
    """
    Return the error for an event that no trigger of this version emits.

    :param event: The payload.
    """
    return SageMakerImageVersionPollingError(
        f"The trigger's event can't be read: {truncated_repr(event)}. Make sure that the triggerer has the same "
        "version of airflow-provider-imageversions as the workers."
    )
