from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_imageversions import studio
from airflow_provider_imageversions.decide import Failed, Waiting, newest_created, prune
from airflow_provider_imageversions.model import PrunePolicy
from airflow_provider_imageversions.studio import AmbiguousEntryError, EntryState, Rollout, RolloutTarget
from tests.decision_table import at, versions
from tests.studio import custom_image, spec

ARN = "arn:aws:sagemaker:us-east-1:123456789012:image/churn"
DOMAIN = "d-1"
VERSION_ARN = "SageMakerImageVersionArn"
IMAGES = ("churn", "Other", "third", "fourth")

entries = st.builds(
    custom_image, st.sampled_from(IMAGES), st.none() | st.integers(0, 9), st.sampled_from(["config-1", "config-2"])
)
lists = st.lists(entries, max_size=6, unique_by=lambda entry: entry["ImageName"])
specs = st.fixed_dictionaries(
    {},
    optional={
        "SageMakerImageArn": st.sampled_from([ARN, ARN.replace("churn", "other")]),
        "SageMakerImageVersionArn": st.builds(
            lambda n: f"{ARN.replace(':image/', ':image-version/')}/{n}", st.integers(1, 9)
        ),
        "SageMakerImageVersionAlias": st.sampled_from(["1.0.0", "2"]),
        "InstanceType": st.just("ml.t3.medium"),
        "LifecycleConfigArn": st.just("arn:aws:sagemaker:us-east-1:123456789012:studio-lifecycle-config/x"),
    },
)
# Members that this package does not know are preserved, too.
other_members = st.dictionaries(
    st.sampled_from(["LifecycleConfigArns", "CodeRepositories", "EmrSettings", "NewMember"]),
    st.lists(st.sampled_from("ab"), max_size=2) | st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2),
)


@st.composite
def app_settings(draw, custom_images=lists):
    settings = draw(other_members)
    if draw(st.booleans()):
        settings["CustomImages"] = draw(custom_images)
    if draw(st.booleans()):
        settings["DefaultResourceSpec"] = draw(specs)
    return settings


@st.composite
def documents(draw, custom_images=lists):
    """What DescribeDomain answers."""
    document = {"DomainId": DOMAIN, "DomainName": "team", "Status": "InService", "VpcId": "vpc-1"}
    for place in ("DefaultUserSettings", "DefaultSpaceSettings"):
        if place == "DefaultUserSettings" or draw(st.booleans()):
            document[place] = {"ExecutionRole": "role", "SecurityGroups": ["sg-1"]}
            for app in ("JupyterLab", "CodeEditor", "KernelGateway"):
                if draw(st.booleans()) and (app != "CodeEditor" or place == "DefaultUserSettings"):
                    document[place][f"{app}AppSettings"] = draw(app_settings(custom_images))
    return document


def rollouts(*images):
    return st.builds(
        lambda image_name, app, number, config, default: Rollout(
            image_name,
            RolloutTarget(DOMAIN, app),
            config,
            number,
            studio.resource_spec(ARN.replace("churn", image_name.lower()), number) if default else None,
        ),
        st.sampled_from(images or IMAGES),
        st.sampled_from(studio.APP_TYPES),
        st.integers(1, 9),
        st.sampled_from(["config-1", "config-2"]),
        st.booleans(),
    )


def written(document, rollout, changes):
    """The document after an update that replaces the settings of one app, as SageMaker's does."""
    after = copy.deepcopy(document)
    for place, settings in rollout.target.request(changes).items():
        if place == "DomainId":
            continue
        new = copy.deepcopy(settings)
        for app, own in new.items():
            if "DefaultResourceSpec" in own:
                # What the request leaves out stays, and "None" removes it.
                old = after.get(place, {}).get(app, {}).get("DefaultResourceSpec", {})
                arn = own["DefaultResourceSpec"].pop(VERSION_ARN, old.get(VERSION_ARN, "None"))
                own["DefaultResourceSpec"] |= {} if arn == "None" else {VERSION_ARN: arn}
        after.setdefault(place, {}).update(new)
    return after


def normal(document):
    """Without lists and specs that are empty, which are the same as none, and settings of apps without anything."""
    result = copy.deepcopy(document)
    for place in ("DefaultUserSettings", "DefaultSpaceSettings"):
        for app, settings in list(result.get(place, {}).items()):
            if app.endswith("AppSettings"):
                for member in ("CustomImages", "DefaultResourceSpec"):
                    if not settings.get(member, True):
                        del settings[member]
                if not settings:
                    del result[place][app]
    return result


