"""
What the settings of Amazon SageMaker Studio say about the versions of an image, and how to change it.

Pure, as :mod:`airflow_provider_imageversions.decide` is: the answers of DescribeDomain, DescribeUserProfile,
DescribeSpace and ListApps go in, and what they mean or the settings to write come out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_imageversions.decide import Failed, Waiting, failure_reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

APP_TYPES = ("JupyterLab", "CodeEditor", "KernelGateway")
"""The kinds of apps that a version can be rolled out to."""

CUSTOM_IMAGES_MAX = {"domain": 200, "user_profile": 5}
"""Maximum number of custom images in one list, as SageMaker documents it."""

ABSENT, UNPINNED = "absent", "unpinned"
"""What stands in the place of a number where a list has no entry of the image, or one without a number."""

# What AWS's own settings call the places of one app's settings, by the kind of document.
_PLACES = {
    "domain": ("DefaultUserSettings", "DefaultSpaceSettings", "DomainSettings"),
    "user_profile": ("UserSettings",),
    "space": ("SpaceSettings",),
}
_NOT_RUNNING = {"Deleted", "Failed"}
# Those of a domain and of a user profile.
_IN_SERVICE, _UPDATE_FAILED = "InService", "Update_Failed"
_LOST = {"Deleting", "Failed", "Delete_Failed"}


# --- Who uses which version ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """
    One place in Studio that names an image.

    :param user: What is reported of it: ``kind``, ``domain_id``, ``name`` and so on.
    :param version: The version's number, if it names one.
    :param alias: An alias of the version, if it names that instead. With neither, it stands for the newest CREATED one.
    """

    user: Mapping[str, Any]
    version: int | None = None
    alias: str | None = None


def references(kind: str, document: Mapping[str, Any], image_name: str, image_arn: str) -> Iterator[Reference]:
    """
    Find every place in a document that names an image.

    :param kind: ``domain``, ``user_profile``, ``space`` or ``app``.
    :param document: What describing it answers, or an app of ListApps.
    :param image_name: Name of the image. Case does not matter, nor does it in an ARN.
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
            said = {**user, "app_type": _app_type(path), "setting": ".".join(path)}
            if path[-1] != "CustomImages":
                yield from _reference_of_spec(member, said, image_arn)
                continue
            for entry in member:
                if entry["ImageName"].lower() == image_name.lower():
                    number = entry.get("ImageVersionNumber")
                    yield Reference({**said, "pinned": number is not None}, number)


