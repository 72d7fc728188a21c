"""Roll a version out to Studio, and back, over HTTP."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import logging
import threading
import time
from datetime import datetime, timedelta

import botocore.client
import pytest
from botocore.exceptions import ClientError
from moto.moto_api import state_manager

from airflow_provider_imageversions import _sessions, compat
from airflow_provider_imageversions.compat import AirflowSkipException
from airflow_provider_imageversions.emulator.studio import STUDIO_MODEL
from airflow_provider_imageversions.errors import (
    SageMakerImageOperationError,
    SageMakerImageOperationTimeoutError,
    SageMakerImageVersionPollingError,
)
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import (
    SageMakerImageVersionUsageOperator,
    SageMakerRolloutImageVersionOperator,
)
from airflow_provider_imageversions.studio import AmbiguousEntryError
from tests.conftest import execute_in_thread
from tests.studio import CONFIG, VERSION_ARN, Store, custom_image, spec

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:
    from airflow.exceptions import TaskDeferred

IMAGE = "churn"
ARN = f"arn:aws:sagemaker:us-east-1:123456789012:image/{IMAGE}"
QUICK = {"check_interval": 0.05, "timeout": 30}
OTHERS = {
    "LifecycleConfigArns": ["arn:aws:sagemaker:us-east-1:123456789012:studio-lifecycle-config/setup"],
    "CodeRepositories": [{"RepositoryUrl": "https://example.com/notebooks.git"}],
}


def test_the_store_of_these_tests_has_the_signatures_of_airflows():
    module = pytest.importorskip("airflow.sdk.execution_time.context", reason="Airflow 2 has no state store")
    real = getattr(module, "TaskStateStoreAccessor", None)
    if real is None:
        pytest.skip("Airflow before 3.3 has no state store")
    for name in ("get", "set"):
        parameters = [list(inspect.signature(getattr(kind, name)).parameters) for kind in (real, Store)]
        assert parameters[0] == parameters[1]


@pytest.fixture
def context(context):
    context["task_state_store"] = Store()
    return context


@pytest.fixture
def said(capsys, caplog):
    """What is in the log, wherever this Airflow writes it."""
    caplog.set_level(logging.INFO, logger="airflow.task")
    caplog.set_level(logging.INFO, logger="airflow_provider_imageversions")

    def text():
        out, err = capsys.readouterr()
        return f"{out}\n{err}\n{caplog.text}"

    return text


@pytest.fixture
def account(studio, connection):
    """An image with four versions, and what it takes to attach it."""
    studio.image(IMAGE, 4, aliases={3: ["prod"]})
    studio.config()
    return studio


def lab(*images, **more):
    return {"JupyterLabAppSettings": {"CustomImages": list(images), **OTHERS, **more}}


@pytest.fixture
def domain(account):
    return account.domain(**lab(custom_image("a", 1), custom_image(IMAGE, 2), custom_image("b")))


def rollout(domain_id, version=None, **arguments):
    given = {"task_id": "rollout", "image_name": IMAGE, "domain_id": domain_id, **QUICK}
    if version is not None:
        given |= {"version": version, "app_image_config_name": CONFIG}
    return SageMakerRolloutImageVersionOperator(**{**given, **arguments})


def images(studio, domain_id, place="DefaultUserSettings", app="JupyterLab"):
    described = studio.client.describe_domain(DomainId=domain_id)
    return described[place].get(f"{app}AppSettings", {}).get("CustomImages", [])


def updates(emulator, operation="UpdateDomain"):
    return [call["parameters"] for call in emulator.calls(operation)]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_rollout_changes_the_entry_of_the_image_and_nothing_else(account, domain, emulator, run, deferrable):
    before = account.user_settings(domain)
    result = run(rollout(domain, 3, deferrable=deferrable))
    after = account.user_settings(domain)
    assert after["JupyterLabAppSettings"].pop("CustomImages") == [
        custom_image("a", 1),
        custom_image(IMAGE, 3),
        custom_image("b"),
    ]
    before["JupyterLabAppSettings"].pop("CustomImages")
    assert after == before
    # The roles, networks and so on of the domain are not written back.
    (request,) = updates(emulator)
    assert list(request) == ["DomainId", "DefaultUserSettings"]
    assert list(request["DefaultUserSettings"]) == ["JupyterLabAppSettings"]
    assert {key: result[key] for key in ("image_name", "domain_id", "user_profile_name", "app_type", "changed")} == {
        "image_name": IMAGE,
        "domain_id": domain,
        "user_profile_name": None,
        "app_type": "JupyterLab",
        "changed": True,
    }
    assert (result["previous"]["version"], result["current"]["version"]) == (2, 3)
    assert result["previous"]["places"] == {
        "DefaultUserSettings": {"version": 2, "entry": custom_image(IMAGE, 2), "position": 1, "default": None}
    }
    assert json.loads(json.dumps(result)) == result


def test_a_rollback_puts_back_what_was_there(account, domain, run):
    before = account.user_settings(domain)
    result = run(rollout(domain, 3, set_default=True))
    rolled = account.user_settings(domain)["JupyterLabAppSettings"]["DefaultResourceSpec"]
    assert rolled == {"SageMakerImageArn": ARN, **spec(IMAGE, 3)}
    back = run(rollout(domain, restore=result["previous"]))
    after = account.user_settings(domain)
    assert after["JupyterLabAppSettings"].pop("DefaultResourceSpec") == {}
    assert after == before
    assert (back["current"]["version"], back["previous"]["version"]) == (2, 3)
    assert run(rollout(domain, restore=back["previous"]))["current"]["version"] == 3


def default_spec(account, domain):
    return account.user_settings(domain)["JupyterLabAppSettings"]["DefaultResourceSpec"]


def test_a_rollback_keeps_other_changes_of_the_default(account, run, said):
    domain = account.domain(**lab(custom_image(IMAGE, 2), DefaultResourceSpec={"InstanceType": "ml.t3.medium"}))
    previous = run(rollout(domain, 3, set_default=True))["previous"]
    settings = account.user_settings(domain)["JupyterLabAppSettings"]
    settings["DefaultResourceSpec"]["InstanceType"] = "ml.m5.large"
    account.client.update_domain(DomainId=domain, DefaultUserSettings={"JupyterLabAppSettings": settings})
    run(rollout(domain, restore=previous))
    assert default_spec(account, domain) == {"InstanceType": "ml.m5.large"}
    log = said()
    assert f"restored version 2 in domain '{domain}'" in log
    assert "kept the DefaultResourceSpec" not in log


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_rollback_keeps_the_default_of_another_image(account, domain, run, said, deferrable):
    account.image("fraud", 2)
    previous = run(rollout(domain, 3, set_default=True))["previous"]
    run(rollout(domain, 2, image_name="fraud", set_default=True))
    theirs = default_spec(account, domain)
    run(rollout(domain, restore=previous, deferrable=deferrable))
    assert custom_image(IMAGE, 2) in images(account, domain)
    assert default_spec(account, domain) == theirs
    assert theirs.items() >= spec("fraud", 2).items()
    kept = f"kept the DefaultResourceSpec in DefaultUserSettings of domain '{domain}', because it no longer refers"
    assert kept in said()


def test_a_rollback_removes_the_default_s_version_as_sagemaker_wants_it(account, run, emulator):
    domain = account.domain(**lab(custom_image(IMAGE, 2), DefaultResourceSpec={"SageMakerImageArn": ARN}))
    run(rollout(domain, restore=run(rollout(domain, 3, set_default=True))["previous"]))
    assert default_spec(account, domain) == {"SageMakerImageArn": ARN}
    written = updates(emulator)[-1]["DefaultUserSettings"]["JupyterLabAppSettings"]["DefaultResourceSpec"]
    assert written == {"SageMakerImageArn": ARN, "SageMakerImageVersionArn": "None"}


def test_the_log_has_a_default_that_remains(account, domain, run, said):
    run(rollout(domain, 2, set_default=True))
    assert "remains the default" not in said()
    run(rollout(domain, 3))
    assert f"version 2 remains the default of domain '{domain}' (set_default)" in said()


def test_a_default_whose_version_was_deleted_is_not_restored(account, domain, run, emulator):
    run(rollout(domain, 1, set_default=True))
    run(rollout(domain, 2))
    previous = run(rollout(domain, 3, set_default=True))["previous"]
    account.client.delete_image_version(ImageName=IMAGE, Version=1)
    with pytest.raises(SageMakerImageOperationError, match="version 1 does not exist, so it cannot be rolled out"):
        run(rollout(domain, restore=previous))
    assert len(updates(emulator)) == 3


def test_a_rollback_says_which_settings_it_does_not_know(account, run, said):
    domain = account.domain(**lab(custom_image(IMAGE, 2)))
    previous = run(rollout(domain, 3))["previous"]
    account.client.update_domain(DomainId=domain, DefaultSpaceSettings=lab(custom_image(IMAGE, 4)))
    run(rollout(domain, restore=previous))
    assert images(account, domain) == [custom_image(IMAGE, 2)]
    assert images(account, domain, "DefaultSpaceSettings") == [custom_image(IMAGE, 4)]
    assert f"DefaultSpaceSettings of domain '{domain}' keeps version 4, because it had no settings" in said()


@pytest.mark.parametrize(
    ("entry", "version"),
    [(None, "absent"), (custom_image(IMAGE), "unpinned"), (custom_image(IMAGE, 0, "other-config"), 0)],
)
def test_the_previous_state_is_returned_and_can_be_restored(account, run, emulator, entry, version):
    account.config("other-config")
    emulator.create_versions("zero", 1)
    first = [custom_image("a", 1), *([] if entry is None else [entry])]
    domain = account.domain(**lab(*first))
    result = run(rollout(domain, 3))
    assert result["previous"]["version"] == version
    assert images(account, domain) == [custom_image("a", 1), custom_image(IMAGE, 3)]
    if version == 0:
        with pytest.raises(SageMakerImageOperationError, match="version 0 does not exist, so it cannot be rolled"):
            run(rollout(domain, restore=result["previous"]))
        return
    run(rollout(domain, restore=result["previous"]))
    assert images(account, domain) == first


def test_restore_takes_what_a_template_renders_to(account, domain, run):
    result = run(rollout(domain, 4))
    operator = rollout(domain, restore="{{ previous }}")
    operator.render_template_fields({"previous": result["previous"]})
    assert isinstance(operator.restore, str)
    run(operator)
    assert images(account, domain)[1] == custom_image(IMAGE, 2)


def test_a_rollout_by_alias_writes_the_number(account, domain, run):
    result = run(rollout(domain, alias="prod", app_image_config_name=CONFIG))
    assert result["current"]["version"] == 3
    assert images(account, domain)[1] == custom_image(IMAGE, 3)


def test_default_space_settings_are_changed_where_the_domain_has_them(account, run, emulator):
    spaces = {"JupyterLabAppSettings": {"CustomImages": [custom_image("x")]}}
    domain = account.domain(space_settings=spaces)
    result = run(rollout(domain, 3))
    assert images(account, domain) == [custom_image(IMAGE, 3)]
    assert images(account, domain, "DefaultSpaceSettings") == [custom_image("x"), custom_image(IMAGE, 3)]
    assert len(updates(emulator)) == 1
    assert list(result["previous"]["places"]) == ["DefaultUserSettings", "DefaultSpaceSettings"]
    run(rollout(domain, restore=result["previous"]))
    assert images(account, domain, "DefaultSpaceSettings") == [custom_image("x")]
    run(rollout(domain, 3, app_type="CodeEditor"))
    assert images(account, domain, app="CodeEditor") == [custom_image(IMAGE, 3)]
    assert "CodeEditorAppSettings" not in account.client.describe_domain(DomainId=domain)["DefaultSpaceSettings"]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_user_profile_can_be_changed_alone(account, domain, run, emulator, deferrable):
    account.profile(domain, "ann", KernelGatewayAppSettings={"CustomImages": [custom_image(IMAGE, 1)]})
    arguments = {"user_profile_name": "ann", "app_type": "KernelGateway", "deferrable": deferrable}
    result = run(rollout(domain, 4, **arguments))
    settings = account.client.describe_user_profile(DomainId=domain, UserProfileName="ann")["UserSettings"]
    assert settings["KernelGatewayAppSettings"]["CustomImages"] == [custom_image(IMAGE, 4)]
    assert result["user_profile_name"] == "ann"
    assert updates(emulator) == []
    run(rollout(domain, restore=result["previous"], **arguments))
    settings = account.client.describe_user_profile(DomainId=domain, UserProfileName="ann")["UserSettings"]
    assert settings["KernelGatewayAppSettings"]["CustomImages"] == [custom_image(IMAGE, 1)]


def test_nothing_to_do_is_a_success_without_a_write(account, domain, run, emulator):
    result = run(rollout(domain, 2))
    assert (result["changed"], result["current"], updates(emulator)) == (False, result["previous"], [])


# What is refused


def refused(run, operator, message):
    with pytest.raises(SageMakerImageOperationError, match=message):
        run(operator)


def test_a_version_that_is_not_created_is_refused(domain, run, emulator):
    emulator.set_version(IMAGE, 3, status="CREATE_FAILED")
    refused(run, rollout(domain, 3), r"version 3 is CREATE_FAILED \(.+\), and only a CREATED version can be rolled")
    assert updates(emulator) == []


def test_a_version_that_does_not_exist_is_refused(domain, run):
    with pytest.raises(ClientError, match="SageMaker finds no version 9 of image 'churn'"):
        run(rollout(domain, 9))


def test_an_app_image_config_that_does_not_exist_is_refused(domain, run, emulator):
    operator = rollout(domain, 3, app_image_config_name="missing")
    refused(run, operator, "the app image config 'missing' does not exist")
    assert updates(emulator) == []


def test_an_app_image_config_of_another_app_is_a_warning(account, domain, run, said):
    account.config("kernels", "KernelGateway")
    run(rollout(domain, 3))
    assert "but app_type is" not in said()
    run(rollout(domain, 3, app_image_config_name="kernels"))
    assert "the app image config 'kernels' is for KernelGateway, but app_type is JupyterLab" in said()


def test_a_domain_that_does_not_exist_is_refused(account, run):
    with pytest.raises(ClientError, match="SageMaker finds no domain 'd-missing'"):
        run(rollout("d-missing", 3))


@pytest.mark.parametrize(("profile", "maximum"), [(None, 200), ("ann", 5)])
def test_a_list_that_is_full_is_refused(account, run, profile, maximum):
    full = lab(*(custom_image(f"image-{number}") for number in range(maximum)))
    domain = account.domain(**({} if profile else full))
    if profile:
        account.profile(domain, profile, **full)
    refused(run, rollout(domain, 3, user_profile_name=profile), f"is full: it has {maximum} entries")


def test_ambiguous_entries_are_rejected(account, run, emulator):
    domain = account.domain(**lab(custom_image(IMAGE, 1, "a"), custom_image(IMAGE, 2, "b")))
    with pytest.raises(AmbiguousEntryError, match="several entries of image 'churn'"):
        run(rollout(domain, 3))
    assert updates(emulator) == []


@pytest.mark.parametrize(
    ("there", "is_newer"),
    [(custom_image(IMAGE, 4), True), (custom_image(IMAGE), True), (custom_image(IMAGE, 2), False)],
)
def test_only_if_newer_skips_what_would_roll_back(account, run, emulator, there, is_newer):
    domain = account.domain(**lab(there))
    operator = rollout(domain, 3, only_if_newer=True)
    if is_newer:
        with pytest.raises(AirflowSkipException, match="has version 4 already, which is newer than version 3"):
            run(operator)
    else:
        assert run(operator)["current"]["version"] == 3
    assert len(updates(emulator)) == (not is_newer)
    assert images(account, domain)[0] == (there if is_newer else custom_image(IMAGE, 3))


def test_only_if_newer_counts_versions_that_can_be_used(account, run, said):
    domain = account.domain(**lab(custom_image(IMAGE, 4)))
    account.client.delete_image_version(ImageName=IMAGE, Version=4)
    assert run(rollout(domain, 3, only_if_newer=True))["changed"]
    assert f"replacing version 4 in domain '{domain}', which cannot be used" in said()
    run(rollout(domain, 3, set_default=True))
    run(rollout(domain, 1))
    with pytest.raises(AirflowSkipException, match="has version 3 already, which is newer than version 2"):
        run(rollout(domain, 2, set_default=True, only_if_newer=True))
    assert run(rollout(domain, 2, only_if_newer=True))["changed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"version": 1, "app_image_config_name": None},
            "app_image_config_name=None, restore=None: pass app_image_config_name",
        ),
        ({"version": 1, "alias": "prod"}, "version=1, alias='prod', restore=None: pass exactly one"),
        ({}, "pass exactly one"),
        ({"version": "{{ params.v }}", "alias": "prod"}, "version='{{ params.v }}', alias='prod', .*pass"),
        ({"alias": "{{ params.a }}", "restore": {"image_name": "{{ params.image }}"}}, "pass exactly one"),
        ({"restore": "{{ params.r }}", "app_image_config_name": "c"}, "leave it out with restore"),
        ({"restore": {}, "app_image_config_name": "c"}, "leave it out with restore"),
        ({"version": 1, "app_image_config_name": "c", "app_type": "jupyterlab"}, "^app_type='jupyterlab'"),
        ({"version": 1, "app_image_config_name": "c", "domain_id": "team"}, "^domain_id='team'"),
        ({"version": 1, "app_image_config_name": "-c"}, "^app_image_config_name='-c'"),
        ({"version": 1, "app_image_config_name": "c", "user_profile_name": "a b"}, "^user_profile_name='a b'"),
        ({"restore": "[1]"}, r"^restore='\[1\]'"),
        ({"restore": "{{ params.r }}", "only_if_newer": True}, "leave out set_default and only_if_newer"),
        ({"restore": {}, "set_default": "True"}, "^set_default=True, only_if_newer=False, restore={}: leave out"),
    ],
)
def test_parameters_are_checked_when_the_dag_is_parsed(arguments, message):
    with pytest.raises(ValueError, match=message):
        rollout(**{"domain_id": "d-1", **arguments})


def test_an_xcomarg_may_stand_for_no_value_when_the_dag_is_parsed():
    """It is resolved when the task runs, and ``None`` means then that the parameter is not given."""
    sdk = pytest.importorskip("airflow.sdk", reason="Airflow 2 has it elsewhere")
    with sdk.DAG("lab", schedule=None):
        number = rollout("d-1", 1, task_id="other").output["current"]
        assert rollout("d-1", number, alias="prod").alias == "prod"


def test_no_user_profile_is_not_the_whole_domain(account, domain, run, emulator):
    sdk = pytest.importorskip("airflow.sdk", reason="Airflow 2 has it elsewhere")
    with sdk.DAG("lab", schedule=None):
        found = rollout("d-1", 1, task_id="find").output
        operator = rollout(domain, 3, user_profile_name=found)
    operator.user_profile_name = None  # as the XComArg of a task without a result is resolved
    with pytest.raises(ValueError, match=r"^user_profile_name=None is not valid: it is empty or rendered to nothing"):
        run(operator)
    assert updates(emulator) == []


def test_what_is_restored_must_be_of_the_same_target(account, domain, run):
    previous = run(rollout(domain, 3))["previous"]
    other = account.domain("other")
    with pytest.raises(ValueError, match=rf"it belongs to {{'domain_id': '{domain}'}}"):
        run(rollout(other, restore=previous))
    with pytest.raises(ValueError, match="must be the 'previous' of a result"):
        run(rollout(domain, restore={"version": 2}))
    for entry in ({"ImageName": IMAGE}, "version 2"):
        changed = {**previous, "places": {"DefaultUserSettings": {"entry": entry, "position": 0, "default": None}}}
        with pytest.raises(ValueError, match="must be the 'previous' of a result"):
            run(rollout(domain, restore=changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda previous: previous.pop("places"), "'places' is missing"),
        (
            lambda previous: previous["places"].clear(),
            "allowed are DefaultUserSettings, DefaultSpaceSettings, at least",
        ),
        (lambda previous: previous["places"].update(UserSettings={}), r"places=\[.*allowed are DefaultUserSettings"),
        (lambda previous: previous.update(default_changed="no"), "default_changed='no' is not valid"),
        (lambda previous: state_of(previous).update(default="x"), "default='x' is not valid"),
        (lambda previous: state_of(previous).update(default={"InstanceType": 1}), "each value must be a string"),
        (lambda previous: state_of(previous).update(position=-1), "position=-1 is not valid"),
        (lambda previous: state_of(previous)["entry"].pop("AppImageConfigName"), "'AppImageConfigName' is missing"),
        (lambda previous: state_of(previous)["entry"].update(ImageVersionNumber=None), "ImageVersionNumber=None is"),
        (lambda previous: state_of(previous)["entry"].update(ImageName="b"), "it belongs to {'ImageName': 'b'}, but"),
    ],
)
def test_what_is_restored_is_checked(account, domain, run, emulator, change, message):
    previous = run(rollout(domain, 3))["previous"]
    change(previous)
    with pytest.raises(ValueError, match=f"^restore=.* is not valid: .*{message}"):
        run(rollout(domain, restore=previous))
    assert len(updates(emulator)) == 1


def state_of(previous):
    return previous["places"]["DefaultUserSettings"]


def test_what_is_restored_may_have_numbers_and_booleans_as_strings(account, domain, run):
    previous = run(rollout(domain, 3))["previous"]
    previous["default_changed"] = "False"
    state_of(previous).update(position="1")
    state_of(previous)["entry"].update(ImageVersionNumber="2", ImageName=IMAGE.upper())
    run(rollout(domain, restore=previous))
    assert images(account, domain)[1] == custom_image(IMAGE.upper(), 2)
    assert state_of(previous)["entry"]["ImageVersionNumber"] == "2"
    assert "DefaultResourceSpec" not in account.user_settings(domain)["JupyterLabAppSettings"]


# Updates that fail


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_update_that_fails_puts_the_old_list_back(account, domain, run, emulator, deferrable):
    before = account.user_settings(domain)
    emulator.fail_updates("The image cannot be pulled")
    refused(run, rollout(domain, 3, deferrable=deferrable), "Failed: The image cannot be pulled.*entry was restored")
    assert account.user_settings(domain) == before
    assert account.client.describe_domain(DomainId=domain)["Status"] == "InService"
    assert len(updates(emulator)) == 2


@pytest.mark.parametrize("restores", [False, True])
@pytest.mark.parametrize("in_progress", [False, True])
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_cleared_task_undoes_nothing_that_it_did_not_write(
    account, domain, run, emulator, deferrable, in_progress, restores
):
    task = rollout(domain, 3, deferrable=deferrable)
    previous = run(task)["previous"]
    if restores:
        task = rollout(domain, restore=previous, deferrable=deferrable)
        run(task)
    wanted = images(account, domain)
    emulator.fail_updates("sg-9 does not exist", times=2)
    if in_progress:
        state_manager.set_transition(STUDIO_MODEL, {"progression": "manual", "times": 3})
    account.client.update_domain(DomainId=domain, DefaultUserSettings={"SecurityGroups": ["sg-9"]})
    refused(run, task, "the status is Update_Failed: sg-9 does not exist$")
    assert images(account, domain) == wanted


@pytest.mark.parametrize("space_settings", [None, {}])
def test_a_failed_domain_without_settings_of_the_app_is_repaired(account, run, emulator, space_settings):
    domain = account.domain()
    previous = run(rollout(domain, 3))["previous"]
    account.client.update_domain(DomainId=domain, DefaultUserSettings={"JupyterLabAppSettings": {}})
    if space_settings is not None:
        account.client.update_domain(DomainId=domain, DefaultSpaceSettings={"SecurityGroups": ["sg-1"]})
    emulator.fail_updates("no")
    account.client.update_domain(DomainId=domain, DefaultUserSettings={"SecurityGroups": ["sg-2"]})
    run(rollout(domain, restore=previous))
    assert account.client.describe_domain(DomainId=domain)["Status"] == "InService"
    assert images(account, domain) == []


def test_a_rollback_that_would_repeat_an_entry_is_refused(account, domain, run, emulator):
    account.config("b")
    previous = run(rollout(domain, 3, app_image_config_name="b"))["previous"]
    both = [custom_image(IMAGE, 3, "b"), custom_image(IMAGE, 2)]
    account.client.update_domain(DomainId=domain, DefaultUserSettings=lab(*both))
    message = rf"JupyterLab in domain '{domain}': another entry of image 'churn' has the app image config 'my-config'"
    with pytest.raises(AmbiguousEntryError, match=message):
        run(rollout(domain, restore=previous))
    assert images(account, domain) == both


@pytest.mark.parametrize(
    ("version", "message"), [(1, "Another update has replaced the entry$"), (2, "The previous entry is unchanged$")]
)
def test_what_somebody_else_changed_since_is_not_put_back(
    account, domain, run, emulator, monkeypatch, version, message
):
    """Nor what is unchanged, which is how an update might fail."""
    emulator.fail_updates("no", times=2)
    theirs = {"JupyterLabAppSettings": {"CustomImages": [custom_image(IMAGE, version)]}}
    make = botocore.client.BaseClient._make_api_call
    done = []

    def call(self, operation, parameters):
        result = make(self, operation, parameters)
        if operation == "UpdateDomain" and not done:
            done.append(operation)
            account.client.update_domain(DomainId=domain, DefaultUserSettings=theirs)
        return result

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    refused(run, rollout(domain, 3), message)
    assert images(account, domain) == [custom_image(IMAGE, version)]


def test_a_retry_fixes_a_list_that_could_not_be_restored(account, domain, run, emulator, said):
    emulator.fail_updates("no", times=2)
    refused(run, rollout(domain, 3), "The previous entry was restored, but: the status is Update_Failed: no")
    result = run(rollout(domain, 3))
    assert (result["previous"]["version"], result["current"]["version"]) == (2, 3)
    assert account.client.describe_domain(DomainId=domain)["Status"] == "InService"


def test_a_domain_whose_last_update_failed_can_be_updated(account, domain, run, emulator):
    emulator.fail_updates("somebody's")
    account.client.update_domain(DomainId=domain, DefaultUserSettings={})
    assert run(rollout(domain, 3))["changed"]
    assert account.client.describe_domain(DomainId=domain)["Status"] == "InService"


def test_an_update_of_somebody_else_is_waited_for(account, domain, run, emulator):
    # However long it takes; each time that the domain is read counts.
    state_manager.set_transition(STUDIO_MODEL, {"progression": "manual", "times": 3})
    account.client.update_domain(DomainId=domain, DefaultUserSettings={})
    assert run(rollout(domain, 3))["changed"]
    assert len(updates(emulator)) == 2
    assert images(account, domain)[1] == custom_image(IMAGE, 3)


def test_an_update_that_takes_too_long_times_out(account, domain, run, emulator):
    emulator.creation_seconds = 3600
    with pytest.raises(SageMakerImageOperationTimeoutError, match="the status is Updating"):
        run(rollout(domain, 3, timeout=1))


@pytest.mark.parametrize("fault", ["in_use", "throttling", "reset", "lost_answer", "server_error"])
def test_faults_of_the_update_are_waited_out(account, domain, run, emulator, fault):
    emulator.add_fault(fault, operation="UpdateDomain", times=4)
    result = run(rollout(domain, 3))
    assert (result["previous"]["version"], result["current"]["version"], result["changed"]) == (2, 3, True)
    assert images(account, domain) == [custom_image("a", 1), custom_image(IMAGE, 3), custom_image("b")]


@pytest.mark.parametrize(
    "operation", ["DescribeDomain", "UpdateDomain", "DescribeAppImageConfig", "DescribeImageVersion"]
)
def test_denied_access_is_an_error(domain, run, emulator, operation):
    emulator.add_fault("access_denied", operation=operation, times=None)
    with pytest.raises(ClientError, match=f"sagemaker:{operation}"):
        run(rollout(domain, 3))


def test_denied_access_in_the_triggerer_is_an_error(account, domain, run, emulator, monkeypatch):

    monkeypatch.setattr(_sessions, "GRACE", dict.fromkeys(_sessions.GRACE, 0.0))
    emulator.creation_seconds = 3600
    emulator.add_fault("access_denied", operation="DescribeDomain", times=None, after=1)
    with pytest.raises(SageMakerImageVersionPollingError, match="sagemaker:DescribeDomain"):
        run(rollout(domain, 3, deferrable=True))


# What ends a deferral


@pytest.mark.parametrize(
    ("execution_timeout", "error", "limit"),
    [
        (None, SageMakerImageOperationTimeoutError, "timeout of 30 seconds"),
        (
            timedelta(seconds=5),
            compat.AirflowTaskTimeout,
            "version was not rolled out within the execution_timeout of 5 ",
        ),
    ],
)
def test_a_deferral_that_timed_out_says_which_timeout_ended_it(
    account, domain, emulator, context, execution_timeout, error, limit
):
    emulator.creation_seconds = 3600
    task = rollout(domain, 3, deferrable=True, execution_timeout=execution_timeout)
    with pytest.raises(TaskDeferred) as deferral:
        execute_in_thread(task, context)
    assert deferral.value.timeout <= (execution_timeout or timedelta(seconds=30))
    with pytest.raises(error, match=limit):
        task.resume_execution("__fail__", {"error": "Trigger timeout"}, context)


def test_the_time_before_a_deferral_counts(account, domain, emulator, context):
    emulator.creation_seconds = 3600
    with pytest.raises(TaskDeferred) as deferral:
        execute_in_thread(rollout(domain, 3, deferrable=True), context)
    assert deferral.value.timeout < timedelta(seconds=30)


def resume(task, deferral, context):
    """Resume a deferred task, with what Airflow stored of its deferral."""
    arguments = {**json.loads(json.dumps(deferral.kwargs)), "event": {"status": "done"}}
    return task.resume_execution(deferral.method_name, arguments, context)


def test_an_alias_that_moves_during_a_deferral_changes_nothing(account, domain, context):
    task = rollout(domain, alias="prod", app_image_config_name=CONFIG, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        execute_in_thread(task, context)
    account.client.update_image_version(ImageName=IMAGE, Version=3, AliasesToDelete=["prod"])
    account.client.update_image_version(ImageName=IMAGE, Version=4, AliasesToAdd=["prod"])
    assert resume(task, deferral.value, context)["current"]["version"] == 3
    assert images(account, domain)[1] == custom_image(IMAGE, 3)


def test_a_deferral_that_timed_out_keeps_its_number_if_the_alias_moved(account, domain, context):
    task = rollout(domain, alias="prod", app_image_config_name=CONFIG, deferrable=True)
    with pytest.raises(TaskDeferred):
        execute_in_thread(task, context)
    account.client.update_image_version(ImageName=IMAGE, Version=3, AliasesToDelete=["prod"])
    account.client.update_image_version(ImageName=IMAGE, Version=4, AliasesToAdd=["prod"])
    result = task.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert (result["previous"]["version"], result["current"]["version"]) == (2, 3)


def test_the_timeout_includes_all_deferrals(account, domain, context, meddle):
    meddle(domain, lab(custom_image(IMAGE, 2)), times=2)
    task = rollout(domain, 3, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        execute_in_thread(task, context)
    began = datetime.fromisoformat(deferral.value.kwargs["began"])
    deferral.value.kwargs["began"] = (began - timedelta(seconds=20)).isoformat()
    with pytest.raises(TaskDeferred) as second:
        resume(task, deferral.value, context)
    assert second.value.timeout < timedelta(seconds=10)
    assert second.value.kwargs == deferral.value.kwargs


def test_a_rollout_that_was_undone_is_not_repeated_after_the_timeout(account, domain, context, emulator, meddle):
    meddle(domain, lab(custom_image(IMAGE, 2)))
    task = rollout(domain, 3, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        execute_in_thread(task, context)
    began = datetime.fromisoformat(deferral.value.kwargs["began"])
    deferral.value.kwargs["began"] = (began - timedelta(seconds=60)).isoformat()
    count = len(updates(emulator))
    with pytest.raises(SageMakerImageOperationTimeoutError, match=r"of 30 seconds: domain .* is not up to date"):
        resume(task, deferral.value, context)
    assert len(updates(emulator)) == count


def test_a_deferral_without_arguments_can_be_resumed(domain, context):
    """Earlier versions stored none."""
    task = rollout(domain, 3, deferrable=True)
    with pytest.raises(TaskDeferred):
        execute_in_thread(task, context)
    assert task.execute_complete(context, {"status": "done"})["current"]["version"] == 3


def test_a_trigger_that_failed_is_an_error_with_a_hint(domain, context):
    failure = {"error": "Trigger failure", "traceback": ["ModuleNotFoundError: No module named 'airflow_provider'"]}
    with pytest.raises(SageMakerImageVersionPollingError, match=r"same version of(?s:.*)ModuleNotFound"):
        rollout(domain, 3, deferrable=True).resume_execution("__fail__", failure, context)


@pytest.mark.parametrize(("deferrable", "polls"), [(False, 2), (True, 3)])
def test_a_domain_that_was_deleted_is_not_waited_for(domain, emulator, run, deferrable, polls):
    emulator.creation_seconds = 3600
    emulator.add_fault("not_found", operation="DescribeDomain", times=None, after=1)
    with pytest.raises(ClientError, match=f"finds no domain '{domain}'"):
        run(rollout(domain, 3, deferrable=deferrable))
    assert len(emulator.calls("DescribeDomain")) == polls


# Two at once


def test_two_rollouts_of_different_images_at_once_lose_neither(account, connection, emulator, context):
    account.image("other", 2)
    domain = account.domain(**lab(custom_image("a", 1)))
    emulator.creation_seconds = 600
    results = {}

    def roll_out(name, number):
        connection(name, login=name)
        own = {**context, "task_state_store": Store()}
        task = rollout(domain, number, image_name=name, report_remaining=False, aws_conn_id=name)
        results[name] = execute_in_thread(task, own)

    def calls_while_updating():
        calls = [call for call in emulator.calls() if call["access_key_id"] in {IMAGE, "other"}]
        updated = [call for call in calls if (call["operation"], call["status"]) == ("UpdateDomain", 200)]
        return [call for call in calls if updated and call["time"] > updated[0]["time"]]

    threads = [threading.Thread(target=roll_out, args=pair) for pair in ((IMAGE, 3), ("other", 2))]
    for thread in threads:
        thread.start()
    # The domain stays Updating until both have met the update of one of them.
    while len({call["access_key_id"] for call in calls_while_updating()}) < 2:
        assert all(thread.is_alive() for thread in threads), results
        time.sleep(0.01)
    emulator.creation_seconds = 0
    for thread in threads:
        thread.join()
    assert sorted(images(account, domain), key=lambda entry: entry["ImageName"]) == [
        custom_image("a", 1),
        custom_image(IMAGE, 3),
        custom_image("other", 2),
    ]
    assert {name: result["previous"]["version"] for name, result in results.items()} == {
        IMAGE: "absent",
        "other": "absent",
    }


@pytest.fixture
def meddle(account, monkeypatch):
    """Update the domain directly after a task does; return a function that sets the update."""
    make = botocore.client.BaseClient._make_api_call

    def prepare(domain, settings, times=1):
        left = [settings] * times

        def call(self, operation, parameters):
            result = make(self, operation, parameters)
            if operation == "UpdateDomain" and self is not account.client and left:
                make(account.client, operation, {"DomainId": domain, "DefaultUserSettings": left.pop()})
            return result

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)

    return prepare


def test_a_rollout_that_was_undone_is_repeated(account, domain, run, meddle, said):
    meddle(domain, lab(custom_image("a", 7), custom_image(IMAGE, 2)), times=2)
    result = run(rollout(domain, 3))
    assert images(account, domain) == [custom_image("a", 7), custom_image(IMAGE, 3)]
    assert result["previous"]["version"] == 2
    assert "another update of domain" in said()


def test_a_rollout_of_the_same_image_that_won_is_not_undone(account, domain, run, meddle):
    meddle(domain, lab(custom_image(IMAGE, 1)))
    refused(run, rollout(domain, 3), r"has replaced the entry \(now: 1 in DefaultUserSettings\)")
    assert images(account, domain) == [custom_image(IMAGE, 1)]


# A worker that is killed


class Killed(BaseException):
    pass


class Killer:
    """Kills the worker before or after one of the calls that leave it, and counts them."""

    def __init__(self, monkeypatch, store):
        self.at, self.count, self.after = None, 0, False
        make, keep = botocore.client.BaseClient._make_api_call, store.set
        monkeypatch.setattr(
            botocore.client.BaseClient, "_make_api_call", lambda *given: self._step(lambda: make(*given))
        )
        store.set = lambda *given, **more: self._step(lambda: keep(*given, **more))

    def _step(self, step):
        self.count += 1
        if self.count == self.at and not self.after:
            raise Killed
        result = step()
        if self.count == self.at:
            raise Killed
        return result

    def kill(self, at, *, after):
        self.at, self.count, self.after = at, 0, after

    def spare(self):
        self.at, self.count = None, 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_a_worker_that_is_killed_at_any_point_leaves_a_retry_that_ends_right(
    account, emulator, context, monkeypatch, after, fails
):
    """Whatever became of the first try, the retry has the settings right, and the true previous version."""
    domain = account.domain(**lab(custom_image("a", 1), custom_image(IMAGE, 2)))
    start = account.user_settings(domain)
    killer = Killer(monkeypatch, context["task_state_store"])
    operator = rollout(domain, 3, set_default=True, report_remaining=False)
    for at in itertools.count(1):
        killer.spare()
        account.client.update_domain(DomainId=domain, DefaultUserSettings=start)
        context["task_state_store"].values.clear()
        if fails:
            emulator.fail_updates("no")
        killer.kill(at, after=after)
        was_killed = False
        try:
            copy.copy(operator).execute(context)
        except Killed:
            was_killed = True
        except SageMakerImageOperationError:
            assert fails
        killer.spare()
        if not was_killed and not fails:
            break
        for _ in range(3):
            # The requested failure may not have happened yet.
            try:
                result = copy.copy(operator).execute(context)
            except SageMakerImageOperationError:
                continue
            break
        assert (result["previous"]["version"], result["current"]["version"]) == (2, 3), at
        assert result["previous"]["places"]["DefaultUserSettings"]["default"] is None, at
        assert images(account, domain) == [custom_image("a", 1), custom_image(IMAGE, 3)], at
        assert account.client.describe_domain(DomainId=domain)["Status"] == "InService", at
        back = rollout(domain, restore=result["previous"], report_remaining=False)
        back.execute({**context, "task_state_store": Store()})
        settings = account.user_settings(domain)
        assert settings["JupyterLabAppSettings"].pop("DefaultResourceSpec") == {}, at
        assert settings == start, at
        if not was_killed:
            break
    # Describe the version, it again and the config, read, store, write, read: at each of them.
    assert at > 7


def test_a_retry_after_the_alias_moved_keeps_the_previous_version(account, domain, run, context, monkeypatch):
    def move(source, target):
        account.client.update_image_version(ImageName=IMAGE, Version=source, AliasesToDelete=["prod"])
        account.client.update_image_version(ImageName=IMAGE, Version=target, AliasesToAdd=["prod"])

    def killed(*, at, after):
        killer.kill(at, after=after)
        with pytest.raises(Killed):
            copy.copy(operator).execute(context)
        killer.spare()

    killer = Killer(monkeypatch, context["task_state_store"])
    operator = rollout(domain, alias="prod", app_image_config_name=CONFIG, report_remaining=False)
    # The first try is killed after UpdateDomain, and the second one before it.
    killed(at=6, after=True)
    assert custom_image(IMAGE, 3) in images(account, domain)
    move(3, 4)
    killed(at=6, after=False)
    assert custom_image(IMAGE, 3) in images(account, domain)
    (key,) = context["task_state_store"].values
    assert len(context["task_state_store"].values[key]["written"]) == 2
    move(4, 1)
    result = copy.copy(operator).execute(context)
    assert (result["previous"]["version"], result["current"]["version"]) == (2, 1)
    # Once it has completed, what it has written is what was there before.
    move(1, 4)
    result = copy.copy(operator).execute(context)
    assert (result["previous"]["version"], result["current"]["version"]) == (1, 4)


def test_what_was_stored_by_another_run_is_not_taken_for_this_one(account, domain, run, context):
    run(rollout(domain, 3))
    context["ti"].run_id = "later"
    result = run(rollout(domain, 3))
    assert (result["previous"]["version"], result["changed"]) == (3, False)


def test_a_cleared_task_still_knows_what_was_there_before(domain, run):
    run(rollout(domain, 3))
    assert run(rollout(domain, 3))["previous"]["version"] == 2


def test_without_a_state_store_it_is_an_airflow_variable(account, domain, run, context, monkeypatch):
    kept = {}

    class Variable:
        """In place of Airflow's, whose database is not there."""

        @staticmethod
        def get(key, default=None, *, deserialize_json=False):
            if key not in kept:
                return default
            return json.loads(kept[key]) if deserialize_json else kept[key]

        @staticmethod
        def set(key, value, *, serialize_json=False):
            kept[key] = json.dumps(value) if serialize_json else value

    del context["task_state_store"]
    monkeypatch.setattr(compat, "Variable", Variable)
    run(rollout(domain, 3))
    assert run(rollout(domain, 3))["previous"]["version"] == 2
    (stored,) = kept.values()
    assert json.loads(stored)["previous"]["DefaultUserSettings"]["version"] == 2
    # One for each target, not for each run.
    context["ti"].run_id = "later"
    run(rollout(domain, 4))
    assert len(kept) == 1


