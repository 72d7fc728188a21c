"""Everything waits and watches on PostgreSQL, Celery and two triggerers, and survives what happens there."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pytest
from cryptography.fernet import Fernet
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_imageversions._sessions import BACKOFF_CAP
from airflow_provider_imageversions.emulator import Emulator
from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger
from dev.local_airflow import DISTRIBUTED, TRIGGERERS, WORKERS
from tests.e2e.conftest import ROOT, execute_at_once
from tests.e2e.test_waiting import MODES, register, tries
from tests.e2e.test_watching import (
    KILLS,
    VERSIONS,
    delivered,
    dispatcher,
    events,
    eventually,
    is_idle,
    is_reachable,
    let_start,
    started,
)

log = logging.getLogger(__name__)

pytestmark = pytest.mark.e2e

# SENSORS=100 KILLS=10 VERSIONS=20 OUTAGE=60 make e2e: as many and as long as a release wants it. By default, what fits
# between two cups of coffee.
SENSORS = int(os.environ.get("SENSORS", "10"))
OUTAGE = float(os.environ.get("OUTAGE", "10"))
# The second DAG of README.md, which polls once a minute: by default, tests do not wait for that.
README_AS_IT_IS = OUTAGE >= 60
IMAGE, RETRAIN = "my-training-image", "retrain"
IMAGES = 5
POKE_INTERVAL = 2


class Server:
    """An emulator in a process of its own, which can be killed and comes back empty on the same port."""

    def __init__(self):
        self._port = 0
        self.start()

    def start(self):
        command = [sys.executable, "-m", "airflow_provider_imageversions.emulator", "--creation-seconds", "4"]
        self._process = subprocess.Popen([*command, "--port", str(self._port)], stdout=subprocess.PIPE, text=True)
        url = self._process.stdout.readline().split()[-1]
        self._port = urlsplit(url).port
        self.client = Emulator.connect(url)
        self.client.client("s3").create_bucket(Bucket="demo-bucket")

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def service(server):
    return server.client


@pytest.fixture(scope="module")
def airflow(service, start_airflow):
    # Nothing but sharing is to keep the number of calls down.
    env = {"AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND": "100"}
    with start_airflow(service, env, components=DISTRIBUTED) as local:
        service.create_versions(IMAGE, 3)
        (local.dags_folder / "readme.py").write_text(readme_dag())
        let_start(local, RETRAIN)
        yield local


def readme_dag():
    """The DAG of README.md that starts a run for each version."""
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
        if "run_dag_per_version" in block
    )
    assert len([line for line in code.splitlines() if line]) <= 15
    return code if README_AS_IT_IS else code.replace("include_details=True", "include_details=True, poll_interval=1")


def callbacks(airflow, run_id):
    """How often Airflow called back for which task of a run."""
    path = airflow.home / "callbacks.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(tuple(line.split()[1:]) for line in lines if line.split()[0] == run_id)


def waiting_in(airflow, run_id):
    """How many of a run's tasks wait in which triggerer."""
    return dict(
        airflow.query(
            "SELECT job.unixname, count(*) FROM task_instance JOIN trigger ON trigger.id = task_instance.trigger_id"
            f" JOIN job ON job.id = trigger.triggerer_id WHERE run_id = '{run_id}' GROUP BY job.unixname"
        )
    )


def tried(airflow, run_id, task_id):
    """The state of each instance of a task and how often it was tried."""
    return airflow.query(
        "SELECT state, try_number, count(*) FROM task_instance"
        f" WHERE run_id = '{run_id}' AND task_id = '{task_id}' GROUP BY state, try_number"
    )


def states(airflow, run_id, table="task_instance", column="task_id"):
    try:
        return dict(airflow.query(f"SELECT {column}, state FROM {table} WHERE run_id = '{run_id}'"))
    except SQLAlchemyError:
        return {}


