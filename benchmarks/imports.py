"""Measure the import time of this package in addition to Airflow and its Amazon provider."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from typing import Any

from benchmarks.measure import answer


def measure() -> dict[str, Any]:
    """Import all modules except for the emulator, which no DAG imports."""
    start = time.perf_counter()
    importlib.import_module("airflow.sdk")
    importlib.import_module("airflow.providers.amazon.aws.hooks.base_aws")
    airflow = time.perf_counter()
    before = len(sys.modules)
    package = importlib.import_module("airflow_provider_imageversions")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.ispkg:
            importlib.import_module(module.name)
    end = time.perf_counter()
    return {
        "airflow_seconds": airflow - start,
        "package_seconds": end - airflow,
        "modules": len(sys.modules) - before,
    }


if __name__ == "__main__":
    answer(measure)
