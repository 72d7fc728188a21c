"""An endpoint for AWS credentials on loopback, which can misbehave."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Agent(ThreadingHTTPServer):
    """A metadata endpoint for credentials, as that of Amazon ECS or EKS Pod Identity; it misbehaves on request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.fault = None
        self.times = 0
        self.requests = 0
        self.faults = 0
        self.lifetime = 3600

    @classmethod
    @contextmanager
    def started(cls):
        """Run one in a thread."""
        server = cls()
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def misbehave(self, fault, times):
        self.fault, self.times = fault, times

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


def credentials(lifetime=3600, **others):
    expiration = datetime.now(timezone.utc) + timedelta(seconds=lifetime)
    given = {
        "AccessKeyId": "of-the-agent",
        "SecretAccessKey": "testing",
        "Token": "testing",
        "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return json.dumps({**given, **others}).encode()


# What an endpoint answers: status and body; None breaks the connection off, a number is seconds of silence.
FAULTS = {
    "expired": lambda: (200, credentials(lifetime=-5)),
    "an error": lambda: (500, b"not now"),
    "a page": lambda: (200, b"<html>Sign in</html>"),
    "a long page": lambda: (404, b"<html>\n\x00Sign in</html>" + b" sign in" * 10_000),
    "a list": lambda: (200, b"[]"),
    "a null": lambda: (200, b"null"),
    "nothing in it": lambda: (200, b"{}"),
    "no time": lambda: (200, credentials(Expiration="soon")),
    "no text": lambda: (200, b"\xff\xfe"),
    "reset": lambda: None,
    "silence": lambda: 0.4,
}


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        answer = 200, credentials(self.server.lifetime)
        if self.server.times:
            self.server.times -= 1
            self.server.faults += 1
            answer = FAULTS[self.server.fault]()
        if answer is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(answer, float):
            time.sleep(answer)
            answer = 503, b""
        status, body = answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:  # who asked has gone
            self.close_connection = True
