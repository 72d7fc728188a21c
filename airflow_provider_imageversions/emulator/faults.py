"""
Faults of AWS and of the network that the emulator injects on request.

The kinds for :meth:`~airflow_provider_imageversions.emulator.server.EmulatorClient.add_fault`:

======================  ===============================================================================
kind                    what the client receives
======================  ===============================================================================
``throttling``          400 ThrottlingException "Rate exceeded"
``server_error``        500 InternalFailure
``unavailable``         503 ServiceUnavailable
``reset``               the connection is reset (RST) before the response
``lost_answer``         the call takes effect, but the connection is reset before the response
``not_found``           400 ResourceNotFound, as for a resource created a moment ago
``in_use``              400 ResourceInUse "Resource was modified concurrently"
``invalid_state``       400 ValidationException "Image ... is in an invalid state."
``limit_exceeded``      400 ResourceLimitExceeded, as for an image above the quota of 250
``slow``, ``timeout``   the normal response, ``seconds`` late, or when the faults are cleared; a client with a
                        shorter timeout gives up
``expired_token``       400 ExpiredTokenException
``invalid_token``       400 UnrecognizedClientException
``clock_skew``          400 InvalidSignatureException, as for a client whose clock is 15 minutes slow
``access_denied``       400 AccessDeniedException with the caller, the action and the resource in its message;
                        ``action`` is the denied action (default: that of the operation, such as
                        ``sagemaker:CreateImage``)
``broken_json``         200 with half of the JSON, which botocore parses as an empty response
``truncated``           200 with half of the body that Content-Length announces, with the same effect
``repeating_token``     the NextToken that was sent, so that the same page repeats forever
``cyclic_token``        NextTokens that repeat in a cycle: A, B, A, B
``empty_page``          an empty page with a NextToken; the list continues after it
``unknown_status``      the normal response with every status replaced by ``status`` (default: ``ARCHIVED``)
======================  ===============================================================================

Each response that a fault creates or changes has the header ``X-Emulator-Fault`` with the kind.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from moto.utilities.utils import get_partition

from airflow_provider_imageversions.emulator.models import IMAGE_QUOTA, quota_message
from airflow_provider_imageversions.emulator.paging import Token
from airflow_provider_imageversions.emulator.wire import CONTENT_TYPE, error_body

if TYPE_CHECKING:
    from collections.abc import Callable

_JSON_HEADERS = {"Content-Type": CONTENT_TYPE}
FAULT_HEADER = "X-Emulator-Fault"
_ACCOUNT_ID = "123456789012"
_PAGES = {
    "ListAppImageConfigs": "AppImageConfigs",
    "ListApps": "Apps",
    "ListDomains": "Domains",
    "ListImages": "Images",
    "ListImageVersions": "ImageVersions",
    "ListAliases": "SageMakerImageVersionAliases",
    "ListSpaces": "Spaces",
    "ListUserProfiles": "UserProfiles",
}


@dataclass(frozen=True)
class Call:
    """
    One request to SageMaker, as it came in.

    :param operation: such as ``ListImageVersions``
    :param parameters: the JSON in its body
    :param region: from its credential scope
    :param access_key_id: from its credential scope
    :param user_agent: of the client
    """

    operation: str
    parameters: dict[str, Any]
    region: str
    access_key_id: str | None
    user_agent: str


@dataclass(frozen=True)
class Answer:
    """
    What goes back on the connection.

    :param status: HTTP status
    :param headers: HTTP headers; Content-Length may lie
    :param body: the bytes to send
    :param ending: what becomes of the connection: kept, closed after the body, or reset without an answer
    """

    status: int
    headers: dict[str, str]
    body: bytes
    ending: Literal["keep", "close", "reset"] = "keep"


Effect: TypeAlias = "Callable[[Call, Fault, Callable[[], Answer]], Answer]"


@dataclass
class Fault:
    """
    A fault for the next calls to which it applies.

    :param kind: A key of :data:`KINDS`.
    :param operation: The operation that fails; None for all operations. (default: ``ListImageVersions``)
    :param image_name: The image whose calls fail. (default: all)
    :param access_key_id: The access key ID whose calls fail. (default: all)
    :param times: Number of calls that fail; None for all until the faults are cleared. (default: 1)
    :param after: Number of matching calls that succeed first. (default: 0)
    :param options: Options of the kind: ``seconds``, ``status`` or ``action``. (default: none)
    """

    kind: str
    operation: str | None = "ListImageVersions"
    image_name: str | None = None
    access_key_id: str | None = None
    times: int | None = 1
    after: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown fault {self.kind!r}; there are: {', '.join(KINDS)}")
        unknown = set(self.options) - set(_OPTIONS.get(self.kind, ()))
        if unknown:
            raise ValueError(f"Fault {self.kind!r} has no option {', '.join(sorted(unknown))}")

    def answer(self, call: Call, proceed: Callable[[], Answer]) -> Answer:
        """
        Answer a call.

        :param call: the call
        :param proceed: returns the true answer
        """
        return KINDS[self.kind](call, self, proceed)

    def applies_to(self, call: Call) -> bool:
        """
        Say whether the fault is meant for a call.

        :param call: the call
        """
        return (
            self.operation in {None, call.operation}
            and self.image_name in {None, call.parameters.get("ImageName")}
            and self.access_key_id in {None, call.access_key_id}
        )


class Faults:
    """The faults that are waiting. Each call uses up the first one that applies to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []
        self._added: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """
        Add a fault behind those that wait already.

        :param fault: the fault
        """
        with self._lock:
            self._waiting.append(fault)
            self._added.append(fault)

    def clear(self, kind: str | None = None) -> None:
        """
        Remove faults, and release the calls that one of them holds up.

        :param kind: those of this kind; None is all
        """
        with self._lock:
            for fault in self._added.copy():
                if kind in {None, fault.kind}:
                    fault.over.set()
                    self._added.remove(fault)
            self._waiting = [fault for fault in self._waiting if not fault.over.is_set()]

    def take(self, call: Call) -> Fault | None:
        """
        Take the fault that waits for a call, if there is one.

        :param call: the call
        """
        with self._lock:
            for fault in self._waiting:
                if not fault.applies_to(call):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._waiting.remove(fault)
                return fault
        return None


