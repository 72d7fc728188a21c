"""
SageMaker's image API for local development and tests, based on moto.

moto supports SageMaker's training jobs, S3, STS and other services, but no operations on images. This package adds
them, either to moto's in-process mode (:func:`install`) or to a local server (:class:`Emulator`, or
``python -m airflow_provider_imageversions.emulator``).
"""

from __future__ import annotations

try:
    import flask_cors  # noqa: F401 - moto's server needs it and only warns where it is missing
    import moto  # noqa: F401 - asked for first, so that what is missing is named in our words
except ModuleNotFoundError as error:
    raise ImportError(
        f"The emulator needs {error.name}: pip install 'airflow-provider-imageversions[emulator]'"
    ) from error

from airflow_provider_imageversions.emulator.server import Emulator
from airflow_provider_imageversions.emulator.wire import install

__all__ = ["Emulator", "install"]
