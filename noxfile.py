"""
Runs the unit and integration tests, and the example DAGs, on the Airflows that people run: ``make compat``.

Each line is an Airflow and the Amazon provider that managed services pin beside it, resolved as of a day on which both
were current: what was released later did not exist for them. The last line is whatever is newest today.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
# pyenv's interpreters are on nobody's PATH.
os.environ["PATH"] = os.pathsep.join(
    [os.environ["PATH"], *(str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.1*/bin")))]
)


class Line(NamedTuple):
    """A line of the matrix."""

    airflow: str
    amazon: str
    python: str
    as_of: str | None


MATRIX = {
    "oldest": Line("==2.11.0", "==9.8.0", "3.10", "2025-06-15"),
    "3.0": Line("==3.0.6", "==9.12.0", "3.11", "2025-09-15"),
    "3.1": Line("==3.1.8", "==9.22.0", "3.12", "2026-03-15"),
    "middle": Line("==3.2.0", "==9.25.0", "3.12", "2026-04-15"),
    "3.3.1": Line("==3.3.1", "==9.34.0", "3.13", "2026-08-15"),
    "newest": Line("", "", "3.13", None),
}
_SHOW = (
    "import importlib.metadata as m, sys; print(sys.version.split()[0], "
    "*(f'{name} {m.version(name)}' for name in ('apache-airflow', 'apache-airflow-providers-amazon', 'boto3', 'moto')))"
)
TOOLS = ("pytest>=8.3", "pytest-asyncio>=0.25", "pytest-xdist>=3.6", "hypothesis>=6.100", "jsonschema>=4.20")


def _session(name: str, line: Line) -> None:
    @nox.session(name=f"compat-{name}", python=line.python)
    def compat(session: nox.Session) -> None:
        """Run the tests on one line of the matrix; arguments go to pytest."""
        # Compiled modules halve the time that Airflow takes to start.
        session.env.update(PYTHONDONTWRITEBYTECODE=None, UV_NO_CONFIG="1")
        as_of = ["--exclude-newer", line.as_of] if line.as_of else []
        session.install(
            *as_of,
            f"apache-airflow{line.airflow}",
            f"apache-airflow-providers-amazon{line.amazon}",
            ".[emulator]",
            *TOOLS,
        )
        session.run("python", "-c", _SHOW)
        session.run("python", "-m", "pytest", "-n", "2", *(session.posargs or ["tests/unit", "tests/integration"]))


for _name, _line in MATRIX.items():
    _session(_name, _line)
