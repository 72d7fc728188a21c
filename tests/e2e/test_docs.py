from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets"


def test_the_documented_tests_of_a_user_s_own_dags_pass(tmp_path):
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(SNIPPETS / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__SAGEMAKER_IMAGE_VERSIONS__USAGE_CALLS_PER_SECOND": "100",
        "PYTHONPATH": str(SNIPPETS / "dags"),
    }

    def python(*arguments):
        command = [sys.executable, "-m", *arguments]
        result = subprocess.run(
            command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    python("airflow", "db", "migrate")
    # Like a user's, without this repository's settings and fixtures.
    output = python("pytest", "-c", os.devnull, "--rootdir", str(SNIPPETS), "-p", "no:cacheprovider", str(SNIPPETS))
    files = sorted(path.name for path in SNIPPETS.rglob("test_*.py"))
    assert [name for name in files if name not in output] == []
    # The command line does the same.
    python("airflow", "dags", "test", "retrain__image_versions")
