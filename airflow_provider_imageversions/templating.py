"""Template fields of operators and sensors: what is known when the DAG is parsed, and what rendered to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_imageversions.hooks import AWS_PARAMETERS
from airflow_provider_imageversions.model import blank_value, is_blank, is_settled, template_pattern, texts_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from re import Pattern


class TemplatedParameters:
    """
    Mix-in for operators and sensors, before Airflow's class.

    A value without a template is what its author wrote, also in a DAG with ``render_template_as_native_obj=True``,
    which would make a number of the text ``"1.0"``. A value that renders to nothing is an error: as "not given" it
    would make the task work on more than its author asked for.
    """

    _own_template_fields: Sequence[str] = ()
    """Those of the classes of this package; a subclass elsewhere may add others, with rules of their own."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] == __package__:
            cls._own_template_fields = tuple(getattr(cls, "template_fields", ()))

    @property
    def _template(self) -> Pattern[str]:
        """What a template begins with, in the task's DAG."""
        dag = self.get_dag()  # type: ignore[attr-defined]  # BaseOperator's
        return template_pattern(getattr(dag, "jinja_environment_kwargs", None))

    def _is_settled(self, *names: str) -> bool:
        """
        Return whether the values of template fields are known when the DAG is parsed.

        :param names: Names of the fields.
        """
        return all(is_settled(getattr(self, name), self._template) for name in names)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Render a value, except for a text without a template.

        :param content: The value.
        :param args: Of Airflow's method.
        :param kwargs: Of Airflow's method.
        """
        is_text = isinstance(content, str) and not content.endswith(tuple(self.template_ext))  # type: ignore[attr-defined]  # likewise
        if is_text and is_settled(content, self._template):
            return content
        rendered = super().render_template(content, *args, **kwargs)  # type: ignore[misc]  # likewise
        if rendered is None and is_text and self._is_own(content):
            # A native environment makes None of a template that has no value, which must not read as "not given".
            return str(rendered)
        return rendered

    def _is_own(self, content: str) -> bool:
        return any(content in texts_in(getattr(self, name, None)) for name in self._own_template_fields)

    def _check_rendered(self) -> None:
        """
        Check that no value rendered to nothing, before the task uses any of them.

        The parameters that say how to reach AWS may, and then have their default.

        :raises ValueError: One did.
        """
        for name in self._own_template_fields:
            value = getattr(self, name)
            if name in AWS_PARAMETERS:
                continue
            if is_blank(value):
                raise blank_value(name, value)
            # The values of a dict are texts of the author's, such as a tag without a value.
            if isinstance(value, (list, tuple, set, frozenset)) and any(map(is_blank, texts_in(value))):
                raise blank_value(name, value)
