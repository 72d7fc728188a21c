from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.providers.openlineage.extractors import ExtractorManager
from airflow.utils.state import TaskInstanceState
from openlineage.client.event_v2 import Dataset, Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import dataset_version_dataset
from openlineage.client.serde import Serde

try:
    from airflow.sdk import Asset
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset

from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.errors import ImageVersionFailedError, SageMakerImageOperationError
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerListImageVersionsOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerUpdateImageVersionOperator,
)
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from tests.conftest import needs_watchers

IMAGE = "My-image"


def lineage(task, state=TaskInstanceState.SUCCESS):
    """What OpenLineage's provider takes from a task that ended."""
    found = ExtractorManager().extract_metadata(SimpleNamespace(run_id="run"), task, state, None)
    return found.inputs, found.outputs


def image(version=None, region="us-east-1"):
    facets = {}
    if version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return Dataset(namespace=f"sagemaker-image://{region}", name=IMAGE, facets=facets)


def sensor(**arguments):
    return SageMakerImageVersionSensor(task_id="wait", image_name=IMAGE, poke_interval=0.05, timeout=30, **arguments)


@pytest.fixture
def assets_are_read():
    if ExtractorManager.convert_to_ol_dataset(Asset("s3://bucket/key")) is None:
        pytest.skip("this OpenLineage takes nothing from the assets that a task has as inlets and outlets")


@pytest.mark.parametrize("details", [False, True])
def test_a_sensor_read_the_version_that_it_waited_for(emulator, connection, run, mode, details):
    emulator.create_versions(IMAGE, 3)
    emulator.creation_seconds = 0.1
    emulator.client("sagemaker").create_image_version(ImageName=IMAGE, BaseImage="training:1", ClientToken="token")
    task = sensor(after_version=3, include_details=details, **mode)
    run(task)
    assert lineage(run.task) == ([image(4)], [])
    # Each process of a worker has its own object, without the state of others.
    assert run.task is not task
    assert lineage(task) == ([], [])


def test_a_sensor_whose_deferral_timed_out_read_what_it_found_at_its_last_check(emulator, connection, run):
    emulator.create_versions(IMAGE, 1)
    task = sensor(deferrable=True)
    task.timeout = 0
    run(task)
    assert lineage(run.task) == ([image(1)], [])


def test_a_sensor_in_another_region_says_so(emulator, connection, run, mode):
    emulator.create_versions(IMAGE, 1, region_name="eu-west-1")
    run(sensor(region_name="eu-west-1", **mode))
    assert lineage(run.task) == ([image(1, "eu-west-1")], [])


def test_a_sensor_that_failed_read_nothing(emulator, connection, run, mode):
    emulator.create_versions(IMAGE, 1)
    emulator.set_version(IMAGE, 1, status="CREATE_FAILED")
    with pytest.raises(ImageVersionFailedError):
        run(sensor(**mode))
    assert lineage(run.task, TaskInstanceState.FAILED) == ([], [])


def test_a_sensor_that_failed_says_what_its_task_says_of_itself(emulator, connection, run, mode, assets_are_read):
    emulator.create_versions(IMAGE, 1)
    emulator.set_version(IMAGE, 1, status="CREATE_FAILED")
    with pytest.raises(ImageVersionFailedError):
        run(sensor(**mode, outlets=[Asset("s3://bucket/key")]))
    inputs, outputs = lineage(run.task, TaskInstanceState.FAILED)
    assert inputs == []
    assert [(output.namespace, output.name) for output in outputs] == [("s3://bucket", "key")]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_that_creates_a_version_wrote_it_after_a_deferral_too(emulator, connection, run, deferrable):
    emulator.creation_seconds = 0.1
    create = {"task_id": "create", "image_name": IMAGE, "base_image": "training:1", "check_interval": 0.05}
    SageMakerCreateImageOperator(
        task_id="image", image_name=IMAGE, role_arn="arn:aws:iam::123456789012:role/sagemaker"
    ).execute(run.context)
    run(SageMakerCreateImageVersionOperator(**create, deferrable=deferrable))
    assert lineage(run.task) == ([], [image(1)])
    run.context["ti"].task_id = "other"
    run(SageMakerCreateImageVersionOperator(**create, wait_for_completion=False))
    assert lineage(run.task) == ([], [image(2)])


