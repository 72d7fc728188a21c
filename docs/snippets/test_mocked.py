"""A test in moto's process, of docs/testing.md."""

# [START test_mock_aws]
import boto3
from moto import mock_aws

from airflow_provider_imageversions.emulator import install
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

install()


@mock_aws
def test_the_newest_version_is_found():
    sagemaker = boto3.client("sagemaker", region_name="us-east-1")
    sagemaker.create_image(ImageName="my-image", RoleArn="arn:aws:iam::123456789012:role/sagemaker")
    sagemaker.create_image_version(ImageName="my-image", BaseImage="my-repository:1", ClientToken="1")
    hook = SageMakerImageVersionsHook(aws_conn_id=None, region_name="us-east-1")
    assert [version["Version"] for version in hook.list_image_versions("my-image")] == [1]


# [END test_mock_aws]
