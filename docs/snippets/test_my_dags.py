"""Tests of a user's own DAGs, of docs/testing.md."""

# [START test_fixture]
import pytest

from airflow_provider_imageversions.emulator import Emulator


@pytest.fixture
def emulator(monkeypatch):
    with Emulator(creation_seconds=1) as emulator:
        emulator.reset()  # what an earlier test of this process left
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", emulator.airflow_connection())
        yield emulator


# [END test_fixture]


# [START test_success]
from quickstart import dag


def test_the_latest_version_is_shown(emulator):
    emulator.create_versions("my-image", 3)
    run = dag.test()
    assert run.state == "success"
    assert run.get_task_instance("latest").xcom_pull()["Version"] == 3


# [END test_success]


# [START test_failure]
def test_a_failed_version_fails_the_sensor(emulator):
    emulator.create_versions("my-image", 1, status="CREATING")
    emulator.set_version("my-image", 1, status="CREATE_FAILED", failure_reason="no such base image")
    run = dag.test()
    assert run.get_task_instance("latest").state == "failed"


# [END test_failure]


# [START test_faults]
def test_throttling_is_waited_out(emulator):
    emulator.create_versions("my-image", 1)
    emulator.add_fault("throttling", times=2)
    assert dag.test().state == "success"
    assert [call["status"] for call in emulator.calls("ListImageVersions")].count(400) == 2


# [END test_faults]


# [START test_dispatch]
from airflow.models import DagRun
from release import release
from retrain import dispatch, retrain


def test_a_new_version_starts_one_run(emulator):
    emulator.create_versions("my-training-image", 2)
    dispatch.test()  # the first run only notes where it starts
    assert release.test().state == "success"  # registers a version and emits its event
    dispatch.test()
    dispatch.test()
    (started,) = DagRun.find(dag_id="retrain")
    assert started.run_id.startswith("version-3-")

    run = retrain.test(run_conf=started.conf)
    assert run.state == "success"


# [END test_dispatch]
