"""
Run the tests on each supported Airflow: ``make compat``, or ``make compat LINE=2.11`` for one.

A line is a release of Airflow with an Amazon provider of the same time, and all other packages as of a date soon after.
uv installs each line into its own environment, where the tests and the demo run.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Line:
    """The packages of a line: the newest versions, unless it has pins, a date or other options of uv."""

    python: str
    pins: dict[str, str] = field(default_factory=dict)
    day: str = ""
    options: tuple[str, ...] = ()


def _line(python: str, airflow: str, amazon: str, day: str) -> Line:
    return Line(python, {"apache-airflow": airflow, "apache-airflow-providers-amazon": amazon}, day)


LINES = {
    # The minimum versions of both.
    "2.11": _line("3.10", "2.11.0", "9.8.0", "2025-06-15"),
    "3.0": _line("3.11", "3.0.6", "9.12.0", "2025-09-15"),
    "3.1": _line("3.12", "3.1.8", "9.22.0", "2026-03-15"),
    "3.2": _line("3.12", "3.2.0", "9.25.0", "2026-04-15"),
    "3.3": _line("3.13", "3.3.1", "9.34.0", "2026-08-15"),
    "newest": Line("3.13"),
}
# On request only: few machines have this Python, and a prerelease may have faults of its own.
ON_REQUEST = {
    "python3.14": Line("3.14"),
    "prerelease": Line("3.13", options=("--prerelease", "allow")),
}


def run(name: str, line: Line) -> bool:
    """Install a line and run everything on it; return whether all of it passed."""
    print(f"==> {name}: installing", flush=True)
    environment = ROOT / "build" / "compat" / name
    python = environment / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    pins = [f"{package}=={number}" for package, number in line.pins.items()]
    options = [*line.options, *(["--exclude-newer", line.day] if line.day else [])]
    steps = (
        [uv, "venv", "--quiet", "--clear", "--python", line.python, environment],
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            environment,
            *options,
            "-e",
            ".[emulator]",
            "--group",
            "test",
            *pins,
        ],
        [uv, "pip", "list", "--quiet", "--python", environment],
        [python, "-m", "pytest", "-n", "4", "--dist", "worksteal", "tests/unit", "tests/integration"],
        [python, "-m", "dev.demo"],
    )
    for step in steps:
        if subprocess.run(step, cwd=ROOT, check=False).returncode != 0:
            print(f"==> {name}: failed", flush=True)
            return False
    print(f"==> {name}: passed", flush=True)
    return True


def main(names: list[str]) -> int:
    """Run the lines with these names, or all but those on request."""
    known = LINES | ON_REQUEST
    if unknown := [name for name in names if name not in known]:
        print(f"Unknown line {', '.join(unknown)}; choose from {', '.join(known)}.", file=sys.stderr)
        return 2
    failed = [name for name in names or LINES if not run(name, known[name])]
    print(f"==> failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
