"""Links from a task to the AWS console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import boto3
from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink

from airflow_provider_imageversions.errors import classify_error

if TYPE_CHECKING:
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook

_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc", "us-iso": "aws-iso", "eu-iso": "aws-iso"}


class _ConsoleLink(BaseAwsLink):
    """A link to a resource's page in the AWS console, in the region and partition that the task used."""

    resource: ClassVar[str]
    """The placeholder of the resource in :attr:`format_str`."""

    @classmethod
    def store(cls, context: Any, operator: Any, hook: SageMakerImageVersionsHook, identity: str) -> None:
        """
        Store the parts of the link, without creating a client, which a deferring sensor does not need.

        If the connection or boto3's configuration cannot be read, there is no link. The task's next call raises the
        error if it persists.

        :param context: The task's context.
        :param operator: The task.
        :param hook: The task's hook.
        :param identity: Name or ID of the resource.
        """
        try:
            region = hook.region_name or boto3.session.Session().region_name
        except Exception as error:
            if classify_error(error) is None:
                raise
            operator.log.info(
                "No link to the AWS console for %r, because the connection or its region could not be read", identity
            )
            return
        if region is not None:
            # botocore also knows the partition, but takes a third of a second to load its list of all endpoints.
            partition = next((name for prefix, name in _PARTITIONS.items() if region.startswith(prefix)), "aws")
            # Airflow does not know the address of every console.
            if cls.get_aws_domain(partition):
                cls.persist(
                    context=context,
                    operator=operator,
                    region_name=region,
                    aws_partition=partition,
                    **{cls.resource: identity},
                )


class SageMakerImageLink(_ConsoleLink):
    """A link to the image's page in the AWS console, in the region and partition that the task used."""

    name = "Amazon SageMaker Image"
    key = "sagemaker_image"
    resource = "image_name"
    format_str = BASE_AWS_CONSOLE_LINK + "/sagemaker/home?region={region_name}#/images/{image_name}"

    @classmethod
    def url_of(cls, image_name: str, image_version_arn: str) -> str:
        """
        Return the link for an image, in the region and partition that an ARN names.

        :param image_name: Name of the image, which an ARN has in lower case only.
        :param image_version_arn: ARN of one of its versions.
        """
        _, partition, _, region, *_ = f"{image_version_arn}::::".split(":")
        domain = cls.get_aws_domain(partition)
        return cls().format_link(aws_domain=domain, region_name=region, image_name=image_name) if domain else ""


class SageMakerStudioDomainLink(_ConsoleLink):
    """A link to the page of the Studio domain in the AWS console, in the region and partition that the task used."""

    name = "Amazon SageMaker Studio Domain"
    key = "sagemaker_studio_domain"
    resource = "domain_id"
    format_str = BASE_AWS_CONSOLE_LINK + "/sagemaker/home?region={region_name}#/studio/{domain_id}"
