"""
Read and change the versions of an image in the settings of Amazon SageMaker Studio.

Pure, like :mod:`airflow_provider_imageversions.decide`: the functions take responses of DescribeDomain,
DescribeUserProfile, DescribeSpace and ListApps, and return what they mean or the settings to write.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_imageversions._parameters import (
    invalid_parameter,
    parse_image_name,
    parse_integer,
    parse_mapping,
    parse_studio_name,
    parse_version,
)
from airflow_provider_imageversions.decide import Failed, Waiting, failure_reason
from airflow_provider_imageversions.model import DETAIL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

LISTS = {
    "list_domains": "Domains",
    "list_apps": "Apps",
    "list_user_profiles": "UserProfiles",
    "list_spaces": "Spaces",
}
"""The member of each List operation's response that has the resources."""

APP_TYPES = ("JupyterLab", "CodeEditor", "KernelGateway")
"""The types of apps that a version can be rolled out to."""

CUSTOM_IMAGES_MAX = {"domain": 200, "user_profile": 5}
"""Maximum number of custom images in one list, as documented by SageMaker."""

ABSENT, UNPINNED = "absent", "unpinned"
"""Values in place of a version number: the list has no entry for the image, or an entry without a number."""

NO_VERSION = "none"
"""Key, in place of a version number, of the users whose setting refers to no version at present."""

# The members that contain the settings of apps, by the kind of document.
_PLACES = {
    "domain": ("DefaultUserSettings", "DefaultSpaceSettings", "DomainSettings"),
    "user_profile": ("UserSettings",),
    "space": ("SpaceSettings",),
}
_NOT_RUNNING = {"Deleted", "Failed"}
# Statuses of a domain and of a user profile.
_IN_SERVICE, _UPDATE_FAILED = "InService", "Update_Failed"
_LOST = {"Deleting", "Failed", "Delete_Failed"}


# --- Who uses which version ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """
    A reference to an image in Studio.

    :param user: What to report about it: ``kind``, ``domain_id``, ``name`` and so on.
    :param version: Number of the version, if it refers to a number.
    :param alias: Alias of the version, if it refers to an alias. Without both, it refers to the newest CREATED version.
    """

    user: Mapping[str, Any]
    version: int | None = None
    alias: str | None = None


def references(kind: str, document: Mapping[str, Any], image_name: str, image_arn: str) -> Iterator[Reference]:
    """
    Yield every reference to an image in a document.

    :param kind: ``domain``, ``user_profile``, ``space`` or ``app``.
    :param document: The response that describes it, or an app of ListApps.
    :param image_name: Name of the image, case-insensitive, as in an ARN.
    :param image_arn: ARN of the image, which distinguishes it from an image of the same name elsewhere.
    """
    user: dict[str, Any] = {"kind": kind, "domain_id": document["DomainId"]}
    if kind == "app":
        if document.get("Status") in _NOT_RUNNING:
            return
        user |= {"name": document["AppName"], "app_type": document["AppType"]}
        user |= {
            key: document[member]
            for key, member in (("user_profile_name", "UserProfileName"), ("space_name", "SpaceName"))
            if document.get(member)
        }
        yield from _reference_of_spec(document.get("ResourceSpec"), {**user, "setting": "ResourceSpec"}, image_arn)
        return
    user["name"] = document[{"domain": "DomainName", "user_profile": "UserProfileName", "space": "SpaceName"}[kind]]
    for place in _PLACES[kind]:
        for path, member in _members(document.get(place), (place,)):
            described = {**user, "app_type": _app_type(path), "setting": ".".join(path)}
            if path[-1] != "CustomImages":
                yield from _reference_of_spec(member, described, image_arn)
                continue
            for entry in member:
                if entry["ImageName"].lower() == image_name.lower():
                    number = entry.get("ImageVersionNumber")
                    yield Reference({**described, "pinned": number is not None}, number)


def _members(settings: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the lists of custom images and the resource specs in settings at any depth: AWS may add apps."""
    if not isinstance(settings, dict):
        return
    for name, value in settings.items():
        if name == "CustomImages" or name.endswith("ResourceSpec"):
            yield (*path, name), value
        else:
            yield from _members(value, (*path, name))


