"""Watchers through connections that are stored in Airflow; the tests rewrite what is in capitals while they run."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, image_versions

POLL_INTERVAL = 1
INCLUDE_DETAILS = False
TAGS = ["watches"]

for name in ("rotated", "throttled"):
    image = image_version_asset(
        f"{name}-image",
        statuses=["CREATED", "CREATE_FAILED"],
        poll_interval=POLL_INTERVAL,
        include_details=INCLUDE_DETAILS,
        aws_conn_id=name,
    )
    with DAG(f"tells_of_{name}_image", schedule=[image], max_active_runs=1, catchup=False, tags=TAGS):

        @task(inlets=[image])
        def report(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[dict[str, Any]]:
            """Return all events so far."""
            return image_versions(triggering_asset_events, inlet_events[0])

        report()
