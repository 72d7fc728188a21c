"""What README.md suggests instead of this package works."""

from plain_boto3 import dag

from airflow_provider_imageversions.emulator import Emulator


def test_a_waiter_of_boto3_finds_a_known_version(monkeypatch):
    with Emulator() as emulator:
        emulator.reset()
        emulator.create_versions("my-image", 8)
        monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        run = dag.test()
        assert run.get_task_instance("container_image").xcom_pull()
