"""Exceptions that operators raise."""

from __future__ import annotations

from airflow_provider_imageversions.compat import AirflowException


class SageMakerImageOperationError(AirflowException):
    """SageMaker could not complete the operation; the message has its reason. Airflow retries the task as usual."""


class SageMakerImageOperationTimeoutError(SageMakerImageOperationError, TimeoutError):
    """
    The operation did not complete within the operator's ``timeout``. Airflow retries the task as usual.

    The cause, if there is one, is SageMaker's last error, such as throttling.
    """
