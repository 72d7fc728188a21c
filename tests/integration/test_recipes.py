"""The recipes of the guides do what the guides say."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

pytest.importorskip("airflow.sdk", reason="the recipes' files are for Airflow 3")

from airflow.sdk import DAG

from tests.studio import Store, Studio, custom_image

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets" / "dags"
IMAGE, CONFIG = "my-image", "my-config"


def dags(name, **replacements):
    """The DAGs of a file, with some of its texts replaced, by their ids."""
    text = (SNIPPETS / f"{name}.py").read_text()
    for old, new in replacements.items():
        assert old.replace("_", "-") in text
        text = text.replace(old.replace("_", "-"), new)
    names = {"__name__": name}
    exec(compile(text, str(SNIPPETS / f"{name}.py"), "exec"), names)  # noqa: S102  # ours
    return {each.dag_id: each for each in names.values() if isinstance(each, DAG)}, names


@pytest.fixture
def context(context):
    context["task_state_store"] = Store()
    return context


def domain_in(emulator, region):
    """A domain in a region where version 2 of two has the alias prod."""
    account = Studio(emulator.client("sagemaker", region_name=region))
    account.image(IMAGE, 2, aliases={2: ["prod"]})
    account.config(CONFIG)
    account.client.domain_id = account.domain(JupyterLabAppSettings={"CustomImages": [custom_image(IMAGE, 1, CONFIG)]})
    return account


def attached(account):
    return account.user_settings(account.client.domain_id)["JupyterLabAppSettings"]["CustomImages"]


@pytest.fixture
def studio(emulator):
    emulator.creation_seconds = 0
    return emulator


def test_one_task_rolls_out_to_each_account_and_region(studio, context, monkeypatch):
    for team in ("TEAM_A", "TEAM_B"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{team}", studio.airflow_connection())
    first, second = domain_in(studio, "eu-west-1"), domain_in(studio, "us-east-1")
    _, names = dags("rollout", d_abcdefghijkl=first.client.domain_id, d_mnopqrstuvwx=second.client.domain_id)
    for domain in names["DOMAINS"]:
        names["rollout_everywhere"].unmap(domain).execute(context)
    assert attached(first) == attached(second) == [custom_image(IMAGE, 2, CONFIG)]


def test_the_newest_version_is_pinned_into_the_run(studio, connection, context):
    account = domain_in(studio, "us-east-1")
    _, names = dags("rollout", d_abcdefghijkl=account.client.domain_id)
    rollout = names["pin"]
    newest = names["newest"].execute(context)
    context["ti"].xcom_pull = lambda task_id: {"newest": newest}[task_id]
    rollout.render_template_fields(context)
    account.client.create_image_version(ImageName=IMAGE, BaseImage="later", ClientToken="later")
    assert rollout.execute(context)["current"]["version"] == newest["Version"] == 2


def test_who_subscribes_is_notified_of_a_failed_version(studio, connection, context):
    sqs, sns = studio.client("sqs"), studio.client("sns")
    queue = sqs.create_queue(QueueName="notified")["QueueUrl"]
    topic = sns.create_topic(Name="image-versions")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:notified")
    found, _ = dags("recipes")
    publish = found["notify_of_failed_version"].task_dict["publish"]
    conf = {"Version": 3, "image_name": "churn-model", "FailureReason": "no space left"}
    publish.render_template_fields({**context, "dag_run": type("Run", (), {"conf": conf})})
    publish.execute(context)
    (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    body = json.loads(message["Body"])
    assert (body["Subject"], body["Message"]) == ("Version 3 of churn-model failed", "no space left")


def test_versions_of_several_images_with_one_number_have_a_run_each():
    found, names = dags("recipes")
    images = [image.uri.rpartition("/")[2] for image in names["images"]]
    payloads = [{"image_name": image, "Version": 1, "event_id": "3f2a9c01" * 4} for image in images]
    assert [names["name_run"](each) for each in payloads] == ["churn-model-1-3f2a9c01", "fraud-model-1-3f2a9c01"]
    condition = found["retrain_several__image_versions"].timetable.asset_condition
    assert list(condition.objects) == names["images"]


def test_the_life_cycle_guide_creates_promotes_and_prunes(studio, connection, run):
    (dag,) = dags("lifecycle")[0].values()
    client, results = studio.client("sagemaker"), {}
    ti = run.context["ti"]
    ti.xcom_pull = lambda task_ids: results[task_ids]
    for number in (1, 11, 12):
        ti.run_id = f"manual-{number}"
        for name in ("create_image", "create", "promote", "prune"):
            task = copy.copy(dag.task_dict[name])
            ti.task_id = name
            task.render_template_fields({**run.context, "params": dag.params.dump()})
            results[name] = run(task)
        if number == 1:
            studio.create_versions("churn-model", 9)
    assert client.describe_image_version(ImageName="churn-model", Alias="prod")["Version"] == 12
    assert results["prune"]["deleted"] == [2]
    assert results["prune"]["kept"]["newest"] == list(range(3, 13))
