"""The example with an approval, in a real Airflow: approved through its API, and rolled back."""

from __future__ import annotations

import importlib.util
import time

import pytest

from tests.e2e.conftest import STUDIO_IMAGE
from tests.studio import custom_image

needs_approvals = pytest.mark.skipif(
    importlib.util.find_spec("airflow.sdk") is None
    or importlib.util.find_spec("airflow.sdk.execution_time.hitl") is None,
    reason="Airflow before 3.1 has no tasks that wait for a person",
)
pytestmark = [pytest.mark.e2e, needs_approvals]

IMAGE, DAG = STUDIO_IMAGE, "example_rollout_with_approval"


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return result


def images(studio):
    return studio.user_settings(studio.client.domain_id)["JupyterLabAppSettings"]["CustomImages"]


def wait_for_question(airflow, run_id):
    """Wait until the run waits for a person."""
    until(lambda: airflow.task_states(DAG, run_id).get("approve") in {"awaiting_input", "deferred"})
    # Airflow takes a task that resumes before its worker has ended for one that was killed. No person is that fast.
    time.sleep(3)


def answer(airflow, run_id, option):
    """Respond as a person does in Airflow's web page; return the text that the person sees."""
    path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    wait_for_question(airflow, run_id)
    details = airflow.api("GET", path)
    airflow.api("PATCH", path, {"chosen_options": [option], "params_input": {}})
    return details


def start(airflow, studio, dag_id=DAG, **conf):
    airflow.wait_for_dag(dag_id)
    return airflow.trigger(dag_id, conf={"domain_id": studio.client.domain_id, **conf})


def test_a_version_is_rolled_out_after_an_approval_only_and_rolled_back(airflow, studio, push):
    push("first")
    run_id = start(airflow, studio)
    details = answer(airflow, run_id, "Approve")
    assert details["subject"] == f"Roll out version 2 of {IMAGE}?"
    assert f"| {IMAGE} | version 1 | version 2 |" in details["body"]
    assert airflow.wait_for_run(DAG, run_id, 180) == "success", airflow.diagnosis(DAG, run_id)
    result = airflow.xcom(DAG, run_id, "rollout")
    assert (result["previous"]["version"], result["current"]["version"]) == (1, 2)
    assert images(studio) == [custom_image(IMAGE, 2, IMAGE), custom_image("other", 3)]
    links = airflow.api("GET", f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/rollout/links")["extra_links"]
    console = "https://console.aws.amazon.com/sagemaker/home?region=us-east-1#"
    assert links == {
        "Amazon SageMaker Image": f"{console}/images/{IMAGE}",
        "Amazon SageMaker Studio Domain": f"{console}/studio/{studio.client.domain_id}",
    }
    owner = studio.client.describe_image_version(ImageName=IMAGE, Alias="prod")["Version"]
    assert owner == 2
    # Nothing to prune yet; with three newer ones, the space keeps version 1.
    assert airflow.xcom(DAG, run_id, "prune")["deleted"] == []

    back = start(airflow, studio, "example_roll_back", previous=result["previous"])
    assert airflow.wait_for_run("example_roll_back", back, 120) == "success", airflow.diagnosis(
        "example_roll_back", back
    )
    assert images(studio) == [custom_image(IMAGE, 1, IMAGE), custom_image("other", 3)]

    # Nothing happens without a change, or without an approval.
    before = images(studio)
    run_id = start(airflow, studio)
    assert airflow.wait_for_run(DAG, run_id, 120) == "success", airflow.diagnosis(DAG, run_id)
    assert set(airflow.task_states(DAG, run_id).values()) == {"skipped"}
    push("second")
    run_id = start(airflow, studio)
    answer(airflow, run_id, "Reject")
    assert airflow.wait_for_run(DAG, run_id, 120) == "success", airflow.diagnosis(DAG, run_id)
    states = airflow.task_states(DAG, run_id)
    assert {name: states[name] for name in ("create", "approve", "promote", "rollout")} == {
        "create": "success",
        "approve": "success",
        "promote": "skipped",
        "rollout": "skipped",
    }
    assert images(studio) == before
