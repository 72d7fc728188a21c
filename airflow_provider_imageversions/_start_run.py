"""The task of a dispatching DAG that starts a run. A module of its own, as only Airflow 3 is sure to have its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

if TYPE_CHECKING:
    from collections.abc import Sequence


class StartRunOperator(TriggerDagRunOperator):
    """
    Start a run whose ``conf`` is not rendered.

    It holds what SageMaker and people wrote about a version, such as ``ReleaseNotes``. Airflow would render it, though
    it comes from an XCom: of the values that ``expand_kwargs()`` takes from one, it spares texts, but not dictionaries.
    """

    template_fields: Sequence[str] = ("trigger_dag_id", "trigger_run_id")
