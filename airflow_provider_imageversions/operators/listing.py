"""The operator that lists versions."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import (
    invalid_parameter,
    parse_boolean,
    parse_names,
    parsed_by,
    with_converters,
)
from airflow_provider_imageversions._requests import ListImageVersionsRequest
from airflow_provider_imageversions.compat import conf, stores_xcom_in_database
from airflow_provider_imageversions.errors import none_if_not_found
from airflow_provider_imageversions.hooks import AWS_PARAMETERS, SageMakerImageVersionsHook, aws_parameters
from airflow_provider_imageversions.links import SageMakerImageLink
from airflow_provider_imageversions.model import DETAIL_FIELDS, LISTED_FIELDS
from airflow_provider_imageversions.operators._base import ImageOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from airflow_provider_imageversions.model import ImageVersion

LARGE_XCOM = 256 * 1024
"""Size in bytes of JSON above which a warning is logged for a result in the metadata database."""
_MAX_XCOM = 4 * 1024 * 1024


def _check_fields(fields: tuple[str, ...] | None, include_details: bool) -> None:  # noqa: FBT001  # a rule's argument
    unknown = [] if include_details else [name for name in fields or () if name not in LISTED_FIELDS]
    if unknown:
        raise invalid_parameter(
            "fields",
            fields,
            f"allowed are {', '.join(LISTED_FIELDS)}. With include_details=True also {', '.join(DETAIL_FIELDS)}.",
        )


@attrs.frozen(field_transformer=with_converters)
class _ListParameters(ListImageVersionsRequest):
    fields: tuple[str, ...] | None = attrs.field(
        default=None, metadata=parsed_by(partial(parse_names, choices=(*LISTED_FIELDS, *DETAIL_FIELDS)))
    )
    include_details: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (*ListImageVersionsRequest.RULES, _check_fields)


class SageMakerListImageVersionsOperator(ImageOperator):
    """
    List the versions of an Amazon SageMaker image and push them to XCom as a list of records.

    Numbers, times and lists may also be strings, as templates render them. A filter that renders to nothing is an
    error.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param creation_time_after: Only versions created at or after this time; an aware datetime, or an ISO-8601 string
        with an offset. (default: all) (templated)
    :param creation_time_before: Only versions created at or before this time. (default: all) (templated)
    :param last_modified_time_after: Only versions modified at or after this time. (default: all) (templated)
    :param last_modified_time_before: Only versions modified at or before this time. (default: all) (templated)
    :param sort_by: ``CREATION_TIME``, ``LAST_MODIFIED_TIME`` or ``VERSION``. (default: ``CREATION_TIME``) (templated)
    :param sort_order: ``DESCENDING`` or ``ASCENDING``. (default: ``DESCENDING``) (templated)
    :param page_size: Versions per API call, 1 to 100. (default: 100) (templated)
    :param starting_token: ``NextToken`` of an earlier response to the same query, to continue from there. (default:
        none) (templated)
    :param statuses: Only versions in these statuses (``CREATING``, ``CREATED``, ``CREATE_FAILED``, ``DELETING``,
        ``DELETE_FAILED``); a list, or a comma-separated string. (default: all) (templated)
    :param limit: Maximum number of versions. No page is fetched beyond the last one. (default: no limit) (templated)
    :param fields: Only these keys of each record; a list, or a comma-separated string. (default: all) (templated)
    :param include_details: Add ``ContainerImage``, ``BaseImage``, ``Aliases``, ``MLFramework`` and the other fields of
        DescribeImageVersion and ListAliases, with two more API calls per version. Versions that are deleted, or change
        to a status that was not requested, in the meantime are left out. (default: False) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :raises ValueError: A parameter is outside its limits (when the DAG is parsed, if it is known then), or the
        result would take more than ``[sagemaker_image_versions] max_xcom_bytes`` (default: 4194304; 0: no limit) in
        Airflow's metadata database. Above 262144 bytes, the task logs a warning.
    :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such
        image.
    :return: A record for each version, in the requested order, see
        :class:`~airflow_provider_imageversions.model.ImageVersion`.
    :rtype: list[ImageVersion]

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
    """

    _READS: ClassVar[bool] = True
    _parameters = _ListParameters
    template_fields: Sequence[str] = (*_ListParameters.names(), *AWS_PARAMETERS)

    def __init__(
        self,
        *,
        image_name: str,
        creation_time_after: datetime | str | None = None,
        creation_time_before: datetime | str | None = None,
        last_modified_time_after: datetime | str | None = None,
        last_modified_time_before: datetime | str | None = None,
        sort_by: str = "CREATION_TIME",
        sort_order: str = "DESCENDING",
        page_size: int | str = 100,
        starting_token: str | None = None,
        statuses: Iterable[str] | str | None = None,
        limit: int | str | None = None,
        fields: Iterable[str] | str | None = None,
        include_details: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self._set_parameters(locals())

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """List the versions, and return the result for XCom."""
        self._check_rendered()
        parameters, maximum = _ListParameters.of(self), _max_xcom_bytes()
        hook = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self))
        request = {name: getattr(parameters, name) for name in ListImageVersionsRequest.names()}
        records = _iter_detailed(hook, **request) if parameters.include_details else hook.iter_image_versions(**request)
        SageMakerImageLink.store(context, self, hook, self.image_name)
        result: list[dict[str, Any]] = []
        size = 0
        number: int | None = None
        for record in records:
            number = record["Version"]
            result.append({key: value for key, value in record.items() if key in (parameters.fields or record)})
            size += len(json.dumps(result[-1])) + len(", ")
            if maximum and size > maximum and self._goes_to_database(size):
                # Fail now, rather than after the calls for the remaining versions.
                raise ValueError(
                    f"SageMaker image {self.image_name!r}: the result is larger than {maximum:,} bytes as JSON after "
                    f"{len(result)} versions, and it would go to XCom in Airflow's metadata database. "
                    f"{_ways_to_less(len(result))}; or increase [sagemaker_image_versions] "
                    "max_xcom_bytes (0: no limit)."
                )
        if size > LARGE_XCOM and self._goes_to_database(size):
            self.log.warning(
                "SageMaker image %r: the result of %d versions takes %s bytes as JSON in Airflow's metadata database. "
                "%s.",
                self.image_name,
                len(result),
                f"{size:,}",
                _ways_to_less(len(result) * LARGE_XCOM // size),
            )
        self.log.info("SageMaker image %r: listed %d versions", self.image_name, len(result))
        self._lineage = (str(hook.conn_region_name), number if len(result) == 1 else None)
        return result

    def _goes_to_database(self, size: int) -> bool:
        return bool(self.do_xcom_push) and stores_xcom_in_database(size)


def _iter_detailed(
    hook: SageMakerImageVersionsHook, *, image_name: str, statuses: Any, limit: int | None, **filters: Any
) -> Iterator[ImageVersion]:
    """List versions with details. A version may be deleted, or change its status, before it is described."""
    listed = hook.iter_image_versions(image_name, statuses=statuses, **filters)
    detailed = (none_if_not_found(hook.add_details, image_name, record) for record in listed)
    return decide.select((record for record in detailed if record is not None), statuses=statuses, limit=limit)


def _max_xcom_bytes() -> int:
    maximum: int = conf.getint("sagemaker_image_versions", "max_xcom_bytes", fallback=_MAX_XCOM)
    if maximum < 0:
        raise ValueError(
            f"[sagemaker_image_versions] max_xcom_bytes={maximum} is not valid: it must be 0 (no limit) or more."
        )
    return maximum


def _ways_to_less(fitting: int) -> str:
    # Records differ in length, so a little less than would fit.
    return (
        f"Pass limit={max(1, fitting * 9 // 10)} or less, or fields=['Version', 'ImageVersionStatus'], or narrow the "
        "filters, or configure an object-storage XCom backend ([core] xcom_backend and [common.io] "
        "xcom_objectstorage_threshold)"
    )
