"""
A fast stand-in for SageMaker in a separate process, so that the client is what is measured.

It serves ListImageVersions, DescribeImageVersion and ListAliases from prepared bytes, and records its calls.
Measurements control it with :func:`admin`, over the same port.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

LOOPBACK = "127.0.0.1"
DEFAULT_PAGE_SIZE = 10
"""SageMaker's default, if a request has no MaxResults."""
_PREFIX = "arn:aws:sagemaker:us-east-1:123456789012:"
_EPOCH = 1400000000.123


def creation_time(version: int) -> float:
    """Return when a version was created: one per hour."""
    return _EPOCH + version * 3600


class Image:
    """An image with versions 1 to ``versions``, all CREATED except for the newest."""

    def __init__(self, name: str, versions: int, status: str) -> None:
        self.name = name
        self._records = [self._record(number, "CREATED") for number in range(versions, 0, -1)]
        self.set_newest(status)

    def _record(self, number: int, status: str) -> bytes:
        record = {
            "CreationTime": creation_time(number),
            "ImageArn": f"{_PREFIX}image/{self.name}",
            "ImageVersionArn": f"{_PREFIX}image-version/{self.name}/{number}",
            "ImageVersionStatus": status,
            "LastModifiedTime": creation_time(number) + 60,
            "Version": number,
        }
        return json.dumps(record).encode()

    def set_newest(self, status: str) -> None:
        """Change the status of the newest version."""
        self._records[0] = self._record(len(self._records), status)
        self._pages: dict[tuple[int, int], bytes] = {}

    def page(self, size: int, start: int) -> bytes:
        """Return the answer to ListImageVersions, newest first, whatever the requested order."""
        if (size, start) not in self._pages:
            token = b', "NextToken": "%d"' % (start + size) if start + size < len(self._records) else b""
            records = b", ".join(self._records[start : start + size])
            self._pages[size, start] = b'{"ImageVersions": [%s]%s}' % (records, token)
        return self._pages[size, start]

    def version(self, number: int | None) -> bytes:
        """Return the answer to DescribeImageVersion."""
        return self._records[0 if number is None else len(self._records) - number]

    def make_pages(self, sizes: list[int]) -> None:
        """Create all pages now rather than when they are requested."""
        for size in sizes:
            for start in range(0, len(self._records), size):
                self.page(size, start)


class Service:
    """The state of the stand-in."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.calls: list[float] = []

    def answer(self, action: str, request: dict[str, Any]) -> bytes:
        """Answer one request."""
        operation = action.rpartition(".")[2]
        if action.startswith("Admin."):
            return json.dumps(getattr(self, f"admin_{operation}")(**request)).encode()
        self.calls.append(time.monotonic())
        if operation == "ListAliases":
            return b'{"SageMakerImageVersionAliases": []}'
        image = self.images[request["ImageName"]]
        if operation == "DescribeImageVersion":
            return image.version(request.get("Version"))
        return image.page(request.get("MaxResults", DEFAULT_PAGE_SIZE), int(request.get("NextToken", 0)))

    def admin_prepare(
        self, names: list[str], versions: int, status: str = "CREATED", page_sizes: list[int] | None = None
    ) -> None:
        """Replace all images with these, and clear the calls."""
        self.images = {name: Image(name, versions, status) for name in names}
        for image in self.images.values():
            image.make_pages(page_sizes or [])
        self.calls = []

    def admin_switch(self, status: str) -> float:
        """Change the status of every image's newest version; return when (``time.monotonic()``)."""
        for image in self.images.values():
            image.set_newest(status)
        return time.monotonic()

    def admin_calls(self) -> list[float]:
        """Return when the stand-in was called (``time.monotonic()``, which all processes share)."""
        return self.calls


class _Connection(asyncio.Protocol):
    def __init__(self, service: Service) -> None:
        self._service = service
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
            headers = {name.lower(): value.strip() for name, _, value in lines}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self._received = rest[length:]
            body = self._service.answer(headers["x-amz-target"], json.loads(rest[:length] or b"{}"))
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nx-amzn-RequestId: 0\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )


async def _serve() -> None:
    service, loop = Service(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(service), LOOPBACK, 0)
    print(f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}", flush=True)
    # Ends with the process that started it, whatever the cause, because the pipe closes.
    await loop.run_in_executor(None, sys.stdin.read)


def admin(endpoint: str, action: str, **request: Any) -> Any:
    """Call the ``admin_`` method ``action`` of the :class:`Service` at ``endpoint``."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    try:
        connection.request("POST", "/", json.dumps(request), {"X-Amz-Target": f"Admin.{action}"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


class LocalServer:
    """Run the stand-in; use it as a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.endpoint = self._process.stdout.readline().strip() if self._process.stdout else ""
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve())
