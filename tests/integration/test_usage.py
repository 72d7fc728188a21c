"""Who uses which version: over HTTP, with what it costs."""

from __future__ import annotations

import logging

import pytest
from botocore.exceptions import ClientError, PaginationError

from airflow_provider_imageversions import usage
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from tests.studio import ROLE, custom_image, spec

IMAGE = "churn"
FAST = {"calls_per_second": 1000}


@pytest.fixture
def hook(connection):
    return SageMakerImageVersionsHook()


@pytest.fixture
def said(capsys, caplog):
    """What is in the log, wherever this Airflow writes it."""
    caplog.set_level(logging.INFO, logger="airflow_provider_imageversions")
    caplog.set_level(logging.INFO, logger="airflow.task")

    def text():
        out, err = capsys.readouterr()
        return f"{out}\n{err}\n{caplog.text}"

    return text


def lab(*images, default=None):
    settings = {"CustomImages": list(images)} if images else {}
    return {"JupyterLabAppSettings": settings | ({} if default is None else {"DefaultResourceSpec": default})}


def brief(used):
    return {
        number: sorted((user["kind"], user["name"], user["pinned"], user["running"]) for user in users)
        for number, users in used.items()
    }


@pytest.fixture
def account(studio):
    """A domain in which each kind of resource uses another version of the image."""
    studio.image(IMAGE, 9, aliases={7: ["1.0.0"]})
    domain = studio.domain(
        **lab(custom_image(IMAGE, 1), custom_image("other", 2)),
        space_settings=lab(custom_image(IMAGE)),
    )
    alias = {
        "SageMakerImageArn": f"arn:aws:sagemaker:us-east-1:123456789012:image/{IMAGE}",
        "SageMakerImageVersionAlias": "1.0.0",
    }
    studio.profile(domain, "ann", CodeEditorAppSettings={"DefaultResourceSpec": alias})
    studio.space(domain, "notes", **lab(default=spec(IMAGE, 5)))
    studio.space(domain, "other", **lab(default=spec("other", 5)))
    studio.app(domain, space="notes")
    studio.app(domain, space="other", spec=spec(IMAGE, 4))
    studio.client.delete_app(**studio.app(domain, space="other", spec=spec(IMAGE, 3), name="gone"))
    return domain


def test_every_kind_of_user_is_found(account, hook):
    assert brief(hook.find_image_version_usage(IMAGE, **FAST)) == {
        "1": [("domain", "team", True, False)],
        "4": [("app", "default", True, True)],
        "5": [("app", "default", True, True), ("space", "notes", True, True)],
        "7": [("user_profile", "ann", True, False)],
        "9": [("domain", "team", False, False)],
    }


@pytest.mark.parametrize(
    ("scope", "versions"),
    [
        ("domains", ["1", "9"]),
        (["apps"], ["4", "5"]),
        ("spaces, user_profiles", ["5", "7"]),
    ],
)
def test_the_scope_is_what_is_read(account, hook, emulator, scope, versions):
    used = hook.find_image_version_usage(IMAGE, scope, **FAST)
    assert list(used) == versions
    known = "apps" in scope
    assert all((user["running"] is not None) == known for users in used.values() for user in users)
    nouns = {"domains": "Domain", "apps": "App", "spaces": "Space", "user_profiles": "UserProfile"}
    read = {
        call["operation"].removeprefix("Describe").removeprefix("List").removesuffix("s") for call in emulator.calls()
    }
    assert {noun for name, noun in nouns.items() if name in scope} == read & set(nouns.values())


def test_one_domain_can_be_asked_about(account, studio, hook):
    other = studio.domain("other", **lab(custom_image(IMAGE, 2)))
    assert list(hook.find_image_version_usage(IMAGE, domain_id=other, **FAST)) == ["2"]
    assert "2" not in hook.find_image_version_usage(IMAGE, domain_id=account, **FAST)


def test_a_domain_that_does_not_exist_is_an_error(account, hook):
    """It would look like a domain that does not use the image."""
    with pytest.raises(ClientError, match="finds no domain 'd-nosuchdomain'"):
        hook.find_image_version_usage(IMAGE, domain_id="d-nosuchdomain", **FAST)


