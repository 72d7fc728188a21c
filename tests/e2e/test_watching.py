"""Retraining starts by itself, and loses nothing when something is killed, away, throttled, expired or edited."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import time
from http.client import HTTPException
from statistics import median

import pytest
from cryptography.fernet import Fernet
from dateutil.parser import isoparse
from sqlalchemy.exc import OperationalError

from airflow_provider_imageversions._sessions import BACKOFF_CAP
from dev.local_airflow import ApiError, airflow_command
from tests.e2e.test_waiting import register

log = logging.getLogger(__name__)

pytestmark = pytest.mark.e2e

IMAGE = "demo-image"
RETRAIN = "example_retrain_on_new_image_version"
ALERT = "example_alert_on_failed_image_version"
OLD_KEY, NEW_KEY, OTHER_KEY = "AKIAOLD", "AKIANEW", "AKIAOTHER"
SECRETS = {OLD_KEY: "the-old-secret", NEW_KEY: "the-new-secret", OTHER_KEY: "the-other-secret"}
SESSION_TOKEN = "the-session-token"
# KILLS=10 VERSIONS=20 OUTAGE=60 WAKES=20 make e2e: as often and as long as a release wants it. By default, what fits
# between two cups of coffee.
KILLS = int(os.environ.get("KILLS", "2"))
VERSIONS = int(os.environ.get("VERSIONS", "5"))
OUTAGE = float(os.environ.get("OUTAGE", "10"))
WAKES = int(os.environ.get("WAKES", "3"))


def story(airflow):
    """What the runs and their tasks did, for a failure's message."""
    statements = (
        "SELECT dag_id, run_id, state FROM dag_run ORDER BY id",
        "SELECT dag_id, run_id, task_id, map_index, state FROM task_instance WHERE state IS NULL OR state != 'success'",
    )
    return "\n".join(str(row) for statement in statements for row in airflow.query(statement))


def eventually(airflow, condition, seconds, what, tend=None):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        (tend or airflow.raise_if_dead)()
        assert time.monotonic() < deadline, f"{what}\n{story(airflow)}\n{airflow.diagnosis()}"
        time.sleep(0.5)
    return result


def events(airflow, image):
    """The asset events that Airflow stored for an image, oldest first."""
    extras = [
        json.loads(extra) for (extra,) in airflow.query("SELECT CAST(extra AS TEXT) FROM asset_event ORDER BY id")
    ]
    payloads = [extra["payload"] for extra in extras if "payload" in extra]
    return [payload for payload in payloads if payload.get("image_name") == image]


def delivered(airflow, image):
    return [payload["Version"] for payload in events(airflow, image)]


def run_ids(airflow):
    """The runs that the watched image's versions started."""
    return [run["dag_run_id"] for dag_id in (RETRAIN, ALERT) for run in airflow.runs(dag_id)]


def triggers(airflow, fernet_key):
    """The arguments of the triggers that Airflow stored, decrypted."""
    rows = airflow.query("SELECT kwargs FROM trigger")
    # Those that the scheduler stores, for a task that starts in the triggerer, are not encrypted.
    return [kwargs if kwargs.startswith("{") else Fernet(fernet_key).decrypt(kwargs).decode() for (kwargs,) in rows]


def has_baseline(service, image):
    """Whether what is created from now on is new to a watcher that just started."""
    return any(call["status"] == 200 for call in service.calls("ListImageVersions", image))


def is_settled(airflow):
    """Return whether no watcher would emit an event again after a crash."""
    # The watcher that is woken by a queue stores what was delivered at its next poll, a quarter of an hour later.
    watchers = """
        SELECT s.value FROM asset_state_store s JOIN asset a ON a.id = s.asset_id
        WHERE s.key NOT LIKE '%dispatched%' AND a.uri NOT LIKE '%/woken-image%'
    """
    return not any(json.loads(value)["sent"] for (value,) in airflow.query(watchers))


def dispatcher(dag_id):
    return f"{dag_id}__image_versions"


def started(airflow, dag_id):
    """The event ids that have a run, once for each."""
    return [run["conf"]["event_id"] for run in airflow.runs(dag_id)]


def trained(airflow):
    """The event ids of the runs that succeeded."""
    return [run["conf"]["event_id"] for run in airflow.runs(RETRAIN) if run["state"] == "success"]


def let_start(airflow, *dag_ids):
    """Unpause DAGs and what starts them."""
    for dag_id in dag_ids:
        for each in (dag_id, dispatcher(dag_id)):
            airflow.wait_for_dag(each)
            airflow.unpause(each)


