from __future__ import annotations

import asyncio
import copy
import functools
import gc
import importlib.metadata
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

# Airflow reads all of this when it is first imported.
for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "AWS_")) and name != "AWS_CA_BUNDLE"]:
    del os.environ[_name]
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ.update(
    AIRFLOW_HOME=_HOME.name,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    # Tests poll at intervals of a fraction of a second.
    AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__CALLS_PER_SECOND="1000",
    AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__USAGE_CALLS_PER_SECOND="1000",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
)

# While Airflow is imported there is next to nothing to collect, and looking for it takes a sixth of the time.
gc.disable()

import botocore.handlers
import botocore.hooks
import botocore.retries.standard
import botocore.retryhandler
import pytest
from hypothesis import settings

from tests.service_model import AnswerCheck

# Airflow is imported where it is used, as the pure tests do not need it.

IMAGE = "my-image"
IS_AIRFLOW_2 = importlib.metadata.version("apache-airflow").startswith("2.")
needs_watchers = pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 has no asset watchers")

# For the sessions that the package, the Amazon provider and the tests make alike, wherever they do.
_ANSWERS = AnswerCheck()
BUILTIN_HANDLERS = botocore.handlers.BUILTIN_HANDLERS
BUILTIN_HANDLERS.append(("response-received.sagemaker", _ANSWERS))

# Whole files that an environment has nothing for; single tests skip with a reason.
collect_ignore = []
if IS_AIRFLOW_2:
    collect_ignore += ["integration/test_assets.py", "integration/test_docs.py"]
if importlib.util.find_spec("openlineage") is None:
    collect_ignore += ["integration/test_lineage.py"]
if importlib.util.find_spec("statsd") is None:
    collect_ignore += ["integration/test_metrics.py"]

# A busy machine is no reason for a test to fail. CI and `make test` try more examples than a quick run.
settings.register_profile("quick", max_examples=4, stateful_step_count=40, deadline=None)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=25)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def answer_check(request):
    """Fail a test to which the emulator answered something that botocore's model of SageMaker does not have."""
    _ANSWERS.found.clear()
    yield _ANSWERS
    if request.node.get_closest_marker("beyond_model") is None:
        assert _ANSWERS.found == [], "The emulator's answer is not in botocore's model"


def pytest_collection_finish():
    gc.enable()


def pytest_report_header():
    return [f"not collected on this Airflow: tests/{file}" for file in collect_ignore]


@contextmanager
def cheap_clients():
    """Save most of the time of making a client and of its retries, which no test is about."""
    import moto.core.responses
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from botocore.client import ClientCreator
    from botocore.hooks import EventAliaser
    from botocore.loaders import JSONFileLoader
    from moto.core.utils import method_names_from_class

    def once(method):
        results = {}

        def call_once(self, *arguments):
            if arguments not in results:
                results[arguments] = method(self, *arguments)
            return results[arguments]

        return call_once

    create_methods_once = once(ClientCreator._create_methods)
    accepts_kwargs = botocore.hooks.accepts_kwargs

    def accepts_kwargs_at_once(handler):
        code = getattr(handler, "__code__", None)  # a method has its function's
        return bool(code.co_flags & inspect.CO_VARKEYWORDS) if code else accepts_kwargs(handler)

    def is_of_use(handler):
        _event, *service = handler[0].split(".")
        return not service or service[0] in {"ecr", "sagemaker", "sqs", "sts"}

    with pytest.MonkeyPatch.context() as patch:
        # Each session would parse SageMaker's model again, and examine and copy a hundred handlers of botocore's.
        patch.setattr(JSONFileLoader, "load_file", once(JSONFileLoader.load_file))
        patch.setattr(botocore.handlers, "BUILTIN_HANDLERS", [*filter(is_of_use, BUILTIN_HANDLERS)])
        patch.setattr(EventAliaser, "_alias_event_name", once(EventAliaser._alias_event_name))
        patch.setattr(botocore.hooks, "accepts_kwargs", accepts_kwargs_at_once)
        # Each client of SageMaker would make 400 methods again, and look for the errors among 2,000 shapes.
        patch.setattr(ClientCreator, "_load_service_model", once(ClientCreator._load_service_model))
        patch.setattr(ClientCreator, "_create_methods", lambda *arguments: dict(create_methods_once(*arguments)))
        # moto looks for its methods at each call.
        patch.setattr(moto.core.responses, "method_names_from_class", functools.cache(method_names_from_class))
        # For the user agent; it reads the source of every function on the stack, and pytest's stack is deep.
        patch.setattr(AwsBaseHook, "_get_caller", lambda *_: "Unknown")
        # Pauses of a second on average; which attempts there are is the same.
        patch.setattr(botocore.retryhandler, "delay_exponential", lambda **_: 0.01)
        patch.setattr(botocore.retries.standard.ExponentialBackoff, "delay_amount", lambda *_: 0.01)
        yield


