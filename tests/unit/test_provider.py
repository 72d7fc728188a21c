from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import airflow
import jsonschema
import pytest

import airflow_provider_imageversions
from airflow_provider_imageversions import get_provider_info
from airflow_provider_imageversions.compat import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    BaseSensorOperator,
)
from airflow_provider_imageversions.errors import ImageVersionFailedError
from airflow_provider_imageversions.links import SageMakerImageLink, SageMakerStudioDomainLink
from airflow_provider_imageversions.model import ImageVersionStatus

DISTRIBUTION = "airflow-provider-imageversions"


def test_the_provider_info_is_valid_by_airflow_s_own_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_provider_info_names_this_distribution_and_version():
    info = get_provider_info()
    metadata = importlib.metadata.metadata(DISTRIBUTION)
    assert info["package-name"] == metadata["Name"] == DISTRIBUTION
    assert info["versions"] == [metadata["Version"]] == [airflow_provider_imageversions.__version__]


def test_airflow_finds_the_provider_by_its_entry_point():
    (entry_point,) = [
        entry_point
        for entry_point in importlib.metadata.entry_points(group="apache_airflow_provider")
        if entry_point.dist.name == DISTRIBUTION
    ]
    assert entry_point.load()() == get_provider_info()


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_every_module_of_the_provider_info_exists(kind):
    info = get_provider_info()
    integrations = {integration["integration-name"] for integration in info["integrations"]}
    for entry in info[kind]:
        assert entry["integration-name"] in integrations
        for module in entry["python-modules"]:
            importlib.import_module(module)


def test_every_extra_link_of_an_operator_is_in_the_provider_info():
    operators = [thing(path)[0] for path in API if path.startswith(("operators.", "sensors."))]
    links = {
        f"{type(link).__module__}.{type(link).__qualname__}"
        for operator in operators
        for link in operator.operator_extra_links
    }
    assert links == set(get_provider_info()["extra-links"])


