"""Decide whether a task can start and end in the triggerer without losing anything that its author configured."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import meta, nodes

from airflow_provider_imageversions._parameters import is_literal, iter_strings, template_pattern
from airflow_provider_imageversions.compat import (
    ENDS_FROM_TRIGGER,
    STARTS_FROM_TRIGGER,
    BaseOperator,
    BaseSensorOperator,
    conf,
    keeps_xcom_in_database,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.triggers.base import StartTriggerArgs

_IN_WORKERS = ("render_template_fields", "render_template", "poke")
_TEXTS = (
    *("run_id", "task_instance_key_str", "partition_key"),
    *("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"),
)
_TIMES = ("logical_date", "data_interval_start", "data_interval_end")
_MEMBERS = {
    "dag_run": ("conf", "run_id", "dag_id", *_TIMES, "run_after"),
    "ti": ("task_id", "dag_id", "run_id", "map_index", "try_number"),
    "task_instance": ("task_id", "dag_id", "run_id", "map_index", "try_number"),
    "task": ("task_id",),
    "dag": ("dag_id",),
    "macros": ("ds_add", "ds_format", "timedelta", "json"),
}
_OF_TIMES = ("isoformat", "strftime", "format", "add", "subtract", "date", "timestamp", "int_timestamp", "year")
# It only parses templates. What it does not support, such as a tag of an extension, is an error.
_PARSER = jinja2.Environment(autoescape=True)
_PARSER.filters.update(dict.fromkeys(("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"), str))
del _PARSER.filters["random"]
_PARSER.globals.clear()  # so that each of them counts as a name

SAFE_NAMES = frozenset(
    {
        *_TEXTS,
        *("range", "dict", "namespace"),
        *(f"{name}.{member}" for name, members in _MEMBERS.items() for member in members if member not in _TIMES),
        *(f"{time}.{member}" for time in _TIMES for member in _OF_TIMES),
        *(f"dag_run.{time}.{member}" for time in _TIMES for member in _OF_TIMES),
    }
)
"""
Names that a template may use to start in the triggerer, including their attributes.

