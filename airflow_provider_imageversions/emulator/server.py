"""The server: moto's, with the call log and the faults before it and routes to control both."""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import json
import logging
import os
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import replace
from datetime import datetime, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_api import state_manager
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server import werkzeug_app
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.test import run_wsgi_app

from airflow_provider_imageversions.emulator.errors import ApiError
from airflow_provider_imageversions.emulator.faults import FAULT_HEADER, Answer, Call, Fault, Faults
from airflow_provider_imageversions.emulator.models import (
    IMAGE_DELETION_MODEL,
    IMAGE_QUOTA,
    VERSION_MODEL,
    ImageBackend,
    image_backends,
    now_ms,
)
from airflow_provider_imageversions.emulator.state_changes import StateChanges
from airflow_provider_imageversions.emulator.studio import STUDIO_MODEL, studio_backends
from airflow_provider_imageversions.emulator.wire import CONTENT_TYPE, NOT_JSON, error_body, install

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_log = logging.getLogger(__name__)

_ADMIN_PATH = "/emulator/"
_CALLS_KEPT = 100_000
_FAKE = "testing"


class _Application:
    """
    Answers requests: SageMaker's through call log and faults, admin routes itself, the rest through moto.

    :param creation_seconds: how long a version stays CREATING or DELETING, an image DELETING, and so on
    :param image_quota: the maximum number of images in a region
    """

    def __init__(self, creation_seconds: float, image_quota: int) -> None:
        install()
        self._moto = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
        # What moto would dispatch to, too, but only after a third of the time that a call takes.
        self._sagemaker = werkzeug_app.create_backend_app("sagemaker")
        self._faults = Faults()
        self._calls: deque[dict[str, Any]] = deque(maxlen=_CALLS_KEPT)
        self._initial_creation_seconds = creation_seconds
        self._initial_image_quota = image_quota
        self._state_changes: StateChanges | None = None
        self._set_initial_values()

    def answer(self, environ: dict[str, Any], body: bytes) -> Answer:
        """
        Answer one request.

        :param environ: its WSGI environment, with the body to be read from ``wsgi.input``
        :param body: its body
        """
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target.startswith("SageMaker."):
            return self._answer_sagemaker(target.removeprefix("SageMaker."), environ, body)
        # Signed requests are for a service: there may be a bucket called "emulator".
        if environ["PATH_INFO"].startswith(_ADMIN_PATH) and "HTTP_AUTHORIZATION" not in environ:
            return self.answer_admin(environ["PATH_INFO"].removeprefix(_ADMIN_PATH), body)
        return _ask(self._moto, environ)

    def _answer_sagemaker(self, operation: str, environ: dict[str, Any], body: bytes) -> Answer:
        access_key_id, region = _credential_scope(environ.get("HTTP_AUTHORIZATION", ""))
        call = Call(operation, _json_object(body), region, access_key_id, environ.get("HTTP_USER_AGENT", ""))
        fault = self._faults.take(call)
        kind = None if fault is None else fault.kind
        record = {**vars(call), "time": time.time(), "monotonic": time.monotonic(), "status": None, "fault": kind}
        self._calls.append(record)
        application = self._moto if access_key_id is None else self._sagemaker

        def proceed() -> Answer:
            try:
                json.loads(body or b"{}")
            except ValueError:
                # moto up to 5.1 breaks at it.
                answer = error_body(NOT_JSON.code, NOT_JSON.message).encode()
                return Answer(HTTPStatus.BAD_REQUEST, {"Content-Type": CONTENT_TYPE}, answer)
            return _ask(application, environ)

        answer = proceed() if fault is None else _marked(fault.answer(call, proceed), fault.kind)
        record["status"] = answer.status or None
        return answer

    def answer_admin(self, name: str, body: bytes) -> Answer:
        """Answer the request of an :class:`EmulatorClient`."""
        routes: dict[str, Callable[..., Any]] = {
            "health": self.health,
            "reset": self.reset,
            "calls": self.calls,
            "create_versions": self.create_versions,
            "set_version": self.set_version,
            "set_image": self.set_image,
            "fail_updates": self.fail_updates,
            "add_fault": self.add_fault,
            "clear_faults": self._faults.clear,
            "creation_seconds": self.creation_seconds,
            "set_creation_seconds": self.set_creation_seconds,
            "image_quota": self.image_quota,
            "set_image_quota": self.set_image_quota,
            "send_state_changes_to": self.send_state_changes_to,
        }
        status, result = 200, None
        if name not in routes:
            status, result = 404, f"There is no {_ADMIN_PATH}{name}"
        else:
            try:
                result = routes[name](**_json_object(body))
            except ApiError as error:
                status, result = 400, f"{error.code}: {error.message}"
            except (TypeError, ValueError) as error:
                status, result = 400, str(error)
        return Answer(status, {"Content-Type": "application/json"}, json.dumps(result).encode())

    def health(self) -> dict[str, str]:
        return {"status": "ok"}

    def reset(self) -> None:
        self.send_state_changes_to(None)
        moto_api_backend.reset()
        self._faults.clear()
        self._calls.clear()
        self._set_initial_values()

    def calls(self, operation: str | None = None, image_name: str | None = None) -> list[dict[str, Any]]:
        return [
            call
            for call in list(self._calls)
            if operation in {None, call["operation"]} and image_name in {None, call["parameters"].get("ImageName")}
        ]

    def create_versions(
        self,
        *,
        image_name: str,
        count: int,
        status: str,
        start_time: float | None,
        spacing_seconds: float,
        region_name: str,
    ) -> list[int]:
        spacing = spacing_seconds * 1000
        start = now_ms() - spacing * count if start_time is None else start_time * 1000
        backend = image_backends[_account_id()][region_name]
        return backend.seed_versions(image_name, count, status, round(start), spacing)

    def set_version(self, image_name: str, version: int, region_name: str, **changes: Any) -> None:
        image_backends[_account_id()][region_name].set_version(image_name, version, _in_ms(changes))

    def set_image(self, image_name: str, region_name: str, **changes: Any) -> None:
        image_backends[_account_id()][region_name].set_image(image_name, _in_ms(changes))

    def fail_updates(self, reason: str, times: int, region_name: str) -> None:
        studio_backends[_account_id()][region_name].fail_updates(reason, times)

    def add_fault(self, **description: Any) -> None:
        self._faults.add(Fault(**description))

    def creation_seconds(self) -> float:
        transition = state_manager.get_transition(VERSION_MODEL)
        return float(transition.get("seconds", 0))

    def set_creation_seconds(self, seconds: float) -> None:
        transition = {"progression": "time", "seconds": seconds} if seconds else {"progression": "immediate"}
        for model in (VERSION_MODEL, IMAGE_DELETION_MODEL, STUDIO_MODEL):
            state_manager.set_transition(model, transition)

    def image_quota(self) -> int:
        return ImageBackend.image_quota

    def set_image_quota(self, quota: int) -> None:
        ImageBackend.image_quota = quota

    def send_state_changes_to(self, queue_url: str | None, region_name: str = "us-east-1") -> None:
        coming = None if queue_url is None else StateChanges(queue_url, region_name)
        if self._state_changes is not None:
            self._state_changes.stop()
        self._state_changes = coming
        if coming is not None:
            coming.start()

    def _set_initial_values(self) -> None:
        self.set_creation_seconds(self._initial_creation_seconds)
        self.set_image_quota(self._initial_image_quota)


