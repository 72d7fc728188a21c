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
from airflow_provider_imageversions._task import ImageTask
from airflow_provider_imageversions._worker import WorkerPoller
from airflow_provider_imageversions.compat import BaseOperator
from airflow_provider_imageversions.errors import SageMakerImageOperationError, none_if_not_found
from airflow_provider_imageversions.links import SageMakerImageLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
    from airflow_provider_imageversions.model import ImageVersion

T = TypeVar("T")


class ImageOperator(ImageTask, BaseOperator):
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
        ImageRequest.check_literals(self, self._template)
        self._set_aws_parameters(locals())


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

    def _start(self, context: Any, left: float | None = None) -> WorkerPoller:
        # A cluster policy or a later line of the DAG file may have changed them.
        self.check_interval = parse_seconds("check_interval", self.check_interval)
        self.timeout = parse_seconds("timeout", self.timeout)
        task = WorkerPoller(self, self.image_name, interval=self.check_interval, timeout=self.timeout, left=left)
        SageMakerImageLink.store(context, self, task.hook, self.image_name)
        return task

    def _raise_if_failed(self, found: T | decide.Failed) -> T:
        if isinstance(found, decide.Failed):
            raise self._error(found.reason)
        return found

    def _error(self, reason: str) -> SageMakerImageOperationError:
        return SageMakerImageOperationError(f"SageMaker image {self.image_name!r}: {reason}")

    def _find_users(
        self, task: WorkerPoller, parameter: str, scope: tuple[str, ...]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return who uses which version; empty if the parameter is not set."""
        if not scope:
            self.log.warning(
                "SageMaker image %r: not checking whether SageMaker Studio uses what is deleted, because %s is not "
                "set. Spaces do not start if their version was deleted",
                self.image_name,
                parameter,
            )
            return {}

        # An image that is not found, although it was a moment ago, has users all the same.
        return task.call(lambda hook: hook.find_image_version_usage(self.image_name, scope, timeout=task.left))

    def _check_aliases_are_free(self, hook: SageMakerImageVersionsHook, aliases: Iterable[str] | None) -> None:
        """Raise an error if one of the aliases belongs to a version."""
        for alias in aliases or ():
            owner = none_if_not_found(hook.describe_image_version, self.image_name, alias=alias)
            if owner is not None:
                raise self._error(
                    f"the alias {alias!r} belongs to version {owner['Version']}. Leave it out, and move it with "
                    f"SageMakerPromoteImageVersionOperator(aliases=[{alias!r}])"
                )

    def _describe(self, task: WorkerPoller, number: int) -> ImageVersion:
        """Return the record of the version that the task is about, with details."""
        self._lineage = (str(task.hook.conn_region_name), number)
        return task.call(lambda hook: hook.add_details(self.image_name, {"Version": number}))


def _check_selector(version: int | None, alias: str | None) -> None:
    if (version is None) == (alias is None):
        raise ValueError(
            f"version={truncated_repr(version)}, alias={truncated_repr(alias)}: pass exactly one of them, the "
            "version's number or one of its aliases."
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
