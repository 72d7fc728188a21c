"""Template fields of operators and sensors: checks when the DAG is parsed, and of values that rendered to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import jinja2

from airflow_provider_imageversions._parameters import (
    Parameters,
    blank_parameter,
    is_blank,
    is_literal,
    is_rendered_blank,
    iter_strings,
    template_pattern,
)
from airflow_provider_imageversions.hooks import AWS_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from re import Pattern


class TemplatedParameters:
    """
    Mix-in for operators and sensors, before Airflow's class.

    A value without a template stays unchanged, even in a DAG with ``render_template_as_native_obj=True``, which would
    convert the string ``"1.0"`` to a number. A value that renders to nothing is an error: if it counted as not set, the
    task would work on more than its author intended.
    """

    _parameters: ClassVar[type[Parameters]] = Parameters
    """The parameters that are template fields, apart from those of the connection."""
    _own_template_fields: Sequence[str] = ()
    """The template fields of this package's classes. Subclasses in other packages may add fields with other rules."""
    _without_value: frozenset[str] = frozenset()
    """The template fields with a template, or an item that is a template, that rendered to nothing."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] == __package__:
            cls._own_template_fields = tuple(getattr(cls, "template_fields", ()))

    @property
    def _template(self) -> Pattern[str]:
        """Pattern that matches the start of a template in the task's DAG."""
        dag = self.get_dag()  # type: ignore[attr-defined]  # BaseOperator's
        return template_pattern(getattr(dag, "jinja_environment_kwargs", None))

    def _set_parameters(self, values: Mapping[str, Any]) -> None:
        """
        Set the attributes that are template fields, and check those that are known when the DAG is parsed.

        :param values: The constructor's ``locals()``.
        :raises ValueError: A value is outside its limits.
        """
        for name in self._parameters.names():
            setattr(self, name, values[name])
        self._parameters.check_literals(self, self._template)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Render a value, unless it is a string without a template.

        :param content: The value.
        :param args: Positional arguments of Airflow's method.
        :param kwargs: Keyword arguments of Airflow's method.
        """
        is_text = isinstance(content, str) and not content.endswith(tuple(self.template_ext))  # type: ignore[attr-defined]  # likewise
        if is_text and is_literal(content, self._template):
            return content
        rendered = super().render_template(content, *args, **kwargs)  # type: ignore[misc]  # likewise
        if not is_text or not (names := self._own_names(content)):
            return rendered
        if rendered is None or isinstance(rendered, jinja2.Undefined):
            # A native environment returns None, or an object of Jinja, for a template without a value. So that it does
            # not count as "not set", it becomes the string, or the error, of other environments.
            rendered = str(rendered)
        if is_rendered_blank(rendered):
            self._without_value |= names
        return rendered

    def _own_names(self, content: str) -> frozenset[str]:
        names = self._own_template_fields
        return frozenset(name for name in names if content in iter_strings(getattr(self, name, None)))

    def _check_rendered(self) -> None:
        """
        Check that no value rendered to nothing, before the task uses any of them.

        The parameters of the connection may render to nothing, which means their defaults.

        :raises ValueError: A value rendered to nothing.
        """
        for name in self._own_template_fields:
            value = getattr(self, name)
            if name in AWS_PARAMETERS:
                continue
            # A dict may have empty values, such as a tag without a value, but not by a template.
            items = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
            if name in self._without_value or any(map(is_blank, items)):
                raise blank_parameter(name, value)
