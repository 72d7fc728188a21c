from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import botocore.exceptions
import pytest

from airflow_provider_imageversions import compat
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import SageMakerListImageVersionsOperator

IMAGE = "my-image"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def operator(**arguments):
    return SageMakerListImageVersionsOperator(**{"task_id": "list", "image_name": IMAGE, **arguments})


def render(task, **values):
    """Render a task's templates to text, as Airflow does before it executes it."""
    task.render_template_fields({"params": values})
    return task


def test_every_filter_may_be_a_template_and_reaches_the_wire(emulator, connection, context):
    emulator.create_versions(IMAGE, 9, start_time=START, spacing_seconds=86400)
    emulator.set_version(IMAGE, 5, status="CREATE_FAILED", last_modified_time=START + timedelta(days=4))
    client = emulator.client("sagemaker")
    values = {
        "image_name": IMAGE,
        "creation_time_after": (START + timedelta(days=1)).isoformat(),
        "creation_time_before": str(START + timedelta(days=7)),
        "last_modified_time_after": START + timedelta(days=1),
        "last_modified_time_before": "2026-01-09T00:00:00Z",
        "sort_by": "version",
        "sort_order": "ASCENDING",
        "page_size": 2,
        "statuses": "CREATED, CREATING",
        "limit": 4,
        "fields": '["Version", "ContainerImage"]',
        "include_details": True,
    }
    values["starting_token"] = client.list_image_versions(
        ImageName=IMAGE,
        CreationTimeAfter=START + timedelta(days=1),
        CreationTimeBefore=START + timedelta(days=7),
        LastModifiedTimeAfter=START + timedelta(days=1),
        LastModifiedTimeBefore=START + timedelta(days=8),
        SortBy="VERSION",
        SortOrder="ASCENDING",
        MaxResults=2,
    )["NextToken"]
    assert set(operator().template_fields) == {*values, "aws_conn_id", "region_name", "verify", "botocore_config"}
    task = operator(**{name: f"{{{{ params.{name} }}}}" for name in values})
    result = render(task, **values).execute(context)
    assert [record["Version"] for record in result] == [4, 6, 7, 8]
    assert {key for record in result for key in record} == {"Version", "ContainerImage"}
    first = emulator.calls("ListImageVersions")[1]["parameters"]
    assert first == {
        "ImageName": IMAGE,
        "CreationTimeAfter": (START + timedelta(days=1)).timestamp(),
        "CreationTimeBefore": (START + timedelta(days=7)).timestamp(),
        "LastModifiedTimeAfter": (START + timedelta(days=1)).timestamp(),
        "LastModifiedTimeBefore": (START + timedelta(days=8)).timestamp(),
        "SortBy": "VERSION",
        "SortOrder": "ASCENDING",
        "MaxResults": 2,
        "NextToken": values["starting_token"],
    }


def test_the_result_is_json(emulator, connection, context):
    emulator.create_versions(IMAGE, 3)
    emulator.set_version(IMAGE, 2, status="CREATE_FAILED", failure_reason="no\x00 base")
    result = operator(include_details=True).execute(context)
    assert json.loads(json.dumps(result)) == result
    assert result[1]["FailureReason"] == "no\ufffd base"


def test_a_projection_keeps_the_fields_asked_for(emulator, connection, context):
    emulator.create_versions(IMAGE, 2)
    assert operator(fields=["Version", "FailureReason"]).execute(context) == [{"Version": 2}, {"Version": 1}]


def test_details_cost_two_calls_a_version(emulator, connection, context):
    emulator.create_versions(IMAGE, 2)
    result = operator(include_details=True).execute(context)
    assert all("@sha256:" in record["ContainerImage"] and record["Aliases"] == [] for record in result)
    assert len(emulator.calls("DescribeImageVersion")) == len(emulator.calls("ListAliases")) == 2


OBJECT_STORAGE = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


@pytest.fixture
def configured(monkeypatch):
    """Set options of Airflow's configuration; Airflow reads them from the environment each time."""
    return lambda **options: [monkeypatch.setenv(f"AIRFLOW__{name}", value) for name, value in options.items()]


def test_a_large_result_goes_to_the_database_with_a_warning_and_advice(emulator, connection, context, capsys):
    emulator.create_versions(IMAGE, 1_300)
    assert len(operator().execute(context)) == 1_300
    said = capsys.readouterr().out
    assert "'my-image': the result of 1300 versions takes" in said
    assert "fields=['Version', 'ImageVersionStatus']" in said
    advised = int(said.partition("limit=")[2].split()[0])
    for arguments in ({"limit": advised}, {"fields": ["Version"]}):
        operator(**arguments).execute(context)
    assert "the result of" not in capsys.readouterr().out


def test_a_result_too_large_for_the_database_is_refused_with_advice(emulator, connection, context, configured):
    emulator.create_versions(IMAGE, 1_000)
    configured(SAGEMAKER_IMAGE_VERSIONS__MAX_XCOM_BYTES="100000")
    before = len(emulator.calls("ListImageVersions"))
    with pytest.raises(
        ValueError, match=r"'my-image'.*100,000.*limit=.*fields=.*object-storage XCom.*max_xcom_bytes \(0: no limit\)"
    ) as caught:
        operator().execute(context)
    # At once, rather than after all of the 10 pages.
    assert len(emulator.calls("ListImageVersions")) - before < 8
    advised = int(str(caught.value).partition("limit=")[2].split()[0])
    assert len(operator(limit=advised).execute(context)) == advised
    assert len(operator(fields=["Version"]).execute(context)) == 1_000


