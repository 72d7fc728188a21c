"""
The state: images and their versions, with the rules that SageMaker applies to them.

Statuses change through moto's own state transitions, so each of these can be configured like every model of
moto (``state_manager.set_transition``, ``/moto-api/state-manager``):

- ``sagemaker::image``: an image that is CREATING or UPDATING. Default: immediate.
- ``sagemaker::image_deletion``: an image that is DELETING. Default: manual, so that the first call that reads the
  image still finds it and the second one does not. CreateImage counts as such a call, so that it can be retried.
- ``sagemaker::image_version``: a version that is CREATING or DELETING. Default: immediate.

The server sets a time for the last two.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from bisect import bisect_left, insort
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from moto.core.base_backend import BackendDict, BaseBackend
from moto.ecr.models import ecr_backends
from moto.moto_api import state_manager
from moto.moto_api._internal.managed_state_model import ManagedState

from airflow_provider_imageversions.emulator.errors import ApiError
from airflow_provider_imageversions.emulator.paging import Token, cut_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_imageversions.emulator.paging import Key

IMAGE_MODEL = "sagemaker::image"
IMAGE_DELETION_MODEL = "sagemaker::image_deletion"
VERSION_MODEL = "sagemaker::image_version"
# A base image with this tag and a role with this name do not exist, so that a DAG can make a version or an
# image fail without any call to the emulator's own interface.
MISSING_TAG = "does-not-exist"
MISSING_ROLE = "does-not-exist"
# SageMaker's default: Service Quotas, L-DDDC1D15.
IMAGE_QUOTA = 250

GONE = "DELETED"
"""The status of a deleted resource, which no answer shows."""

state_manager.register_default_transition(IMAGE_MODEL, {"progression": "immediate"})
state_manager.register_default_transition(IMAGE_DELETION_MODEL, {"progression": "manual", "times": 2})
state_manager.register_default_transition(VERSION_MODEL, {"progression": "immediate"})


def quota_message(quota: int, used: int) -> str:
    """
    Return the text of the error for one image too many, in the form that SageMaker uses for other quotas.

    :param quota: the maximum number of images
    :param used: how many images there are
    """
    return (
        "The account-level service limit 'Maximum number of SageMakerImage images allowed per account' is "
        f"{quota} Images, with current utilization of {used} Images and a request delta of 1 Images. Please use "
        "AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, "
        "contact AWS support to request an increase for this quota."
    )


def now_ms() -> int:
    """Return the time in whole milliseconds, which is SageMaker's precision."""
    return time.time_ns() // 1_000_000


class Resource(ManagedState):
    """
    What images, versions and Studio resources have in common: two times, and a status that changes over time.

    :param model_name: the name under which moto configures how the status moves
    :param failure_reason: why creating it fails; None: it becomes CREATED
    """

    creation: ClassVar[tuple[str, str, str]] = ("CREATING", "CREATED", "CREATE_FAILED")
    """The status of one that is being created, that was created, and that could not be created."""
    in_transition: ClassVar[Mapping[str, str]] = {"CREATING": "created", "UPDATING": "updated", "DELETING": "deleted"}
    """The statuses that change by themselves, with what is going on."""

    def __init__(self, model_name: str, failure_reason: str | None = None) -> None:
        coming, created, failed = self.creation
        super().__init__(model_name, [(coming, failed if failure_reason else created)])
        self.created = self.modified = now_ms()
        self.held = False
        self.failure_reason: str | None = None
        self._coming_failure = failure_reason

    @property
    def current(self) -> str:
        """The status as of the last :meth:`settle`; unlike ``status``, reading it moves nothing."""
        return str(self._status)

    def begin(self, status: str, outcome: str, failure_reason: str | None = None) -> None:
        """
        Set a status that changes over time.

        :param status: one of those that change by themselves, such as ``UPDATING``
        :param outcome: the status that it changes to
        :param failure_reason: why it fails, if the outcome is a failure
        """
        self._transitions, self._coming_failure = [(status, outcome)], failure_reason
        self._status, self._tick, self.held, self.failure_reason = status, 0, False, None
        self.modified = now_ms()
        self._time_progressed = datetime.now()  # noqa: DTZ005 - moto counts in naive local time

    def hold(self, status: str) -> None:
        """
        Enter a status and stay there.

        :param status: any text, known to SageMaker or not
        """
        self._status, self.held, self.modified = status, True, now_ms()

    def settle(self, last_look: int = 0) -> bool:
        """
        Change the status if it is due; return whether it changed.

        :param last_look: when, in milliseconds, it was last seen not to have moved
        """
        if self.held or self._status not in self.in_transition:
            return False
        before, since = self._status, self._time_progressed
        if self.status == before:
            return False
        self.failure_reason = self._coming_failure
        config = state_manager.get_transition(self.model_name)
        self.modified = now_ms()
        if config["progression"] == "time":
            # It happened when it was due, not when it is read; but not before the last read, which
            # could otherwise be so where the time span has been shortened since.
            due = since + timedelta(seconds=config["seconds"])
            self.modified = min(self.modified, max(last_look, int(due.timestamp() * 1000)))
        return True


