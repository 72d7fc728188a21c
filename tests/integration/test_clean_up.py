"""Pruning and deleting that know what Studio uses."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from botocore.exceptions import ClientError

from airflow_provider_imageversions.errors import SageMakerImageOperationError, SageMakerImageOperationTimeoutError
from airflow_provider_imageversions.operators import (
    SageMakerDeleteImageOperator,
    SageMakerDeleteImageVersionOperator,
    SageMakerImageVersionUsageOperator,
    SageMakerPruneImageVersionsOperator,
)
from tests.conftest import TaskInstance, execute_in_thread, wait_until
from tests.studio import custom_image, spec

IMAGE = "churn"
QUICK = {"check_interval": 0.05, "timeout": 60}


@pytest.fixture
def said(capsys, caplog):
    """What is in the log, wherever this Airflow writes it."""
    caplog.set_level(logging.INFO, logger="airflow.task")
    caplog.set_level(logging.INFO, logger="airflow_provider_imageversions")

    def text():
        out, err = capsys.readouterr()
        return f"{out}\n{err}\n{caplog.text}"

    return text


@pytest.fixture
def domain(studio, connection):
    """Ten versions, of which a domain attaches the third, a space starts from the fifth and an app runs the sixth."""
    studio.image(IMAGE, 10)
    lab = {"CustomImages": [custom_image(IMAGE, 3), custom_image("other", 1)]}
    domain = studio.domain(JupyterLabAppSettings=lab)
    studio.space(domain, "notes", JupyterLabAppSettings={"DefaultResourceSpec": spec(IMAGE, 5)})
    studio.space(domain, "old")
    studio.app(domain, space="old", spec=spec(IMAGE, 6))
    return domain


def prune(**arguments):
    return SageMakerPruneImageVersionsOperator(
        **{"task_id": "prune", "image_name": IMAGE, "keep_newest": 2, **QUICK, **arguments}
    )


def delete(number, **arguments):
    return SageMakerDeleteImageVersionOperator(
        **{"task_id": "delete", "image_name": IMAGE, "version": number, **QUICK, **arguments}
    )


def delete_image(**arguments):
    return SageMakerDeleteImageOperator(**{"task_id": "delete", "image_name": IMAGE, **QUICK, **arguments})


def left(studio):
    pages = studio.client.get_paginator("list_image_versions").paginate(ImageName=IMAGE)
    return sorted(version["Version"] for page in pages for version in page["ImageVersions"])


def test_pruning_keeps_what_is_used_and_says_by_whom(studio, domain, run, said):
    result = run(prune(keep_used=True))
    assert result["deleted"] == [1, 2, 4, 7, 8]
    assert result["kept"]["used"] == [3, 5, 6]
    assert {number: [user["kind"] for user in users] for number, users in result["used_by"].items()} == {
        "3": ["domain"],
        "5": ["space"],
        "6": ["app"],
    }
    assert left(studio) == [3, 5, 6, 9, 10]
    log = said()
    assert f"kept version 5: used by space notes in domain {domain} (JupyterLab)" in log
    assert "not checking whether SageMaker Studio uses" not in log


def test_a_preview_keeps_the_same(studio, domain, run):
    result = run(prune(keep_used=True, preview=True))
    assert (result["deleted"], result["kept"]["used"]) == ([1, 2, 4, 7, 8], [3, 5, 6])
    assert left(studio) == list(range(1, 11))


@pytest.mark.parametrize(
    ("scope", "used"),
    [(["domains"], [3]), ("apps, spaces", [5, 6]), ("{{ 'spaces' }}", [5]), ("True", [3, 5, 6])],
)
def test_the_scope_limits_the_calls(studio, domain, run, scope, used):
    operator = prune(keep_used=scope)
    operator.render_template_fields({})
    assert run(operator)["kept"]["used"] == used


def test_without_it_a_warning_says_what_may_happen(studio, domain, run, emulator, said):
    result = run(prune())
    assert result["deleted"] == list(range(1, 9))
    assert (result["kept"]["used"], result["used_by"]) == ([], {})
    assert "not checking whether SageMaker Studio uses what is deleted, because keep_used is not set" in said()
    assert not [
        call for call in emulator.calls() if "Domain" in call["operation"] and "Create" not in call["operation"]
    ]


@pytest.mark.parametrize("operation", ["ListDomains", "DescribeDomain", "ListApps", "ListSpaces", "DescribeSpace"])
def test_what_cannot_be_read_keeps_every_version(studio, domain, run, emulator, operation):
    emulator.add_fault("access_denied", operation=operation, times=None)
    with pytest.raises(ClientError, match=f"needs sagemaker:{operation}"):
        run(prune(keep_used=True))
    assert left(studio) == list(range(1, 11))


@pytest.mark.parametrize("operation", ["DescribeImage", "ListDomains", "ListSpaces"])
@pytest.mark.parametrize("make", [partial(prune, keep_used=True), partial(delete, 4, refuse_if_used=True)])
def test_what_is_not_found_is_not_unused(studio, domain, run, emulator, make, operation):
    emulator.add_fault("not_found", operation=operation, times=1)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        run(make())
    assert left(studio) == list(range(1, 11))


@pytest.mark.parametrize(
    "make",
    [
        partial(prune, keep_used=True),
        partial(delete, 4, refuse_if_used=True),
        partial(delete_image, refuse_if_used=True),
        partial(SageMakerImageVersionUsageOperator, task_id="usage", image_name=IMAGE),
    ],
)
def test_usage_that_is_not_read_within_the_timeout_fails_the_task(studio, domain, run, emulator, make):
    emulator.add_fault("throttling", operation="ListDomains", times=None)
    with pytest.raises(
        SageMakerImageOperationTimeoutError, match=r"the timeout of 0.2 seconds: (Client|Timeout)Error: "
    ):
        run(make(timeout=0.2))
    assert left(studio) == list(range(1, 11))


def during_usage(studio, emulator, task, change):
    """Run a task, and change something while it reads who uses the versions."""
    emulator.add_fault("throttling", operation="ListDomains", times=None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute_in_thread, task, {"ti": TaskInstance()})
        wait_until(lambda: emulator.calls("ListDomains") or running.done())
        change()
        emulator.clear_faults()
        return running.result(60)


def test_the_newest_version_is_kept_if_a_newer_one_is_deleted_while_usage_is_read(studio, domain, emulator):
    task = prune(keep_used=["domains"], keep_newest=1)
    result = during_usage(
        studio, emulator, task, lambda: studio.client.delete_image_version(ImageName=IMAGE, Version=10)
    )
    assert result["kept"]["newest"] == [9]
    assert left(studio) == [3, 9]


@pytest.mark.parametrize("kind", ["in_use", "invalid_state"])
def test_versions_that_cannot_be_deleted_are_kept_and_do_not_use_up_the_limit(
    studio, domain, run, emulator, monkeypatch, kind
):
    monkeypatch.setattr("airflow_provider_imageversions.operators.deletion._IN_USE_PATIENCE", 0.0)
    emulator.add_fault(kind, operation="DeleteImageVersion", times=2)
    result = run(prune(limit=3, botocore_config={"retries": {"total_max_attempts": 1}}))
    assert result["kept"]["in_use"] == [1, 2]
    assert result["deleted"] == [3, 4, 5]


@pytest.mark.parametrize("status", ["CREATED", "CREATE_FAILED", "CREATING", None])
def test_an_image_that_is_attached_without_a_number_is_not_deleted_whatever_its_versions_are(
    studio, connection, run, emulator, status
):
    studio.image(IMAGE, 0 if status is None else 1)
    domain = studio.domain(JupyterLabAppSettings={"CustomImages": [custom_image(IMAGE)]})
    if status is not None:
        emulator.set_version(IMAGE, 1, status=status)
    version = "version 1" if status == "CREATED" else "no version yet"
    with pytest.raises(
        SageMakerImageOperationError, match=rf"because it is in use: {version} by domain {domain} \(JupyterLab\)"
    ):
        run(delete_image(refuse_if_used=True))
    assert studio.client.describe_image(ImageName=IMAGE)["ImageStatus"] == "CREATED"


def test_a_version_of_an_image_that_is_created_again_during_the_deletion_is_not_waited_for(
    studio, domain, run, emulator
):
    def recreate():
        studio.client.delete_image(ImageName=IMAGE)
        studio.image(IMAGE, 1)

    emulator.creation_seconds = 0.0
    emulator.set_version(IMAGE, 1, status="CREATED")
    task = delete(1, refuse_if_used=["domains"], timeout=10)
    assert during_usage(studio, emulator, task, recreate) == 1
    assert left(studio) == [1]


def test_an_alias_that_moves_while_usage_is_read_keeps_the_version(studio, domain, emulator):
    result = during_usage(
        studio,
        emulator,
        prune(keep_used=True),
        lambda: studio.client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=["prod"]),
    )
    assert result["kept"]["alias"] == [1]
    assert 1 in left(studio)


def test_usage_is_read_once_and_only_if_something_could_be_deleted(studio, domain, run, emulator):
    before = len(emulator.calls())
    run(prune(keep_used=True, keep_newest=10))
    assert "ListDomains" not in {call["operation"] for call in emulator.calls()[before:]}
    run(prune(keep_used=True, keep_newest=1))
    calls = [call["operation"] for call in emulator.calls()[before:]]
    assert (calls.count("ListDomains"), calls.count("DescribeDomain"), calls.count("DescribeSpace")) == (1, 1, 2)


def test_a_version_in_use_is_not_deleted(studio, domain, run, said):
    with pytest.raises(
        SageMakerImageOperationError, match=r"version 5 is not deleted, because it is used by space notes in domain d-"
    ):
        run(delete(5, refuse_if_used=True))
    assert 5 in left(studio)
    assert run(delete(5, refuse_if_used="domains")) == 5
    assert run(delete(4, refuse_if_used=True)) == 4
    assert left(studio) == [1, 2, 3, 6, 7, 8, 9, 10]
    assert "not checking" not in said()
    run(delete(3))
    assert "not checking whether SageMaker Studio uses what is deleted, because refuse_if_used is not set" in said()


def test_an_image_in_use_is_not_deleted(studio, domain, run, emulator, said):
    with pytest.raises(SageMakerImageOperationError, match=r"in use: version 3 by domain d-.*; version 5 by space"):
        run(delete_image(refuse_if_used=True))
    assert "DeleteImage" not in {call["operation"] for call in emulator.calls()}
    studio.client.update_domain(
        DomainId=domain, DefaultUserSettings={"JupyterLabAppSettings": {"CustomImages": [custom_image("other", 1)]}}
    )
    assert run(delete_image(refuse_if_used="domains")).endswith(f":image/{IMAGE}")
    studio.image("another", 1)
    run(delete_image(image_name="another"))
    assert "because refuse_if_used is not set" in said()


def test_an_access_that_is_denied_deletes_nothing(studio, domain, run, emulator):
    emulator.add_fault("access_denied", operation="ListApps", times=None)
    for operator in (delete(4, refuse_if_used=True), delete_image(refuse_if_used=True)):
        with pytest.raises(ClientError, match="needs sagemaker:ListApps"):
            run(operator)
    assert left(studio) == list(range(1, 11))


@pytest.mark.parametrize("make", [prune, lambda **given: delete(1, **given), delete_image])
@pytest.mark.parametrize("value", ["everywhere", ["spaces", "planets"], 7])
def test_a_scope_that_does_not_exist_is_refused_when_the_dag_is_parsed(make, value):
    name = "keep_used" if make is prune else "refuse_if_used"
    with pytest.raises(ValueError, match=f"^{name}="):
        make(**{name: value})