def test_by_default_four_mebibytes_are_the_limit(emulator, connection, context):
    # Of more than a kilobyte each.
    for number in emulator.create_versions(IMAGE, 4_000, status="CREATE_FAILED"):
        emulator.set_version(IMAGE, number, failure_reason="x" * 1024)
    with pytest.raises(ValueError, match=r"larger than 4,194,304 bytes"):
        operator().execute(context)


@pytest.mark.parametrize(
    "options",
    [
        {"SAGEMAKER_IMAGE_VERSIONS__MAX_XCOM_BYTES": "0"},
        {"CORE__XCOM_BACKEND": "my_backends.InSomeBucket"},
        {"CORE__XCOM_BACKEND": OBJECT_STORAGE, "COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0"},
        {"CORE__XCOM_BACKEND": OBJECT_STORAGE, "COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "1000"},
    ],
)
def test_a_large_result_is_fine_without_a_limit_or_where_it_does_not_go_to_the_database(
    emulator, connection, context, configured, options
):
    emulator.create_versions(IMAGE, 200)
    configured(**{"SAGEMAKER_IMAGE_VERSIONS__MAX_XCOM_BYTES": "10000", **options})
    assert len(operator().execute(context)) == 200


def test_a_large_result_is_fine_if_it_is_not_pushed(emulator, connection, context, configured):
    emulator.create_versions(IMAGE, 200)
    configured(SAGEMAKER_IMAGE_VERSIONS__MAX_XCOM_BYTES="10000")
    assert len(operator(do_xcom_push=False).execute(context)) == 200


@pytest.mark.parametrize("threshold", ["-1", "1000000"])
def test_what_the_object_storage_backend_keeps_in_the_database_is_limited(
    emulator, connection, context, configured, threshold
):
    emulator.create_versions(IMAGE, 200)
    configured(
        SAGEMAKER_IMAGE_VERSIONS__MAX_XCOM_BYTES="10000",
        CORE__XCOM_BACKEND=OBJECT_STORAGE,
        COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD=threshold,
    )
    with pytest.raises(ValueError, match="larger than 10,000 bytes"):
        operator().execute(context)


def test_a_limit_below_zero_is_refused(emulator, connection, context, configured):
    configured(SAGEMAKER_IMAGE_VERSIONS__MAX_XCOM_BYTES="-1")
    with pytest.raises(ValueError, match=r"max_xcom_bytes=-1 is not valid"):
        operator().execute(context)
    assert emulator.calls() == []


def test_a_missing_image_fails_the_task_with_the_service_s_error(emulator, connection, context):
    with pytest.raises(
        botocore.exceptions.ClientError, match=r"ResourceNotFound.*'my-image'.*us-east-1.*'aws_default'"
    ):
        operator().execute(context)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_name": "bad name!"},
        {"creation_time_after": "2026-01-01"},
        {"sort_by": "NAME"},
        {"page_size": 101},
        {"statuses": ["READY"]},
        {"limit": -1},
        {"limit": True},
        {"fields": ["ContainerImage"]},
        {"fields": ["version"], "include_details": True},
        {"include_details": "maybe"},
        {"botocore_config": {"no_such_option": 1}},
    ],
)
def test_bad_input_is_refused_when_the_dag_is_parsed(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        operator(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "many"), ("page_size", "101"), ("statuses", "READY"), ("fields", "X"), ("creation_time_after", "today")],
)
def test_bad_input_from_a_template_is_refused_before_any_call(emulator, connection, context, name, value):
    task = render(operator(**{name: "{{ params.value }}"}), value=value)
    with pytest.raises(ValueError, match=name):
        task.execute(context)
    assert emulator.calls() == []


def test_a_field_that_needs_details_is_refused_with_the_way_to_get_them():
    with pytest.raises(ValueError, match=r"With include_details=True also .*ContainerImage"):
        operator(fields=["ContainerImage"])


def test_region_tls_and_botocore_settings_reach_the_client(emulator, connection, context):
    connection("other")
    emulator.create_versions(IMAGE, 1, region_name="eu-west-1")
    task = operator(
        aws_conn_id="other", region_name="eu-west-1", verify=False, botocore_config={"user_agent_extra": "x9"}
    )
    assert len(task.execute(context)) == 1
    call = emulator.calls("ListImageVersions")[0]
    assert call["region"] == "eu-west-1"
    assert "x9" in call["user_agent"]


def test_it_can_be_mapped_and_chained(connection):
    dag_class = compat.BaseOperator and __import__("airflow").DAG
    with dag_class("mapped", schedule=None):
        mapped = SageMakerListImageVersionsOperator.partial(task_id="each", limit=1).expand(image_name=["a", "b"])
        chained = operator(task_id="chained", creation_time_after=mapped.output)
    assert chained.upstream_task_ids == {"each"}
    assert mapped.operator_class is SageMakerListImageVersionsOperator


def test_the_button_leads_to_the_image_in_the_console(emulator, connection, context):
    emulator.create_versions(IMAGE, 1)
    operator().execute(context)
    assert context["ti"].xcoms["sagemaker_image"]["image_name"] == IMAGE


def test_details_of_what_is_deleted_or_going_meanwhile_are_left_out(emulator, connection, context, monkeypatch):
    emulator.create_versions(IMAGE, 6)
    original = SageMakerImageVersionsHook.add_details

    def add_details(hook, image_name, record):
        if record["Version"] == 6:
            emulator.client("sagemaker").delete_image_version(ImageName=IMAGE, Version=5)
            emulator.set_version(IMAGE, 4, status="DELETING")
        return original(hook, image_name, record)

    monkeypatch.setattr(SageMakerImageVersionsHook, "add_details", add_details)
    result = operator(include_details=True, statuses="CREATED", limit=3).execute(context)
    assert [record["Version"] for record in result] == [6, 3, 2]
    assert {record["ImageVersionStatus"] for record in result} == {"CREATED"}
