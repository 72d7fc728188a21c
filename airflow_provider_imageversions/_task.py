"""What operators and sensors on an image have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_imageversions._parameters import parse_boolean
from airflow_provider_imageversions.assets import openlineage_dataset
from airflow_provider_imageversions.compat import conf
from airflow_provider_imageversions.hooks import AWS_PARAMETERS, aws_parameters, check_aws_parameters
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.templating import TemplatedParameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage


def is_deferrable(deferrable: bool | None) -> bool:  # noqa: FBT001  # an operator's parameter
    """
    Return whether a task waits in the triggerer.

    :param deferrable: The task's parameter; ``None`` for ``[operators] default_deferrable``.
    """
    if deferrable is None:
        deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
    return deferrable


class Flag:
    """A boolean attribute of a task, which is checked when it is set: a cluster policy may set it later."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: Any, owner: type | None = None) -> bool:
        return task is not None and bool(task.__dict__.get(self._name, False))

    def __set__(self, task: Any, value: object) -> None:
        is_boolean = value is True or value is False
        task.__dict__[self._name] = value if is_boolean else parse_boolean(self._name, value)


class ImageTask(TemplatedParameters):
    """Mix-in for operators and sensors on an image, before Airflow's class."""

    template_fields_renderers: ClassVar[dict[str, str]] = {"botocore_config": "json"}
    operator_extra_links: Any = (SageMakerImageLink(),)
    ui_color = "#f2e6d9"
    image_name: str
    _READS: ClassVar[bool] = False
    """Whether the task reads the image, rather than writes it."""
    _lineage: tuple[str, int | None] | None = None
    """Region of the image, and number of the version if it was a single one; ``None`` until the task knows."""

    def _set_aws_parameters(self, values: Mapping[str, Any]) -> None:
        """
        Set the attributes of the connection, and check those that are known when the DAG is parsed.

        :param values: The constructor's ``locals()``.
        :raises ValueError: boto3 does not accept a value, or ``botocore_config`` contains a password.
        """
        for name in AWS_PARAMETERS:
            setattr(self, name, values[name])
        self.aws_conn_id = None if values["aws_conn_id"] == "" else values["aws_conn_id"]
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