def _marked(answer: Answer, kind: str) -> Answer:
    return replace(answer, headers={**answer.headers, FAULT_HEADER: kind})


def _in_ms(changes: dict[str, Any]) -> dict[str, Any]:
    times = {"created", "modified"}
    return {name: round(value * 1000) if name in times else value for name, value in changes.items()}


def _ask(application: Any, environ: dict[str, Any]) -> Answer:
    chunks, status, headers = run_wsgi_app(application, environ, buffered=True)
    return Answer(int(status.split()[0]), dict(headers.items()), b"".join(chunks))


def _account_id() -> str:
    return os.environ.get("MOTO_ACCOUNT_ID", DEFAULT_ACCOUNT_ID)


def _credential_scope(authorization: str) -> tuple[str | None, str]:
    """Return access key and region of a request signed with AWS's Signature Version 4."""
    _, _, scope = authorization.partition("Credential=")
    parts = scope.partition(",")[0].split("/")
    return (parts[0], parts[2]) if len(parts) >= 3 else (None, "us-east-1")  # noqa: PLR2004 - key/date/region


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        # moto answers what cannot be read; the log has nothing to show of it.
        return {}
    return content if isinstance(content, dict) else {}


class _Handler(getattr(werkzeug_app, "MotoRequestHandler", WSGIRequestHandler)):  # type: ignore[misc]
    """Keeps connections open, which werkzeug's own handler never does: an SDK then reuses them."""

    protocol_version = "HTTP/1.1"
    # Headers and body go out separately; a body that waits for the headers' acknowledgement costs 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    def run_wsgi(self) -> None:
        environ = self.environ = self.make_environ()
        source = environ["wsgi.input"]
        chunked = environ.get("wsgi.input_terminated", False)
        # Read to its end, or the next request on the connection would begin in the middle of this one.
        body = source.read() if chunked else source.read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        try:
            answer = self.server.application.answer(environ, body)
        except Exception as error:  # noqa: BLE001 - moto raises anything; the client gets it as a 500
            _log.exception("Cannot answer %s %s", self.command, self.path)
            text = error_body("InternalFailure", f"{type(error).__name__}: {error}")
            answer = Answer(500, {"Content-Type": "application/json"}, text.encode())
        if answer.ending == "reset":
            self._reset_connection()
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.log_request(answer.status, len(answer.body))
        self.send_response_only(answer.status)
        given = {name.lower() for name in answer.headers}
        if "date" not in given:
            self.send_header("Date", self.date_time_string())
        bodiless = self.command == "HEAD" or answer.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        if "content-length" not in given and not bodiless:
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.ending == "close":
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)

    def _reset_connection(self) -> None:
        # Closing with a linger time of zero sends RST. The socket object keeps its descriptor open while
        # files are made from it, hence detach.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log(self, kind: str, message: str, *args: Any) -> None:
        if self.server.verbose:
            super().log(kind, message, *args)