def test_the_package_itself_imports_neither_airflow_nor_boto():
    program = (
        "import sys, airflow_provider_imageversions as package; package.get_provider_info();"
        "print([name for name in ('airflow', 'boto3', 'botocore') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["model", "decide", "studio"])
def test_the_pure_modules_import_neither_airflow_nor_boto(module):
    program = (
        f"import sys, airflow_provider_imageversions.{module};"
        "print([name for name in ('airflow', 'boto3', 'botocore', 'logging', 'time') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() in {"[]", "['time']"}


def test_no_module_of_the_package_needs_aiobotocore():
    root = Path(airflow_provider_imageversions.__file__).parent
    needs_airflow_3 = () if importlib.util.find_spec("airflow.sdk") else ("_start_run",)
    modules = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for path in root.rglob("*.py")
        if path.stem not in {"__init__", "__main__", *needs_airflow_3}
    ]
    program = "import sys, importlib; sys.modules['aiobotocore'] = None\n"
    program += "\n".join(f"importlib.import_module({module!r})" for module in modules)
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_only_the_decisions_compare_a_status():
    statuses = {status.value for status in ImageVersionStatus}
    for module in Path(airflow_provider_imageversions.__file__).parent.glob("*.py"):
        compared = [
            ast.unparse(comparison)
            for comparison in ast.walk(ast.parse(module.read_text()))
            if isinstance(comparison, ast.Compare)
            for part in ast.walk(comparison)
            if isinstance(part, ast.Constant) and part.value in {"ImageVersionStatus", *statuses}
        ]
        assert bool(compared) == (module.name == "decide.py"), (module.name, compared)


# The names, parameters and defaults that users and stored DAGs rely on; changing one is a breaking change.
API = {
    "hooks.SageMakerImageVersionsHook": (
        "aws_conn_id='aws_default', region_name=None, verify=None, config=None, **kwargs"
    ),
    "hooks.SageMakerImageVersionsHook.iter_image_versions": (
        "image_name, *, creation_time_after=None, creation_time_before=None, last_modified_time_after=None, "
        "last_modified_time_before=None, sort_by='CREATION_TIME', sort_order='DESCENDING', page_size=100, "
        "starting_token=None, statuses=None, limit=None"
    ),
    "hooks.SageMakerImageVersionsHook.describe_image_version": "image_name, version=None, alias=None",
    "hooks.SageMakerImageVersionsHook.list_aliases": "image_name, version=None",
    "hooks.SageMakerImageVersionsHook.iter_images": (
        "*, name_contains=None, creation_time_after=None, creation_time_before=None, last_modified_time_after=None, "
        "last_modified_time_before=None, sort_by='CREATION_TIME', sort_order='DESCENDING', page_size=100, "
        "starting_token=None, limit=None"
    ),
    "hooks.SageMakerImageVersionsHook.delete_image": "image_name",
    "hooks.SageMakerImageVersionsHook.find_image_version_usage": (
        "image_name, scope=('domains', 'apps', 'user_profiles', 'spaces'), *, domain_id=None, calls_per_second=None"
    ),
    "hooks.SageMakerImageVersionsHook.find_container_digests": "base_image",
    "hooks.SageMakerImageVersionsHook.compare_image_versions": "image_name, first, second",
    "operators.SageMakerListImageVersionsOperator": (
        "*, image_name, creation_time_after=None, creation_time_before=None, last_modified_time_after=None, "
        "last_modified_time_before=None, sort_by='CREATION_TIME', sort_order='DESCENDING', page_size=100, "
        "starting_token=None, statuses=None, limit=None, fields=None, include_details=False, "
        "aws_conn_id='aws_default', region_name=None, verify=None, botocore_config=None, **kwargs"
    ),
    "sensors.SageMakerImageVersionSensor": (
        "*, image_name, version=None, alias=None, after_version=None, created_after=None, include_details=False, "
        "aws_conn_id='aws_default', region_name=None, verify=None, botocore_config=None, deferrable=None, "
        "start_from_trigger=False, end_from_trigger=False, **kwargs"
    ),
    "operators.SageMakerCreateImageOperator": (
        "*, image_name, role_arn, display_name=None, description=None, tags=None, action_if_image_exists='use', "
        "wait_for_completion=True, **kwargs"
    ),
    "operators.SageMakerCreateImageVersionOperator": (
        "*, image_name, base_image, aliases=None, vendor_guidance=None, job_type=None, ml_framework=None, "
        "programming_lang=None, processor=None, horovod=None, release_notes=None, only_if_changed=False, "
        "if_unchanged='return', wait_for_completion=True, deferrable=None, **kwargs"
    ),
    "operators.SageMakerUpdateImageVersionOperator": (
        "*, image_name, version=None, alias=None, aliases_to_add=None, aliases_to_delete=None, "
        "vendor_guidance=None, job_type=None, ml_framework=None, programming_lang=None, processor=None, horovod=None, "
        "release_notes=None, **kwargs"
    ),
    "operators.SageMakerPromoteImageVersionOperator": (
        "*, image_name, aliases, version=None, alias=None, allow_rollback=True, **kwargs"
    ),
    "operators.SageMakerDeleteImageOperator": (
        "*, image_name, delete_if_aliased=False, refuse_if_used=False, wait_for_completion=True, **kwargs"
    ),
    "operators.SageMakerDeleteImageVersionOperator": (
        "*, image_name, version=None, alias=None, refuse_if_used=False, wait_for_completion=True, **kwargs"
    ),
    "operators.SageMakerPruneImageVersionsOperator": (
        "*, image_name, keep_newest=None, keep_younger_than=None, keep_versions=None, keep_aliased=True, "
        "keep_used=False, limit=None, preview=False, **kwargs"
    ),
    "operators.SageMakerRolloutImageVersionOperator": (
        "*, image_name, domain_id, version=None, alias=None, app_image_config_name=None, app_type='JupyterLab', "
        "user_profile_name=None, set_default=False, only_if_newer=False, restore=None, report_remaining=True, "
        "deferrable=None, **kwargs"
    ),
    "operators.SageMakerImageVersionUsageOperator": (
        "*, image_name, scope=('domains', 'apps', 'user_profiles', 'spaces'), domain_id=None, timeout=3600.0, **kwargs"
    ),
    "triggers.SageMakerStudioUpdateTrigger": (
        "*, domain_id, user_profile_name=None, check_interval=30.0, aws_conn_id='aws_default', region_name=None, "
        "verify=None, botocore_config=None, **_later"
    ),
    "triggers.SageMakerImageVersionEventTrigger": (
        "*, image_name, statuses=('CREATED',), start_from='latest', alias=None, poll_interval=60.0, "
        "include_details=False, wake_queue=None, aws_conn_id='aws_default', region_name=None, verify=None, "
        "botocore_config=None, **_later"
    ),
    "assets.image_version_asset": (
        "image_name, *, name=None, uri=None, group=None, extra=None, access_control=None, statuses=('CREATED',), "
        "start_from='latest', alias=None, poll_interval=60.0, include_details=False, wake_queue=None, "
        "aws_conn_id='aws_default', region_name=None, verify=None, botocore_config=None"
    ),
    "assets.uri_of": (
        "image_name, region_name=None, statuses=('CREATED',), alias=None, *, aws_conn_id='aws_default', name=None"
    ),
}
# What they all take besides, from the classes that they share.
SHARED = {
    "check_interval": "30.0",
    "timeout": "3600.0",
    "aws_conn_id": "'aws_default'",
    "region_name": "None",
    "verify": "None",
    "botocore_config": "None",
}
CHANGING = [path for path in API if path.startswith("operators.") and "List" not in path and "Usage" not in path]


def thing(path):
    """The class or method, and its parameters."""
    module, _, name = path.partition(".")
    subject = importlib.import_module(f"airflow_provider_imageversions.{module}")
    for part in name.split("."):
        subject = getattr(subject, part)
    parameters = inspect.signature(subject.__init__ if inspect.isclass(subject) else subject).parameters
    return subject, {name: value for name, value in parameters.items() if name != "self"}


@pytest.mark.parametrize("path", API)
def test_the_public_api_is_what_it_was(path):
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in thing(path)[1].values()]
    assert str(inspect.Signature(parameters)) == f"({API[path]})"


