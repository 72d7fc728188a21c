"""A version is created only if its container image is another one; with moto's Amazon ECR."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from airflow_provider_imageversions import _sessions, operators
from airflow_provider_imageversions.compat import AirflowSkipException
from airflow_provider_imageversions.errors import (
    CredentialsError,
    ErrorKind,
    MissingConnectionError,
    SageMakerImageOperationError,
    classify_error,
)
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import SageMakerCreateImageVersionOperator
from tests.conftest import wait_until
from tests.studio import ROLE

IMAGE = "churn"
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
BASE = f"{REGISTRY}/team/churn:latest"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.fixture
def context(context):
    class Store(dict):
        def set(self, key, value):
            self[key] = json.loads(json.dumps(value))

    context["task_state_store"] = Store()
    return context


@pytest.fixture
def said(capsys, caplog):
    """What is in the log, wherever this Airflow writes it."""
    caplog.set_level(logging.INFO, logger="airflow.task")
    caplog.set_level(logging.INFO, logger="airflow_provider_imageversions")

    def text():
        out, err = capsys.readouterr()
        return f"{out}\n{err}\n{caplog.text}"

    return text


def digest_of(manifest):
    return f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"


@pytest.fixture
def push(emulator):
    """Push a container image to the registry; returns its digest."""
    ecr = emulator.client("ecr")
    ecr.create_repository(repositoryName="team/churn")

    def push(content, tag="latest", media_type="application/vnd.docker.distribution.manifest.v2+json", **members):
        manifest = json.dumps({"schemaVersion": 2, "mediaType": media_type, "content": content, **members})
        # Otherwise, moto chooses one of a hundred at random.
        own = {"imageManifest": manifest, "imageManifestMediaType": media_type, "imageDigest": digest_of(manifest)}
        answer = ecr.put_image(repositoryName="team/churn", imageTag=tag, **own)
        return answer["image"]["imageId"]["imageDigest"]

    return push


@pytest.fixture
def image(emulator, connection, push):
    emulator.creation_seconds = 0
    emulator.client("sagemaker").create_image(ImageName=IMAGE, RoleArn=ROLE)
    push("first")
    return emulator


def create(run_id="run-1", **arguments):
    given = {"task_id": "create", "image_name": IMAGE, "base_image": BASE, "only_if_changed": True}
    return SageMakerCreateImageVersionOperator(**{**given, "check_interval": 0.05, "timeout": 20, **arguments})


@pytest.fixture
def next_run(context):
    """Go on in the next run of the DAG, which has a state of its own."""

    def start(run_id):
        context["ti"].run_id = run_id
        context["task_state_store"].clear()

    return start


def numbers(emulator):
    listed = emulator.client("sagemaker").list_image_versions(ImageName=IMAGE, MaxResults=100)["ImageVersions"]
    return sorted(version["Version"] for version in listed)


def test_the_same_container_image_is_registered_once(image, run, push, next_run, said):
    first = run(create())
    next_run("run-2")
    second = run(create())
    assert second == first
    assert numbers(image) == [1]
    assert f"version 1 already has the container image of {BASE}; no version was created" in said()
    push("second")
    next_run("run-3")
    assert run(create())["Version"] == 2
    next_run("run-4")
    assert run(create())["Version"] == 2
    assert numbers(image) == [1, 2]


def test_an_unchanged_one_can_skip_the_task(image, run, next_run):
    run(create(if_unchanged="skip"))
    next_run("run-2")
    with pytest.raises(AirflowSkipException, match=r"1 already has the container image of .* if_unchanged is 'skip'"):
        run(create(if_unchanged="skip"))
    assert numbers(image) == [1]


def test_a_retry_continues_although_another_run_came_between(image, run, push, context, monkeypatch):
    """Before Airflow 3.3, the runs of a task share what it stores."""
    monkeypatch.setattr(operators.versions, "_RUNS_REMEMBERED", 4)
    context["ti"].run_id = "run-1"
    image.add_fault("access_denied", operation="DescribeImageVersion")
    with pytest.raises(ClientError, match="not authorized"):
        run(create(if_unchanged="skip"))
    push("second")
    context["ti"].run_id = "run-2"
    assert run(create(if_unchanged="skip"))["Version"] == 2
    context["ti"].run_id = "run-1"
    context["ti"].try_number = 2
    assert run(create(if_unchanged="skip"))["Version"] == 1
    for number in range(3, 7):
        context["ti"].run_id = f"run-{number}"
        push(f"content-{number}")
        run(create(wait_for_completion=False))
    (stored,) = context["task_state_store"].values()
    assert [run_id for run_id, *_ in stored] == ["run-3", "run-4", "run-5", "run-6"]


def test_if_unchanged_that_renders_to_skip_needs_only_if_changed(image, run):
    task = create(only_if_changed=False, if_unchanged="{{ params.choice }}")
    task.render_template_fields({"params": {"choice": "skip"}})
    with pytest.raises(ValueError, match="if_unchanged='skip' has no effect with only_if_changed=False"):
        run(task)
    assert numbers(image) == []
    task = create(only_if_changed="{{ params.x }}", if_unchanged="skip")
    task.render_template_fields({"params": {"x": False}})
    assert run(task)["Version"] == 1


def test_the_first_version_is_created(image, run):
    assert run(create())["Version"] == 1


def test_a_container_image_that_was_there_before_is_new_again(image, run, push, next_run):
    run(create())
    push("second")
    next_run("run-2")
    run(create())
    push("first")
    next_run("run-3")
    assert run(create())["Version"] == 3


def test_another_tag_of_the_same_container_image_changes_nothing(image, run, push, next_run):
    run(create())
    push("first", tag="v1")
    next_run("run-2")
    assert run(create(base_image=BASE.replace("latest", "v1")))["Version"] == 1


def test_a_digest_takes_no_call_of_ecr(image, run, next_run, connection):
    digest = run(create())["ContainerImage"].rpartition("@")[2]
    next_run("run-2")
    connection(service_config={"ecr": {"endpoint_url": "http://127.0.0.1:1"}})
    base = f"{REGISTRY}/team/churn@{digest}"
    assert run(create(base_image=base))["Version"] == 1
    assert run(create(base_image=f"{base[:-4]}0000"))["Version"] == 2


def test_a_multi_architecture_tag_matches_the_digest_that_sagemaker_chose(image, run, push, next_run):
    """Whether SageMaker keeps the digest of the list or of the platform's image is not known, so both count."""
    platforms = [digest_of("amd64"), digest_of("arm64")]
    manifests = [{"digest": digest, "size": 1, "platform": {"os": "linux"}} for digest in platforms]
    listed = push("list", tag="multi", media_type=LIST, manifests=manifests)
    base = f"{REGISTRY}/team/churn:multi"
    assert SageMakerImageVersionsHook().find_container_digests(base) == {listed, *platforms}
    run(create(base_image=f"{REGISTRY}/team/churn@{platforms[0]}", only_if_changed=False))
    next_run("run-2")
    assert run(create(base_image=base))["Version"] == 1


