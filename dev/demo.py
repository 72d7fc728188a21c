"""
The main features in a real Airflow, with a live timeline: ``make demo``, ``make demo KEEP=1``.

Everything runs on this machine: SageMaker is the package's own emulator, Airflow is a private one
(:mod:`dev.local_airflow`), the DAGs are those of ``example_dags``. Exit status 0: every run succeeded.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import quote

from botocore.config import Config

from airflow_provider_imageversions.emulator import Emulator
from dev.airflow_2 import Airflow2
from dev.local_airflow import ApiError, LocalAirflow, LocalAirflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLE_DAGS = Path(__file__).resolve().parent.parent / "example_dags"
IMAGE_NAME = "demo-image"
ROLLOUT = "example_rollout_with_approval"
STUDIO_IMAGE = "churn-studio"
ROLE_ARN = "arn:aws:iam::123456789012:role/demo"
CREATION_SECONDS = 8
RUN_TIMEOUT = 300
QUIET_SECONDS = 5
"""Seconds without news after which a line says what the demo is waiting for."""
VALUE_WIDTH = 150
LOG_TAIL = 40
WATCHER = "demo-watcher"
COLOURS = {"demo": "1", "airflow": "36", "task": "34", "version": "35", "xcom": "32", "failed": "31"}
IS_AIRFLOW_2 = importlib.util.find_spec("airflow.sdk") is None
# Tasks that wait for a person came with Airflow 3.1.
CAN_APPROVE = not IS_AIRFLOW_2 and importlib.util.find_spec("airflow.sdk.execution_time.hitl") is not None
WAITS_FOR_A_PERSON = frozenset({"awaiting_input", "deferred"})
UNDER_WAY = frozenset(
    {"scheduled", "queued", "running", "deferred", "awaiting_input", "up_for_reschedule", "up_for_retry"}
)
APPROVED_AFTER = 5.0
"""Seconds before the demo responds: Airflow takes a task that resumes before its worker has ended for killed."""


class Demo(NamedTuple):
    """A DAG to show."""

    dag_id: str
    what: str
    base_images: tuple[str, ...] = ()
    """If set, the DAG is not triggered: versions of these base images are registered at once, while nothing runs."""
    leads_to: str | None = None
    """A DAG that a task of this one starts by changing the image; shown next."""
    conf: tuple[str, ...] = ()
    """The ``conf`` of a run, from the values of the Studio domain and earlier runs in :attr:`Run.shared`."""
    approves: str | None = None
    """A task that waits for a person; the demo responds instead."""


DEMOS = (
    Demo("example_list_image_versions", "list the versions of an image"),
    Demo("example_wait_for_image_version", "register a version, wait until it is CREATED, train with it"),
    Demo(
        "example_retrain_on_new_image_version",
        "each new version starts a run by itself",
        ("team/model:2026-04", "team/model:2026-05", "team/model:2026-06"),
    ),
    Demo(
        "example_image_lifecycle",
        "create, train, evaluate, promote, retire",
        leads_to="example_deploy_on_promotion",
    ),
    Demo("example_deploy_on_promotion", "deploys by itself what was promoted"),
    Demo(
        ROLLOUT,
        "create if something changed, train, approve, promote, roll out to Studio, prune",
        conf=("domain_id",),
        approves="approve",
    ),
    Demo("example_roll_back", "puts back what Studio had before", conf=("domain_id", "previous")),
)
# Base images of the versions that exist before the first DAG runs. The emulator cannot find the second one, so that
# version becomes CREATE_FAILED.
SEEDS = ("team/model:2026-01", "team/model:does-not-exist", "team/model:2026-03")


class Timeline:
    """Lines of text, each with the seconds since the start; in colour on a terminal."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def add(self, kind: str, text: str) -> None:
        """Print one line."""
        self.last = time.monotonic()
        label = f"{kind:<8}"
        if self.colour:
            label = f"\x1b[{COLOURS[kind]}m{label}\x1b[0m"
        print(f"{self.last - self.started:6.1f} s  {label} {text}", flush=True)

    def is_quiet(self) -> bool:
        """Return whether no line was printed for a while."""
        return time.monotonic() - self.last >= QUIET_SECONDS