def test_a_task_whose_version_failed_wrote_nothing(emulator, connection, run):
    emulator.creation_seconds = 0.1
    emulator.create_versions(IMAGE, 1)
    create = SageMakerCreateImageVersionOperator(
        task_id="create", image_name=IMAGE, base_image="training:does-not-exist", check_interval=0.05
    )
    with pytest.raises(SageMakerImageOperationError):
        run(create)
    assert lineage(run.task, TaskInstanceState.FAILED) == ([], [])


def test_tasks_that_create_an_image_or_promote_a_version_wrote_them(emulator, connection, run):
    run(
        SageMakerCreateImageOperator(
            task_id="image", image_name=IMAGE, role_arn="arn:aws:iam::123456789012:role/sagemaker"
        )
    )
    assert lineage(run.task) == ([], [image()])
    emulator.create_versions(IMAGE, 2)
    run(SageMakerUpdateImageVersionOperator(task_id="up", image_name=IMAGE, version=1, release_notes="x"))
    assert lineage(run.task) == ([], [image(1)])
    run(SageMakerPromoteImageVersionOperator(task_id="promote", image_name=IMAGE, version=2, aliases=["prod"]))
    assert lineage(run.task) == ([], [image(2)])


@pytest.mark.parametrize(
    ("arguments", "version"), [({}, None), ({"limit": 1, "fields": ["ImageArn"]}, 3), ({"limit": 0}, None)]
)
def test_a_list_read_the_image_and_a_version_if_it_is_one(emulator, connection, context, arguments, version):
    emulator.create_versions(IMAGE, 3)
    task = SageMakerListImageVersionsOperator(task_id="list", image_name=IMAGE, **arguments)
    task.execute(context)
    assert lineage(task) == ([image(version)], [])


def test_a_list_that_failed_read_nothing(emulator, connection, context):
    task = SageMakerListImageVersionsOperator(task_id="list", image_name=IMAGE)
    with pytest.raises(Exception, match="ResourceNotFound"):
        task.execute(context)
    assert lineage(task, TaskInstanceState.FAILED) == ([], [])


@needs_watchers
@pytest.mark.parametrize("arguments", [{}, {"alias": "prod"}, {"statuses": ["CREATE_FAILED"]}])
def test_the_asset_is_the_image_that_the_tasks_read(arguments, assets_are_read):
    asset = image_version_asset(IMAGE, region_name="us-east-1", **arguments)
    task = SageMakerListImageVersionsOperator(task_id="list", image_name=IMAGE, inlets=[asset], outlets=[asset])
    assert lineage(task) == ([image()], [image()])


@needs_watchers
def test_the_region_of_the_connection_is_not_known_from_an_asset_alone(assets_are_read):
    task = SageMakerListImageVersionsOperator(task_id="list", image_name=IMAGE, inlets=[image_version_asset(IMAGE)])
    assert lineage(task) == ([image(region="default")], [])


def test_facets_can_be_serialized(emulator, connection, run):
    emulator.create_versions(IMAGE, 1)
    run(sensor())
    event = RunEvent(
        eventTime="2026-01-31T12:00:00Z",
        run=Run(runId="01234567-89ab-7def-8123-456789abcdef"),
        job=Job(namespace="default", name="dag.wait"),
        eventType=RunState.COMPLETE,
        inputs=lineage(run.task)[0],
        producer="https://example.com",
    )
    (sent,) = json.loads(Serde.to_json(event))["inputs"]
    assert sent["namespace"] == "sagemaker-image://us-east-1"
    assert sent["name"] == IMAGE
    assert sent["facets"]["version"]["datasetVersion"] == "1"