def _unused(_environ: dict[str, Any], _start_response: Any) -> list[bytes]:
    raise NotImplementedError("_Handler asks the application itself")


class _Server(ThreadedWSGIServer):
    def __init__(self, host: str, port: int, application: _Application, *, verbose: bool) -> None:
        super().__init__(host, port, app=_unused, handler=_Handler)
        self.application = application
        self.verbose = verbose
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """Close what is still open, so that a stopped server answers nobody."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)


class EmulatorClient:
    """
    Control an emulator in this or another process through its admin routes.

    :param endpoint_url: URL of the emulator.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url.rstrip("/")
        self._session: boto3.session.Session | None = None

    @property
    def endpoint_url(self) -> str:
        """The URL for ``AWS_ENDPOINT_URL``, boto3's ``endpoint_url`` or a connection's extra."""
        return self._endpoint_url

    def client(self, service_name: str, region_name: str = "us-east-1", **kwargs: Any) -> Any:
        """
        Return a boto3 client that talks to the emulator with fake credentials.

        :param service_name: Name of the service, such as ``sagemaker`` or ``s3``.
        :param region_name: AWS region. (default: ``us-east-1``)
        :param kwargs: More arguments of ``boto3.session.Session.client``.
        """
        if self._session is None:
            # Not boto3's default session, whose settings belong to the user; kept, because it caches models.
            self._session = boto3.session.Session()
        credentials = {"aws_access_key_id": _FAKE, "aws_secret_access_key": _FAKE}
        kwargs = {**credentials, "endpoint_url": self.endpoint_url, "region_name": region_name, **kwargs}
        return self._session.client(service_name, **kwargs)

    def airflow_connection(self, region_name: str = "us-east-1") -> str:
        """
        Return the JSON for ``AIRFLOW_CONN_AWS_DEFAULT``.

        :param region_name: AWS region. (default: ``us-east-1``)
        """
        extra = {"endpoint_url": self.endpoint_url, "region_name": region_name}
        return json.dumps({"conn_type": "aws", "login": _FAKE, "password": _FAKE, "extra": extra})

    def reset(self) -> None:
        """
        Clear the state of all services, faults and calls.

        ``creation_seconds`` and ``image_quota`` are reset, and no more events are sent.
        """
        self._admin("reset")

    def calls(self, operation: str | None = None, image_name: str | None = None) -> list[dict[str, Any]]:
        """
        Return the calls to SageMaker so far, oldest first.

        Each has ``operation``, ``parameters`` (as received), ``region``, ``access_key_id``, ``user_agent``, ``time``
        (seconds since the epoch), ``monotonic`` (the server's clock), ``status`` (HTTP; None without a response, or
        before it) and ``fault`` (the kind of the injected fault, or None).

        :param operation: Return only calls of this operation. (default: all)
        :param image_name: Return only calls for this image. (default: all)
        """
        return self._admin("calls", operation=operation, image_name=image_name)  # type: ignore[no-any-return]

    def create_versions(
        self,
        image_name: str,
        count: int,
        *,
        status: str = "CREATED",
        start_time: datetime | float | None = None,
        spacing_seconds: float = 1.0,
        region_name: str = "us-east-1",
    ) -> list[int]:
        """
        Add many versions at once, and the image if it is missing or DELETING; return their numbers.

        The versions keep their status until :meth:`set_version` changes it. The image quota does not apply.

        :param image_name: Name of the image.
        :param count: Number of versions.
        :param status: Status of the versions, known to SageMaker or not. (default: ``CREATED``)
        :param start_time: Creation time of the first version, as a datetime or in seconds since the epoch. (default: so
            that the last one was created now)
        :param spacing_seconds: Time in seconds between the creation times. (default: 1)
        :param region_name: AWS region. (default: ``us-east-1``)
        """
        return self._admin(  # type: ignore[no-any-return]
            "create_versions",
            image_name=image_name,
            count=count,
            status=status,
            start_time=_epoch(start_time),
            spacing_seconds=spacing_seconds,
            region_name=region_name,
        )

    def set_version(
        self,
        image_name: str,
        version: int,
        *,
        status: str | None = None,
        failure_reason: str | None = None,
        creation_time: datetime | float | None = None,
        last_modified_time: datetime | float | None = None,
        region_name: str = "us-east-1",
    ) -> None:
        """
        Set properties of a version that SageMaker would determine.

        If ``status`` is set, the status no longer changes over time.

        :param image_name: Name of the image.
        :param version: Number of the version.
        :param status: The status, known to SageMaker or not. (default: unchanged)
        :param failure_reason: The FailureReason. (default: unchanged)
        :param creation_time: Creation time, as a datetime or in seconds since the epoch. (default: unchanged)
        :param last_modified_time: Last modified time, as a datetime or in seconds since the epoch. (default: now if
            ``status`` is set, otherwise unchanged)
        :param region_name: AWS region. (default: ``us-east-1``)
        """
        changes = {
            "status": status,
            "failure_reason": failure_reason,
            "created": _epoch(creation_time),
            "modified": _epoch(last_modified_time),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        self._admin("set_version", image_name=image_name, version=version, region_name=region_name, **given)

    def set_image(
        self,
        image_name: str,
        *,
        status: str | None = None,
        failure_reason: str | None = None,
        creation_time: datetime | float | None = None,
        last_modified_time: datetime | float | None = None,
        region_name: str = "us-east-1",
    ) -> None:
        """
        Set properties of an image that SageMaker would determine.

        If ``status`` is set, the status does not change until UpdateImage or DeleteImage is called.

        :param image_name: Name of the image.
        :param status: The status, known to SageMaker or not. (default: unchanged)
        :param failure_reason: The FailureReason. (default: unchanged)
        :param creation_time: Creation time, as a datetime or in seconds since the epoch. (default: unchanged)
        :param last_modified_time: Last modified time, as a datetime or in seconds since the epoch. (default: now if
            ``status`` is set, otherwise unchanged)
        :param region_name: AWS region. (default: ``us-east-1``)
        """
        changes = {
            "status": status,
            "failure_reason": failure_reason,
            "created": _epoch(creation_time),
            "modified": _epoch(last_modified_time),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        self._admin("set_image", image_name=image_name, region_name=region_name, **given)

    def fail_updates(self, reason: str, *, times: int = 1, region_name: str = "us-east-1") -> None:
        """
        Make the next updates of a Studio domain, user profile or space end in Update_Failed, but keep the new settings.

        :param reason: The FailureReason.
        :param times: Number of updates. (default: 1)
        :param region_name: AWS region. (default: ``us-east-1``)
        """
        self._admin("fail_updates", reason=reason, times=times, region_name=region_name)

    @property
    def creation_seconds(self) -> float:
        """
        Time in seconds that a version takes to be created or deleted.

        Deleting an image takes as long, and so does any change of a resource of Studio. A new value also applies to
        changes in progress.
        """
        return float(self._admin("creation_seconds"))

    @creation_seconds.setter
    def creation_seconds(self, seconds: float) -> None:
        self._admin("set_creation_seconds", seconds=seconds)

    @property
    def image_quota(self) -> int:
        """Maximum number of images in a region. Another image fails with ResourceLimitExceeded."""
        return int(self._admin("image_quota"))

    @image_quota.setter
    def image_quota(self, quota: int) -> None:
        self._admin("set_image_quota", quota=quota)

    def send_state_changes_to(self, queue_url: str | None, region_name: str = "us-east-1") -> None:
        """
        Send EventBridge's events to a queue for each version that changes its status from now on.

        Like SageMaker, it sends several events per change, with the status in upper or lower case, the number as a
        float and an opaque ID in the version's ARN.

        :param queue_url: URL of a queue in this emulator's SQS; None stops sending.
        :param region_name: AWS region of the queue. (default: ``us-east-1``)
        """
        self._admin("send_state_changes_to", queue_url=queue_url, region_name=region_name)

    def add_fault(
        self,
        kind: str,
        *,
        operation: str | None = "ListImageVersions",
        image_name: str | None = None,
        access_key_id: str | None = None,
        times: int | None = 1,
        after: int = 0,
        **options: Any,
    ) -> None:
        """
        Make calls fail. Each call uses up the first fault that applies to it.

        botocore makes three attempts after throttling, server errors and connection errors. Set ``times=3`` to make a
        call of the hook fail with one of these.

        :param kind: The kind, see :mod:`airflow_provider_imageversions.emulator.faults`.
        :param operation: The operation that fails; None for all operations. (default: ``ListImageVersions``)
        :param image_name: The image whose calls fail. (default: all)
        :param access_key_id: The access key ID whose calls fail. (default: all)
        :param times: Number of calls that fail; None for all until the faults are cleared. (default: 1)
        :param after: Number of matching calls that succeed first. (default: 0)
        :param options: Options of the kind: ``seconds`` for ``slow`` and ``timeout``, ``status`` for
            ``unknown_status``, ``action`` for ``access_denied``.
        """
        self._admin(
            "add_fault",
            kind=kind,
            operation=operation,
            image_name=image_name,
            access_key_id=access_key_id,
            times=times,
            after=after,
            options=options,
        )

    def clear_faults(self, kind: str | None = None) -> None:
        """
        Remove faults, and release the calls that they delay.

        :param kind: Remove only faults of this kind. (default: all)
        """
        self._admin("clear_faults", kind=kind)

    def _admin(self, route: str, **parameters: Any) -> Any:
        status, body = self._exchange(route, json.dumps(parameters).encode())
        if status != HTTPStatus.OK:
            raise ValueError(json.loads(body))
        return json.loads(body)

    def _exchange(self, route: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.endpoint_url).netloc, timeout=60)
        try:
            connection.request("POST", _ADMIN_PATH + route, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _epoch(moment: datetime | float | None) -> float | None:
    if not isinstance(moment, datetime):
        return moment
    # A time without a time zone is UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


class Emulator(EmulatorClient):
    """
    SageMaker's image API on a local port, together with moto's other services.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. moto keeps one state per process, so two
    emulators in a process have the same images.

    :param port: The port; 0 chooses a free one. (default: 0)
    :param creation_seconds: Time in seconds that a version stays CREATING or DELETING, an image DELETING, and a
        resource of Studio Pending, Updating or Deleting; 0 for immediate changes. (default: 2)
    :param host: The address. It must be a loopback address, because any process that reaches the emulator controls it.
        (default: ``127.0.0.1``)
    :param verbose: Whether to log each request. (default: False)
    :param image_quota: Maximum number of images in a region. (default: 250, as in SageMaker)
    """

    def __init__(
        self,
        port: int = 0,
        creation_seconds: float = 2.0,
        *,
        host: str = "127.0.0.1",
        verbose: bool = False,
        image_quota: int = IMAGE_QUOTA,
    ) -> None:
        if not _is_loopback(host):
            raise ValueError(
                f"The emulator has no access control and listens on loopback addresses only, not on {host!r}."
            )
        super().__init__("")
        self._host = host
        self._port = port
        self._initial_creation_seconds = creation_seconds
        self._verbose = verbose
        self._initial_image_quota = image_quota
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @staticmethod
    def connect(endpoint_url: str) -> EmulatorClient:
        """
        Return a client with the same interface for an emulator in another process.

        :param endpoint_url: URL of the emulator.
        """
        return EmulatorClient(endpoint_url)

    @property
    def endpoint_url(self) -> str:
        """The URL for ``AWS_ENDPOINT_URL``, boto3's ``endpoint_url`` or a connection's extra."""
        return f"http://{self._host}:{self._running.port}"

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise RuntimeError("The emulator is not running: call start() or use it in a with statement.")
        return self._server

    def _exchange(self, route: str, body: bytes) -> tuple[int, bytes]:
        # The same as by way of HTTP, in a fraction of the time.
        answer = self._running.application.answer_admin(route, body)
        return answer.status, answer.body

    def start(self) -> Self:
        """Start to listen; return the emulator itself."""
        application = _Application(self._initial_creation_seconds, self._initial_image_quota)
        self._server = _Server(self._host, self._port, application, verbose=self._verbose)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="sagemaker-image-emulator",
            daemon=True,
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and close all connections. The state stays until moto is reset."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.application.send_state_changes_to(None)
        self._server.drop_connections()
        self._server = self._thread = None
        for model in (VERSION_MODEL, IMAGE_DELETION_MODEL, STUDIO_MODEL):
            state_manager.unset_transition(model)
        ImageBackend.image_quota = IMAGE_QUOTA

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
