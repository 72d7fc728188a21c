from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from xdist.scheduler import LoadScopeScheduling

from airflow_provider_imageversions.emulator import Emulator
from dev.local_airflow import LocalAirflow
from tests.statsd_sink import StatsdSink
from tests.studio import Studio, custom_image, spec

ROOT = Path(__file__).parents[2]
CREATION_SECONDS = 2.0
STUDIO_IMAGE = "churn-studio"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class ByAirflow(LoadScopeScheduling):
    """
    Keeps the tests of an Airflow in one of xdist's workers, so that each is started once.

    The modules without one are where they make the three take equally long. One that comes before the others of its
    scope also keeps the Airflows from starting all at once.
    """

    def _split_scope(self, nodeid):
        module = Path(nodeid.split("::")[0]).stem
        if module in {"test_distributed", "test_docs"}:
            return "distributed"
        return "local, watching" if module in {"test_watching", "test_web"} else "local"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByAirflow(config, log)


def rewrite(path, **constants):
    """Change constants in capitals of a DAG file, atomically for readers."""
    text = path.read_text()
    for name, value in constants.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", text, flags=re.MULTILINE)
        assert count == 1, name
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def hasten(folder):
    """Make the examples poll as often as they can."""
    for path in folder.glob("example_*.py"):
        path.write_text(re.sub(r"\b(poll|poke|check)_interval=\d+", r"\1_interval=1", path.read_text()))


@pytest.fixture(scope="session")
def service():
    """The emulator that Airflow talks to; tests keep apart by the names of their images."""
    with Emulator(creation_seconds=CREATION_SECONDS) as emulator:
        emulator.client("s3").create_bucket(Bucket="demo-bucket")
        yield emulator


@pytest.fixture(scope="session")
def studio(service):
    """A domain with version 1 of the image, which has the alias prod, and a space that starts from it."""
    ecr, client = service.client("ecr"), service.client("sagemaker")
    ecr.create_repository(repositoryName=STUDIO_IMAGE)
    account = Studio(client)
    account.image(STUDIO_IMAGE, 1, aliases={1: ["prod"]})
    account.config(STUDIO_IMAGE)
    account.client.domain_id = account.domain(
        "rollout",
        JupyterLabAppSettings={"CustomImages": [custom_image(STUDIO_IMAGE, 1, STUDIO_IMAGE), custom_image("other", 3)]},
    )
    while client.describe_domain(DomainId=client.domain_id)["Status"] != "InService":
        time.sleep(0.2)
    account.space(client.domain_id, "old", JupyterLabAppSettings={"DefaultResourceSpec": spec(STUDIO_IMAGE, 1)})
    return account


@pytest.fixture(scope="session")
def push(service):
    def push(content):
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "content": content})
        service.client("ecr").put_image(
            repositoryName=STUDIO_IMAGE,
            imageManifest=manifest,
            imageManifestMediaType=MANIFEST,
            imageTag="latest",
            # Otherwise, moto chooses one of a hundred at random.
            imageDigest=f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}",
        )

    return push


@pytest.fixture
def edit(airflow):
    """Rewrite constants of a DAG file while Airflow runs."""
    return lambda name, **constants: rewrite(airflow.dags_folder / name, **constants)


@pytest.fixture(scope="session")
def fernet_key():
    """What Airflow encrypts connections and the arguments of triggers with."""
    return Fernet.generate_key().decode()


@pytest.fixture(scope="session")
def start_airflow(fernet_key, tmp_path_factory):
    """Start an Airflow of one's own with the DAGs of the examples and of these tests."""

    @contextmanager
    def start(service, env=(), **options):
        dags = tmp_path_factory.mktemp("dags")
        for folder in (ROOT / "example_dags", ROOT / "tests" / "e2e" / "dags"):
            shutil.copytree(folder, dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        queue = service.client("sqs").create_queue(QueueName="image-versions")["QueueUrl"]
        rewrite(dags / "wakes.py", QUEUE=queue)
        hasten(dags)
        connection = service.airflow_connection()
        denied = json.dumps({**json.loads(connection), "login": "denied"})
        environment = {
            "AIRFLOW_CONN_AWS_DEFAULT": connection,
            "AIRFLOW_CONN_DENIED": denied,
            "AIRFLOW__CORE__FERNET_KEY": fernet_key,
            "AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__USAGE_CALLS_PER_SECOND": "100",
            **dict(env),
        }
        with LocalAirflow(dags, env=environment, progress=print, **options) as local:
            yield local

    return start


@pytest.fixture(scope="session")
def statsd():
    """What receives the metrics of :func:`airflow`."""
    with StatsdSink() as sink:
        yield sink


@pytest.fixture(scope="session")
def airflow(service, start_airflow, statsd):
    with start_airflow(service, env=statsd.settings) as local:
        yield local


_numbers = count(1)


@pytest.fixture
def image(service):
    name = f"image-{next(_numbers)}"
    service.create_versions(name, 2)
    return name


def execute_at_once(airflow, runs, timeout=150):
    """Run DAGs concurrently, each with its conf; return the id, state and tasks' states of each run."""
    started = []
    for dag_id, conf in runs:
        airflow.wait_for_dag(dag_id)
        started.append((dag_id, airflow.trigger(dag_id, conf=conf)))
    return [
        (run_id, airflow.wait_for_run(dag_id, run_id, timeout), airflow.task_states(dag_id, run_id))
        for dag_id, run_id in started
    ]


@pytest.fixture
def execute(airflow):
    """Run a DAG; return its run id, its state and the states of its tasks."""
    return lambda dag_id, timeout=150, **conf: execute_at_once(airflow, [(dag_id, conf)], timeout)[0]
