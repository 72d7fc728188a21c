"""Public exceptions, and the classification of errors of AWS, the network and Airflow."""

from __future__ import annotations

import socket
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.parsers
import botocore.session

from airflow_provider_imageversions.compat import AirflowException, AirflowFailException
from airflow_provider_imageversions.model import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

BOTOCORE_ERRORS = (
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
    botocore.parsers.ResponseParserError,
)
"""The exceptions of botocore, which have no common base class."""


# --- Exceptions ------------------------------------------------------------------------------------------


class ImageVersionFailedError(AirflowFailException):
    """
    The version that a sensor waits for can no longer become CREATED; the message has SageMaker's reason.

    This is an AirflowFailException: Airflow does not retry the task, because the version will never become CREATED.
    ``soft_fail`` and ``never_fail`` skip the task in every mode.
    """


class SageMakerImageVersionPollingError(RuntimeError):
    """
    The wait of a deferred task failed: access denied, invalid arguments, or a missing connection.

    Airflow retries the task as usual. This is not an AirflowException, so that ``soft_fail`` cannot hide a
    misconfiguration. In poke and reschedule mode, the underlying error itself is raised.
    """


class SageMakerImageOperationError(AirflowException):
    """An operator could not complete its operation; the message has the reason. Airflow retries the task as usual."""


class SageMakerImageOperationTimeoutError(SageMakerImageOperationError, TimeoutError):
    """
    The operation did not complete within the operator's ``timeout``. Airflow retries the task as usual.

    The cause, if there is one, is SageMaker's last error, such as throttling.
    """


class MissingConnectionError(LookupError):
    """
    The Airflow connection does not exist, or could not be looked up, which Airflow 3 does not distinguish.

    This is not an AirflowException, so that ``soft_fail`` cannot hide it.

    :param aws_conn_id: ID of the connection.
    """

    def __init__(self, aws_conn_id: str) -> None:
        super().__init__(
            f"aws_conn_id={aws_conn_id!r}: there is no such Airflow connection, or Airflow could not look it up. "
            "Create it (type Amazon Web Services), or pass aws_conn_id=None to use boto3's default "
            "credentials."
        )


class ConnectionLookupError(RuntimeError):
    """
    Airflow could not look up the connection, for example because its database or a secrets backend is unavailable.

    :param aws_conn_id: ID of the connection.
    :param error: The error of the lookup.
    """

    def __init__(self, aws_conn_id: str, error: Exception) -> None:
        super().__init__(f"connection {aws_conn_id!r} could not be looked up: {type(error).__name__}: {error}")


class CredentialsError(botocore.exceptions.CredentialRetrievalError):  # type: ignore[misc]  # botocore is untyped
    """
    The AWS credentials could not be loaded or refreshed, for a reason that may be temporary.

    Raised for any error of boto3's credential chain or the Amazon provider's session factory, because these do not wrap
    errors of metadata endpoints, files, external processes and identity providers.
    """

    fmt = "Could not load AWS credentials from {provider}: {error_msg}"


class CertificateError(botocore.exceptions.SSLError):  # type: ignore[misc]  # botocore is untyped
    """The endpoint's certificate cannot be verified, or the CA bundle in ``verify`` cannot be used."""

    fmt = (
        "SSL validation failed for {endpoint_url} {error} (with verify={verify!r}: set verify, on the task or the "
        "connection, to the path of a CA bundle that the endpoint's certificate is signed by)"
    )


class UnusableSettingError(botocore.exceptions.HTTPClientError):  # type: ignore[misc]  # likewise
    """A setting of botocore, such as the address of a proxy, cannot be used to send a request."""

    fmt = (
        "The request to SageMaker could not be sent: {error}. Check botocore_config, and config_kwargs of connection "
        "{aws_conn_id!r}."
    )


class UnknownRegionError(botocore.exceptions.EndpointConnectionError):  # type: ignore[misc]  # likewise
    """The region does not exist: it is unknown to botocore and DNS."""

    fmt = (
        'Could not connect to the endpoint URL: "{endpoint_url}" (region {region!r} does not exist: check '
        "region_name of the task or of connection {aws_conn_id!r})"
    )


# --- Classification --------------------------------------------------------------------------------------

