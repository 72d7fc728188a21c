"""Creating, updating, deleting and pruning, over HTTP."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import botocore.exceptions
import pytest
from moto.moto_api import state_manager

from airflow_provider_imageversions import compat, operators
from airflow_provider_imageversions.emulator.models import IMAGE_DELETION_MODEL, IMAGE_MODEL, VERSION_MODEL
from airflow_provider_imageversions.errors import (
    SageMakerImageOperationError,
    SageMakerImageOperationTimeoutError,
    SageMakerImageVersionPollingError,
)
from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
    SageMakerDeleteImageOperator,
    SageMakerDeleteImageVersionOperator,
    SageMakerPromoteImageVersionOperator,
    SageMakerPruneImageVersionsOperator,
    SageMakerUpdateImageVersionOperator,
)
from tests.conftest import TaskInstance, execute_in_thread, first_event, needs_watchers, wait_until

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import TaskDeferred

IMAGE = "my-image"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
BASE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:latest"
MISSING_ROLE = "arn:aws:iam::123456789012:role/does-not-exist"
QUICK = {"check_interval": 0.05, "timeout": 20}


@pytest.fixture
def client(emulator):
    emulator.creation_seconds = 0.1
    return emulator.client("sagemaker")


@pytest.fixture
def image(client, connection):
    client.create_image(ImageName=IMAGE, RoleArn=ROLE)
    return IMAGE


def change_when_read(model, times):
    """Let a status change when it has been read several times, however long that takes."""
    state_manager.set_transition(model, {"progression": "manual", "times": times})


@pytest.fixture
def slow_images():
    """Images stay CREATING or UPDATING until they have been read several times."""
    change_when_read(IMAGE_MODEL, 3)
    yield
    state_manager.unset_transition(IMAGE_MODEL)


def create(**arguments):
    return SageMakerCreateImageVersionOperator(
        **{"task_id": "create", "image_name": IMAGE, "base_image": BASE, **QUICK, **arguments}
    )


def update(**arguments):
    return SageMakerUpdateImageVersionOperator(**{"task_id": "update", "image_name": IMAGE, **QUICK, **arguments})


def promote(**arguments):
    return SageMakerPromoteImageVersionOperator(**{"task_id": "promote", "image_name": IMAGE, **QUICK, **arguments})


def delete(**arguments):
    return SageMakerDeleteImageVersionOperator(**{"task_id": "delete", "image_name": IMAGE, **QUICK, **arguments})


def prune(**arguments):
    return SageMakerPruneImageVersionsOperator(**{"task_id": "prune", "image_name": IMAGE, **QUICK, **arguments})


def execute(task):
    return execute_in_thread(task, {"ti": TaskInstance()})


def try_again(context):
    context["ti"].try_number += 1


def numbers(client):
    listed = client.get_paginator("list_image_versions").paginate(ImageName=IMAGE, SortBy="VERSION")
    return sorted(version["Version"] for page in listed for version in page["ImageVersions"])


def owner(client, alias):
    return client.describe_image_version(ImageName=IMAGE, Alias=alias)["Version"]


def render(task, **values):
    task.render_template_fields({"params": values})
    return task


# --- images ----------------------------------------------------------------------------------------------


def create_image(**arguments):
    return SageMakerCreateImageOperator(
        **{"task_id": "image", "image_name": IMAGE, "role_arn": ROLE, **QUICK, **arguments}
    )


def test_an_image_is_created_with_all_that_is_asked_for_and_waited_for(
    emulator, client, connection, context, slow_images
):
    values = {"image_name": IMAGE, "role_arn": ROLE, "display_name": "Training", "description": "For training"}
    task = create_image(**{name: f"{{{{ params.{name} }}}}" for name in values}, tags={"team": "{{ params.team }}"})
    result = render(task, **values, team="ml").execute(context)
    (call,) = emulator.calls("CreateImage")
    assert call["parameters"] == {
        "ImageName": IMAGE,
        "RoleArn": ROLE,
        "DisplayName": "Training",
        "Description": "For training",
        "Tags": [{"Key": "team", "Value": "ml"}],
    }
    assert (result["ImageStatus"], result["Description"]) == ("CREATED", "For training")
    assert isinstance(result["CreationTime"], str)
    assert context["ti"].xcoms["sagemaker_image"]["image_name"] == IMAGE


def test_without_waiting_an_image_that_is_creating_is_enough(client, connection, context, slow_images):
    assert create_image(wait_for_completion=False).execute(context)["ImageStatus"] == "CREATING"


def test_without_waiting_an_image_that_failed_already_fails_the_task(client, connection, context):
    with pytest.raises(SageMakerImageOperationError, match="'my-image': the image is CREATE_FAILED: "):
        create_image(role_arn=MISSING_ROLE, wait_for_completion=False).execute(context)


def test_an_image_that_exists_is_used_updated_or_refused(image, client, context):
    assert create_image(description="new").execute(context).get("Description") is None
    assert create_image(description="new", action_if_image_exists="update").execute(context)["Description"] == "new"
    with pytest.raises(SageMakerImageOperationError, match="exists already"):
        create_image(action_if_image_exists="fail").execute(context)


def test_a_failed_image_update_fails_the_task_but_not_other_uses(emulator, image, context):
    emulator.add_fault("unknown_status", operation="DescribeImage", after=1, times=None, status="UPDATE_FAILED")
    with pytest.raises(SageMakerImageOperationError, match="the image is UPDATE_FAILED"):
        create_image(description="new", action_if_image_exists="update").execute(context)
    assert create_image().execute(context)["ImageStatus"] == "UPDATE_FAILED"


def test_an_image_that_another_task_is_creating_is_waited_for(client, connection, context, slow_images):
    client.create_image(ImageName=IMAGE, RoleArn=ROLE)
    assert create_image(action_if_image_exists="update").execute(context)["ImageStatus"] == "CREATED"


def test_an_image_whose_creation_answer_was_lost_is_not_an_error(emulator, client, connection, context):
    emulator.add_fault("lost_answer", operation="CreateImage")
    assert create_image().execute(context)["ImageStatus"] == "CREATED"


def test_the_name_of_an_image_that_is_being_deleted_is_waited_for(emulator, image, client, context):
    change_when_read(IMAGE_DELETION_MODEL, 3)
    client.delete_image(ImageName=IMAGE)
    for action in ("fail", "use"):
        assert create_image(action_if_image_exists=action).execute(context)["ImageStatus"] == "CREATED"
        client.delete_image(ImageName=IMAGE)


def test_a_name_that_is_not_free_in_time_is_named_as_the_obstacle(emulator, image, client, context):
    emulator.creation_seconds = 60
    client.delete_image(ImageName=IMAGE)
    with pytest.raises(SageMakerImageOperationTimeoutError, match="the image is DELETING"):
        create_image(timeout=0.2).execute(context)


def test_an_image_whose_role_cannot_be_used_fails_the_task_with_the_remedy(client, connection, context):
    for _ in range(2):
        with pytest.raises(
            SageMakerImageOperationError,
            match=r"CREATE_FAILED: Could not assume role.*The usual cause is a role that SageMaker cannot use yet\. .*"
            r"action_if_image_exists='recreate'",
        ):
            create_image(role_arn=MISSING_ROLE).execute(context)


def test_an_image_that_failed_is_recreated_if_it_is_asked_for(emulator, client, connection, context):
    task = create_image(role_arn=MISSING_ROLE, action_if_image_exists="recreate")
    with pytest.raises(SageMakerImageOperationError, match="the image is CREATE_FAILED"):
        task.execute(context)
    try_again(context)
    assert create_image(action_if_image_exists="recreate").execute(context)["ImageStatus"] == "CREATED"
    assert len(emulator.calls("DeleteImage")) == 1


@pytest.mark.parametrize("status", ["CREATED", "UPDATE_FAILED"])
def test_an_image_that_did_not_fail_is_not_recreated(emulator, image, context, status):
    emulator.set_image(IMAGE, status=status)
    assert create_image(action_if_image_exists="recreate").execute(context)["ImageStatus"] == status
    assert emulator.calls("DeleteImage") == []


def test_an_image_that_could_not_be_deleted_is_not_recreated(emulator, image, context):
    emulator.set_image(IMAGE, status="DELETE_FAILED", failure_reason="attached to a domain")
    with pytest.raises(SageMakerImageOperationError, match="the image is DELETE_FAILED: attached to a domain"):
        create_image(action_if_image_exists="recreate").execute(context)
    assert emulator.calls("DeleteImage") == []


@pytest.mark.parametrize("status", ["CREATED", "CREATING", "CREATE_FAILED"])
def test_an_image_that_has_versions_is_never_recreated(emulator, image, client, context, status):
    emulator.create_versions(IMAGE, 1, status=status)
    emulator.set_image(IMAGE, status="CREATE_FAILED")
    with pytest.raises(SageMakerImageOperationError, match="It has versions"):
        create_image(action_if_image_exists="recreate").execute(context)
    assert emulator.calls("DeleteImage") == []
    assert numbers(client) == [1]


def test_an_image_that_was_recreated_concurrently_is_not_deleted(emulator, image, client, context):
    """Between the decision and the deletion, another task deletes the failed image and creates it again."""
    emulator.creation_seconds = 0
    emulator.set_image(IMAGE, status="CREATE_FAILED")
    emulator.add_fault("slow", operation="ListImageVersions", seconds=10)

    def recreate():
        wait_until(lambda: emulator.calls("ListImageVersions"))
        client.delete_image(ImageName=IMAGE)
        client.create_image(ImageName=IMAGE, RoleArn=ROLE)
        emulator.create_versions(IMAGE, 1)
        emulator.clear_faults()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(recreate)
        assert create_image(action_if_image_exists="recreate").execute(context)["ImageStatus"] == "CREATED"
        other.result(20)
    assert len(emulator.calls("DeleteImage")) == 1
    assert numbers(client) == [1]


@pytest.mark.parametrize("calls", range(5))
def test_a_retry_completes_a_recreation_that_was_interrupted_at_any_call(emulator, image, client, context, calls):
    emulator.set_image(IMAGE, status="CREATE_FAILED")
    emulator.add_fault("access_denied", operation=None, after=calls, times=None)
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized"):
        create_image(action_if_image_exists="recreate").execute(context)
    emulator.clear_faults()
    try_again(context)
    assert create_image(action_if_image_exists="recreate").execute(context)["ImageStatus"] == "CREATED"
    assert len([call for call in emulator.calls("DeleteImage") if call["status"] == 200]) == 1


def test_tasks_that_recreate_an_image_at_once_leave_one_that_is_created(emulator, image, client):
    emulator.set_image(IMAGE, status="CREATE_FAILED")
    tasks = [create_image(task_id=f"image{index}", action_if_image_exists="recreate") for index in range(6)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(execute, tasks))
    assert {(result["ImageStatus"], result["CreationTime"]) for result in results} == {
        ("CREATED", results[0]["CreationTime"])
    }
    assert len([call for call in emulator.calls("DeleteImage") if call["status"] == 200]) == 1


def test_a_quota_that_is_used_up_fails_the_task_at_once(emulator, client, connection, context):
    emulator.add_fault("limit_exceeded", operation="CreateImage")
    with pytest.raises(botocore.exceptions.ClientError, match=r"ResourceLimitExceeded.*is 250 Images"):
        create_image().execute(context)


# --- deleting images -------------------------------------------------------------------------------------


def delete_image(**arguments):
    return SageMakerDeleteImageOperator(**{"task_id": "delete_image", "image_name": IMAGE, **QUICK, **arguments})


def answered(emulator, operation):
    """The calls that have taken effect."""
    return [call for call in emulator.calls(operation) if call["status"]]


def images(client):
    return [image["ImageName"] for image in client.list_images()["Images"]]


def test_an_image_is_deleted_with_its_versions_and_waited_for(emulator, image, client, context):
    emulator.create_versions(IMAGE, 3)
    change_when_read(IMAGE_DELETION_MODEL, 3)
    values = {"image_name": IMAGE, "delete_if_aliased": "False"}
    task = render(delete_image(**{name: f"{{{{ params.{name} }}}}" for name in values}), **values)
    assert task.execute(context) == "arn:aws:sagemaker:us-east-1:123456789012:image/my-image"
    assert images(client) == []


def test_without_waiting_an_image_that_is_being_deleted_is_enough(emulator, image, client, context):
    emulator.creation_seconds = 60
    delete_image(wait_for_completion=False).execute(context)
    assert client.describe_image(ImageName=IMAGE)["ImageStatus"] == "DELETING"


def test_an_image_that_does_not_exist_is_deleted_already(emulator, client, connection, context, capsys):
    assert delete_image().execute(context) is None
    assert "it does not exist; nothing to delete" in capsys.readouterr().out
    assert emulator.calls("DeleteImage") == []


def test_an_image_with_an_alias_is_deleted_only_if_it_is_asked_for(emulator, image, client, context):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 2)
    client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["canary", "prod"])
    with pytest.raises(SageMakerImageOperationError, match=r"aliases 'canary', 'prod'.*delete_if_aliased=True"):
        delete_image().execute(context)
    assert emulator.calls("DeleteImage") == []
    delete_image(delete_if_aliased=True).execute(context)
    assert images(client) == []


def test_a_retry_does_not_refuse_what_the_first_try_began(emulator, image, client, context):
    emulator.creation_seconds = 60
    emulator.create_versions(IMAGE, 1)
    client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
    with pytest.raises(SageMakerImageOperationTimeoutError, match="the image is DELETING"):
        delete_image(delete_if_aliased=True, timeout=0.2).execute(context)
    try_again(context)
    change_when_read(IMAGE_DELETION_MODEL, 3)
    delete_image().execute(context)
    assert images(client) == []
    assert len(emulator.calls("DeleteImage")) == 1


@pytest.mark.parametrize("status", ["CREATING", "UPDATING"])
def test_an_image_that_is_being_changed_is_deleted_when_it_can_be(
    emulator, client, connection, context, slow_images, status
):
    emulator.creation_seconds = 0
    client.create_image(ImageName=IMAGE, RoleArn=ROLE)
    if status == "UPDATING":
        wait_until(lambda: client.describe_image(ImageName=IMAGE)["ImageStatus"] == "CREATED")
        client.update_image(ImageName=IMAGE, Description="new")
    # The task reads it three times until its first call, which is refused.
    change_when_read(IMAGE_MODEL, 5)
    assert delete_image().execute(context)
    assert len(emulator.calls("DeleteImage")) > 1
    assert images(client) == []


def test_a_new_image_with_the_same_name_is_not_deleted(emulator, image, client, context):
    emulator.creation_seconds = 0
    emulator.add_fault("slow", operation="ListAliases", seconds=10)

    def replace():
        wait_until(lambda: emulator.calls("ListAliases"))
        client.delete_image(ImageName=IMAGE)
        client.create_image(ImageName=IMAGE, RoleArn=ROLE, Description="another")
        emulator.clear_faults()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(replace)
        assert delete_image().execute(context)
        other.result(20)
    assert client.describe_image(ImageName=IMAGE)["Description"] == "another"


def test_an_alias_that_is_given_meanwhile_is_respected(emulator, image, client, context):
    """The first call is refused, as somebody else changes the image; before the next one, a version is promoted."""
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault("in_use", operation="DeleteImage", times=1)
    emulator.add_fault("slow", operation="DescribeImage", after=4, seconds=10)
    with ThreadPoolExecutor(1) as pool:

        def promote_it():
            wait_until(lambda: emulator.calls("DeleteImage"))
            client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
            emulator.clear_faults("slow")

        other = pool.submit(promote_it)
        with pytest.raises(SageMakerImageOperationError, match="aliases 'prod'"):
            delete_image().execute(context)
        other.result(20)


def test_an_image_that_cannot_be_deleted_fails_the_task_with_the_reason(emulator, image, client, context):
    emulator.creation_seconds = 60
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, delete_image())
        wait_until(lambda: answered(emulator, "DeleteImage"))
        emulator.set_image(IMAGE, status="DELETE_FAILED", failure_reason="attached to a domain")
        with pytest.raises(SageMakerImageOperationError, match="the image is DELETE_FAILED: attached to a domain"):
            running.result(20)
    emulator.creation_seconds = 0
    assert delete_image().execute(context)


def test_an_image_whose_deletion_answer_was_lost_is_deleted(emulator, image, client, context):
    emulator.add_fault("lost_answer", operation="DeleteImage", times=2)
    assert delete_image().execute(context)
    assert images(client) == []


# --- creating versions -----------------------------------------------------------------------------------


def test_every_member_of_the_request_may_be_a_template_and_reaches_the_wire(emulator, image, context):
    values = {
        "image_name": IMAGE,
        "base_image": BASE,
        "aliases": "candidate, v1",
        "vendor_guidance": "stable",
        "job_type": "TRAINING",
        "ml_framework": "PyTorch 2.4",
        "programming_lang": "Python 3.11",
        "processor": "gpu",
        "horovod": "True",
        "release_notes": "First",
    }
    others = {"only_if_changed", "if_unchanged"}
    assert set(create().template_fields) == {
        *values,
        *others,
        "aws_conn_id",
        "region_name",
        "verify",
        "botocore_config",
    }
    record = render(create(**{name: f"{{{{ params.{name} }}}}" for name in values}), **values).execute(context)
    (call,) = emulator.calls("CreateImageVersion")
    token = call["parameters"].pop("ClientToken")
    assert 1 <= len(token) <= 36
    assert call["parameters"] == {
        "ImageName": IMAGE,
        "BaseImage": BASE,
        "Aliases": ["candidate", "v1"],
        "VendorGuidance": "STABLE",
        "JobType": "TRAINING",
        "MLFramework": "PyTorch 2.4",
        "ProgrammingLang": "Python 3.11",
        "Processor": "GPU",
        "Horovod": True,
        "ReleaseNotes": "First",
    }
    assert record["Version"] == 1
    assert record["ImageVersionStatus"] == "CREATED"
    assert record["Aliases"] == ["candidate", "v1"]
    assert "@sha256:" in record["ContainerImage"]


@pytest.mark.parametrize("deferrable", [False, True])
def test_it_waits_until_the_version_is_created(emulator, image, run, deferrable):
    change_when_read(VERSION_MODEL, 2)
    record = run(create(deferrable=deferrable))
    assert (record["Version"], record["ImageVersionStatus"]) == (1, "CREATED")
    assert "@sha256:" in record["ContainerImage"]
    assert (run.trigger is not None) == deferrable
    assert not deferrable or 0 < run.timeout <= QUICK["timeout"]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_version_whose_image_is_deleted_fails_the_task(emulator, image, client, run, deferrable):
    emulator.creation_seconds = 60

    def delete():
        polled = "ListImageVersions" if deferrable else "DescribeImageVersion"
        wait_until(lambda: answered(emulator, polled))
        client.delete_image(ImageName=IMAGE)
        emulator.creation_seconds = 0

    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(delete)
        with pytest.raises(SageMakerImageOperationError, match="version 1 was deleted"):
            run(create(deferrable=deferrable, timeout=60))
        deletion.result()


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_version_that_fails_fails_the_task_with_the_reason_and_may_be_retried(emulator, image, run, deferrable):
    with pytest.raises(SageMakerImageOperationError, match=r"'my-image': version 1 is CREATE_FAILED: .*does-not-exist"):
        run(create(base_image="training:does-not-exist", deferrable=deferrable))
    assert not issubclass(SageMakerImageOperationError, compat.AirflowFailException)


def test_without_waiting_the_record_is_that_of_a_version_that_is_creating(emulator, image, context):
    emulator.creation_seconds = 60
    record = create(wait_for_completion=False).execute(context)
    assert (record["Version"], record["ImageVersionStatus"]) == (1, "CREATING")


def test_without_waiting_a_version_that_failed_already_fails_the_task(emulator, image):
    emulator.creation_seconds = 0
    with pytest.raises(SageMakerImageOperationError, match=r"'my-image': version 1 is CREATE_FAILED: .*does-not-exist"):
        execute(create(base_image="training:does-not-exist", wait_for_completion=False))


def test_twenty_concurrent_tasks_create_twenty_versions(emulator, image, client):
    emulator.add_fault("in_use", operation="CreateImageVersion", times=16)
    emulator.add_fault("lost_answer", operation="CreateImageVersion", times=5)

    def one(index):
        return index, execute(create(task_id=f"create{index}", base_image=f"training:{index}", timeout=120))

    with ThreadPoolExecutor(20) as pool:
        records = dict(pool.map(one, range(20)))
    assert sorted(record["Version"] for record in records.values()) == list(range(1, 21))
    assert numbers(client) == list(range(1, 21))
    assert all(record["BaseImage"] == f"training:{index}" for index, record in records.items())


def test_a_retry_continues_with_the_version_of_the_first_try(emulator, image, client, context):
    emulator.add_fault("access_denied", operation="DescribeImageVersion")
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized"):
        create().execute(context)
    try_again(context)
    assert create().execute(context)["Version"] == 1
    try_again(context)
    assert create().execute(context)["Version"] == 1
    assert numbers(client) == [1]


def test_a_retry_after_a_failure_creates_another_version_with_the_aliases(emulator, image, client, context):
    emulator.creation_seconds = 60
    task = create(aliases=["candidate"], wait_for_completion=False)
    task.execute(context)
    emulator.set_version(IMAGE, 1, status="CREATE_FAILED")
    try_again(context)
    assert task.execute(context)["Version"] == 2
    try_again(context)
    assert task.execute(context)["Version"] == 2
    emulator.set_version(IMAGE, 2, status="CREATE_FAILED")
    try_again(context)
    record = task.execute(context)
    assert (record["Version"], record["Aliases"]) == (3, ["candidate"])
    assert numbers(client) == [1, 2, 3]


def test_a_retry_creates_another_version_if_the_first_was_deleted(emulator, image, client, context):
    task = create()
    task.execute(context)
    client.delete_image_version(ImageName=IMAGE, Version=1)
    try_again(context)
    assert task.execute(context)["Version"] == 2


def test_a_version_that_is_not_found_at_first_is_not_made_twice(emulator, image, client, context):
    emulator.add_fault("not_found", operation="DescribeImageVersion", times=3)
    assert create().execute(context)["Version"] == 1
    try_again(context)
    emulator.add_fault("not_found", operation="DescribeImageVersion", times=3)
    assert create().execute(context)["Version"] == 1
    assert numbers(client) == [1]


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_versions_that_fail_at_once_are_made_once_a_try(emulator, image, client, context, tries):
    emulator.creation_seconds = 0
    for _ in range(tries):
        with pytest.raises(SageMakerImageOperationError, match="CREATE_FAILED"):
            create(base_image="training:does-not-exist").execute(context)
        try_again(context)
    assert numbers(client) == list(range(1, tries + 1))


def test_execution_timeout_includes_the_time_before_the_deferral(emulator, image, client, context):
    emulator.add_fault("throttling", operation="CreateImageVersion", times=4)
    limit = timedelta(seconds=5)
    with pytest.raises(TaskDeferred) as deferral:
        create(deferrable=True, execution_timeout=limit).execute(context)
    assert deferral.value.timeout < limit


@pytest.mark.parametrize("ready", [True, False])
def test_a_deferral_that_timed_out_has_a_last_check(emulator, image, client, run, ready):
    emulator.creation_seconds = 60
    with pytest.raises(TaskDeferred):
        create(deferrable=True).execute(run.context)
    resume = functools.partial(create().resume_execution, "__fail__", {"error": "Trigger timeout"}, run.context)
    if ready:
        emulator.creation_seconds = 0
        assert resume()["Version"] == 1
    else:
        with pytest.raises(
            SageMakerImageOperationTimeoutError, match="the timeout of 20 seconds: version 1 is CREATING"
        ):
            resume()
    assert numbers(client) == [1]


def test_each_task_run_and_map_index_has_a_token_of_its_own(emulator, image, context):
    task = create(wait_for_completion=False)
    for name, value in {"dag_id": "a", "run_id": "b", "task_id": "c", "map_index": 1}.items():
        task.execute(context)
        setattr(context["ti"], name, value)
    task.execute(context)
    create(base_image="training:other", wait_for_completion=False).execute(context)
    tokens = [call["parameters"]["ClientToken"] for call in emulator.calls("CreateImageVersion")]
    assert len(set(tokens)) == len(tokens) == 6


def test_an_image_that_is_creating_is_waited_for(client, connection, context, slow_images):
    client.create_image(ImageName=IMAGE, RoleArn=ROLE)
    assert create().execute(context)["Version"] == 1


def test_an_image_that_can_get_no_versions_is_named_as_the_cause(emulator, image, context):
    emulator.set_image(IMAGE, status="CREATE_FAILED", failure_reason="no role")
    with pytest.raises(
        SageMakerImageOperationError, match=r"the image is CREATE_FAILED: no role.*action_if_image_exists='recreate'"
    ):
        create().execute(context)
    emulator.add_fault("access_denied", operation="CreateImageVersion")
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized"):
        create().execute(context)


def test_an_alias_of_another_version_is_refused_with_the_way_to_move_it(emulator, image, client, context):
    client.create_image_version(ImageName=IMAGE, BaseImage=BASE, Aliases=["prod"])
    with pytest.raises(SageMakerImageOperationError, match=r"'prod' belongs to version 1.*Promote.*aliases=\['prod'\]"):
        create(aliases=["prod"]).execute(context)
    assert numbers(client) == [1]


def test_a_missing_image_fails_the_task_at_once(client, connection, context):
    with pytest.raises(botocore.exceptions.ClientError, match=r"ResourceNotFound.*'my-image'.*'aws_default'"):
        create().execute(context)


@pytest.mark.parametrize("kind", ["throttling", "server_error", "reset", "truncated", "expired_token"])
@pytest.mark.parametrize("operation", ["DescribeImageVersion", "ListAliases"])
def test_what_passes_by_itself_is_waited_out_and_makes_no_duplicate(emulator, image, client, context, kind, operation):
    emulator.add_fault(kind, operation=operation, times=1 if kind in {"expired_token", "truncated"} else 4)
    assert create().execute(context)["Version"] == 1
    assert numbers(client) == [1]


def test_it_polls_at_least_once_per_interval(emulator, image, context):
    change_when_read(VERSION_MODEL, 8)
    # Without the interval, pauses double from half a second or more, and there are six polls until the timeout.
    assert create(check_interval=0.05, timeout=10).execute(context)["Version"] == 1


def test_it_fails_after_its_timeout(emulator, image, context):
    emulator.creation_seconds = 60
    with pytest.raises(TimeoutError, match=r"within the timeout of 0.2 seconds: version 1 is CREATING\.$") as caught:
        create(timeout=0.2).execute(context)
    assert isinstance(caught.value, compat.AirflowException)


@pytest.mark.parametrize(
    ("make", "arguments", "operation"),
    [
        (create, {}, "CreateImageVersion"),
        (update, {"version": 2, "release_notes": "x"}, "UpdateImageVersion"),
        (promote, {"version": 2, "aliases": ["prod"]}, "UpdateImageVersion"),
        (delete, {"version": 2}, "DeleteImageVersion"),
        (prune, {"keep_newest": 1}, "ListImageVersions"),
    ],
)
def test_a_timeout_while_sagemaker_refuses_calls_has_its_error_as_the_cause(
    emulator, versions, context, make, arguments, operation
):
    kind = "throttling" if make is prune else "in_use"
    emulator.add_fault(kind, operation=operation, times=None)
    with pytest.raises(SageMakerImageOperationTimeoutError, match=r"within the timeout of 0.2 seconds: ") as caught:
        make(timeout=0.2, **arguments).execute(context)
    assert isinstance(caught.value.__cause__, botocore.exceptions.ClientError)
    assert str(caught.value.__cause__).removesuffix(".") in str(caught.value)


@needs_watchers
@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("details", [False, True])
def test_the_image_s_asset_as_an_outlet_gets_the_watcher_s_event(emulator, image, context, run, details, deferrable):
    from airflow import sdk
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_imageversions.assets import image_version_asset, watches

    asset = image_version_asset(IMAGE, include_details=details, start_from="earliest", poll_interval=0.2)
    others = [
        sdk.Asset("other"),
        image_version_asset("other-image"),
        image_version_asset(IMAGE, statuses=["CREATE_FAILED"]),
        image_version_asset(IMAGE, alias="prod"),
        image_version_asset(IMAGE, region_name="eu-west-1"),
        image_version_asset(IMAGE, aws_conn_id="other", name="of another account"),
        image_version_asset(IMAGE, alias="prod"),
    ]
    context["outlet_events"] = OutletEventAccessors()
    run(create(outlets=[asset, *others], deferrable=deferrable))
    delivered = context["outlet_events"][asset].extra["payload"]
    assert all(not context["outlet_events"][other].extra for other in others)
    (trigger,) = watches(asset)
    assert delivered == asyncio.run(first_event(trigger)).payload


@needs_watchers
def test_the_outlet_gets_the_event_if_the_connection_renders_to_nothing(emulator, image, context, run):
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_imageversions.assets import image_version_asset

    asset = image_version_asset(IMAGE)
    emulator.creation_seconds = 0
    context["outlet_events"] = OutletEventAccessors()
    assert run(render(create(outlets=[asset], aws_conn_id="{{ params.x }}"), x=None))["Version"] == 1
    assert context["outlet_events"][asset].extra["payload"]["Version"] == 1


@needs_watchers
@pytest.mark.parametrize(
    ("own", "task", "watcher", "emits"),
    [
        ("us-east-1", "eu-west-1", None, False),
        ("us-east-1", "eu-west-1", "eu-west-1", True),
        ("us-east-1", "us-east-1", None, True),
        ("eu-west-1", "eu-west-1", None, True),
        ("eu-west-1", None, "eu-west-1", True),
        (None, "eu-west-1", None, False),
        (None, "eu-west-1", "eu-west-1", True),
    ],
)
def test_an_outlet_gets_the_event_only_in_the_region_that_its_watcher_polls(
    emulator, connection, monkeypatch, context, run, own, task, watcher, emits
):
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_imageversions.assets import image_version_asset

    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    emulator.creation_seconds = 0
    connection(region_name=own)
    emulator.client("sagemaker", task or own).create_image(ImageName=IMAGE, RoleArn=ROLE)
    asset = image_version_asset(IMAGE, region_name=watcher)
    context["outlet_events"] = OutletEventAccessors()
    assert run(create(outlets=[asset], region_name=task))["Version"] == 1
    assert bool(context["outlet_events"][asset].extra) == emits


@needs_watchers
@pytest.mark.parametrize(
    ("start_from", "emits"),
    [
        ("latest", True),
        ("earliest", True),
        (1, True),
        (2, False),
        ("2026-01-01T00:00:00Z", True),
        ("2999-01-01T00:00:00Z", False),
    ],
)
def test_an_outlet_gets_the_event_only_for_versions_that_its_watcher_starts_with(
    emulator, image, context, run, start_from, emits
):
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_imageversions.assets import image_version_asset

    emulator.creation_seconds = 0
    asset = image_version_asset(IMAGE, start_from=start_from)
    context["outlet_events"] = OutletEventAccessors()
    run(create(outlets=[asset]))
    assert bool(context["outlet_events"][asset].extra) == emits


@needs_watchers
def test_an_outlet_whose_watcher_is_inactive_gets_no_event(emulator, image, context, run):
    from airflow.sdk import Asset, AssetWatcher
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger

    trigger = SageMakerImageVersionEventTrigger(image_name=IMAGE, start_from="noon")
    asset = Asset("by hand", watchers=[AssetWatcher(name="watch", trigger=trigger)])
    emulator.creation_seconds = 0
    context["outlet_events"] = OutletEventAccessors()
    run(create(outlets=[asset]))
    assert not context["outlet_events"][asset].extra


@needs_watchers
def test_the_asset_as_an_outlet_needs_waiting():
    from airflow_provider_imageversions.assets import image_version_asset

    with pytest.raises(ValueError, match="wait_for_completion=False"):
        create(outlets=[image_version_asset(IMAGE)], wait_for_completion=False)


def test_a_trigger_that_failed_is_an_error_with_a_hint(context):
    failure = {"error": "Trigger failure", "traceback": ["ModuleNotFoundError: No module named 'airflow_provider'"]}
    with pytest.raises(SageMakerImageVersionPollingError, match=r"same version of(?s:.*)ModuleNotFound"):
        create(deferrable=True).resume_execution("__fail__", failure, context)


# --- what is changed after the construction --------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_time_spans_may_be_set_later(emulator, image, run, deferrable):
    task = create(deferrable=deferrable)
    task.timeout, task.check_interval = timedelta(seconds=20), timedelta(seconds=0.05)
    assert run(task)["Version"] == 1
    task = delete(version=1)
    task.timeout, task.check_interval = timedelta(seconds=20), timedelta(seconds=0.05)
    assert run(task) == 1


@pytest.mark.parametrize("name", ["timeout", "check_interval"])
def test_a_time_span_set_later_is_checked(emulator, image, context, name):
    task = create()
    setattr(task, name, 0)
    with pytest.raises(ValueError, match=f"^{name}=0 is not valid"):
        task.execute(context)
    assert emulator.calls("CreateImageVersion") == []


# --- updating and promoting ------------------------------------------------------------------------------


@pytest.fixture
def versions(emulator, image, client):
    """Three CREATED versions; prod and stable are the first one's."""
    emulator.create_versions(IMAGE, 3)
    client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod", "stable"])
    return client


