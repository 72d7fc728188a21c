from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_parsed_and_has_tasks(path):
    text = path.read_text()
    if "For Airflow 3." in text:
        pytest.importorskip("airflow.sdk", reason="this example is for Airflow 3")
    if "Needs Airflow 3.1" in text:
        pytest.importorskip("airflow.sdk.execution_time.hitl", reason="this example is for Airflow 3.1")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags = [thing for thing in vars(module).values() if isinstance(thing, DAG)]
    assert dags
    for dag in dags:
        assert dag.tasks
        assert dag.dag_id.startswith("example_")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_does_not_end_the_dag_processor_of_an_older_airflow(path):
    """Airflow 3.0 imports what a file imports at its top, and survives only a missing module."""
    names = [node.module for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.endswith(".hitl")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_region_that_documentation_quotes_is_complete(path):
    text = path.read_text()
    assert re.findall(r"# \[START (\w+)\]", text) == re.findall(r"# \[END (\w+)\]", text)