def test_airflow_s_variables_take_these_parameters():
    get, set_ = (inspect.signature(getattr(compat.Variable, name)).parameters for name in ("get", "set"))
    assert list(get)[1].startswith("default")
    assert "deserialize_json" in get
    assert "serialize_json" in set_


# What does not follow


def test_who_keeps_another_version_is_in_the_log(account, domain, run, said):
    account.space(domain, "pinned", JupyterLabAppSettings={"DefaultResourceSpec": spec(IMAGE, 1)})
    account.space(domain, "free")
    account.app(domain, space="free", spec=spec(IMAGE, 2))
    account.profile(domain, "ann", **lab(custom_image(IMAGE, 2)))
    account.profile(domain, "bob")
    account.app(domain, "KernelGateway", profile="bob", spec=spec(IMAGE, 1))
    run(rollout(domain, 3))
    log = said()
    assert f"app default of space free in domain {domain} (JupyterLab) keeps version 2 until it is restarted" in log
    assert f"space pinned in domain {domain} (JupyterLab) keeps version 1 because its settings pin it" in log
    # They take precedence over the domain's.
    assert f"user profile ann in domain {domain} (JupyterLab) keeps version 2 because its settings pin it" in log
    assert "bob" not in log
    run(rollout(domain, 3, user_profile_name="bob", app_type="KernelGateway"))
    assert f"app default of user profile bob in domain {domain} (KernelGateway) keeps version 1 until it" in said()


