"""What a statement about SageMaker rests on, and the page of the documentation that lists the statements."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "contract.md"

GROUPS = {
    "images": "Images",
    "versions": "Versions",
    "updates": "Updates",
    "deletion": "Deletion",
    "aliases": "Aliases",
    "lists": "Lists",
    "studio": "SageMaker Studio",
    "events": "EventBridge",
}
"""The modules that hold the statements, ``test_<group>.py`` each, with their headings."""


@dataclass(frozen=True)
class Basis:
    """
    What a statement rests on.

    :param kind: ``recorded``, ``documented`` or ``assumed``
    :param source: where an answer of SageMaker or the documentation can be found; of an assumption, what suggests it
    """

    kind: str
    source: str


class Statement(NamedTuple):
    """One statement, as the documentation and the report have it."""

    group: str
    name: str
    text: str
    basis: Basis


def recorded(source):
    """Mark a statement that an answer of SageMaker shows; the source is public."""
    return _resting_on(Basis("recorded", source))


def documented(source):
    """Mark a statement that AWS, or code that is tested against AWS, says in public."""
    return _resting_on(Basis("documented", source))


def assumed(source):
    """Mark a statement that nothing public decides, and say why it is made."""
    return _resting_on(Basis("assumed", source))


def _resting_on(basis):
    def mark(function):
        function.basis = basis
        return function

    return mark


def statements():
    """Return all statements, in the order of the source."""
    found = []
    for group in GROUPS:
        module = import_module(f"tests.contract.test_{group}")
        for name, function in vars(module).items():
            if hasattr(function, "basis"):
                text = " ".join(inspect.getdoc(function).split())
                found.append(Statement(group, name, text, function.basis))
    return found


def unmarked(group):
    """Return the tests of a group that do not say what they rest on."""
    tree = ast.parse((HERE / f"test_{group}.py").read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    return sorted(tests - {statement.name for statement in statements()})


_HEAD = """\
<!-- Made of tests/contract by `python -m tests.contract document`; change that. -->
# SageMaker's behavior: known and assumed

AWS does not document everything that this package depends on. This page lists how the package and its
[emulator](testing.md) expect SageMaker's image API to behave, and why. Each statement is a test in `tests/contract`,
which `make test` runs against the emulator. Nobody has run them against an AWS account yet; you can, see
[below](#check-the-statements-against-your-account).

- *recorded*: a public response of SageMaker shows it.
- *documented*: AWS says so, or a project whose tests run against AWS relies on it.
- *assumed*: nothing public decides it. The emulator behaves like this, and SageMaker may not.

"""
_TAIL = """
## Check the statements against your account

You need a checkout of the repository, a role that SageMaker can assume and that may pull the base image from Amazon
ECR, and the [permissions](security.md#permissions) of all operators:

```console
make contract AWS_PROFILE=sandbox ROLE_ARN=arn:aws:iam::123456789012:role/sagemaker \\
    BASE_IMAGE=123456789012.dkr.ecr.us-east-1.amazonaws.com/team/churn:1.4
```

The command

1. runs the statements against the emulator, and prints what the same run will create in your account, and what that
   costs: nothing, as SageMaker does not charge for images and versions, or less than 0.01 USD with `EVENTS=yes`;
2. asks before it creates anything, unless you set `CONFIRM=yes`;
3. runs the statements. Each resource has a name that starts with `airflow-contract-` and the tag
   `created-by: airflow-provider-imageversions`;
4. deletes what it created, also after Ctrl-C. If it was killed, `make contract CLEAN_UP=yes AWS_PROFILE=sandbox`
   deletes what is left; set `DOMAIN_ID` and `EVENTS` as in the killed run;
5. writes `build/contract/report.md`, which says for each statement whether it holds and how the emulator's responses
   differ, and `build/contract/answers.json`, the responses without your account's IDs. Copy the latter to
   `tests/contract/answers/` to test the emulator with them.

Two groups of statements run only if you ask for them:

- `DOMAIN_ID=d-...`: SageMaker Studio. Choose a domain that nobody uses: its default user settings are changed and
  restored, and a user profile is created in it. No app is started.
- `EVENTS=yes`: EventBridge. A rule and an Amazon SQS queue are created.

To run the statements elsewhere, such as against an emulator, set `AWS_ENDPOINT_URL_SAGEMAKER`.
"""


def render():
    """Return the page for the documentation."""
    parts = [_HEAD]
    every = statements()
    counts = {kind: sum(s.basis.kind == kind for s in every) for kind in ("recorded", "documented", "assumed")}
    parts.append(f"Of {len(every)} statements, {', '.join(f'{count} are {kind}' for kind, count in counts.items())}.\n")
    parts.append("\n## Assumed behavior\n\n| | statement | why it is assumed |\n|---|---|---|\n")
    for group, heading in GROUPS.items():
        own = [s for s in every if s.group == group and s.basis.kind == "assumed"]
        parts += [f"| {heading} | {s.text} | {s.basis.source} |\n" for s in own]
    parts.append("\n## Recorded and documented behavior\n\n| | statement | basis | source |\n|---|---|---|---|\n")
    for group, heading in GROUPS.items():
        own = [s for s in every if s.group == group and s.basis.kind != "assumed"]
        parts += [f"| {heading} | {s.text} | {s.basis.kind} | {s.basis.source} |\n" for s in own]
    return "".join([*parts, _TAIL])
