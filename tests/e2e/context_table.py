"""
What templates render in a worker and in the triggerer, as seen in a real Airflow: context_table.csv.

A row is a template, a column a kind of run, a cell one of the words of :data:`WORDS`. ``test_context.py`` compares it
with the Airflow that is installed; with ``CONTEXT_TABLE=write`` in the environment it rewrites it.
"""

from __future__ import annotations

import csv
from pathlib import Path

FILE = Path(__file__).with_suffix(".csv")
WORDS = {
    "same": "both render the same value of the same type",
    "raises": "both raise an error",
    "differs": "both render something, but not the same",
    "empty": "a worker renders something, the triggerer an empty text",
    "fails": "a worker renders something, the triggerer raises an error",
    "unnoticed": "a worker raises an error, the triggerer renders an empty text",
    "wrong": "a worker raises an error, the triggerer renders something",
    "hangs": "Airflow does not answer what the triggerer asks it for",
}
RUNS = {
    "dated": "a run with a logical date and a conf",
    "undated": "a run without them",
    "asset": "a run that an asset event started",
    "cleared": "the second try of the dated run",
    "strict": "as dated, but the trigger makes its environment strict",
    "strict_undated": "as undated, but the trigger makes its environment strict",
}
NATIVE, CUSTOM = "context_native", "context_custom"
"""DAGs with ``render_template_as_native_obj``, and with macros, filters and an environment of their own."""


def read():
    with FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows):
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["dag", "template", *RUNS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def templates(dag_id):
    """The templates that are tried in a DAG."""
    return [row["template"] for row in read() if row["dag"] == dag_id]


def verdict(worker, triggerer):
    """
    Give the word for two outcomes.

    An outcome is how it ended, the type and the text of the value, or of the error.
    """
    if triggerer[0] == "hangs":
        return "hangs"
    renders = worker[0] == "renders", triggerer[0] == "renders"
    if renders == (True, True):
        return "same" if worker == triggerer else "differs" if triggerer[2] else "empty"
    if renders == (False, True):
        return "wrong" if triggerer[2] else "unnoticed"
    return "fails" if renders == (True, False) else "raises"