def _error(status: int, code: str, message: str) -> Effect:
    answer = Answer(status, _JSON_HEADERS, error_body(code, message).encode())
    return lambda _call, _fault, _proceed: answer


def _access_denied(call: Call, fault: Fault, _proceed: Callable[[], Answer]) -> Answer:
    action = fault.options.get("action", f"sagemaker:{call.operation}")
    message = (
        f"User: arn:{get_partition(call.region)}:sts::{_ACCOUNT_ID}:assumed-role/airflow/worker is not authorized "
        f"to perform: {action} on resource: {_arn(call)} "
        f"because no identity-based policy allows the {action} action"
    )
    return Answer(400, _JSON_HEADERS, error_body("AccessDeniedException", message).encode())


def _not_found(call: Call, _fault: Fault, _proceed: Callable[[], Answer]) -> Answer:
    kind, arn = "Image", _arn(call)
    if "Version" in call.parameters:
        kind, arn = "ImageVersion", f"{arn.replace(':image/', ':image-version/')}/{call.parameters['Version']}"
    return Answer(400, _JSON_HEADERS, error_body("ResourceNotFound", f"{kind} with ARN {arn} does not exist").encode())


def _invalid_state(call: Call, _fault: Fault, _proceed: Callable[[], Answer]) -> Answer:
    text = f"Image {call.parameters.get('ImageName')} is in an invalid state."
    return Answer(400, _JSON_HEADERS, error_body("ValidationException", text).encode())


# What a call is about, by the parameters that name it; the more specific first.
_RESOURCES = (
    ("app", ("DomainId", "SpaceName", "AppType", "AppName")),
    ("app", ("DomainId", "UserProfileName", "AppType", "AppName")),
    ("user-profile", ("DomainId", "UserProfileName")),
    ("space", ("DomainId", "SpaceName")),
    ("domain", ("DomainId",)),
    ("app-image-config", ("AppImageConfigName",)),
    ("image", ("ImageName",)),
)


def _arn(call: Call) -> str:
    kind, names = next(
        ((kind, names) for kind, names in _RESOURCES if all(name in call.parameters for name in names)), ("image", ())
    )
    path = "/".join(str(call.parameters[name]).lower() for name in names) or "*"
    return f"arn:{get_partition(call.region)}:sagemaker:{call.region}:{_ACCOUNT_ID}:{kind}/{path}"


def _clock_skew(_call: Call, _fault: Fault, _proceed: Callable[[], Answer]) -> Answer:
    now = datetime.now(timezone.utc)
    late, limit = (f"{now - timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}" for minutes in (16, 15))
    message = f"Signature expired: {late} is now earlier than {limit} ({now:%Y%m%dT%H%M%SZ} - 15 min.)"
    return Answer(400, _JSON_HEADERS, error_body("InvalidSignatureException", message).encode())


