"""Receives what Airflow's statsd client sends."""

from __future__ import annotations

import socket
import threading
from typing import NamedTuple


class Metric(NamedTuple):
    name: str
    value: float
    kind: str
    tags: dict[str, str]


class StatsdSink:
    """A UDP socket on a free port of the loopback interface; use it as a context manager."""

    def __enter__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Metrics may come faster than the thread reads them.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(("127.0.0.1", 0))
        self._packets = []
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _receive(self):
        while packet := self._socket.recv(65536):
            self._packets.append(packet.decode())

    @property
    def port(self):
        return self._socket.getsockname()[1]

    @property
    def settings(self):
        """Airflow's settings that send metrics here, with tags as InfluxDB has them."""
        options = {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(self.port),
            "STATSD_INFLUXDB_ENABLED": "True",
        }
        return {f"AIRFLOW__METRICS__{name}": value for name, value in options.items()}

    def metrics(self, name):
        """Return what was received under a name of this package, oldest first."""
        return [metric for metric in map(_parse, list(self._packets)) if metric.name == f"{PREFIX}.{name}"]

    def total(self, name):
        return sum(metric.value for metric in self.metrics(name))


PREFIX = "airflow.sagemaker_image_versions"


def _parse(packet):
    key, _, measured = packet.partition(":")
    name, *tags = key.split(",")
    value, kind = measured.split("|")[:2]
    return Metric(name, float(value), kind, dict(tag.split("=", 1) for tag in tags))