_IN_USE = ("ConflictException", "ResourceInUse", "ResourceInUseException")
_CODES = {
    ErrorKind.MISSING: ("ResourceNotFound", "ResourceNotFoundException"),
    ErrorKind.IN_USE: _IN_USE,
    ErrorKind.CREDENTIALS: (
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "UnrecognizedClient",
        "AuthFailure",
    ),
    ErrorKind.THROTTLED: (
        "LimitExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ),
    ErrorKind.TRANSIENT: (
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "IDPCommunicationError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
    ),
}
_KINDS = {code: kind for kind, codes in _CODES.items() for code in codes}
# It is not documented which of the two SageMaker returns for a version that is CREATING. For an image, it returns the
# second.
_STATUS_CONFLICTS = {*_IN_USE, "ValidationException"}
_REQUEST_TIMEOUT = 408
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


def classify_code(code: str, http_status: int) -> ErrorKind:
    """
    Return the kind of an error that AWS returned.

    :param code: The error's code, as in botocore's ``response["Error"]["Code"]``.
    :param http_status: HTTP status of the response.
    """
    if code in _KINDS:
        return _KINDS[code]
    if http_status == _TOO_MANY_REQUESTS:
        return ErrorKind.THROTTLED
    if http_status == _REQUEST_TIMEOUT or http_status >= _SERVER_ERRORS:
        return ErrorKind.TRANSIENT
    return ErrorKind.PERMANENT


def classify_error(error: Exception) -> ErrorKind | None:
    """
    Return the kind of an error that a call of the hook raised; ``None`` for an unexpected one.

    :param error: The error.
    """
    if isinstance(error, botocore.exceptions.ClientError):
        return classify_code(_code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if isinstance(
        error,
        (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
            botocore.exceptions.CredentialRetrievalError,
            botocore.exceptions.TokenRetrievalError,
            botocore.exceptions.SSOError,
            # Airflow 3 raises the same error while its database or a secrets backend is unavailable.
            MissingConnectionError,
        ),
    ):
        return ErrorKind.CREDENTIALS
    if (
        isinstance(error, UnknownRegionError)
        or (isinstance(error, botocore.exceptions.SSLError) and _lacks_certificate(error))
        or is_unusable(error)
    ):
        return ErrorKind.PERMANENT
    if isinstance(
        error,
        (
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            botocore.exceptions.PaginationError,
            botocore.exceptions.IncompleteReadError,
            botocore.parsers.ResponseParserError,
            ConnectionLookupError,
            # Raised while a client is created, for example because of too many open files. Calls raise botocore's
            # errors.
            OSError,
        ),
    ):
        return ErrorKind.TRANSIENT
    if isinstance(error, (botocore.exceptions.BotoCoreError, ValueError)):
        return ErrorKind.PERMANENT
    return None


def may_be_status_conflict(error: Exception) -> bool:
    """
    Return whether SageMaker may have rejected a call because of the status of the resource, which may change.

    :param error: The error of the hook.
    """
    return isinstance(error, botocore.exceptions.ClientError) and _code(error) in _STATUS_CONFLICTS


def none_if_not_found(call: Callable[..., T], *arguments: Any, **named: Any) -> T | None:
    """
    Return the result of a call, or ``None`` if the image, version or alias does not exist.

    :param call: A method of the hook.
    :param arguments: Its arguments.
    :param named: Its keyword arguments.
    """
    try:
        return call(*arguments, **named)
    except botocore.exceptions.ClientError as error:
        if classify_error(error) is ErrorKind.MISSING:
            return None
        raise


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def is_unusable(error: Exception) -> bool:
    """
    Return whether a setting, such as a proxy's address, can never be used to send a request.

    :param error: What a call raised.
    """
    return isinstance(error, (UnusableSettingError, botocore.exceptions.UnknownSignatureVersionError)) or (
        isinstance(error, botocore.exceptions.HTTPClientError)
        and isinstance(error.kwargs.get("error"), (AttributeError, OverflowError, TypeError, ValueError))
    )


def is_unsendable(error: Exception) -> bool:
    """
    Return whether a header of a request has a value that HTTP does not allow.

    :param error: The error of a call. Its text may contain a session token.
    """
    return is_unusable(error) and str(getattr(error, "kwargs", {}).get("error")).startswith("Invalid header value")


def _lacks_certificate(error: botocore.exceptions.SSLError) -> bool:
    """Return whether the certificate or the CA bundle is invalid, rather than the connection interrupted."""
    cause = next(iter(getattr(error.kwargs["error"], "args", ())), None)
    if isinstance(cause, ssl.SSLError):
        return isinstance(cause, ssl.SSLCertVerificationError) or cause.library in {"X509", "PEM"}
    return isinstance(cause, OSError)


def lacks_region(error: botocore.exceptions.EndpointConnectionError, region: str) -> bool:
    """
    Return whether an endpoint does not exist because its region does not exist.

    If botocore knows the region, the error may be temporary.

    :param error: The error of a call.
    :param region: The region.
    """
    cause = getattr(error.kwargs["error"], "__cause__", None)
    host = urlsplit(error.kwargs["endpoint_url"]).hostname or ""
    return (
        isinstance(cause, socket.gaierror)
        and cause.errno == socket.EAI_NONAME
        and region in host.split(".")
        and region not in _known_regions()
    )


@cache
def _known_regions() -> frozenset[str]:
    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return frozenset(region for name in partitions for region in session.get_available_regions("sagemaker", name))