class Versions:
    """The image versions of the emulator's API, and Airflow's API calls."""

    def __init__(self, emulator: Emulator, timeline: Timeline) -> None:
        self._emulator = emulator
        # Marked, so that calls of the demo itself are not counted as Airflow's.
        self._client = emulator.client("sagemaker", config=Config(user_agent_extra=WATCHER))
        self._timeline = timeline
        self._known: dict[tuple[str, int], str] = {}

    def seed(self) -> None:
        """Create the image with some versions."""
        self._client.create_image(ImageName=IMAGE_NAME, RoleArn=ROLE_ARN)
        for base_image in SEEDS:
            self.register(base_image)

    def register(self, base_image: str) -> None:
        """Register a version of the image."""
        self._client.create_image_version(ImageName=IMAGE_NAME, BaseImage=base_image)

    def look(self) -> None:
        """Report each version whose status changed since the last call."""
        for image in self._client.list_images(MaxResults=100)["Images"]:
            name = image["ImageName"]
            found = self._client.list_image_versions(ImageName=name, SortBy="VERSION", SortOrder="ASCENDING")
            for version in found["ImageVersions"]:
                key = (name, version["Version"])
                before, now = self._known.get(key), version["ImageVersionStatus"]
                if before != now:
                    self._known[key] = now
                    change = f"{before} -> {now}" if before else f"is {now}"
                    reason = f": {version['FailureReason']}" if "FailureReason" in version else ""
                    self._timeline.add("version", f"{name} version {key[1]} {change}{reason}")

    def prepare_studio(self) -> str:
        """Attach the first version of an image to a new Studio domain, and return the domain's id."""
        client = self._client
        client.create_image(ImageName=STUDIO_IMAGE, RoleArn=ROLE_ARN)
        client.create_image_version(ImageName=STUDIO_IMAGE, BaseImage="team/churn:1", ClientToken="1", Aliases=["prod"])
        client.create_app_image_config(AppImageConfigName=STUDIO_IMAGE, JupyterLabAppImageConfig={})
        self._emulator.client("ecr").create_repository(repositoryName=STUDIO_IMAGE)
        self.push("first")
        entry = {"ImageName": STUDIO_IMAGE, "ImageVersionNumber": 1, "AppImageConfigName": STUDIO_IMAGE}
        settings = {"ExecutionRole": ROLE_ARN, "JupyterLabAppSettings": {"CustomImages": [entry]}}
        domain_id: str = client.create_domain(
            DomainName="demo", AuthMode="IAM", DefaultUserSettings=settings, SubnetIds=["subnet-1"], VpcId="vpc-1"
        )["DomainId"]
        return domain_id

    def push(self, content: str) -> None:
        """Push a container image for Studio to Amazon ECR, with the tag "latest"."""
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "content": content})
        self._emulator.client("ecr").put_image(
            repositoryName=STUDIO_IMAGE,
            imageManifest=manifest,
            imageManifestMediaType=kind,
            imageTag="latest",
            imageDigest=f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}",
        )

    def airflow_calls(self) -> Counter[str]:
        """Count the calls of SageMaker's API by operation, except for those of the demo."""
        calls = self._emulator.calls()
        return Counter(call["operation"] for call in calls if WATCHER not in call["user_agent"])


