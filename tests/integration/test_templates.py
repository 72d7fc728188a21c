"""What templates render to, in every operator and sensor and for every parameter of theirs."""

from __future__ import annotations

import inspect
from itertools import product
from types import SimpleNamespace

import jinja2
import pytest

from airflow_provider_imageversions import operators, sensors
from airflow_provider_imageversions.hooks import AWS_DEFAULTS, AWS_PARAMETERS, aws_parameters

REQUIRED = {
    "SageMakerCreateImageOperator": {"role_arn": "arn:aws:iam::123456789012:role/r"},
    "SageMakerCreateImageVersionOperator": {"base_image": "repository:tag"},
    "SageMakerUpdateImageVersionOperator": {"version": 1, "release_notes": "x"},
    "SageMakerPromoteImageVersionOperator": {"version": 1, "aliases": ["prod"]},
    "SageMakerDeleteImageVersionOperator": {"version": 1},
    "SageMakerPruneImageVersionsOperator": {"keep_newest": 1},
    "SageMakerRolloutImageVersionOperator": {"domain_id": "d-1", "version": 1, "app_image_config_name": "config"},
}
CLASSES = sorted(
    {
        each
        for module in (operators, sensors)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__name__.startswith("SageMaker") and hasattr(each, "template_fields")
    },
    key=lambda each: each.__name__,
)
FIELDS = [(each, name) for each in CLASSES for name in each.template_fields if name not in AWS_PARAMETERS]


def task_of(task_class, arguments, params, *, native):
    """A task whose templates are rendered, as a worker does it."""
    try:
        from airflow.sdk import DAG
    except ImportError:  # Airflow 2
        from airflow import DAG

    given = {**REQUIRED.get(task_class.__name__, {}), **arguments}
    if {"alias", "restore"} & arguments.keys():
        given.pop("version", None)
    if "restore" in arguments:
        given.pop("app_image_config_name", None)
    with DAG("templates", schedule=None, render_template_as_native_obj=native):
        task = task_class(task_id="task", **{"image_name": "my-image", **given})
    task.render_template_fields({"params": params})
    return task