def test_an_image_that_nobody_uses(studio, hook):
    studio.image(IMAGE, 1)
    assert hook.find_image_version_usage(IMAGE, **FAST) == {}


def test_an_image_that_does_not_exist_is_an_error(studio, hook):
    with pytest.raises(ClientError, match="SageMaker finds no image 'churn'"):
        hook.find_image_version_usage(IMAGE, **FAST)


def test_a_newest_version_that_is_not_created_does_not_count_as_the_newest(account, emulator, hook):
    emulator.set_version(IMAGE, 9, status="CREATE_FAILED")
    assert "8" in hook.find_image_version_usage(IMAGE, "domains", **FAST)


@pytest.mark.parametrize(
    ("operation", "scope"),
    [
        ("ListDomains", "domains"),
        ("DescribeDomain", "domains"),
        ("ListApps", "apps"),
        ("ListUserProfiles", "user_profiles"),
        ("DescribeUserProfile", "user_profiles"),
        ("ListSpaces", "spaces"),
        ("DescribeSpace", "spaces"),
    ],
)
def test_denied_access_is_an_error_that_names_the_permission(account, emulator, hook, operation, scope):
    emulator.add_fault("access_denied", operation=operation)
    with pytest.raises(ClientError) as caught:
        hook.find_image_version_usage(IMAGE, **FAST)
    message = caught.value.response["Error"]["Message"]
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    assert f"sagemaker:{operation}: allow it, or leave {scope!r} out of the scope" in message


@pytest.mark.parametrize(
    "operation", ["ListDomains", "ListSpaces", "DescribeSpace", "ListApps", "DescribeImageVersion"]
)
def test_throttling_slows_down_and_loses_nothing(account, emulator, connection, hook, operation):
    expected = hook.find_image_version_usage(IMAGE, **FAST)
    connection(config_kwargs={"retries": {"total_max_attempts": 1}})
    emulator.add_fault("throttling", operation=operation, times=3)
    assert SageMakerImageVersionsHook().find_image_version_usage(IMAGE, **FAST) == expected


def test_what_is_deleted_between_its_listing_and_its_description_is_left_out(account, emulator, hook):
    emulator.add_fault("not_found", operation="DescribeSpace", times=2)
    assert brief(hook.find_image_version_usage(IMAGE, "spaces", **FAST)) == {}


def test_an_empty_page_does_not_end_a_list(account, emulator, hook):
    emulator.add_fault("empty_page", operation="ListSpaces")
    assert list(hook.find_image_version_usage(IMAGE, "spaces", **FAST)) == ["5"]


@pytest.mark.parametrize("kind", ["repeating_token", "cyclic_token"])
def test_tokens_that_go_round_in_circles_are_an_error(account, emulator, hook, kind, monkeypatch):
    monkeypatch.setattr(usage, "PATIENCE", 0)
    emulator.add_fault(kind, operation="ListSpaces", times=None)
    with pytest.raises(PaginationError, match="list_spaces"):
        hook.find_image_version_usage(IMAGE, "spaces", **FAST)


@pytest.mark.parametrize(
    "arguments", [{"scope": "everything"}, {"scope": []}, {"domain_id": "team"}, {"calls_per_second": 0}]
)
def test_bad_parameters_name_themselves(hook, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name}="):
        hook.find_image_version_usage(IMAGE, **arguments)


def test_domains_and_spaces_take_the_documented_calls(studio, emulator, hook, said):
    studio.image(IMAGE, 3)
    domains = [studio.domain(f"team-{number}", **lab(custom_image(IMAGE, 1))) for number in range(3)]
    for number in range(110):
        domain = domains[number % 3]
        studio.client.create_space(
            DomainId=domain, SpaceName=f"space-{number}", SpaceSettings=lab(default=spec(IMAGE, 2))
        )
        if number < 20:
            studio.app(domain, space=f"space-{number}")
    emulator_calls = len(emulator.calls())
    hook.find_image_version_usage(IMAGE, "apps", **FAST)  # the client is there
    before = len(emulator.calls())
    assert before - emulator_calls == 1 + 1
    used = hook.find_image_version_usage(IMAGE, **FAST)
    assert {number: len(users) for number, users in used.items()} == {"1": 3, "2": 110 + 20}
    calls = [call["operation"] for call in emulator.calls()[before:]]
    documented = {
        "DescribeImage": 1,
        "ListDomains": 1,
        "DescribeDomain": 3,
        "ListApps": 1,
        "ListUserProfiles": 1,
        "ListSpaces": 2,
        "DescribeSpace": 110,
    }
    assert {operation: calls.count(operation) for operation in set(calls)} == documented
    # In the order of what they cost.
    firsts = list(dict.fromkeys(calls))
    assert firsts == list(documented)
    log = said()
    assert "describing 110 spaces takes about 0 seconds at 1000 calls per second" in log
    total = sum(documented.values())
    assert f"found 2 versions in use (domains, apps, user_profiles, spaces; {total} API calls)" in log