@contextmanager
def waiting_in_every_mode(airflow, service, image):
    """
    Start waits for a version in every mode; yield the run, and a function that makes the version ready.

    At the end all has to be well without a person. What Airflow's own components end by themselves is started again,
    as a service manager does in production.
    """
    (version,) = service.create_versions(image, 1, status="CREATING")
    dag_id = "waits_in_every_mode"
    airflow.wait_for_dag(dag_id)
    run_id = airflow.trigger(dag_id, conf={"image_name": image, "version": version})
    expected = {"poke": "running", "reschedule": "up_for_reschedule", "deferrable": "deferred"}
    eventually(airflow, lambda: states(airflow, run_id) == expected and waiting_in(airflow, run_id), 90, "all wait")

    yield run_id, lambda: service.set_version(image, version, status="CREATED")

    def is_over():
        return states(airflow, run_id, "dag_run", "run_id").get(run_id) in {"success", "failed"}

    # During an outage of SageMaker, a triggerer polls less and less often.
    eventually(airflow, is_over, BACKOFF_CAP + 60, "it ends", airflow.restart_ended)
    eventually(airflow, lambda: is_reachable(airflow), 60, "the API answers", airflow.restart_ended)
    assert states(airflow, run_id) == dict.fromkeys(MODES, "success")
    for mode in MODES:
        assert airflow.xcom(dag_id, run_id, mode)["Version"] == version