@pytest.fixture(scope="session")
def emulator_server():
    from airflow_provider_imageversions.emulator import Emulator
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

    with Emulator(creation_seconds=1.0) as emulator, cheap_clients():
        with pytest.MonkeyPatch.context() as patch:
            # A process's first client takes seconds on a busy machine, more than many a test waits for.
            patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", emulator.airflow_connection())
            SageMakerImageVersionsHook().conn.list_images()
        # What has been imported is there to stay; to look through it in each collection takes 0.2 seconds.
        gc.collect()
        gc.freeze()
        yield emulator


@pytest.fixture
def emulator(emulator_server, monkeypatch):
    from airflow_provider_imageversions import _sessions

    # An operator's pauses after errors double up to it; tests/unit has the arithmetic.
    monkeypatch.setattr(_sessions, "LONGEST_PAUSE", 0.1)
    emulator_server.reset()
    return emulator_server


@pytest.fixture(scope="session")
def distant_emulator():
    """An emulator in a process of its own, where it does not count in a measurement of ours."""
    from airflow_provider_imageversions.emulator import Emulator

    command = [sys.executable, "-m", "airflow_provider_imageversions.emulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Emulator.connect(process.stdout.readline().split()[-1])
        finally:
            process.terminate()


@pytest.fixture
def connection(emulator, monkeypatch):
    """Set the connection aws_default to the emulator; return its extra, to be changed and set again."""

    def set_connection(conn_id="aws_default", login="testing", **extra):
        value = json.loads(emulator.airflow_connection())
        value["login"] = login
        value["extra"] = {**value["extra"], **extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    set_connection()
    return set_connection


def wait_until(condition, seconds=20.0):
    """Poll a condition. It takes no longer than the condition does, and fails the test if it is never met."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "The condition was not met"
        time.sleep(0.01)


class TaskInstance:
    """What operators use of a task instance outside Airflow's own processes."""

    try_number = 1
    max_tries = 0
    dag_id, run_id, task_id, map_index = "dag", "manual", "task", -1

    def __init__(self):
        self.xcoms = {}
        self.start_date = None  # as Airflow 2 has it: carried over from one reschedule to the next
        self.first_reschedule_date = None

    def xcom_push(self, key, value, **_):
        self.xcoms[key] = json.loads(json.dumps(value))

    if not IS_AIRFLOW_2:

        def get_first_reschedule_date(self, _context):
            return self.first_reschedule_date


def execute_in_thread(task, context):
    """Execute a task in a thread, where Airflow 2's guard against calls from outside its task runner fails."""
    return inspect.unwrap(type(task).execute)(task, context)


@pytest.fixture
def context(monkeypatch):
    ti = TaskInstance()
    if IS_AIRFLOW_2:
        # It would read its database, which does not exist here.
        monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda **_: ti.first_reschedule_date)
        monkeypatch.setattr("airflow.sensors.base._is_metadatabase_mysql", lambda: False)
    return {"ti": ti}


class Run:
    """Executes a sensor as Airflow does: again after each reschedule, or through its trigger."""

    def __init__(self, context):
        self.context = context
        self.task = None
        self.trigger = None
        self.timeout = None

    def __call__(self, sensor):
        """Execute a sensor; what each process of a worker has of it is another object, ``task`` the last one."""
        from airflow_provider_imageversions import compat

        try:
            from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred
        except ImportError:
            from airflow.exceptions import AirflowRescheduleException, TaskDeferred

        ti = self.context["ti"]
        ti.start_date = datetime.now(timezone.utc)
        while True:
            # Each poke of a rescheduled sensor is a separate process.
            self.task = copy.copy(sensor)
            try:
                return self.task.execute(self.context)
            except AirflowRescheduleException as reschedule:
                now = datetime.now(timezone.utc)
                ti.first_reschedule_date = ti.first_reschedule_date or now
                time.sleep(max(0.0, (reschedule.reschedule_date - now).total_seconds()))
            except TaskDeferred as deferral:
                return self._resume(sensor, deferral)
        raise compat.AirflowException

    def _resume(self, sensor, deferral):
        # Through Airflow's own serialization, as by way of its database.
        from airflow.serialization.serialized_objects import BaseSerialization
        from airflow.triggers.base import BaseTrigger

        path, arguments = deferral.trigger.serialize()
        arguments = BaseSerialization.deserialize(BaseSerialization.serialize(arguments))
        module, _, name = path.rpartition(".")
        self.trigger = getattr(__import__(module, fromlist=[name]), name)(**arguments)
        assert isinstance(self.trigger, BaseTrigger)
        self.timeout = deferral.timeout.total_seconds()
        self.task = sensor = copy.copy(sensor)
        try:
            event = asyncio.run(asyncio.wait_for(first_event(self.trigger), self.timeout))
        except asyncio.TimeoutError:
            return sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, self.context)
        except Exception:  # noqa: BLE001 # as the triggerer does
            return sensor.resume_execution("__fail__", {"error": "Trigger failure"}, self.context)
        payload = json.loads(json.dumps(event.payload))
        return sensor.resume_execution(
            deferral.method_name, {**(deferral.kwargs or {}), "event": payload}, self.context
        )