def _members(settings: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Find the lists of custom images and the resource specs in settings, however deep: AWS adds apps now and then."""
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
    """Read a resource spec, in which the version's ARN comes before the image's ARN and alias."""
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
    Return the members of a resource spec that name a version.

    :param image_arn: ARN of the image.
    :param number: The version's number.
    """
    version_arn = f"{image_arn.lower().replace(':image/', ':image-version/')}/{number}"
    return {"SageMakerImageArn": image_arn, "SageMakerImageVersionArn": version_arn}


def usage(
    found: Iterable[Reference], *, newest: int | None, owners: Mapping[str, int | None], knows_apps: bool
) -> dict[str, list[dict[str, Any]]]:
    """
    Say for each version that is in use by whom.

    :param found: Every reference, in the order in which it is to be reported.
    :param newest: Number of the newest CREATED version, for references without a number.
    :param owners: Number of the version that has each of the aliases that are referred to; ``None`` if none has it.
    :param knows_apps: Whether running apps are among the references.
    :return: By the version's number, as text, in ascending order. ``running`` says whether an app runs with the version
        in that place, and is ``None`` where apps were not read.
    """
    users: dict[int, list[dict[str, Any]]] = {}
    for reference in found:
        number = reference.version if reference.version is not None else newest
        if reference.alias is not None:
            number = owners[reference.alias]
        if number is not None:
            users.setdefault(number, []).append(dict(reference.user))
    for using in users.values():
        apps = {_home_of_app(user) for user in using if user["kind"] == "app"}
        for user in using:
            user["running"] = user["kind"] == "app" or (_home(user) in apps if knows_apps else None)
    return {str(number): users[number] for number in sorted(users)}


def _home_of_app(app: Mapping[str, Any]) -> tuple[Any, ...]:
    kind, name = ("space", app["space_name"]) if "space_name" in app else ("user_profile", app.get("user_profile_name"))
    return (kind, app["domain_id"], name, app["app_type"])


def _home(user: Mapping[str, Any]) -> tuple[Any, ...]:
    return (user["kind"], user["domain_id"], user["name"], user["app_type"])


def describe_users(users: Collection[Mapping[str, Any]], *, shown: int = 5) -> str:
    """
    Name who uses a version, for a log or an error.

    :param users: Of one version in :func:`usage`.
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


def not_following(used: Mapping[str, list[dict[str, Any]]], number: int) -> dict[str, list[dict[str, Any]]]:
    """
    Find what keeps another version although the settings of its domain or profile name a version from now on.

    :param used: What :func:`usage` returned after the roll-out.
    :param number: The version that was rolled out.
    :return: ``apps`` that run with another version, and ``spaces`` whose settings pin one.
    """
    others = [user | {"version": int(key)} for key, users in used.items() if int(key) != number for user in users]
    return {
        "apps": [user for user in others if user["kind"] == "app"],
        "spaces": [user for user in others if user["kind"] == "space" and user["pinned"]],
    }


# --- Roll out, and back ----------------------------------------------------------------------------------


class AmbiguousEntryError(ValueError):
    """A list of custom images has several entries of the image, and it is unclear which one to change."""


@dataclass(frozen=True)
class EntryState:
    """
    What the settings of one app say about an image: enough to put it back.

    :param entry: The image's entry in the list of custom images; ``None`` if it has none.
    :param position: The entry's place in the list.
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
        """Return it as plain JSON, with the version."""
        return {
            "version": self.version,
            "entry": None if self.entry is None else dict(self.entry),
            "position": self.position,
            "default": None if self.default is None else dict(self.default),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EntryState:
        """
        Return what :meth:`to_json` was called on.

        :param values: What it returned.
        """
        return cls(values["entry"], values["position"], values["default"])


def entry_state(settings: Mapping[str, Any], image_name: str, app_image_config_name: str | None) -> EntryState:
    """
    Read what the settings of one app say about an image.

    :param settings: Such as the JupyterLabAppSettings.
    :param image_name: Name of the image.
    :param app_image_config_name: Which entry is meant where there are several of the image.
    :raises AmbiguousEntryError: It does not distinguish them.
    """
    entries = settings.get("CustomImages", ())
    position = _position(entries, image_name, app_image_config_name)
    entry = None if position is None else dict(entries[position])
    default = settings.get("DefaultResourceSpec")
    return EntryState(entry, position, dict(default) if default else None)


def put_entry(
    settings: Mapping[str, Any],
    image_name: str,
    state: EntryState,
    *,
    app_image_config_name: str | None,
    with_default: bool = False,
) -> dict[str, Any]:
    """
    Return the settings of one app with another entry of an image; nothing else in them changes.

    The same function rolls out and rolls back: :func:`entry_state` of the old settings, put into the new ones, gives
    the old ones. Only a missing list and an empty one are the same to it, as are a missing default and an empty one: a
    member that is left out of an update might be kept.

    :param settings: Such as the JupyterLabAppSettings.
    :param image_name: Name of the image.
    :param state: The entry. One that is in the list already is replaced where it is; a new one goes to the state's
        position, or to the end.
    :param app_image_config_name: See :func:`entry_state`.
    :param with_default: Whether to put the state's DefaultResourceSpec, too.
    """
    entries = [dict(entry) for entry in settings.get("CustomImages", ())]
    position = _position(entries, image_name, app_image_config_name)
    if position is not None and state.entry is not None:
        entries[position] = dict(state.entry)
    elif position is not None:
        del entries[position]
    elif state.entry is not None:
        entries.insert(len(entries) if state.position is None else state.position, dict(state.entry))
    changed = {**settings, "CustomImages": entries}
    if with_default:
        changed["DefaultResourceSpec"] = dict(state.default or {})
    return changed


def _position(entries: Iterable[Mapping[str, Any]], image_name: str, app_image_config_name: str | None) -> int | None:
    own = [(i, entry) for i, entry in enumerate(entries) if entry["ImageName"].lower() == image_name.lower()]
    if len(own) > 1:
        own = [(i, entry) for i, entry in own if entry["AppImageConfigName"] == app_image_config_name]
        if len(own) != 1:
            raise AmbiguousEntryError(
                f"The list of custom images has several entries of image {image_name!r}, of which {len(own)} have "
                f"app_image_config_name={app_image_config_name!r}. Detach all but one of them, or name the app image "
                "config of the one to change."
            )
    return own[0][0] if own else None


def wanted_state(before: EntryState, entry: Mapping[str, Any], spec: Mapping[str, Any] | None) -> EntryState:
    """
    Return the state to put for a roll-out.

    :param before: The state before.
    :param entry: The image's new entry.
    :param spec: What the DefaultResourceSpec is to name; its other members, such as the instance type, stay.
    """
    default = before.default
    if spec is not None:
        kept = {key: value for key, value in (default or {}).items() if key not in _IMAGE_OF_SPEC}
        default = {**kept, **spec}
    return replace(before, entry=entry, default=default)


_IMAGE_OF_SPEC = {"SageMakerImageArn", "SageMakerImageVersionArn", "SageMakerImageVersionAlias"}


@dataclass(frozen=True)
class RolloutTarget:
    """
    The settings that a roll-out changes.

    :param domain_id: The domain.
    :param app_type: One of :data:`APP_TYPES`.
    :param user_profile_name: The user profile; ``None``: the domain's default settings.
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
        """The member that has the settings of the app."""
        return f"{self.app_type}AppSettings"

    @property
    def identity(self) -> dict[str, str]:
        """The members of a call that name the domain or the user profile."""
        profile = {} if self.user_profile_name is None else {"UserProfileName": self.user_profile_name}
        return {"DomainId": self.domain_id, **profile}

    def __str__(self) -> str:
        profile = "" if self.user_profile_name is None else f"user profile {self.user_profile_name!r} of "
        return f"{profile}domain {self.domain_id!r}"

    def settings(self, document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """
        Return the settings of the app in every place of a document that has such settings.

        A domain's default space settings count only where it has them, and where SageMaker's model has the app.

        :param document: What DescribeDomain or DescribeUserProfile answers.
        """
        places = {"user_profile": ["UserSettings"], "domain": ["DefaultUserSettings"]}[self.kind]
        if self.kind == "domain" and self.app_type in _IN_SPACE_SETTINGS and document.get("DefaultSpaceSettings"):
            places.append("DefaultSpaceSettings")
        return {place: dict(document.get(place, {}).get(self.app_settings, {})) for place in places}

    def request(self, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """
        Return the members of UpdateDomain or UpdateUserProfile that write settings of the app, and nothing else.

        :param settings: By the place, as of :meth:`settings`.
        """
        return {**self.identity, **{place: {self.app_settings: dict(own)} for place, own in settings.items()}}


_IN_SPACE_SETTINGS = {"JupyterLab", "KernelGateway"}


@dataclass(frozen=True)
class Rollout:
    """
    What a roll-out, or a roll-back, makes of settings.

    :param image_name: Name of the image.
    :param target: Whose settings.
    :param app_image_config_name: The app image config of the entry; it also distinguishes several entries of an image.
    :param number: The version; ``None`` for a roll-back.
    :param spec: What the DefaultResourceSpec is to name; ``None``: it stays.
    :param restore: What to put back, by the place, as of an earlier :meth:`state`.
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

    def state(self, document: Mapping[str, Any]) -> dict[str, EntryState]:
        """
        Return what a document says about the image now, by the place.

        :param document: What DescribeDomain or DescribeUserProfile answers.
        """
        return {
            place: entry_state(settings, self.image_name, self.app_image_config_name)
            for place, settings in self.target.settings(document).items()
        }

    def wanted(self, document: Mapping[str, Any]) -> dict[str, EntryState]:
        """
        Return what the document is to say about the image.

        :param document: See :meth:`state`.
        """
        before = self.state(document)
        if self.number is None:
            return {place: self.restore.get(place, state) for place, state in before.items()}
        entry = {
            "ImageName": self.image_name,
            "ImageVersionNumber": self.number,
            "AppImageConfigName": self.app_image_config_name,
        }
        return {place: wanted_state(state, entry, self.spec) for place, state in before.items()}

    def changes(self, document: Mapping[str, Any], wanted: Mapping[str, EntryState] | None = None) -> dict[str, Any]:
        """
        Return the settings to write, by the place; empty if they are as they should be.

        :param document: See :meth:`state`.
        :param wanted: What it is to say about the image. (default: that of :meth:`wanted`)
        """
        wanted = self.wanted(document) if wanted is None else wanted
        before = self.state(document)
        return {
            place: put_entry(
                settings,
                self.image_name,
                wanted[place],
                app_image_config_name=self.app_image_config_name,
                with_default=self.with_default,
            )
            for place, settings in self.target.settings(document).items()
            if not self.agrees(before[place], wanted[place])
        }

    def agrees(self, state: EntryState, other: EntryState) -> bool:
        """
        Return whether two states of one place are the same, the entry's position aside.

        :param state: One.
        :param other: The other.
        """
        same_default = not self.with_default or (state.default or None) == (other.default or None)
        return state.entry == other.entry and same_default

    def overfull(self, changes: Mapping[str, Mapping[str, Any]]) -> str | None:
        """
        Return the place whose list of custom images would have more entries than SageMaker allows; ``None`` if none.

        :param changes: What :meth:`changes` returned.
        """
        maximum = CUSTOM_IMAGES_MAX[self.target.kind]
        return next((place for place, own in changes.items() if len(own["CustomImages"]) > maximum), None)


def highest_pinned(states: Mapping[str, EntryState], newest: int | None) -> int | None:
    """
    Return the highest version that settings name, an entry without a number counting as the newest CREATED one.

    :param states: What :meth:`Rollout.state` returned.
    :param newest: Number of the newest CREATED version.
    """
    numbers = [newest if state.version == UNPINNED else state.version for state in states.values()]
    return max((number for number in numbers if isinstance(number, int)), default=None)


def update_outcome(document: Mapping[str, Any]) -> Waiting | Failed | None:
    """
    Say whether a domain or a user profile is InService again after an update.

    :param document: What DescribeDomain or DescribeUserProfile answers.
    :return: ``Failed`` with SageMaker's reason, or ``Waiting``; ``None``: it is InService.
    """
    status = document["Status"]
    if status == _IN_SERVICE:
        return None
    if status == _UPDATE_FAILED or status in _LOST:
        return Failed(f"the status is {status}: {failure_reason(document)}")
    return Waiting(f"the status is {status}")


def is_update_failed(document: Mapping[str, Any]) -> bool:
    """
    Return whether the last update of a domain or a user profile failed, which the next one can put right.

    :param document: What DescribeDomain or DescribeUserProfile answers.
    """
    return bool(document["Status"] == _UPDATE_FAILED)


def updatable(document: Mapping[str, Any]) -> Waiting | Failed | None:
    """
    Return what keeps a domain or a user profile from being updated; ``None``: nothing.

    :param document: What DescribeDomain or DescribeUserProfile answers.
    """
    status = document["Status"]
    if status in {_IN_SERVICE, _UPDATE_FAILED}:
        return None
    if status in _LOST:
        return Failed(f"the status is {status}: {failure_reason(document)}")
    return Waiting(f"the status is {status}")


# --- Compare two versions --------------------------------------------------------------------------------

_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_COMPARED = (
    "Version",
    "ImageVersionStatus",
    "CreationTime",
    "Aliases",
    "BaseImage",
    "ContainerImage",
    "MLFramework",
    "ProgrammingLang",
    "Processor",
    "JobType",
    "VendorGuidance",
    "Horovod",
    "ReleaseNotes",
)


def comparison(image_name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """
    Compare two versions of an image as a table in Markdown, with what differs in bold and short digests.

    :param image_name: Name of the image.
    :param first: One version's record with details.
    :param second: The other's.
    """
    rows = [f"| {image_name} | version {first['Version']} | version {second['Version']} |", "|---|---|---|"]
    for name in _COMPARED:
        if name in first or name in second:
            cells = [_cell(version.get(name)) for version in (first, second)]
            label = name if first.get(name) == second.get(name) else f"**{name}**"
            rows.append(f"| {label} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def _cell(value: Any) -> str:
    """Write a value into a cell of a table, where it must not end the cell or begin any markup."""
    if value is None or value in ([], ""):
        return ""
    text = ", ".join(value) if isinstance(value, list) else str(value)
    plain = _DIGEST.sub(r"\1", " ".join(text.split())).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"
