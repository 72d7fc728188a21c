"""A test of the DAG that prunes all images of an account, of docs/cleanup.md."""

import pytest

from airflow_provider_imageversions.emulator import Emulator


@pytest.fixture
def emulator(monkeypatch):
    with Emulator() as emulator:
        emulator.reset()
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", emulator.airflow_connection())
        yield emulator


# [START test_clean_up]
from clean_up_account import dag


def test_what_studio_uses_is_kept(emulator):
    emulator.creation_seconds = 0  # what is deleted is gone at once
    emulator.create_versions("my-image", 8)
    sagemaker = emulator.client("sagemaker")
    entry = {"ImageName": "my-image", "ImageVersionNumber": 2, "AppImageConfigName": "my-config"}
    sagemaker.create_domain(
        DomainName="team",
        AuthMode="IAM",
        DefaultUserSettings={
            "ExecutionRole": "arn:aws:iam::123456789012:role/sagemaker",
            "JupyterLabAppSettings": {"CustomImages": [entry]},
        },
        SubnetIds=["subnet-1"],  # neither has to exist
        VpcId="vpc-1",
    )
    assert dag.test().state == "success"
    versions = sagemaker.list_image_versions(ImageName="my-image")["ImageVersions"]
    assert {version["Version"] for version in versions} == {2, 4, 5, 6, 7, 8}


# [END test_clean_up]


def test_the_newest_versions_of_each_image_are_kept(emulator):
    emulator.creation_seconds = 0
    emulator.create_versions("one-image", 7)
    emulator.create_versions("other-image", 6)
    assert dag.test().state == "success"
    sagemaker = emulator.client("sagemaker")
    left = {
        name: {version["Version"] for version in sagemaker.list_image_versions(ImageName=name)["ImageVersions"]}
        for name in ("one-image", "other-image")
    }
    assert left == {"one-image": {3, 4, 5, 6, 7}, "other-image": {2, 3, 4, 5, 6}}
