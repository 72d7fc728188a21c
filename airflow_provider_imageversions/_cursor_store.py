"""Store the progress of a watcher in the state of its assets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_imageversions.compat import has_asset_state, read_asset_state, write_asset_state
from airflow_provider_imageversions.model import describe_error

if TYPE_CHECKING:
    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger


class CursorStore:
    """
    The store of a watcher's state: with its assets, or in memory before Airflow 3.3.

    :param trigger: The watcher.
    """

    RETRY: ClassVar[float] = 30.0
    """Time in seconds between two tries to read the state."""

    def __init__(self, trigger: SageMakerImageVersionEventTrigger) -> None:
        self._trigger = trigger
        self.was_unreadable = False
        """Whether a read failed before one succeeded."""
        self._fails = False

    async def read(self) -> list[dict[str, Any]]:
        """Return the stored state of each asset. Retry after errors, which must not count as a first start."""
        if not has_asset_state(self._trigger):
            if not self._trigger.kept:
                self._trigger.log.warning(
                    "SageMaker image %r: this Airflow, older than 3.3, has no state store for assets. A restart of the "
                    "triggerer starts from %r again",
                    self._trigger.image_name,
                    self._trigger.start_from,
                )
            return self._trigger.kept
        while True:
            try:
                return await read_asset_state(self._trigger, self._trigger.state_key)
            except Exception as error:  # noqa: BLE001  # whatever Airflow's database raises
                self.was_unreadable = True
                self._trigger.log.warning(
                    "SageMaker image %r: could not read the state of the asset; retrying in %.0f seconds: %s",
                    self._trigger.image_name,
                    self.RETRY,
                    describe_error(error),
                )
            await asyncio.sleep(self.RETRY)

    async def write(self, state: dict[str, Any]) -> bool:
        """
        Store the state with each asset, and return whether that succeeded.

        :param state: The state.
        """
        try:
            await write_asset_state(self._trigger, self._trigger.state_key, state)
        except Exception as error:  # noqa: BLE001  # likewise
            if not self._fails:
                self._trigger.log.warning(
                    "SageMaker image %r: could not store the state of the asset; retrying at each poll. Until then, a "
                    "restart emits events again: %s",
                    self._trigger.image_name,
                    describe_error(error),
                )
            self._fails = True
            return False
        if self._fails:
            self._trigger.log.info("SageMaker image %r: stored the state of the asset again", self._trigger.image_name)
        self._fails = False
        self._trigger.kept = [state]
        return True
