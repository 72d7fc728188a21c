"""
``python -m benchmarks``: compares this package with existing solutions in one run, and writes ``benchmarks/out/``.

The figures depend on the machine, the ratios between them less so. Do not use the machine for anything else during the
run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.measure import environment, run_fresh
from benchmarks.server import LocalServer

OUT = Path(__file__).parent / "out"
PACKAGES = ("apache-airflow", "apache-airflow-providers-amazon", "boto3", "botocore", "aiobotocore")
LIST_WAYS = (
    "botocore's paginator, 100 a page",
    "botocore's paginator, its default page",
    "hook.list_image_versions",
    "hook.iter_image_versions",
)
NEWEST = "newest CREATED (limit=1)"


def plan(size: str, *, peer: bool, airflow: bool) -> list[tuple[str, str, dict[str, Any]]]:
    """
    Return what to measure: the part of the results, the module and its configuration.

    :param size: ``quick`` (only checks that the benchmarks work), ``usual`` or ``full``.
    :param peer: Whether the peer is installed.
    :param airflow: Whether to also start a real Airflow.
    """
    listed, rounds, many = (1_000, 1, 100) if size == "quick" else (10_000, 3, 1_000)
    todo: list[tuple[str, str, dict[str, Any]]] = [("imports", "imports", {})] * (2 * rounds + 1)
    for _ in range(rounds):
        todo += [("listing", "listing", {"way": way, "versions": listed, "memory": False}) for way in LIST_WAYS]
    todo.append(("listing", "listing", {"way": NEWEST, "versions": listed, "memory": False}))
    todo += [("listing_memory", "listing", {"way": way, "versions": listed, "memory": True}) for way in LIST_WAYS]
    todo += [
        ("listing_memory", "listing", {"way": LIST_WAYS[-1], "versions": versions, "memory": True})
        for versions in (listed // 10, listed * 10)
    ]

    kinds = [("empty", many), ("empty, logs a line", many), ("ours", many), *([("peer", many // 20)] if peer else [])]
    todo += [
        ("wait_memory", "waits", {"what": what, "kind": kind, "waits": waits})
        for kind, waits in kinds
        for what in ("rss", "tracemalloc")
    ]
    todo += [
        ("waits", "waits", {"what": "run", "kind": kind, "waits": waits, "images": images, "interval": interval})
        for kind, waits, images, interval in _wait_runs(size)
        if peer or kind != "peer"
    ]
    if airflow:
        # One second between polls and several runs, because Airflow processes events of triggers once a second.
        sensors, repeats = (4, 1) if size == "quick" else (20, 8)
        todo += [
            ("airflow", "real_airflow", {"kind": kind, "waits": sensors, "interval": 1, "repeats": repeats})
            for kind in report.AIRFLOW_KINDS
            if peer or kind != "peer"
        ]
    return todo


def _wait_runs(size: str) -> list[tuple[str, int, int, int]]:
    # Our calls are limited to 1 a second for each connection, so more images need a longer interval.
    if size == "quick":
        return [("ours", 1, 1, 2), ("peer", 1, 1, 2), ("ours", 20, 2, 3), ("peer", 20, 2, 3)]
    runs = [(kind, waits, 1, 10) for waits in (1, 50, 200) for kind in ("ours", "peer")]
    runs += [("ours", 1_000, 1, 10), ("ours", 5_000, 1, 10), ("ours", 1_000, 10, 15), ("ours", 5_000, 50, 60)]
    runs.append(("ours, created_after", 1_000, 1, 10))
    if size == "full":
        several = [(10, 15), (50, 60)]
        runs += [("ours", 1_000, 1, 60), ("peer", 1_000, 1, 60), ("ours", 5_000, 10, 15), ("ours", 1_000, 50, 60)]
        runs += [(kind, waits, *images) for images in several for waits in (50, 200) for kind in ("ours", "peer")]
    return runs


def _describe_machine(size: str) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _is_there(name)}
    return {
        "size": size,
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "packages": versions,
    }


def _is_there(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="check that the benchmarks work, 2 min"
    )
    parser.add_argument("--full", dest="size", action="store_const", const="full", help="every N and M, an hour, 3 GB")
    parser.add_argument("--airflow", action="store_true", help="sensors in a real Airflow as well, 12 min")
    parser.add_argument("--report", action="store_true", help="write the report of the last results again")
    arguments = parser.parse_args()
    size = arguments.size or "usual"
    OUT.mkdir(exist_ok=True)
    results_file = OUT / "results.json"

    if arguments.report:
        results = json.loads(results_file.read_text())
    else:
        results = _measure(size, airflow=arguments.airflow)
        results_file.write_text(json.dumps(results, indent=1) + "\n")
    text = report.markdown(results)
    (OUT / "results.md").write_text(text)
    (OUT / "waits.svg").write_text(report.plot(results))
    print(text)
    return 1 if results["failed"] else 0


def _measure(size: str, *, airflow: bool) -> dict[str, Any]:
    peer = importlib.util.find_spec("aiobotocore") is not None
    if not peer:
        print("aiobotocore is not installed, so the Amazon provider's trigger is left out.", file=sys.stderr)
    results: dict[str, Any] = {"environment": _describe_machine(size), "failed": []}
    todo = plan(size, peer=peer, airflow=airflow)
    with LocalServer() as server, tempfile.TemporaryDirectory(prefix="benchmarks-") as home:
        env = environment(server.endpoint, home)
        run_fresh("imports", env)  # makes Airflow write its configuration, and Python its compiled files
        for number, (part, module, config) in enumerate(todo, 1):
            print(f"{number}/{len(todo)} {module} {config}", file=sys.stderr, flush=True)
            endpoint = {} if module == "imports" else {"endpoint": server.endpoint}
            try:
                result = run_fresh(module, env, **config, **endpoint)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                results["failed"].append({"part": part, **config})
            else:
                result.pop("endpoint", None)
                results.setdefault(part, []).append(result)
    return results


if __name__ == "__main__":
    sys.exit(main())