Tests show that each renders to the same value there as in a worker: tests/e2e/context_table.csv.
"""
SAFE_ALONE = frozenset({*_TIMES, *(f"dag_run.{time}" for time in _TIMES)})
"""Names that it may use without attributes: a time has methods such as ``now()``."""
SAFE_ITEMS = "params"
"""A name whose items are safe, but not its methods: in the triggerer, the object has another type."""
_METHODS = frozenset(dir(dict)) - {"get"}
_NO_TEMPLATE = re.compile("(?!)")  # matches nothing, so that each string is a literal
_PULLS = {"ti.xcom_pull", "task_instance.xcom_pull"}


def unsafe_names(text: str) -> list[str]:
    """
    Return the names in a template that may render differently in the triggerer than in a worker.

    :param text: The template, with Jinja's own delimiters.
    """
    try:
        tree = _PARSER.parse(text)
        roots = meta.find_undeclared_variables(tree)
    except jinja2.TemplateError as error:
        return [f"{text!r} ({error})"]
    used = {path for path in _paths(tree) if path.partition(".")[0] in roots}
    unsafe = {path for path in used if not _is_safe(path)}
    loads = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    unsafe |= {type(each).__name__.lower() for each in tree.find_all(loads)}
    return sorted(unsafe)


def _is_safe(path: str) -> bool:
    if path in SAFE_ALONE or path in SAFE_NAMES:
        return True
    parts = path.split(".")
    if parts[0] == SAFE_ITEMS:
        return len(parts) > 1 and parts[1] not in _METHODS
    return any(".".join(parts[:length]) in SAFE_NAMES for length in range(1, len(parts)))


def _paths(node: nodes.Node) -> Iterator[str]:
    """Yield each name in a template with its constant members, such as ``dag_run.conf.x``."""
    path = _path(node)
    if path is not None:
        yield path
        return
    # Without map_indexes, Airflow reads those of the upstream task, and hangs in the triggerer.
    pulls = isinstance(node, nodes.Call) and _path(node.node) in _PULLS and _has_map_indexes(node)
    for child in node.iter_child_nodes(exclude=("node",) if pulls else None):
        yield from _paths(child)


def _has_map_indexes(call: nodes.Call) -> bool:
    given = [keyword.value for keyword in call.kwargs if keyword.key == "map_indexes"]
    return any(isinstance(value, (nodes.Const, nodes.List, nodes.Neg)) for value in given)


def _path(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        member: Any = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        member = node.arg.value
    else:
        return None
    before = _path(node.node)
    return None if before is None else f"{before}.{member}"


def obstacles_to_start(task: Any, fields: Iterable[str]) -> list[str]:
    """
    Return why a task cannot start in the triggerer without a worker.

    :param task: The task when its DAG is serialized.
    :param fields: Names of the template fields that its trigger needs.
    """
    values = [getattr(task, name) for name in fields]
    dag = task.get_dag()
    pattern = template_pattern(getattr(dag, "jinja_environment_kwargs", None))
    templates = [text for value in values for text in iter_strings(value) if not is_literal(text, pattern)]
    is_limited = task.max_active_tis_per_dag is not None or task.max_active_tis_per_dagrun is not None
    obstacles = {
        "this Airflow, older than 3.3, cannot start a task in the triggerer": not STARTS_FROM_TRIGGER,
        "an XComArg or a callable is not resolved in the triggerer": not is_literal(values, _NO_TEMPLATE),
        "params with a JSON schema or without a value may end the triggerer": _may_be_invalid(task),
        "pool slots are not counted in the triggerer": task.pool != "default_pool" or task.pool_slots != 1,
        "max_active_tis_per_dag and max_active_tis_per_dagrun do not apply in the triggerer": is_limited,
        "the triggerer does not distinguish execution_timeout from timeout": task.execution_timeout is not None,
        "only workers validate inlets": bool(task.inlets),
        "only workers render map_index_template": bool(task.map_index_template) and task.end_from_trigger,
        "Airflow does not assign it to a trigger queue": conf.getboolean("triggerer", "queues_enabled", fallback=False),
        **{f"{name} would not run before the wait": True for name in _run_before(task)},
    }
    found = [obstacle for obstacle, applies in obstacles.items() if applies]
    if templates:
        found += _obstacles_of_templates(task, dag, templates)
    return found


def _obstacles_of_templates(task: Any, dag: Any, templates: list[str]) -> list[str]:
    is_native = getattr(task, "render_template_as_native_obj", None)
    if is_native is None:
        is_native = getattr(dag, "render_template_as_native_obj", False)
    obstacles = {
        "the triggerer does not know the DAG's Jinja environment": _has_own_environment(dag),
        "the triggerer does not know the DAG's macros and filters": bool(
            getattr(dag, "user_defined_macros", None) or getattr(dag, "user_defined_filters", None)
        ),
        "templates render to strings in the triggerer, even with render_template_as_native_obj=True": bool(is_native),
        "with end_from_trigger=True, no worker checks what templates rendered to": task.end_from_trigger,
    }
    found = [obstacle for obstacle, applies in obstacles.items() if applies]
    unsafe = sorted({name for text in templates for name in unsafe_names(text)})
    if unsafe:
        found.append(f"templates with {', '.join(unsafe)} may render to other values in the triggerer")
    return found


def _has_own_environment(dag: Any) -> bool:
    undefined = getattr(dag, "template_undefined", jinja2.StrictUndefined)
    return bool(getattr(dag, "jinja_environment_kwargs", None)) or undefined is not jinja2.StrictUndefined


def _may_be_invalid(task: Any) -> bool:
    """Return whether Airflow may reject the params of a run, which ends the triggerer's process, not just the task."""
    dag_params = getattr(task.get_dag(), "params", None) or {}
    # Not values(), which resolves each param and raises for one without a value.
    params = [param for source in (dag_params, task.params or {}) for _, param in source.items()]
    return any(param.schema or not param.has_value for param in params)


