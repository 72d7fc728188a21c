"""The operators that create and delete images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import (
    choice_parser,
    parse_boolean,
    parse_scope,
    parsed_by,
    with_converters,
)
from airflow_provider_imageversions._requests import CreateImageRequest, ImageRequest, UpdateImageRequest
from airflow_provider_imageversions._task import Flag
from airflow_provider_imageversions.errors import classify_error, may_be_status_conflict, none_if_not_found
from airflow_provider_imageversions.hooks import AWS_PARAMETERS
from airflow_provider_imageversions.model import ErrorKind
from airflow_provider_imageversions.operators._base import ChangingOperator
from airflow_provider_imageversions.studio import NO_VERSION, describe_users

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook


@attrs.frozen(field_transformer=with_converters)
class _CreateParameters(CreateImageRequest):
    action_if_image_exists: str = attrs.field(
        default="use", metadata=parsed_by(choice_parser("use", "update", "recreate", "fail"), accepts_none=False)
    )


class SageMakerCreateImageOperator(ChangingOperator):
    """
    Create an Amazon SageMaker image, and wait until it is CREATED.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param role_arn: ARN of the IAM role that SageMaker uses to pull the container images. (templated)
    :param display_name: Display name of the image, 1 to 128 characters. (default: none) (templated)
    :param description: Description of the image, up to 512 characters. (default: none) (templated)
    :param tags: Up to 50 tags, as a dict or as AWS's list of ``{"Key": ..., "Value": ...}``. They are applied only when
        the image is created. (default: none) (templated)
    :param action_if_image_exists: What to do if an image with this name exists: ``use`` it as it is; ``update`` its
        role, display name and description; ``recreate`` it (delete it and create it again) if it is CREATE_FAILED and
        has no version, and use it as it is if it is not CREATE_FAILED; or ``fail``. If the existing image is being
        deleted, the task waits until the name is free. (default: ``use``) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param wait_for_completion: Wait until the image is CREATED, which takes seconds. (default: True)
    :param check_interval: Maximum time between status checks, in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. It includes the time to wait for
        concurrent changes of the image. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: The image is CREATE_FAILED, DELETE_FAILED or, with ``update``, UPDATE_FAILED
        (the message has SageMaker's reason), or it exists and ``action_if_image_exists`` is ``fail``.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error, such as access denied.
    :return: The image's description, as
        :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.describe_image` returns it.
    :rtype: dict[str, Any]

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImage.html
    """

    _parameters = _CreateParameters
    template_fields: Sequence[str] = (*_CreateParameters.names(), *AWS_PARAMETERS)
    wait_for_completion = Flag()
    template_fields_renderers: ClassVar[dict[str, str]] = {"tags": "json", "botocore_config": "json"}

    def __init__(
        self,
        *,
        image_name: str,
        role_arn: str,
        display_name: str | None = None,
        description: str | None = None,
        tags: dict[str, str] | list[dict[str, str]] | None = None,
        action_if_image_exists: str = "use",
        wait_for_completion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self.wait_for_completion = wait_for_completion
        self._set_parameters(locals())

    def execute(self, context: Any) -> dict[str, Any]:
        """Create the image."""
        self._check_rendered()
        request, action = CreateImageRequest.of(self), _CreateParameters.of(self).action_if_image_exists
        task = self._start(context)
        self._raise_if_failed(task.wait(lambda hook: self._create(hook, request, action)))
        if self.wait_for_completion:

            def check(hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | None:
                return decide.obstacle(hook.describe_image(request.image_name), updated=action == "update")

            self._raise_if_failed(task.wait(check))
        self._lineage = (str(task.hook.conn_region_name), None)
        image = task.call(lambda hook: hook.describe_image(request.image_name))
        self._raise_if_failed(decide.obstacle(image, updated=action == "update"))
        return image

    def _create(
        self, hook: SageMakerImageVersionsHook, request: CreateImageRequest, action: str
    ) -> decide.Waiting | decide.Failed | None:
        try:
            hook.create_image(request)
        except Exception as error:
            image = (
                none_if_not_found(hook.describe_image, request.image_name) if may_be_status_conflict(error) else None
            )
            if image is None:
                raise
            if decide.is_image_being_deleted(image):
                return decide.Waiting("the image is DELETING, and its name is free after that")
            if classify_error(error) is not ErrorKind.IN_USE:
                raise
            return self._use_existing(hook, request, action, image)
        self.log.info("SageMaker image %r: created", request.image_name)
        return None

    def _use_existing(
        self, hook: SageMakerImageVersionsHook, request: CreateImageRequest, action: str, image: dict[str, Any]
    ) -> decide.Waiting | decide.Failed | None:
        if action == "fail":
            return decide.Failed("it exists already, and action_if_image_exists is 'fail'")
        if action == "recreate" and decide.is_failed_creation(image):
            return self._delete_failed(hook, request.image_name, image)
        obstacle = decide.obstacle(image)
        if obstacle is None and action == "update":
            hook.update_image(UpdateImageRequest.of(request))
            self.log.info("SageMaker image %r: updated the existing image", request.image_name)
        elif obstacle is None:
            self.log.info("SageMaker image %r: exists already", request.image_name)
        return obstacle

    def _delete_failed(
        self, hook: SageMakerImageVersionsHook, image_name: str, image: dict[str, Any]
    ) -> decide.Waiting | decide.Failed:
        if none_if_not_found(lambda: any(True for _ in hook.iter_image_versions(image_name, limit=1))):
            now = none_if_not_found(hook.describe_image, image_name)
            if now is None or decide.has_image_changed(image, now):
                return decide.Waiting("the image was changed at the same time")
            return decide.Failed(
                f"the image is CREATE_FAILED: {decide.failure_reason(image).rstrip('.')}. It has versions, which would "
                "be deleted with it, so it is not created again. "
                "Delete it with SageMakerDeleteImageOperator if nobody needs them"
            )
        self.log.info(
            "SageMaker image %r: recreating it, because it is CREATE_FAILED (%s) and has no version",
            image_name,
            decide.failure_reason(image),
        )
        return _delete_image(hook, image_name, image) or decide.Waiting("the image is being deleted")


def _delete_image(hook: SageMakerImageVersionsHook, image_name: str, judged: dict[str, Any]) -> decide.Waiting | None:
    """
    Start to delete an image, unless it changed since the caller described it; the caller then has to check again.

    DeleteImage has no compare-and-set, so this describes the image directly before the call.
    """
    image = none_if_not_found(hook.describe_image, image_name)
    if image is None:
        return None
    if decide.has_image_changed(judged, image):
        return decide.Waiting("the image was changed at the same time")
    try:
        hook.delete_image(image_name)
    except Exception as error:
        if classify_error(error) is ErrorKind.MISSING:
            return None
        if not may_be_status_conflict(error):
            raise
        now = none_if_not_found(hook.describe_image, image_name)
        if now is None or decide.is_image_being_deleted(now):
            return None
        # The image may have become CREATED between the refusal and this check.
        obstacle = decide.keeps_from_deletion(now) or decide.keeps_from_deletion(image)
        if obstacle is None:
            raise
        return obstacle
    return None


@attrs.frozen(field_transformer=with_converters)
class _DeleteParameters(ImageRequest):
    delete_if_aliased: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))
    refuse_if_used: tuple[str, ...] = attrs.field(default=(), metadata=parsed_by(parse_scope, accepts_none=False))


class SageMakerDeleteImageOperator(ChangingOperator):
    """
    Delete an Amazon SageMaker image with all of its versions, and wait until it is deleted.

    The container images in Amazon ECR are not deleted. If the image does not exist, the task succeeds. Detach the image
    from all SageMaker domains first, as AWS recommends: SageMaker may delete an image that a domain uses, and the
    spaces that use it then fail to start.

    An image that is created with the same name while the task waits is not deleted. A retry, or a cleared run, deletes
    the image that has the name at that time. If an image is already DELETING, the task only waits.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param delete_if_aliased: Delete the image even if some of its versions have aliases, such as the version that is in
        production. Otherwise, the task fails without deleting anything. (default: False) (templated)
    :param refuse_if_used: Fail if SageMaker Studio uses any version: ``True`` to check everywhere, or where to check:
        some of ``domains``, ``apps``, ``user_profiles`` and ``spaces``. The check needs more permissions and API calls,
        see :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.find_image_version_usage`. With
        ``False``, a warning is logged. (default: False) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param wait_for_completion: Wait until the image is deleted. (default: True)
    :param check_interval: Maximum time between status checks, in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: A version has an alias or is in use, or the image is DELETE_FAILED (the
        message has SageMaker's reason).
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error, such as access denied.
    :return: ARN of the image; ``None`` if there was no image with this name.
    :rtype: str | None

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteImage.html
    """

    _parameters = _DeleteParameters
    template_fields: Sequence[str] = (*_DeleteParameters.names(), *AWS_PARAMETERS)
    wait_for_completion = Flag()

    def __init__(
        self,
        *,
        image_name: str,
        delete_if_aliased: bool | str = False,
        refuse_if_used: bool | Iterable[str] | str = False,
        wait_for_completion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self.wait_for_completion = wait_for_completion
        self._set_parameters(locals())

    def execute(self, context: Any) -> str | None:
        """Delete the image."""
        self._check_rendered()
        parameters = _DeleteParameters.of(self)
        image_name = parameters.image_name
        task = self._start(context)
        deleted = task.call(lambda hook: none_if_not_found(hook.describe_image, image_name))
        if deleted is None:
            self.log.info("SageMaker image %r: it does not exist; nothing to delete", image_name)
            return None
        if users := self._find_users(task, "refuse_if_used", parameters.refuse_if_used):
            used = "; ".join(
                f"{'no version yet' if number == NO_VERSION else f'version {number}'} by {describe_users(by)}"
                for number, by in users.items()
            )
            raise self._error(
                f"it is not deleted, because it is in use: {used}. Detach the image there, or set refuse_if_used=False"
            )

        def step(hook: SageMakerImageVersionsHook) -> decide.Waiting | None:
            image = none_if_not_found(hook.describe_image, image_name)
            if image is None or not decide.is_same(image, deleted) or decide.is_image_being_deleted(image):
                return None
            aliases = () if parameters.delete_if_aliased else none_if_not_found(hook.list_aliases, image_name) or ()
            if aliases:
                raise self._error(
                    f"it is not deleted, because it has versions with the aliases {', '.join(map(repr, aliases))}. "
                    "Delete the aliases, or set delete_if_aliased=True"
                )
            return _delete_image(hook, image_name, image)

        task.wait(step)
        if self.wait_for_completion:

            def check(hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | None:
                return decide.image_remains(none_if_not_found(hook.describe_image, image_name), deleted)

            self._raise_if_failed(task.wait(check))
        self.log.info(
            "SageMaker image %r: %s", image_name, "deleted" if self.wait_for_completion else "started to delete it"
        )
        return str(deleted["ImageArn"])
