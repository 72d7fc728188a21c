"""The hook: clients, credentials and pagination. No other module uses clients or pagination tokens."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import botocore.exceptions
import botocore.loaders
import botocore.parsers
import botocore.session
import botocore.utils
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from botocore import UNSIGNED
from botocore.config import Config

from airflow_provider_imageversions import _botocore, _parameters, _requests, decide, errors, studio
from airflow_provider_imageversions.compat import AirflowNotFoundException, conf, get_async_connection
from airflow_provider_imageversions.model import ErrorKind, clean_text, describe_error, to_record
from airflow_provider_imageversions.usage import Pace, UsageReader

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    import boto3

    from airflow_provider_imageversions.model import (
        CreateImageRequest,
        CreateImageVersionRequest,
        ImageVersion,
        UpdateImageRequest,
        UpdateImageVersionRequest,
    )

R = TypeVar("R", bound="Mapping[str, Any]")

# At most one minute instead of botocore's five, because a poll that hangs delays all waits for the image.
_PINNED_CONFIG: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 15}
_PINNED_RETRIES = {"mode": "standard", "total_max_attempts": 3}

_CONFIG_ERRORS = (
    AttributeError,
    TypeError,
    ValueError,
    botocore.exceptions.InvalidChecksumConfigError,
    botocore.exceptions.InvalidConfigError,
    botocore.exceptions.InvalidDefaultsMode,
)

_SHOWN_OF_ERRORS = 500
_IMAGE_KEYS = ("ImageName", "ImageArn", "ImageStatus")
_LARGEST_PAGE = {"MaxResults": _parameters.PAGE_SIZE_MAX}

AWS_DEFAULTS = {"aws_conn_id": "aws_default", "region_name": None, "verify": None, "botocore_config": None}
AWS_PARAMETERS = tuple(AWS_DEFAULTS)


def aws_parameters(source: object) -> dict[str, Any]:
    """
    Return the four parameters of the connection from an operator, sensor or trigger.

    A value that rendered to nothing becomes the default, and the string of a boolean becomes the boolean.

    :param source: The operator, sensor or trigger.
    """
    values = {name: getattr(source, name) for name in AWS_PARAMETERS}
    values |= {name: AWS_DEFAULTS[name] for name, value in values.items() if _parameters.is_blank(value)}
    if values["verify"] in ("True", "False"):
        values["verify"] = values["verify"] == "True"
    return values


def resolved_aws_parameters(source: object, hook: SageMakerImageVersionsHook) -> dict[str, Any]:
    """
    Return the parameters of :func:`aws_parameters` for a trigger to which a worker defers.

    A worker decides whether a missing ``aws_default`` means boto3's default chain. The trigger gets
    ``aws_conn_id=None`` then, so that it does not look the connection up again.

    :param source: The operator or sensor.
    :param hook: The hook of the operator or sensor.
    """
    if hook.may_fall_back:
        # If Airflow cannot look it up now, the trigger tries again.
        with suppress(errors.ConnectionLookupError):
            hook.find_connection()
    return {**aws_parameters(source), "aws_conn_id": hook.effective_conn_id}


def check_aws_parameters(values: Mapping[str, object], *, template: re.Pattern[str] | None = None) -> None:
    """
    Check the parameters of the connection that are known when a DAG is parsed.

    :param values: Some of the parameters, by name.
    :param template: Pattern that matches the start of a template; templates are checked when the task runs. (default:
        no value is a template)
    :raises ValueError: boto3 does not accept a value, or ``botocore_config`` contains a password.
    """
    for name, value in values.items():
        if template is None or _parameters.is_literal(value, template):
            _parse_aws_parameter(name, value)


_PARSERS = {
    "aws_conn_id": _parameters.parse_conn_id,
    "region_name": _parameters.parse_region,
    "verify": _parameters.parse_verify,
    "botocore_config": _botocore.parse_stored_config,
}


def _parse_aws_parameter(name: str, value: object) -> Any:
    return None if value is None or _parameters.is_blank(value) else _PARSERS[name](name, value)


class SageMakerImageVersionsHook(AwsBaseHook):
    """
    Interact with Amazon SageMaker images and their versions.

    If the connection ``aws_default`` does not exist, the hook logs a warning and uses boto3's default credential chain,
    as other Amazon hooks do. Unlike them, it raises an error if any other connection does not exist. It pins botocore's
    retries (``standard`` mode, 3 attempts) and timeouts (5 s to connect, 15 s to read) unless ``config`` or the
    connection's ``config_kwargs`` set them. If both set the same option, ``config`` takes precedence.

    For calls that have no method here, ``conn`` is the boto3 client for SageMaker, as in other Amazon hooks.

    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` or ``""`` uses boto3's default
        credential chain. (default: ``aws_default``)
    :param region_name: AWS region. (default: the connection's region, or boto3's)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
    :param config: Configuration of botocore's client: a :class:`botocore.config.Config`, or its keyword arguments.
        (default: the connection's settings)
    :raises ValueError: A parameter is outside its limits.
    :raises MissingConnectionError: At the first call: the connection ``aws_conn_id`` does not exist.
    :raises CredentialsError: At a call: the credentials could not be loaded or refreshed.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
    """

    def __init__(
        self,
        aws_conn_id: str | None = AwsBaseHook.default_conn_name,
        region_name: str | None = None,
        verify: bool | str | None = None,  # noqa: FBT001  # the Amazon provider's own signature
        config: Config | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in {"aws_conn_id": aws_conn_id, "region_name": region_name, "verify": verify}.items():
            _parse_aws_parameter(name, value)
        if config is not None and not isinstance(config, Config):
            config = _botocore.parse_config("config", config)
        super().__init__(
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            config=config,
            **{**kwargs, "client_type": "sagemaker"},
        )
        self._connection: Any = None
        self.may_fall_back = aws_conn_id == self.default_conn_name
        """Whether :meth:`find_connection` uses boto3's default chain if the connection does not exist."""
        self.fell_back = False
        """Whether boto3's default chain is used because the connection does not exist."""

    @classmethod
    def from_parameters(cls, *, botocore_config: dict[str, Any] | None, **others: Any) -> SageMakerImageVersionsHook:
        """
        Return a hook for the parameters that :func:`aws_parameters` returns.

        :param botocore_config: Its ``botocore_config``.
        :param others: The other parameters.
        :raises ValueError: boto3 does not accept one of them.
        """
        return cls(config=_parse_aws_parameter("botocore_config", botocore_config), **others)

    @cached_property
    def conn_config(self) -> AwsConnectionWrapper:
        """The connection's settings, with this hook's pinned retries and timeouts where it has none."""
        connection = self.find_connection()
        try:
            wrapper = AwsConnectionWrapper(conn=connection, region_name=self._region_name, verify=self._verify)
            if wrapper.region_name:
                _parameters.parse_region("region_name", wrapper.region_name)
        except Exception as error:
            raise ValueError(
                f"aws_conn_id={self.aws_conn_id!r}: the connection's settings are not valid: "
                f"{_parameters.truncated_repr(str(error))}"
            ) from error
        # If it has its own configuration, the wrapper ignores that of the connection, including proxies and timeouts.
        given = (wrapper.botocore_config or Config()).merge(self._config or Config())
        retries = dict(given.retries or {})
        pinned = {**_PINNED_RETRIES, **retries}
        if "max_attempts" in retries and "total_max_attempts" not in retries:
            # total_max_attempts takes precedence in botocore, so the pinned value would override the user's.
            del pinned["total_max_attempts"]
        wrapper.botocore_config = Config(**_PINNED_CONFIG).merge(given).merge(Config(retries=pinned))
        return wrapper

    @property
    def effective_conn_id(self) -> str | None:
        """The connection's id; ``None`` if boto3's default chain is used because the connection does not exist."""
        return None if self.fell_back else self.aws_conn_id

    @property
    def has_connection(self) -> bool:
        """Whether an Airflow connection was found."""
        return self._connection is not None

    def find_connection(self) -> Any:
        """
        Look up the Airflow connection, once; return ``None`` for boto3's default chain.

        :raises MissingConnectionError: The connection does not exist, and :attr:`may_fall_back` is not set.
        :raises ConnectionLookupError: Airflow or its secrets backend is unavailable.
        """
        if self.aws_conn_id and not self.has_connection and not self.fell_back:
            try:
                with self._lookup_errors(self.aws_conn_id):
                    self._connection = self.get_connection(self.aws_conn_id)
            except errors.MissingConnectionError:
                if not self.may_fall_back:
                    raise
                self.fall_back()
        return self._connection

    async def preload_connection(self) -> None:
        """
        Look up the connection once, without blocking the event loop. After that, a thread can create the client.

        Unlike :meth:`find_connection`, it leaves it to the caller to :meth:`fall_back`.

        :raises MissingConnectionError: The connection does not exist.
        :raises ConnectionLookupError: Airflow or its secrets backend is unavailable.
        """
        if self.aws_conn_id and not self.has_connection:
            with self._lookup_errors(self.aws_conn_id):
                self._connection = await get_async_connection(self.aws_conn_id, hook=type(self))

    def fall_back(self) -> None:
        """Use boto3's default chain because the connection does not exist."""
        self.fell_back = True
        self.log.warning(
            "Connection %r does not exist; using boto3's default credential chain. Create the connection, or set "
            "aws_conn_id=None",
            self.aws_conn_id,
        )

    @contextmanager
    def _lookup_errors(self, aws_conn_id: str) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException as error:
            raise errors.MissingConnectionError(aws_conn_id) from error
        except (AttributeError, NameError, TypeError):
            # A bug here or in Airflow, which is not temporary.
            raise
        except Exception as error:
            raise errors.ConnectionLookupError(aws_conn_id, error) from error

    @contextmanager
    def _credential_errors(self) -> Iterator[None]:
        """Re-raise any error of the credential chain as a :class:`CredentialsError`."""
        try:
            yield
        except botocore.exceptions.NoRegionError:
            raise
        except Exception as error:
            # Wrap all other errors: an AccessDenied of AWS STS would be taken for one of SageMaker.
            if isinstance(error, errors.BOTOCORE_ERRORS) and errors.classify_error(error) in {
                ErrorKind.THROTTLED,
                ErrorKind.TRANSIENT,
            }:
                raise
            if errors.is_unsendable(error):
                raise self._unsendable_credentials() from None
            raise errors.CredentialsError(
                provider=self._credentials_provider,
                # The text may be the page of a proxy.
                error_msg=clean_text(describe_error(error))[:_SHOWN_OF_ERRORS],
            ) from error

    @property
    def _credentials_provider(self) -> str:
        conn_id = self.effective_conn_id
        return f"connection {conn_id!r}" if conn_id else "boto3's default credential chain"

    def _unsendable_credentials(self) -> errors.CredentialsError:
        return errors.CredentialsError(
            provider=self._credentials_provider,
            error_msg="an HTTP header cannot contain them. Make sure that the access key ID, the session token and "
            "user_agent in botocore's settings have no line break and no other control character",
        )

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> boto3.session.Session:  # noqa: FBT001, FBT002  # the Amazon provider's own signature
        """
        Return the boto3 session, with a faster timestamp parser and a shared loader of service models.

        :param region_name: AWS region.
        :param deferrable: Whether to return an aiobotocore session, which this package never requests. (default: False)
        """
        signs = self.config.signature_version is not UNSIGNED
        with self._credential_errors():
            session = super().get_session(region_name=region_name, deferrable=deferrable)
            # Loaded here rather than when the client is created, to distinguish its errors from those of a wrong
            # setting.
            credentials = session.get_credentials() if signs and not deferrable else None
        if credentials is not None:
            # Refresh them when a call is signed, but only for these services, because the chain itself may call AWS
            # STS.
            for service in ("sagemaker", "sqs", "ecr"):
                session.events.register(f"before-sign.{service}", partial(self._refresh, credentials))
        botocore_session = getattr(session, "_session", session)
        botocore_session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=_botocore.parse_timestamp
        )
        loader = _botocore.shared_loader(botocore_session.get_config_variable("data_path"))
        botocore_session.register_component("data_loader", loader)
        return session

    def _refresh(self, credentials: Any, **_event: Any) -> None:
        with self._credential_errors():
            frozen = credentials.get_frozen_credentials()
        if any(character in f"{frozen.access_key}{frozen.token}" for character in "\r\n"):
            # The error of Python's HTTP client would show the session token.
            raise self._unsendable_credentials()

    def get_client_type(self, *args: Any, **kwargs: Any) -> Any:
        """Create the client, or raise an error that names the parameter that may be wrong."""
        try:
            return super().get_client_type(*args, **kwargs)
        except botocore.exceptions.NoRegionError as error:
            raise ValueError(
                f"No AWS region configured (region_name={self._region_name!r}, "
                f"aws_conn_id={self.effective_conn_id!r}). Set region_name on the task or the connection, or "
                "AWS_DEFAULT_REGION."
            ) from error
        except _CONFIG_ERRORS as error:
            raise ValueError(
                f"Cannot create a client from botocore_config and connection {self.effective_conn_id!r}: "
                f"{_parameters.truncated_repr(str(error))}"
            ) from error

    def get_queue_client(self, queue_url: str, *, wait_seconds: int) -> Any:
        """
        Return a client for an Amazon SQS queue, with the connection's credentials and settings. The caller closes it.

        :param queue_url: URL of the queue, which determines the client's region.
        :param wait_seconds: Maximum time in seconds that the client's calls wait for messages.
        """
        region, emulator = _parameters.locate_queue(queue_url)
        read_timeout = getattr(self.config, "read_timeout", None)
        config = Config(read_timeout=read_timeout and read_timeout + wait_seconds)
        return self._client_of("sqs", region or str(self.conn_region_name), emulator, config)

    def _client_of(self, service: str, region: str, emulator: str | None = None, config: Config | None = None) -> Any:
        """Return a client for another service, with the connection's credentials and settings."""
        return self.get_session(region_name=region).client(
            service,
            region_name=region,
            endpoint_url=self.conn_config.get_service_endpoint_url(service) or emulator,
            config=self.config.merge(config or Config()),
            verify=self.verify,
        )

    def iter_image_versions(
        self,
        image_name: str,
        *,
        creation_time_after: datetime | str | None = None,
        creation_time_before: datetime | str | None = None,
        last_modified_time_after: datetime | str | None = None,
        last_modified_time_before: datetime | str | None = None,
        sort_by: str = "CREATION_TIME",
        sort_order: str = "DESCENDING",
        page_size: int = 100,
        starting_token: str | None = None,
        statuses: Iterable[str] | str | None = None,
        limit: int | None = None,
    ) -> Iterator[ImageVersion]:
        """
        List an image's versions lazily: each page is fetched when its first record is needed.

        A version that moves to a later page because another was added in between is returned once.

        :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
        :param creation_time_after: Only versions created at or after this time; an aware datetime, or an ISO-8601
            string with an offset. (default: all)
        :param creation_time_before: Only versions created at or before this time. (default: all)
        :param last_modified_time_after: Only versions modified at or after this time. (default: all)
        :param last_modified_time_before: Only versions modified at or before this time. (default: all)
        :param sort_by: ``CREATION_TIME``, ``LAST_MODIFIED_TIME`` or ``VERSION``. (default: ``CREATION_TIME``)
        :param sort_order: ``DESCENDING`` or ``ASCENDING``. (default: ``DESCENDING``)
        :param page_size: Versions per API call, 1 to 100. (default: 100)
        :param starting_token: ``NextToken`` of an earlier response to the same query, to continue from there. (default:
            none)
        :param statuses: Only versions in these statuses (``CREATING``, ``CREATED``, ``CREATE_FAILED``, ``DELETING``,
            ``DELETE_FAILED``). The hook filters them, because the API has no such filter. (default: all)
        :param limit: Maximum number of records. No page is fetched beyond the last one. (default: no limit)
        :raises ValueError: A parameter is outside its limits. Raised by the call, not by the first iteration.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no
            such image.
        :raises botocore.exceptions.PaginationError: SageMaker returned a repeating NextToken.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html
        """
        request = _requests.ListImageVersionsRequest.of(locals())
        pages = self._pages("list_image_versions", _botocore.whole_seconds(request), "ImageVersions")
        records = _unique(map(_botocore.version_record, chain.from_iterable(pages)), "Version")
        return decide.select(
            records, statuses=request.statuses, limit=request.limit, bounds=_botocore.fractional_bounds(request)
        )

    def list_image_versions(self, image_name: str, **filters: Any) -> list[ImageVersion]:
        """
        List an image's versions.

        :param image_name: Name of the image.
        :param filters: The filters of :meth:`iter_image_versions`.
        :raises ValueError: See :meth:`iter_image_versions`.
        :raises botocore.exceptions.ClientError: See :meth:`iter_image_versions`.
        """
        return list(self.iter_image_versions(image_name, **filters))

    def describe_image_version(
        self, image_name: str, version: int | None = None, alias: str | None = None
    ) -> ImageVersion:
        """
        Describe a version, including its ``ContainerImage``, which lists do not contain.

        :param image_name: Name of the image.
        :param version: Number of the version, 0 or more. (default: the latest version, which SageMaker chooses)
        :param alias: An alias of the version, instead of ``version``. (default: none)
        :raises ValueError: A parameter is outside its limits, or both ``version`` and ``alias`` are set.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no
            such image, version or alias.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeImageVersion.html
        """
        request = _requests.DescribeImageVersionRequest(image_name, version, alias).to_boto()
        return _botocore.version_record(self._call("describe_image_version", request, "ImageVersionStatus"))

    def list_aliases(self, image_name: str, version: int | None = None) -> list[str]:
        """
        List the aliases of a version, or of all versions of the image.

        :param image_name: Name of the image.
        :param version: Number of the version, 0 or more. (default: all versions)
        :raises ValueError: A parameter is outside its limits.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no
            such image or version.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListAliases.html
        """
        request = _requests.ListAliasesRequest(image_name, version).to_boto() | _LARGEST_PAGE
        pages = self._pages("list_aliases", request, "SageMakerImageVersionAliases")
        # Without duplicates: an alias may move to a later page because another was added in between.
        return list(dict.fromkeys(chain.from_iterable(pages)))

    def add_details(self, image_name: str, record: ImageVersion) -> ImageVersion:
        """
        Return a record with the fields of DescribeImageVersion and ListAliases, as with ``include_details=True``.

        :param image_name: Name of the image, which the record's ARN has in lower case only.
        :param record: The version's record.
        """
        return self._detailed(image_name, version=record["Version"])

    def _detailed(self, image_name: str, **selector: Any) -> ImageVersion:
        described = self.describe_image_version(image_name, **selector)
        return {**described, "Aliases": self.list_aliases(image_name, version=described["Version"])}

    def iter_images(
        self,
        *,
        name_contains: str | None = None,
        creation_time_after: datetime | str | None = None,
        creation_time_before: datetime | str | None = None,
        last_modified_time_after: datetime | str | None = None,
        last_modified_time_before: datetime | str | None = None,
        sort_by: str = "CREATION_TIME",
        sort_order: str = "DESCENDING",
        page_size: int = 100,
        starting_token: str | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """
        List the images of the account in the region lazily: each page is fetched when its first record is needed.

        An image that moves to a later page because another was added in between is returned once.

        :param name_contains: Only images with this text in their names: 1 to 63 letters, digits, hyphens and dots.
            (default: all)
        :param creation_time_after: Only images created at or after this time; an aware datetime, or an ISO-8601 string
            with an offset. (default: all)
        :param creation_time_before: Only images created at or before this time. (default: all)
        :param last_modified_time_after: Only images modified at or after this time. (default: all)
        :param last_modified_time_before: Only images modified at or before this time. (default: all)
        :param sort_by: ``CREATION_TIME``, ``LAST_MODIFIED_TIME`` or ``IMAGE_NAME``. (default: ``CREATION_TIME``)
        :param sort_order: ``DESCENDING`` or ``ASCENDING``. (default: ``DESCENDING``)
        :param page_size: Images per API call, 1 to 100. (default: 100)
        :param starting_token: ``NextToken`` of an earlier response to the same query, to continue from there. (default:
            none)
        :param limit: Maximum number of records. No page is fetched beyond the last one. (default: no limit)
        :return: Descriptions as :meth:`describe_image` returns them, but without ``RoleArn``.
        :raises ValueError: A parameter is outside its limits. Raised by the call, not by the first iteration.
        :raises botocore.exceptions.ClientError: SageMaker's error, such as access denied.
        :raises botocore.exceptions.PaginationError: SageMaker returned a repeating NextToken.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImages.html
        """
        request = _requests.ListImagesRequest.of(locals())
        pages = self._pages("list_images", _botocore.whole_seconds(request), "Images")
        images = (_botocore.complete(image, *_IMAGE_KEYS, what="an image") for image in chain.from_iterable(pages))
        records = _unique((dict(to_record(image)) for image in images), "ImageName")
        return decide.select(records, limit=request.limit, bounds=_botocore.fractional_bounds(request))

    def create_image(self, request: CreateImageRequest) -> str:
        """
        Create an image.

        :param request: The parameters of the call.
        :return: ARN of the image, which is CREATING for some seconds.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceInUse`` if an image with this name exists.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImage.html
        """
        return str(self._call("create_image", request.to_boto(), "ImageArn")["ImageArn"])

    def describe_image(self, image_name: str) -> dict[str, Any]:
        """
        Describe an image.

        :param image_name: Name of the image.
        :return: Plain JSON with SageMaker's own keys: ``ImageName``, ``ImageArn``, ``ImageStatus``, ``RoleArn``,
            ``CreationTime``, ``LastModifiedTime`` and, if set, ``DisplayName``, ``Description`` and ``FailureReason``.
        :raises ValueError: The name is outside its limits.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such
            image.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeImage.html
        """
        request = _requests.ImageRequest(image_name).to_boto()
        return dict(to_record(self._call("describe_image", request, *_IMAGE_KEYS)))

    def update_image(self, request: UpdateImageRequest) -> None:
        """
        Update an image's role, display name and description. Members that the request omits remain unchanged.

        :param request: The parameters of the call.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such image.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImage.html
        """
        self._call("update_image", request.to_boto())

    def delete_image(self, image_name: str) -> None:
        """
        Start to delete an image with all of its versions and aliases, but not the container images in Amazon ECR.

        The image is DELETING for some seconds; after that, its name is free. AWS recommends detaching an image from all
        SageMaker domains first.

        :param image_name: Name of the image.
        :raises ValueError: The name is outside its limits.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceInUse`` while the image is being
            changed, ``ResourceNotFound`` if there is no such image.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteImage.html
        """
        self._call("delete_image", _requests.ImageRequest(image_name).to_boto())

    def create_image_version(self, request: CreateImageVersionRequest, client_token: str) -> int:
        """
        Create a version of an image.

        :param request: The parameters of the call.
        :param client_token: Up to 36 letters, digits and hyphens. As long as SageMaker remembers the token, the same
            token with the same request returns the version that the first call created. After that, it creates another
            version. AWS does not document how long a token is remembered.
        :return: Number of the version, from the ARN in the response. The latest version may be another one if several
            are created at the same time.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceInUse`` while the image is being
            changed, ``ResourceNotFound`` if there is no such image.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImageVersion.html
        """
        sent = {**request.to_boto(), "ClientToken": client_token}
        answer = self._call("create_image_version", sent, "ImageVersionArn")
        number = str(answer["ImageVersionArn"]).rpartition("/")[2]
        if not number.isdecimal():
            # SageMaker's model allows "None". The call can be repeated with the same token.
            raise _botocore.broken_response(f"ImageVersionArn is {number!r}")
        return int(number)

    def update_image_version(self, request: UpdateImageVersionRequest) -> None:
        """
        Change the metadata and aliases of a version.

        :param request: The parameters of the call. SageMaker rejects the whole call if a version already has one of the
            ``aliases_to_add``, or this version does not have one of the ``aliases_to_delete``.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceInUse`` while the version is being
            changed, ``ResourceNotFound`` if there is no such version.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImageVersion.html
        """
        self._call("update_image_version", request.to_boto())

    def delete_image_version(self, image_name: str, version: int) -> None:
        """
        Start to delete a version with its aliases. The container image in Amazon ECR is not deleted.

        :param image_name: Name of the image.
        :param version: Number of the version, 0 or more.
        :raises ValueError: A parameter is outside its limits.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceInUse`` while the version is being
            changed, ``ResourceNotFound`` if there is no such version.

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteImageVersion.html
        """
        self._call("delete_image_version", _requests.DeleteImageVersionRequest(image_name, version).to_boto())

    def find_image_version_usage(
        self,
        image_name: str,
        scope: Iterable[str] | str = _parameters.USAGE_SCOPES,
        *,
        domain_id: str | None = None,
        calls_per_second: float | None = None,
        timeout: float | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """
        Find who uses which version of an image in Amazon SageMaker Studio.

        An entry without a number counts as a use of the newest CREATED version, and an alias as a use of the version
        that has it. If there is no such version, the user is in the result with the key ``none``. Apps that are Deleted
        or Failed do not count.

        API calls: one for the image; for ``domains``, ``user_profiles`` and ``spaces``, one per 100 resources and one
        for each of them; for ``apps``, one per 100; one per alias; and one for the newest version. Unlike other
        methods, this one retries each call for up to 5 minutes during throttling and outages.

        :param image_name: Name of the image.
        :param scope: Where to check: some of ``domains``, ``apps``, ``user_profiles`` and ``spaces``; a list, or a
            comma-separated string. (default: all)
        :param domain_id: Check only this domain. (default: all domains)
        :param calls_per_second: Maximum number of API calls per second. While SageMaker throttles, calls slow down.
            (default: ``[sagemaker_image_versions] usage_calls_per_second``, which is 2)
        :param timeout: Time in seconds after which no more calls are made. (default: no limit)
        :return: A list of users for each version number (a string), and for ``none``. A user is a dict:

            - ``kind``: ``domain``, ``app``, ``user_profile`` or ``space``.
            - ``domain_id`` and ``name``; for an app also ``space_name`` or ``user_profile_name``.
            - ``app_type``, such as ``JupyterLab``.
            - ``setting``: the setting that names the version.
            - ``pinned``: ``False`` for a setting that always uses the newest version.
            - ``running``: whether an app of this space or user profile runs with the version, always ``False`` for a
              domain, whose apps have entries of their own; ``None`` if apps were not read.
        :raises ValueError: A parameter is outside its limits.
        :raises TimeoutError: Not everything was read within ``timeout``.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such image or,
            with ``domains`` in the scope, no such domain. If access is denied, the message names the missing
            permission. A failed call never counts as "not used".

        .. seealso::
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeDomain.html
        """
        request = _requests.UsageRequest(image_name, scope, domain_id)
        option, rate = "calls_per_second", calls_per_second
        if rate is None:
            option = "[sagemaker_image_versions] usage_calls_per_second"
            rate = conf.getfloat("sagemaker_image_versions", "usage_calls_per_second", fallback=2.0)
        return UsageReader(self, request, Pace(_parameters.parse_rate(option, rate), timeout)).read()

    def find_container_digests(self, base_image: str) -> frozenset[str]:
        """
        Find the current digest of a tag in Amazon ECR, and those of its architectures if there are several.

        This calls DescribeImages of Amazon ECR, and BatchGetImage for a multi-architecture image, in the region and
        account of the path. A path with a digest needs no call.

        :param base_image: Registry path of the container image in Amazon ECR.
        :return: Digests such as ``sha256:...``; empty if Amazon ECR has no such repository or tag.
        :raises ValueError: ``base_image`` is not a path in Amazon ECR.
        :raises botocore.exceptions.ClientError: Amazon ECR's error, such as access denied.

        .. seealso::
            https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html
        """
        image = _parameters.parse_ecr_image("base_image", base_image)
        if image.digest is not None:
            return frozenset({image.digest})
        client = self._client_of("ecr", image.region)
        request: dict[str, Any] = {
            "registryId": image.registry,
            "repositoryName": image.repository,
            "imageIds": [{"imageTag": image.tag}],
        }
        try:
            (details,) = client.describe_images(**request)["imageDetails"]
            digests = {str(details["imageDigest"])}
            if details.get("imageManifestMediaType") in _MANIFEST_LISTS:
                (found,) = client.batch_get_image(**request, acceptedMediaTypes=sorted(_MANIFEST_LISTS))["images"]
                digests |= {str(part["digest"]) for part in json.loads(found["imageManifest"])["manifests"]}
        except errors.BOTOCORE_ERRORS as error:
            if getattr(error, "response", {}).get("Error", {}).get("Code") in _NOT_IN_ECR:
                return frozenset()
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise _botocore.broken_response(describe_error(error), "Amazon ECR") from error
        return frozenset(digests)

    def compare_image_versions(self, image_name: str, first: int | str, second: int | str) -> str:
        """
        Return a Markdown table that compares two versions of an image, for example for the approval of a roll-out.

        :param image_name: Name of the image.
        :param first: Number of a version, or one of its aliases.
        :param second: Number of the other version, or one of its aliases.
        :return: A table with a row for each field of the versions. The names of fields that differ are bold.
        :raises ValueError: A parameter is outside its limits.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such image,
            version or alias.
        """
        records = [
            self._detailed(image_name, **{"alias" if isinstance(selector, str) else "version": selector})
            for selector in (first, second)
        ]
        return studio.comparison(image_name, *records)

    def list_studio(
        self, operation: str, *, domain_id: str | None = None, next_token: str | None = None
    ) -> Mapping[str, Any]:
        """
        Return one page of resources of Studio.

        :param operation: ``list_domains``, ``list_apps``, ``list_user_profiles`` or ``list_spaces``.
        :param domain_id: List only resources of this domain. Not supported by ``list_domains``. (default: all)
        :param next_token: ``NextToken`` of the previous page. (default: the first page)
        :return: The response, with ``Domains``, ``Apps``, ``UserProfiles`` or ``Spaces``, and ``NextToken`` unless it
            is the last page.
        :raises botocore.exceptions.ClientError: SageMaker's error, such as access denied.
        """
        given = {"DomainIdEquals": domain_id, "NextToken": next_token}
        request = {name: value for name, value in given.items() if value} | _LARGEST_PAGE
        return self._call(operation, request, studio.LISTS[operation])

    def describe_studio(self, operation: str, identity: Mapping[str, Any]) -> dict[str, Any]:
        """
        Describe a resource of Studio.

        :param operation: The operation, such as ``describe_domain``.
        :param identity: The members of the request that identify the resource.
        :return: The response, with times as datetimes.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if it does not exist.
        """
        key = "AppImageConfigName" if operation == "describe_app_image_config" else "Status"
        answer = self._call(operation, identity, key)
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    def update_studio(self, operation: str, request: Mapping[str, Any]) -> None:
        """
        Start to update a domain or a user profile.

        :param operation: ``update_domain`` or ``update_user_profile``.
        :param request: The members of the request. The settings of an app replace its existing settings.
        :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceInUse`` while it is being updated.
        """
        self._call(operation, request)

    def _call(self, operation: str, request: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
        """Make an API call whose response must have some keys."""
        with self._explained(request) as client:
            answer: Mapping[str, Any] = getattr(client, operation)(**request)
        return _botocore.complete(answer, *keys)

    def _pages(self, operation: str, request: dict[str, Any], key: str) -> Iterator[list[Any]]:
        """Yield the items of each page."""
        subject, first = _botocore.subject_of(request), request.pop("NextToken", None)
        what = f"{operation} of {subject}" if subject else operation

        def fetch(token: str | None) -> Mapping[str, Any]:
            return self._call(operation, request if token is None else {**request, "NextToken": token}, key)

        return (page[key] for page in _botocore.iter_pages(fetch, what, first))

    @contextmanager
    def _explained(self, request: Mapping[str, Any]) -> Iterator[Any]:
        """Return the client for a call, and re-raise its error with the resource, region and connection added."""
        # Created here, because its errors are not about the call.
        client = self.conn
        try:
            yield client
        except Exception as error:
            if errors.is_unsendable(error):
                # The value may be a session token, which the error would show.
                raise self._unsendable_credentials() from None
            explained = self._explain(error, request)
            if explained is error:
                raise
            raise explained from error

    def _explain(self, error: Any, request: Mapping[str, Any]) -> Any:
        region = str(self.conn_region_name)
        if isinstance(error, botocore.exceptions.ClientError) and errors.classify_error(error) is ErrorKind.MISSING:
            note = (
                f"SageMaker finds no {_botocore.subject_of(request)} in region {region} through connection "
                f"{self.effective_conn_id!r}: check the name, the region and the account of that connection"
            )
            return _botocore.with_note(error, note)
        if errors.is_unusable(error):
            return self._unusable_setting(error.kwargs.get("error", error))
        if isinstance(error, botocore.exceptions.SSLError) and errors.classify_error(error) is ErrorKind.PERMANENT:
            return errors.CertificateError(**error.kwargs, verify=self.verify)
        if isinstance(error, botocore.exceptions.EndpointConnectionError) and errors.lacks_region(error, region):
            return errors.UnknownRegionError(**error.kwargs, region=region, aws_conn_id=self.effective_conn_id)
        if isinstance(error, errors.BOTOCORE_ERRORS):
            return error
        text = f"{type(error).__name__}: {_parameters.truncated_repr(str(error))}"
        return self._unusable_setting(text) if _botocore.is_of_request(error) else _botocore.broken_response(text)

    def _unusable_setting(self, reason: object) -> errors.UnusableSettingError:
        return errors.UnusableSettingError(error=reason, aws_conn_id=self.effective_conn_id)


def _unique(records: Iterable[R], key: str) -> Iterator[R]:
    """Yield each record once, even if it moves to a later page because another was added in between."""
    seen: set[Any] = set()
    for record in records:
        if record[key] not in seen:
            seen.add(record[key])
            yield record


_NOT_IN_ECR = {"ImageNotFoundException", "RepositoryNotFoundException"}
_MANIFEST_LISTS = {
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
}
