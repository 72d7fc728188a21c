from __future__ import annotations

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
    assert state == "success", airflow.diagnosis("example_wait_for_image_version", run_id)
    record = airflow.xcom("example_wait_for_image_version", run_id, "wait")
    assert record["Version"] == 3
    job = service.client("sagemaker").describe_training_job(TrainingJobName=f"{image}-3")
    assert job["AlgorithmSpecification"]["TrainingImage"] == record["ContainerImage"]
    assert job["TrainingJobStatus"] == "Completed"


def test_a_version_is_waited_for_in_every_mode(airflow, service, image):
    version = register(service, image, Aliases=["blue"])
    service.set_version(image, version, status="CREATING")
    airflow.wait_for_dag("waits_in_every_mode")
    run_id = airflow.trigger("waits_in_every_mode", conf={"image_name": image, "version": version})
    run, awaited = ("waits_in_every_mode", run_id), False

    def create_once_awaited():
        nonlocal awaited
        deferred = not awaited and airflow.task_states(*run).get("deferrable") == "deferred"
        if deferred and "version 3 is CREATING" in airflow.task_log(*run, "deferrable"):
            awaited = True
            service.set_version(image, version, status="CREATED")

    assert airflow.wait_for_run(*run, on_poll=create_once_awaited) == "success"
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


def test_no_secret_is_in_a_task_s_log_or_rendered_fields(airflow, execute, image):
    run_id, _, _ = execute("waits_in_every_mode", image_name=image, version=1)
    for task in airflow.task_instances("waits_in_every_mode", run_id):
        assert "testing" not in str(task["rendered_fields"])
        assert "testing" not in airflow.task_log("waits_in_every_mode", run_id, task["task_id"])
