"""The operators that create, change and promote versions."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs

from airflow_provider_imageversions import decide, deferral, errors
from airflow_provider_imageversions._parameters import (
    invalid_parameter,
    is_literal,
    parse_aliases,
    parse_boolean,
    parse_ecr_image,
    parse_member,
    parsed_by,
    with_converters,
)
from airflow_provider_imageversions._requests import ImageRequest, VersionMetadata
from airflow_provider_imageversions._task import Flag, is_deferrable
from airflow_provider_imageversions.assets import watched_payload, watches
from airflow_provider_imageversions.compat import (
    AirflowSkipException,
    is_trigger_timeout,
    read_task_state,
    write_task_state,
)
from airflow_provider_imageversions.hooks import (
    AWS_PARAMETERS,
    SageMakerImageVersionsHook,
    aws_parameters,
    resolved_aws_parameters,
)
from airflow_provider_imageversions.model import CreateImageVersionRequest, ErrorKind, Target, UpdateImageVersionRequest
from airflow_provider_imageversions.operators._base import ChangingOperator, VersionSelector
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_imageversions._worker import WorkerPoller
    from airflow_provider_imageversions.model import ImageVersion

_OWN_CHECKS, _OWN_PAUSE = 5, 2.0
# How many runs a Variable remembers, which is more than run at once and may be tried again.
_RUNS_REMEMBERED = 16


def _check_base_image(base_image: str, only_if_changed: bool) -> None:  # noqa: FBT001  # a rule's argument
    if only_if_changed:
        parse_ecr_image("base_image", base_image)


@attrs.frozen(field_transformer=with_converters)
class _CreateParameters(CreateImageVersionRequest):
    only_if_changed: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))
    if_unchanged: str = attrs.field(
        default="return",
        metadata=parsed_by(partial(parse_member, choices=("return", "skip")), accepts_none=False),
    )

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (_check_base_image,)


class SageMakerCreateImageVersionOperator(ChangingOperator):
    """
    Create a version of an Amazon SageMaker image, and wait until it is CREATED.

    A retry after a crash, or a cleared run, continues with the version that the first try created. Another version is
    created only if that version failed or was deleted. This works as long as SageMaker remembers the request's
    ClientToken, which is derived from the DAG, run, task and map index and from the request itself. AWS does not
    document how long that is. Afterwards, a retry creates another version or, with ``aliases``, fails, because the
    first version has them. Two Airflow deployments that share an AWS account must not share DAG ids and run ids, and a
    template must not render to a different value at each try, as the current time would.

    If an asset of :func:`~airflow_provider_imageversions.assets.image_version_asset` for the image is among its
    ``outlets``, the task emits the same event as the asset's watcher, with the same ``event_id``, so that DAGs
    scheduled on the asset start at once.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param base_image: Registry path of the container image in Amazon ECR, up to 255 characters. (templated)
    :param aliases: Aliases for the version, which no other version may have; a list, or a comma-separated string.
        (default: none) (templated)
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``. (default: none)
        (templated)
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``. (default: none) (templated)
    :param ml_framework: Name and version of the machine learning framework, such as ``PyTorch 2.4``. (default: none)
        (templated)
    :param programming_lang: Name and version of the programming language, such as ``Python 3.11``. (default: none)
        (templated)
    :param processor: ``CPU`` or ``GPU``. (default: none) (templated)
    :param horovod: Whether the version is compatible with Horovod. (default: none) (templated)
    :param release_notes: Release notes, up to 255 characters. (default: none) (templated)
    :param only_if_changed: Create no version if the newest CREATED version already has the container image to which
        ``base_image`` refers in Amazon ECR, compared by digest. Aliases and metadata are not applied to the existing
        version; the log lists those that differ. If a version that is CREATING may have the same container image, the
        task waits for it. A retry, or a cleared run, continues with the version that its first try created. (default:
        False) (templated)
    :param if_unchanged: What to do if nothing changed: ``return`` the record of the newest CREATED version, or ``skip``
        the task. (default: ``return``) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param wait_for_completion: Wait until the version is CREATED. Otherwise, the task returns the record of a version
        that is CREATING, and fails only if that is CREATE_FAILED already. (default: True)
    :param deferrable: Wait in the triggerer, where all waits for the same image share one API call per interval.
        (default: ``[operators] default_deferrable``)
    :param check_interval: Maximum time between status checks, in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. It includes the time to wait for an
        image that is CREATING and for concurrent changes of the image. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises AirflowSkipException: The container image has not changed, and ``if_unchanged`` is ``skip``.
    :raises SageMakerImageOperationError: The version is CREATE_FAILED (the message has SageMaker's reason), an alias
        belongs to another version, or the image cannot have versions. A retry after CREATE_FAILED creates another
        version.
    :raises SageMakerImageVersionPollingError: While the task was deferred, the trigger failed, or reported an error
        such as access denied.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such image.
    :return: The version's record with details, see :class:`~airflow_provider_imageversions.model.ImageVersion`.
    :rtype: ImageVersion

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImageVersion.html
    """

    _parameters = _CreateParameters
    template_fields: Sequence[str] = (*_CreateParameters.names(), *AWS_PARAMETERS)
    wait_for_completion = Flag()
    deferrable = Flag()
    only_if_changed: bool | str
    if_unchanged: str

    def __init__(
        self,
        *,
        image_name: str,
        base_image: str,
        aliases: Iterable[str] | str | None = None,
        vendor_guidance: str | None = None,
        job_type: str | None = None,
        ml_framework: str | None = None,
        programming_lang: str | None = None,
        processor: str | None = None,
        horovod: bool | str | None = None,
        release_notes: str | None = None,
        only_if_changed: bool | str = False,
        if_unchanged: str = "return",
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = is_deferrable(deferrable)
        self._set_parameters(locals())
        # A template may decide whether it has an effect.
        self._creates_always = is_literal(self.only_if_changed, self._template) and not parse_boolean(
            "only_if_changed", self.only_if_changed
        )
        if is_literal(self.if_unchanged, self._template):
            self._check_effect(self.if_unchanged)
        self._check_outlets()

    def _check_effect(self, if_unchanged: str) -> None:
        if self._creates_always and if_unchanged != "return":
            raise ValueError(
                f"if_unchanged={if_unchanged!r} has no effect with only_if_changed={self.only_if_changed!r}. Set "
                "only_if_changed=True, or leave out if_unchanged."
            )

    def _check_outlets(self) -> None:
        # At run time, too: an outlet may be added to the task after it is constructed.
        if not any(watches(outlet) for outlet in self.outlets):
            return
        if (
            is_literal([self.only_if_changed, self.if_unchanged], self._template)
            and parse_boolean("only_if_changed", self.only_if_changed)
            and self.if_unchanged != "skip"
        ):
            raise ValueError(
                f"only_if_changed=True with if_unchanged={self.if_unchanged!r} can't be combined with the image's "
                "asset among the outlets: its consumers would start without a new version. Set "
                "if_unchanged='skip'."
            )
        if not self.wait_for_completion:
            raise ValueError(
                "wait_for_completion=False can't be combined with the image's asset among the outlets: its consumers "
                "would start before the version is CREATED. Leave out one or the other; the asset's own watcher "
                "emits an event when it is."
            )

    def execute(self, context: Any) -> ImageVersion:
        """Create the version, or continue with the version that an earlier try created."""
        return self._create_and_wait(context, deferrable=self.deferrable)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Continue after the deferral, or after it timed out."""
        if is_trigger_timeout(next_method, next_kwargs):
            # The triggerer may have been down. The same request returns the number again.
            try:
                return self._create_and_wait(context, deferrable=False, left=0.0)
            except errors.SageMakerImageOperationTimeoutError:
                unmet = f"SageMaker image {self.image_name!r}: the version did not become CREATED"
                deferral.raise_execution_timeout(self, self.timeout, unmet)
                raise
        deferral.raise_if_trigger_failed(next_method, next_kwargs)
        return super().resume_execution(next_method, next_kwargs, context)

    def _create_and_wait(self, context: Any, *, deferrable: bool, left: float | None = None) -> ImageVersion:
        self._check_rendered()
        self._check_outlets()
        parameters, request = _CreateParameters.of(self), CreateImageVersionRequest.of(self)
        if not parameters.only_if_changed:
            self._check_effect(parameters.if_unchanged)
        task = self._start(context, left)
        if parameters.only_if_changed:
            unchanged = self._find_unchanged(context, task, request, parameters.if_unchanged)
            if unchanged is not None:
                return unchanged
        number = task.wait(lambda hook: self._create_idempotently(hook, request, context["ti"]))
        if not self.wait_for_completion:
            record = self._describe(task, number)
            self._raise_if_failed(decide.outcome([record], Target(version=number)))
            return record
        if deferrable:
            self.log.info("SageMaker image %r: waiting in the triggerer for version %d", request.image_name, number)
            self.defer(
                trigger=SageMakerImageVersionTrigger(
                    image_name=request.image_name,
                    version=number,
                    include_details=True,
                    poll_interval=self.check_interval,
                    created_by_task=True,
                    **resolved_aws_parameters(self, task.hook),
                ),
                method_name="execute_complete",
                timeout=timedelta(
                    seconds=max(deferral.deferral_limit(self, task.left, spent=self.timeout - task.left), 1.0)
                ),
            )
        target = Target(version=number)

        def poll(hook: SageMakerImageVersionsHook) -> decide.Outcome:
            version = errors.none_if_not_found(hook.describe_image_version, request.image_name, version=number)
            return decide.outcome([] if version is None else [version], target)

        found = cast("decide.Ready | decide.Failed", task.wait(poll, target=target, include_details=True))
        return self._emit_outlet_events(context, self._raise_if_failed(found).version, task.hook)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> ImageVersion:
        """
        Continue after the deferral.

        :param context: The task's context.
        :param event: The trigger's payload.
        """
        hook = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self))
        return self._emit_outlet_events(context, self._raise_if_failed(deferral.read_event(event)), hook)

    def _find_unchanged(
        self, context: Any, task: WorkerPoller, request: CreateImageVersionRequest, choice: str
    ) -> ImageVersion | None:
        """Return the newest CREATED version if it already has the container image, or skip the task if requested."""
        ti = context["ti"]
        identity = hashlib.sha256(json.dumps([ti.dag_id, ti.task_id, ti.map_index]).encode()).hexdigest()[:24]
        key, owner = f"sagemaker_create_{identity}", [ti.run_id, request.image_name, request.base_image]
        owners = read_task_state(context, key) or []
        if owner in owners:
            # An earlier try found a change, and may have created the version.
            return None
        digests = task.call(lambda hook: hook.find_container_digests(request.base_image))
        if not digests:
            raise self._error(
                f"Amazon ECR has no container image base_image={request.base_image!r}. Check account, region, "
                "repository and tag"
            )

        def check(hook: SageMakerImageVersionsHook) -> decide.Ready | decide.Waiting | None:
            describe = partial(errors.none_if_not_found, hook.describe_image_version, request.image_name)
            listed = hook.iter_image_versions(request.image_name, sort_by="VERSION")
            return decide.unchanged_since(listed, digests, describe)

        found = task.wait(check)
        if not isinstance(found, decide.Ready):
            # Before Airflow 3.3, the runs of a task share the Variable.
            write_task_state(context, key, [*owners[1 - _RUNS_REMEMBERED :], owner])
            return None
        number = found.version["Version"]
        record = self._describe(task, number)
        note = (
            f"SageMaker image {request.image_name!r}: version {number} already has the container image "
            f"of {request.base_image}"
        )
        if choice == "skip":
            raise AirflowSkipException(f"{note}, and if_unchanged is 'skip'.")
        self.log.info("%s; no version was created", note)
        differing = decide.differing_members(record, request.to_boto())
        if differing:
            self.log.warning(
                "SageMaker image %r: not applied to version %d, because it was not created by this task: %s. Use "
                "SageMakerUpdateImageVersionOperator or SageMakerPromoteImageVersionOperator",
                request.image_name,
                number,
                ", ".join(differing),
            )
        return record

    def _create_idempotently(
        self, hook: SageMakerImageVersionsHook, request: CreateImageVersionRequest, ti: Any
    ) -> int | decide.Waiting:
        for count in itertools.count():
            token = request.client_token(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, count)
            number = self._create(hook, request, token)
            if not isinstance(number, int):
                return number
            self.log.info("SageMaker image %r: version %d was created by this task", request.image_name, number)
            # Each try creates at most one version more than the tries before it, so the first try keeps the version
            # that it gets: that may fail, or not be found yet, and must not be duplicated.
            if count >= ti.try_number - 1 or self._can_reuse(hook, request, number):
                return number
        raise AssertionError

    def _create(
        self, hook: SageMakerImageVersionsHook, request: CreateImageVersionRequest, token: str
    ) -> int | decide.Waiting:
        try:
            return hook.create_image_version(request, token)
        except Exception as error:
            if not errors.may_be_status_conflict(error):
                raise
            # SageMaker returns the same error for a concurrent change, which is temporary.
            image = errors.none_if_not_found(hook.describe_image, request.image_name)
            obstacle = None if image is None else decide.obstacle(image)
            if obstacle is not None:
                return self._raise_if_failed(obstacle)
            if errors.classify_error(error) is ErrorKind.IN_USE:
                self._check_aliases_are_free(hook, request.aliases)
            raise

    def _can_reuse(self, hook: SageMakerImageVersionsHook, request: CreateImageVersionRequest, number: int) -> bool:
        version = None
        for _ in range(_OWN_CHECKS):
            version = errors.none_if_not_found(hook.describe_image_version, request.image_name, version=number)
            if version is not None:
                break
            # A version that was created a moment ago may not be found yet.
            time.sleep(min(_OWN_PAUSE, self.check_interval))
        if decide.adoptable(version):
            return True
        self.log.info(
            "SageMaker image %r: version %d can't become CREATED; creating another one", request.image_name, number
        )
        held = set(request.aliases or ()).intersection(
            errors.none_if_not_found(hook.list_aliases, request.image_name, number) or ()
        )
        if held:
            hook.update_image_version(
                UpdateImageVersionRequest(request.image_name, number, aliases_to_delete=sorted(held))
            )
        return False

    def _emit_outlet_events(
        self, context: Any, version: ImageVersion, hook: SageMakerImageVersionsHook
    ) -> ImageVersion:
        self.log.info("SageMaker image %r: version %d is CREATED", self.image_name, version["Version"])
        self._lineage = (str(hook.conn_region_name), version["Version"])
        aws_conn_id, region = aws_parameters(self)["aws_conn_id"], str(hook.conn_region_name)
        watched = [outlet for outlet in self.outlets if watches(outlet)]
        own_region = self._own_region(hook) if watched else None
        for outlet in watched:
            payload = watched_payload(outlet, version, self.image_name, region, aws_conn_id, own_region=own_region)
            if payload is not None:
                context["outlet_events"][outlet].extra.update(payload=payload)
        return version

    def _own_region(self, hook: SageMakerImageVersionsHook) -> str | None:
        """Return the region that the connection has without the task's; ``None`` if it has none."""
        parameters = aws_parameters(self)
        if parameters["region_name"] is None:
            return str(hook.conn_region_name)
        own = {**parameters, "aws_conn_id": hook.effective_conn_id, "region_name": None}
        try:
            return str(SageMakerImageVersionsHook.from_parameters(**own).conn_region_name)
        except ValueError as error:
            self.log.info("No event for outlets without a region, whose watchers can't poll: %s", error)
            return None


