"""Operators."""

from __future__ import annotations

from airflow_provider_imageversions.operators.deletion import (
    SageMakerDeleteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
)
from airflow_provider_imageversions.operators.images import SageMakerCreateImageOperator, SageMakerDeleteImageOperator
from airflow_provider_imageversions.operators.listing import LARGE_XCOM, SageMakerListImageVersionsOperator
from airflow_provider_imageversions.operators.studio import (
    SageMakerImageVersionUsageOperator,
    SageMakerRolloutImageVersionOperator,
)
from airflow_provider_imageversions.operators.versions import (
    SageMakerCreateImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerUpdateImageVersionOperator,
)

__all__ = [
    "LARGE_XCOM",
    "SageMakerCreateImageOperator",
    "SageMakerCreateImageVersionOperator",
    "SageMakerDeleteImageOperator",
    "SageMakerDeleteImageVersionOperator",
    "SageMakerImageVersionUsageOperator",
    "SageMakerListImageVersionsOperator",
    "SageMakerPromoteImageVersionOperator",
    "SageMakerPruneImageVersionsOperator",
    "SageMakerRolloutImageVersionOperator",
    "SageMakerUpdateImageVersionOperator",
]
