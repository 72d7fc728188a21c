"""
The contract with an AWS account: ``make contract``.

``document`` generates docs/contract.md, ``run`` checks the statements against the account of boto3's credentials, and
``clean-up`` deletes what a killed run has left.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path

# Airflow reads it when it is first imported, and makes its files there.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ.update(AIRFLOW_HOME=_HOME.name, AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR")

import botocore
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.contract.account import PREFIX, Account
from tests.contract.statement import GROUPS, HERE, PAGE, render, statements

ROOT = HERE.parents[1]
OUT = Path(os.environ.get("CONTRACT_OUT", ROOT / "build" / "contract"))
_COUNTED = {
    "CreateImage": "images",
    "CreateImageVersion": "versions of them",
    "CreateUserProfile": "user profiles",
    "CreateAppImageConfig": "app image configs",
}


class Recorder:
    """
    A plugin of pytest that gives statements their account, and notes what became of them.

    :param account: the account
    """

    __name__ = "contract"  # by which the fixture finds it

    def __init__(self, account):
        self.account = account
        self.outcomes = {}
        self.answers = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        """Note the outcome: that of the call, or of what kept it from being made."""
        report = yield
        if call.when == "call" or report.outcome != "passed":
            words = {"passed": "holds", "failed": "does not hold", "skipped": "not seen"}
            word = words[report.outcome] if call.when == "call" else "not checked"
            self.outcomes[item.name] = (word, "" if call.excinfo is None else call.excinfo.exconly())
        return report

    def pytest_runtest_teardown(self, item):
        """Note the answers."""
        self.answers[item.name] = self.account.take_answers()


def rehearse(files):
    """Run the statements against the emulator; return the answers by statement, and how much of what was created."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "answers"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
        environment = {**os.environ, "CONTRACT_ANSWERS": str(target)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}\n{done.stderr}\nThe statements do not even hold against the emulator.")
        entries = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    created = sum((Counter(entry["created"]) for entry in entries), Counter())
    return {entry["statement"]: entry["answers"] for entry in entries}, created


def clean_up(account, prefix, *, events):
    """Delete what has the prefix in its name; return whether nothing is left."""
    complete = True
    for text, delete in _leftovers(account, prefix, events=events):
        print(f"Deleting {text}", flush=True)
        try:
            delete()
        except (ClientError, BotoCoreError, TimeoutError, RuntimeError) as error:
            complete = False
            print(f"Could not delete {text}: {error}", file=sys.stderr)
    return complete and not _leftovers(account, prefix, events=events)


def _leftovers(account, prefix, *, events):
    return [*account.leftovers(prefix), *(account.event_leftovers(prefix) if events else ())]


def _clean_up_after(account, options):
    print(f"Deleting everything whose name starts with {account.prefix}; Ctrl-C leaves the rest", flush=True)
    try:
        complete = clean_up(account, account.prefix, events=options.events)
    except KeyboardInterrupt:
        complete = False
    if not complete:
        print(f"Not everything was deleted. To delete it: make contract CLEAN_UP=yes{_hint(options)}", file=sys.stderr)
    return complete


def _hint(options):
    domain = f" DOMAIN_ID={options.domain_id}" if options.domain_id else ""
    return f"{domain}{' EVENTS=yes' if options.events else ''}"


def run(options):
    """Check the statements against the account; return the exit status."""
    wanted = {"studio": bool(options.domain_id), "events": options.events}
    groups = [group for group in options.only or GROUPS if wanted.get(group, True)]
    files = [HERE / f"test_{group}.py" for group in groups]
    print("Running the statements against the emulator first", flush=True)
    rehearsed, created = rehearse(files)
    # Now, because cleaning up needs Airflow, and an import of it that Ctrl-C interrupts cannot be repeated.
    import_module("airflow_provider_imageversions.operators")
    account = Account(options.role_arn, options.base_image, options.domain_id or None, interval=options.interval)
    _print_plan(account, created, options)
    if not (options.confirm or _agreed("Create them?")):
        return 1
    # So that `kill` cleans up, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    recorder, status = Recorder(account), 2
    try:
        # --confcutdir leaves out the tests' own conftest, which keeps AWS away from them.
        arguments = ["-v", "--no-header", "-p", "no:cacheprovider", f"--confcutdir={HERE}", f"--rootdir={ROOT}"]
        status = pytest.main([*arguments, *map(str, files)], plugins=[recorder])
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
    finally:
        complete = _clean_up_after(account, options)
    _write(recorder, rehearsed)
    return int(status) or int(not complete)