def others(document, rollout):
    """All of a document but what a roll-out may change."""
    rest = normal(document)
    for place in rollout.target.settings(document):
        settings = rest.get(place, {}).get(rollout.target.app_settings)
        if settings is None:
            continue
        settings["CustomImages"] = [
            entry
            for entry in settings.get("CustomImages", [])
            if entry["ImageName"].lower() != rollout.image_name.lower()
        ]
        if rollout.with_default:
            kept = {k: v for k, v in settings.get("DefaultResourceSpec", {}).items() if not k.startswith("SageMaker")}
            settings["DefaultResourceSpec"] = kept
    return normal(rest)


@given(documents(), rollouts())
def test_a_rollout_changes_one_entry(document, rollout):
    before = copy.deepcopy(document)
    after = written(document, rollout, rollout.changes(document))
    assert document == before
    assert others(after, rollout) == others(before, rollout)
    for place, state in rollout.state(after).items():
        assert state.entry == custom_image(rollout.image_name, rollout.number, rollout.app_image_config_name)
        if rollout.spec is not None:
            assert state.default.items() >= rollout.spec.items()
            assert "SageMakerImageVersionAlias" not in state.default
        old = rollout.state(before)[place]
        assert old.position in {None, state.position}
    assert rollout.changes(after) == {}


def rollback_of(rollout, states):
    restore = {place: EntryState.from_json(state.to_json()) for place, state in states.items()}
    return Rollout(
        rollout.image_name,
        rollout.target,
        rollout.app_image_config_name,
        restore=restore,
        restores_default=rollout.with_default,
    )


@given(documents(), rollouts())
def test_a_rollout_and_then_its_rollback_change_nothing(document, rollout):
    before = rollout.state(document)
    after = written(document, rollout, rollout.changes(document))
    back = rollback_of(rollout, before)
    assert normal(written(after, back, back.changes(after))) == normal(document)


@given(documents(), rollouts())
def test_an_update_and_then_its_undoing_change_nothing(document, rollout):
    """Of a roll-out, and of its roll-back."""
    for forward in (rollout, rollback_of(rollout, rollout.state(document))):
        before = forward.state(document)
        after = written(document, forward, forward.changes(document))
        assert normal(written(after, forward, forward.undo(after, before))) == normal(document)
        document = written(document, rollout, rollout.changes(document))


@given(documents(), rollouts(), rollouts())
def test_a_rollback_leaves_a_rollout_of_another_image_alone(document, rollout, other):
    if other.image_name == rollout.image_name:
        return
    before = rollout.state(document)
    after = written(document, rollout, rollout.changes(document))
    both = written(after, other, other.changes(after))
    back = rollback_of(rollout, before)
    reverted = written(both, back, back.changes(both))
    assert other.changes(reverted) == {}
    assert {place: state.entry for place, state in rollout.state(reverted).items()} == {
        place: state.entry for place, state in before.items()
    }


class Domain:
    """UpdateDomain like SageMaker's: no compare-and-set, and one update at a time, each of which takes some steps."""

    UPDATING = 6

    def __init__(self, document):
        self.document = document
        self.busy_until = 0
        self.now = 0

    def is_updating(self):
        return self.now < self.busy_until


def roll_out(domain, rollout):
    """The steps of a roll-out as the operator takes them, each ``yield`` being a moment at which others have a turn."""
    while True:
        while domain.is_updating():
            yield
        read = copy.deepcopy(domain.document)
        yield
        changes = rollout.changes(read)
        if not changes:
            return
        if domain.is_updating():  # ResourceInUse: what was read is out of date
            continue
        domain.document = written(domain.document, rollout, changes)
        domain.busy_until = domain.now + Domain.UPDATING
        yield


@given(documents(), rollouts("churn"), rollouts(*IMAGES[1:]), st.randoms(use_true_random=False))
def test_two_rollouts_of_different_images_at_once_lose_neither(document, first, second, chance):
    """However their steps are interleaved, unless one sleeps through the other's whole update before it writes."""
    if first.with_default and second.with_default:
        return
    domain = Domain(copy.deepcopy(document))
    running, late = [roll_out(domain, first), roll_out(domain, second)], None
    while running:
        domain.now += 1
        # Both in either order, or one of them, which is not the same one twice in a row.
        order = sorted(running, key=lambda _: chance.random())
        late = None if late is not None or chance.random() < 0.5 else order.pop()
        for steps in order:
            if next(steps, "done") == "done":
                running.remove(steps)
    assert first.changes(domain.document) == second.changes(domain.document) == {}
    # Nothing else was lost, either.
    assert others(others(domain.document, first), second) == others(others(document, first), second)


