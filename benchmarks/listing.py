"""Measure one way to list an image's versions."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import boto3

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from benchmarks.measure import KEY, REGION, answer
from benchmarks.server import admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IMAGE = "listed"
REPEATS = 3


def _paginator(client: Any, **request: Any) -> int:
    pages = client.get_paginator("list_image_versions").paginate(ImageName=IMAGE, **request)
    return len([version for page in pages for version in page["ImageVersions"]])


def _count(versions: Iterable[Any], *, memory: bool) -> int:
    """Go through the versions without keeping them."""
    count = 0
    for count, _ in enumerate(versions, 1):
        if memory and not count % 5_000:
            # Unreferenced memory is no growth: botocore's garbage, 200 bytes per page, which is rarely collected in a
            # process as big as Airflow, and the 4,096 names in CPython's method cache.
            gc.collect()
            sys._clear_type_cache()  # noqa: SLF001  # documented, even with this name
    return count


def _ways(endpoint: str, *, memory: bool) -> dict[str, Callable[[], int]]:
    """Return the ways by name; each returns the number of records."""
    client = boto3.client(
        "sagemaker", endpoint_url=endpoint, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=KEY
    )
    hook = SageMakerImageVersionsHook()
    return {
        "botocore's paginator, 100 a page": lambda: _paginator(client, MaxResults=100),
        "botocore's paginator, its default page": lambda: _paginator(client),
        "hook.list_image_versions": lambda: len(hook.list_image_versions(IMAGE)),
        "hook.iter_image_versions": lambda: _count(hook.iter_image_versions(IMAGE), memory=memory),
        "newest CREATED (limit=1)": lambda: len(hook.list_image_versions(IMAGE, statuses=["CREATED"], limit=1)),
    }


def measure(endpoint: str, way: str, versions: int, *, memory: bool) -> dict[str, Any]:
    """
    Measure one way of listing, without one-time work: imports, opening the client.

    :param endpoint: The stand-in's address.
    :param way: One of the ways above.
    :param versions: Number of versions of the image.
    :param memory: Measure the peak of memory (by tracemalloc, which makes it slow) rather than time.
    """
    run = _ways(endpoint, memory=memory)[way]
    admin(endpoint, "prepare", names=[IMAGE], versions=100)
    run()
    admin(endpoint, "prepare", names=[IMAGE], versions=versions, page_sizes=[10, 100])
    if memory:
        tracemalloc.start()
        run()
        return {"peak_bytes": tracemalloc.get_traced_memory()[1]}
    samples = []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        records = run()
        samples.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(samples)
    calls = len(admin(endpoint, "calls")) / REPEATS
    return {"wall_seconds": wall, "cpu_seconds": cpu, "calls": calls, "records": records}


if __name__ == "__main__":
    answer(measure)