@pytest.mark.parametrize("path", API)
def test_every_parameter_of_the_public_api_is_documented(path):
    subject, parameters = thing(path)
    own = parameters.keys() - {"kwargs", "_later"}
    assert [name for name in own if f":param {name}:" not in subject.__doc__] == []


@pytest.mark.parametrize("path", CHANGING)
def test_what_the_operators_that_change_an_image_share_is_what_it_was_and_documented(path):
    subject, _ = thing(path)
    shared = {
        name: repr(parameter.default)
        for base in subject.__mro__
        if base.__module__.startswith("airflow_provider_imageversions.operators")
        for name, parameter in inspect.signature(base.__init__).parameters.items()
    }
    assert SHARED.items() <= shared.items()
    assert [name for name in SHARED if f":param {name}:" not in subject.__doc__] == []


REQUIRED = {
    "operators.SageMakerCreateImageOperator": {"role_arn": "arn:aws:iam::123456789012:role/sagemaker"},
    "operators.SageMakerCreateImageVersionOperator": {"base_image": "b"},
    "operators.SageMakerUpdateImageVersionOperator": {"version": 1},
    "operators.SageMakerPromoteImageVersionOperator": {"version": 1, "aliases": ["prod"]},
    "operators.SageMakerDeleteImageVersionOperator": {"version": 1},
    "operators.SageMakerPruneImageVersionsOperator": {"keep_newest": 1},
    "operators.SageMakerRolloutImageVersionOperator": {
        "domain_id": "d-1",
        "version": 1,
        "app_image_config_name": "config",
    },
}
TASKS = [path for path in API if path.startswith(("operators.", "sensors."))]


def own_parameters(subject):
    """The parameters of a class and of its bases in this package."""
    return {
        name
        for base in subject.__mro__
        if base.__module__.startswith("airflow_provider_imageversions.") and "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }


@pytest.mark.parametrize("path", TASKS)
def test_a_parameter_has_one_name_which_airflow_does_not_use_for_something_else(path):
    """A mapped task knows the parameters by the names of the arguments, and finds its upstreams in them."""
    subject, _ = thing(path)
    parameters = own_parameters(subject)
    base = next(base for base in subject.__mro__ if base in (BaseSensorOperator, BaseOperator))
    taken = {*dir(base), *inspect.signature(base.__init__).parameters}
    # What Airflow means by the one that it has, too, is what the sensor means.
    assert parameters & taken <= {"start_from_trigger"}
    assert set(subject.template_fields) <= parameters
    task = subject(task_id="a", image_name="a", **REQUIRED.get(path, {}))
    assert [name for name in parameters if not hasattr(task, name)] == []


@pytest.mark.parametrize("path", CHANGING)
def test_a_parameter_of_another_operator_is_refused(path):
    subject, _ = thing(path)
    with pytest.raises((TypeError, AirflowException), match="poke_interval"):
        subject(task_id="a", image_name="a", poke_interval=1, **REQUIRED.get(path, {}))


def test_a_failed_version_is_an_error_that_airflow_does_not_retry():
    assert issubclass(ImageVersionFailedError, AirflowFailException)


@pytest.mark.parametrize(
    ("domain", "region"),
    [("aws.amazon.com", "us-east-1"), ("amazonaws.cn", "cn-north-1"), ("amazonaws-us-gov.com", "us-gov-west-1")],
)
def test_the_console_link_is_right_for_the_partition(domain, region):
    link = SageMakerImageLink().format_link(aws_domain=domain, region_name=region, image_name="my-image")
    assert link == f"https://console.{domain}/sagemaker/home?region={region}#/images/my-image"
    link = SageMakerStudioDomainLink().format_link(aws_domain=domain, region_name=region, domain_id="d-abcdefghijkl")
    assert link == f"https://console.{domain}/sagemaker/home?region={region}#/studio/d-abcdefghijkl"