def is_reachable(airflow):
    try:
        airflow.runs(RETRAIN)
    except (OSError, HTTPException, ApiError):
        return False
    return True


def is_idle(airflow, dag_id=RETRAIN):
    return not active(airflow, dag_id, dispatcher(dag_id))


@pytest.fixture(scope="module")
def watched(airflow, service):
    """The image, when Airflow watches it."""
    service.create_versions(IMAGE, 3)
    let_start(airflow, RETRAIN, ALERT)
    eventually(airflow, lambda: service.calls("ListImageVersions", IMAGE), 60, "the watcher polls")
    # Both watchers have their baseline when both have polled; then a version is new.
    time.sleep(3)
    return IMAGE


def test_a_new_version_is_trained_with_by_itself(airflow, service, watched):
    version = register(service, watched)
    eventually(airflow, lambda: trained(airflow), 90, "the new version is trained with")
    (payload,) = events(airflow, watched)
    assert payload["Version"] == version
    assert trained(airflow) == [payload["event_id"]]
    run_id = f"version-{version}-{payload['event_id'][:8]}"
    assert [run["dag_run_id"] for run in airflow.runs(RETRAIN)] == [run_id]
    job = service.client("sagemaker").describe_training_job(TrainingJobName=f"{watched}-{run_id}")
    assert job["AlgorithmSpecification"]["TrainingImage"] == payload["ContainerImage"]


def test_versions_that_are_ready_together_have_a_run_each(airflow, service, watched):
    before = len(airflow.runs(RETRAIN))
    expected = service.create_versions(watched, 3, status="CREATING")
    for version in expected:
        service.set_version(watched, version, status="CREATED")
    eventually(airflow, lambda: len(trained(airflow)) == before + 3, 120, "each is trained with")
    runs = airflow.runs(RETRAIN)[before:]
    assert sorted(run["conf"]["Version"] for run in runs) == sorted(expected)
    assert {run["logical_date"] for run in runs} == {None}


def test_a_failed_version_raises_an_alert_with_its_reason(airflow, service, watched):
    before = len(airflow.runs(RETRAIN))
    version = register(service, watched, tag="does-not-exist")
    (run,) = eventually(airflow, lambda: airflow.runs(ALERT), 60, "the alert")
    assert airflow.wait_for_run(ALERT, run["dag_run_id"], 60) == "success"
    message = airflow.xcom(ALERT, run["dag_run_id"], "alert")
    assert f"Version {version} of {watched} failed" in message
    assert "does-not-exist" in message
    assert len(airflow.runs(RETRAIN)) == before


def connect(airflow, service, method, conn_id, key):
    """Store a connection in Airflow, or change it there."""
    settings = json.loads(service.airflow_connection())
    extra = json.dumps({**settings["extra"], "aws_session_token": SESSION_TOKEN})
    body = {"connection_id": conn_id, "conn_type": "aws", "login": key, "password": SECRETS[key], "extra": extra}
    airflow.api(method, f"/api/v2/connections{'' if method == 'POST' else f'/{conn_id}'}", body)


@pytest.fixture(scope="module")
def stored_connections(airflow, service):
    """Two images that are watched through connections in Airflow's database, each with a client of its own."""
    for name, key in (("rotated", OLD_KEY), ("throttled", OTHER_KEY)):
        service.create_versions(f"{name}-image", 1)
        connect(airflow, service, "POST", name, key)
        airflow.wait_for_dag(f"tells_of_{name}_image")
        airflow.unpause(f"tells_of_{name}_image")

    for name in ("rotated", "throttled"):
        eventually(airflow, lambda name=name: has_baseline(service, f"{name}-image"), 60, "the watcher polls")


def received(airflow, dag_id):
    """What the newest run of a consumer got."""
    runs = [run for run in airflow.runs(dag_id) if run["state"] == "success"]
    return airflow.xcom(dag_id, runs[-1]["dag_run_id"], "report") if runs else []


def test_a_long_reason_with_control_characters_reaches_the_consumer(airflow, service, stored_connections):
    image = "rotated-image"
    (version,) = service.create_versions(image, 1, status="CREATING")
    odd = "\x00\x1b[31m\x7f\x85\udfff\ud800\ufffe\u2028\u202e\t\nÄ漢😀'\"\\{{ 1 }}</script>%s"
    reason = odd + "r" * (1024 - len(odd))
    service.set_version(image, version, status="CREATE_FAILED", failure_reason=reason)
    eventually(airflow, lambda: received(airflow, "tells_of_rotated_image"), 60, "the consumer")
    (payload,) = received(airflow, "tells_of_rotated_image")
    assert payload["Version"] == version
    assert payload["FailureReason"] == re.sub("[\x00\x1b\x7f\x85\ud800\udfff]", "\ufffd", reason)