def test_every_change_may_be_a_template_and_reaches_the_wire_in_one_call(emulator, versions, context):
    versions.update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["old"])
    values = {
        "image_name": IMAGE,
        "version": "2",
        "aliases_to_add": "new",
        "aliases_to_delete": "old",
        "vendor_guidance": "TO_BE_ARCHIVED",
        "job_type": "INFERENCE",
        "ml_framework": "TensorFlow 2.17",
        "programming_lang": "Python 3.12",
        "processor": "CPU",
        "horovod": "False",
        "release_notes": "Second",
    }
    before = len(emulator.calls("UpdateImageVersion"))
    record = render(update(**{name: f"{{{{ params.{name} }}}}" for name in values}), **values).execute(context)
    (call,) = emulator.calls("UpdateImageVersion")[before:]
    assert call["parameters"] == {
        "ImageName": IMAGE,
        "Version": 2,
        "AliasesToAdd": ["new"],
        "AliasesToDelete": ["old"],
        "VendorGuidance": "TO_BE_ARCHIVED",
        "JobType": "INFERENCE",
        "MLFramework": "TensorFlow 2.17",
        "ProgrammingLang": "Python 3.12",
        "Processor": "CPU",
        "Horovod": False,
        "ReleaseNotes": "Second",
    }
    assert record["Aliases"] == ["new"]
    assert record["ReleaseNotes"] == "Second"


