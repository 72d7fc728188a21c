"""The triggers. Their class paths and arguments are stored in Airflow's database: never move or rename them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_imageversions import decide, polling
from airflow_provider_imageversions.compat import push_xcom
from airflow_provider_imageversions.hooks import aws_parameters
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.model import Target, parse_boolean, parse_image_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_imageversions.model import ImageVersion


class SageMakerImageVersionTrigger(BaseTrigger):
    """
    Wait in the triggerer for what a deferred ``SageMakerImageVersionSensor`` waits for.

    Fires once, with a payload of JSON primitives:

    - ``{"status": "ready", "version": {...}}``: the version's record, with its details if they were asked for;
    - ``{"status": "failed", "reason": "..."}``: the version can't become CREATED any more;
    - ``{"status": "error", "error": "..."}``: access denied, an invalid argument, a missing connection.

    Throttling, outages and expired credentials are waited out. All triggers of a triggerer that wait for the same
    image through the same connection share one poll and one boto3 client.

    :param image_name: Name of the image.
    :param version: This very version number.
    :param alias: The version with this alias.
    :param after_version: Any version with a higher number than this one.
    :param created_after: Any version created at or after this moment, ISO-8601 with an offset.
    :param include_details: Add what DescribeImageVersion and ListAliases know.
    :param poll_interval: Seconds between two polls at the most.
    :param exponential_backoff: Double the interval after each poll, up to ``max_wait``.
    :param max_wait: Seconds that the interval may grow to; ``None``: no bound.
    :param silent_fail: Log access denied and the like, and go on, instead of ending with it.
    :param end_from_trigger: When the version is CREATED, push its record to XCom and end the task here.
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    """

    def __init__(
        self,
        *,
        image_name: str,
        version: int | str | None = None,
        alias: str | None = None,
        after_version: int | str | None = None,
        created_after: str | None = None,
        include_details: bool | str = False,
        poll_interval: float = 60.0,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        silent_fail: bool = False,
        end_from_trigger: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **_later: Any,
    ) -> None:
        # Takes whatever a row of another version of this package holds: a constructor that raises in the
        # triggerer can leave a trigger deferred forever. What is wrong is told by an event, from run().
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.image_name = image_name
        self.version = version
        self.alias = alias
        self.after_version = after_version
        self.created_after = created_after
        self.include_details = include_details
        self.poll_interval = poll_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.silent_fail = silent_fail
        self.end_from_trigger = end_from_trigger
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and arguments that Airflow stores."""
        own = (
            "image_name",
            "version",
            "alias",
            "after_version",
            "created_after",
            "include_details",
            "poll_interval",
            "exponential_backoff",
            "max_wait",
            "silent_fail",
            "end_from_trigger",
        )
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**{name: getattr(self, name) for name in own}, **aws_parameters(self)},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire once."""
        payload = await self._wait()
        if self.end_from_trigger and payload["status"] == "ready" and await self._push(payload["version"]):
            yield TaskSuccessEvent()
        else:
            yield TriggerEvent(payload)

    async def _push(self, version: ImageVersion) -> bool:
        link = SageMakerImageLink()
        try:
            await push_xcom(self.task_instance, "return_value", version)
            await push_xcom(self.task_instance, link.xcom_key, link.url_of(self.image_name, version["ImageVersionArn"]))
        except Exception as error:  # noqa: BLE001  # a worker has another way to the database
            self.log.warning("The task can't be ended here, a worker will: %s", polling.describe_error(error))
            return False
        self.log.info("SageMaker image %r: version %d is CREATED", self.image_name, version["Version"])
        return True

    async def _wait(self) -> dict[str, Any]:
        try:
            image_name = parse_image_name("image_name", self.image_name)
            target = Target(
                version=self.version,  # type: ignore[arg-type]  # parsed by Target itself
                alias=self.alias,
                after_version=self.after_version,  # type: ignore[arg-type]  # likewise
                created_after=self.created_after,
            )
            # A string where the task came here without a worker: only its template was rendered.
            self.include_details = parse_boolean("include_details", self.include_details)
        except ValueError as error:
            return {"status": "error", "error": str(error)}
        watch = polling.Watch(self.log, image_name, target)
        with polling.subscribe(self, image_name, target, self.poll_interval) as subscription:
            while True:
                snapshot = await subscription.next()
                if snapshot.is_hopeless and not self.silent_fail:
                    return {"status": "error", "error": polling.describe_error(snapshot.error)}
                outcome = watch.judge(snapshot)
                if isinstance(outcome, decide.Failed):
                    return {"status": "failed", "reason": outcome.reason}
                if isinstance(outcome, decide.Ready):
                    version = await self._with_details(outcome.version, subscription, watch)
                    if version is not None:
                        return {"status": "ready", "version": version}
                if self.exponential_backoff:
                    subscription.interval = min(subscription.interval * 2, self.max_wait or float("inf"))

    async def _with_details(
        self, version: ImageVersion, subscription: polling.Subscription, watch: polling.Watch
    ) -> ImageVersion | None:
        if not self.include_details:
            return version
        try:
            return await subscription.add_details(version)
        except Exception as error:
            if not polling.passes_by_itself(error):
                raise
            watch.report_details(error)
            return None