def test_throttling_and_expired_credentials_are_waited_out_and_said_once(airflow, service, stored_connections):
    logged = len(airflow.component_log("triggerer"))
    before = {image: delivered(airflow, image) for image in ("rotated-image", "throttled-image")}
    service.add_fault("throttling", image_name="throttled-image", operation=None, times=None)
    service.add_fault("expired_token", access_key_id=OLD_KEY, operation=None, times=None)
    deadline = time.monotonic() + OUTAGE
    time.sleep(OUTAGE / 3)
    expected = {image: service.create_versions(image, 2, status="CREATING") for image in before}
    for image, versions in expected.items():
        for version in reversed(versions):
            service.set_version(image, version, status="CREATED")

    def is_delivered(image):
        return set(delivered(airflow, image)) >= set(expected[image])

    time.sleep(deadline - time.monotonic())
    assert {image: delivered(airflow, image) for image in before} == before
    connect(airflow, service, "PATCH", "rotated", NEW_KEY)
    eventually(airflow, lambda: is_delivered("rotated-image"), 60, "the new credentials are used")
    assert service.calls("ListImageVersions", "rotated-image")[-1]["access_key_id"] == NEW_KEY
    service.clear_faults()
    # While throttled it kept away for longer and longer, by chance up to three times as long as that lasted.
    eventually(airflow, lambda: is_delivered("throttled-image"), BACKOFF_CAP + 10, "throttling is over")
    for image, versions in expected.items():
        assert delivered(airflow, image) == before[image] + versions
        lines = [line for line in airflow.component_log("triggerer")[logged:].splitlines() if image in line]
        assert len([line for line in lines if "cannot be polled; retrying" in line]) == 1, lines
        assert len([line for line in lines if "can be polled again" in line]) == 1, lines


def test_a_version_created_during_a_database_outage_gets_one_run(airflow, service, watched):
    known = set(trained(airflow))
    expected = service.create_versions(watched, 3, status="CREATING")
    with airflow.database_away():
        deadline = time.monotonic() + OUTAGE
        for version in expected:
            service.set_version(watched, version, status="CREATED")
        with pytest.raises(OperationalError):
            airflow.query("SELECT * FROM dag")
        while time.monotonic() < deadline:
            # Airflow's own components may end without their database. In production a service manager starts them.
            airflow.restart_ended()
            time.sleep(0.5)
    eventually(airflow, lambda: is_reachable(airflow), 60, "the API answers", airflow.restart_ended)
    eventually(
        airflow,
        lambda: len(set(trained(airflow)) - known) >= len(expected) and is_idle(airflow),
        120,
        "all are trained with",
        airflow.restart_ended,
    )
    identities = {each["event_id"]: each["Version"] for each in events(airflow, watched)}
    done = [identities[identity] for identity in trained(airflow) if identity not in known]
    assert sorted(done) == sorted(expected)


def test_an_eventbridge_event_starts_the_run_before_the_interval(airflow, service):
    image, target, interval = "woken-image", "woken", 900
    service.create_versions(image, 1)
    queue = service.client("sqs").get_queue_url(QueueName="image-versions")["QueueUrl"]
    let_start(airflow, target)
    eventually(airflow, lambda: has_baseline(service, image), 60, "the watcher polls")
    before = len(service.calls("ListImageVersions", image))
    service.send_state_changes_to(queue)
    try:
        for count in range(1, WAKES + 1):
            register(service, image)
            eventually(airflow, lambda count=count: len(airflow.runs(target)) == count, 60, "it is dispatched")
            eventually(airflow, lambda: not active(airflow, target, dispatcher(target)), 60, "all have ended")
    finally:
        service.send_state_changes_to(None)
    calls = len(service.calls("ListImageVersions", image)) - before
    seconds = [waited(run) for run in airflow.runs(target)]
    log.info("CREATED to queued, of %d: median %.2f s, maximum %.2f s", WAKES, median(seconds), max(seconds))
    assert [run["conf"]["Version"] for run in airflow.runs(target)] == list(range(2, WAKES + 2))
    assert max(seconds) < interval / 10
    # CREATING and CREATED are an event each.
    assert calls <= 2 * WAKES + 1


