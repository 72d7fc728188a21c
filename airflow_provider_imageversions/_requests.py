"""
One class for each call of SageMaker's image API: its parameters, their limits, and the request for boto3.

Pure: no Airflow, no boto, no clock, no log.
"""

from __future__ import annotations

import json
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_provider_imageversions._parameters import (
    PAGE_SIZE_MAX,
    SORT_ORDER,
    USAGE_SCOPES,
    Parameters,
    choice_parser,
    invalid_parameter,
    parse_alias,
    parse_aliases,
    parse_boolean,
    parse_domain_id,
    parse_image_name,
    parse_integer,
    parse_names,
    parse_statuses,
    parse_tags,
    parse_time,
    parse_token,
    parse_version,
    parsed_by,
    text_parser,
    truncated_repr,
    with_converters,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

# Words with special capitalization in the API's members.
_MEMBER_WORDS = {"ml": "ML"}


def _member(name: str) -> str:
    return "".join(_MEMBER_WORDS.get(word, word.capitalize()) for word in name.split("_"))


@attrs.frozen(field_transformer=with_converters, slots=False)
class Request(Parameters):
    """The parameters of an API call."""

    def to_boto(self) -> dict[str, Any]:
        """Return the keyword arguments for boto3."""
        values = {field: getattr(self, field.name) for field in attrs.fields(type(self))}
        return {
            field.metadata["member"] or _member(field.name): list(value) if isinstance(value, tuple) else value
            for field, value in values.items()
            if value is not None and field.metadata["member"] is not None
        }


# --- Images ----------------------------------------------------------------------------------------------


@attrs.frozen(field_transformer=with_converters, slots=False)
class ImageRequest(Request):
    """
    A call that needs only an image: DescribeImage and DeleteImage.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))


@attrs.frozen(field_transformer=with_converters, kw_only=True)
class _ImageMetadata(Request):
    display_name: str | None = attrs.field(
        default=None,
        metadata=parsed_by(text_parser(128, "text that neither starts nor ends with a space", r"\S(.*\S)?")),
    )
    description: str | None = attrs.field(default=None, metadata=parsed_by(text_parser(512)))


_ROLE_ARN = text_parser(
    2048, "the ARN of an IAM role", r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+", minimum=20
)


@attrs.frozen(field_transformer=with_converters)
class CreateImageRequest(_ImageMetadata):
    """
    The parameters of CreateImage.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param role_arn: ARN of the IAM role that SageMaker uses to pull the container images.
    :param tags: Up to 50 tags, as a dict or as AWS's list of ``{"Key": ..., "Value": ...}``. (default: none)
    :param display_name: Display name of the image, 1 to 128 characters. (default: none)
    :param description: Description of the image, up to 512 characters. (default: none)
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImage.html
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    role_arn: str = attrs.field(metadata=parsed_by(_ROLE_ARN))
    tags: Mapping[str, str] | Iterable[Mapping[str, str]] | None = attrs.field(
        default=None, metadata=parsed_by(parse_tags)
    )


@attrs.frozen(field_transformer=with_converters)
class UpdateImageRequest(_ImageMetadata):
    """
    The parameters of UpdateImage.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param role_arn: ARN of the IAM role that SageMaker uses to pull the container images. (default:
        unchanged)
    :param display_name: Display name of the image, 1 to 128 characters. (default: unchanged)
    :param description: Description of the image, up to 512 characters. (default: unchanged)
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImage.html
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    role_arn: str | None = attrs.field(default=None, metadata=parsed_by(_ROLE_ARN))


# --- Versions --------------------------------------------------------------------------------------------


_NAME_AND_VERSION = r"[a-zA-Z]+ ?\d+\.\d+(\.\d+)?"


@attrs.frozen(field_transformer=with_converters, kw_only=True)
class VersionMetadata(Request):
    """The metadata of a version, apart from its aliases; see :class:`CreateImageVersionRequest`."""

    vendor_guidance: str | None = attrs.field(
        default=None, metadata=parsed_by(choice_parser("NOT_PROVIDED", "STABLE", "TO_BE_ARCHIVED", "ARCHIVED"))
    )
    job_type: str | None = attrs.field(
        default=None, metadata=parsed_by(choice_parser("TRAINING", "INFERENCE", "NOTEBOOK_KERNEL"))
    )
    ml_framework: str | None = attrs.field(
        default=None,
        metadata=parsed_by(text_parser(128, "a name and a version such as 'PyTorch 2.4'", _NAME_AND_VERSION)),
    )
    programming_lang: str | None = attrs.field(
        default=None,
        metadata=parsed_by(text_parser(128, "a name and a version such as 'Python 3.11'", _NAME_AND_VERSION)),
    )
    processor: str | None = attrs.field(default=None, metadata=parsed_by(choice_parser("CPU", "GPU")))
    horovod: bool | str | None = attrs.field(default=None, metadata=parsed_by(parse_boolean))
    release_notes: str | None = attrs.field(default=None, metadata=parsed_by(text_parser(255)))


@attrs.frozen(field_transformer=with_converters)
class CreateImageVersionRequest(VersionMetadata):
    """
    The parameters of CreateImageVersion, apart from its ClientToken.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param base_image: Registry path of the container image in Amazon ECR, up to 255 characters.
    :param aliases: Aliases for the version, each of 1 to 128 letters, digits, hyphens, underscores and dots; a list, or
        a comma-separated string. (default: none)
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``. (default: none)
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``. (default: none)
    :param ml_framework: Name and version of the machine learning framework, such as ``PyTorch 2.4``. (default: none)
    :param programming_lang: Name and version of the programming language, such as ``Python 3.11``. (default: none)
    :param processor: ``CPU`` or ``GPU``. (default: none)
    :param horovod: Whether the version is compatible with Horovod. (default: none)
    :param release_notes: Release notes, up to 255 characters. (default: none)
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImageVersion.html
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    base_image: str = attrs.field(metadata=parsed_by(text_parser(255, "the registry path of a container image")))
    aliases: Iterable[str] | str | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))

    def client_token(self, *identity: object) -> str:
        """
        Return the ClientToken, which makes the request idempotent as long as SageMaker remembers it.

        :param identity: JSON values that identify the origin of the request.
        """
        canonical = json.dumps([*identity, self.to_boto()], sort_keys=True)
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"airflow_provider_imageversions:{canonical}"))