def _app_type(path: tuple[str, ...]) -> str | None:
    for name in reversed(path):
        for suffix in ("AppSettings", "DomainSettings"):
            if name.endswith(suffix) and name != suffix:
                return name.removesuffix(suffix)
    return None


def _reference_of_spec(spec: Any, user: Mapping[str, Any], image_arn: str) -> Iterator[Reference]:
    """Yield the reference in a resource spec. The ARN of a version takes precedence over the image's ARN and alias."""
    if not isinstance(spec, dict):
        return
    version_arn = str(spec.get("SageMakerImageVersionArn", ""))
    owner, _, number = version_arn.lower().rpartition("/")
    if number.isdecimal():
        if owner == image_arn.lower().replace(":image/", ":image-version/"):
            yield Reference({**user, "pinned": True}, int(number))
    elif str(spec.get("SageMakerImageArn", "")).lower() == image_arn.lower():
        alias = spec.get("SageMakerImageVersionAlias")
        yield Reference({**user, "pinned": alias is not None}, alias=alias)


def resource_spec(image_arn: str, number: int) -> dict[str, str]:
    """
    Return the members of a resource spec that refer to a version.

    :param image_arn: ARN of the image.
    :param number: The version's number.
    """
    version_arn = f"{image_arn.lower().replace(':image/', ':image-version/')}/{number}"
    return {"SageMakerImageArn": image_arn, "SageMakerImageVersionArn": version_arn}


def usage(
    found: Iterable[Reference], *, newest: int | None, owners: Mapping[str, int | None], knows_apps: bool
) -> dict[str, list[dict[str, Any]]]:
    """
    Return the users of each version that is in use.

    :param found: All references, in the order in which to report them.
    :param newest: Number of the newest CREATED version, for references without a number.
    :param owners: For each alias in the references, the number of its version; ``None`` if no version has it.
    :param knows_apps: Whether running apps are among the references.
    :return: The users by version number (a string), in ascending order, and those of :data:`NO_VERSION` at the end.
        ``running`` is whether an app runs with the version there, or ``None`` if apps were not read.
    """
    users: dict[int, list[dict[str, Any]]] = {}
    unresolved: list[dict[str, Any]] = []
    for reference in found:
        number = reference.version if reference.version is not None else newest
        if reference.alias is not None:
            number = owners[reference.alias]
        (unresolved if number is None else users.setdefault(number, [])).append(dict(reference.user))
    result = {str(number): users[number] for number in sorted(users)} | ({NO_VERSION: unresolved} if unresolved else {})
    for using in result.values():
        apps = {_home(user) for user in using if user["kind"] == "app"}
        for user in using:
            user["running"] = user["kind"] == "app" or (_home(user) in apps if knows_apps else None)
    return result


