"""The peer: a trigger and a sensor with the Amazon provider's AwsBaseWaiterTrigger and botocore's waiter."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.triggers.base import AwsBaseWaiterTrigger
from airflow.sdk import BaseSensorOperator


class SageMakerHook(AwsBaseHook):
    """As thin as the Amazon provider's own hooks."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "client_type": "sagemaker"})


class PeerTrigger(AwsBaseWaiterTrigger):
    """Waits with botocore's image_version_created waiter."""

    aws_hook_class = SageMakerHook

    def __init__(self, *, image_name: str, version: int, poll_interval: int, **waiter: Any) -> None:
        # The base class serializes additional fields under its own names.
        waiter = {"waiter_delay": int(poll_interval), "waiter_max_attempts": 1_000_000, **waiter}
        super().__init__(
            serialized_fields={"image_name": image_name, "version": version, "poll_interval": poll_interval},
            waiter_name="image_version_created",
            waiter_args={"ImageName": image_name, "Version": version},
            failure_message="Image version failed",
            status_message="waiting for the image version",
            status_queries=["ImageVersionStatus"],
            return_value=version,
            **waiter,
        )


class PeerSensor(BaseSensorOperator):
    """Defers to the peer's trigger, like the Amazon provider's deferrable sensors."""

    def __init__(self, *, image_name: str, version: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_name = image_name
        self.version = version

    def execute(self, context: Any) -> None:
        """Defer."""
        del context
        self.defer(
            trigger=PeerTrigger(image_name=self.image_name, version=self.version, poll_interval=self.poke_interval),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Resume after the deferral."""
        del context
        if event["status"] != "success":
            raise RuntimeError(str(event))
        return event["value"]
