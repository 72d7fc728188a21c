"""What happens next: pure decisions about time."""

from __future__ import annotations

import time

from airflow_provider_imageversions.model import ErrorKind

BACKOFF_CAP = 300.0
"""Seconds between two polls at the most while the service or the way to it fails (or the interval, if longer)."""
GRACE = {ErrorKind.PERMANENT: 10.0, ErrorKind.CREDENTIALS: 120.0}
"""Seconds for which such an error must last before a wait ends with it: IAM changes and rotations take a moment."""
GRACE_PACE = 5.0
"""Seconds between two polls at the most within that time."""
LONGEST_PAUSE = 20.0
"""Seconds between two tries of a call that changes something, at the most."""


class FaultTimer:
    """Since when the same kind of fault is met again and again."""

    def __init__(self) -> None:
        self._fault: ErrorKind | None = None
        self._since = 0.0

    def lasts(self, fault: ErrorKind | None) -> float:
        """
        Count what was just met.

        :param fault: The fault; ``None`` if there was none.
        :return: Seconds since it was met first; 0 without a fault.
        """
        now = time.monotonic()
        if fault is not self._fault:
            self._fault, self._since = fault, now
        return 0.0 if fault is None else now - self._since
