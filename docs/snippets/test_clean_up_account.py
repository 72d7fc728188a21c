"""The DAG that prunes all images of an account keeps what it says."""

from clean_up_account import dag

from airflow_provider_imageversions.emulator import Emulator


def test_the_newest_versions_of_each_image_are_kept(monkeypatch):
    with Emulator() as emulator:
        emulator.reset()
        emulator.creation_seconds = 0  # a deleted version is gone at once
        emulator.create_versions("one-image", 7)
        emulator.create_versions("other-image", 6)
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", emulator.airflow_connection())
        run = dag.test()
        assert run.state == "success"
        sagemaker = emulator.client("sagemaker")
        left = {
            name: sorted(
                version["Version"] for version in sagemaker.list_image_versions(ImageName=name)["ImageVersions"]
            )
            for name in ("one-image", "other-image")
        }
    assert left == {"one-image": [3, 4, 5, 6, 7], "other-image": [2, 3, 4, 5, 6]}
