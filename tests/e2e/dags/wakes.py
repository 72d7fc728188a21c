"""One run for each version within seconds, though polls are a quarter of an hour apart; the tests rewrite QUEUE."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, run_dag_per_version

QUEUE = "http://127.0.0.1:5000/123456789012/image-versions"

image = image_version_asset("woken-image", wake_queue=QUEUE, poll_interval=900)

with DAG("woken", schedule=None, catchup=False) as woken:

    @task
    def do_nothing() -> None:
        """Take a moment only."""

    do_nothing()

dispatch = run_dag_per_version(woken, image)
