from __future__ import annotations

import time
from urllib.parse import quote

import pytest

MODES = ("poke", "reschedule", "deferrable")

pytestmark = pytest.mark.e2e


def register(service, image, tag="latest", **parameters):
    answer = service.client("sagemaker").create_image_version(
        ImageName=image, BaseImage=f"123456789012.dkr.ecr.us-east-1.amazonaws.com/training:{tag}", **parameters
    )
    return int(answer["ImageVersionArn"].rpartition("/")[2])


def tries(airflow, dag_id, run_id, tasks=MODES):
    """How often each task was tried; try_number says more when the scheduler counts a reschedule as a try."""
    path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances"
    return {task: airflow.api("GET", f"{path}/{task}/tries")["total_entries"] for task in tasks}


def wait_for_state(airflow, dag_id, run_id, task_id, state, timeout=60):
    deadline = time.monotonic() + timeout
    while airflow.task_states(dag_id, run_id).get(task_id) != state:
        assert time.monotonic() < deadline, airflow.diagnosis(dag_id, run_id)
        time.sleep(0.2)


def test_the_list_of_versions_reaches_the_next_task(airflow, execute, image):
    run_id, state, _ = execute("example_list_image_versions", image_name=image)
    assert state == "success"
    newest = airflow.xcom("example_list_image_versions", run_id, "newest")
    assert [record["Version"] for record in newest] == [2, 1]
    assert all("@sha256:" in record["ContainerImage"] for record in newest)
    report = airflow.xcom("example_list_image_versions", run_id, "report")
    assert report == "newest CREATED: 2, 1; failed in the last week: 0; in all: {'CREATED': 2}"


def test_a_training_job_runs_with_the_container_image_of_the_version_that_was_waited_for(
    airflow, service, execute, image
):
    run_id, state, _ = execute("example_wait_for_image_version", image_name=image)
    assert state == "success"
    record = airflow.xcom("example_wait_for_image_version", run_id, "wait")
    assert record["Version"] == 3
    job = service.client("sagemaker").describe_training_job(TrainingJobName=f"{image}-3")
    assert job["AlgorithmSpecification"]["TrainingImage"] == record["ContainerImage"]
    assert job["TrainingJobStatus"] == "Completed"


def test_a_version_is_waited_for_in_every_mode(airflow, service, execute, image):
    version = register(service, image, Aliases=["blue"])
    run_id, state, _ = execute("waits_in_every_mode", image_name=image, version=version)
    assert state == "success"
    records = [airflow.xcom("waits_in_every_mode", run_id, task) for task in MODES]
    assert records[0] == records[1] == records[2]
    assert records[0]["Version"] == version
    assert records[0]["Aliases"] == ["blue"]
    log = airflow.task_log("waits_in_every_mode", run_id, "deferrable")
    assert "waiting in the triggerer for version 3" in log
    assert log.count("version 3 is CREATING") == 1
    assert "version 3 is CREATED, after " in log
    link = airflow.xcom("waits_in_every_mode", run_id, "deferrable", key="sagemaker_image")
    assert link == {"region_name": "us-east-1", "aws_domain": "aws.amazon.com", "image_name": image}
    links = airflow.api(
        "GET", f"/api/v2/dags/waits_in_every_mode/dagRuns/{quote(run_id)}/taskInstances/deferrable/links"
    )
    assert links["extra_links"] == {
        "Amazon SageMaker Image": f"https://console.aws.amazon.com/sagemaker/home?region=us-east-1#/images/{image}"
    }


def test_a_failed_version_fails_the_task_with_its_reason_and_is_not_retried(airflow, service, execute, image):
    version = register(service, image, tag="does-not-exist")
    run_id, state, states = execute("waits_in_every_mode", image_name=image, version=version)
    assert (state, set(states.values())) == ("failed", {"failed"})
    assert tries(airflow, "waits_in_every_mode", run_id) == dict.fromkeys(MODES, 1)
    for task in MODES:
        log = airflow.task_log("waits_in_every_mode", run_id, task)
        assert "ImageVersionFailedError" in log
        assert f"version {version} is CREATE_FAILED" in log
        assert "does-not-exist" in log


def test_with_soft_fail_a_failure_and_a_timeout_are_skipped_in_every_mode(airflow, service, execute, image):
    failing = register(service, image, tag="does-not-exist")
    service.set_version(image, failing, status="CREATE_FAILED")
    _, _, states = execute("skips_in_every_mode", image_name=image, version=failing)
    assert states == dict.fromkeys(MODES, "skipped")
    _, _, states = execute("skips_in_every_mode", image_name=image, version=99)
    assert states == dict.fromkeys(MODES, "skipped")