@pytest.mark.parametrize(
    ("now", "after"),
    [
        (
            {"SageMakerImageArn": ARN, **spec("churn", 9), "InstanceType": "new"},
            {**spec("churn", 1), "InstanceType": "new"},
        ),
        ({"SageMakerImageArn": ARN.upper()}, spec("churn", 1)),
        (spec("churn2", 9), spec("churn2", 9)),
        ({"SageMakerImageArn": ARN, **spec("other", 9)}, {"SageMakerImageArn": ARN, **spec("other", 9)}),
        ({"InstanceType": "new"}, {"InstanceType": "new"}),
    ],
)
def test_a_rollback_restores_only_the_image_of_a_default_that_still_has_it(now, after):
    old = EntryState(default={**spec("churn", 1), "InstanceType": "old"})
    target = RolloutTarget(DOMAIN, "JupyterLab")
    back = Rollout("churn", target, None, restore={"DefaultUserSettings": old}, restores_default=True)
    document = {"DefaultUserSettings": {"JupyterLabAppSettings": {"DefaultResourceSpec": now}}}
    document = written(document, back, back.changes(document))
    assert document["DefaultUserSettings"]["JupyterLabAppSettings"]["DefaultResourceSpec"] == after
    assert back.kept_defaults(document) == (
        [] if after.items() >= spec("churn", 1).items() else ["DefaultUserSettings"]
    )


def test_the_newest_entry_of_several_is_chosen_by_its_config():
    images = [custom_image("churn", 1, "a"), custom_image("x"), custom_image("Churn", 2, "b")]
    document = {"UserSettings": {"JupyterLabAppSettings": {"CustomImages": images}}}
    rollout = Rollout("churn", RolloutTarget(DOMAIN, "JupyterLab", "ann"), "b", 3)
    state = rollout.state(document)["UserSettings"]
    assert (state.version, state.position) == (2, 2)
    changed = rollout.changes(document)["UserSettings"]
    assert changed["CustomImages"] == [*images[:2], custom_image("churn", 3, "b")]


@pytest.mark.parametrize("configs", [("a", "a"), ("b", "b")])
def test_ambiguous_entries_are_rejected(configs):
    images = [custom_image("churn", number, config) for number, config in enumerate(configs)]
    document = {"UserSettings": {"JupyterLabAppSettings": {"CustomImages": images}}}
    rollout = Rollout("churn", RolloutTarget(DOMAIN, "JupyterLab", "ann"), "a", 3)
    with pytest.raises(
        AmbiguousEntryError, match=r"several entries of image 'churn', of which . have app_image_config"
    ):
        rollout.state(document)


@pytest.mark.parametrize(
    ("entry", "version"), [(None, "absent"), (custom_image("churn"), "unpinned"), (custom_image("churn", 4), 4)]
)
def test_a_state_says_what_was_there(entry, version):
    state = EntryState(entry, None if entry is None else 0)
    assert state.to_json()["version"] == state.version == version
    assert EntryState.from_json(state.to_json()) == state


def test_space_settings_are_those_that_the_model_and_the_domain_have():
    document = {"DefaultUserSettings": {}, "DefaultSpaceSettings": {"ExecutionRole": "role"}}
    places = {app: list(RolloutTarget(DOMAIN, app).settings(document)) for app in studio.APP_TYPES}
    both = ["DefaultUserSettings", "DefaultSpaceSettings"]
    assert places == {"JupyterLab": both, "CodeEditor": both[:1], "KernelGateway": both}
    assert list(RolloutTarget(DOMAIN, "JupyterLab").settings({"DefaultUserSettings": {}})) == both[:1]
    assert list(RolloutTarget(DOMAIN, "JupyterLab", "ann").settings({"UserSettings": {}})) == ["UserSettings"]


def test_app_settings_that_a_rollout_can_change_are_in_the_model_of_the_service():
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    for app in studio.APP_TYPES:
        name = RolloutTarget(DOMAIN, app).app_settings
        in_spaces = name in model.shape_for("DefaultSpaceSettings").members
        assert {"CustomImages", "DefaultResourceSpec"} <= model.shape_for("UserSettings").members[name].members.keys()
        assert in_spaces == (app in studio._IN_SPACE_SETTINGS)
    assert model.shape_for("CustomImages").metadata["max"] == studio.CUSTOM_IMAGES_MAX["domain"]


