from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
from pathlib import Path

import airflow
import jsonschema
import pytest

import airflow_provider_imageversions
from airflow_provider_imageversions import get_provider_info
from airflow_provider_imageversions.assets import image_version_asset, uri_of
from airflow_provider_imageversions.compat import (
    AirflowException,
    AirflowFailException,
    BaseHook,
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
    links = {
        f"{type(link).__module__}.{type(link).__qualname__}" for task in TASKS for link in task.operator_extra_links
    }
    assert links == set(get_provider_info()["extra-links"])


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


def public_classes():
    """The hook, operators, sensors and triggers, in the modules of the provider's metadata."""
    info = get_provider_info()
    modules = [
        name for kind in ("hooks", "operators", "sensors", "triggers") for name in info[kind][0]["python-modules"]
    ]
    return [
        subject
        for module in map(importlib.import_module, modules)
        for name, subject in vars(module).items()
        if inspect.isclass(subject)
        and name.startswith("SageMaker")
        and subject.__module__.startswith(module.__name__)
        and not issubclass(subject, Exception)
    ]


def own_parameters(subject):
    """The parameters of a class and of its bases in this package, or those of a function, with their defaults."""
    functions = (
        [base.__init__ for base in subject.__mro__ if base.__module__.startswith("airflow_provider_imageversions.")]
        if inspect.isclass(subject)
        else [subject]
    )
    return {
        name: parameter.default
        for function in reversed(functions)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in {"self", "_later"} and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }


PUBLIC = public_classes()
METHODS = [
    method
    for subject in PUBLIC
    if issubclass(subject, BaseHook)
    for name, method in vars(subject).items()
    if inspect.isfunction(method) and not name.startswith("_")
]
TASKS = [subject for subject in PUBLIC if issubclass(subject, BaseOperator)]


DOCUMENTED = [*PUBLIC, *METHODS, image_version_asset, uri_of]


@pytest.mark.parametrize("subject", DOCUMENTED, ids=lambda it: it.__qualname__)
def test_every_parameter_is_documented(subject):
    assert [name for name in sorted(own_parameters(subject)) if f":param {name}:" not in subject.__doc__] == []


@pytest.mark.parametrize("subject", DOCUMENTED, ids=lambda it: it.__qualname__)
def test_a_documented_default_is_the_real_one(subject):
    stated = dict(
        re.findall(r":param (\w+):(?:(?!:param).)*?\(default:\s+`{0,2}\"?([^`\"),]+)", subject.__doc__, re.DOTALL)
    )
    real = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in own_parameters(subject).items()
        if isinstance(value, (bool, int, float, str)) and name in stated
    }
    assert {name: stated[name] for name in real} == real


@pytest.mark.parametrize("subject", TASKS, ids=lambda it: it.__name__)
def test_template_fields_are_documented_as_templated(subject):
    stated = re.findall(r":param (\w+):(?:(?!:(?:param|raises|return)).)*?\(templated\)", subject.__doc__, re.DOTALL)
    assert sorted(stated) == sorted(subject.template_fields)


REQUIRED = {
    "SageMakerCreateImageOperator": {"role_arn": "arn:aws:iam::123456789012:role/sagemaker"},
    "SageMakerCreateImageVersionOperator": {"base_image": "b"},
    "SageMakerUpdateImageVersionOperator": {"version": 1, "release_notes": "x"},
    "SageMakerPromoteImageVersionOperator": {"version": 1, "aliases": ["prod"]},
    "SageMakerDeleteImageVersionOperator": {"version": 1},
    "SageMakerPruneImageVersionsOperator": {"keep_newest": 1},
    "SageMakerRolloutImageVersionOperator": {
        "domain_id": "d-1",
        "version": 1,
        "app_image_config_name": "config",
    },
}


@pytest.mark.parametrize("subject", TASKS, ids=lambda it: it.__name__)
def test_parameter_names_do_not_collide_with_airflow_s(subject):
    """A mapped task knows the parameters by the names of the arguments, and finds its upstreams in them."""
    parameters = own_parameters(subject).keys()
    base = next(base for base in subject.__mro__ if base in (BaseSensorOperator, BaseOperator))
    taken = {*dir(base), *inspect.signature(base.__init__).parameters}
    # What Airflow means by the one that it has, too, is what the sensor means.
    assert parameters & taken <= {"start_from_trigger"}
    assert set(subject.template_fields) <= parameters
    task = subject(task_id="a", image_name="a", **REQUIRED.get(subject.__name__, {}))
    assert [name for name in parameters if not hasattr(task, name)] == []


@pytest.mark.parametrize("subject", [it for it in TASKS if it.__name__ in REQUIRED], ids=lambda it: it.__name__)
def test_a_parameter_of_another_operator_is_refused(subject):
    with pytest.raises((TypeError, AirflowException), match="poke_interval"):
        subject(task_id="a", image_name="a", poke_interval=1, **REQUIRED[subject.__name__])


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