def test_a_timeout_fails_the_task_once_in_every_mode(airflow, execute, image):
    run_id, state, states = execute("times_out_in_every_mode", image_name=image, version=99)
    assert (state, states) == ("failed", dict.fromkeys(MODES, "failed"))
    assert tries(airflow, "times_out_in_every_mode", run_id) == dict.fromkeys(MODES, 1)


def test_access_denied_is_retried_and_not_hidden_by_soft_fail_in_every_mode(airflow, service, execute, image):
    service.add_fault("access_denied", access_key_id="denied", times=None)
    run_id, state, states = execute("retries_in_every_mode", image_name=image)
    assert (state, states) == ("failed", dict.fromkeys(MODES, "failed"))
    assert tries(airflow, "retries_in_every_mode", run_id) == dict.fromkeys(MODES, 2)
    for task in MODES:
        log = airflow.task_log("retries_in_every_mode", run_id, task, try_number=1)
        assert "is not authorized to perform: sagemaker:ListImageVersions" in log


WITHOUT_A_WORKER = ("start", "end", "both")


def runs_on_a_worker(airflow, run_id, task):
    return airflow.task_log("waits_without_a_worker", run_id, task).count("DAG bundles loaded")


def test_a_wait_that_starts_and_ends_in_the_triggerer_costs_no_worker(airflow, service, execute, image):
    version = register(service, image, Aliases=["blue"])
    run_id, state, states = execute("waits_without_a_worker", image_name=image, version=version, include_details=True)
    assert (state, states) == ("success", dict.fromkeys(WITHOUT_A_WORKER, "success"))
    records = [airflow.xcom("waits_without_a_worker", run_id, task) for task in WITHOUT_A_WORKER]
    assert records[0] == records[1] == records[2]
    assert records[0]["Version"] == version
    assert records[0]["Aliases"] == ["blue"]
    assert [runs_on_a_worker(airflow, run_id, task) for task in WITHOUT_A_WORKER] == [1, 1, 0]
    for task in WITHOUT_A_WORKER:
        path = f"/api/v2/dags/waits_without_a_worker/dagRuns/{quote(run_id)}/taskInstances/{task}/links"
        link = f"https://console.aws.amazon.com/sagemaker/home?region=us-east-1#/images/{image}"
        assert airflow.api("GET", path)["extra_links"] == {"Amazon SageMaker Image": link}


def test_a_failure_and_a_timeout_are_the_same_without_a_worker(airflow, service, execute, image):
    version = register(service, image, tag="does-not-exist")
    for conf in ({"version": version}, {"after_version": version}):
        run_id, _, states = execute("waits_without_a_worker", image_name=image, **conf)
        assert states == {"start": "failed", "end": "skipped", "both": "failed"}
        assert set(tries(airflow, "waits_without_a_worker", run_id, WITHOUT_A_WORKER).values()) == {1}
        log = airflow.task_log("waits_without_a_worker", run_id, "both")
        if "version" in conf:
            assert f"ImageVersionFailedError: SageMaker image '{image}': version {version} is CREATE_FAILED" in log
        else:
            assert "AirflowSensorTimeout" in log


def test_mapped_sensors_wait_for_what_a_task_lists_and_share_their_calls(airflow, service, execute, image):
    expected = [1, 2, *(register(service, image) for _ in range(3))]
    run_id, state, _ = execute("lists_and_waits_for_many", image_name=image)
    assert state == "success"
    assert airflow.xcom("lists_and_waits_for_many", run_id, "ready") == expected


def test_a_wait_survives_the_triggerer_and_an_outage_of_the_service(airflow, service, image):
    service.creation_seconds = 3600
    try:
        version = register(service, image)
        airflow.wait_for_dag("waits_in_every_mode")
        run_id = airflow.trigger("waits_in_every_mode", conf={"image_name": image, "version": version})
        wait_for_state(airflow, "waits_in_every_mode", run_id, "deferrable", "deferred")
        service.add_fault("unavailable", image_name=image, times=12)
        airflow.kill("triggerer")
        airflow.start("triggerer")
        service.set_version(image, version, status="CREATED")
        assert airflow.wait_for_run("waits_in_every_mode", run_id, 120) == "success"
    finally:
        service.creation_seconds = 4.0
    assert airflow.xcom("waits_in_every_mode", run_id, "deferrable")["Version"] == version


def test_no_secret_is_in_a_task_s_log_or_rendered_fields(airflow, execute, image):
    run_id, _, _ = execute("waits_in_every_mode", image_name=image, version=1)
    for task in airflow.task_instances("waits_in_every_mode", run_id):
        assert "testing" not in str(task["rendered_fields"])
        assert "testing" not in airflow.task_log("waits_in_every_mode", run_id, task["task_id"])