def waited(run):
    """Seconds from the version becoming CREATED to its run being queued."""
    created, queued = (isoparse(text) for text in (run["conf"]["LastModifiedTime"], run["queued_at"]))
    return (queued - created).total_seconds()


def active(airflow, *dag_ids):
    return [run for dag_id in dag_ids for run in airflow.runs(dag_id) if run["state"] in {"queued", "running"}]


def clean_database(airflow, *dag_ids):
    """Delete the runs of these DAGs as Airflow's command does; the scheduler ends if it is working on one of them."""
    command = airflow_command("db", "clean", "--clean-before-timestamp", "2100-01-01", "--tables", "dag_run", "--yes")
    command += ["--skip-archive", "--dag-ids", ",".join(dag_ids)]
    subprocess.run(command, env=airflow._env, check=True, capture_output=True)


def test_each_version_has_one_run_whatever_becomes_of_runs_and_dags(airflow, service, edit):
    """A target that comes late, a run that exists, deleted runs, a cleaned database, a new dispatching DAG."""
    image, target, another = "dispatched-image", "dispatched", "dispatched_anew"
    service.create_versions(image, 2)

    def create(count=1):
        return service.create_versions(image, count)

    def dispatched(dag_id):
        return sorted(run["conf"]["Version"] for run in airflow.runs(dag_id))

    def dispatched_and_idle(dag_id, versions):
        return dispatched(dag_id) == versions and not active(airflow, dag_id, dispatcher(dag_id))

    def failed_once():
        states = "SELECT state FROM task_instance WHERE dag_id = 'dispatched__image_versions' AND task_id = 'start'"
        return ("up_for_retry",) in airflow.query(states)

    airflow.wait_for_dag(dispatcher(target))
    airflow.unpause(dispatcher(target))
    eventually(airflow, lambda: has_baseline(service, image), 60, "the watcher polls")
    time.sleep(3)
    notes, first = "{{ 7 * 7 }}", [3]  # no template of ours
    service.client("sagemaker").create_image_version(ImageName=image, BaseImage="training:3", ReleaseNotes=notes)
    eventually(airflow, failed_once, 90, "the target is missed")
    edit("dispatches.py", HAS_TARGET=True)
    airflow.wait_for_dag(target)
    airflow.unpause(target)
    eventually(airflow, lambda: dispatched_and_idle(target, first), 120, "the target is there")
    (run,) = airflow.runs(target)
    assert run["state"] == "success"
    assert airflow.xcom(target, run["dag_run_id"], "show") == run["conf"]
    assert run["conf"]["ReleaseNotes"] == notes

    # Deleted by a person, and by Airflow's own command with all runs of all DAGs, the dispatching one included.
    airflow.api("DELETE", f"/api/v2/dags/{target}/dagRuns/{run['dag_run_id']}")
    second = create(2)
    eventually(airflow, lambda: dispatched_and_idle(target, second), 90, "those after a deleted run")
    earlier = {run["dag_run_id"] for run in airflow.runs(dispatcher(target))}
    clean_database(airflow, target, dispatcher(target))
    left = {run["dag_run_id"] for run in airflow.runs(dispatcher(target))}
    assert len(left & earlier) <= 1  # Airflow keeps the last one
    edit("dispatches.py", HAS_ANOTHER=True)
    let_start(airflow, another)
    third = create()
    eventually(airflow, lambda: dispatched_and_idle(another, third), 120, "the new dispatching DAG starts one only")
    eventually(airflow, lambda: set(third) <= set(dispatched(target)), 90, "those after a clean-up")
    assert not set(first + second) & set(dispatched(another))
    assert set(dispatched(target)) <= {*second, *third}

    # Made by hand, it is no image version.
    before = len(airflow.runs(dispatcher(another)))
    (asset,) = assets(airflow, f"sagemaker-image://default/{image}")
    airflow.api("POST", "/api/v2/assets/events", {"asset_id": asset["id"], "extra": {"made": "by hand"}})
    eventually(airflow, lambda: len(airflow.runs(dispatcher(another))) > before, 60, "the event is seen")
    eventually(airflow, lambda: not active(airflow, dispatcher(another)), 60, "it is skipped")
    (*_, last) = airflow.runs(dispatcher(another))
    assert last["state"] == "success"
    assert "Skipping an event of asset" in airflow.task_log(
        dispatcher(another), last["dag_run_id"], "find_new_versions"
    )
    assert dispatched(another) == third


def assets(airflow, uri):
    """The assets with this URI: Airflow's API finds those that begin with it, too."""
    found = airflow.api("GET", "/api/v2/assets", params={"uri_pattern": uri})["assets"]
    return [asset for asset in found if asset["uri"] == uri]


