"""What each fault does to each part of the package: one table, for test_faults.py and for docs/faults.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"

PARTS = {
    "hook": "hook",
    "list": "list operator",
    "poke": "sensor, poke",
    "reschedule": "sensor, reschedule",
    "deferrable": "sensor, deferrable",
    "event": "event trigger",
    "create": "create operator",
    "promote": "promote operator",
    "delete": "delete operator",
    "prune": "prune operator",
    "rollout": "roll-out operator",
}
READERS = ("hook", "list")
SENSORS = ("poke", "reschedule", "deferrable")
CHANGERS = ("create", "promote", "delete", "prune", "rollout")

UNNOTICED = "succeeds"
WAITS = "waits"
RENEWS = "renews"
REPORTS = "reports"
WORDS = {
    UNNOTICED: "Returns the right result at the first try of the task.",
    WAITS: "Retries until the fault is over, and then returns the right result. Sensors and operators retry until "
    "their `timeout`, event triggers without a limit.",
    RENEWS: "Loads the new credentials from the connection, and returns the right result.",
    REPORTS: "Logs an error, polls again every five minutes, and continues once somebody has fixed the cause.",
}

POLLING = "SageMakerImageVersionPollingError"
FAILED = "ImageVersionFailedError"
REFUSED = "SageMakerImageOperationError"
TIMEOUT = "AirflowSensorTimeout"
TIMED_OUT = "SageMakerImageOperationTimeoutError"


def cells(
    *,
    readers: str | None = None,
    sensors: str | None = None,
    event: str | None = None,
    changers: str | None = None,
    **one: str | None,
) -> dict[str, str | None]:
    groups = {
        **dict.fromkeys(READERS, readers),
        **dict.fromkeys(SENSORS, sensors),
        "event": event,
        **dict.fromkeys(CHANGERS, changers),
    }
    return {**groups, **one}


@dataclass(frozen=True)
class Row:
    """
    A fault.

    Cells: a key of WORDS, or the error that the part raises: the name of an exception, or the code of a ClientError;
    None: the fault can't come there.

    Fault: what the emulator is asked to do (to every call, unless it names the operation). Where there is more to do,
    test_faults.py has a function with the name of the row.

    Says: what the error's text has to have; a regular expression.
    """

    name: str
    title: str
    cells: dict[str, str | None]
    fault: dict[str, Any] = field(default_factory=dict)
    says: str = ""
    note: str = ""


def _passing(name: str, what: str, error: str, once: dict[str, Any], says: str = "", *, times: int = 2) -> list[Row]:
    """A fault that passes, and that botocore tries again."""
    return [
        Row(
            f"{name}_once",
            f"{what}, once",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, changers=UNNOTICED),
            {**once, "times": 1} if once else {},
        ),
        Row(
            f"{name}_long",
            f"{what}, for longer than botocore tries",
            cells(readers=error, sensors=WAITS, event=WAITS, changers=WAITS),
            {**once, "times": times} if once else {},
            says,
        ),
    ]


def _damaged(kind: str, what: str) -> Row:
    return Row(
        kind,
        what,
        cells(readers="ResponseParserError", sensors=WAITS, event=WAITS, changers=WAITS),
        {"kind": kind, "times": 1},
        "response is broken",
    )


def _lasting(name: str, what: str, kind: str, error: str, says: str) -> Row:
    return Row(
        name,
        what,
        cells(readers=error, sensors=error, deferrable=POLLING, event=REPORTS, changers=error),
        {"kind": kind, "times": None},
        says,
    )


def _momentary(name: str, what: str, kind: str, error: str, *, changers: str, note: str = "") -> Row:
    return Row(
        name,
        what,
        cells(readers=error, sensors=WAITS, event=WAITS, changers=changers),
        {"kind": kind, "times": 2},
        error,
        note,
    )


def _rotated(name: str, what: str, kind: str, error: str) -> Row:
    return Row(
        name,
        what,
        cells(readers=error, sensors=RENEWS, event=RENEWS, changers=RENEWS),
        {"kind": kind, "times": None, "access_key_id": "stale"},
        error,
        "A hook keeps its client. Create another hook. The next try of the list operator does so.",
    )


_GROUPS: dict[str, list[Row]] = {
    "SageMaker and the network": [
        *_passing("throttling", "throttling", "ThrottlingException", {"kind": "throttling"}, "Rate exceeded"),
        *_passing("server_error", "500 InternalFailure", "InternalFailure", {"kind": "server_error"}),
        *_passing("unavailable", "503 ServiceUnavailable", "ServiceUnavailable", {"kind": "unavailable"}),
        *_passing("reset", "connection reset before the response", "ConnectionClosedError", {"kind": "reset"}),
        # Once in both rows, as each costs the read timeout.
        *_passing(
            "timeout",
            "no response within the read timeout",
            "ReadTimeoutError",
            {"kind": "slow", "seconds": 10},
            times=1,
        ),
        *_passing("dns", "the host's name cannot be resolved", "EndpointConnectionError", {}, "Could not connect"),
        Row(
            "slow",
            "slow responses, within the read timeout",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, changers=UNNOTICED),
            {"kind": "slow", "seconds": 0.03, "times": 2},
        ),
        _damaged("truncated", "a response that ends in the middle"),
        _damaged("broken_json", "a response that is not JSON"),
        Row(
            "outage",
            "an outage that outlasts `timeout`",
            cells(readers="ServiceUnavailable", sensors=TIMEOUT, event=WAITS, changers=TIMED_OUT),
            {"kind": "unavailable", "times": None},
        ),
        Row(
            "lost_answer",
            "the call took effect, but its response was lost",
            cells(changers=UNNOTICED),
            {"kind": "lost_answer", "times": 1},
            note="No version is created twice.",
        ),
        Row(
            "in_use",
            "400 ResourceInUse: somebody else changes the image",
            cells(changers=WAITS),
            {"kind": "in_use", "times": 2},
        ),
    ],
    "Credentials and clocks": [
        _rotated(
            "expired_rotated",
            "credentials that expire, with new ones in the connection",
            "expired_token",
            "ExpiredTokenException",
        ),
        _rotated(
            "withdrawn_rotated",
            "credentials that are withdrawn, with new ones in the connection",
            "invalid_token",
            "UnrecognizedClientException",
        ),
        _lasting(
            "expired",
            "expired credentials, without new ones in the connection",
            "expired_token",
            "ExpiredTokenException",
            "expired",
        ),
        _lasting(
            "withdrawn",
            "credentials that are not valid",
            "invalid_token",
            "UnrecognizedClientException",
            "token included in the request is invalid",
        ),
        Row(
            "late_credentials",
            "an endpoint of the credential chain returns expired credentials, for a while",
            cells(readers="CredentialsError", sensors=WAITS, event=WAITS, changers=WAITS),
            says="still expired",
            note="The same applies to all errors of the credential chain, such as those of endpoints, files, external "
            "processes and identity providers.",
        ),
        Row(
            "no_credentials",
            "the same, permanently",
            cells(
                readers="CredentialsError",
                sensors="CredentialsError",
                deferrable=POLLING,
                event=REPORTS,
                changers="CredentialsError",
            ),
            says="still expired",
        ),
        _lasting("denied", "access denied", "access_denied", "AccessDeniedException", "not authorized to perform"),
        _momentary(
            "denied_briefly",
            "access denied, until a new policy takes effect",
            "access_denied",
            "AccessDeniedException",
            changers="AccessDeniedException",
            note="A sensor waits up to 10 seconds for it. A sensor and an operator that changes something wait up to 2 "
            "minutes for credentials.",
        ),
        _lasting(
            "clock_skew",
            "the machine's clock is 15 minutes slow",
            "clock_skew",
            "InvalidSignatureException",
            "Signature expired",
        ),
        _momentary(
            "clock_skew_briefly",
            "the same, until the clock is set",
            "clock_skew",
            "InvalidSignatureException",
            changers=WAITS,
        ),
        Row(
            "future",
            "SageMaker's clock is an hour ahead, so versions are from the future",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, changers=UNNOTICED, rollout=None),
            note="Pruning with `keep_younger_than` keeps them.",
        ),
    ],
    "Pages": [
        Row(
            "invalid_token",
            "a `starting_token` that SageMaker did not return",
            cells(readers="ValidationException"),
        ),
        Row(
            "repeating_once",
            "the same page twice",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, changers=UNNOTICED, delete=None, rollout=None),
            {"kind": "repeating_token", "times": 1},
        ),
        Row(
            "repeating",
            "the same page forever",
            cells(readers="PaginationError", sensors=WAITS, event=WAITS, changers=WAITS, delete=None, rollout=None),
            {"kind": "repeating_token", "times": None},
        ),
        Row(
            "cyclic",
            "repeating tokens",
            cells(readers="PaginationError", sensors=WAITS, event=WAITS, changers=WAITS, delete=None, rollout=None),
            {"kind": "cyclic_token", "times": None},
        ),
        Row(
            "empty_page",
            "an empty page in between",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, prune=UNNOTICED),
            {"kind": "empty_page", "after": 1, "times": 1},
        ),
        Row(
            "added_between",
            "versions are added between two pages",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, prune=UNNOTICED),
            note="No version is listed twice. New versions are in the next list and get their events.",
        ),
        Row(
            "deleted_between",
            "versions are deleted between two pages",
            cells(readers=UNNOTICED, sensors=UNNOTICED, event=UNNOTICED, prune=UNNOTICED),
        ),
        Row(
            "image_deleted_between",
            "the image is deleted between two pages",
            cells(readers="ResourceNotFound", sensors=WAITS, event=WAITS, prune="ResourceNotFound"),
            says="finds no image 'my-image'",
            note="Sensors and event triggers continue when the image is created again.",
        ),
    ],
    "Images and versions": [
        Row(
            "missing",
            "the image does not exist (yet)",
            cells(
                readers="ResourceNotFound",
                sensors=WAITS,
                event=WAITS,
                changers="ResourceNotFound",
                delete=UNNOTICED,
            ),
            says="finds no (version . of )?image 'my-image'",
            note="Deleting an image or version that does not exist succeeds.",
        ),
        Row(
            "recreated",
            "the image is deleted and created again",
            cells(sensors=WAITS, event=WAITS),
            note="Numbers start at 1 again. The new versions get events with other `event_id`s.",
        ),
        Row(
            "deleting",
            "the version is DELETING",
            cells(
                sensors=FAILED,
                event=UNNOTICED,
                create=REFUSED,
                promote=REFUSED,
                delete=WAITS,
                prune=UNNOTICED,
                rollout=REFUSED,
            ),
            says="version 3 is DELETING",
            note="In this row and the next ones, promoting moves another version's alias to this version.",
        ),
        Row(
            "gone",
            "the version is deleted while the task waits for it",
            cells(
                sensors=FAILED,
                reschedule=TIMEOUT,
                event=UNNOTICED,
                create=REFUSED,
                promote="ResourceNotFound",
                delete=UNNOTICED,
                prune=UNNOTICED,
                rollout="ResourceNotFound",
            ),
            note="In reschedule mode, each check is its own process and cannot distinguish a version that does not "
            "exist yet from one that was deleted.",
        ),
        Row(
            "gone_and_succeeded",
            "the same, and a later version is CREATED",
            cells(sensors=FAILED, event=UNNOTICED),
            says="version 3 does not exist and never will, because version 4 is already CREATED",
        ),
        Row(
            "unknown_status",
            "a status that this package does not know",
            cells(
                readers=UNNOTICED,
                sensors=WAITS,
                event=WAITS,
                create=WAITS,
                promote=REFUSED,
                delete=UNNOTICED,
                prune=UNNOTICED,
                rollout=REFUSED,
            ),
            {"kind": "unknown_status", "status": "ARCHIVED", "times": 3},
            "is ARCHIVED",
            "Lists return the status unchanged, and pruning keeps the version.",
        ),
        Row(
            "long_reason",
            "a FailureReason of 1,024 characters, with control and non-ASCII characters",
            cells(
                readers=UNNOTICED,
                sensors=FAILED,
                event=UNNOTICED,
                changers=REFUSED,
                promote=None,
                prune=UNNOTICED,
                rollout=None,
            ),
            says="no\ufffd base image \N{SNOWMAN} \ufffdx{900,}$",
            note="Control characters are replaced by \N{REPLACEMENT CHARACTER}, and an error has it in one line.",
        ),
    ],
    "Studio": [
        Row(
            "update_fails",
            "the update of the domain fails",
            cells(rollout=REFUSED),
            says="no\ufffd base image \N{SNOWMAN} \ufffdx{900,}",
            note="The previous list of custom images is restored.",
        ),
        Row(
            "updating",
            "somebody else is updating the domain",
            cells(rollout=WAITS),
        ),
        Row(
            "domain_missing",
            "the domain does not exist",
            cells(rollout="ResourceNotFound"),
        ),
    ],
}
TABLE = [row for rows in _GROUPS.values() for row in rows]

_HEAD = """\
<!-- Made of tests/fault_table.py by `python -m tests.fault_table`; change that. -->
# What happens when something fails

