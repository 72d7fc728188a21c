"""The operators that delete versions."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs

from airflow_provider_imageversions import decide, errors
from airflow_provider_imageversions._parameters import parse_scope, parsed_by, with_converters
from airflow_provider_imageversions._requests import ImageRequest
from airflow_provider_imageversions._task import Flag
from airflow_provider_imageversions.hooks import AWS_PARAMETERS
from airflow_provider_imageversions.model import ErrorKind, PrunePolicy, describe_error
from airflow_provider_imageversions.operators._base import ChangingOperator, VersionSelector
from airflow_provider_imageversions.studio import describe_users

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from airflow_provider_imageversions._worker import WorkerPoller
    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
    from airflow_provider_imageversions.model import ImageVersion

_IN_USE_PATIENCE = 60.0
"""Maximum time in seconds that pruning waits for a concurrent change of a version."""


@attrs.frozen(field_transformer=with_converters)
class _DeleteParameters(ImageRequest, VersionSelector):
    refuse_if_used: tuple[str, ...] = attrs.field(default=(), metadata=parsed_by(parse_scope, accepts_none=False))


class SageMakerDeleteImageVersionOperator(ChangingOperator):
    """
    Delete a version of an Amazon SageMaker image with its aliases, and wait until it is deleted.

    The container image in Amazon ECR is not deleted. If the version does not exist, the task succeeds. If it is
    CREATING, the task waits before it deletes the version.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param version: Number of the version, 0 or more. Set either this or ``alias``. (default: none) (templated)
    :param alias: An alias of the version. A retry, or a cleared run, deletes the version that has the alias at that
        time. If the alias may move to another version, set ``version`` instead. (default: none) (templated)
    :param refuse_if_used: Fail if SageMaker Studio uses the version: ``True`` to check everywhere, or where to check:
        some of ``domains``, ``apps``, ``user_profiles`` and ``spaces``. The check needs more permissions and API calls,
        see :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.find_image_version_usage`. With
        ``False``, a warning is logged, because SageMaker may delete a version that a space starts from. (default:
        False) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param wait_for_completion: Wait until the version is deleted. (default: True)
    :param check_interval: Maximum time between status checks, in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: The version is in use, the alias has moved to another version, or the version
        is DELETE_FAILED (the message has SageMaker's reason).
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error, such as access denied.
    :return: Number of the version; ``None`` if no version had the alias.
    :rtype: int | None

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteImageVersion.html
    """

    _parameters = _DeleteParameters
    template_fields: Sequence[str] = (*_DeleteParameters.names(), *AWS_PARAMETERS)
    wait_for_completion = Flag()

    def __init__(
        self,
        *,
        image_name: str,
        version: int | str | None = None,
        alias: str | None = None,
        refuse_if_used: bool | Iterable[str] | str = False,
        wait_for_completion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self.wait_for_completion = wait_for_completion
        self._set_parameters(locals())

    def execute(self, context: Any) -> int | None:
        """Delete the version."""
        self._check_rendered()
        parameters = _DeleteParameters.of(self)
        image_name, selector, scope = parameters.image_name, parameters.selector, parameters.refuse_if_used
        task = self._start(context)
        version = task.call(lambda hook: errors.none_if_not_found(hook.describe_image_version, image_name, **selector))
        if version is None:
            self.log.warning("SageMaker image %r: %s does not exist; nothing to delete", image_name, parameters)
            return parameters.version
        number = version["Version"]
        if users := self._find_users(task, "refuse_if_used", scope).get(str(number)):
            raise self._error(
                f"version {number} is not deleted, because it is used by {describe_users(users)}. Roll out another "
                "version there, or set refuse_if_used=False"
            )
        task.wait(lambda hook: _delete(hook, image_name, version, alias=parameters.alias))
        if self.wait_for_completion:
            self._raise_if_failed(
                task.wait(
                    lambda hook: decide.remains(
                        errors.none_if_not_found(hook.describe_image_version, image_name, version=number), version
                    )
                )
            )
        action = "deleted" if self.wait_for_completion else "deleting"
        self.log.info("SageMaker image %r: %s version %d", image_name, action, number)
        return number


def _delete(
    hook: SageMakerImageVersionsHook, image_name: str, version: ImageVersion, *, alias: str | None = None
) -> decide.Waiting | None:
    """
    Start to delete a version unless it is already being deleted; return what to wait for if that is not possible yet.

    A later version with the same number, which exists if the image was deleted and created again, is not deleted.

    :param hook: The hook.
    :param image_name: Name of the image.
    :param version: The version's record.
    :param alias: An alias that the version must still have. (default: ``None``)
    :raises SageMakerImageOperationError: It no longer has the alias.
    """
    now = _describe_remaining(hook, image_name, version)
    if now is None:
        return None
    number = version["Version"]
    if alias is not None:
        owner = errors.none_if_not_found(hook.describe_image_version, image_name, alias=alias)
        if owner is None or owner["Version"] != number:
            now_on = "no version has it" if owner is None else f"version {owner['Version']} has it"
            raise errors.SageMakerImageOperationError(
                f"SageMaker image {image_name!r}: nothing was deleted, because the alias {alias!r} moved from version "
                f"{number} before it could be deleted; now {now_on}. Set version={number} if it is to be deleted"
            )
    try:
        hook.delete_image_version(image_name, number)
    except Exception as error:
        if errors.classify_error(error) is ErrorKind.MISSING:
            return None
        if not errors.may_be_status_conflict(error):
            raise
        # This explains the refusal, even if the version has become CREATED since.
        if (obstacle := decide.in_creation(now)) is not None:
            return obstacle
        if _describe_remaining(hook, image_name, version) is None:
            return None
        raise
    return None


def _describe_remaining(
    hook: SageMakerImageVersionsHook, image_name: str, version: ImageVersion
) -> ImageVersion | None:
    """Return the current record of a version; ``None`` if it is deleted or DELETING."""
    now = errors.none_if_not_found(hook.describe_image_version, image_name, version=version["Version"])
    return None if now is None or not decide.is_same(now, version) or decide.is_being_deleted(now) else now


class SageMakerPruneImageVersionsOperator(ChangingOperator):
    """
    Delete the versions of an Amazon SageMaker image that are no longer needed.

    Failed versions are deleted first, then the oldest ones. The newest CREATED version and versions that are CREATING
    are always kept. Aliases are checked directly before a version is deleted. The operator is safe to repeat and to run
    concurrently. A template that renders to nothing is an error, so that it cannot cause more deletions. An XComArg
    that resolves to ``None`` means that the parameter is not set.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param keep_newest: Number of the newest CREATED versions to keep. Failed versions do not count. Set this,
        ``keep_younger_than`` or both; a version that either of them keeps is kept. (default: none) (templated)
    :param keep_younger_than: Keep versions created within this time, failed or not; a timedelta, or a time in seconds.
        (default: none) (templated)
    :param keep_versions: Keep the versions with these numbers; a list, or a comma-separated string. (default: none)
        (templated)
    :param keep_aliased: Keep versions that have an alias. (default: True) (templated)
    :param keep_used: Keep versions that SageMaker Studio uses: ``True`` to check everywhere, or where to check: some of
        ``domains``, ``apps``, ``user_profiles`` and ``spaces``. The check needs more permissions and API calls, see
        :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.find_image_version_usage`. If it fails,
        the task fails without deleting anything. With ``False``, a warning is logged, because SageMaker may delete a
        version that a space starts from. (default: False) (templated)
    :param limit: Maximum number of versions to delete per try of the task; those that cannot be deleted do not count.
        (default: no limit) (templated)
    :param preview: Return what would be deleted, without deleting anything. (default: False) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param check_interval: Maximum time between status checks of a version that cannot be deleted yet, in seconds or as
        a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. It includes the time to find out who
        uses the versions. Versions deleted before that stay deleted. A version that is being changed for longer than a
        minute is kept, with a warning, so that it does not delay the others. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such image.
    :return: A dict. All keys are always present, and version numbers are in ascending order:

        - ``deleted``: the versions that are deleted, or would be with ``preview``. SageMaker completes the deletions
          some seconds later.
        - ``kept``: a list of versions for each reason: ``newest``, ``age`` (``keep_younger_than``), ``listed``
          (``keep_versions``), ``alias``, ``used`` (``keep_used``), ``limit``, ``status`` (CREATING, DELETING or
          unknown) and ``in_use`` (another change of the version prevented the deletion).
        - ``used_by``: who uses the ``used`` versions, by version number (a string).
        - ``preview``: the parameter.
    :rtype: dict[str, Any]

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteImageVersion.html
    """

    _parameters = PrunePolicy
    template_fields: Sequence[str] = ("image_name", *PrunePolicy.names(), *AWS_PARAMETERS)

    def __init__(
        self,
        *,
        image_name: str,
        keep_newest: int | str | None = None,
        keep_younger_than: timedelta | float | str | None = None,
        keep_versions: Iterable[int] | str | None = None,
        keep_aliased: bool | str = True,
        keep_used: bool | Iterable[str] | str = False,
        limit: int | str | None = None,
        preview: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self._set_parameters(locals())

    def execute(self, context: Any) -> dict[str, Any]:
        """Delete the versions that the policy does not keep."""
        self._check_rendered()
        image_name, policy = ImageRequest.of(self).image_name, PrunePolicy.of(self)
        task = self._start(context)

        def listed() -> list[ImageVersion]:
            return task.call(lambda hook: hook.list_image_versions(image_name, sort_by="VERSION"))

        def aliases_of(number: int) -> list[str]:
            return task.call(lambda hook: errors.none_if_not_found(hook.list_aliases, image_name, number)) or []

        @cache
        def users() -> dict[str, list[dict[str, Any]]]:
            # Once for all versions, before the first one is deleted.
            return self._find_users(task, "keep_used", policy.keep_used)

        now, versions = datetime.now(timezone.utc), listed()
        if policy.keep_used and any(
            reason is None for _, reason in decide.prune(versions, policy, now=now, aliases_of=aliases_of)
        ):
            users()
            # That may have taken minutes, in which others may have deleted what was the newest version.
            versions = listed()
        deleted: list[int] = []
        used_by: dict[str, list[dict[str, Any]]] = {}
        kept: dict[str, list[int]] = {reason: [] for reason in decide.KEPT}

        def is_used(number: int) -> bool:
            return str(number) in users()

        for version, policy_reason in decide.prune(
            versions, policy, now=now, aliases_of=aliases_of, is_used=is_used, deleted=deleted
        ):
            reason, number = policy_reason, version["Version"]
            if reason is None and not policy.preview:
                reason = self._delete_or_keep(task, image_name, version, policy)
            if reason == "used":
                using = used_by[str(number)] = users()[str(number)]
                self.log.info(
                    "SageMaker image %r: kept version %d: used by %s", image_name, number, describe_users(using)
                )
            if reason is not None:
                kept[reason].append(number)
                continue
            deleted.append(number)
            action = "would delete" if policy.preview else "deleting"
            status, created = version["ImageVersionStatus"], version["CreationTime"]
            self.log.info(
                "SageMaker image %r: %s version %d (%s, created %s)", image_name, action, number, status, created
            )
        counts = ", ".join(f"{len(numbers)} ({reason})" for reason, numbers in kept.items() if numbers) or "none"
        action = "would delete" if policy.preview else "deleted"
        self.log.info("SageMaker image %r: %s %d versions; kept: %s", image_name, action, len(deleted), counts)
        return {
            "deleted": sorted(deleted),
            "kept": {reason: sorted(numbers) for reason, numbers in kept.items()},
            "used_by": {number: used_by[number] for number in sorted(used_by, key=int)},
            "preview": policy.preview,
        }

    def _delete_or_keep(
        self, task: WorkerPoller, image_name: str, version: ImageVersion, policy: PrunePolicy
    ) -> str | None:
        """Start to delete a version without aliases; return the reason why it is kept if it cannot be deleted."""
        number = version["Version"]
        tries = count()

        def step(hook: SageMakerImageVersionsHook) -> decide.Waiting | str | None:
            if next(tries) and policy.keep_aliased:
                # What prevented the deletion may have been a promotion of the version.
                aliases = errors.none_if_not_found(hook.list_aliases, image_name, number)
                if aliases:
                    return "alias"
            return _delete(hook, image_name, version)

        try:
            found = task.wait_briefly(step, patience=_IN_USE_PATIENCE)
        except Exception as error:
            if not errors.may_be_status_conflict(error):
                raise
            note = describe_error(error)
        else:
            if not isinstance(found, decide.Waiting):
                return found
            note = found.note
        self.log.warning("SageMaker image %r: kept version %d: %s", image_name, number, note)
        return "in_use"