@pytest.mark.parametrize(("kind", "profile", "maximum"), [("domain", None, 200), ("user_profile", "ann", 5)])
def test_a_list_that_is_full_is_noticed(kind, profile, maximum):
    place = "UserSettings" if profile else "DefaultUserSettings"

    def document(count, *more):
        images = [*(custom_image(f"image-{number}") for number in range(count)), *more]
        return {place: {"JupyterLabAppSettings": {"CustomImages": images}}}

    rollout = Rollout("churn", RolloutTarget(DOMAIN, "JupyterLab", profile), "config", 1)
    assert rollout.target.kind == kind

    def overfull(document):
        return rollout.overfull(document, rollout.changes(document))

    assert overfull(document(maximum - 1)) is None
    for count in (maximum, maximum + 1):
        assert f"in {place} of {rollout.target} is full: it has {count} entries" in overfull(document(count)).reason
    assert overfull(document(maximum + 1, custom_image("churn", 2))) is None


@pytest.mark.parametrize(
    ("status", "outcome", "obstacle"),
    [
        ("InService", None, None),
        ("Update_Failed", Failed, None),
        ("Updating", Waiting, Waiting),
        ("Pending", Waiting, Waiting),
        ("Deleting", Failed, Failed),
        ("Failed", Failed, Failed),
        ("Delete_Failed", Failed, Failed),
        ("Frozen", Waiting, Waiting),
    ],
)
def test_what_a_status_of_a_domain_means(status, outcome, obstacle):
    for found, expected in (
        (studio.update_outcome({"Status": status}), outcome),
        (studio.updatable({"Status": status}), obstacle),
    ):
        assert found is None if expected is None else isinstance(found, expected)


# Who uses which version


def document_of(kind, settings):
    place = {"domain": "DefaultUserSettings", "user_profile": "UserSettings", "space": "SpaceSettings"}[kind]
    names = {"DomainName": "team", "UserProfileName": "ann", "SpaceName": "notes"}
    return {"DomainId": DOMAIN, **names, place: settings}


@pytest.mark.parametrize("kind", ["domain", "user_profile", "space"])
@pytest.mark.parametrize("app", ["JupyterLab", "CodeEditor", "KernelGateway", "RSession", "Invented"])
@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"CustomImages": [custom_image("churn", 8)]}, (8, None, True)),
        ({"CustomImages": [custom_image("Churn", 0)]}, (0, None, True)),
        ({"CustomImages": [custom_image("churn")]}, (None, None, False)),
        ({"CustomImages": [custom_image("other", 8)]}, None),
        ({"DefaultResourceSpec": spec("churn", 7)}, (7, None, True)),
        ({"DefaultResourceSpec": spec("other", 7)}, None),
        ({"DefaultResourceSpec": {"SageMakerImageArn": ARN}}, (None, None, False)),
        ({"DefaultResourceSpec": {"SageMakerImageArn": ARN, "SageMakerImageVersionAlias": "1.0"}}, (None, "1.0", True)),
        ({"DefaultResourceSpec": {"SageMakerImageArn": ARN, **spec("other", 3)}}, None),
        ({"DefaultResourceSpec": {"SageMakerImageArn": ARN, "SageMakerImageVersionArn": "None"}}, (None, None, False)),
        ({"DefaultResourceSpec": {"InstanceType": "system"}}, None),
        ({"Nested": {"NewResourceSpec": spec("churn", 5)}}, (5, None, True)),
    ],
)
def test_every_place_that_names_the_image_is_found(kind, app, settings, found):
    document = document_of(kind, {"ExecutionRole": "role", f"{app}AppSettings": settings})
    references = list(studio.references(kind, document, "churn", ARN))
    assert [(r.version, r.alias, r.user["pinned"]) for r in references] == ([] if found is None else [found])
    assert all((r.user["kind"], r.user["app_type"]) == (kind, app) for r in references)


@pytest.mark.parametrize("status", ["InService", "Pending", "Deleting", "Frozen", "Deleted", "Failed"])
def test_apps_count_unless_they_are_deleted_or_failed(status):
    app = {"DomainId": DOMAIN, "AppName": "default", "AppType": "JupyterLab", "SpaceName": "notes", "Status": status}
    found = list(studio.references("app", {**app, "ResourceSpec": spec("churn", 4)}, "churn", ARN))
    assert [reference.version for reference in found] == ([] if status in {"Deleted", "Failed"} else [4])