def test_a_promotion_moves_the_aliases_from_whichever_versions_have_them(versions, context):
    versions.update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["canary"])
    record = promote(version=3, aliases=["prod", "canary", "new"]).execute(context)
    assert record["Aliases"] == ["canary", "new", "prod"]
    assert owner(versions, "stable") == 1


def test_a_repetition_changes_nothing_and_calls_nothing_that_could(emulator, versions, context):
    changes = {"aliases_to_add": ["new"], "aliases_to_delete": ["gone"], "horovod": False, "vendor_guidance": "STABLE"}
    tasks = [update(version=3, **changes), promote(version=3, aliases=["prod"])]
    for task in tasks:
        task.execute(context)
    before = len(emulator.calls("UpdateImageVersion"))
    assert [task.execute(context)["Aliases"] for task in tasks] == [["new", "prod"]] * 2
    assert len(emulator.calls("UpdateImageVersion")) == before


def test_the_version_may_be_named_by_an_alias(versions, context):
    versions.update_image_version(ImageName=IMAGE, Version=3, AliasesToAdd=["candidate"])
    promote(alias="candidate", aliases="prod").execute(context)
    assert owner(versions, "prod") == 3


def test_every_parameter_of_a_promotion_may_be_a_template(versions, context):
    values = {"image_name": IMAGE, "version": "3", "aliases": "prod, stable", "allow_rollback": "False"}
    record = render(promote(**{name: f"{{{{ params.{name} }}}}" for name in values}), **values).execute(context)
    assert (record["Version"], record["Aliases"]) == (3, ["prod", "stable"])


