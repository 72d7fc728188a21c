"""What a person sees on Airflow's page, in a browser; ``make screenshots`` keeps it for the documentation."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import expect, sync_playwright

from dev import browser
from tests.e2e import test_rollout as rollout
from tests.e2e.conftest import CREATION_SECONDS
from tests.e2e.test_lifecycle import until
from tests.e2e.test_watching import IMAGE, RETRAIN, assets, events, eventually, has_baseline, let_start, trained
from tests.studio import custom_image

pytestmark = pytest.mark.e2e

LIST, WAIT = "example_list_image_versions", "example_wait_for_image_version"
LISTED, AWAITED, FAILING = "inference-image", "training-image", "failing-image"
REASON = "ClientError: The image [my-training:latest] is not in the registry, or SageMaker may not read it."
WIDTH, HEIGHT = 1280, 800
# A busy machine's, until a page of several megabytes of JavaScript shows what it asked Airflow for.
PATIENCE = 60_000


@pytest.fixture(scope="module")
def window(airflow):
    """A browser at Airflow's page, which keeps what it loaded from test to test, but no settings of the page."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright, browser.launch(playwright) as chromium:
        context = chromium.new_context(
            base_url=airflow.url, color_scheme="light", reduced_motion="reduce", locale="en-US", timezone_id="UTC"
        )
        context.set_default_timeout(PATIENCE)
        context.add_init_script("localStorage.clear()")
        yield context


@pytest.fixture
def page(window):
    with window.new_page() as opened:
        opened.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        yield opened


@pytest.fixture
def shoot(page):
    """Keep what the page shows, perhaps only down to a height, if asked to."""

    def to_file(name, height=None):
        if folder := os.environ.get("SCREENSHOTS"):
            page.mouse.move(WIDTH / 2, 1)  # nothing is lit up
            page.screenshot(
                path=Path(folder) / f"{name}.png",
                clip={"x": 0, "y": 0, **page.viewport_size, **({"height": height} if height else {})},
                animations="disabled",
            )

    return to_file


@pytest.fixture(scope="module")
def runs(airflow, service):
    """A wait that lasts, one for a version that failed and a list, by image; and new versions of a watched image."""
    service.create_versions(IMAGE, 3)
    service.create_versions(LISTED, 3)
    for dag_id in (WAIT, LIST):
        airflow.wait_for_dag(dag_id)
    let_start(airflow, RETRAIN)
    service.creation_seconds = 3600
    try:
        # Paused, as no task may start meanwhile: on SQLite a call that writes can block the API server then, which
        # waits in its event loop for the lock that the start of a task holds in a thread.
        airflow.pause(WAIT)
        started = {
            image: airflow.api(
                "POST", f"/api/v2/dags/{WAIT}/dagRuns", {"conf": {"image_name": image}, "logical_date": None}
            )["dag_run_id"]
            for image in (AWAITED, FAILING)
        }
        airflow.unpause(WAIT)
        until(
            airflow,
            lambda: all(airflow.task_states(WAIT, run_id).get("wait") == "deferred" for run_id in started.values()),
        )
        service.set_version(AWAITED, 1, status="CREATING")  # and stays so
    finally:
        service.creation_seconds = CREATION_SECONDS
    started[LISTED] = airflow.trigger(LIST, conf={"image_name": LISTED})
    service.set_version(FAILING, 1, status="CREATE_FAILED", failure_reason=REASON)
    eventually(airflow, lambda: has_baseline(service, IMAGE), 60, "the watcher polls")
    service.create_versions(IMAGE, 2)
    yield started
    service.set_version(AWAITED, 1, status="CREATED")


def instance(dag_id, run_id, task_id, tab=""):
    """The address of a task instance."""
    return f"/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task_id}{tab}"


