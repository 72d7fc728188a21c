"""
Domains, user profiles, spaces, apps and app image configs of SageMaker Studio, as far as they refer to images.

SageMaker's behavior is known from its documentation and service model, not from recorded responses:

- An update replaces the settings of an app (such as ``JupyterLabAppSettings``) as a whole, and keeps the other user or
  space settings. There is no compare-and-set.
- An update whose outcome is Update_Failed leaves the new settings in place.
- Settings may refer to resources that do not exist: deleting a version, an image or an app image config that is in use
  succeeds, and so does an update with a version that does not exist.
- A domain with user profiles or spaces cannot be deleted, nor can a user profile or space with apps.
- A deleted app remains listed as Deleted.

Statuses change through moto's state transitions, as those of images do (``sagemaker::studio``, default: immediate).
These operations replace moto's own operations on domains, which support neither updates nor statuses.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from moto.core.base_backend import BackendDict, BaseBackend
from moto.moto_api import state_manager

from airflow_provider_imageversions.emulator.errors import ApiError
from airflow_provider_imageversions.emulator.models import GONE, Resource, now_ms
from airflow_provider_imageversions.emulator.paging import Token, cut_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

STUDIO_MODEL = "sagemaker::studio"

# The members of an app's settings that an update replaces one by one, rather than as a whole.
_VERSION_ARN = "SageMakerImageVersionArn"
_MERGED = {"DefaultUserSettings", "DefaultSpaceSettings", "UserSettings", "SpaceSettings"}
_RUNNING = {"InService", "Pending", "Deleting"}

state_manager.register_default_transition(STUDIO_MODEL, {"progression": "immediate"})


@dataclass(frozen=True)
class _Kind:
    """
    How one kind of Studio resource differs from the others.

    :param noun: as in the names of operations
    :param identity: the members that identify one
    :param listed: the members that a list has, besides status and times
    :param described: the members that DescribeX has, besides status and times
    :param sort_keys: what a list can be sorted by; the first is the default
    :param filters: parameters of a list, each with the member that it has to equal or to contain
    """

    noun: str
    identity: tuple[str, ...]
    listed: tuple[str, ...]
    described: tuple[str, ...]
    sort_keys: tuple[str, ...] = ("CreationTime", "LastModifiedTime")
    filters: tuple[tuple[str, str], ...] = ()
    order: str = "Ascending"


_IDENTITY_OF_APP = ("DomainId", "UserProfileName", "SpaceName", "AppType", "AppName")
_IMAGE_CONFIGS = ("KernelGatewayImageConfig", "JupyterLabAppImageConfig", "CodeEditorAppImageConfig")

DOMAIN = _Kind(
    "Domain",
    ("DomainId",),
    ("DomainArn", "DomainId", "DomainName", "Url"),
    (
        "DomainArn",
        "DomainId",
        "DomainName",
        "Url",
        "AuthMode",
        "DefaultUserSettings",
        "DefaultSpaceSettings",
        "DomainSettings",
        "SubnetIds",
        "VpcId",
        "AppNetworkAccessType",
        "AppSecurityGroupManagement",
        "HomeEfsFileSystemCreation",
        "TagPropagation",
        "HomeEfsFileSystemKmsKeyId",
        "KmsKeyId",
    ),
    ("CreationTime",),
    order="Descending",
)
USER_PROFILE = _Kind(
    "UserProfile",
    ("DomainId", "UserProfileName"),
    ("DomainId", "UserProfileName"),
    (
        "DomainId",
        "UserProfileArn",
        "UserProfileName",
        "SingleSignOnUserIdentifier",
        "SingleSignOnUserValue",
        "UserSettings",
    ),
    filters=(("DomainIdEquals", "DomainId"), ("UserProfileNameContains", "UserProfileName")),
)
SPACE = _Kind(
    "Space",
    ("DomainId", "SpaceName"),
    (
        "DomainId",
        "SpaceName",
        "SpaceDisplayName",
        "SpaceSettingsSummary",
        "SpaceSharingSettingsSummary",
        "OwnershipSettingsSummary",
    ),
    (
        "DomainId",
        "SpaceArn",
        "SpaceName",
        "SpaceSettings",
        "OwnershipSettings",
        "SpaceSharingSettings",
        "SpaceDisplayName",
        "Url",
    ),
    filters=(("DomainIdEquals", "DomainId"), ("SpaceNameContains", "SpaceName")),
)
APP = _Kind(
    "App",
    _IDENTITY_OF_APP,
    (*_IDENTITY_OF_APP, "ResourceSpec"),
    (*_IDENTITY_OF_APP, "AppArn", "ResourceSpec", "RecoveryMode"),
    ("CreationTime",),
    (
        ("DomainIdEquals", "DomainId"),
        ("UserProfileNameEquals", "UserProfileName"),
        ("SpaceNameEquals", "SpaceName"),
    ),
)
APP_IMAGE_CONFIG = _Kind(
    "AppImageConfig",
    ("AppImageConfigName",),
    ("AppImageConfigArn", "AppImageConfigName", *_IMAGE_CONFIGS),
    ("AppImageConfigArn", "AppImageConfigName", *_IMAGE_CONFIGS),
    ("CreationTime", "LastModifiedTime", "Name"),
    (("NameContains", "AppImageConfigName"),),
    "Descending",
)
_KINDS = (DOMAIN, USER_PROFILE, SPACE, APP, APP_IMAGE_CONFIG)
_TIME_FILTERS = (
    ("CreationTimeAfter", "created", False),
    ("CreationTimeBefore", "created", True),
    ("ModifiedTimeAfter", "modified", False),
    ("ModifiedTimeBefore", "modified", True),
)


class StudioResource(Resource):
    """
    A domain, user profile, space, app or app image config.

    :param kind: which of these
    :param members: what identifies and describes it, by the API's names
    """

    creation: ClassVar[tuple[str, str, str]] = ("Pending", "InService", "Failed")
    in_transition: ClassVar[Mapping[str, str]] = {"Pending": "created", "Updating": "updated", "Deleting": "deleted"}

    def __init__(self, kind: _Kind, members: dict[str, Any]) -> None:
        super().__init__(STUDIO_MODEL)
        self.kind = kind
        self.members = members

    @property
    def name(self) -> str:
        """What messages call it."""
        return "/".join(str(self.members[key]) for key in self.kind.identity if key in self.members)

    def description(self) -> dict[str, Any]:
        """Return the resource as its Describe call does."""
        modified = {} if self.kind is APP else {"LastModifiedTime": self.modified / 1000}
        return {**self._common(self.kind.described), **modified}

    def summary(self) -> dict[str, Any]:
        """Return the resource as its List call does."""
        modified = {} if self.kind is APP else {"LastModifiedTime": self.modified / 1000}
        summary = {**self._common(self.kind.listed), **modified}
        summary.pop("FailureReason", None)
        return summary

    def _common(self, names: tuple[str, ...]) -> dict[str, Any]:
        common: dict[str, Any] = {name: self.members[name] for name in names if name in self.members}
        common["CreationTime"] = self.created / 1000
        if self.kind is not APP_IMAGE_CONFIG:
            common["Status"] = self.current
            if self.failure_reason is not None:
                common["FailureReason"] = self.failure_reason
        return common


class StudioBackend(BaseBackend):
    """
    Everything of Studio in one account in one region. Every public method is atomic.

    :param region_name: the region
    :param account_id: the account
    """

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._lock = threading.RLock()
        self._resources: dict[tuple[Any, ...], StudioResource] = {}
        self._coming_failures: list[str] = []

    def reset(self) -> None:
        """Clear everything, without breaking requests in progress as moto's own reset would."""
        with self._lock:
            self._resources.clear()
            self._coming_failures.clear()

    def fail_updates(self, reason: str, times: int) -> None:
        """
        Make later updates end in Update_Failed.

        :param reason: their FailureReason
        :param times: how many
        """
        with self._lock:
            self._coming_failures += [reason] * times

    def answer(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Perform an operation; return its answer.

        :param operation: one of :data:`STUDIO_OPERATIONS`
        :param parameters: its parameters, checked
        """
        method, kind = STUDIO_OPERATIONS[operation]
        with self._lock:
            return method(self, kind, parameters)

    def create(self, kind: _Kind, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Create a resource.

        :param kind: its kind
        :param parameters: of the operation
        """
        members = {name: value for name, value in parameters.items() if name != "Tags"}
        if kind is DOMAIN:
            if any(domain.members["DomainName"] == members["DomainName"] for domain in self._all(DOMAIN)):
                raise _already_exists(kind, members["DomainName"])
            digest = hashlib.sha256(f"{self.account_id} {self.region_name} {members['DomainName']}".encode())
            members["DomainId"] = f"d-{digest.hexdigest()[:12]}"
            members["Url"] = f"https://{members['DomainId']}.studio.{self.region_name}.sagemaker.aws"
        elif kind is not APP_IMAGE_CONFIG:
            self._refuse_missing_parents(kind, members)
        previous = self._find(kind, members)
        if previous is not None and previous.current != "Deleted":
            raise _already_exists(kind, previous.name)
        if kind is SPACE:
            members.update(_space_summaries(members))
        if kind is APP:
            members.setdefault("ResourceSpec", self._default_resource_spec(members))
        members[f"{kind.noun}Arn"] = self._arn(kind, members)
        resource = self._resources[_key(kind, members)] = StudioResource(kind, members)
        resource.settle()
        answer = {f"{kind.noun}Arn": members[f"{kind.noun}Arn"]}
        if kind is DOMAIN:
            answer |= {"DomainId": members["DomainId"], "Url": members["Url"]}
        return answer

    def describe(self, kind: _Kind, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Return all that is known about a resource.

        :param kind: its kind
        :param parameters: of the operation
        """
        return self._get(kind, parameters).description()

    def list(self, kind: _Kind, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Return a page of resources.

        :param kind: their kind
        :param parameters: of the operation
        """
        sort_by = parameters.get("SortBy", kind.sort_keys[0])
        found = {resource.name: resource for resource in self._all(kind) if _matches(resource, parameters)}
        keys = sorted((_sort_value(resource, sort_by), name) for name, resource in found.items())
        page, following = cut_page(
            keys,
            Token.of(f"List{kind.noun}s", parameters),
            parameters.get("MaxResults"),
            descending=parameters.get("SortOrder", kind.order) == "Descending",
        )
        answer: dict[str, Any] = {f"{kind.noun}s": [found[name].summary() for _, name in page]}
        if following is not None:
            answer["NextToken"] = str(following)
        return answer

    def update(self, kind: _Kind, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Change a resource; what the request leaves out stays.

        :param kind: its kind
        :param parameters: of the operation
        """
        resource = self._get(kind, parameters)
        if kind is APP_IMAGE_CONFIG:
            resource.modified = now_ms()
        else:
            _require_idle(resource)
        for name, value in parameters.items():
            if name in kind.identity:
                continue
            target = name.removesuffix("ForUpdate")
            old = resource.members.get(target, {})
            new = _with_kept_versions(old, value)
            resource.members[target] = {**old, **new} if target in _MERGED else new
        if kind is SPACE:
            resource.members.update(_space_summaries(resource.members))
        if kind is not APP_IMAGE_CONFIG:
            reason = self._coming_failures.pop(0) if self._coming_failures else None
            resource.begin("Updating", "Update_Failed" if reason else "InService", reason)
            resource.settle()
        return {f"{kind.noun}Arn": resource.members[f"{kind.noun}Arn"]}

    def delete(self, kind: _Kind, parameters: dict[str, Any]) -> dict[str, Any]:
        """
        Begin to delete a resource.

        :param kind: its kind
        :param parameters: of the operation
        """
        resource = self._get(kind, parameters)
        if kind is APP_IMAGE_CONFIG:
            del self._resources[_key(kind, resource.members)]
            return {}
        _require_idle(resource)
        if kind is not APP:
            self._refuse_dependents(resource)
        resource.begin("Deleting", "Deleted" if kind is APP else GONE)
        resource.settle()
        return {}

    def _arn(self, kind: _Kind, members: Mapping[str, Any]) -> str:
        place = {
            DOMAIN: ("domain", "DomainId"),
            USER_PROFILE: ("user-profile", "DomainId", "UserProfileName"),
            SPACE: ("space", "DomainId", "SpaceName"),
            APP: ("app", "DomainId", "UserProfileName", "SpaceName", "AppType", "AppName"),
            APP_IMAGE_CONFIG: ("app-image-config", "AppImageConfigName"),
        }[kind]
        path = "/".join([place[0], *(str(members[name]).lower() for name in place[1:] if name in members)])
        return f"arn:{self.partition}:sagemaker:{self.region_name}:{self.account_id}:{path}"

    def _all(self, kind: _Kind) -> Iterator[StudioResource]:
        for resource in list(self._resources.values()):
            if resource.kind is kind and self._settled(resource) is not None:
                yield resource

    def _settled(self, resource: StudioResource) -> StudioResource | None:
        if resource.kind is not APP_IMAGE_CONFIG:
            resource.advance()
            resource.settle()
        if resource.current == GONE:
            del self._resources[_key(resource.kind, resource.members)]
            return None
        return resource

    def _find(self, kind: _Kind, parameters: Mapping[str, Any]) -> StudioResource | None:
        resource = self._resources.get(_key(kind, parameters))
        return None if resource is None else self._settled(resource)

    def _get(self, kind: _Kind, parameters: Mapping[str, Any]) -> StudioResource:
        if kind is APP:
            _require_owner(parameters)
        resource = self._find(kind, parameters)
        if resource is None:
            raise ApiError("ResourceNotFound", f"{kind.noun} with ARN {self._arn(kind, parameters)} does not exist")
        return resource

    def _refuse_missing_parents(self, kind: _Kind, members: Mapping[str, Any]) -> None:
        parents = [DOMAIN]
        if kind is APP:
            _require_owner(members)
            parents.append(SPACE if "SpaceName" in members else USER_PROFILE)
        for parent in parents:
            if self._find(parent, members) is None:
                # By its model, no operation that creates something answers ResourceNotFound.
                raise ApiError("ValidationException", f"{parent.noun} {self._arn(parent, members)} does not exist")

    def _refuse_dependents(self, resource: StudioResource) -> None:
        for other in list(self._resources.values()):
            is_within = all(other.members.get(key) == resource.members[key] for key in resource.kind.identity)
            if not is_within or other is resource or self._settled(other) is None:
                continue
            if other.kind is not APP or other.current in _RUNNING:
                raise ApiError(
                    "ResourceInUse",
                    f"Unable to delete {resource.kind.noun} [{resource.name}]: it has a {other.kind.noun} "
                    f"[{other.name}] that is {other.current}.",
                )

    def _default_resource_spec(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an app starts with whose request names nothing: the space's, then the profile's, the domain's."""
        settings_name = f"{members['AppType']}AppSettings"
        places: list[tuple[_Kind, str]] = [(DOMAIN, "DefaultUserSettings")]
        if "UserProfileName" in members:
            places.insert(0, (USER_PROFILE, "UserSettings"))
        if "SpaceName" in members:
            places = [(SPACE, "SpaceSettings"), (DOMAIN, "DefaultSpaceSettings"), *places]
        for kind, settings in places:
            found = self._get(kind, members).members.get(settings, {}).get(settings_name, {})
            if "DefaultResourceSpec" in found:
                return dict(found["DefaultResourceSpec"])
        return {}


def _key(kind: _Kind, members: Mapping[str, Any]) -> tuple[Any, ...]:
    return (kind.noun, *(members.get(name) for name in kind.identity))


def _already_exists(kind: _Kind, name: str) -> ApiError:
    return ApiError("ResourceInUse", f"{kind.noun} [{name}] already exists. Please use a different name.")


def _with_kept_versions(old: Any, new: Any) -> Any:
    """Return settings with the version ARNs of resource specs that an update left out; "None" removes one."""
    if not isinstance(new, dict):
        return new
    old = old if isinstance(old, dict) else {}
    result = {name: _with_kept_versions(old.get(name), value) for name, value in new.items()}
    for name in (name for name in result if name.endswith("ResourceSpec")):
        spec, kept = result[name], (old.get(name) or {}).get(_VERSION_ARN)
        if spec.setdefault(_VERSION_ARN, kept) in {None, "None"}:
            del spec[_VERSION_ARN]
    return result


def _require_idle(resource: StudioResource) -> None:
    change = resource.in_transition.get(resource.current)
    if change is not None:
        raise ApiError("ResourceInUse", f"{resource.kind.noun} [{resource.name}] is being {change}.")


def _require_owner(members: Mapping[str, Any]) -> None:
    if ("UserProfileName" in members) == ("SpaceName" in members):
        raise ApiError("ValidationException", "Exactly one of UserProfileName and SpaceName must be specified.")


def _space_summaries(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ListSpaces has in place of the settings: none of them names an image."""
    settings = members.get("SpaceSettings", {})
    summaries: dict[str, Any] = {
        "SpaceSettingsSummary": {
            name: settings[name] for name in ("AppType", "RemoteAccess", "SpaceStorageSettings") if name in settings
        }
    }
    if "SpaceSharingSettings" in members:
        summaries["SpaceSharingSettingsSummary"] = members["SpaceSharingSettings"]
    if "OwnershipSettings" in members:
        summaries["OwnershipSettingsSummary"] = members["OwnershipSettings"]
    return summaries


def _sort_value(resource: StudioResource, sort_by: str) -> Any:
    return {"CreationTime": resource.created, "LastModifiedTime": resource.modified, "Name": resource.name}[sort_by]


def _matches(resource: StudioResource, parameters: Mapping[str, Any]) -> bool:
    for parameter, member in resource.kind.filters:
        if parameter in parameters:
            wanted, value = parameters[parameter], resource.members.get(member)
            if value is None or (wanted not in value if parameter.endswith("Contains") else wanted != value):
                return False
    for parameter, field, is_upper in _TIME_FILTERS:
        if parameter in parameters:
            at, limit = getattr(resource, field), round(parameters[parameter] * 1000)
            if at > limit if is_upper else at < limit:
                return False
    return True


_METHODS: dict[str, Callable[[StudioBackend, _Kind, dict[str, Any]], dict[str, Any]]] = {
    "Create": StudioBackend.create,
    "Describe": StudioBackend.describe,
    "Update": StudioBackend.update,
    "Delete": StudioBackend.delete,
}
STUDIO_OPERATIONS = {
    **{
        f"{verb}{kind.noun}": (method, kind)
        for kind in _KINDS
        for verb, method in _METHODS.items()
        if (verb, kind) != ("Update", APP)  # SageMaker has no UpdateApp
    },
    **{f"List{kind.noun}s": (StudioBackend.list, kind) for kind in _KINDS},
}
"""The operations that this room answers, with the method and the kind of resource for each."""

studio_backends: BackendDict[StudioBackend] = BackendDict(StudioBackend, "sagemaker")