@pytest.mark.parametrize("calls", range(6))
def test_a_retry_completes_a_promotion_that_was_interrupted_at_any_call(emulator, versions, context, calls):
    # All further calls fail, so the first try cannot repair anything, as if it had been killed.
    emulator.add_fault("access_denied", operation=None, after=calls, times=None)
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized"):
        promote(version=3, aliases=["prod"]).execute(context)
    emulator.clear_faults()
    try_again(context)
    assert promote(version=3, aliases=["prod"]).execute(context)["Aliases"] == ["prod"]
    assert owner(versions, "prod") == 3


def test_an_alias_that_can_not_be_given_for_good_is_given_back(emulator, versions, context, capsys):
    emulator.add_fault("access_denied", operation="UpdateImageVersion", after=1)
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized"):
        promote(version=3, aliases=["prod"]).execute(context)
    assert owner(versions, "prod") == 1
    assert "was restored to version 1" in capsys.readouterr().out


def test_an_alias_that_cannot_be_restored_is_logged_and_a_retry_adds_it(emulator, versions, context, capsys):
    emulator.add_fault("access_denied", operation="UpdateImageVersion", after=1, times=2)
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized"):
        promote(version=3, aliases=["prod"]).execute(context)
    assert "no version has the alias 'prod' now, which version 1 had" in capsys.readouterr().out
    assert promote(version=3, aliases=["prod"]).execute(context)["Aliases"] == ["prod"]