def test_a_version_that_is_creating_is_waited_for(image, run, push, next_run, said):
    image.creation_seconds = 3600
    image.client("sagemaker").create_image_version(ImageName=IMAGE, BaseImage=BASE, ClientToken="theirs")

    def complete():
        wait_until(lambda: any(call["status"] for call in image.calls("DescribeImageVersion")))
        image.creation_seconds = 0

    with ThreadPoolExecutor(1) as pool:
        completed = pool.submit(complete)
        assert run(create())["Version"] == 1
        completed.result()
    assert "version 1 is CREATING and may have the same container image" in said()
    assert numbers(image) == [1]


def test_a_version_that_failed_does_not_count(image, run, next_run):
    run(create())
    image.set_version(IMAGE, 1, status="CREATE_FAILED")
    next_run("run-2")
    assert run(create())["Version"] == 2


@pytest.mark.parametrize("if_unchanged", ["return", "skip"])
def test_a_retry_continues_with_what_its_first_try_created(image, run, context, if_unchanged):
    """It must not take its own version for one that was there before."""
    image.add_fault("access_denied", operation="DescribeImageVersion", times=1)
    with pytest.raises(ClientError, match="not authorized"):
        run(create(if_unchanged=if_unchanged))
    assert numbers(image) == [1]
    context["ti"].try_number = 2
    assert run(create(if_unchanged=if_unchanged))["Version"] == 1
    assert numbers(image) == [1]


def test_what_is_not_applied_is_in_the_log(image, run, next_run, said):
    run(create(release_notes="first"))
    next_run("run-2")
    result = run(create(release_notes="second", aliases=["1.0"], vendor_guidance="STABLE"))
    assert (result["ReleaseNotes"], result["Aliases"]) == ("first", [])
    assert (
        "not applied to version 1, because it was not created by this task: VendorGuidance, ReleaseNotes, alias '1.0'"
    ) in said()


@pytest.mark.parametrize("base", [f"{REGISTRY}/team/churn:nowhere", f"{REGISTRY}/team/nothing:latest"])
def test_a_container_image_that_does_not_exist_is_an_error(image, run, base):
    with pytest.raises(SageMakerImageOperationError, match="Amazon ECR has no container image base_image="):
        run(create(base_image=base))
    assert numbers(image) == []


