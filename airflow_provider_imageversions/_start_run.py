"""The operator that starts a run. A separate module, because Airflow 2 may not have its base class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

if TYPE_CHECKING:
    from collections.abc import Sequence


class StartRunOperator(TriggerDagRunOperator):
    """
    Start a run whose ``conf`` is not rendered.

    The ``conf`` contains text that people wrote about a version, such as ``ReleaseNotes``. Airflow would render it as a
    template: of the values that ``expand_kwargs()`` takes from an XCom, it skips strings, but not dictionaries.
    """

    template_fields: Sequence[str] = ("trigger_dag_id", "trigger_run_id")