@pytest.mark.parametrize("kind", ["access_denied", "throttling"])
def test_a_report_that_cannot_be_read_fails_no_rollout(account, domain, run, emulator, said, kind, monkeypatch):
    find = SageMakerImageVersionsHook.find_image_version_usage
    limits = []

    def find_briefly(*given, timeout, **more):
        limits.append(timeout)
        return find(*given, timeout=0.2, **more)

    monkeypatch.setattr(SageMakerImageVersionsHook, "find_image_version_usage", find_briefly)
    emulator.add_fault(kind, operation="ListApps", times=None)
    assert run(rollout(domain, 3))["changed"]
    (left,) = limits
    assert 0 < left < QUICK["timeout"]
    assert "could not read who keeps another version" in said()


def test_the_report_can_be_left_out(domain, run, emulator):
    run(rollout(domain, 3, report_remaining=False))
    assert emulator.calls("ListApps") == []


# The usage operator


def test_the_usage_operator_returns_who_uses_what(account, domain, run, said):
    account.space(domain, "notes", JupyterLabAppSettings={"DefaultResourceSpec": spec(IMAGE, 1)})
    operator = SageMakerImageVersionUsageOperator(task_id="usage", image_name=IMAGE)
    used = run(operator)
    assert list(used) == ["1", "2"]
    assert used["1"][0]["name"] == "notes"
    assert f"version 1 is used by space notes in domain {domain} (JupyterLab)" in said()
    other = account.domain("other")
    narrow = SageMakerImageVersionUsageOperator(task_id="u", image_name=IMAGE, scope="domains", domain_id=other)
    assert run(narrow) == {}


@pytest.mark.parametrize(("name", "value"), [("scope", "moon"), ("domain_id", "team"), ("timeout", 0)])
def test_the_usage_operator_checks_its_parameters(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        SageMakerImageVersionUsageOperator(task_id="usage", image_name=IMAGE, **{name: value})


def test_the_timeout_of_the_usage_operator_may_be_set_later(domain, run):
    task = SageMakerImageVersionUsageOperator(task_id="usage", image_name=IMAGE)
    task.timeout = timedelta(seconds=30)
    assert "2" in run(task)
    task.timeout = -1
    with pytest.raises(ValueError, match="timeout=-1 is not valid"):
        run(task)


def test_arns_of_versions_are_those_of_the_image(account):
    described = account.client.describe_image_version(ImageName=IMAGE, Version=1)
    assert described["ImageVersionArn"] == f"{VERSION_ARN}/{IMAGE}/1"