@pytest.mark.parametrize(("task_class", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_template_without_a_value_is_an_error_that_names_the_parameter(
    emulator, connection, context, task_class, name
):
    for value, native in product((None, ""), (False, True)):
        task = task_of(task_class, {name: "{{ params.x }}"}, {"x": value}, native=native)
        with pytest.raises(ValueError, match=rf"^{name}\b.* is not valid"):
            task.execute(context)
    assert emulator.calls() == []


@pytest.mark.parametrize("filtered", ["tojson", "lower", "upper"])
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_filter_does_not_make_a_value_of_nothing(emulator, connection, context, filtered, native):
    for task_class, name in [
        (operators.SageMakerPromoteImageVersionOperator, "aliases"),
        (operators.SageMakerDeleteImageOperator, "image_name"),
        (operators.SageMakerUpdateImageVersionOperator, "release_notes"),
    ]:
        task = task_of(task_class, {name: f"{{{{ params.x | {filtered} }}}}"}, {"x": None}, native=native)
        with pytest.raises(ValueError, match=rf"^{name}\b.* is not valid"):
            task.execute(context)
    assert emulator.calls() == []


LISTS = [
    (each, name) for each, name in FIELDS if name in {"aliases", "aliases_to_add", "aliases_to_delete", "statuses"}
]


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_name_that_is_undefined_is_the_same_error_in_text_and_native_rendering(native):
    with pytest.raises(jinja2.UndefinedError, match="typo"):
        task_of(operators.SageMakerListImageVersionsOperator, {"limit": "{{ params.typo }}"}, {}, native=native)


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_name_that_may_be_undefined_renders_to_nothing(emulator, connection, context, native):
    try:
        from airflow.sdk import DAG
    except ImportError:  # Airflow 2
        from airflow import DAG

    with DAG("lenient", schedule=None, render_template_as_native_obj=native, template_undefined=jinja2.Undefined):
        task = operators.SageMakerListImageVersionsOperator(
            task_id="task", image_name="my-image", limit="{{ params.typo }}", region_name="{{ params.typo }}"
        )
    task.render_template_fields({"params": {}})
    assert aws_parameters(task)["region_name"] is None
    with pytest.raises(ValueError, match=r"^limit='' is not valid: it is empty or rendered to nothing"):
        task.execute(context)


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(("task_class", "name"), LISTS, ids=lambda value: getattr(value, "__name__", value))
def test_an_item_of_a_list_that_renders_to_nothing_is_an_error(emulator, connection, context, task_class, name, native):
    emulator.create_versions("my-image", 2)
    task = task_of(task_class, {name: ["CREATED", "{{ params.x }}"]}, {"x": None}, native=native)
    with pytest.raises(ValueError, match=rf"^{name}\b.* is not valid"):
        task.execute(context)


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("form", [lambda tag: {"team": tag}, lambda tag: [{"Key": "team", "Value": tag}]])
@pytest.mark.parametrize("value", [None, ""], ids=["none", "empty"])
def test_a_tag_may_be_empty_but_its_template_may_not_render_to_nothing(
    emulator, context, connection, native, form, value
):
    def task(tag):
        return task_of(operators.SageMakerCreateImageOperator, {"tags": form(tag)}, {"x": value}, native=native)

    with pytest.raises(ValueError, match=r"^tags=.* is not valid: it is empty or rendered to nothing"):
        task("{{ params.x }}").execute(context)
    task("").execute(context)
    (call,) = emulator.calls("CreateImage")
    assert call["parameters"]["Tags"] == [{"Key": "team", "Value": ""}]


ALIASES = [(each, name) for each, name in FIELDS if name.startswith("alias")]


@pytest.mark.parametrize(("task_class", "name"), ALIASES, ids=lambda value: getattr(value, "__name__", value))
def test_an_alias_that_renders_to_nothing_in_a_longer_text_is_an_error(emulator, connection, context, task_class, name):
    """Else a version would get the alias "None"."""
    text = "{{ params.x }}" if name == "alias" else "stable, {{ params.x }}"
    task = task_of(task_class, {name: text}, {"x": None}, native=False)
    with pytest.raises(ValueError, match=rf"^{name}\b.* is not valid: it is empty or rendered to nothing"):
        task.execute(context)


@pytest.mark.parametrize(("task_class", "name"), ALIASES, ids=lambda value: getattr(value, "__name__", value))
def test_an_alias_of_the_name_none_is_refused_when_the_dag_is_parsed(task_class, name):
    with pytest.raises(ValueError, match=rf"^{name}='None' is not valid"):
        task_of(task_class, {name: "None"}, {}, native=False)


@pytest.mark.parametrize("task_class", CLASSES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_how_to_reach_aws_may_render_to_nothing_and_then_is_the_default(task_class, native):
    task = task_of(task_class, dict.fromkeys(AWS_PARAMETERS, "{{ params.x }}"), {"x": None}, native=native)
    assert aws_parameters(task) == AWS_DEFAULTS


LITERALS = {
    "alias": "1.0",
    "aliases": ["2.0", "3"],
    "aliases_to_add": ["2.10"],
    "release_notes": "1.50",
    "description": "[1, 2]",
    "display_name": "True",
    "tags": {"version": "1.0"},
    "region_name": "us-east-1",
    "botocore_config": {"user_agent_extra": "2.50"},
}


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("task_class", CLASSES, ids=lambda each: each.__name__)
def test_a_value_without_a_template_is_what_its_author_wrote(task_class, native):
    literals = {name: value for name, value in LITERALS.items() if name in task_class.template_fields}
    task = task_of(task_class, literals, {}, native=native)
    assert {name: getattr(task, name) for name in literals} == literals


def test_a_literal_beside_a_template_is_what_its_author_wrote():
    task = task_of(
        operators.SageMakerCreateImageVersionOperator,
        {"aliases": ["2.0", "{{ params.x }}"]},
        {"x": "blue"},
        native=True,
    )
    assert task.aliases == ["2.0", "blue"]


@pytest.mark.parametrize("value", [None, ""])
def test_none_at_run_time_means_not_set_but_an_empty_string_does_not(emulator, connection, context, value):
    """As an XComArg is resolved, and a DAG's parameter, which needs no database here."""
    try:
        from airflow.sdk import DAG
    except ImportError:  # Airflow 2
        from airflow import DAG

    emulator.create_versions("my-image", 2)
    with DAG("resolved", schedule=None) as dag:
        task = operators.SageMakerListImageVersionsOperator(
            task_id="task", image_name="my-image", limit=dag.param("limit", default=value)
        )
    task.render_template_fields({"params": {}, "dag_run": SimpleNamespace(conf={})})
    if value is None:
        assert len(task.execute(context)) == 2
    else:
        with pytest.raises(ValueError, match=r"^limit="):
            task.execute(context)