def test_only_a_created_version_is_promoted(emulator, versions, context):
    emulator.set_version(IMAGE, 3, status="CREATE_FAILED")
    with pytest.raises(SageMakerImageOperationError, match="version 3 is CREATE_FAILED"):
        promote(version=3, aliases=["prod"]).execute(context)
    assert owner(versions, "prod") == 1


@pytest.mark.parametrize("status", ["CREATE_FAILED", "DELETE_FAILED", "DELETING", "CREATING"])
def test_a_version_that_is_not_created_is_refused_even_if_it_has_the_aliases(emulator, versions, context, status):
    emulator.set_version(IMAGE, 1, status=status)
    with pytest.raises(SageMakerImageOperationError, match=f"version 1 is {status}.*only a CREATED version"):
        promote(version=1, aliases=["prod"]).execute(context)


def created_after_the_first_call(emulator, task, operation):
    """Execute a task on a version that is CREATING until an operation was called."""
    before = len(answered(emulator, operation))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, task)
        wait_until(lambda: len(answered(emulator, operation)) > before or running.done())
        emulator.creation_seconds = 0
        return running.result(20)


@pytest.mark.parametrize("kind", [None, "invalid_state"])
def test_an_update_of_a_version_that_is_creating_waits_until_it_can_be_made(emulator, image, client, context, kind):
    emulator.creation_seconds = 3600
    client.create_image_version(ImageName=IMAGE, BaseImage=BASE)
    if kind:
        emulator.add_fault(kind, operation="UpdateImageVersion", times=1)
    task = update(version=1, release_notes="x", aliases_to_add=["a"])
    assert created_after_the_first_call(emulator, task, "UpdateImageVersion")["ReleaseNotes"] == "x"
    assert len(emulator.calls("UpdateImageVersion")) > 1


