"""The wire format: operations on images and on Studio as methods of moto's SageMakerResponse."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from moto.sagemaker.responses import SageMakerResponse

from airflow_provider_imageversions.emulator.errors import ApiError
from airflow_provider_imageversions.emulator.models import image_backends
from airflow_provider_imageversions.emulator.studio import STUDIO_OPERATIONS, studio_backends
from airflow_provider_imageversions.emulator.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_imageversions.emulator.models import ImageBackend
    from airflow_provider_imageversions.emulator.paging import Token

CONTENT_TYPE = "application/x-amz-json-1.1"


def error_body(code: str, message: str) -> str:
    """
    Return an error in SageMaker's wire format.

    :param code: the error code
    :param message: the text for people
    """
    return json.dumps({"__type": code, "Message": message}, separators=(",", ":"))


def _object(**members: Any) -> str:
    return json.dumps({name: value for name, value in members.items() if value is not None})


def _page(name: str, items: list[str], following: Token | None) -> str:
    """Join items that are JSON already into a page: serializing 100 of them again takes longer."""
    token = "" if following is None else f', "NextToken": {json.dumps(str(following))}'
    return f'{{"{name}": [{", ".join(items)}]{token}}}'


def _list_images(backend: ImageBackend, parameters: dict[str, Any]) -> str:
    items, following = backend.list_images(parameters)
    return _page("Images", [json.dumps(item) for item in items], following)


def _list_image_versions(backend: ImageBackend, parameters: dict[str, Any]) -> str:
    return _page("ImageVersions", *backend.list_image_versions(parameters))


def _list_aliases(backend: ImageBackend, parameters: dict[str, Any]) -> str:
    items, following = backend.list_aliases(parameters)
    return _page("SageMakerImageVersionAliases", [json.dumps(item) for item in items], following)


def _delete_image(backend: ImageBackend, parameters: dict[str, Any]) -> str:
    backend.delete_image(parameters)
    return "{}"


def _delete_image_version(backend: ImageBackend, parameters: dict[str, Any]) -> str:
    backend.delete_image_version(parameters)
    return "{}"


OPERATIONS: dict[str, Callable[[ImageBackend, dict[str, Any]], str]] = {
    "CreateImage": lambda backend, given: _object(ImageArn=backend.create_image(given)),
    "DescribeImage": lambda backend, given: _object(**backend.describe_image(given)),
    "ListImages": _list_images,
    "UpdateImage": lambda backend, given: _object(ImageArn=backend.update_image(given)),
    "DeleteImage": _delete_image,
    "CreateImageVersion": lambda backend, given: _object(ImageVersionArn=backend.create_image_version(given)),
    "DescribeImageVersion": lambda backend, given: _object(**backend.describe_image_version(given)),
    "ListImageVersions": _list_image_versions,
    "UpdateImageVersion": lambda backend, given: _object(ImageVersionArn=backend.update_image_version(given)),
    "DeleteImageVersion": _delete_image_version,
    "ListAliases": _list_aliases,
}


NOT_JSON = ApiError("SerializationException", "The request's body is not JSON.")


def install() -> None:
    """
    Add the operations of images and of Studio to moto, for use under ``moto.mock_aws``.

    Calling it again changes nothing. As with most of moto's resources, changes take effect at once: images and versions
    are CREATED immediately, and versions are deleted immediately. Only an image is DELETING when it is first described
    after DeleteImage, and gone when it is described again. To change that, use moto's ``state_manager.set_transition``
    with ``sagemaker::image``, ``sagemaker::image_deletion``, ``sagemaker::image_version`` or ``sagemaker::studio``.
    """
    for operation in (*OPERATIONS, *STUDIO_OPERATIONS):
        setattr(SageMakerResponse, re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower(), _method(operation))


def _method(operation: str) -> Callable[[Any], tuple[int, dict[str, Any], str]]:
    def method(response: Any) -> tuple[int, dict[str, Any], str]:
        account, region = response.current_account, response.region
        status = 200
        try:
            given = validate(operation, _parameters(response.body))
            if operation in STUDIO_OPERATIONS:
                body = json.dumps(studio_backends[account][region].answer(operation, given))
            else:
                body = OPERATIONS[operation](image_backends[account][region], given)
        except ApiError as error:
            status, body = 400, error_body(error.code, error.message)
        # moto takes the status from the headers, whatever stands first in the tuple.
        return status, {"status": status, "Content-Type": CONTENT_TYPE}, body

    return method


def _parameters(body: str) -> Any:
    try:
        return json.loads(body or "{}")
    except ValueError as error:
        raise NOT_JSON from error
