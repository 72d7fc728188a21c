"""What is seen only in a new process of Python: what is imported, what can be absent, and the emulator's command."""

from __future__ import annotations

import ast
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_imageversions
from airflow_provider_imageversions.emulator import Emulator

pytestmark = pytest.mark.e2e

IMAGE = "My-image"


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_no_module_of_the_package_needs_aiobotocore_or_imports_openlineage():
    root = Path(airflow_provider_imageversions.__file__).parent
    modules = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for path in root.rglob("*.py")
        if path.stem not in {"__init__", "__main__"}
    ]
    program = "import sys, importlib; sys.modules['aiobotocore'] = None\n"
    program += "".join(f"importlib.import_module({module!r})\n" for module in modules)
    program += (
        "print([name for name in sys.modules if name.startswith(('openlineage', 'airflow.providers.openlineage'))])"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    # Airflow itself imports these two of every provider that is installed.
    announced = {"airflow.providers.openlineage", "airflow.providers.openlineage.get_provider_info"}
    assert set(ast.literal_eval(done.stdout.splitlines()[-1])) <= announced


def test_nothing_breaks_where_openlineage_is_not_installed(emulator, connection):
    emulator.create_versions(IMAGE, 2)
    program = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        # Airflow itself imports the first two of every provider that is installed.
        announced = ("airflow.providers.openlineage", "airflow.providers.openlineage.get_provider_info")
        if name.split(".")[0] == "openlineage" or (name.startswith(announced[0]) and name not in announced):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from types import SimpleNamespace

from airflow.providers_manager import ProvidersManager
from airflow_provider_imageversions.assets import image_version_asset
from airflow_provider_imageversions.operators import SageMakerListImageVersionsOperator
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

try:
    import openlineage
except ModuleNotFoundError:
    print("absent")
context = {{"ti": SimpleNamespace(xcom_push=lambda **_: None, try_number=1)}}
for operator in (SageMakerListImageVersionsOperator, SageMakerImageVersionSensor):
    print(operator(task_id="a", image_name={IMAGE!r}, outlets=[image_version_asset({IMAGE!r})]).execute(context))
print("sagemaker-image" in ProvidersManager().asset_uri_handlers)
"""
    result = python("-c", program)
    assert result.returncode == 0, result.stderr
    output = result.stdout.splitlines()
    assert "absent" in output
    assert "".join(output).count("'Version': 2") == 2
    assert output[-1] == "True"


def test_without_moto_the_import_names_the_extra():
    result = python("-c", "import sys; sys.modules['moto'] = None; import airflow_provider_imageversions.emulator")
    assert "pip install 'airflow-provider-imageversions[emulator]'" in result.stderr.splitlines()[-1]


COMMAND = ("-m", "airflow_provider_imageversions.emulator")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(number):
    arguments = [sys.executable, *COMMAND, "--port", "0", "--creation-seconds", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert select.select([process.stdout], [], [], 60)[0]
            line = process.stdout.readline()
            found = re.fullmatch(r"SageMaker image emulator on (http://127\.0\.0\.1:\d+)\n", line)
            remote = Emulator.connect(found[1])
            remote.create_versions("churn", 1)
            assert remote.client("sagemaker").describe_image_version(ImageName="churn")["Version"] == 1
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
            assert f"AWS_ENDPOINT_URL={found[1]}" in process.stdout.read()
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_the_command_refuses_an_address_that_others_reach():
    result = python(*COMMAND, "--host", "0.0.0.0")  # noqa: S104 - to be refused
    assert result.returncode == 2
    assert "loopback" in result.stderr