This page shows what each class does when something goes wrong between Airflow and SageMaker.

In short:

- Throttling and outages: the hook and the list operator fail after botocore's three attempts, so set `retries`. The
  hook's `find_image_version_usage` retries each call for up to 5 minutes. All other classes wait until the fault is
  over, or until their `timeout`.
- Refused credentials: sensors and operators that change something load the credentials again for 2 minutes, and then
  fail.
- Denied access: sensors and deferred operators fail after 10 seconds, other operators at once. Asset watchers retry
  every five minutes.

The columns are `SageMakerImageVersionsHook`, `SageMakerListImageVersionsOperator`, `SageMakerImageVersionSensor` in
each mode, `SageMakerImageVersionEventTrigger` (the watcher of an asset), and the operators that create, promote,
delete, prune and roll out versions. Each cell is a test, which runs the class over HTTP against the
[emulator](testing.md) with that fault. For failures of Airflow itself, see [the tests with a real
Airflow](promises.md#how-they-are-tested).

"""
_LEGEND = """\
- The name of an exception, or a code of botocore's `ClientError`: the task fails with this error, and Airflow retries
  it as often as `retries` says. After `ImageVersionFailedError` and `AirflowSensorTimeout`, Airflow does not retry. The
  message of `SageMakerImageVersionPollingError` contains SageMaker's own error.
- \N{EN DASH}: the fault cannot happen there.
"""


def render() -> str:
    """Return the page for the documentation."""

    def shown(cell: str | None) -> str:
        return "\N{EN DASH}" if cell is None else cell if cell in WORDS else f"`{cell}`"

    words = "".join(f"- *{word}*: {meaning[0].lower()}{meaning[1:]}\n" for word, meaning in WORDS.items())
    parts = [_HEAD, words, _LEGEND]
    for heading, rows in _GROUPS.items():
        parts += [
            f"\n## {heading}\n\n",
            f"| fault | {' | '.join(PARTS.values())} |\n",
            "|---" * (1 + len(PARTS)),
            "|\n",
        ]
        parts += [f"| {row.title} | {' | '.join(shown(row.cells[part]) for part in PARTS)} |\n" for row in rows]
        notes = [f"- *{row.title}*: {row.note}\n" for row in rows if row.note]
        parts += ["\n", *notes] if notes else []
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