def _print_plan(account, created, options):
    print(f"\nAccount {account.role_arn.split(':')[4]}, region {account.session.region_name}, ", end="")
    print(f"endpoint {account.client.meta.endpoint_url}")
    print(f"Names start with {account.prefix}, deleted at the end. This run creates about:")
    for operation, noun in _COUNTED.items():
        if created[operation]:
            print(f"  {created[operation]:4} {noun}")
    if options.domain_id:
        print(f"  It changes the default user settings of domain {options.domain_id}, and changes them back.")
    if options.events:
        print("     1 EventBridge rule and 1 SQS queue, asked for messages 180 times at most")
    cost = "less than 0.01 USD for the queue" if options.events else "0.00 USD"
    print(f"Estimated cost: {cost}. SageMaker does not charge for any of the above, and no app is started.")


def _agreed(question):
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        sys.exit("Nobody is here to ask. CONFIRM=yes does not ask.")


def _write(recorder, rehearsed):
    OUT.mkdir(parents=True, exist_ok=True)
    answers = [
        {"statement": name, **answer, "source": f"make contract, {datetime.now(timezone.utc):%Y-%m-%d}"}
        for name, taken in recorder.answers.items()
        for answer in taken
    ]
    (OUT / "answers.json").write_text(f"{json.dumps(answers, indent=1)}\n", encoding="utf-8")
    (OUT / "report.md").write_text(report(recorder, rehearsed), encoding="utf-8")
    print(f"\n{OUT / 'report.md'}\n{OUT / 'answers.json'}")


def report(recorder, rehearsed):
    """Return the report, in Markdown."""
    every = statements()
    now = datetime.now(timezone.utc)
    outcomes = {statement.name: recorder.outcomes.get(statement.name, ("not checked", "")) for statement in every}
    counts = Counter(word for word, _ in outcomes.values())
    parts = [
        f"# The contract with SageMaker, {now:%Y-%m-%d %H:%M} UTC\n\n",
        f"Region {recorder.account.session.region_name}, botocore {botocore.__version__}. ",
        f"{', '.join(f'{count} {word}' for word, count in counts.items())}.\n\n",
        "| statement | basis | seen |\n|---|---|---|\n",
        *(f"| {s.text} | {s.basis.kind}: {s.basis.source} | {outcomes[s.name][0]} |\n" for s in every),
    ]
    failed = [s for s in every if outcomes[s.name][1]]
    parts += ["\n## What does not hold, or was not seen\n"] if failed else []
    parts += [f"\n{s.text}\n\n```text\n{outcomes[s.name][1]}\n```\n" for s in failed]
    parts.append("\n## Differences of the emulator\n\n")
    different = [
        f"{s.text}\n\n```diff\n{difference}\n```\n\n"
        for s in every
        if (difference := _difference(rehearsed.get(s.name, []), recorder.answers.get(s.name, [])))
    ]
    return "".join([*parts, *(different or ["None.\n"])])


def _difference(emulators, accounts):
    lines = [f"- {json.dumps(answer, sort_keys=True)}" for answer in emulators if answer not in accounts]
    lines += [f"+ {json.dumps(answer, sort_keys=True)}" for answer in accounts if answer not in emulators]
    return "\n".join(lines) if accounts else ""


def clean_up_alone(options):
    """Delete what any run left; return the exit status."""
    account = Account(domain_id=options.domain_id or None, interval=options.interval)
    found = _leftovers(account, PREFIX, events=options.events)
    print("\n".join(text for text, _ in found) or f"There is nothing whose name starts with {PREFIX}")
    if not found:
        return 0
    if not (options.confirm or _agreed("Delete them?")):
        return 1
    return int(not clean_up(account, PREFIX, events=options.events))


def document(_options):
    """Write the page of the documentation."""
    PAGE.write_text(render(), encoding="utf-8")
    return 0


def main():
    """Read the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, function in {"run": run, "clean-up": clean_up_alone, "document": document}.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if name == "document":
            continue
        command.add_argument("--domain-id", default="", help="a domain of Studio that is not used")
        command.add_argument("--events", action="store_true", help="with EventBridge and a queue")
        command.add_argument("--interval", type=float, default=2.0, help="seconds between two checks of a status")
        command.add_argument("--confirm", action="store_true", help="do not ask for a confirmation")
        if name == "run":
            command.add_argument("--role-arn", required=True, help="a role that SageMaker can assume")
            command.add_argument("--only", nargs="+", choices=GROUPS, help="some groups of statements")
            command.add_argument("--base-image", required=True, help="a container image in Amazon ECR, with its tag")
    options = parser.parse_args()
    return options.function(options)


if __name__ == "__main__":
    sys.exit(main())