def _home(user: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what identifies the domain, user profile or space, and the type of app, that a user belongs to."""
    kind, name = user["kind"], user["name"]
    if kind == "app":
        kind = "space" if "space_name" in user else "user_profile"
        name = user.get(f"{kind}_name")
    return (kind, user["domain_id"], name, user["app_type"])


def describe_users(users: Collection[Mapping[str, Any]], *, shown: int = 5) -> str:
    """
    Return the names of a version's users, for a log line or an error.

    :param users: The users of one version in :func:`usage`.
    :param shown: Maximum number of names.
    """
    names = list(dict.fromkeys(_name_of(user) for user in users))
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _name_of(user: Mapping[str, Any]) -> str:
    kind = str(user["kind"]).replace("_", " ")
    if user["kind"] == "domain":
        return f"domain {user['domain_id']} ({user['app_type']})"
    owner = next((f" of {key[:-5].replace('_', ' ')} {user[key]}" for key in _OWNERS if key in user), "")
    return f"{kind} {user['name']}{owner} in domain {user['domain_id']} ({user['app_type']})"


_OWNERS = ("space_name", "user_profile_name")


def not_following(
    used: Mapping[str, list[dict[str, Any]]], target: RolloutTarget, number: int
) -> dict[str, list[dict[str, Any]]]:
    """
    Find who keeps another version after a roll-out, although it concerns them.

    :param used: What :func:`usage` returned after the roll-out.
    :param target: The settings that it changed.
    :param number: The version that was rolled out.
    :return: ``app``, the apps that run with another version, and ``space`` and ``user_profile``, those whose settings
        pin one. A user profile's settings take precedence over those of the domain.
    """
    profile = target.user_profile_name
    others = [
        user | {"version": int(key)}
        for key, users in used.items()
        if key not in {str(number), NO_VERSION}
        for user in users
        if user["app_type"] == target.app_type and user.get("user_profile_name", profile) in {profile, None}
    ]
    kinds = ("app", "space", *(("user_profile",) if profile is None else ()))
    return {kind: [user for user in others if user["kind"] == kind and user.get("pinned", True)] for kind in kinds}


# --- Roll out, and back ----------------------------------------------------------------------------------


class AmbiguousEntryError(ValueError):
    """A list of custom images has several entries for the image, and it is ambiguous which one to change."""


@dataclass(frozen=True)
class EntryState:
    """
    The state of an image in the settings of one app, sufficient to restore it.

    :param entry: The image's entry in the list of custom images; ``None`` if the list has no entry for it.
    :param position: The entry's index in the list.
    :param default: The DefaultResourceSpec; ``None`` if the settings have none.
    """

    entry: Mapping[str, Any] | None = None
    position: int | None = None
    default: Mapping[str, Any] | None = None

    @property
    def version(self) -> int | str:
        """The version's number, ``"unpinned"`` for an entry without one, or ``"absent"``."""
        if self.entry is None:
            return ABSENT
        number = self.entry.get("ImageVersionNumber")
        return UNPINNED if number is None else int(number)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON, with the version."""
        return {"version": self.version, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EntryState:
        """
        Return the state from the result of :meth:`to_json`, which may have numbers as strings.

        :param values: The result.
        :raises KeyError: A member is missing.
        :raises ValueError: A member has another type, or is outside its limits.
        """
        entry, position, default = values["entry"], values["position"], values["default"]
        if entry is not None:
            entry = dict(parse_mapping("entry", entry))
            parse_image_name("ImageName", entry["ImageName"])
            parse_studio_name("AppImageConfigName", entry["AppImageConfigName"])
            if "ImageVersionNumber" in entry:
                entry["ImageVersionNumber"] = parse_version("ImageVersionNumber", entry["ImageVersionNumber"])
        if position is not None:
            position = parse_integer("position", position, minimum=0)
        if default is not None:
            default = parse_mapping("default", default)
            if not all(isinstance(value, str) for value in default.values()):
                raise invalid_parameter("default", default, "each value must be a string.")
        return cls(entry, position, default)


# The other members of a resource spec, such as the instance type, are kept.
_IMAGE_OF_SPEC = {"SageMakerImageArn", "SageMakerImageVersionArn", "SageMakerImageVersionAlias"}


# SageMaker keeps a version's ARN that an update leaves out; this value removes it.
_CLEARED = {"SageMakerImageVersionArn": "None"}


def _image_of(spec: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (spec or {}).items() if name in _IMAGE_OF_SPEC}


def _default_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    spec = settings.get("DefaultResourceSpec") or {}
    return {name: value for name, value in spec.items() if (name, value) not in _CLEARED.items()}


def _with_image_of(spec: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a resource spec with the image of another one; ``None`` if nothing is left."""
    kept = {name: value for name, value in (spec or {}).items() if name not in _IMAGE_OF_SPEC}
    return {**kept, **_image_of(other)} or None


@dataclass(frozen=True)
class RolloutTarget:
    """
    The settings that a roll-out changes.

    :param domain_id: The domain.
    :param app_type: One of :data:`APP_TYPES`.
    :param user_profile_name: The user profile; ``None`` for the domain's default settings. (default: ``None``)
    """

    domain_id: str
    app_type: str
    user_profile_name: str | None = None

    @property
    def kind(self) -> str:
        """``domain`` or ``user_profile``."""
        return "domain" if self.user_profile_name is None else "user_profile"

    @property
    def app_settings(self) -> str:
        """The member that contains the settings of the app."""
        return f"{self.app_type}AppSettings"

    @property
    def identity(self) -> dict[str, str]:
        """The members of a request that identify the domain or the user profile."""
        profile = {} if self.user_profile_name is None else {"UserProfileName": self.user_profile_name}
        return {"DomainId": self.domain_id, **profile}

    def __str__(self) -> str:
        profile = "" if self.user_profile_name is None else f"user profile {self.user_profile_name!r} of "
        return f"{profile}domain {self.domain_id!r}"

    @property
    def places(self) -> tuple[str, ...]:
        """The members of a document that can have the settings of the app."""
        if self.kind == "user_profile":
            return ("UserSettings",)
        return ("DefaultUserSettings", *(("DefaultSpaceSettings",) if self.app_type in _IN_SPACE_SETTINGS else ()))

    def settings(self, document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """
        Return the settings of the app in each place of a document that has them.

        A domain's default space settings count only where it has them, and where SageMaker's model has the app.

        :param document: The response of DescribeDomain or DescribeUserProfile.
        """
        return {
            place: dict(document.get(place, {}).get(self.app_settings, {}))
            for place in self.places
            if place != "DefaultSpaceSettings" or document.get(place)
        }

    def request(self, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """
        Return the members of UpdateDomain or UpdateUserProfile that write settings of the app, and nothing else.

        :param settings: The settings by place, as :meth:`settings` returns them.
        """
        return {**self.identity, **{place: {self.app_settings: dict(own)} for place, own in settings.items()}}


_IN_SPACE_SETTINGS = {"JupyterLab", "KernelGateway"}


@dataclass(frozen=True)
class Rollout:
    """
    The changes of a roll-out or a roll-back.

    :param image_name: Name of the image.
    :param target: The settings to change.
    :param app_image_config_name: The app image config of the entry. It also selects one of several entries for the
        image.
    :param number: Number of the version; ``None`` for a roll-back. (default: ``None``)
    :param spec: The image and version for the DefaultResourceSpec; ``None`` to keep it. (default: ``None``)
    :param restore: The states to restore, by place, as :meth:`state` returned them earlier. (default: none)
    :param restores_default: Whether a roll-back also restores the image in the DefaultResourceSpec, if that still
        refers to the image of the roll-back. (default: False)
    """

    image_name: str
    target: RolloutTarget
    app_image_config_name: str | None
    number: int | None = None
    spec: Mapping[str, Any] | None = None
    restore: Mapping[str, EntryState] = field(default_factory=dict)
    restores_default: bool = False

    @property
    def with_default(self) -> bool:
        """Whether the DefaultResourceSpec changes, too."""
        return self.spec is not None or self.restores_default

    @property
    def _app(self) -> str:
        return f"{self.target.app_type} in {self.target}"

    def default_versions(self, states: Mapping[str, EntryState]) -> set[int]:
        """
        Return the versions of the image that are the default in states.

        :param states: What :meth:`state` returned, or the states to restore.
        """
        specs = [state.default for state in states.values() if self._is_of_image(state.default)]
        numbers = {str(_image_of(spec).get("SageMakerImageVersionArn", "")).rpartition("/")[2] for spec in specs}
        return {int(number) for number in numbers if number.isdecimal()}

    def pinned_after(self, document: Mapping[str, Any]) -> list[int]:
        """
        Return the versions in settings that are higher than the one to roll out, the highest one first.

        :param document: See :meth:`state`.
        """
        states = self.state(document)
        defaults = set() if self.spec is None else self.default_versions(states)
        pinned = {state.version for state in states.values()} | defaults
        after = (each for each in pinned if isinstance(each, int) and self.number is not None and each > self.number)
        return sorted(after, reverse=True)

    def state(self, document: Mapping[str, Any]) -> dict[str, EntryState]:
        """
        Return the present states of the image in a document, by place.

        :param document: The response of DescribeDomain or DescribeUserProfile.
        :raises AmbiguousEntryError: A list has several entries for the image, and the app image config does not select
            exactly one of them.
        """
        return {place: self._state(settings) for place, settings in self.target.settings(document).items()}

    def _state(self, settings: Mapping[str, Any]) -> EntryState:
        entries = settings.get("CustomImages", ())
        position = self._position(entries)
        return EntryState(
            entry=None if position is None else dict(entries[position]),
            position=position,
            default=_default_of(settings) or None,
        )

    def _position(self, entries: Iterable[Mapping[str, Any]]) -> int | None:
        own = [(i, entry) for i, entry in enumerate(entries) if entry["ImageName"].lower() == self.image_name.lower()]
        if len(own) > 1:
            own = [(i, entry) for i, entry in own if entry["AppImageConfigName"] == self.app_image_config_name]
            if len(own) != 1:
                raise AmbiguousEntryError(
                    f"{self._app}: the list of custom images has several entries of image {self.image_name!r}, of "
                    f"which {len(own)} have app_image_config_name={self.app_image_config_name!r}. Detach all but one "
                    "of them, or name the app image config of the one to change."
                )
        return own[0][0] if own else None

    def wanted(self, document: Mapping[str, Any]) -> dict[str, EntryState]:
        """
        Return the wanted states of the image in a document, by place.

        :param document: See :meth:`state`.
        """
        before = self.state(document)
        if self.number is None:
            return {place: self._restored(state, self.restore.get(place, state)) for place, state in before.items()}
        entry = {
            "ImageName": self.image_name,
            "ImageVersionNumber": self.number,
            "AppImageConfigName": self.app_image_config_name,
        }
        return {
            place: replace(
                state,
                entry=entry,
                default=state.default if self.spec is None else _with_image_of(state.default, self.spec),
            )
            for place, state in before.items()
        }

    def _restored(self, state: EntryState, old: EntryState) -> EntryState:
        """Return the state to restore. Whatever else was changed in the default, or made the default, is kept."""
        restores_default = self.restores_default and self._is_of_image(state.default)
        return replace(old, default=_with_image_of(state.default, old.default) if restores_default else state.default)

    def _is_of_image(self, spec: Mapping[str, Any] | None) -> bool:
        image = _image_of(spec)
        owner = str(image.get("SageMakerImageVersionArn", "")).rpartition("/")[0] or image.get("SageMakerImageArn", "")
        return str(owner).rpartition("/")[2].lower() == self.image_name.lower()

    def kept_defaults(self, document: Mapping[str, Any]) -> list[str]:
        """
        Return the places where a roll-back kept a DefaultResourceSpec that refers to something else by now.

        :param document: The response of DescribeDomain or DescribeUserProfile after the roll-back.
        """
        if not self.restores_default:
            return []
        return [
            place
            for place, state in self.state(document).items()
            if place in self.restore and _image_of(state.default) != _image_of(self.restore[place].default)
        ]

    def undo(self, document: Mapping[str, Any], previous: Mapping[str, EntryState]) -> dict[str, Any]:
        """
        Return the settings to write, by place, to undo an update that has been written.

        :param document: See :meth:`state`.
        :param previous: The states before the update.
        """
        wanted = {}
        for place, state in self.state(document).items():
            old = previous.get(place, state)
            wanted[place] = replace(old, default=_with_image_of(state.default, old.default))
        return self._changes(document, wanted)

    def changes(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the settings to write, by place; empty if they are up to date.

        :param document: See :meth:`state`.
        """
        return self._changes(document, self.wanted(document))

    def _changes(self, document: Mapping[str, Any], wanted: Mapping[str, EntryState]) -> dict[str, Any]:
        before = self.state(document)
        return {
            place: self._put(settings, wanted[place])
            for place, settings in self.target.settings(document).items()
            if not self.agrees(before[place], wanted[place])
        }

    def _put(self, settings: Mapping[str, Any], state: EntryState) -> dict[str, Any]:
        """
        Return the settings of one app with another state of the image, and no other changes.

        It rolls out and rolls back: putting the state of the old settings into the new ones returns the old ones. An
        existing entry is replaced in place; a new one is inserted at the state's position, or at the end. A missing
        list becomes an empty one, and a missing default an empty one, because SageMaker may keep a member that an
        update leaves out.
        """
        entries = [dict(entry) for entry in settings.get("CustomImages", ())]
        position = self._position(entries)
        if state.entry is not None and any(
            _identity_of(entry) == _identity_of(state.entry) for i, entry in enumerate(entries) if i != position
        ):
            raise AmbiguousEntryError(
                f"{self._app}: another entry of image {self.image_name!r} has the app image config "
                f"{state.entry['AppImageConfigName']!r}, too. Detach one of the two entries first."
            )
        if position is not None and state.entry is not None:
            entries[position] = dict(state.entry)
        elif position is not None:
            del entries[position]
        elif state.entry is not None:
            entries.insert(len(entries) if state.position is None else state.position, dict(state.entry))
        changed = {**settings, "CustomImages": entries}
        if self.with_default:
            default = dict(state.default or {})
            was_set, is_set = (_CLEARED.keys() <= spec.keys() for spec in (_default_of(settings), default))
            changed["DefaultResourceSpec"] = default | (_CLEARED if was_set and not is_set else {})
        return changed

    def repetition(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the settings to write, by place, for an update that changes nothing: it can follow one that failed.

        :param document: See :meth:`state`.
        """
        settings = self.target.settings(document)
        given = {place: own for place, own in settings.items() if own}
        # Without any, an empty list is what comes closest.
        return given or {place: {"CustomImages": []} for place in list(settings)[:1]}

    def agrees(self, state: EntryState, other: EntryState) -> bool:
        """
        Return whether two states of one place are equal, apart from the position of the entry.

        :param state: A state.
        :param other: Another state.
        """
        same_default = not self.with_default or (state.default or None) == (other.default or None)
        return state.entry == other.entry and same_default

    def overfull(self, document: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> Failed | None:
        """
        Return why changes are impossible if a list of custom images would have more entries than SageMaker allows.

        :param document: See :meth:`state`.
        :param changes: The result of :meth:`changes`.
        """
        maximum = CUSTOM_IMAGES_MAX[self.target.kind]
        present = self.target.settings(document)
        for place, settings in changes.items():
            count = len(present[place].get("CustomImages", ()))
            if count >= maximum and len(settings.get("CustomImages", ())) > count:
                return Failed(
                    f"the list of custom images in {place} of {self.target} is full: it has {count} entries. Detach an "
                    "image that is not used"
                )
        return None


def _identity_of(entry: Mapping[str, Any]) -> tuple[str, Any]:
    return entry["ImageName"].lower(), entry["AppImageConfigName"]


def other_app_types(config: Mapping[str, Any], app_type: str | None) -> list[str]:
    """
    Return the types of apps that an app image config is for, if it is for none of the given type.

    :param config: The response of DescribeAppImageConfig.
    :param app_type: One of :data:`APP_TYPES`; ``None`` for any.
    """
    types = [each for each in APP_TYPES if config.keys() & {f"{each}ImageConfig", f"{each}AppImageConfig"}]
    return [] if app_type in {None, *types} else types


def update_outcome(document: Mapping[str, Any]) -> Waiting | Failed | None:
    """
    Return the outcome of an update of a domain or a user profile.

    :param document: The response of DescribeDomain or DescribeUserProfile.
    :return: ``None`` if it is InService again; otherwise ``Waiting``, or ``Failed`` with SageMaker's reason.
    """
    status = document["Status"]
    if status == _IN_SERVICE:
        return None
    if status == _UPDATE_FAILED or status in _LOST:
        return Failed(f"the status is {status}: {failure_reason(document)}")
    return Waiting(f"the status is {status}")


def is_update_failed(document: Mapping[str, Any]) -> bool:
    """
    Return whether the last update of a domain or a user profile failed; another update can fix that.

    :param document: The response of DescribeDomain or DescribeUserProfile.
    """
    return bool(document["Status"] == _UPDATE_FAILED)


def updatable(document: Mapping[str, Any]) -> Waiting | Failed | None:
    """
    Return why a domain or a user profile cannot be updated; ``None`` if it can.

    :param document: The response of DescribeDomain or DescribeUserProfile.
    """
    return None if is_update_failed(document) else update_outcome(document)


# --- Compare two versions --------------------------------------------------------------------------------

_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_COMPARED = ("Version", "ImageVersionStatus", "CreationTime", *DETAIL_FIELDS)


def comparison(image_name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """
    Return a Markdown table that compares two versions of an image, with differences in bold and short digests.

    :param image_name: Name of the image.
    :param first: One version's record with details.
    :param second: The other version's record with details.
    """
    rows = [f"| {image_name} | version {first['Version']} | version {second['Version']} |", "|---|---|---|"]
    for name in _COMPARED:
        if name in first or name in second:
            cells = [_cell(version.get(name)) for version in (first, second)]
            label = name if first.get(name) == second.get(name) else f"**{name}**"
            rows.append(f"| {label} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def _cell(value: Any) -> str:
    """Return a value as a table cell, escaped so that it cannot end the cell or start any markup."""
    if value is None or value in ([], ""):
        return ""
    text = ", ".join(value) if isinstance(value, list) else str(value)
    plain = _DIGEST.sub(r"\1", " ".join(text.split())).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"
