"""What a task does before and after it waits in the triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    Return what a wait is for as JSON, equal for waits that can't have different results.

    :param wait: The parsed parameters.
    :param source: The sensor or trigger that has the parameters of the connection.
    """
    return {**wait.to_json(), **aws_parameters(source)}


def deferral_limit(task: Any, timeout: float) -> float:
    """
    Return the seconds after which Airflow ends a deferral: ``execution_timeout`` counts while a task is deferred, too.

    :param task: The task.
    :param timeout: Seconds of its own ``timeout``.
    """
    return min(timeout, task.execution_timeout.total_seconds()) if task.execution_timeout else timeout


def raise_execution_timeout(task: Any, timeout: float, awaited: str) -> None:
    """
    Raise what ``execution_timeout`` raises in a worker, if it was that which ended a deferral.

    :param task: The task.
    :param timeout: Seconds of its own ``timeout``.
    :param awaited: What the task waited for.
    :raises airflow.exceptions.AirflowTaskTimeout: It was.
    """
    if deferral_limit(task, timeout) < timeout:
        limit = task.execution_timeout.total_seconds()
        raise AirflowTaskTimeout(f"{awaited} did not become CREATED within the execution_timeout of {limit:g} seconds.")


def raise_if_trigger_failed(next_method: str, next_kwargs: Mapping[str, Any] | None) -> None:
    """
    Raise what ``soft_fail`` cannot hide, if Airflow resumes a task because its trigger failed.

    Such a trigger could not be imported or constructed, or ended without an event: none of that is a version that
    failed.

    :param next_method: The method that Airflow resumes the task with.
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
    :return: The version's record, or why it can't become CREATED any more.
    :raises SageMakerImageVersionPollingError: The wait failed, or the payload is not that of such an event.
    """
    match event:
        case {"status": "ready", "version": dict(version)}:
            record: Any = version
            return record  # type: ignore[no-any-return]  # the trigger's own record
        case {"status": "failed", "reason": str(reason)}:
            return decide.Failed(reason)
        case {"status": "error", "error": str(error)}:
            raise SageMakerImageVersionPollingError(error)
        case None:
            raise SageMakerImageVersionPollingError("The trigger ended without an event.")
    raise SageMakerImageVersionPollingError(
        f"The trigger's event can't be read: {truncated_repr(event)}. Make sure that the triggerer has the same "
        "version of airflow-provider-imageversions as the workers."
    )
