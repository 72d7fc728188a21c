"""
A real Airflow on this machine, in a private directory, for the demo and the end-to-end tests.

It starts Airflow's own commands (API server, scheduler with the LocalExecutor, DAG processor, triggerer)
as separate processes on a SQLite database, and talks to them through the public REST API only::

    with LocalAirflow(dags_folder="example_dags", env={"AIRFLOW_CONN_AWS_DEFAULT": "aws://"}) as airflow:
        airflow.wait_for_dag("my_dag", timeout=60)
        run_id = airflow.trigger("my_dag")
        assert airflow.wait_for_run("my_dag", run_id, timeout=60) == "success"

With ``components=DISTRIBUTED`` it is what users run: PostgreSQL, Redis and the CeleryExecutor, with two workers and
two triggerers.

Nothing stays behind. ``stop()`` ends every process and removes the directory, and a guardian process does
the same when the process that called ``start()`` dies without having done so, even by SIGKILL. Only the
API server, PostgreSQL and Redis open a port, each a free one on 127.0.0.1.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

import psutil  # a dependency of Airflow itself

from dev.servers import LOOPBACK, SERVERS, Postgres, free_port, query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import Self

    from dev.servers import Redis

GRACE_SECONDS = 3.0
"""Seconds that a process may take to end after SIGTERM. Airflow's take 1 to 2."""
PROGRESS_SECONDS = 5.0
TAIL_LINES = 40
# Fields that every line of a task's log repeats about the task and its place in Airflow's code.
LOG_FIELDS_LEFT_OUT = (
    *("dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"),
    *("logger", "filename", "lineno", "loc"),
)
RUN_ENDED = frozenset({"success", "failed"})
# Holds every lock of the database's WAL index (bytes 120 to 127 of the -shm file, https://sqlite.org/walformat.html)
# until its input ends, even if that is because the caller was killed. A process of its own, since a process loses its
# locks on a file as soon as it closes any descriptor of it. The open connection keeps SQLite from removing the file.
DATABASE_LOCK = """
import fcntl, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60)
connection.execute("SELECT 1 FROM sqlite_master").fetchall()
with open(sys.argv[1] + "-shm", "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 8, 120)
    print("locked", flush=True)
    sys.stdin.read()
"""

# Airflow imports this when one of its processes starts. Tasks and DAG files run in forks of those, which then need not
# import the modules each. One that cannot be imported is an import error of the DAG files, not of Airflow.
PRELOADED = """
import contextlib

with contextlib.suppress(ImportError):
    import airflow_provider_imageversions.operators
    import airflow_provider_imageversions.sensors
"""


class Component(NamedTuple):
    """One of Airflow's long-running commands."""

    arguments: tuple[str, ...]
    has_job: bool = True
    """Whether it sends heartbeats to Airflow's database."""


_TRIGGERER = Component(("triggerer", "--skip-serve-logs"))
# A worker does not start if the file of another one exists.
_WORKER = Component(
    (
        *("celery", "worker", "--skip-serve-logs", "--concurrency", "4"),
        *("--celery-hostname", "{name}", "--pid", "{home}/{name}.pid"),
    ),
    has_job=False,
)
# All that names a command of Airflow. --skip-serve-logs: the log servers of the scheduler, the triggerer and the worker
# would listen on every interface ([::]), which no setting can change; everything is on one machine here, so
# the API server reads the log files itself. It also saves two processes.
COMPONENTS: dict[str, Component] = {
    "api-server": Component(("api-server", "--host", LOOPBACK, "--port", "{port}", "--workers", "1"), has_job=False),
    "scheduler": Component(("scheduler", "--skip-serve-logs")),
    "dag-processor": Component(("dag-processor",)),
    "triggerer": _TRIGGERER,
    "triggerer-1": _TRIGGERER,
    "triggerer-2": _TRIGGERER,
    "worker-1": _WORKER,
    "worker-2": _WORKER,
}
_COMMON = ("api-server", "scheduler", "dag-processor")
SIMPLE = (*_COMMON, "triggerer")
"""The LocalExecutor on SQLite."""
TRIGGERERS = ("triggerer-1", "triggerer-2")
WORKERS = ("worker-1", "worker-2")
DISTRIBUTED = (*SERVERS, *_COMMON, *TRIGGERERS, *WORKERS)
"""The CeleryExecutor on PostgreSQL and Redis."""


