"""Versions are made, promoted and retired by real workers, some of which are killed while they do."""

from __future__ import annotations

import os
import signal
import time
import uuid

import psutil
import pytest

pytestmark = pytest.mark.e2e

# CREATES=50 make e2e: as many as a release wants. By default, what fits between two cups of coffee.
CREATES = int(os.environ.get("CREATES", "6"))


@pytest.fixture
def image(service):
    name = f"made-{uuid.uuid4().hex[:8]}"
    service.create_versions(name, 1)
    return name


@pytest.fixture
def execute(airflow):
    def run(dag_id, seconds=180, meanwhile=lambda _run_id: None, **conf):
        airflow.wait_for_dag(dag_id)
        run_id = airflow.trigger(dag_id, conf=conf)
        meanwhile(run_id)
        return run_id, airflow.wait_for_run(dag_id, run_id, seconds)

    return run


def versions(service, image):
    listed = service.client("sagemaker").list_image_versions(ImageName=image, MaxResults=100)
    return sorted(version["Version"] for version in listed["ImageVersions"])


def owner(service, image, alias):
    return service.client("sagemaker").describe_image_version(ImageName=image, Alias=alias)["Version"]


def tries(airflow, dag_id, run_id, task_id):
    return max(task["try_number"] for task in airflow.task_instances(dag_id, run_id) if task["task_id"] == task_id)