def test_an_event_that_arrives_while_the_dispatching_dag_is_paused_has_its_run_soon_after(airflow):
    target = "dispatched_late"
    let_start(airflow, target)

    def dispatches():
        runs = airflow.runs(dispatcher(target))
        return [run["dag_run_id"] for run in runs if run["state"] == "success"]

    def rests():
        return dispatches() and not active(airflow, dispatcher(target))

    # A run that is active when its DAG is paused stays so.
    eventually(airflow, rests, 90, "it knows what is old")
    airflow.pause(dispatcher(target))
    before = dispatches()
    (asset,) = assets(airflow, "sagemaker-image://default/late-image")
    payload = {"Version": 3, "event_id": "3f2a9c01" * 4}
    airflow.api("POST", "/api/v2/assets/events", {"asset_id": asset["id"], "extra": payload})
    assert (airflow.runs(target), dispatches()) == ([], before)
    airflow.unpause(dispatcher(target))
    (run,) = eventually(airflow, lambda: airflow.runs(target), 60, "it is dispatched")
    assert run["dag_run_id"] == "version-3-3f2a9c01"
    assert run["conf"].items() >= payload.items()
    eventually(airflow, lambda: len(dispatches()) > len(before) + 1, 60, "the dispatching DAG has run again")
    airflow.pause(dispatcher(target))
    assert len(airflow.runs(target)) == 1


def test_a_restart_with_nothing_new_fires_nothing(airflow, service, watched):
    eventually(airflow, lambda: is_settled(airflow), 120, "the last events are settled")
    before = events(airflow, watched), run_ids(airflow)
    calls = len(service.calls("ListImageVersions", watched))
    airflow.kill("triggerer")
    airflow.start("triggerer")
    eventually(airflow, lambda: len(service.calls("ListImageVersions", watched)) > calls + 3, 90, "it polls again")
    assert (events(airflow, watched), run_ids(airflow)) == before


def test_an_edited_dag_file_neither_repeats_nor_loses_events(airflow, service, stored_connections, fernet_key, edit):
    image, dag_id = "rotated-image", "tells_of_rotated_image"
    meanwhile, after = service.create_versions(image, 2, status="CREATING")
    eventually(airflow, lambda: is_settled(airflow), 120, "the last events are settled")
    earlier = delivered(airflow, image)
    service.set_version(image, meanwhile, status="CREATED")
    edit("watches.py", POLL_INTERVAL=2, INCLUDE_DETAILS=True)

    def watchers(*, include_details):
        option = f'"include_details": {json.dumps(include_details)}'
        return [each for each in triggers(airflow, fernet_key) if image in each and option in each]

    eventually(airflow, lambda: not watchers(include_details=False), 60, "the old watcher is gone")
    # Airflow drops the new one together with the old one, and takes it up when it parses the file for the second time:
    # half a minute later, or when it is edited again.
    edit("watches.py", TAGS=["edited"])
    eventually(airflow, lambda: watchers(include_details=True), 60, "the edit is in force")
    service.set_version(image, after, status="CREATED")
    eventually(airflow, lambda: after in delivered(airflow, image), 60, "the version after the edit")
    assert "ContainerImage" in events(airflow, image)[-1]
    assert [tag["name"] for tag in airflow.api("GET", f"/api/v2/dags/{dag_id}")["tags"]] == ["edited"]
    # Both watchers may emit events that were not settled when the new one took over, with the same event_id.
    assert list(dict.fromkeys(delivered(airflow, image))) == [*earlier, meanwhile, after]
    assert [version for version in delivered(airflow, image) if version != meanwhile] == [*earlier, after]
    identities = {payload["event_id"] for payload in events(airflow, image)}
    assert len(identities) == len(earlier) + 2
    eventually(airflow, lambda: len(received(airflow, dag_id)) == len(identities), 60, "the consumer")


def test_neither_the_stored_triggers_nor_the_logs_hold_a_secret(airflow, stored_connections, fernet_key):
    texts = triggers(airflow, fernet_key)
    assert any('"aws_conn_id": "rotated"' in text for text in texts)
    logs = {str(path): path.read_text(errors="replace") for path in airflow.home.rglob("*.log")}
    assert [path for path, log in logs.items() if "rotated-image" in log], list(logs)
    texts += logs.values()
    for secret in (*SECRETS.values(), SESSION_TOKEN):
        assert not [text for text in texts if secret in text]