def _check_aliases(
    alias: str | None, aliases_to_add: tuple[str, ...] | None, aliases_to_delete: tuple[str, ...] | None
) -> None:
    if both := set(aliases_to_add or ()).intersection(aliases_to_delete or ()):
        raise ValueError(f"{', '.join(sorted(both))} cannot be in both aliases_to_add and aliases_to_delete.")
    if alias in (aliases_to_delete or ()):
        raise ValueError(
            f"alias={alias!r} is among aliases_to_delete, so a retry could not find the version. Set version instead."
        )


@attrs.frozen(field_transformer=with_converters)
class _UpdateParameters(VersionMetadata, ImageRequest, VersionSelector):
    aliases_to_add: tuple[str, ...] | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))
    aliases_to_delete: tuple[str, ...] | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (*VersionSelector.RULES, _check_aliases)


class SageMakerUpdateImageVersionOperator(ChangingOperator):
    """
    Change the metadata and aliases of a version of an Amazon SageMaker image.

    The operator changes only what differs from the request, so it is safe to repeat. It waits while the version is
    CREATING. To move an alias from another version, use :class:`SageMakerPromoteImageVersionOperator`.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param version: Number of the version, 0 or more. Set either this or ``alias``. (default: none) (templated)
    :param alias: An alias of the version. (default: none) (templated)
    :param aliases_to_add: Aliases to add to the version, which no other version may have; a list, or a comma-separated
        string. (default: none) (templated)
    :param aliases_to_delete: Aliases to remove from the version; a list, or a comma-separated string. (default: none)
        (templated)
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``. (default: unchanged)
        (templated)
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``. (default: unchanged) (templated)
    :param ml_framework: Name and version of the machine learning framework, such as ``PyTorch 2.4``. (default:
        unchanged) (templated)
    :param programming_lang: Name and version of the programming language, such as ``Python 3.11``. (default: unchanged)
        (templated)
    :param processor: ``CPU`` or ``GPU``. (default: unchanged) (templated)
    :param horovod: Whether the version is compatible with Horovod. (default: unchanged) (templated)
    :param release_notes: Release notes, up to 255 characters. (default: unchanged) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param check_interval: Maximum time between status checks while the version is CREATING, in seconds or as a
        timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. It includes the time to wait for
        concurrent changes of the version. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: An alias to add belongs to another version.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such version.
    :return: The version's record with details, see :class:`~airflow_provider_imageversions.model.ImageVersion`.
    :rtype: ImageVersion

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImageVersion.html
    """

    _parameters = _UpdateParameters
    template_fields: Sequence[str] = (*_UpdateParameters.names(), *AWS_PARAMETERS)

    def __init__(
        self,
        *,
        image_name: str,
        version: int | str | None = None,
        alias: str | None = None,
        aliases_to_add: Iterable[str] | str | None = None,
        aliases_to_delete: Iterable[str] | str | None = None,
        vendor_guidance: str | None = None,
        job_type: str | None = None,
        ml_framework: str | None = None,
        programming_lang: str | None = None,
        processor: str | None = None,
        horovod: bool | str | None = None,
        release_notes: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self._set_parameters(locals())
        self._check_changes()

    def _check_changes(self) -> None:
        changes = ("aliases_to_add", "aliases_to_delete", *VersionMetadata.names())
        if all(getattr(self, name) is None for name in changes):
            raise ValueError(f"There is nothing to change. Set at least one of {', '.join(changes)}.")

    def execute(self, context: Any) -> ImageVersion:
        """Update the version."""
        self._check_rendered()
        self._check_changes()
        parameters = _UpdateParameters.of(self)
        image_name = parameters.image_name
        to_add, to_delete = parameters.aliases_to_add or (), parameters.aliases_to_delete or ()
        metadata = {name: getattr(parameters, name) for name in VersionMetadata.names()}
        task = self._start(context)
        # By number from now on: an alias may move to another version before the next check.
        number = task.call(lambda hook: hook.describe_image_version(image_name, **parameters.selector))["Version"]

        def step(hook: SageMakerImageVersionsHook) -> decide.Waiting | None:
            version = hook.describe_image_version(image_name, version=number)
            has = set(hook.list_aliases(image_name, number)) if to_add or to_delete else set()
            adding = [alias for alias in to_add if alias not in has]
            self._check_aliases_are_free(hook, adding)
            request = UpdateImageVersionRequest(
                image_name,
                number,
                aliases_to_add=adding or None,
                aliases_to_delete=[alias for alias in to_delete if alias in has] or None,
                **metadata,
            )
            current = {"ImageName": image_name, **version}
            if any(current.get(member) != value for member, value in request.to_boto().items()):
                return _update(hook, request, version)
            return None

        task.wait(step)
        record = self._describe(task, number)
        self.log.info("SageMaker image %r: version %d has the aliases %s", image_name, number, record["Aliases"])
        return record


def _update(
    hook: SageMakerImageVersionsHook, request: UpdateImageVersionRequest, before: ImageVersion
) -> decide.Waiting | None:
    """
    Change a version, or return what to wait for if it cannot be changed yet.

    :param hook: The hook.
    :param request: The parameters of the call.
    :param before: The version's record before the call. A version that was CREATING may be CREATED when its status is
        checked again; the caller then has to retry.
    """
    try:
        hook.update_image_version(request)
    except Exception as error:
        if not errors.may_be_status_conflict(error):
            raise
        version = errors.none_if_not_found(hook.describe_image_version, request.image_name, version=request.version)
        obstacle = None if version is None else decide.in_creation(version) or decide.in_creation(before)
        if obstacle is None:
            raise
        return obstacle
    return None


def _detach_order(owner: ImageVersion | None) -> int:
    if owner is None:
        return 0
    return 2 if decide.in_creation(owner) is None else 1


def _parse_promoted(name: str, value: object) -> tuple[str, ...]:
    aliases = parse_aliases(name, value)
    if not aliases:
        raise invalid_parameter(name, value, "name at least one alias to move to the version.")
    return aliases


@attrs.frozen(field_transformer=with_converters, kw_only=True)
class _PromoteParameters(ImageRequest, VersionSelector):
    aliases: tuple[str, ...] = attrs.field(metadata=parsed_by(_parse_promoted))
    allow_rollback: bool = attrs.field(default=True, metadata=parsed_by(parse_boolean, accepts_none=False))


class SageMakerPromoteImageVersionOperator(ChangingOperator):
    """
    Move aliases to a version of an Amazon SageMaker image.

    Each alias is removed from the version that has it, if any, and added to this version. This takes two API calls, so
    no version has the alias for a moment. If the task is killed between the calls, its retry adds the alias to the
    version. If SageMaker rejects the second call, the alias is restored. The operator is safe to repeat.

    If the task has to wait for one of several aliases, it first adds those that it has removed already to this version.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param version: Number of the version to promote, 0 or more. The version must be CREATED. Set either this or
        ``alias``. (default: none) (templated)
    :param alias: An alias of the version to promote, such as ``candidate``. (default: none) (templated)
    :param aliases: Aliases to move to the version, such as ``prod``; a list, or a comma-separated string. (templated)
    :param allow_rollback: Whether an alias may be taken from a version with a higher number. Otherwise, the task is
        skipped, so that a late run does not undo the promotion of a later one. (default: True) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param check_interval: Maximum time between status checks while a version that has one of the aliases is CREATING,
        in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. It includes the time to wait for
        concurrent changes of the versions. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: The version is not CREATED and so cannot be promoted.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises AirflowSkipException: A version with a higher number has one of the aliases, and ``allow_rollback`` is
        False.
    :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such version.
    :return: The version's record with details, see :class:`~airflow_provider_imageversions.model.ImageVersion`.
    :rtype: ImageVersion

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateImageVersion.html
    """

    _parameters = _PromoteParameters
    template_fields: Sequence[str] = (*_PromoteParameters.names(), *AWS_PARAMETERS)

    def __init__(
        self,
        *,
        image_name: str,
        aliases: Iterable[str] | str,
        version: int | str | None = None,
        alias: str | None = None,
        allow_rollback: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self._set_parameters(locals())

    def execute(self, context: Any) -> ImageVersion:
        """Move the aliases."""
        self._check_rendered()
        parameters = _PromoteParameters.of(self)
        image_name, aliases = parameters.image_name, parameters.aliases
        task = self._start(context)
        # By number from now on: an alias may move to another version before the next check.
        number = task.call(lambda hook: hook.describe_image_version(image_name, **parameters.selector))["Version"]
        taken: dict[str, int] = {}

        def step(hook: SageMakerImageVersionsHook) -> decide.Waiting | None:
            version = hook.describe_image_version(image_name, version=number)
            self._raise_if_failed(decide.refusal(version, "promoted"))
            has = set(hook.list_aliases(image_name, number))
            moving = [alias for alias in aliases if alias not in has]
            if not moving:
                return None
            describe = partial(errors.none_if_not_found, hook.describe_image_version, image_name)
            owners = {alias: describe(alias=alias) for alias in moving}
            # All are checked before one is detached, so that a skipped task has changed nothing.
            if not parameters.allow_rollback:
                self._skip_rollback(owners, number)
            if (obstacle := self._detach_aliases(hook, owners, version, taken)) is not None:
                return obstacle
            return _update(hook, UpdateImageVersionRequest(image_name, number, aliases_to_add=moving), version)

        try:
            task.wait(step)
        except BaseException:  # Airflow's execution_timeout is one
            self._restore_alias(task, taken, number)
            raise
        record = self._describe(task, number)
        self.log.info("SageMaker image %r: version %d has the aliases %s", image_name, number, record["Aliases"])
        return record

    def _skip_rollback(self, owners: dict[str, ImageVersion | None], number: int) -> None:
        for alias, owner in owners.items():
            if owner is not None and owner["Version"] > number:
                raise AirflowSkipException(
                    f"SageMaker image {self.image_name!r}: the alias {alias!r} belongs to version {owner['Version']} "
                    f"already, which is newer than version {number}, and allow_rollback is False."
                )

    def _detach_aliases(
        self,
        hook: SageMakerImageVersionsHook,
        owners: dict[str, ImageVersion | None],
        version: ImageVersion,
        taken: dict[str, int],
    ) -> decide.Waiting | None:
        number = version["Version"]
        # A version that is CREATING may reject the change, so its aliases come before those that can be removed.
        order = sorted(owners, key=lambda alias: _detach_order(owners[alias]))
        for count, alias in enumerate(order):
            # Before the task waits, the version gets the aliases that no other version has any more.
            add_detached = partial(
                _update,
                hook,
                UpdateImageVersionRequest(self.image_name, number, aliases_to_add=order[:count] or None),
                version,
            )
            try:
                obstacle = self._detach_alias(hook, alias, owners[alias], number, taken)
            except Exception as error:
                if count and errors.classify_error(error) not in {None, ErrorKind.PERMANENT}:
                    add_detached()
                raise
            if obstacle is not None:
                if count:
                    add_detached()
                return obstacle
        return None

    def _detach_alias(
        self,
        hook: SageMakerImageVersionsHook,
        alias: str,
        owner: ImageVersion | None,
        number: int,
        taken: dict[str, int],
    ) -> decide.Waiting | None:
        if owner is None:
            if alias not in taken:
                self.log.info(
                    "SageMaker image %r: no version has the alias %r; an earlier try may have been interrupted while "
                    "moving it. Adding it to version %d",
                    self.image_name,
                    alias,
                    number,
                )
            return None
        self.log.info(
            "SageMaker image %r: removing the alias %r from version %d; no version has it until version %d gets it",
            self.image_name,
            alias,
            owner["Version"],
            number,
        )
        taken[alias] = owner["Version"]
        # If the version has lost the alias, another task moved it; adding it then fails if a version has it.
        return errors.none_if_not_found(
            _update,
            hook,
            UpdateImageVersionRequest(self.image_name, owner["Version"], aliases_to_delete=[alias]),
            owner,
        )

    def _restore_alias(self, task: WorkerPoller, taken: dict[str, int], number: int) -> None:
        for alias, owner in taken.items():
            try:
                if errors.none_if_not_found(task.hook.describe_image_version, self.image_name, alias=alias) is None:
                    task.hook.update_image_version(
                        UpdateImageVersionRequest(self.image_name, owner, aliases_to_add=[alias])
                    )
                    self.log.warning(
                        "SageMaker image %r: the alias %r could not be added to version %d and was restored to "
                        "version %d",
                        self.image_name,
                        alias,
                        number,
                        owner,
                    )
            except Exception:  # noqa: PERF203  # each alias counts; the first error is the one to raise
                self.log.exception(
                    "SageMaker image %r: no version has the alias %r now, which version %d had. A retry of this task "
                    "will add it to version %d",
                    self.image_name,
                    alias,
                    owner,
                    number,
                )