def test_a_version_of_the_same_name_in_another_account_is_another():
    elsewhere = {"SageMakerImageVersionArn": spec("churn", 4)["SageMakerImageVersionArn"].replace("1234", "4321")}
    document = document_of("space", {"JupyterLabAppSettings": {"DefaultResourceSpec": elsewhere}})
    assert list(studio.references("space", document, "churn", ARN)) == []


def test_usage_says_who_uses_which_version_and_whether_it_runs():
    domain = document_of("domain", {"JupyterLabAppSettings": {"CustomImages": [custom_image("churn")]}})
    notes = document_of("space", {"JupyterLabAppSettings": {"DefaultResourceSpec": spec("churn", 8)}})
    app = {
        "DomainId": DOMAIN,
        "AppName": "default",
        "AppType": "JupyterLab",
        "SpaceName": "notes",
        "Status": "InService",
    }
    app["ResourceSpec"] = spec("churn", 8)
    found = [
        reference
        for kind, document in (("domain", domain), ("app", app), ("space", notes))
        for reference in studio.references(kind, document, "churn", ARN)
    ]
    used = studio.usage(found, newest=12, owners={}, knows_apps=True)
    assert list(used) == ["8", "12"]
    assert used["12"] == [
        {
            "kind": "domain",
            "domain_id": DOMAIN,
            "name": "team",
            "app_type": "JupyterLab",
            "setting": "DefaultUserSettings.JupyterLabAppSettings.CustomImages",
            "pinned": False,
            "running": False,
        }
    ]
    assert [(user["kind"], user["pinned"], user["running"]) for user in used["8"]] == [
        ("app", True, True),
        ("space", True, True),
    ]
    unknown = studio.usage([found[0], found[2]], newest=12, owners={}, knows_apps=False)
    assert [user["running"] for users in unknown.values() for user in users] == [None, None]
    assert studio.describe_users(used["8"]) == (
        "app default of space notes in domain d-1 (JupyterLab), space notes in domain d-1 (JupyterLab)"
    )
    lab = RolloutTarget(DOMAIN, "JupyterLab")
    left = studio.not_following(used, lab, 12)
    assert {kind: [user["version"] for user in users] for kind, users in left.items()} == {
        "app": [8],
        "space": [8],
        "user_profile": [],
    }
    assert not any(studio.not_following(used, lab, 8).values())
    assert not any(studio.not_following(used, RolloutTarget(DOMAIN, "CodeEditor"), 12).values())


def test_an_alias_is_resolved_and_one_that_no_version_has_is_a_use_of_the_image():
    specs_ = [{"SageMakerImageArn": ARN, "SageMakerImageVersionAlias": alias} for alias in ("1.0.0", "2.0.0")]
    settings = {f"{n}AppSettings": {"DefaultResourceSpec": s} for n, s in zip("AB", specs_, strict=True)}
    found = list(studio.references("domain", document_of("domain", settings), "churn", ARN))
    used = studio.usage(found, newest=9, owners={"1.0.0": 3, "2.0.0": None}, knows_apps=True)
    assert {number: [user["setting"] for user in users] for number, users in used.items()} == {
        "3": ["DefaultUserSettings.AAppSettings.DefaultResourceSpec"],
        "none": ["DefaultUserSettings.BAppSettings.DefaultResourceSpec"],
    }
    assert all("running" in user for users in used.values() for user in users)
    assert not any(studio.not_following(used, RolloutTarget(DOMAIN, "A"), 3).values())


def test_a_comparison_is_a_table_in_which_nothing_ends_a_cell():
    first = {"Version": 1, "BaseImage": "a|b", "ReleaseNotes": "one\n\n`two`", "Aliases": []}
    second = {**first, "Version": 2, "ReleaseNotes": "three", "Aliases": ["prod", "1.0"]}
    first["ContainerImage"], second["ContainerImage"] = (f"churn@sha256:{digit * 64}" for digit in "1f")
    assert studio.comparison("churn", first, second).splitlines() == [
        "| churn | version 1 | version 2 |",
        "|---|---|---|",
        "| **Version** | `1` | `2` |",
        r"| BaseImage | `a\|b` | `a\|b` |",
        f"| **ContainerImage** | `churn@sha256:{'1' * 12}` | `churn@sha256:{'f' * 12}` |",
        "| **Aliases** |  | `prod, 1.0` |",
        "| **ReleaseNotes** | `one 'two'` | `three` |",
    ]