@attrs.frozen(field_transformer=with_converters)
class UpdateImageVersionRequest(VersionMetadata):
    """
    The parameters of UpdateImageVersion, by version number.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param version: Number of the version, 0 or more.
    :param aliases_to_add: Aliases to add to the version, which no version may have; a list, or a comma-separated
        string. (default: none)
    :param aliases_to_delete: Aliases to remove from the version; a list, or a comma-separated string. (default: none)
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``. (default: unchanged)
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``. (default: unchanged)
    :param ml_framework: Name and version of the machine learning framework, such as ``PyTorch 2.4``. (default:
        unchanged)
    :param programming_lang: Name and version of the programming language, such as ``Python 3.11``. (default: unchanged)
    :param processor: ``CPU`` or ``GPU``. (default: unchanged)
    :param horovod: Whether the version is compatible with Horovod. (default: unchanged)
    :param release_notes: Release notes, up to 255 characters. (default: unchanged)
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImageVersion.html
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    version: int = attrs.field(metadata=parsed_by(parse_version))
    aliases_to_add: Iterable[str] | str | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))
    aliases_to_delete: Iterable[str] | str | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))


def _not_both(version: int | None, alias: str | None) -> None:
    if version is not None and alias is not None:
        raise ValueError(f"version={truncated_repr(version)} and alias={truncated_repr(alias)}: pass only one of them.")


@attrs.frozen(field_transformer=with_converters)
class DescribeImageVersionRequest(ImageRequest):
    """
    A call of DescribeImageVersion. Without a version or an alias, SageMaker chooses the latest version.

    :param image_name: Name of the image.
    :param version: Number of the version, 0 or more. (default: ``None``)
    :param alias: An alias of the version. (default: ``None``)
    :raises ValueError: A value is outside its limits, or both ``version`` and ``alias`` are set.
    """

    version: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    alias: str | None = attrs.field(default=None, metadata=parsed_by(parse_alias))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_not_both,)


@attrs.frozen(field_transformer=with_converters)
class DeleteImageVersionRequest(ImageRequest):
    """
    A call of DeleteImageVersion.

    :param image_name: Name of the image.
    :param version: Number of the version, 0 or more.
    :raises ValueError: A value is outside its limits.
    """

    version: int = attrs.field(metadata=parsed_by(parse_version))


@attrs.frozen(field_transformer=with_converters)
class ListAliasesRequest(ImageRequest):
    """
    A call of ListAliases.

    :param image_name: Name of the image.
    :param version: Number of the version, 0 or more. (default: all versions)
    :raises ValueError: A value is outside its limits.
    """

    version: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))


# --- Studio ----------------------------------------------------------------------------------------------


@attrs.frozen(field_transformer=with_converters)
class UsageRequest(ImageRequest):
    """
    A search for who uses which version of an image in Amazon SageMaker Studio, which takes many calls.

    :param image_name: Name of the image.
    :param scope: Where to check: some of ``domains``, ``apps``, ``user_profiles`` and ``spaces``. (default: all)
    :param domain_id: Check only this domain. (default: all domains)
    :raises ValueError: A value is outside its limits.
    """

    scope: Iterable[str] | str = attrs.field(
        default=USAGE_SCOPES, metadata=parsed_by(partial(parse_names, choices=USAGE_SCOPES), accepts_none=False)
    )
    domain_id: str | None = attrs.field(default=None, metadata=parsed_by(parse_domain_id))


# --- Lists -----------------------------------------------------------------------------------------------


def _check_range(name: str, after: datetime | None, before: datetime | None) -> None:
    if after is not None and before is not None and after > before:
        raise invalid_parameter(
            f"{name}_after",
            after.isoformat(),
            f"it is later than {name}_before={before.isoformat()!r}, so nothing can match.",
        )


def _check_creation_times(creation_time_after: datetime | None, creation_time_before: datetime | None) -> None:
    _check_range("creation_time", creation_time_after, creation_time_before)


def _check_modification_times(
    last_modified_time_after: datetime | None, last_modified_time_before: datetime | None
) -> None:
    _check_range("last_modified_time", last_modified_time_after, last_modified_time_before)


@attrs.frozen(field_transformer=with_converters, kw_only=True)
class ListRequest(Request):
    """
    The common parameters of lists of images and of versions.

    :param creation_time_after: Only items created at or after this time; an aware datetime, or an ISO-8601 string with
        an offset. (default: all)
    :param creation_time_before: Only items created at or before this time. (default: all)
    :param last_modified_time_after: Only items modified at or after this time. (default: all)
    :param last_modified_time_before: Only items modified at or before this time. (default: all)
    :param sort_order: ``DESCENDING`` or ``ASCENDING``. (default: ``DESCENDING``)
    :param page_size: Items per API call, 1 to 100. (default: 100; SageMaker's own default is 10)
    :param starting_token: ``NextToken`` of an earlier response to the same query, to continue from there.
        (default: ``None``)
    :param limit: Maximum number of items; not part of the request. (default: no limit)
    """

    creation_time_after: datetime | str | None = attrs.field(default=None, metadata=parsed_by(parse_time))
    creation_time_before: datetime | str | None = attrs.field(default=None, metadata=parsed_by(parse_time))
    last_modified_time_after: datetime | str | None = attrs.field(default=None, metadata=parsed_by(parse_time))
    last_modified_time_before: datetime | str | None = attrs.field(default=None, metadata=parsed_by(parse_time))
    sort_order: str = attrs.field(default="DESCENDING", metadata=parsed_by(choice_parser(*SORT_ORDER)))
    page_size: int = attrs.field(
        default=PAGE_SIZE_MAX,
        metadata=parsed_by(partial(parse_integer, minimum=1, maximum=PAGE_SIZE_MAX), member="MaxResults"),
    )
    starting_token: str | None = attrs.field(default=None, metadata=parsed_by(parse_token, member="NextToken"))
    limit: int | None = attrs.field(default=None, metadata=parsed_by(partial(parse_integer, minimum=0), member=None))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_check_creation_times, _check_modification_times)


@attrs.frozen(field_transformer=with_converters)
class ListImageVersionsRequest(ListRequest):
    """
    A list of an image's versions: a call of ListImageVersions, with additional filters.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param sort_by: ``CREATION_TIME``, ``LAST_MODIFIED_TIME`` or ``VERSION``. (default: ``CREATION_TIME``)
    :param statuses: Only versions in these statuses; not part of the request. (default: all)
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.
    """

    image_name: str = attrs.field(metadata=parsed_by(parse_image_name))
    sort_by: str = attrs.field(
        default="CREATION_TIME", metadata=parsed_by(choice_parser("CREATION_TIME", "LAST_MODIFIED_TIME", "VERSION"))
    )
    statuses: tuple[str, ...] | None = attrs.field(default=None, metadata=parsed_by(parse_statuses, member=None))


@attrs.frozen(field_transformer=with_converters)
class ListImagesRequest(ListRequest):
    """
    A list of images: a call of ListImages.

    :param name_contains: Only images with this text in their names: 1 to 63 letters, digits, hyphens and dots.
        (default: all)
    :param sort_by: ``CREATION_TIME``, ``LAST_MODIFIED_TIME`` or ``IMAGE_NAME``. (default: ``CREATION_TIME``)
    :raises ValueError: A value is outside its limits; the message names the parameter and its value.
    """

    name_contains: str | None = attrs.field(
        default=None, metadata=parsed_by(text_parser(63, "a part of an image's name", r"[a-zA-Z0-9\-.]+"))
    )
    sort_by: str = attrs.field(
        default="CREATION_TIME", metadata=parsed_by(choice_parser("CREATION_TIME", "LAST_MODIFIED_TIME", "IMAGE_NAME"))
    )