class Run:
    """A demonstration: the runs of one DAG, followed until they end."""

    def __init__(
        self, demo: Demo, airflow: LocalAirflow, versions: Versions, timeline: Timeline, shared: dict[str, Any]
    ) -> None:
        self.demo = demo
        self.shared = shared
        self.state = "not started"
        self.facts: list[str] = []
        self._airflow = airflow
        self._versions = versions
        self._timeline = timeline
        self._run_id = ""
        self._tasks: dict[str, str] = {}
        self._asked_at: float | None = None

    def follow(self) -> bool:
        """Start the DAG, report what happens until its runs end, and return whether they succeeded."""
        timeline, dag_id = self._timeline, self.demo.dag_id
        timeline.add("demo", f"{dag_id}: {self.demo.what}")
        self._airflow.wait_for_dag(dag_id)
        if self.demo.leads_to:
            self._let_watch(self.demo.leads_to, "DescribeImageVersion")
        if any(demo.leads_to == dag_id for demo in DEMOS):
            run_ids = self._started_by_themselves(1, "the promotion starts a run")
        elif self.demo.base_images:
            run_ids = self._started_by_versions()
        else:
            run_ids = [self.start()]
        states = [self._follow_run(run_id) for run_id in run_ids]
        self.state = "success" if set(states) == {"success"} else "failed"
        return self.state == "success"

    def start(self) -> str:
        """Start a run of the DAG, and return its id."""
        return self._airflow.trigger(self.demo.dag_id, conf={name: self.shared[name] for name in self.demo.conf})

    def _follow_run(self, run_id: str) -> str:
        timeline, dag_id = self._timeline, self.demo.dag_id
        self._run_id, self._tasks = run_id, {}
        state = self._airflow.wait_for_run(
            dag_id, run_id, RUN_TIMEOUT, on_change=self._task_changed, on_poll=self._polled
        )
        timeline.add("demo" if state == "success" else "failed", f"{dag_id}: {state}, run {run_id}")
        if state != "success":
            self._explain()
        return state

    def _let_watch(self, dag_id: str, operation: str) -> None:
        for each in (dag_id, f"{dag_id}__image_versions"):
            self._airflow.wait_for_dag(each)
            self._airflow.unpause(each)
        before = self._versions.airflow_calls()[operation]
        self._await(lambda: self._versions.airflow_calls()[operation] > before, f"the triggerer watches for {dag_id}")

    def _started_by_versions(self) -> list[str]:
        self._let_watch(self.demo.dag_id, "ListImageVersions")
        count = len(self.demo.base_images)
        self._timeline.add("demo", f"registering {count} versions at once; no task is running")
        for base_image in self.demo.base_images:
            self._versions.register(base_image)
        return self._started_by_themselves(count, f"each of the {count} versions starts a run")

    def _started_by_themselves(self, count: int, what: str) -> list[str]:
        dag_id = self.demo.dag_id
        self._await(lambda: len(self._airflow.runs(dag_id)) >= count, what)
        run_ids = [run["dag_run_id"] for run in self._airflow.runs(dag_id)]
        for run_id in run_ids:
            self._timeline.add("demo", f"{dag_id}: a run has started, {run_id}")
        self.facts.append(f"started by themselves: {', '.join(run_ids)}")
        return run_ids

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + RUN_TIMEOUT
        while not condition():
            self._airflow.raise_if_dead()
            self._versions.look()
            if self._timeline.is_quiet():
                self._timeline.add("demo", f"... until {what}")
            if time.monotonic() > deadline:
                raise LocalAirflowError(f"{self.demo.dag_id}: not so within {RUN_TIMEOUT} s: {what}")
            time.sleep(0.3)

    def _task_changed(self, task: str, before: str | None, now: str) -> None:
        self._tasks[task] = now
        if before is not None or now != "none":
            self._timeline.add("failed" if now == "failed" else "task", f"{task}: {before or 'none'} -> {now}")
        if now == "success":
            task_id, map_index = _split(task)
            try:
                value = self._airflow.xcom(self.demo.dag_id, self._run_id, task_id, map_index=map_index)
            except ApiError:  # not every task returns something
                return
            self._timeline.add("xcom", f"{task}: {_shorten(value)}")
            if isinstance(value, dict) and "previous" in value:
                self.shared["previous"] = value["previous"]
            self.facts += _facts(task, value, self._duration(task_id, map_index))

    def _polled(self) -> None:
        self._versions.look()
        if self._tasks.get(self.demo.approves or "") in WAITS_FOR_A_PERSON:
            self._approve()
        if self._timeline.is_quiet():
            waiting = [f"{task} is {state}" for task, state in self._tasks.items() if state in UNDER_WAY]
            calls = self._versions.airflow_calls().total()
            self._timeline.add(
                "demo",
                f"... {', '.join(waiting) or 'waiting for the scheduler'}; {calls} SageMaker calls so far",
            )

    def _approve(self) -> None:
        """Respond after a moment, as a person does in Airflow's web page."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at >= APPROVED_AFTER:
            self._asked_at = None
            run = f"/api/v2/dags/{self.demo.dag_id}/dagRuns/{quote(self._run_id)}"
            path = f"{run}/taskInstances/{self.demo.approves}/-1/hitlDetails"
            asked = self._airflow.api("GET", path)
            if asked["response_received"]:
                return  # the task resumes late on a busy machine
            self._timeline.add("demo", f"a person reads: {asked['subject']}")
            print(asked["body"], flush=True)
            self._airflow.api("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})
            self._timeline.add("demo", "and approves")

    def _duration(self, task_id: str, map_index: int) -> float:
        for task in self._airflow.task_instances(self.demo.dag_id, self._run_id):
            if (task["task_id"], task["map_index"]) == (task_id, map_index) and task["end_date"]:
                return (_time(task["end_date"]) - _time(task["start_date"])).total_seconds()
        return 0.0

    def _explain(self) -> None:
        for task, state in self._tasks.items():
            if state == "failed":
                task_id, map_index = _split(task)
                log = self._airflow.task_log(self.demo.dag_id, self._run_id, task_id, map_index=map_index)
                tail = "\n".join(log.splitlines()[-LOG_TAIL:])
                print(f"\nThe end of the log of {self.demo.dag_id}.{task}:\n{tail}\n", flush=True)


def _split(task: str) -> tuple[str, int]:
    name, _, index = task.rstrip("]").partition("[")
    return name, int(index or -1)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= VALUE_WIDTH else f"{text[:VALUE_WIDTH]}... ({len(text)} characters)"


def _facts(task: str, value: Any, seconds: float) -> Iterator[str]:
    """Describe an XCom by its type: versions, one version, a training job, a text."""
    if isinstance(value, list) and value and all(isinstance(v, dict) and "Version" in v for v in value):
        listed = ", ".join(f"version {v['Version']} {v.get('ImageVersionStatus', '')}".strip() for v in value)
        yield f"{task}: listed {listed}"
    elif isinstance(value, str):
        yield f"{task}: {_shorten(value)}"
    elif isinstance(value, dict) and "ImageVersionStatus" in value:
        aliases = f" with the aliases {value['Aliases']}" if value.get("Aliases") else ""
        yield f"{task}: version {value['Version']} is {value['ImageVersionStatus']}{aliases}, after {seconds:.1f} s"
    elif isinstance(value, dict) and "deleted" in value:
        yield f"{task}: deleted {value['deleted'] or 'nothing'}, kept {value['kept']}"
    elif isinstance(value, dict) and "previous" in value:
        before, now = (value[name]["version"] for name in ("previous", "current"))
        yield f"{task}: domain {value['domain_id']} had version {before} of {value['image_name']}, and has {now}"
    elif isinstance(value, dict) and "Model" in value:
        model = value["Model"]
        yield f"{task}: {model['ModelName']} with {model['PrimaryContainer']['Image']}"
    elif isinstance(value, dict) and "Training" in value:
        job = value["Training"]
        yield f"{task}: {job['TrainingJobStatus']} with {job['AlgorithmSpecification'].get('TrainingImage')}"


def _summarise(runs: list[Run], versions: Versions, timeline: Timeline) -> None:
    print("\nSummary")
    for run in runs:
        print(f"  {run.demo.dag_id}: {run.state}")
        for fact in run.facts:
            print(f"    {fact}")
    calls = versions.airflow_calls()
    listed = ", ".join(f"{name} {count}" for name, count in sorted(calls.items()))
    print(f"  SageMaker API calls by Airflow: {calls.total()} ({listed})")
    print(f"  {time.monotonic() - timeline.started:.0f} s in all", flush=True)


def _copy_examples(folder: Path) -> None:
    """Copy the examples that this Airflow can load, according to their docstrings."""
    for path in EXAMPLE_DAGS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if ("For Airflow 3." in text and IS_AIRFLOW_2) or ("Needs Airflow 3.1" in text and not CAN_APPROVE):
            continue
        (folder / path.name).write_text(text, encoding="utf-8")


def _show(timeline: Timeline, *, keep: bool) -> bool:
    with (
        Emulator(port=0, creation_seconds=CREATION_SECONDS) as emulator,
        tempfile.TemporaryDirectory(prefix="demo-dags-") as dags_folder,
    ):
        timeline.add("demo", f"SageMaker emulator at {emulator.endpoint_url}")
        versions = Versions(emulator, timeline)
        versions.seed()
        shared = {"domain_id": versions.prepare_studio()}
        versions.look()
        _copy_examples(Path(dags_folder))

        def progress(text: str) -> None:
            timeline.add("airflow", text)
            versions.look()

        texts = [path.read_text(encoding="utf-8") for path in Path(dags_folder).glob("*.py")]
        left_out = [demo for demo in DEMOS if not any(f'"{demo.dag_id}"' in text for text in texts)]
        with (Airflow2 if IS_AIRFLOW_2 else LocalAirflow)(
            dags_folder,
            env={"AIRFLOW_CONN_AWS_DEFAULT": emulator.airflow_connection()},
            progress=progress,
        ) as airflow:
            timeline.add("airflow", "ready" if IS_AIRFLOW_2 else f"ready at {airflow.url}")
            for demo in left_out:
                timeline.add("demo", f"{demo.dag_id}: left out, as its file needs a newer Airflow")
            runs = [Run(demo, airflow, versions, timeline, shared) for demo in DEMOS if demo not in left_out]
            outcomes = [run.follow() for run in runs]  # the next one after a failure too
            _summarise(runs, versions, timeline)
            if keep and not IS_AIRFLOW_2:
                if CAN_APPROVE:
                    versions.push("second")
                    run_id = next(run for run in runs if run.demo.dag_id == ROLLOUT).start()
                    print(f"\nThe run {run_id} of {ROLLOUT} is going to wait for you to approve.")
                print(f"\nAirflow's web page: {airflow.url} ({airflow.login_hint})")
                print("It stays up until Ctrl-C.", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    while not _output_is_gone():
                        airflow.raise_if_dead()
                        time.sleep(0.5)
            timeline.add("demo", "stopping")
    return all(outcomes)


def _output_is_gone() -> bool:
    """
    Return whether the terminal, or the reader of the output, was closed.

    SIGHUP is not sufficient: the kernel sends it to the session's first process, and make does not forward it to its
    children.
    """
    poller = select.poll()
    poller.register(sys.stdout, 0)  # errors and hang-ups are always reported
    return bool(poller.poll(0))


def _leave(number: int, _frame: object) -> NoReturn:
    # Unwinds the stack, so that everything is stopped on the way.
    raise SystemExit(128 + number)


def main() -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave Airflow's web page up until Ctrl-C")
    keep = parser.parse_args().keep

    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)  # the terminal was closed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it

    timeline = Timeline()
    succeeded = False
    try:
        succeeded = _show(timeline, keep=keep)
    except LocalAirflowError as error:
        timeline.add("failed", str(error))
    except KeyboardInterrupt:
        timeline.add("demo", "interrupted; everything is stopped")
        return 128 + signal.SIGINT
    timeline.add("demo", "done, nothing is left running" if succeeded else "FAILED, see above")
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