def test_many_names_are_shortened():
    users = [{"kind": "space", "domain_id": DOMAIN, "name": str(n), "app_type": "JupyterLab"} for n in range(9)]
    random.Random(1).shuffle(users)  # noqa: S311  # an order that is not that of the names
    assert studio.describe_users(users, shown=2).endswith(" and 7 more")


# Pruning


def random_account(chance):
    """Versions of an image, and documents in which anything may name any of them."""
    numbers = sorted(chance.sample(range(1, 60), chance.randint(1, 25)))
    statuses = ["CREATED", "CREATED", "CREATED", "CREATE_FAILED"]
    listed = versions(" ".join(f"{number}:{chance.choice(statuses)}" for number in numbers))

    def settings():
        chosen = {}
        for app in chance.sample(["JupyterLab", "CodeEditor", "KernelGateway", "RSession"], chance.randint(0, 4)):
            images = [
                custom_image(chance.choice(["churn", "Churn", "other"]), chance.choice([None, *numbers]), f"config-{n}")
                for n in range(chance.randint(0, 3))
            ]
            chosen[f"{app}AppSettings"] = {"CustomImages": images, "DefaultResourceSpec": resource_spec()}
        return chosen

    def resource_spec():
        number = chance.choice(numbers)
        return chance.choice(
            [
                {},
                spec("churn", number),
                spec("other", number),
                {"SageMakerImageArn": ARN},
                {"SageMakerImageArn": ARN, "SageMakerImageVersionAlias": f"{number}.0"},
            ]
        )

    documents = []
    for index in range(chance.randint(1, 4)):
        common = {"DomainId": f"d-{index}", "DomainName": "team", "UserProfileName": "ann", "SpaceName": "notes"}
        documents.append(("domain", {**common, "DefaultUserSettings": settings(), "DefaultSpaceSettings": settings()}))
        documents.append(("user_profile", {**common, "UserSettings": settings()}))
        documents.append(("space", {**common, "SpaceSettings": settings()}))
        app = {**common, "AppName": "default", "AppType": "JupyterLab", "ResourceSpec": resource_spec()}
        documents.append(("app", {**app, "Status": chance.choice(["InService", "Pending", "Deleting", "Deleted"])}))
    return listed, documents


def named_by(documents, listed):
    """By another way than the package's: every version that any document names, in words of its JSON."""
    newest = max((v["Version"] for v in listed if v["ImageVersionStatus"] == "CREATED"), default=None)
    found = set()

    def names(value):
        if str(value.get("ImageName", "")).lower() == "churn":
            return value.get("ImageVersionNumber", newest)
        if "image-version/churn/" in value.get("SageMakerImageVersionArn", ""):
            return int(value["SageMakerImageVersionArn"].split("/")[-1])
        if "image/churn" in value.get("SageMakerImageArn", ""):
            alias = value.get("SageMakerImageVersionAlias")
            return newest if alias is None else int(alias.split(".")[0])
        return None

    def look(value):
        if isinstance(value, dict):
            found.add(names(value))
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(item)

    for _, document in documents:
        if document.get("Status") != "Deleted":
            look(document)
    return found - {None}


@pytest.mark.parametrize("part", range(10))
def test_pruning_never_deletes_what_anything_names_in_1000_random_accounts(part):
    deleted_some = kept_some = 0
    for seed in range(part * 100, part * 100 + 100):
        chance = random.Random(seed)  # noqa: S311  # the same accounts each time
        listed, documents = random_account(chance)
        found = [r for kind, document in documents for r in studio.references(kind, document, "churn", ARN)]
        aliases = {r.alias for r in found if r.alias is not None}
        used = studio.usage(
            found,
            newest=newest_created(listed),
            owners={alias: int(alias.split(".")[0]) for alias in aliases},
            knows_apps=True,
        )
        policy = PrunePolicy(keep_newest=chance.randint(0, 3), limit=chance.choice([None, 5]))
        verdicts = list(
            prune(listed, policy, now=at(100), aliases_of=lambda _: [], is_used=lambda n, used=used: str(n) in used)
        )
        deleted = {version["Version"] for version, reason in verdicts if reason is None}
        kept = {version["Version"] for version, reason in verdicts if reason == "used"}
        named = named_by(documents, listed)
        assert not deleted & named, seed
        assert kept <= named, seed
        deleted_some += bool(deleted)
        kept_some += bool(kept)
    assert min(deleted_some, kept_some) > 20
