"""
The Chromium with which the end-to-end tests open Airflow's web page.

``python -m dev.browser`` makes sure that one is installed: the system's or Playwright's. If there is none, it installs
Debian's if permitted, and otherwise downloads Playwright's.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",  # CI runs as root in a container, which cannot have a sandbox; only our own Airflow is opened
    "--no-first-run",
    "--disable-gpu",
    # Nothing leaves this machine.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
HINT = (
    "There is no Chromium for the tests of Airflow's page. Install one, as `chromium` or `google-chrome` on the PATH, "
    "or let Playwright: `python -m playwright install --with-deps chromium`"
)


def launch(playwright: Playwright) -> Browser:
    """Start a headless Chromium with its own profile."""
    path = _find(playwright)
    if path is None:
        raise RuntimeError(f"{HINT}; `make browser` does what it can.")
    return playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))


def _find(playwright: Playwright) -> str | None:
    found = [*filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path]
    return next((path for path in found if Path(path).exists() and _starts(path)), None)


def _starts(path: str) -> bool:
    """Return whether a command is a working browser, and not one without libraries or Ubuntu's script for the snap."""
    return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0


def _installers() -> Iterator[list[list[str]]]:
    try:
        system = platform.freedesktop_os_release()["ID"]
    except OSError:  # not Linux
        system = ""
    if system == "debian" and os.geteuid() == 0:
        yield [["apt-get", "update"], ["apt-get", "install", "-y", "chromium"]]
    yield [[sys.executable, "-m", "playwright", "install", "chromium"]]


def main() -> int:
    """Make sure that a browser is installed; return the exit status."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with sync_playwright() as playwright:
        for commands in _installers():
            if _find(playwright):
                return 0
            for command in commands:
                print(f"There is no Chromium: {' '.join(command)}", flush=True)
                if subprocess.run(command, env=environment, check=False).returncode:
                    break
        if _find(playwright):
            return 0
    print(HINT, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