@pytest.mark.parametrize(
    "base", ["nginx:latest", "public.ecr.aws/team/churn:1", "123.dkr.ecr.us-east-1.amazonaws.com/a"]
)
def test_a_path_that_is_not_of_ecr_is_refused_when_the_dag_is_parsed(base):
    with pytest.raises(ValueError, match=r"^base_image=.*needs a registry path in Amazon ECR"):
        create(base_image=base)


@pytest.mark.parametrize(("name", "value"), [("only_if_changed", "maybe"), ("if_unchanged", "fail")])
def test_parameters_are_checked_when_the_dag_is_parsed(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        create(**{name: value})


def test_if_unchanged_needs_only_if_changed(connection):
    with pytest.raises(ValueError, match="if_unchanged='skip' has no effect with only_if_changed=False"):
        create(only_if_changed=False, if_unchanged="skip")
    assert create(only_if_changed="{{ params.only }}", if_unchanged="skip")


def test_consumers_of_the_asset_do_not_start_for_nothing(connection):
    pytest.importorskip("airflow.sdk", reason="Airflow 2 has no asset watchers")
    from airflow_provider_imageversions.assets import image_version_asset

    outlets = [image_version_asset(IMAGE)]
    with pytest.raises(ValueError, match=r"can't be combined with the image's asset among the outlets.*'skip'"):
        create(outlets=outlets)
    create(outlets=outlets, if_unchanged="skip")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (BASE, ("123456789012", "us-east-1", "team/churn", "latest", None)),
        (f"{REGISTRY}/churn", ("123456789012", "us-east-1", "churn", "latest", None)),
        (f"{REGISTRY}.cn/a/b/c:1.0", ("123456789012", "us-east-1", "a/b/c", "1.0", None)),
        (f"{REGISTRY}/churn:1@sha256:{'a' * 64}", ("123456789012", "us-east-1", "churn", "1", f"sha256:{'a' * 64}")),
    ],
)
def test_registry_paths_are_read(path, expected):
    from airflow_provider_imageversions._parameters import parse_ecr_image

    assert tuple(parse_ecr_image("base_image", path)) == expected


def test_ecr_is_called_where_the_path_says(image, run, emulator):
    """Another account and region than the image's: there is no such repository in moto's."""
    with pytest.raises(SageMakerImageOperationError, match="Amazon ECR has no container image"):
        run(create(base_image=BASE.replace("us-east-1", "eu-west-1")))


# --- the credentials for Amazon ECR ----------------------------------------------------------------------


def test_a_missing_connection_is_not_replaced_with_ambient_credentials(image, run, monkeypatch):
    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.1))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "ambient")
    monkeypatch.setenv("AWS_ENDPOINT_URL", image.endpoint_url)
    with pytest.raises(MissingConnectionError, match="'nope'"):
        run(create(aws_conn_id="nope", region_name="us-east-1"))
    with pytest.raises(MissingConnectionError, match="'nope'"):
        SageMakerImageVersionsHook("nope", "us-east-1").find_container_digests(BASE)


def test_errors_of_the_credential_chain_are_classified(image, connection, monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text("[default]\ncredential_process = /no/such/program\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(CredentialsError, match="boto3's default credential chain: FileNotFoundError"):
        SageMakerImageVersionsHook(None, "us-east-1").find_container_digests(BASE)


# --- what is not an answer of Amazon ECR -----------------------------------------------------------------


LISTED = json.dumps({"imageDetails": [{"imageDigest": "sha256:0", "imageManifestMediaType": LIST}]}).encode()


@pytest.mark.parametrize(
    "answers",
    [
        {"DescribeImages": b"<html>"},
        {"DescribeImages": b"{}"},
        {"DescribeImages": b'{"imageDetails": []}'},
        {"DescribeImages": b'{"imageDetails": [{}]}'},
        {"DescribeImages": LISTED, "BatchGetImage": b'{"images": []}'},
        {"DescribeImages": LISTED, "BatchGetImage": b'{"images": [{"imageManifest": "<html>"}]}'},
        {"DescribeImages": LISTED, "BatchGetImage": b'{"images": [{"imageManifest": "{}"}]}'},
    ],
)
def test_a_broken_response_of_ecr_is_not_a_bug(connection, serve, answers):
    address = serve(lambda headers: answers[headers["X-Amz-Target"].rpartition(".")[2]])
    connection(service_config={"ecr": {"endpoint_url": f"http://{address}"}})
    with pytest.raises(ResponseParserError, match="Amazon ECR's response is broken") as caught:
        SageMakerImageVersionsHook().find_container_digests(BASE)
    assert classify_error(caught.value) is ErrorKind.TRANSIENT
