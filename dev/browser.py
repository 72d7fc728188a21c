"""
The Chromium in which the end-to-end tests look at Airflow's page.

``python -m dev.browser`` makes sure that there is one: the system's or Playwright's own. Where neither is, it installs
Debian's when it may, or else has Playwright download one.
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
    "--no-sandbox",  # root, as which CI runs in a container, gets none; all that is opened is our own Airflow
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
WAY_OUT = (
    "There is no Chromium for the tests of Airflow's page. Install one, as `chromium` or `google-chrome` on the PATH, "
    "or let Playwright: `python -m playwright install --with-deps chromium`"
)


def launch(playwright: Playwright) -> Browser:
    """Start a Chromium without a window, with a profile of its own."""
    path = _find(playwright)
    if path is None:
        raise RuntimeError(f"{WAY_OUT}; `make browser` does what it can.")
    return playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))


def _find(playwright: Playwright) -> str | None:
    found = [*filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path]
    return next((path for path in found if Path(path).exists() and _starts(path)), None)


def _starts(path: str) -> bool:
    """Tell a browser from one that lacks libraries, and from Ubuntu's script that only tells of a snap."""
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
    """Make sure of a browser and return the exit status."""
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
    print(WAY_OUT, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