@pytest.mark.parametrize("kind", [None, "invalid_state"])
def test_an_alias_is_taken_from_a_version_that_is_creating_when_it_can_be(emulator, versions, context, kind):
    emulator.creation_seconds = 3600
    versions.create_image_version(ImageName=IMAGE, BaseImage=BASE, Aliases=["candidate"])
    if kind:
        emulator.add_fault(kind, operation="UpdateImageVersion", times=1)
    record = created_after_the_first_call(emulator, promote(version=3, aliases=["candidate"]), "UpdateImageVersion")
    assert record["Aliases"] == ["candidate"]


@pytest.mark.parametrize("aliases", ["prod,candidate", "candidate,prod"])
def test_a_promotion_that_waits_for_one_alias_leaves_the_others_alone(emulator, versions, context, aliases):
    emulator.creation_seconds = 3600
    versions.create_image_version(ImageName=IMAGE, BaseImage=BASE, Aliases=["candidate"])
    before = len(emulator.calls("UpdateImageVersion"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, promote(version=3, aliases=aliases))
        wait_until(lambda: len(emulator.calls("UpdateImageVersion")) >= before + 3 or running.done())
        assert (owner(versions, "prod"), owner(versions, "candidate")) == (1, 4)
        emulator.creation_seconds = 0
        assert running.result(20)["Aliases"] == ["candidate", "prod"]


def test_aliases_that_were_detached_are_added_before_a_promotion_waits(emulator, versions, context):
    versions.update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["canary"])
    before = len(emulator.calls("UpdateImageVersion"))
    emulator.add_fault("in_use", operation="UpdateImageVersion", after=1, times=1)
    assert promote(version=3, aliases=["prod", "canary"]).execute(context)["Aliases"] == ["canary", "prod"]
    calls = [call["parameters"] for call in emulator.calls("UpdateImageVersion")[before:]]
    changes = [(call["Version"], call.get("AliasesToDelete", []), call.get("AliasesToAdd", [])) for call in calls]
    assert changes == [
        (1, ["prod"], []),
        (2, ["canary"], []),
        (3, [], ["prod"]),
        (2, ["canary"], []),
        (3, [], ["canary"]),
    ]


@pytest.mark.parametrize("make", [update, delete])
def test_a_validation_error_that_the_status_does_not_explain_is_raised_at_once(emulator, versions, context, make):
    arguments = {"release_notes": "x"} if make is update else {}
    emulator.add_fault("invalid_state", operation=None, after=1, times=1)
    with pytest.raises(botocore.exceptions.ClientError, match="invalid state"):
        make(version=2, **arguments).execute(context)


def test_an_update_without_a_change_is_refused_when_the_dag_is_parsed(connection):
    with pytest.raises(ValueError, match=r"nothing to change\. Set at least one of aliases_to_add, .*, release_notes"):
        update(version=1)
    assert update(version=1, release_notes="{{ params.notes }}")
    with DAG("dag", schedule=None):
        assert update(version=1, horovod=create().output)


def test_an_update_without_a_change_is_refused_at_run_time_too(connection, context):
    with DAG("dag", schedule=None):
        task = update(version=1, release_notes=create().output)
    task.release_notes = None  # as the result of a task that returned nothing
    with pytest.raises(ValueError, match="nothing to change"):
        task.execute(context)


@pytest.mark.parametrize("flag", ["wait_for_completion", "deferrable"])
def test_a_flag_of_an_operator_is_checked_whenever_it_is_set(flag):
    task = create()
    setattr(task, flag, "False")
    assert getattr(task, flag) is False
    with pytest.raises(ValueError, match=f"{flag}='no' is not valid: it must be True or False"):
        setattr(task, flag, "no")


class Lazy(Sequence):
    """As Airflow passes the results of a mapped task."""

    def __init__(self, *items):
        self._items = items

    def __getitem__(self, index):
        return self._items[index]

    def __len__(self):
        return len(self._items)


def test_the_results_of_a_mapped_task_are_a_list(emulator, versions, context):
    assert prune(keep_newest=1, keep_versions=Lazy(1)).execute(context)["deleted"] == [2]
    assert promote(version=3, aliases=Lazy("prod", "candidate")).execute(context)


def test_what_is_no_promotion_is_done_to_a_failed_version_too(emulator, versions, context):
    emulator.set_version(IMAGE, 3, status="CREATE_FAILED")
    record = update(version=3, aliases_to_add=["broken"], release_notes="No base image").execute(context)
    assert (record["Aliases"], record["ReleaseNotes"]) == (["broken"], "No base image")


def test_a_late_run_does_not_undo_a_later_promotion_if_it_must_not(versions, context):
    promote(version=3, aliases=["prod"]).execute(context)
    with pytest.raises(compat.AirflowSkipException, match="version 3 already"):
        promote(version=2, aliases=["prod"], allow_rollback=False).execute(context)
    assert owner(versions, "prod") == 3
    promote(version=2, aliases=["prod"]).execute(context)
    assert owner(versions, "prod") == 2


def test_a_promotion_that_is_skipped_for_one_alias_has_taken_none(emulator, versions, context):
    versions.update_image_version(ImageName=IMAGE, Version=3, AliasesToAdd=["canary"])
    before = len(emulator.calls("UpdateImageVersion"))
    with pytest.raises(compat.AirflowSkipException, match="'canary' belongs to version 3 already"):
        promote(version=2, aliases=["prod", "canary"], allow_rollback=False).execute(context)
    assert len(emulator.calls("UpdateImageVersion")) == before


def test_an_alias_is_restored_after_execution_timeout(emulator, versions, context):
    class ExecutionTimeout(BaseException):
        """As Airflow's own, which is no Exception."""

    def end(*_):
        raise ExecutionTimeout

    def end_between_the_calls():
        wait_until(lambda: len(emulator.calls("UpdateImageVersion")) >= 3)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    emulator.add_fault("slow", operation="UpdateImageVersion", after=1, seconds=3)
    handler = signal.signal(signal.SIGALRM, end)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(end_between_the_calls)
            with pytest.raises(ExecutionTimeout):
                promote(version=3, aliases=["prod"]).execute(context)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert owner(versions, "prod") == 1


def test_an_alias_to_add_that_another_version_has_is_refused(versions, context):
    with pytest.raises(SageMakerImageOperationError, match=r"'prod' belongs to version 1.*Promote.*aliases=\['prod'\]"):
        update(version=3, aliases_to_add=["prod"]).execute(context)


def test_promotions_at_the_same_time_end_with_the_alias_on_one_version(emulator, versions):
    emulator.add_fault("in_use", operation="UpdateImageVersion", times=4)
    tasks = [promote(task_id=f"update{number}", version=number, aliases=["prod"]) for number in (2, 3) * 3]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(execute, tasks))
    assert owner(versions, "prod") in {2, 3}


# --- deleting --------------------------------------------------------------------------------------------


def test_a_version_is_deleted_and_waited_for(emulator, versions, context):
    change_when_read(VERSION_MODEL, 3)
    assert delete(version=2).execute(context) == 2
    assert numbers(versions) == [1, 3]


def test_without_waiting_a_version_that_is_being_deleted_is_enough(emulator, versions, context):
    emulator.creation_seconds = 60
    assert delete(version=2, wait_for_completion=False).execute(context) == 2
    assert versions.describe_image_version(ImageName=IMAGE, Version=2)["ImageVersionStatus"] == "DELETING"


