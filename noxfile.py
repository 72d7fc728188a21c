"""
The package on the Airflows that it supports: ``make compat`` for all of them, ``make compat LINE=2.11`` for one.

A line is an environment with a release of Airflow, the Amazon provider that managed services had with it, and all else
as it was on a day soon after. There the unit and integration tests and the demo run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import nox


class Line(NamedTuple):
    """What is installed; without versions and a day the newest of everything."""

    python: str
    airflow: str = ""
    amazon: str = ""
    day: str = ""


LINES = {
    "2.11": Line("3.10", "2.11.0", "9.8.0", "2025-06-15"),
    "3.0": Line("3.11", "3.0.6", "9.12.0", "2025-09-15"),
    "3.1": Line("3.12", "3.1.8", "9.22.0", "2026-03-15"),
    "3.2": Line("3.12", "3.2.0", "9.25.0", "2026-04-15"),
    "3.3": Line("3.13", "3.3.1", "9.34.0", "2026-08-15"),
    "newest": Line("3.13"),
}
# What the tests import, of what the extra "dev" has.
TOOLS = (
    *("hypothesis", "jsonschema", "pytest", "pytest-asyncio", "pytest-xdist"),
    "apache-airflow-providers-openlineage",
)

nox.options.default_venv_backend = "uv"
nox.options.envdir = "build/compat"
nox.options.error_on_missing_interpreters = True


def _requirements(line: Line) -> list[str]:
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    by_name = {re.split(r"[^\w-]", requirement)[0]: requirement for requirement in extras["dev"]}
    tools = [by_name[name] for name in TOOLS]
    pins = {"apache-airflow": line.airflow, "apache-airflow-providers-amazon": line.amazon}
    return [*(f"{name}=={version}" if version else name for name, version in pins.items()), *tools]


def _row(session: nox.Session, report: Path) -> str:
    """Make the line's row of the table in docs/versions.md."""
    names = ("apache-airflow", "apache-airflow-providers-amazon")
    program = f"from importlib.metadata import version; print(*map(version, {names}))"
    airflow, amazon = str(session.run("python", "-c", program, silent=True)).split()
    suite = next(ET.parse(report).iter("testsuite"))  # noqa: S314  # pytest has just written it
    tests, skipped = (int(suite.get(name, 0)) for name in ("tests", "skipped"))
    return f"| {airflow} | {amazon} | {session.python} | {tests - skipped} | {skipped} |"


def _add(name: str, line: Line) -> None:
    @nox.session(name=name, python=line.python)
    def run(session: nox.Session) -> None:
        day = ["--exclude-newer", line.day] if line.day else []
        session.install(*day, "-e", ".[emulator]", *_requirements(line))
        report = Path(session.create_tmp()) / "tests.xml"
        session.run("python", "-m", "pytest", "-n", "4", f"--junit-xml={report}", "tests/unit", "tests/integration")
        session.run("python", "-m", "dev.demo")
        session.log(_row(session, report))


for _name, _line in LINES.items():
    _add(_name, _line)
