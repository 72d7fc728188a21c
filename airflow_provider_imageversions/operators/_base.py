"""Base classes of the operators on images and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import attrs

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import (
    Parameters,
    parse_alias,
    parse_seconds,
    parse_version,
    parsed_by,
    truncated_repr,
    with_converters,
)
from airflow_provider_imageversions._requests import ImageRequest
from airflow_provider_imageversions._worker import WorkerPoller
from airflow_provider_imageversions.assets import openlineage_dataset
from airflow_provider_imageversions.compat import BaseOperator
from airflow_provider_imageversions.errors import SageMakerImageOperationError, none_if_not_found
from airflow_provider_imageversions.hooks import aws_parameters, check_aws_parameters
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.templating import TemplatedParameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink
    from airflow.providers.openlineage.extractors import OperatorLineage


T = TypeVar("T")


class ImageOperator(TemplatedParameters, BaseOperator):
    """
    An operator on a SageMaker image.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"botocore_config": "json"}
    operator_extra_links: tuple[BaseAwsLink, ...] = (SageMakerImageLink(),)
    ui_color = "#f2e6d9"
    _READS: ClassVar[bool] = False

    def __init__(
        self,
        *,
        image_name: str,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_name = image_name
        self.aws_conn_id = None if aws_conn_id == "" else aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._lineage: tuple[str, int | None] | None = None
        ImageRequest.check_literals(self, self._template)
        check_aws_parameters(aws_parameters(self), template=self._template)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002  # its own signature
        """
        Report to OpenLineage that the task read or wrote the image, and which version, if it was a single one.

        :param task_instance: The task instance.
        """
        from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415  # its provider calls this

        if self._lineage is None:
            return OperatorLineage()
        region, number = self._lineage
        dataset = openlineage_dataset(region, self.image_name, number)
        return OperatorLineage(inputs=[dataset]) if self._READS else OperatorLineage(outputs=[dataset])


class ChangingOperator(ImageOperator):
    """
    An operator that changes an image, and waits while another change is in progress.

    :param check_interval: Maximum time between status checks, in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. (default: 3600)
    """

    def __init__(
        self, *, check_interval: timedelta | float = 30.0, timeout: timedelta | float = 3600.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.check_interval = parse_seconds("check_interval", check_interval)
        self.timeout = parse_seconds("timeout", timeout)

    def _start(self, context: Any, image_name: str, left: float | None = None) -> WorkerPoller:
        # A cluster policy or a later line of the DAG file may have changed them.
        self.check_interval = parse_seconds("check_interval", self.check_interval)
        self.timeout = parse_seconds("timeout", self.timeout)
        task = WorkerPoller(self, image_name, interval=self.check_interval, timeout=self.timeout, left=left)
        SageMakerImageLink.store(context, self, task.hook, image_name)
        return task

    def _raise_if_failed(self, found: T | decide.Failed) -> T:
        if isinstance(found, decide.Failed):
            raise SageMakerImageOperationError(f"SageMaker image {self.image_name!r}: {found.reason}")
        return found

    def _find_users(
        self, task: WorkerPoller, image_name: str, scope: tuple[str, ...]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return who uses which version; empty if the image does not exist."""
        return task.call(lambda hook: none_if_not_found(hook.find_image_version_usage, image_name, scope)) or {}

    def _warn_of_unchecked_usage(self, parameter: str) -> None:
        self.log.warning(
            "SageMaker image %r: not checking whether SageMaker Studio uses what is deleted, because %s is not set. "
            "Spaces do not start if their version was deleted",
            self.image_name,
            parameter,
        )


def _check_selector(version: int | None, alias: str | None) -> None:
    if (version is None) == (alias is None):
        raise ValueError(
            f"version={truncated_repr(version)}, alias={truncated_repr(alias)}: pass the version's number or one of "
            "its aliases, and not both."
        )


@attrs.frozen(field_transformer=with_converters, kw_only=True, slots=False)
class VersionSelector(Parameters):
    """
    A version of an image, by its number or by one of its aliases.

    :param version: Number of the version, 0 or more. (default: ``None``)
    :param alias: An alias of the version. (default: ``None``)
    :raises ValueError: A value is outside its limits, or not exactly one of the two is set.
    """

    version: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    alias: str | None = attrs.field(default=None, metadata=parsed_by(parse_alias))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_check_selector,)

    def __str__(self) -> str:
        return f"version {self.version}" if self.alias is None else f"a version with the alias {self.alias!r}"

    @property
    def selector(self) -> dict[str, Any]:
        """The keyword argument of the hook's methods that selects the version."""
        return {"version": self.version} if self.alias is None else {"alias": self.alias}
