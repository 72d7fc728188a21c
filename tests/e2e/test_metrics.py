"""The triggerer's own process sends the metrics, by way of the copy of Stats that it initializes."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.e2e


def eventually(airflow, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        airflow.raise_if_dead()
        assert time.monotonic() < deadline, airflow.diagnosis()
        time.sleep(0.5)


def test_the_triggerer_sends_metrics_of_polls_and_events(airflow, service, statsd):
    for image in ("waited-for-image", "measured-image"):
        service.create_versions(image, 1)
    airflow.wait_for_dag("watches_and_is_measured")
    airflow.unpause("watches_and_is_measured")
    airflow.wait_for_dag("waits_and_is_measured")
    run_id = airflow.trigger("waits_and_is_measured")

    def polled(image):
        return sum(metric.tags.get("image_name") == image for metric in statsd.metrics("polls"))

    # What is created after the second poll is new to a watcher that just started.
    eventually(airflow, lambda: polled("waited-for-image") and polled("measured-image") > 1)
    for image in ("waited-for-image", "measured-image"):
        service.create_versions(image, 1)
    assert airflow.wait_for_run("waits_and_is_measured", run_id, 60) == "success"
    eventually(airflow, lambda: any(delay.tags["image_name"] == "measured-image" for delay in events(statsd)))
    (delay,) = [each for each in events(statsd) if each.tags["image_name"] == "measured-image"]
    assert 0 < delay.value < 60_000
    for name in ("api_calls", "poll_duration", "subscribers"):
        assert statsd.metrics(name)


def events(statsd):
    return statsd.metrics("event_delay")