class LocalAirflowError(RuntimeError):
    """Airflow did not do what was requested; the message helps to find out why."""


class ApiError(LocalAirflowError):
    """The REST API answered with an error."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path} answered {status}: {body[:2000]}")
        self.status = status
        self.body = body


class LocalAirflow:
    """
    A private Airflow: its own directory, database, port and processes.

    :param dags_folder: the DAG files to load
    :param env: extra environment for all components; wins over the settings made here
    :param components: :data:`SIMPLE` or :data:`DISTRIBUTED`
    :param progress: called with a line of text at each step, and every few seconds during a slow one
    :param start_timeout: how many seconds until everything must be healthy
    :param keep: leave the directory (logs, database) behind when stopping
    """

    def __init__(
        self,
        dags_folder: str | os.PathLike[str],
        *,
        env: Mapping[str, str] | None = None,
        components: Iterable[str] = SIMPLE,
        progress: Callable[[str], None] | None = None,
        start_timeout: float = 180,
        keep: bool = False,
    ) -> None:
        self.dags_folder = Path(dags_folder).resolve()
        self.components = tuple(components)
        if unknown := set(self.components) - {*COMPONENTS, *SERVERS}:
            raise ValueError(f"Unknown components {sorted(unknown)}; there are {sorted([*COMPONENTS, *SERVERS])}")
        self.start_timeout = start_timeout
        self.keep = keep
        self.home = Path()
        self.port = 0
        self._extra_env = dict(env or {})
        self._progress = progress or (lambda _line: None)
        self._servers: dict[str, Postgres | Redis] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: set[int] = set()
        self._guardian: subprocess.Popen[bytes] | None = None
        self._token = ""

    # ---------------------------------------------------------------- life cycle

    @property
    def url(self) -> str:
        """The address of the web page and of the API."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def login_hint(self) -> str:
        """How to log in at :attr:`url`."""
        return "no login is needed: every visitor is an admin"

    def __enter__(self) -> Self:
        """Start everything."""
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop everything, whatever happened."""
        self.stop()

    def start(self, name: str | None = None) -> None:
        """Start everything and wait until it is healthy, or start one component (again) without waiting."""
        if name is not None:
            self._spawn(name)
            return
        try:
            self._start_all()
        except BaseException:  # Ctrl-C too
            self.stop()
            raise

    def _start_all(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="local-airflow-")).resolve()
        self._guardian = _start_guardian(self.home, keep=self.keep)
        self.port = free_port()
        self._component_logs.mkdir()
        (self.home / "config").mkdir()
        (self.home / "config" / "airflow_local_settings.py").write_text(PRELOADED)
        deadline = time.monotonic() + self.start_timeout
        self._servers = {name: SERVERS[name](self.home) for name in self.components if name in SERVERS}
        for name, server in self._servers.items():
            self._progress(f"starting {name}")
            server.prepare()
            self._spawn(name)
            self._wait(lambda server=server: self._raise_if_dead_or(server.missing), deadline, name)
        self._env = {**_clean_environment(), **self._settings(), **self._extra_env}

        names = [name for name in self.components if name not in self._servers]
        if not names:
            return
        self._progress(f"Airflow {importlib.metadata.version('apache-airflow')}: creating its database")
        self._launch("migrate", airflow_command("db", "migrate"), env=self._env)
        self._wait(self._database_ready, deadline, "the database")

        self._progress(f"Airflow: starting {', '.join(names)}")
        for name in names:
            self._spawn(name)
        self.wait_healthy(deadline - time.monotonic())
        self._warm_up()

    def wait_healthy(self, timeout: float = 60) -> None:
        """
        Wait until the API answers and reports every component as healthy.

        Health depends on the last heartbeat: a killed component is healthy for another 10 to 30 seconds.
        """
        if "api-server" in self.components:
            self._wait(self._unhealthy, time.monotonic() + timeout, "Airflow")

    def _warm_up(self) -> None:
        """
        Make the API server build the API for tasks now.

        It does so at the first call. This takes 3 to 4 seconds, in which the first task of a test would appear to hang.
        """
        if "api-server" in self.components:
            self.api("GET", "/execution/health")

    def stop(self) -> None:
        """End every process and remove the directory. Does nothing if nothing is running."""
        if self._guardian is None:
            return
        try:
            # One signal to every group: a component's children (the executor's workers, a trigger runner)
            # would otherwise be waited for.
            for name, process in self._processes.items():
                if name not in self._servers:  # what ends needs them
                    _signal_group(process.pid, signal.SIGTERM)
            # The API server takes seconds to end and has nothing to finish, so do not wait for it.
            _wait_until_gone(lambda: self._remaining(except_for={"api-server", *self._servers}), GRACE_SECONDS)
        finally:
            # Reached at a second Ctrl-C as well, so it must be quick.
            left = _destroy(self._sessions, self.home)
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=GRACE_SECONDS)
            self._processes.clear()
            if not self.keep:
                shutil.rmtree(self.home, ignore_errors=True)
            guardian, self._guardian = self._guardian, None
            _dismiss_guardian(guardian)
        if left:
            raise LocalAirflowError(f"Processes survived SIGKILL: {left}")

    def _remaining(self, except_for: set[str]) -> list[psutil.Process]:
        spared = {process.pid for name, process in self._processes.items() if name in except_for}
        found = list(_our_processes(self._sessions - spared, self.home))
        return [process for process in found if process.pid not in spared]

    # ---------------------------------------------------------------- processes

    def pid(self, name: str) -> int:
        """Return the process id of a component; it is also the id of its process group."""
        return self._processes[name].pid

    def is_running(self, name: str) -> bool:
        """Return whether the component's main process is alive."""
        return name in self._processes and self._processes[name].poll() is None

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """
        Signal a component with all its children, and wait for its end if the signal is meant to end it.

        SIGKILL goes to the whole session, as when a container is killed: the scheduler's holds the LocalExecutor's
        workers and the tasks they run, each of which has a group of its own. A component that was killed may stay down;
        one that ends by itself is an error in every wait.
        """
        process = self._processes[name]
        _signal_group(process.pid, sig)
        if sig is signal.SIGKILL:
            _kill_all(lambda: _session(process.pid))
        if sig in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}:
            process.wait(timeout=60)
            del self._processes[name]

    def restart_ended(self) -> list[str]:
        """Restart components that ended by themselves, as a service manager does in production; return their names."""
        ended = {name: process.pid for name, process in self._processes.items() if process.poll() is not None}
        for name, session in ended.items():
            _kill_all(lambda session=session: _session(session))  # what it leaves behind goes with it there, too
            self._spawn(name)
        return list(ended)

    @contextlib.contextmanager
    def database_away(self) -> Iterator[None]:
        """
        Disconnect every process from the database.

        Any statement fails with an OperationalError after 10 seconds, whether it reads or writes, on a connection that
        was open before or on a new one, as with a database server that does not answer. An ordinary lock
        (``BEGIN EXCLUSIVE``) would still let everyone read, and a file that is moved away stays open where it was.
        """
        command = [sys.executable, "-c", DATABASE_LOCK, str(self.home / "airflow.db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            try:
                if holder.stdout is None or holder.stdout.readline() != b"locked\n":
                    raise LocalAirflowError("The database can't be locked")
                yield
            finally:
                if holder.stdin is not None:
                    holder.stdin.close()

    def component_log(self, name: str, lines: int | None = None) -> str:
        """Return what a component printed, or the last lines of it."""
        path = self._component_logs / f"{name}.log"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    @property
    def _component_logs(self) -> Path:
        return self.home / "component-logs"

    def _spawn(self, name: str) -> None:
        if self.is_running(name):
            raise LocalAirflowError(f"{name} is running already, pid {self.pid(name)}")
        if server := self._servers.get(name):
            self._launch(name, server.command, env=server.environment, cwd=server.directory, **server.identity)
            return
        arguments = [part.format(port=self.port, name=name, home=self.home) for part in COMPONENTS[name].arguments]
        # Airflow stores the user's name with a job, so this identifies it.
        self._launch(name, airflow_command(*arguments), env={**self._env, "LOGNAME": name})

    def _launch(self, name: str, command: list[str], *, cwd: Path | None = None, **options: Any) -> None:
        with (self._component_logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd or self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: the terminal's Ctrl-C is for the caller, who decides what happens,
                # and every child can be found by it.
                start_new_session=True,
                **options,
            )
        self._processes[name] = process
        self._sessions.add(process.pid)
        _notify_guardian(self._guardian, process.pid)

    def _settings(self) -> dict[str, str]:
        home = self.home
        sections: dict[str, dict[str, Any]] = {
            "core": {
                "dags_folder": self.dags_folder,
                "plugins_folder": home / "plugins",
                "executor": "LocalExecutor",  # works with SQLite since Airflow 3.0
                "parallelism": 4,  # it forks this many workers at once; 32 would need memory and time
                "load_examples": False,
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "simple_auth_manager_all_admins": True,
                "execution_api_server_url": f"{self.url}/execution/",
                "hostname_callable": "socket.gethostname",  # the default asks the name service
                "dagbag_import_timeout": 120,  # a first import on a busy machine takes its time
                "min_serialized_dag_update_interval": 0,
                "test_connection": "Disabled",
            },
            "database": {
                # Four processes write; SQLite's own patience is 5 seconds.
                "sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=60",
            },
            "api": {
                "base_url": self.url,
                "host": LOOPBACK,
                "port": self.port,
                "workers": 1,
                "secret_key": secrets.token_hex(16),
                "expose_stacktrace": True,
                "worker_timeout": 60,
            },
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            "logging": {
                "base_log_folder": home / "logs",
                "dag_processor_child_process_log_directory": home / "logs" / "dag_processor",
                "colored_console_log": False,
                # A line for each request and each scan of the folder would hide the others (Airflow >= 3.1).
                "namespace_levels": "http.access=WARNING airflow.dag_processing.manager=WARNING",
                # Not served (see COMPONENTS), but requested while a task runs. Port 1 is unused, while the default
                # ports may belong to another Airflow on this machine.
                "worker_log_server_port": 1,
                "trigger_log_server_port": 1,
            },
            "scheduler": {
                # Default 1: up to a second between any two tasks. A task that resumes before the scheduler knows that
                # it was deferred is taken for one that was killed, which is likelier the longer the scheduler idles.
                "scheduler_idle_sleep_time": 0.2,
                "job_heartbeat_sec": 2,
                "trigger_timeout_check_interval": 2,  # default 15: a deferred task's timeout
                "enable_health_check": False,  # would listen on 0.0.0.0
            },
            "triggerer": {
                "job_heartbeat_sec": 2,
                "triggerer_health_check_threshold": 10,  # default 30: until a dead one's triggers move
            },
            "dag_processor": {
                "refresh_interval": 2,  # default 300: until a new file is found
                "min_file_process_interval": 60,  # default 30, which takes half a core; edited files are parsed at once
                "bundle_refresh_check_interval": 1,
                "dag_file_processor_timeout": 150,
            },
            "workers": {
                # Default 5: the executor's slot stays occupied this long after some tasks have ended (16 mapped tasks
                # took 14 s instead of 3). A task fails after this many consecutive failures, by default 3, and it must
                # survive a busy API server.
                "min_heartbeat_interval": 1,
                "max_failed_heartbeats": 30,
            },
            # Nothing leaves this machine.
            "usage_data_collection": {"enabled": False},
            "metrics": {"statsd_on": False, "otel_on": False},
            "traces": {"otel_on": False},
        }
        settings = {
            f"AIRFLOW__{section.upper()}__{key.upper()}": str(value)
            for section, values in [*sections.items(), *self._distributed_settings().items()]
            for key, value in values.items()
        }
        return {
            **settings,
            "AIRFLOW_HOME": str(home),
            "SCARF_ANALYTICS": "false",
            "DO_NOT_TRACK": "1",
            "AWS_EC2_METADATA_DISABLED": "true",  # no credentials from the machine's role
            "NO_PROXY": _no_proxy("NO_PROXY"),  # tasks call the API server on the loopback
            "no_proxy": _no_proxy("no_proxy"),
            "PYTHONUNBUFFERED": "1",  # a component's log is complete when it is needed most
        }

    def _distributed_settings(self) -> dict[str, dict[str, Any]]:
        """Make the settings that differ where there are servers for them."""
        if not self._servers:
            return {}
        database, broker = self._servers["postgres"].url, self._servers["redis"].url
        return {
            "core": {"executor": "CeleryExecutor", "parallelism": 32},
            "database": {"sql_alchemy_conn": database},
            "celery": {"broker_url": broker, "result_backend": f"db+{database}"},
            # By default, the running tasks of a killed worker are detected after 5 minutes and its reserved ones after
            # a day, and the queued tasks of a killed scheduler are adopted after 5 minutes. The order has to be kept: a
            # message that another worker gets while its task counts as running is discarded. A task that a worker took
            # while the database was away stays queued for 10 minutes.
            "scheduler": {
                "task_instance_heartbeat_timeout": 20,
                "task_instance_heartbeat_timeout_detection_interval": 3,
                "scheduler_health_check_threshold": 10,
                "orphaned_tasks_check_interval": 5,
                "task_queued_timeout": 60,
                "task_queued_timeout_check_interval": 5,
            },
            "celery_broker_transport_options": {"visibility_timeout": 40},
            # A triggerer's first call to Airflow holds it up for 8 seconds or, on a busy machine, twice as long.
            "triggerer": {"triggerer_health_check_threshold": 20},
        }

    # ---------------------------------------------------------------- waiting

    def _wait(self, missing: Callable[[], str], deadline: float, what: str) -> None:
        """Poll ``missing`` until it returns nothing."""
        started = last_line = time.monotonic()
        while lacking := missing():
            now = time.monotonic()
            if now > deadline:
                raise LocalAirflowError(f"{what} is not ready in time: {lacking}\n{self.diagnosis()}")
            if now - last_line >= PROGRESS_SECONDS:
                self._progress(f"... {now - started:.0f} s, waiting for {lacking}")
                last_line = now
            time.sleep(0.4)

    def _database_ready(self) -> str:
        process = self._processes["migrate"]
        if process.poll() is None:
            return "db migrate"
        if process.returncode:
            raise LocalAirflowError(f"airflow db migrate failed:\n{self.component_log('migrate', TAIL_LINES)}")
        del self._processes["migrate"]
        if self._servers:
            return ""
        # Writers do not block readers then. Stays with the file; Airflow before 3.3 does not ask for it.
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        return ""

    def _unhealthy(self) -> str:
        self.raise_if_dead()
        try:
            jobs = self.api("GET", "/api/v2/jobs", params={"is_alive": True, "limit": 100, "order_by": "-id"})["jobs"]
        except (OSError, http.client.HTTPException, ApiError):
            return "api-server"
        alive = {job["unixname"] for job in jobs}
        return ", ".join(name for name in self.components if self._has_job(name) and name not in alive)

    @staticmethod
    def _has_job(name: str) -> bool:
        return name in COMPONENTS and COMPONENTS[name].has_job

    def _raise_if_dead_or(self, missing: Callable[[], str]) -> str:
        self.raise_if_dead()
        return missing()

    def raise_if_dead(self) -> None:
        """Raise, with the end of its log, if a component ended by itself. Every wait does this."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise LocalAirflowError(
                    f"{name} ended with code {process.returncode}:\n{self.component_log(name, TAIL_LINES)}"
                )

    def diagnosis(self, dag_id: str | None = None, run_id: str | None = None) -> str:
        """Return details that help to find out why something did not happen, for an error message."""
        parts = []
        if dag_id and run_id:
            with contextlib.suppress(OSError, LocalAirflowError, http.client.HTTPException):
                parts.append(f"task states: {json.dumps(self.task_states(dag_id, run_id))}")
        for name in self.components:
            process = self._processes.get(name)
            code = process.poll() if process else None
            state = "not started" if process is None else "running" if code is None else f"ended with {code}"
            parts.append(f"--- {name} ({state}):\n{self.component_log(name, TAIL_LINES)}")
        return "\n".join(parts)

    # ---------------------------------------------------------------- database

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """
        Return rows of Airflow's database.

        The API does not show triggers, and fails with 500 when it lists events while a run is created for one.
        """
        return query(self._env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], statement)

    # ---------------------------------------------------------------- REST API

    def api(self, method: str, path: str, body: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Call Airflow's REST API as an admin and return the decoded JSON."""
        if not self._token:
            self._token = self._call("GET", "/auth/token", None, {})["access_token"]
        if params:
            path = f"{path}?{urlencode(params, doseq=True)}"
        return self._call(method, path, body, {"Authorization": f"Bearer {self._token}"})

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        # Longer than SQLite's patience, see _insist().
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=90)
        try:
            payload = None if body is None else json.dumps(body)
            content = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, payload, {"Accept": "application/json", **content, **headers})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise ApiError(method, path, response.status, text)
        return json.loads(text) if text else None

    def import_errors(self) -> dict[str, str]:
        """Return the stack trace of each DAG file that cannot be loaded."""
        errors = self.api("GET", "/api/v2/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until the DAG is loaded. An import error in any file of the folder ends the wait."""

        def missing() -> str:
            self.raise_if_dead()
            if errors := self.import_errors():
                listing = "\n".join(f"{name}:\n{trace}" for name, trace in errors.items())
                raise LocalAirflowError(f"Import errors in {self.dags_folder}:\n{listing}")
            try:
                self.api("GET", f"/api/v2/dags/{quote(dag_id)}")
            except ApiError as error:
                if error.status != http.client.NOT_FOUND:
                    raise
                return f"the DAG {dag_id}"
            return ""

        self._wait(missing, time.monotonic() + timeout, f"DAG {dag_id}")

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG, and the triggerer watch its assets."""
        dag = self.api("GET", f"/api/v2/dags/{quote(dag_id)}")
        if dag["is_paused"]:
            self._insist("PATCH", f"/api/v2/dags/{quote(dag_id)}", {"is_paused": False})
            # Airflow starts watchers when it parses the file, which it would otherwise do within half a minute.
            self._insist("PUT", f"/api/v2/parseDagFile/{quote(dag['file_token'])}", None)

    def pause(self, dag_id: str) -> None:
        """Keep the scheduler from starting runs of the DAG and their tasks."""
        self._insist("PATCH", f"/api/v2/dags/{quote(dag_id)}", {"is_paused": True})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, logical_date: str | None = None) -> str:
        """Unpause the DAG, start a run of it and return the run's id."""
        self.unpause(dag_id)
        run_id = f"manual__{secrets.token_hex(8)}"
        body = {"dag_run_id": run_id, "conf": dict(conf or {}), "logical_date": logical_date}
        self._insist("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", body)
        return run_id

    def _insist(self, method: str, path: str, body: Mapping[str, Any] | None) -> None:
        """
        Make a call that may be repeated.

        On SQLite, the API server deadlocks until SQLite's timeout if such a call arrives while a task starts: its audit
        log waits for a lock that the other call releases only afterwards.
        """
        for last in (False, False, True):
            try:
                self.api(method, path, body)
            except ApiError as error:  # noqa: PERF203  # up to three times
                if error.status == http.client.CONFLICT:  # the call before this one got through after all
                    return
                if last or error.status < http.client.INTERNAL_SERVER_ERROR:
                    raise
            else:
                return

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the newest 100 runs of the DAG, oldest first."""
        params = {"order_by": "-run_after", "limit": 100}
        found = self.api("GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns", params=params)["dag_runs"]
        return list(reversed(found))

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        state: str = self.api("GET", _run_path(dag_id, run_id))["state"]
        return state

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run as the API returns them."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.api(
                "GET",
                f"{_run_path(dag_id, run_id)}/taskInstances",
                params={"limit": 100, "offset": len(found)},
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the state of each task, a mapped one as ``task_id[map_index]``."""
        return {
            task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]": task["state"]
            or "none"
            for task in self.task_instances(dag_id, run_id)
        }

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self.api("GET", path, params={"map_index": map_index, "stringify": "false"})["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task, one event a line."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}"
        answer = self.api("GET", path, params={"map_index": map_index, "full_content": "true"})
        return "\n".join(_log_lines(answer["content"]))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 120,
        on_change: Callable[[str, str | None, str], None] | None = None,
        on_poll: Callable[[], None] | None = None,
    ) -> str:
        """
        Wait until a run has ended and return its state, ``success`` or ``failed``.

        :param on_change: called with a task's name, its state before and its state now; a mapped task is
            named ``task_id[map_index]``
        :param on_poll: called at each poll of the run, about three times a second
        """
        known: dict[str, str] = {}
        deadline = time.monotonic() + timeout
        while True:
            self.raise_if_dead()
            state = self.run_state(dag_id, run_id)  # before the tasks, so that their last states are seen
            if on_change is not None:
                for task, now in self.task_states(dag_id, run_id).items():
                    if known.get(task) != now:
                        on_change(task, known.get(task), now)
                        known[task] = now
            if on_poll is not None:
                on_poll()
            if state in RUN_ENDED:
                return state
            if time.monotonic() > deadline:
                raise LocalAirflowError(
                    f"Run {run_id} of {dag_id} is still {state} after {timeout:.0f} s\n{self.diagnosis(dag_id, run_id)}"
                )
            time.sleep(0.3)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"