def worker_of(airflow, run_id, task_id):
    """In which worker a task runs; Airflow puts the task instance's id into the titles of its processes."""
    ((ti_id,),) = airflow.query(f"SELECT id FROM task_instance WHERE run_id = '{run_id}' AND task_id = '{task_id}'")
    titles = {process.pid: "".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    sessions = {os.getsid(pid) for pid, title in titles.items() if str(ti_id) in title}
    (worker,) = [name for name in WORKERS if airflow.pid(name) in sessions]
    return worker


def test_a_poke_whose_worker_is_killed_is_tried_again(airflow, service, image):
    with waiting_in_every_mode(airflow, service, image) as (run_id, make_ready):
        worker = worker_of(airflow, run_id, "poke")
        airflow.kill(worker)
        airflow.start(worker)
        eventually(airflow, lambda: tried(airflow, run_id, "poke") == [("running", 2, 1)], 120, "it is tried again")
        make_ready()
    assert tried(airflow, run_id, "poke") == [("success", 2, 1)]


def test_waits_survive_the_scheduler(airflow, service, image):
    with waiting_in_every_mode(airflow, service, image) as (run_id, make_ready):
        airflow.kill("scheduler")
        make_ready()
        eventually(airflow, lambda: states(airflow, run_id)["poke"] == "success", 60, "one ends without a scheduler")
        airflow.start("scheduler")
    assert tried(airflow, run_id, "deferrable") == [("success", 1, 1)]


def test_waits_survive_a_restart_of_the_database(airflow, service, image):
    with waiting_in_every_mode(airflow, service, image) as (_run_id, make_ready):
        airflow.kill("postgres", signal.SIGQUIT)  # all connections break off, and nothing is tidied up
        make_ready()
        airflow.start("postgres")


@pytest.fixture
def watched(airflow):
    """
    The image, when Airflow watches it.

    With its first call to Airflow a triggerer makes an API of its own and does nothing else for 8 seconds, or twice as
    long on a busy machine, after which another one may have taken over all that it had to wait for. That is behind it.
    """
    key = SageMakerImageVersionEventTrigger(image_name=IMAGE, statuses=["CREATED"]).state_key
    cursors = f"SELECT value FROM asset_state_store WHERE key = '{key}'"
    eventually(airflow, lambda: airflow.query(cursors), 90, "the watcher knows what is old")
    return IMAGE


def watches(airflow, fernet_key, image):
    """Which triggerer watches for versions of an image that are CREATED."""
    rows = airflow.query(
        "SELECT job.unixname, kwargs FROM trigger JOIN job ON job.id = trigger.triggerer_id"
        " WHERE classpath LIKE '%EventTrigger'"
    )
    arguments = [(name, Fernet(fernet_key).decrypt(kwargs).decode()) for name, kwargs in rows]
    return [name for name, text in arguments if f'"{image}"' in text and '"CREATED"' in text]


def be_without_database(airflow, change):
    """Disconnect the database for a while, and do something in the meantime."""
    airflow.kill("postgres", signal.SIGQUIT)
    over = time.monotonic() + OUTAGE
    change()
    while time.monotonic() < over:
        airflow.restart_ended()
        time.sleep(0.5)
    airflow.start("postgres")
    eventually(airflow, lambda: is_reachable(airflow), 120, "the API answers", airflow.restart_ended)


def test_every_version_has_one_run_although_components_are_killed(airflow, service, watched, fernet_key):
    dice = random.Random(7)  # noqa: S311 # a schedule, no secret
    *early, away, paused = service.create_versions(watched, VERSIONS, status="CREATING")
    waiting = list(early)
    dice.shuffle(waiting)
    victims = ["triggerer"] * KILLS + ["scheduler", "dag-processor", "worker"] * -(-KILLS * 3 // 5)
    dice.shuffle(victims)
    for number, victim in enumerate(victims):
        share = len(waiting) // (len(victims) - number)
        for version in waiting[:share]:
            service.set_version(watched, version, status="CREATED")
            time.sleep(dice.choice([0, 0, dice.uniform(0, 2)]))
        del waiting[:share]
        time.sleep(dice.uniform(0, 5))
        if victim == "triggerer":
            (name,) = eventually(airflow, lambda: watches(airflow, fernet_key, watched), 60, "one watches")
        else:
            name = dice.choice(WORKERS) if victim == "worker" else victim
        airflow.kill(name)
        airflow.start(name)
        if number == len(victims) // 4:
            airflow.pause(dispatcher(RETRAIN))
            service.set_version(watched, paused, status="CREATED")
            time.sleep(dice.uniform(0, 8))
            airflow.unpause(dispatcher(RETRAIN))
        if number == len(victims) // 2:
            be_without_database(airflow, lambda: service.set_version(watched, away, status="CREATED"))
    assert not waiting
    expected = sorted([*early, away, paused])
    eventually(
        airflow,
        lambda: set(delivered(airflow, watched)) >= set(expected),
        120,
        "every version is reported",
        airflow.restart_ended,
    )
    patience = 120 + 10 * VERSIONS
    # A run whose worker was killed fails, as its task has no retries.
    eventually(
        airflow,
        lambda: len(started(airflow, RETRAIN)) >= VERSIONS and is_idle(airflow, RETRAIN),
        patience,
        "all have a run",
        airflow.restart_ended,
    )
    identities = {each["event_id"]: each["Version"] for each in events(airflow, watched)}
    log.info("%d versions were reported %d times", VERSIONS, len(delivered(airflow, watched)))
    # Each exactly once, though some were perhaps reported twice.
    assert sorted(identities[identity] for identity in started(airflow, RETRAIN)) == expected


def all_looked(airflow, run_id):
    """Return whether all waits have polled their image where they wait now; each polls once before it shares polls."""
    rows = airflow.query(
        "SELECT dag_id, run_id, task_id, map_index, try_number, triggerer_id FROM task_instance"
        f" JOIN trigger ON trigger.id = task_instance.trigger_id WHERE run_id = '{run_id}'"
    )
    path = "dag_id={}/run_id={}/task_id={}/map_index={}/attempt={}.log.trigger.{}.log"
    logs = [airflow.home / "logs" / path.format(*row) for row in rows]
    return all(log.exists() and "waiting for version" in log.read_text() for log in logs)


def polls(service, images, count):
    """Wait until each image was polled this number of times; return the number of calls and of seconds."""
    started, known = time.monotonic(), {image: len(service.calls("ListImageVersions", image)) for image in images}
    deadline = started + 60 + count * POKE_INTERVAL
    while True:
        calls = {image: len(service.calls("ListImageVersions", image)) - known[image] for image in images}
        if min(calls.values()) >= count:
            return sum(calls.values()), time.monotonic() - started
        assert time.monotonic() < deadline, calls
        time.sleep(0.1)


def assert_shared(service, images, triggerers):
    calls, seconds = polls(service, images, 3 * triggerers)
    log.info("%d calls in %.1f s by %d triggerers for %d images", calls, seconds, triggerers, len(images))
    # An interval that is cut off may hold a call, at each end.
    assert calls <= len(images) * triggerers * (seconds / POKE_INTERVAL + 2)


def test_many_sensors_end_once_although_a_triggerer_is_killed(airflow, service, watched):
    images = [f"many-{number}" for number in range(IMAGES)]
    for image in images:
        service.create_versions(image, 4, status="CREATING")
    targets = [
        {"image_name": images[number % IMAGES], "version": 1 + number // IMAGES % 4} for number in range(SENSORS)
    ]
    airflow.wait_for_dag("waits_for_many")
    run_id = airflow.trigger("waits_for_many", conf={"targets": targets})

    def all_wait(triggerers):
        waiting = waiting_in(airflow, run_id)
        return sum(waiting.values()) == SENSORS and set(waiting) <= set(triggerers) and all_looked(airflow, run_id)

    # A triggerer takes all that it finds, so few waits that begin together may be in one of them.
    eventually(airflow, lambda: all_wait(TRIGGERERS), 60 + 4 * SENSORS, "all are deferred")
    waiting = waiting_in(airflow, run_id)
    assert_shared(service, images, len(waiting))

    killed = max(waiting, key=waiting.get)
    survivor = set(TRIGGERERS) - {killed}
    airflow.kill(killed)
    eventually(airflow, lambda: all_wait(survivor), 60, "all wait in the other one")
    assert_shared(service, images, 1)

    for image in images:
        for version in range(1, 5):
            service.set_version(image, version, status="CREATED")
    assert airflow.wait_for_run("waits_for_many", run_id, 60 + 4 * SENSORS) == "success"
    airflow.start(killed)
    assert tried(airflow, run_id, "waits") == [("success", 1, SENSORS)]
    assert airflow.query(f"SELECT count(*) FROM task_instance_history WHERE run_id = '{run_id}'") == [(0,)]
    expected = {("waits", str(index), "success"): 1 for index in range(SENSORS)} | {("targets", "-1", "success"): 1}
    assert callbacks(airflow, run_id) == expected
    records = [airflow.xcom("waits_for_many", run_id, "waits", map_index=index) for index in range(SENSORS)]
    assert [record["Version"] for record in records] == [target["version"] for target in targets]


def test_waits_survive_the_service(airflow, server, service, image):
    with waiting_in_every_mode(airflow, service, image) as (run_id, _make_ready):
        versions = len(service.client("sagemaker").list_image_versions(ImageName=image)["ImageVersions"])
        server.kill()
        over = time.monotonic() + OUTAGE
        while time.monotonic() < over:
            airflow.raise_if_dead()
            time.sleep(0.5)
        server.start()
        service.create_versions(image, versions)
    for mode in MODES:
        assert tried(airflow, run_id, mode)[0][:2] == ("success", 1), mode


@pytest.fixture(scope="module")
def bad_ends(airflow, service):
    """Concurrent waits in every mode, none of which gets its version; their runs by reason."""
    service.create_versions("never", 1, status="CREATE_FAILED")
    service.add_fault("access_denied", access_key_id="denied", times=None)
    skipped, failed = "skips_in_every_mode", "times_out_in_every_mode"
    waits = {
        "failure, soft_fail": (skipped, {"image_name": "never", "version": 1}),
        "timeout, soft_fail": (skipped, {"image_name": "never", "version": 99}),
        "timeout": (failed, {"image_name": "never", "version": 99}),
        "access denied": ("retries_in_every_mode", {"image_name": "never"}),
    }
    return dict(zip(waits, execute_at_once(airflow, waits.values()), strict=True))


@pytest.mark.parametrize("why", ["failure, soft_fail", "timeout, soft_fail"])
def test_with_soft_fail_a_failure_and_a_timeout_are_skipped_in_every_mode(airflow, bad_ends, why):
    run_id, _, states = bad_ends[why]
    assert states == dict.fromkeys(MODES, "skipped")
    assert callbacks(airflow, run_id) == {(mode, "-1", "skipped"): 1 for mode in MODES}


def test_a_timeout_fails_the_task_once_in_every_mode(airflow, bad_ends):
    run_id, state, states = bad_ends["timeout"]
    assert (state, states) == ("failed", dict.fromkeys(MODES, "failed"))
    assert tries(airflow, "times_out_in_every_mode", run_id) == dict.fromkeys(MODES, 1)
    assert callbacks(airflow, run_id) == {(mode, "-1", "failure"): 1 for mode in MODES}


def test_access_denied_is_retried_and_not_hidden_by_soft_fail_in_every_mode(airflow, bad_ends):
    run_id, state, states = bad_ends["access denied"]
    assert (state, states) == ("failed", dict.fromkeys(MODES, "failed"))
    assert tries(airflow, "retries_in_every_mode", run_id) == dict.fromkeys(MODES, 2)
    assert callbacks(airflow, run_id) == {(mode, "-1", event): 1 for mode in MODES for event in ("retry", "failure")}
    for task in MODES:
        log = airflow.task_log("retries_in_every_mode", run_id, task, try_number=1)
        assert "is not authorized to perform: sagemaker:ListImageVersions" in log


WITHOUT_A_WORKER = ("start", "end", "both")


def runs_on_a_worker(airflow, run_id, task):
    return airflow.task_log("waits_without_a_worker", run_id, task).count("DAG bundles loaded")


def link_of(airflow, run_id, task):
    path = f"/api/v2/dags/waits_without_a_worker/dagRuns/{quote(run_id)}/taskInstances/{task}/links"
    return airflow.api("GET", path)["extra_links"]["Amazon SageMaker Image"]


@pytest.fixture(scope="module")
def without_a_worker(airflow, service):
    """Concurrent waits that start and end in the triggerer; their runs by outcome."""
    for image in ("unattended-image", "attended-image"):
        service.create_versions(image, 2)
        assert register(service, image, Aliases=["blue"]) == 3
    service.create_versions("unattended-failure", 1, status="CREATE_FAILED")
    some, all_ = "gives_up_without_a_worker", "fails_without_a_worker"
    waits = {
        "success": ("waits_without_a_worker", {"image_name": "attended-image", "version": 3, "include_details": True}),
        "failure": (some, {"image_name": "unattended-failure", "version": 1}),
        "timeout": (some, {"image_name": "attended-image", "version": 99}),
        "all": (all_, {}),
    }
    return dict(zip(waits, execute_at_once(airflow, waits.values()), strict=True))


def test_a_wait_that_starts_and_ends_in_the_triggerer_costs_no_worker(airflow, without_a_worker):
    run_id, state, states = without_a_worker["success"]
    assert (state, states) == ("success", dict.fromkeys(WITHOUT_A_WORKER, "success"))
    for task, image_name in {"start": "attended-image", "end": "attended-image", "both": "unattended-image"}.items():
        record = airflow.xcom("waits_without_a_worker", run_id, task)
        assert (record["Version"], record["Aliases"]) == (3, ["blue"])
        assert record["ImageVersionArn"].endswith(f":image-version/{image_name}/3")
        link = f"https://console.aws.amazon.com/sagemaker/home?region=us-east-1#/images/{image_name}"
        # A worker stores links after the state.
        eventually(
            airflow, lambda task=task, link=link: link_of(airflow, run_id, task) == link, 30, f"{task} has a link"
        )
    logs = [airflow.task_log("waits_without_a_worker", run_id, task) for task in WITHOUT_A_WORKER]
    # A triggerer's first request after an outage of the database may fail. Then a worker ends the wait.
    fallbacks = [log.count("a worker will complete it") for log in logs]
    runs = [runs_on_a_worker(airflow, run_id, task) for task in WITHOUT_A_WORKER]
    assert runs == [1, 1 + fallbacks[1], fallbacks[2]], "\n".join(logs)


@pytest.mark.parametrize(
    ("why", "error"), [("failure", "ImageVersionFailedError"), ("timeout", "AirflowSensorTimeout")]
)
def test_a_failure_and_a_timeout_are_the_same_without_a_worker(airflow, without_a_worker, why, error):
    run_id, _, states = without_a_worker[why]
    assert (states["start"], states["end"]) == ("failed", "skipped")
    assert callbacks(airflow, run_id) == {("start", "-1", "failure"): 1}
    assert set(tries(airflow, "gives_up_without_a_worker", run_id, ("start", "end")).values()) == {1}
    assert error in airflow.task_log("gives_up_without_a_worker", run_id, "start")


def test_a_failure_and_a_timeout_are_the_same_where_no_worker_comes_at_all(airflow, without_a_worker):
    run_id, _, states = without_a_worker["all"]
    assert states == {"failed": "failed", "late": "failed"}
    assert set(tries(airflow, "fails_without_a_worker", run_id, states).values()) == {1}
    log = airflow.task_log("fails_without_a_worker", run_id, "failed")
    assert "ImageVersionFailedError: SageMaker image 'unattended-failure': version 1 is CREATE_FAILED" in log
    assert "AirflowSensorTimeout" in airflow.task_log("fails_without_a_worker", run_id, "late")


def test_mapped_sensors_wait_for_what_a_task_lists_and_share_their_calls(airflow, service, execute, image):
    expected = [1, 2, *(register(service, image) for _ in range(SENSORS // 2))]
    run_id, state, _ = execute("lists_and_waits_for_many", image_name=image)
    assert state == "success"
    assert airflow.xcom("lists_and_waits_for_many", run_id, "ready") == expected


def test_nothing_is_left_of_an_airflow_whose_caller_is_killed():
    code = """if True:
        from dev.local_airflow import LocalAirflow
        airflow = LocalAirflow("example_dags", components=("postgres", "redis"))
        airflow.start()
        print(airflow.home, airflow.pid("postgres"), airflow.pid("redis"), flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as caller:
        home, *pids = caller.stdout.readline().split()
        servers = [psutil.Process(int(pid)) for pid in pids]
        servers += [child for server in servers for child in server.children(recursive=True)]
        caller.kill()
    deadline = time.monotonic() + 60
    while Path(home).exists() or any(server.is_running() for server in servers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