def test_a_version_may_be_deleted_by_its_alias(versions, context):
    assert delete(alias="stable").execute(context) == 1
    assert numbers(versions) == [2, 3]


def test_what_is_gone_already_is_a_success(emulator, versions, context):
    assert delete(version=9).execute(context) == 9
    assert delete(alias="gone").execute(context) is None
    assert delete(image_name="no-such-image", version=1).execute(context) == 1
    assert emulator.calls("DeleteImageVersion") == []


def test_a_version_that_somebody_else_is_deleting_is_waited_for(emulator, versions, context):
    change_when_read(VERSION_MODEL, 3)
    versions.delete_image_version(ImageName=IMAGE, Version=2)
    assert delete(version=2).execute(context) == 2
    assert numbers(versions) == [1, 3]


@pytest.mark.parametrize("kind", [None, "invalid_state"])
def test_a_version_that_is_creating_is_deleted_when_it_can_be(emulator, image, client, context, kind):
    emulator.creation_seconds = 3600
    client.create_image_version(ImageName=IMAGE, BaseImage=BASE)
    if kind:
        emulator.add_fault(kind, operation="DeleteImageVersion", times=1)
    assert created_after_the_first_call(emulator, delete(version=1), "DeleteImageVersion") == 1
    assert numbers(client) == []


def test_a_deletion_that_fails_fails_the_task_with_the_reason(emulator, versions, context):
    emulator.creation_seconds = 60
    task = delete(version=2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, task)
        wait_until(lambda: answered(emulator, "DeleteImageVersion") or running.done())
        emulator.set_version(IMAGE, 2, status="DELETE_FAILED", failure_reason="in use by a domain")
        with pytest.raises(SageMakerImageOperationError, match="version 2 is DELETE_FAILED: in use by a domain"):
            running.result(20)


def test_a_deletion_whose_answer_was_lost_is_a_success(emulator, versions, context):
    emulator.creation_seconds = 0
    emulator.add_fault("lost_answer", operation="DeleteImageVersion", times=5)
    assert delete(version=2).execute(context) == 2


def test_a_version_whose_alias_moves_before_it_can_be_deleted_is_kept(emulator, versions, context):
    emulator.add_fault("in_use", operation="DeleteImageVersion", times=None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, delete(alias="stable"))
        wait_until(lambda: emulator.calls("DeleteImageVersion") or running.done())
        versions.update_image_version(ImageName=IMAGE, Version=1, AliasesToDelete=["stable"])
        with pytest.raises(SageMakerImageOperationError, match="nothing was deleted, because the alias 'stable' moved"):
            running.result(20)
    assert numbers(versions) == [1, 2, 3]


# --- pruning ---------------------------------------------------------------------------------------------


def kept(**numbers):
    """Every reason is a key, whether it applies or not."""
    return {
        **{reason: [] for reason in ("newest", "age", "alias", "limit", "in_use", "status", "listed", "used")},
        **numbers,
    }


def test_pruning_reports_why_versions_are_kept(emulator, image, client, context, capsys):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 8)
    emulator.set_version(IMAGE, 5, status="CREATE_FAILED")
    emulator.set_version(IMAGE, 6, status="CREATING")
    client.update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["prod"])
    plan = prune(keep_newest=2, preview=True).execute(context)
    assert numbers(client) == list(range(1, 9))
    result = prune(keep_newest=2).execute(context)
    assert result["deleted"] == plan["deleted"] == [1, 3, 4, 5]
    assert result["kept"] == plan["kept"] == kept(newest=[7, 8], status=[6], alias=[2])
    assert (plan["preview"], result["preview"]) == (True, False)
    assert "deleted 4 versions; kept: 2 (newest), 1 (alias), 1 (status)" in capsys.readouterr().out
    assert numbers(client) == [2, 6, 7, 8]
    assert prune(keep_newest=2).execute(context)["deleted"] == []


def test_pruning_keeps_what_is_younger_than_asked(emulator, image, client, context):
    now = datetime.now(timezone.utc)
    emulator.create_versions(IMAGE, 10, start_time=now - timedelta(days=10), spacing_seconds=86400)
    assert prune(keep_younger_than=timedelta(days=4, hours=1)).execute(context)["deleted"] == [1, 2, 3, 4, 5, 6]


def test_no_more_is_deleted_than_asked(emulator, image, context):
    emulator.create_versions(IMAGE, 10)
    result = prune(keep_newest=1, limit=3).execute(context)
    assert result["deleted"] == [1, 2, 3]
    assert result["kept"] == kept(newest=[10], limit=[4, 5, 6, 7, 8, 9])


def test_a_policy_may_be_a_template_but_nothing_goes_where_a_part_renders_to_nothing(emulator, image, client, context):
    emulator.create_versions(IMAGE, 4)
    client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
    values = {
        "keep_newest": "1",
        "keep_younger_than": "0.001",
        "keep_versions": "[3]",
        "keep_aliased": True,
        "limit": "9",
        "preview": "True",
    }
    templates = {name: f"{{{{ params.{name} }}}}" for name in values}
    result = render(prune(**templates), **values).execute(context)
    assert result == {"deleted": [2], "kept": kept(newest=[4], alias=[1], listed=[3]), "used_by": {}, "preview": True}
    for name in values:
        with pytest.raises(ValueError, match=f"{name}="):
            render(prune(**templates), **{**values, name: None}).execute(context)
    assert not emulator.calls("DeleteImageVersion")
    assert prune(keep_newest=1, keep_aliased=False).execute(context)["deleted"] == [1, 2, 3]


def test_pruning_a_thousand_versions_takes_the_necessary_calls_only(emulator, image, client, context):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 1_000)
    client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
    before = len(emulator.calls())
    result = prune(keep_newest=980, timeout=120).execute(context)
    assert result["deleted"] == list(range(2, 21))
    # The list; for each deletion, ListAliases, DescribeImageVersion and DeleteImageVersion; and the aliased version.
    assert len(emulator.calls()) - before == 10 + 3 * 19 + 1


def test_pruning_waits_for_concurrent_changes_and_skips_deleted_versions(emulator, image, client, context):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 6)
    emulator.add_fault("in_use", operation="DeleteImageVersion", times=2)
    emulator.add_fault("lost_answer", operation="DeleteImageVersion", times=3)
    with ThreadPoolExecutor(2) as pool:
        tasks = [prune(task_id=f"prune{index}", keep_newest=2) for index in (1, 2)]
        list(pool.map(execute, tasks))
    assert numbers(client) == [5, 6]


def test_a_version_that_stays_in_use_is_kept_and_holds_up_no_other(emulator, image, client, context, monkeypatch):
    monkeypatch.setattr(operators.deletion, "_IN_USE_PATIENCE", 0.0)
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 4)
    emulator.add_fault("in_use", operation="DeleteImageVersion", times=1)
    result = prune(keep_newest=1).execute(context)
    assert result["deleted"] == [2, 3]
    assert result["kept"] == kept(newest=[4], in_use=[1])
    assert numbers(client) == [1, 4]


def test_a_version_that_is_promoted_before_it_can_be_deleted_is_kept(emulator, image, client, context):
    emulator.create_versions(IMAGE, 2)
    emulator.add_fault("in_use", operation="DeleteImageVersion", times=None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, prune(keep_newest=1))
        wait_until(lambda: emulator.calls("DeleteImageVersion") or running.done())
        client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"])
        assert running.result(20)["kept"] == kept(newest=[2], alias=[1])