def _run_before(task: Any) -> list[str]:
    """Return the names of what a worker runs before it waits."""
    hooks = {"on_execute_callback": task.on_execute_callback, "pre_execute": getattr(task, "_pre_execute_hook", None)}
    return [name for name, hook in hooks.items() if hook] + overridden(task, ("pre_execute", "execute", *_IN_WORKERS))


def overridden(task: Any, methods: Iterable[str]) -> list[str]:
    """
    Return the methods that are not this package's or Airflow's, but a subclass's, or were set on the task itself.

    :param task: The task.
    :param methods: Names of the methods.
    """
    own = __name__.partition(".")[0]
    found = []
    for name in methods:
        definer = next(each for each in type(task).__mro__ if name in vars(each))
        if name in vars(task):
            found.append(f"{name}()")
        elif definer.__module__.partition(".")[0] != own and definer not in {BaseOperator, BaseSensorOperator}:
            found.append(f"{definer.__name__}.{name}()")
    return found


def obstacles_to_end(task: Any) -> list[str]:
    """
    Return why a task cannot end in the triggerer without a worker.

    :param task: The task when its DAG is serialized or when it runs.
    """
    skipped = ("outlets", "on_execute_callback", "on_success_callback", "multiple_outputs")
    given = [name for name in skipped if getattr(task, name, None)]
    given += [name for name in ("pre_execute", "post_execute") if getattr(task, f"_{name}_hook", None)]
    given += overridden(task, ("pre_execute", "post_execute", "execute_complete", "resume_execution", *_IN_WORKERS))
    obstacles = {
        "this Airflow, older than 3.3, cannot write an XCom from the triggerer": not ENDS_FROM_TRIGGER,
        "a custom XCom backend would block the triggerer": not keeps_xcom_in_database(),
        "do_xcom_push=False leaves nothing to push": not task.do_xcom_push,
        "another task is mapped over its result": task.get_dag() is not None
        and any(True for _ in task.iter_mapped_dependants()),
        "its result is the result of the DAG": getattr(task, "returns_dag_result", False),
        f"Airflow skips {', '.join(given)} when a task ends in the triggerer": bool(given),
    }
    return [obstacle for obstacle, applies in obstacles.items() if applies]


class Unless:
    """
    A boolean attribute of a task that is False while there is an obstacle.

    It is a descriptor because Airflow reads ``start_from_trigger`` from instances that are not complete yet and, for
    mapped tasks, from the class, where it must be ``False``. It is decided when it is read, because a cluster policy or
    a later line of the DAG file may change the task.

    :param obstacles: Name of the task's method that returns the obstacles.
    """

    def __init__(self, obstacles: str) -> None:
        self._obstacles = obstacles

    def __set_name__(self, owner: type, name: str) -> None:
        self._requested = f"_{name}_requested"

    def __get__(self, task: Any, owner: type | None = None) -> bool:
        return self.is_requested(task) and not getattr(task, self._obstacles)()

    def __set__(self, task: Any, value: bool) -> None:  # noqa: FBT001  # of a descriptor
        vars(task)[self._requested] = value

    def is_requested(self, task: Any) -> bool:
        """
        Return the value that was set.

        :param task: The task; ``None`` for the class.
        """
        return task is not None and bool(vars(task).get(self._requested, False))


class StartTriggerArguments:
    """The attribute ``start_trigger_args`` of a sensor: the arguments of its trigger, decided when it is read."""

    def __get__(self, task: Any, owner: type | None = None) -> StartTriggerArgs | None:
        return None if task is None or not task.start_from_trigger else task.make_start_trigger_args()