class ImageVersion(Resource):
    """
    One version of an image.

    :param image: the image it belongs to
    :param number: its number in the image
    :param details: the parameters of CreateImageVersion that describe it
    """

    def __init__(self, image: Image, number: int, details: dict[str, Any]) -> None:
        super().__init__(VERSION_MODEL, _missing_base_image(details["BaseImage"]))
        self.image = image
        self.number = number
        # The one optional member that SageMaker answers with although it was not given.
        self.details = {"Horovod": False, **details}
        self.container_image = self._resolve()
        """The registry path of the version's container, by digest, as it was when the version was created."""
        self.reported_status: str | None = None
        self._summary: str | None = None

    @property
    def arn(self) -> str:
        """The version's ARN, which carries the image's name in lower case."""
        return _version_arn(self.image, self.number)

    def _resolve(self) -> str:
        base, _, digest = self.details["BaseImage"].partition("@sha256:")
        host, _, rest = base.partition("/")
        name, _, tag = (rest if rest and set(".:") & set(host) else base).partition(":")
        digest = digest or self._digest_in_ecr(host, name, tag or "latest")
        # Where moto's Amazon ECR has no such image.
        digest = digest or hashlib.sha256(f"{self.arn} {base}".encode()).hexdigest()
        return f"{self.image.registry}/{name}@sha256:{digest}"

    def _digest_in_ecr(self, host: str, repository_name: str, tag: str) -> str | None:
        found = re.fullmatch(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?", host)
        backend = None if found is None else ecr_backends[found[1]][found[2]]
        repository = None if backend is None else backend.repositories.get(repository_name)
        images = () if repository is None else repository.images
        digest = next((image.get_image_digest() for image in images if tag in image.image_tags), None)
        return None if digest is None else str(digest).removeprefix("sha256:")

    def summary(self) -> dict[str, Any]:
        """Return the version as ListImageVersions does."""
        reason = {} if self.failure_reason is None else {"FailureReason": self.failure_reason}
        return {
            "CreationTime": self.created / 1000,
            **reason,
            "ImageArn": self.image.arn,
            "ImageVersionArn": self.arn,
            "ImageVersionStatus": self.current,
            "LastModifiedTime": self.modified / 1000,
            "Version": self.number,
        }

    def summary_json(self) -> str:
        """Return the summary as JSON, kept until the version changes: pages are made of these."""
        if self._summary is None:
            self._summary = json.dumps(self.summary())
        return self._summary

    def description(self) -> dict[str, Any]:
        """Return the version as DescribeImageVersion does."""
        container = {"ContainerImage": self.container_image} if self.current == "CREATED" else {}
        return {**self.summary(), **self.details, **container}

    def forget_summary(self) -> None:
        """Note that the version changed."""
        self._summary = None


def _version_arn(image: Image, number: int) -> str:
    return f"{image.arn.replace(':image/', ':image-version/')}/{number}"


def _missing_role(role_arn: str) -> str | None:
    if role_arn.rpartition("/")[2] != MISSING_ROLE:
        return None
    return (
        f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


def _missing_base_image(base_image: str) -> str | None:
    tag = base_image.rpartition("/")[2].partition(":")[2]
    if tag != MISSING_TAG:
        return None
    return f"The base image '{base_image}' does not exist. Please provide a valid BaseImage."


class Image(Resource):
    """
    An image with its versions.

    :param backend: where it lives
    :param name: its name, in the case it was created with
    :param properties: ``RoleArn``, and maybe ``Description`` and ``DisplayName``
    """

    def __init__(self, backend: ImageBackend, name: str, properties: dict[str, Any]) -> None:
        super().__init__(IMAGE_MODEL, _missing_role(properties["RoleArn"]))
        suffix = ".cn" if backend.partition == "aws-cn" else ""
        self.backend = backend
        self.name = name
        self.arn = backend.image_arn(name)
        self.registry = f"{backend.account_id}.dkr.ecr.{backend.region_name}.amazonaws.com{suffix}"
        self.properties = properties
        self.versions: dict[int, ImageVersion] = {}
        self.aliases: dict[str, int] = {}
        self.last_number = 0
        self.requests: dict[str, tuple[dict[str, Any], str]] = {}
        self._moving: dict[int, ImageVersion] = {}
        self._last_look = 0
        self._orders: dict[str, list[Key]] = {"CREATION_TIME": [], "LAST_MODIFIED_TIME": [], "VERSION": []}

    def begin_update(self) -> None:
        """Become UPDATING, and then CREATED or, with a role that does not exist, UPDATE_FAILED."""
        reason = _missing_role(self.properties["RoleArn"])
        self.model_name = IMAGE_MODEL
        self.begin("UPDATING", "UPDATE_FAILED" if reason else "CREATED", reason)
        self.settle()

    def begin_deletion(self) -> None:
        """Become DELETING, and then disappear."""
        self.model_name = IMAGE_DELETION_MODEL
        self.begin("DELETING", GONE)
        self.settle()

    def summary(self) -> dict[str, Any]:
        """Return the image as ListImages does."""
        optional = {k: v for k, v in self.properties.items() if k != "RoleArn"}
        if self.failure_reason is not None:
            optional["FailureReason"] = self.failure_reason
        return {
            "CreationTime": self.created / 1000,
            "ImageArn": self.arn,
            "ImageName": self.name,
            "ImageStatus": self.current,
            "LastModifiedTime": self.modified / 1000,
            **optional,
        }

    def settle_versions(self, *, seen: bool = False) -> None:
        """
        Change the status of the versions that are due; only those in transition are read.

        :param seen: whether a caller reads them, which is what moto's "manual" progression counts
        """
        now, timed = now_ms(), state_manager.get_transition(VERSION_MODEL)["progression"] == "time"
        for version in list(self._moving.values()):
            if seen:
                version.advance()
            old = _sort_keys(version)
            if version.settle(self._last_look):
                self.reorder(version, old)
            elif timed:
                break  # the others began later
        self._last_look = now

    def keys(self, sort_by: str) -> list[Key]:
        """
        Return the sorted keys of all versions.

        :param sort_by: a sort key of ListImageVersions
        """
        return self._orders[sort_by]

    def changing(self, version: ImageVersion) -> _Change:
        """
        Return a context in which the version may change or be added, and after which all orders are right.

        :param version: the version to change
        """
        return _Change(self, version)

    def reorder(self, version: ImageVersion, old: dict[str, Key]) -> None:
        """
        Bring the orders up to date after a change.

        :param version: the version that changed
        :param old: the keys it had before, empty if it is new
        """
        gone = version.current == GONE
        new = {} if gone else _sort_keys(version)
        for sort_by, keys in self._orders.items():
            if old.get(sort_by) == new.get(sort_by):
                continue
            if old:
                del keys[bisect_left(keys, old[sort_by])]
            if new:
                insort(keys, new[sort_by])
        version.forget_summary()
        if version.current in version.in_transition and not version.held:
            self._moving.setdefault(version.number, version)
        else:
            self._moving.pop(version.number, None)
        if gone:
            self.versions.pop(version.number, None)
            self.aliases = {a: n for a, n in self.aliases.items() if n != version.number}
        else:
            self.versions[version.number] = version
            self._report(version)

    def _report(self, version: ImageVersion) -> None:
        if version.current != version.reported_status:
            version.reported_status = version.current
            if ImageBackend.report_change is not None:
                ImageBackend.report_change(version)


class _Change:
    """See :meth:`Image.changing`."""

    def __init__(self, image: Image, version: ImageVersion) -> None:
        self._image = image
        self._version = version

    def __enter__(self) -> None:
        known = self._version.number in self._image.versions
        self._old = _sort_keys(self._version) if known else {}

    def __exit__(self, *_: object) -> None:
        self._image.reorder(self._version, self._old)


def _sort_keys(version: ImageVersion) -> dict[str, Key]:
    number = version.number
    return {
        "CREATION_TIME": (version.created, number),
        "LAST_MODIFIED_TIME": (version.modified, number),
        "VERSION": (number, number),
    }


class ImageBackend(BaseBackend):
    """
    All images of one account in one region. Every public method is atomic.

    :param region_name: the region
    :param account_id: the account
    """

    image_quota: ClassVar[int] = IMAGE_QUOTA
    report_change: ClassVar[Callable[[ImageVersion], None] | None] = None
    """Called with each version that has changed its status."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._lock = threading.RLock()
        self._images: dict[str, Image] = {}

    def reset(self) -> None:
        """Clear everything, without breaking requests in progress as moto's own reset would."""
        with self._lock:
            self._images.clear()

    def settle(self) -> None:
        """Change the status of the versions that are due, although no request reads them."""
        with self._lock:
            for image in self._images.values():
                image.settle_versions()

    def image_arn(self, name: str) -> str:
        """
        Return the ARN of an image, which carries its name in lower case.

        :param name: the image's name
        """
        return f"arn:{self.partition}:sagemaker:{self.region_name}:{self.account_id}:image/{name.lower()}"

    def create_image(self, parameters: dict[str, Any]) -> str:
        """
        Create an image; return its ARN.

        :param parameters: of CreateImage
        """
        name = parameters["ImageName"]
        with self._lock:
            if self._find(name, seen=True) is not None:
                raise ApiError(
                    "ResourceInUse",
                    f"The Image with ImageName {name} already exists. Please use a different ImageName.",
                )
            # Those whose deletion has ended since do not count.
            used = sum(self._find(other) is not None for other in list(self._images))
            if used >= self.image_quota:
                raise ApiError("ResourceLimitExceeded", quota_message(self.image_quota, used))
            return self._add_image(name, parameters).arn

    def describe_image(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Return all that is known about an image.

        :param parameters: of DescribeImage
        """
        with self._lock:
            image = self._image(parameters["ImageName"], seen=True)
            return {**image.summary(), "RoleArn": image.properties["RoleArn"]}

    def list_images(self, parameters: dict[str, Any]) -> tuple[list[dict[str, Any]], Token | None]:
        """
        Return a page of images.

        :param parameters: of ListImages
        """
        with self._lock:
            found = [self._find(name, seen=True) for name in list(self._images)]
            images = {
                image.name: image
                for image in found
                if image is not None and parameters.get("NameContains", "") in image.name
            }
            sort_by = parameters.get("SortBy", "CREATION_TIME")
            keys = sorted((_image_sort_value(image, sort_by), name) for name, image in images.items())
            page, following = cut_page(
                keys,
                Token.of("ListImages", parameters),
                parameters.get("MaxResults"),
                descending=parameters.get("SortOrder", "DESCENDING") == "DESCENDING",
                matches=lambda key: _within(images[key[1]], parameters),
            )
            return [images[name].summary() for _, name in page], following

    def update_image(self, parameters: dict[str, Any]) -> str:
        """
        Change an image's properties; return its ARN.

        :param parameters: of UpdateImage
        """
        with self._lock:
            image = self._image(parameters["ImageName"])
            _require_idle(image, "Image")
            _require_valid(image)
            for name in parameters.get("DeleteProperties", ()):
                image.properties.pop(name, None)
            image.properties.update(_image_properties(parameters))
            image.begin_update()
            return image.arn

    def delete_image(self, parameters: dict[str, Any]) -> None:
        """
        Start to delete an image with its versions and their aliases.

        :param parameters: of DeleteImage
        """
        with self._lock:
            image = self._image(parameters["ImageName"])
            _require_idle(image, "Image")
            image.begin_deletion()

    def create_image_version(self, parameters: dict[str, Any]) -> str:
        """
        Create a version; return its ARN.

        :param parameters: of CreateImageVersion
        """
        with self._lock:
            image = self._image(parameters["ImageName"])
            token = parameters["ClientToken"]
            if token in image.requests:
                first, arn = image.requests[token]
                if first != parameters:
                    raise ApiError(
                        "ResourceInUse",
                        f"The ClientToken {token} was already used in a request with other parameters.",
                    )
                return arn
            _require_idle(image, "Image")
            _require_valid(image)
            _require_free(image, parameters.get("Aliases", ()))
            version = self._add_version(image, _details(parameters))
            for alias in parameters.get("Aliases", ()):
                image.aliases[alias] = version.number
            image.requests[token] = (parameters, version.arn)
            return version.arn

    def describe_image_version(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Return all that is known about a version; the latest one if none is named.

        :param parameters: of DescribeImageVersion
        """
        with self._lock:
            image = self._image(parameters["ImageName"], seen=True)
            version = _named_version(image, parameters)
            if version is None and not image.versions:
                raise ApiError(
                    "ResourceNotFound",
                    f"Latest ImageVersion with ImageName {image.name} does not exist. "
                    "Please provide a valid ImageName.",
                )
            return (version or image.versions[max(image.versions)]).description()

    def list_image_versions(self, parameters: dict[str, Any]) -> tuple[list[str], Token | None]:
        """
        Return a page of versions, each as JSON.

        :param parameters: of ListImageVersions
        """
        with self._lock:
            image = self._image(parameters["ImageName"], seen=True)
            versions = image.versions
            sort_by = parameters.get("SortBy", "CREATION_TIME")
            filtered = any(parameter in parameters for _, _, parameter in _TIME_FILTERS)
            page, following = cut_page(
                image.keys(sort_by),
                Token.of("ListImageVersions", parameters),
                parameters.get("MaxResults"),
                descending=parameters.get("SortOrder", "DESCENDING") == "DESCENDING",
                bounds=_bounds(sort_by, parameters),
                matches=(lambda key: _within(versions[key[1]], parameters)) if filtered else None,
            )
            return [versions[number].summary_json() for _, number in page], following

    def update_image_version(self, parameters: dict[str, Any]) -> str:
        """
        Change a version's description and aliases; return its ARN.

        :param parameters: of UpdateImageVersion
        """
        with self._lock:
            image = self._image(parameters["ImageName"])
            version = _required_version(image, parameters)
            _require_idle(version, "ImageVersion")
            for alias in parameters.get("AliasesToDelete", ()):
                if image.aliases.get(alias) != version.number:
                    raise _no_alias(image, alias)
            _require_free(image, parameters.get("AliasesToAdd", ()), version.number)
            for alias in parameters.get("AliasesToDelete", ()):
                del image.aliases[alias]
            for alias in parameters.get("AliasesToAdd", ()):
                image.aliases[alias] = version.number
            with image.changing(version):
                version.details.update(_details(parameters))
                version.modified = now_ms()
            return version.arn

    def delete_image_version(self, parameters: dict[str, Any]) -> None:
        """
        Delete a version. Its number is not used again.

        :param parameters: of DeleteImageVersion
        """
        with self._lock:
            image = self._image(parameters["ImageName"])
            version = _required_version(image, parameters)
            _require_idle(version, "ImageVersion")
            with image.changing(version):
                version.begin("DELETING", GONE)
                version.settle()

    def list_aliases(self, parameters: dict[str, Any]) -> tuple[list[str], Token | None]:
        """
        Return a page of the aliases of an image or of one version.

        :param parameters: of ListAliases
        """
        with self._lock:
            image = self._image(parameters["ImageName"])
            version = _named_version(image, parameters)
            keys = sorted(
                (alias, alias) for alias, number in image.aliases.items() if version is None or number == version.number
            )
            token = Token.of("ListAliases", parameters)
            page, following = cut_page(keys, token, parameters.get("MaxResults"))
            return [alias for _, alias in page], following

    def seed_versions(self, name: str, count: int, status: str, start_ms: int, spacing_ms: float) -> list[int]:
        """
        Add many versions at once that stay in their status.

        An image that does not exist is created, whatever the quota. One that is DELETING is gone at once.

        :param name: the image's name
        :param count: how many
        :param status: their status
        :param start_ms: when the first one was created
        :param spacing_ms: how much later each next one was
        """
        with self._lock:
            image = self._find(name)
            if image is None or image.current == "DELETING":
                role = f"arn:{self.partition}:iam::{self.account_id}:role/emulator"
                image = self._add_image(name, {"RoleArn": role})
                image.hold("CREATED")
            numbers = []
            for index in range(count):
                base = f"{image.registry}/{name.lower()}:{image.last_number + 1}"
                version = self._add_version(image, {"BaseImage": base}, status)
                with image.changing(version):
                    version.created = version.modified = int(start_ms + index * spacing_ms)
                numbers.append(version.number)
            return numbers

    def set_version(self, name: str, number: int, changes: dict[str, Any]) -> None:
        """
        Set properties of a version that SageMaker would determine.

        :param name: the image's name
        :param number: the version's number
        :param changes: any of ``status``, ``failure_reason``, ``created`` and ``modified`` (milliseconds)
        """
        with self._lock:
            image = self._image(name)
            version = _required_version(image, {"Version": number})
            with image.changing(version):
                _apply(version, changes)

    def set_image(self, name: str, changes: dict[str, Any]) -> None:
        """
        Set properties of an image that SageMaker would determine.

        :param name: the image's name
        :param changes: any of ``status``, ``failure_reason``, ``created`` and ``modified`` (milliseconds)
        """
        with self._lock:
            _apply(self._image(name), changes)

    def _add_image(self, name: str, parameters: dict[str, Any]) -> Image:
        image = self._images[name.lower()] = Image(self, name, _image_properties(parameters))
        image.settle()
        return image

    def _add_version(self, image: Image, details: dict[str, Any], held_at: str | None = None) -> ImageVersion:
        image.last_number += 1
        version = ImageVersion(image, image.last_number, details)
        with image.changing(version):
            if held_at is None:
                version.settle()
            else:
                version.hold(held_at)
        return version

    def _find(self, name: str, *, seen: bool = False) -> Image | None:
        image = self._images.get(name.lower())
        if image is None:
            return None
        if seen:
            image.advance()
        image.settle()
        if image.current == GONE:
            del self._images[name.lower()]
            return None
        return image

    def _image(self, name: str, *, seen: bool = False) -> Image:
        image = self._find(name, seen=seen)
        if image is None:
            raise _not_found("Image", self.image_arn(name))
        image.settle_versions(seen=seen)
        return image


_TIME_FILTERS = (
    ("created", "After", "CreationTimeAfter"),
    ("created", "Before", "CreationTimeBefore"),
    ("modified", "After", "LastModifiedTimeAfter"),
    ("modified", "Before", "LastModifiedTimeBefore"),
)


def _within(resource: Resource, parameters: dict[str, Any]) -> bool:
    for field, side, parameter in _TIME_FILTERS:
        if parameter in parameters:
            at, limit = getattr(resource, field), round(parameters[parameter] * 1000)
            if at < limit if side == "After" else at > limit:
                return False
    return True


def _bounds(sort_by: str, parameters: dict[str, Any]) -> tuple[int | None, int | None]:
    field = {"CREATION_TIME": "CreationTime", "LAST_MODIFIED_TIME": "LastModifiedTime"}.get(sort_by)
    low, high = (parameters.get(f"{field}{side}") for side in ("After", "Before"))
    return None if low is None else round(low * 1000), None if high is None else round(high * 1000)


def _image_sort_value(image: Image, sort_by: str) -> Any:
    return {
        "CREATION_TIME": image.created,
        "LAST_MODIFIED_TIME": image.modified,
        "IMAGE_NAME": image.name,
    }[sort_by]


def _details(parameters: dict[str, Any]) -> dict[str, Any]:
    not_details = {
        "ImageName",
        "ClientToken",
        "Version",
        "Alias",
        "Aliases",
        "AliasesToAdd",
        "AliasesToDelete",
    }
    return {name: value for name, value in parameters.items() if name not in not_details}


def _image_properties(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: parameters[name] for name in ("RoleArn", "Description", "DisplayName") if name in parameters}


def _apply(resource: Resource, changes: dict[str, Any]) -> None:
    if "status" in changes:
        resource.hold(changes["status"])
    for field in ("failure_reason", "created", "modified"):
        if field in changes:
            setattr(resource, field, changes[field])


def _not_found(kind: str, arn: str) -> ApiError:
    return ApiError("ResourceNotFound", f"{kind} with ARN {arn} does not exist")


def _require_idle(resource: Image | ImageVersion, kind: str) -> None:
    change = resource.in_transition.get(resource.current)
    if change is not None:
        raise ApiError("ResourceInUse", f"{kind} ({resource.arn}) is being {change}")


def _require_valid(image: Image) -> None:
    if image.current in {"CREATE_FAILED", "DELETE_FAILED"}:
        raise ApiError("ValidationException", f"Image {image.name} is in an invalid state.")


def _require_free(image: Image, aliases: Any, number: int | None = None) -> None:
    for alias in aliases:
        owner = image.aliases.get(alias)
        if owner not in {None, number}:
            raise ApiError(
                "ResourceInUse",
                f"The alias {alias} is already used by version {owner} of Image {image.name}.",
            )


def _no_alias(image: Image, alias: str) -> ApiError:
    return ApiError(
        "ResourceNotFound",
        f"ImageVersion with ImageName {image.name} and Alias {alias} does not exist. Please provide a valid Alias.",
    )


def _named_version(image: Image, parameters: dict[str, Any]) -> ImageVersion | None:
    """Return the version that a request names by number or by alias, or None if it names none."""
    number, alias = parameters.get("Version"), parameters.get("Alias")
    if number is not None and alias is not None:
        raise ApiError("ValidationException", "Only one of Version and Alias can be specified.")
    if alias is not None:
        number = image.aliases.get(alias)
        if number is None:
            raise _no_alias(image, alias)
    if number is None:
        return None
    if number not in image.versions:
        raise _not_found("ImageVersion", _version_arn(image, number))
    return image.versions[number]


def _required_version(image: Image, parameters: dict[str, Any]) -> ImageVersion:
    version = _named_version(image, parameters)
    if version is None:
        raise ApiError("ValidationException", "One of Version and Alias must be specified.")
    return version


image_backends: BackendDict[ImageBackend] = BackendDict(ImageBackend, "sagemaker")
