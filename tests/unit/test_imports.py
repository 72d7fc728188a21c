"""Airflow loads the package itself at every start, and the pure modules are tested without Airflow."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["", ".model", ".decide", ".studio"])
def test_airflow_and_boto_are_not_imported(module):
    program = (
        f"import sys, airflow_provider_imageversions{module} as it; getattr(it, 'get_provider_info', lambda: None)();"
        "print([name for name in ('airflow', 'boto3', 'botocore', 'logging') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