def test_versions_of_an_image_that_is_created_again_are_not_pruned(emulator, image, client, context):
    """Between the list and the first deletion, the image is deleted and created again."""
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 3)
    emulator.add_fault("slow", operation="ListAliases", seconds=10)

    def replace():
        wait_until(lambda: emulator.calls("ListAliases"))
        client.delete_image(ImageName=IMAGE)
        client.create_image(ImageName=IMAGE, RoleArn=ROLE)
        client.create_image_version(ImageName=IMAGE, BaseImage=BASE)
        emulator.clear_faults()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(replace)
        prune(keep_newest=1).execute(context)
        other.result(20)
    assert numbers(client) == [1]
    assert emulator.calls("DeleteImageVersion") == []


@pytest.mark.parametrize("value", [[1, 3], (3, 1), {1, 3}, "1, 3", "[1, 3]", ["1", "3"]])
def test_listed_versions_are_kept(emulator, image, client, context, value):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 5)
    result = prune(keep_newest=1, keep_versions=value).execute(context)
    assert result == {"deleted": [2, 4], "kept": kept(newest=[5], listed=[1, 3]), "used_by": {}, "preview": False}
    assert numbers(client) == [1, 3, 5]


def test_a_refusal_that_the_status_explains_is_waited_out_while_pruning(emulator, image, client, context):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 2)
    emulator.add_fault("invalid_state", operation="DeleteImageVersion", times=2)
    emulator.add_fault("unknown_status", operation="DescribeImageVersion", times=2, status="CREATING")
    assert prune(keep_newest=1).execute(context)["deleted"] == [1]
    assert numbers(client) == [2]


def test_pruning_keeps_a_version_that_stays_creating(emulator, image, client, context, monkeypatch, capsys):
    monkeypatch.setattr(operators.deletion, "_IN_USE_PATIENCE", 0.1)
    emulator.create_versions(IMAGE, 3)
    emulator.add_fault("invalid_state", operation="DeleteImageVersion", times=None)
    emulator.add_fault("unknown_status", operation="DescribeImageVersion", times=None, status="CREATING")
    assert prune(keep_newest=1).execute(context)["kept"] == kept(newest=[3], in_use=[1, 2])
    assert "kept version 1: version 1 is CREATING" in capsys.readouterr().out


# --- what all share --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (create_image, {"image_name": "bad name!"}),
        (create_image, {"role_arn": "role/sagemaker"}),
        (create_image, {"display_name": " x"}),
        (create_image, {"description": "x" * 513}),
        (create_image, {"tags": {"": "x"}}),
        (create_image, {"action_if_image_exists": "replace"}),
        (create, {"image_name": "arn:aws:sagemaker:us-east-1:123456789012:image/x"}),
        (create, {"base_image": "x" * 256}),
        (create, {"aliases": ["-x"]}),
        (create, {"vendor_guidance": "GOOD"}),
        (create, {"job_type": "BATCH"}),
        (create, {"ml_framework": "PyTorch"}),
        (create, {"programming_lang": "3.11"}),
        (create, {"processor": "TPU"}),
        (create, {"horovod": "maybe"}),
        (create, {"release_notes": "two\nlines"}),
        (create, {"check_interval": 0}),
        (delete_image, {"image_name": "bad name!"}),
        (delete_image, {"delete_if_aliased": "maybe"}),
        (delete_image, {"timeout": 0}),
        (create, {"timeout": -1}),
        (create, {"botocore_config": {"no_such_option": 1}}),
        (update, {"version": None}),
        (update, {"version": -1, "release_notes": "x"}),
        (update, {"version": 1, "alias": "prod", "release_notes": "x"}),
        (update, {"aliases_to_add": ["bad alias"], "version": 1}),
        (promote, {"aliases": ["bad alias"], "version": 1}),
        (promote, {"aliases": [], "version": 1}),
        (promote, {"version": None, "aliases": ["x"]}),
        (promote, {"version": 1, "alias": "candidate", "aliases": ["x"]}),
        (update, {"aliases_to_delete": ["x"], "aliases_to_add": ["x"], "version": 1}),
        (update, {"alias": "x", "aliases_to_delete": ["x"]}),
        (promote, {"allow_rollback": "maybe", "version": 1, "aliases": ["x"]}),
        (update, {"processor": "TPU", "version": 1}),
        (delete, {"version": None}),
        (delete, {"alias": "bad alias"}),
        (prune, {"keep_newest": None}),
        (prune, {"keep_newest": -1}),
        (prune, {"keep_younger_than": "yesterday"}),
        (prune, {"keep_aliased": "maybe", "keep_newest": 1}),
        (prune, {"keep_versions": "latest", "keep_newest": 1}),
        (prune, {"keep_versions": [-1], "keep_newest": 1}),
        (prune, {"limit": -1, "keep_newest": 1}),
        (prune, {"preview": "maybe", "keep_newest": 1}),
    ],
)
def test_invalid_input_is_rejected_at_parse_time_and_after_rendering(emulator, connection, context, make, arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=name):
        make(**arguments)
    if name in {"check_interval", "timeout", "botocore_config"} or value in (None, []) or make is create_image:
        return
    task = make(**{**arguments, name: "{{ params.value }}"})
    with pytest.raises(ValueError, match=name):
        render(task, value=value).execute(context)
    assert emulator.calls() == []


@pytest.mark.parametrize(
    ("make", "operation", "arguments"),
    [
        (create, "CreateImageVersion", {}),
        (update, "UpdateImageVersion", {"version": 1, "release_notes": "x"}),
        (promote, "UpdateImageVersion", {"version": 1, "aliases": ["x"]}),
        (delete_image, "DeleteImage", {}),
        (delete, "DeleteImageVersion", {"version": 1}),
        (prune, "DeleteImageVersion", {"keep_newest": 1}),
    ],
)
def test_region_and_botocore_settings_reach_every_call(emulator, connection, context, make, operation, arguments):
    emulator.create_versions(IMAGE, 2, region_name="eu-west-1")
    emulator.creation_seconds = 0
    task = make(region_name="eu-west-1", botocore_config={"user_agent_extra": "x9"}, **arguments)
    task.execute(context)
    assert emulator.calls(operation)
    assert all(call["region"] == "eu-west-1" and "x9" in call["user_agent"] for call in emulator.calls())
    assert context["ti"].xcoms["sagemaker_image"]["region_name"] == "eu-west-1"


def test_where_the_image_is_reaches_the_trigger(emulator, connection, run):
    emulator.creation_seconds = 0.1
    emulator.create_versions(IMAGE, 2, region_name="eu-west-1")
    connection("other")
    reach = {
        "aws_conn_id": "other",
        "region_name": "eu-west-1",
        "verify": False,
        "botocore_config": {"user_agent_extra": "x9"},
    }
    run(create(deferrable=True, **reach))
    _, arguments = run.trigger.serialize()
    assert {name: arguments[name] for name in reach} == reach
    assert (arguments["image_name"], arguments["version"], arguments["poll_interval"]) == (IMAGE, 3, 0.05)
    assert all(call["region"] == "eu-west-1" and "x9" in call["user_agent"] for call in emulator.calls())


@pytest.mark.parametrize(
    ("make", "arguments", "operations"),
    [
        (
            promote,
            {"version": 3, "aliases": ["prod"]},
            ["DescribeImageVersion", "ListAliases", "UpdateImageVersion"],
        ),
        (update, {"version": 3, "release_notes": "x"}, ["DescribeImageVersion", "UpdateImageVersion", "ListAliases"]),
        (delete, {"version": 1}, ["DescribeImageVersion", "DeleteImageVersion"]),
        (delete_image, {"delete_if_aliased": True}, ["DescribeImage", "DeleteImage"]),
        (create_image, {"action_if_image_exists": "update"}, ["CreateImage", "DescribeImage", "UpdateImage"]),
        (prune, {"keep_newest": 1}, ["ListImageVersions", "ListAliases", "DeleteImageVersion"]),
    ],
)
def test_throttling_of_any_call_is_waited_out(emulator, versions, context, make, arguments, operations):
    for operation in operations:
        emulator.add_fault("throttling", operation=operation)
    make(botocore_config={"retries": {"total_max_attempts": 1}}, **arguments).execute(context)