def widen(page, left):
    """Move the border between two panes."""
    box = page.locator("[data-panel-resize-handle-id]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, HEIGHT - 100)
    page.mouse.down()
    page.mouse.move(left, HEIGHT - 100, steps=5)
    page.mouse.up()


def key_in(editor, name):
    """A key of the JSON in one of the page's editors, in a colour of its own, which comes a moment after the text."""
    return editor.get_by_text(f'"{name}"', exact=True)


def unfold(editor, name):
    """Unfold a key of the JSON, and repeat that if the page has rendered its list again meanwhile."""
    for _ in range(20):
        if key_in(editor, name).is_visible():
            break
        editor.locator(".codicon-folding-collapsed").first.click()
        with suppress(AssertionError):
            expect(key_in(editor, name)).to_be_visible(timeout=3_000)
    expect(key_in(editor, name)).to_be_visible()


def value_in(editor):
    """The JSON in one of the page's editors, which has only those lines that are in sight."""
    lines = {}
    for key, edge in (("End", r"^[\]}]$"), ("Home", r"^[\[{]$")):
        editor.get_by_role("textbox").press(f"Control+{key}")
        expect(editor.locator(".view-line", has_text=re.compile(edge))).to_be_visible()
        lines |= editor.locator(".view-line").evaluate_all(
            "lines => Object.fromEntries(lines.map(line => [parseFloat(line.style.top), line.textContent]))"
        )
    wrapped = (lines[top].lstrip("\xa0") for top in sorted(lines, key=float))
    return json.loads("".join(wrapped).replace("\xa0", " "))


def test_the_graph_shows_a_deferred_sensor(page, airflow, runs, shoot):
    page.set_viewport_size({"width": WIDTH, "height": 570})
    page.goto(f"/dags/{WAIT}/runs/{quote(runs[AWAITED])}")
    page.get_by_role("button", name="Show Graph").click()
    for task, state in {"create_image": "success", "create": "success", "wait": "deferred"}.items():
        node = page.get_by_test_id(f"rf__node-{task}")
        expect(node.get_by_test_id("state-badge")).to_have_text(state)
    page.get_by_test_id("rf__node-wait").hover(trial=True)  # it has come to rest
    shoot("graph-deferred")


def test_the_page_of_a_waiting_task_has_a_button_to_the_image_in_the_aws_console(page, airflow, runs, shoot):
    page.set_viewport_size({"width": WIDTH, "height": 900})
    page.goto(instance(WAIT, runs[AWAITED], "wait", "/details"))
    expect(page.get_by_role("link", name="Amazon SageMaker Image", exact=True)).to_have_attribute(
        "href", f"https://console.aws.amazon.com/sagemaker/home?region=us-east-1#/images/{AWAITED}"
    )
    shoot("console-button", 418)  # what is below names the triggerer's host


def test_the_page_of_a_failed_sensor_shows_sagemaker_s_reason(page, airflow, runs):
    assert airflow.wait_for_run(WAIT, runs[FAILING], 60) == "failed"
    # The page of a task that has ended does not read the log again.
    eventually(airflow, lambda: REASON in airflow.task_log(WAIT, runs[FAILING], "wait"), 60, "the log is complete")
    page.goto(instance(WAIT, runs[FAILING], "wait"))
    expect(page.get_by_test_id("state-badge").filter(has_text="Failed")).to_be_visible()
    expect(
        page.get_by_text(
            f"ImageVersionFailedError: SageMaker image '{FAILING}': version 1 is CREATE_FAILED: {REASON}"
        ).first
    ).to_be_visible()


def test_the_xcom_page_shows_the_listed_versions(page, airflow, service, runs, shoot):
    assert airflow.wait_for_run(LIST, runs[LISTED], 60) == "success"
    page.goto(instance(LIST, runs[LISTED], "newest", "/xcom"))
    page.get_by_role("button", name="Expand all extra JSON").click()
    value = page.locator("tr", has_text="return_value").locator(".monaco-editor")
    expect(key_in(value, "Version").first).to_be_visible()
    widen(page, 220)
    shoot("xcom")
    shown = value_in(value)
    client = service.client("sagemaker")
    described = [client.describe_image_version(ImageName=LISTED, Version=number) for number in (3, 2, 1)]
    assert [(record["Version"], record["ContainerImage"]) for record in shown] == [
        (version["Version"], version["ContainerImage"]) for version in described
    ]
    assert {record["ImageVersionStatus"] for record in shown} == {"CREATED"}


def test_the_asset_s_page_shows_its_events_with_their_payload(page, airflow, runs, shoot):
    def newest():
        return events(airflow, IMAGE)[:-3:-1]

    # The API that the page calls fails while a run is being made of an event.
    eventually(
        airflow, lambda: {event["event_id"] for event in newest()} <= set(trained(airflow)), 90, "all are trained with"
    )
    (asset,) = assets(airflow, f"sagemaker-image://default/{IMAGE}")
    page.set_viewport_size({"width": WIDTH, "height": 816})
    page.goto(f"/assets/{asset['id']}")
    delivered = page.get_by_test_id("card-list").locator("section")
    for editor in (delivered.nth(1), delivered.nth(0)):
        for key in ("payload", "BaseImage"):
            unfold(editor, key)
    widen(page, 500)
    page.get_by_role("button", name="Fit View").click()
    page.locator(".react-flow__node").last.hover(trial=True)  # it has come to rest
    shoot("asset-events")
    assert [value_in(delivered.nth(index))["payload"] for index in (0, 1)] == newest()


def test_the_grid_has_a_run_for_each_version_and_names_it_after_the_version(page, airflow, runs, shoot):
    eventually(airflow, lambda: len(trained(airflow)) > 1, 120, "two versions are trained with")
    named = {run["dag_run_id"]: run["conf"]["Version"] for run in airflow.runs(RETRAIN)[-2:]}
    page.set_viewport_size({"width": WIDTH, "height": 520})
    page.goto(f"/dags/{RETRAIN}/runs")
    for run_id, version in named.items():
        assert run_id.startswith(f"version-{version}-")
        expect(page.get_by_text(run_id, exact=True).first).to_be_visible()
    shoot("grid-retrain")


@rollout.needs_approvals
def test_a_person_sees_the_comparison_of_two_versions_and_answers(page, airflow, studio, push, shoot):
    push("for the page")
    run_id = rollout.start(airflow, studio)
    rollout.wait_for_question(airflow, run_id)
    version = airflow.xcom(rollout.DAG, run_id, "create")["Version"]
    page.set_viewport_size({"width": 1600, "height": 700})  # the table is wide
    page.goto(instance(rollout.DAG, run_id, "approve", "/required_actions"))
    expect(page.get_by_text(f"Roll out version {version} of {rollout.IMAGE}?").first).to_be_visible()
    expect(page.get_by_role("columnheader", name=f"version {version}", exact=True)).to_be_visible()
    shoot("approval")
    page.get_by_role("button", name="Approve").click()
    assert airflow.wait_for_run(rollout.DAG, run_id, 180) == "success", airflow.diagnosis(rollout.DAG, run_id)
    assert rollout.images(studio)[0] == custom_image(rollout.IMAGE, version, rollout.IMAGE)
    page.set_viewport_size({"width": WIDTH, "height": 570})
    page.goto(f"/dags/{rollout.DAG}/runs/{quote(run_id)}")
    for task in ("create", "approve", "rollout", "prune"):
        expect(page.get_by_role("link", name=task, exact=True).first).to_be_visible()
    shoot("grid-rollout")