def kill_worker(airflow, dag_id, run_id, task_id):
    """Kill the process in which a task runs; Airflow puts the task instance's id into its title."""
    (ti_id,) = [task["id"] for task in airflow.task_instances(dag_id, run_id) if task["task_id"] == task_id]
    titles = {process: "".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    # The process that watches over it has the id in its title as well.
    (worker,) = [process for process, title in titles.items() if ti_id in title and "LocalExecutor" not in title]
    worker.send_signal(signal.SIGKILL)


def until(airflow, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        airflow.raise_if_dead()
        assert time.monotonic() < deadline, airflow.diagnosis()
        time.sleep(0.05)


def test_tasks_at_once_make_one_version_each_and_know_its_number(airflow, service, execute, image):
    service.add_fault("in_use", operation="CreateImageVersion", image_name=image, times=CREATES // 2)
    run_id, state = execute("creates_many", image_name=image, count=CREATES, seconds=60 + 10 * CREATES)
    assert state == "success", airflow.diagnosis("creates_many", run_id)
    records = [airflow.xcom("creates_many", run_id, "create", map_index=index) for index in range(CREATES)]
    assert [record["BaseImage"] for record in records] == [f"training:{index}" for index in range(CREATES)]
    assert sorted(record["Version"] for record in records) == list(range(2, 2 + CREATES))
    assert versions(service, image) == list(range(1, 2 + CREATES))


def test_a_retry_after_a_killed_worker_continues_with_its_version(airflow, service, execute, image):
    service.add_fault("slow", operation="DescribeImageVersion", image_name=image, seconds=12)

    def kill(run_id):
        until(airflow, lambda: service.calls("DescribeImageVersion", image))
        kill_worker(airflow, "creates_one", run_id, "create")

    run_id, state = execute("creates_one", meanwhile=kill, image_name=image, base_image="training:1")
    assert state == "success", airflow.diagnosis("creates_one", run_id)
    assert tries(airflow, "creates_one", run_id, "create") == 2
    assert airflow.xcom("creates_one", run_id, "create")["Version"] == 2
    assert versions(service, image) == [1, 2]
    tokens = {call["parameters"]["ClientToken"] for call in service.calls("CreateImageVersion", image)}
    assert len(tokens) == 1


def test_a_retry_after_a_failed_version_makes_another_with_its_aliases(airflow, service, execute, image):
    def fail(_run_id):
        until(airflow, lambda: service.calls("CreateImageVersion", image))
        service.set_version(image, 2, status="CREATE_FAILED", failure_reason="no space left")

    run_id, state = execute("creates_one", meanwhile=fail, image_name=image, base_image="training:1")
    assert state == "success", airflow.diagnosis("creates_one", run_id)
    record = airflow.xcom("creates_one", run_id, "create")
    assert (record["Version"], record["Aliases"]) == (3, ["candidate"])
    log = airflow.task_log("creates_one", run_id, "create", try_number=1)
    assert "version 2 is CREATE_FAILED: no space left" in log


@pytest.mark.parametrize("moment", ["before the first call", "between the calls", "after the second call"])
def test_a_promotion_whose_worker_is_killed_is_right_after_the_retry(airflow, service, execute, image, moment):
    service.create_versions(image, 2)
    service.client("sagemaker").update_image_version(ImageName=image, Version=1, AliasesToAdd=["prod"])
    before = len(service.calls("UpdateImageVersion", image))
    after = {"before the first call": 0, "between the calls": 1, "after the second call": 2}[moment]
    # The call hangs before it takes effect; the worker that waits for its answer is killed.
    operation = "UpdateImageVersion" if after < 2 else "ListAliases"
    hung = len(service.calls(operation, image)) + after
    service.add_fault("slow", operation=operation, image_name=image, after=min(after, 1), seconds=6)

    def kill(run_id):
        if after < 2:
            until(airflow, lambda: len(service.calls(operation, image)) > hung)
        else:
            until(airflow, lambda: len(service.calls("UpdateImageVersion", image)) == before + 2)
            until(airflow, lambda: len(service.calls("ListAliases", image)) >= 2)
        kill_worker(airflow, "promotes", run_id, "promote")

    run_id, state = execute("promotes", meanwhile=kill, image_name=image, version=3)
    assert state == "success", airflow.diagnosis("promotes", run_id)
    assert tries(airflow, "promotes", run_id, "promote") == 2
    # What hung takes effect late, after the retry.
    until(airflow, lambda: all(call["status"] for call in service.calls(None, image)))
    assert owner(service, image, "prod") == 3
    log = airflow.task_log("promotes", run_id, "promote", try_number=2)
    assert "version 3 has the aliases ['prod']" in log
    if moment == "between the calls":
        assert "no version has the alias 'prod'; an earlier try may have been interrupted" in log


def test_promotions_by_runs_at_once_end_with_the_alias_on_one_version(airflow, service, image):
    service.create_versions(image, 3)
    service.client("sagemaker").update_image_version(ImageName=image, Version=1, AliasesToAdd=["prod"])
    airflow.wait_for_dag("promotes")
    runs = [airflow.trigger("promotes", conf={"image_name": image, "version": version}) for version in (2, 3, 4)]
    assert [airflow.wait_for_run("promotes", run_id, 120) for run_id in runs] == ["success"] * 3
    assert owner(service, image, "prod") in {2, 3, 4}


def test_versions_are_retired(airflow, service, execute, image):
    service.create_versions(image, 5)
    service.client("sagemaker").update_image_version(ImageName=image, Version=2, AliasesToAdd=["prod"])
    run_id, state = execute("retires", image_name=image, version=5)
    assert state == "success", airflow.diagnosis("retires", run_id)
    assert airflow.xcom("retires", run_id, "prune") == {
        "deleted": [1, 3, 4],
        "kept": {
            "newest": [6],
            "age": [],
            "alias": [2],
            "limit": [],
            "in_use": [],
            "status": [],
            "listed": [],
            "used": [],
        },
        "used_by": {},
        "preview": False,
    }
    until(airflow, lambda: versions(service, image) == [2, 6])


def test_a_mapped_task_waits_for_the_task_that_says_whether_to_delete(airflow, service, execute, image):
    service.create_versions(image, 2)
    run_id, state = execute("prunes_as_configured", image_name=image)
    assert state == "success", airflow.diagnosis("prunes_as_configured", run_id)
    result = airflow.xcom("prunes_as_configured", run_id, "prune", map_index=0)
    assert (result["deleted"], result["preview"]) == ([1, 2], True)
    assert versions(service, image) == [1, 2, 3]


def test_an_image_whose_role_could_not_be_used_is_recreated_by_a_retry_and_then_deleted(airflow, service, execute):
    name = f"recreated-{uuid.uuid4().hex[:8]}"
    role = "arn:aws:iam::123456789012:role/"
    run_id, state = execute("recreates", image_name=name, roles=[f"{role}does-not-exist", f"{role}sagemaker"])
    assert state == "success", airflow.diagnosis("recreates", run_id)
    assert tries(airflow, "recreates", run_id, "recreate") == 2
    assert airflow.xcom("recreates", run_id, "recreate")["ImageStatus"] == "CREATED"
    assert len(service.calls("DeleteImage", name)) == 2
    assert service.client("sagemaker").list_images(NameContains=name)["Images"] == []


def test_an_outlet_event_starts_consumers_without_a_poll(airflow, service, execute):
    service.create_versions("announced-image", 1)
    for dag_id in ("tells_of_its_version", "hears_of_a_version"):
        airflow.wait_for_dag(dag_id)
    airflow.unpause("hears_of_a_version")
    run_id, state = execute("tells_of_its_version")
    assert state == "success", airflow.diagnosis("tells_of_its_version", run_id)
    until(airflow, lambda: airflow.runs("hears_of_a_version"))
    (run,) = airflow.runs("hears_of_a_version")
    assert airflow.wait_for_run("hears_of_a_version", run["dag_run_id"], 60) == "success"
    (payload,) = airflow.xcom("hears_of_a_version", run["dag_run_id"], "heard")
    record = airflow.xcom("tells_of_its_version", run_id, "create")
    assert {key: payload[key] for key in record} == record
    assert payload["event_id"]