def _reset(_call: Call, _fault: Fault, _proceed: Callable[[], Answer]) -> Answer:
    return Answer(0, {}, b"", ending="reset")


def _lost_answer(_call: Call, _fault: Fault, proceed: Callable[[], Answer]) -> Answer:
    return replace(proceed(), ending="reset")


def _slow(_call: Call, fault: Fault, proceed: Callable[[], Answer]) -> Answer:
    fault.over.wait(fault.options.get("seconds", 5))
    return proceed()


def _broken_json(_call: Call, _fault: Fault, proceed: Callable[[], Answer]) -> Answer:
    answer = proceed()
    return Answer(200, _JSON_HEADERS, answer.body[: len(answer.body) // 2])


def _truncated(_call: Call, _fault: Fault, proceed: Callable[[], Answer]) -> Answer:
    body = proceed().body
    headers = {**_JSON_HEADERS, "Content-Length": str(len(body))}
    return Answer(200, headers, body[: len(body) // 2], ending="close")


def _edited(change: Callable[[Call, Fault, dict[str, Any]], None]) -> Effect:
    """Make an effect that edits the true answer; an answer that is an error stays as it is."""

    def effect(call: Call, fault: Fault, proceed: Callable[[], Answer]) -> Answer:
        answer = proceed()
        if answer.status != HTTPStatus.OK:
            return answer
        content = json.loads(answer.body)
        change(call, fault, content)
        headers = {k: v for k, v in answer.headers.items() if k.lower() != "content-length"}
        return Answer(200, headers, json.dumps(content).encode())

    return effect


def _repeat_token(call: Call, _fault: Fault, page: dict[str, Any]) -> None:
    page["NextToken"] = str(Token.of(call.operation, call.parameters))


def _cycle_token(call: Call, _fault: Fault, page: dict[str, Any]) -> None:
    here = Token.of(call.operation, call.parameters)
    start = replace(here, position=None, salt=0)
    if here.position is not None or here.salt:
        page["NextToken"] = str(start)
    else:
        # The second token leads on, or to the first page again where there is only one.
        page.setdefault("NextToken", str(replace(start, salt=1)))


def _empty_page(call: Call, _fault: Fault, page: dict[str, Any]) -> None:
    here = Token.of(call.operation, call.parameters)
    page[_PAGES[call.operation]] = []
    # Another salt, because paginators take a token that they just sent for an error.
    page["NextToken"] = str(replace(here, salt=here.salt + 1))


def _unknown_status(_call: Call, fault: Fault, content: dict[str, Any]) -> None:
    lists = [value for value in content.values() if isinstance(value, list)]
    for record in [content, *(item for items in lists for item in items if isinstance(item, dict))]:
        for name in ("ImageStatus", "ImageVersionStatus", "Status"):
            if name in record:
                record[name] = fault.options.get("status", "ARCHIVED")


KINDS: dict[str, Effect] = {
    "throttling": _error(400, "ThrottlingException", "Rate exceeded"),
    "server_error": _error(
        500,
        "InternalFailure",
        "The request processing has failed because of an unknown error, exception or failure.",
    ),
    "unavailable": _error(
        503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."
    ),
    "reset": _reset,
    "lost_answer": _lost_answer,
    "not_found": _not_found,
    "in_use": _error(400, "ResourceInUse", "Resource was modified concurrently"),
    "invalid_state": _invalid_state,
    "limit_exceeded": _error(400, "ResourceLimitExceeded", quota_message(IMAGE_QUOTA, IMAGE_QUOTA)),
    "slow": _slow,
    "timeout": _slow,
    "expired_token": _error(400, "ExpiredTokenException", "The security token included in the request is expired"),
    "invalid_token": _error(
        400, "UnrecognizedClientException", "The security token included in the request is invalid."
    ),
    "clock_skew": _clock_skew,
    "access_denied": _access_denied,
    "broken_json": _broken_json,
    "truncated": _truncated,
    "repeating_token": _edited(_repeat_token),
    "cyclic_token": _edited(_cycle_token),
    "empty_page": _edited(_empty_page),
    "unknown_status": _edited(_unknown_status),
}
_OPTIONS = {
    "slow": ("seconds",),
    "timeout": ("seconds",),
    "unknown_status": ("status",),
    "access_denied": ("action",),
}