async def first_event(trigger):
    run = trigger.run()
    try:
        return await anext(run)
    finally:
        await run.aclose()


@pytest.fixture
def run(context):
    return Run(context)


MODES = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "deferrable": {"deferrable": True}}


@pytest.fixture(params=MODES)
def mode(request):
    """Each way to wait, as a sensor's keyword arguments."""
    return MODES[request.param]


@pytest.fixture(scope="session")
def truncation_unseen():
    """For tests of what botocore does not notice with most versions of urllib3."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import HTTPClientError

    class Truncating(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", "99")
            self.end_headers()
            self.wfile.write(b'{"registryId": ')

        def log_message(self, *_):
            pass

    once = Config(retries={"total_max_attempts": 1})
    with HTTPServer(("127.0.0.1", 0), Truncating) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        given = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b", "config": once}
        try:
            # Any service with JSON; what SageMaker answers is checked.
            boto3.client("ecr", endpoint_url=f"http://127.0.0.1:{server.server_port}", **given).describe_registry()
        except HTTPClientError:
            pytest.skip("this urllib3 notices that an answer is shorter than announced")
        finally:
            server.shutdown()


@pytest.fixture
def cleanup():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(cleanup):
    """
    Start a server on the loopback in place of an AWS service; return its address.

    It responds to each call with the same body, or with what a function of the call's headers returns.
    """

    def start(body, *, status=200, context=None):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                sent = body(self.headers) if callable(body) else body
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        cleanup.callback(server.server_close)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        cleanup.callback(server.shutdown)
        return f"127.0.0.1:{server.server_port}"

    return start


@pytest.fixture
def studio(emulator):
    """Creates resources of Studio in the emulator, each InService at once."""
    from tests.studio import Studio

    emulator.creation_seconds = 0
    return Studio(emulator.client("sagemaker"))