def _log_lines(content: str | list[Any]) -> Iterator[str]:
    """Flatten the API's structured log: time, level, message, fields, stack trace."""
    if isinstance(content, str):
        yield content
        return
    for entry in content:
        if not isinstance(entry, dict):
            yield str(entry)
            continue
        fields = dict(entry)
        parts = [fields.pop(key) or "" for key in ("timestamp", "level", "event") if key in fields]
        details = fields.pop("error_detail", None)
        for known in LOG_FIELDS_LEFT_OUT:
            fields.pop(known, None)
        yield " ".join([*map(str, parts), *(f"{key}={value}" for key, value in fields.items())])
        for error in details or ():
            yield from _stack_lines(error)


def _stack_lines(error: Mapping[str, Any]) -> Iterator[str]:
    for frame in error.get("frames", ()):
        yield f'    File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}'
    yield f"  {error.get('exc_type')}: {error.get('exc_value')}"


def airflow_command(*arguments: str) -> list[str]:
    """Make the command line of one of Airflow's commands."""
    return [sys.executable, "-m", "airflow", *arguments]


def _no_proxy(variable: str) -> str:
    return ",".join(filter(None, [os.environ.get(variable), LOOPBACK, "localhost"]))


def _clean_environment() -> dict[str, str]:
    """Return the caller's environment without variables that would change Airflow, AWS calls or their speed."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AIRFLOW_", "AWS_", "PYTEST_", "COVERAGE_", "OTEL_"))
        # Without compiled modules each process takes twice as long to start.
        and key != "PYTHONDONTWRITEBYTECODE"
    } | {key: os.environ[key] for key in ("AWS_CA_BUNDLE",) if key in os.environ}


# -------------------------------------------------------------------- ending processes


def _signal_group(group: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sig)


def _our_processes(sessions: set[int], home: Path) -> Iterator[psutil.Process]:
    """
    Find what belongs to the Airflow at ``home``, orphans and children of children included.

    By session, and by environment, which also finds what a task started in a session of its own. The
    environment alone is not enough: Airflow's processes overwrite theirs with a title (setproctitle), and
    a task's cannot be read by anyone but root (PR_SET_DUMPABLE).
    """
    marker = str(home)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in sessions or _environment(process).get("AIRFLOW_HOME") == marker:
                yield process


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.AccessDenied:
        return {}


def _wait_until_gone(remaining: Callable[[], list[psutil.Process]], timeout: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout
    while (left := remaining()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _session(session: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _kill_all(find: Callable[[], Iterator[psutil.Process]]) -> list[psutil.Process]:
    """Kill until nothing is left: a process may fork while the list is being made."""

    def remaining() -> list[psutil.Process]:
        found = list(find())
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return found

    return _wait_until_gone(remaining, GRACE_SECONDS)


def _destroy(sessions: set[int], home: Path) -> list[psutil.Process]:
    Postgres.end(home, sessions)
    return _kill_all(lambda: _our_processes(sessions, home))


# -------------------------------------------------------------------- the guardian


def _start_guardian(home: Path, *, keep: bool) -> subprocess.Popen[bytes]:
    """
    Start a process that outlives this one and cleans up if it ends without having done so.

    The pipe is the signal: its writing end closes when this process ends, whatever the cause.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "dev.local_airflow", str(home), *(["--keep"] if keep else [])],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        start_new_session=True,  # a closed terminal or Ctrl-C must not end the guardian
    )


def _notify_guardian(guardian: subprocess.Popen[bytes] | None, session: int) -> None:
    if guardian is not None and guardian.stdin is not None:
        guardian.stdin.write(f"{session}\n".encode())
        guardian.stdin.flush()


def _dismiss_guardian(guardian: subprocess.Popen[bytes] | None) -> None:
    if guardian is not None and guardian.stdin is not None:
        guardian.stdin.close()
        guardian.wait()


def _guard(home: Path, *, keep: bool) -> None:
    """Wait until the caller has ended, then remove what it left, which is usually nothing."""
    sessions = {int(line) for line in sys.stdin}
    _destroy(sessions, home)
    if not keep:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), keep="--keep" in sys.argv)