def test_progress_is_logged(account, hook, said, monkeypatch):
    monkeypatch.setattr(usage, "PROGRESS_PAUSE", 0)
    hook.find_image_version_usage(IMAGE, "spaces", **FAST)
    assert "SageMaker image 'churn': described 1 of 2 spaces" in said()


class Clock:
    """In place of the module ``time``."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(usage, "time", clock)
    return clock


def throttled(*_):
    raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "DescribeSpace")


def test_calls_are_paced(clock):
    pace, at = usage.Pace(4.0), []
    for _ in range(5):
        pace.call(lambda: at.append(clock.now))
    assert at == [0.0, 0.25, 0.5, 0.75, 1.0]
    clock.now = 100.0
    for _ in range(2):
        pace.call(lambda: at.append(clock.now))
    assert at[5:] == [100.0, 100.25]


def test_throttling_halves_the_rate_until_calls_succeed_again(clock):
    pace, answers = usage.Pace(4.0), iter([throttled, throttled, throttled, str])
    assert pace.call(lambda: next(answers)()) == ""  # noqa: PLW0108  # another one at each try
    assert 0.5 < pace.rate <= 0.75
    for _ in range(100):
        pace.call(str)
    assert pace.rate == 4.0


def test_a_call_that_is_throttled_for_minutes_is_an_error(clock):
    pace = usage.Pace(4.0)
    with pytest.raises(ClientError, match="Rate exceeded"):
        pace.call(throttled)
    assert clock.now > usage.PATIENCE


def test_a_throttled_call_is_retried_until_the_timeout(clock):
    pace = usage.Pace(4.0, timeout=30.0)
    with pytest.raises(ClientError, match="Rate exceeded"):
        pace.call(throttled)
    assert clock.now == 30.0


def test_no_call_is_made_after_the_timeout(clock):
    pace = usage.Pace(4.0, timeout=1.0)
    for _ in range(5):
        pace.call(str)
    with pytest.raises(TimeoutError, match="takes longer than the timeout"):
        pace.call(str)
    assert (pace.calls, clock.now) == (5, 1.0)


def test_an_alias_that_no_version_has_is_warned_of(studio, hook, said):
    studio.image(IMAGE, 1)
    image = f"arn:aws:sagemaker:us-east-1:123456789012:image/{IMAGE}"
    studio.domain(**lab(default={"SageMakerImageArn": image, "SageMakerImageVersionAlias": "9.9"}))
    (user,) = hook.find_image_version_usage(IMAGE, **FAST)["none"]
    assert user["kind"] == "domain"
    assert "Studio refers to the alias '9.9', which no version has" in said()


def test_two_versions_are_compared(studio, hook):
    studio.image(IMAGE, 2, aliases={2: ["prod"]})
    studio.client.update_image_version(ImageName=IMAGE, Version=1, ReleaseNotes="first | one")
    table = hook.compare_image_versions(IMAGE, 1, "prod").splitlines()
    assert table[0] == "| churn | version 1 | version 2 |"
    assert "| **Aliases** |  | `prod` |" in table
    assert r"| **ReleaseNotes** | `first \| one` |  |" in table
    assert "| ImageVersionStatus | `CREATED` | `CREATED` |" in table


def test_a_role_is_not_part_of_any_answer(account, hook):
    assert ROLE not in str(hook.find_image_version_usage(IMAGE, **FAST))
