"""Retraining starts by itself, and loses nothing when the triggerer is killed."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from contextlib import closing

import pytest

from tests.e2e.test_waiting import register

pytestmark = pytest.mark.e2e

IMAGE = "demo-image"
RETRAIN = "example_retrain_on_new_image_version"
ALERT = "example_alert_on_failed_image_version"
# KILLS=10 VERSIONS=20 make e2e: as often as a release wants it. By default, what fits between two cups of coffee.
KILLS = int(os.environ.get("KILLS", "2"))
VERSIONS = int(os.environ.get("VERSIONS", "5"))


def story(airflow):
    """What the runs did, for a failure's message."""
    states = [
        (run["dag_run_id"], run["state"], airflow.task_states(RETRAIN, run["dag_run_id"]))
        for run in airflow.runs(RETRAIN)
    ]
    return "\n".join(map(str, states))


def eventually(airflow, condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        airflow.raise_if_dead()
        assert time.monotonic() < deadline, f"{what}\n{story(airflow)}\n{airflow.diagnosis()}"
        time.sleep(0.5)
    return result


def events(airflow):
    """
    The asset events that Airflow stored for new versions, oldest first.

    From its database: while a run is being made of an event, the API answers 500 to the question for events.
    """
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=60)) as database:
        rows = database.execute("SELECT extra FROM asset_event ORDER BY id").fetchall()
    return [payload for (extra,) in rows if (payload := json.loads(extra).get("payload")) is not None]


def trained(airflow):
    """The event ids that the consumer processed."""
    variables = airflow.api("GET", "/api/v2/variables")["variables"]
    return [
        identity
        for each in variables
        if each["key"] == "trained_image_versions"
        for identity in json.loads(each["value"])
    ]


def is_idle(airflow):
    return all(run["state"] in {"success", "failed"} for run in airflow.runs(RETRAIN))


@pytest.fixture(scope="module")
def watched(airflow, service):
    """The image, when Airflow watches it."""
    service.create_versions(IMAGE, 3)
    for dag_id in (RETRAIN, ALERT):
        airflow.wait_for_dag(dag_id)
        airflow.unpause(dag_id)
    eventually(airflow, lambda: service.calls("ListImageVersions", IMAGE), 60, "the watcher polls")
    # Both watchers have their baseline when both have polled; then a version is new.
    time.sleep(3)
    return IMAGE


def test_a_new_version_is_trained_with_by_itself(airflow, service, watched):
    version = register(service, watched)
    eventually(airflow, lambda: trained(airflow), 90, "the new version is trained with")
    (payload,) = [each for each in events(airflow) if each["status"] == "CREATED"]
    assert payload["Version"] == version
    assert trained(airflow) == [payload["event_id"]]
    job = service.client("sagemaker").describe_training_job(
        TrainingJobName=f"{watched}-{version}-{payload['event_id'][:8]}"
    )
    assert job["AlgorithmSpecification"]["TrainingImage"] == payload["ContainerImage"]


def test_a_failed_version_raises_an_alert_with_its_reason(airflow, service, watched):
    before = len(airflow.runs(RETRAIN))
    version = register(service, watched, tag="does-not-exist")
    (run,) = eventually(airflow, lambda: airflow.runs(ALERT), 60, "the alert")
    assert airflow.wait_for_run(ALERT, run["dag_run_id"], 60) == "success"
    (message,) = airflow.xcom(ALERT, run["dag_run_id"], "alert")
    assert f"Version {version} of {watched} failed" in message
    assert "does-not-exist" in message
    assert len(airflow.runs(RETRAIN)) == before


def test_every_version_is_trained_with_once_though_the_triggerer_is_killed_again_and_again(airflow, service, watched):
    dice = random.Random(7)  # noqa: S311 # a schedule, no secret
    known = set(trained(airflow))
    service.creation_seconds = 3600
    expected = [register(service, watched) for _ in range(VERSIONS)]
    waiting = list(expected)
    dice.shuffle(waiting)
    try:
        for kill in range(KILLS):
            share = len(waiting) // (KILLS - kill)
            for version in waiting[:share]:
                service.set_version(watched, version, status="CREATED")
                time.sleep(dice.uniform(0, 2))
            del waiting[:share]
            time.sleep(dice.uniform(0, 8))
            airflow.kill("triggerer")
            airflow.start("triggerer")
            time.sleep(dice.uniform(0, 12))
    finally:
        service.creation_seconds = 4.0
    for version in waiting:
        service.set_version(watched, version, status="CREATED")

    def told():
        return {each["Version"] for each in events(airflow) if each["status"] == "CREATED"} >= set(expected)

    eventually(airflow, told, 120, "every version is told of")
    eventually(airflow, lambda: len(set(trained(airflow)) - known) >= VERSIONS and is_idle(airflow), 100, "all trained")
    identities = {each["event_id"]: each["Version"] for each in events(airflow)}
    done = [identities[identity] for identity in trained(airflow) if identity not in known]
    # Each exactly once, though some were perhaps told of twice.
    assert sorted(done) == sorted(expected)


def test_a_restart_with_nothing_new_fires_nothing(airflow, service, watched):
    # What was told last is settled at a poll ten seconds later.
    time.sleep(25)
    before, runs = len(events(airflow)), len(airflow.runs(RETRAIN))
    calls = len(service.calls("ListImageVersions", watched))
    airflow.kill("triggerer")
    airflow.start("triggerer")
    eventually(airflow, lambda: len(service.calls("ListImageVersions", watched)) > calls + 3, 90, "it polls again")
    assert len(events(airflow)) == before
    assert len(airflow.runs(RETRAIN)) == runs
