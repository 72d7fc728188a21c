"""The operators that create, change, promote and delete versions."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._parameters import (
    invalid_parameter,
    is_literal,
    parse_aliases,
    parse_boolean,
    parse_ecr_image,
    parse_member,
    parse_scope,
    parsed_by,
    with_converters,
)
from airflow_provider_imageversions._requests import ImageRequest, VersionMetadata
from airflow_provider_imageversions.assets import watched_payload, watches
from airflow_provider_imageversions.compat import (
    AirflowSkipException,
    conf,
    is_trigger_timeout,
    read_task_state,
    write_task_state,
)
from airflow_provider_imageversions.deferral import (
    deferral_limit,
    raise_execution_timeout,
    raise_if_trigger_failed,
    read_event,
)
from airflow_provider_imageversions.errors import (
    ErrorKind,
    SageMakerImageOperationError,
    SageMakerImageOperationTimeoutError,
    classify_error,
    describe_error,
    may_be_status_conflict,
    none_if_not_found,
)
from airflow_provider_imageversions.hooks import (
    AWS_PARAMETERS,
    SageMakerImageVersionsHook,
    aws_parameters,
    resolved_aws_parameters,
)
from airflow_provider_imageversions.model import (
    CreateImageVersionRequest,
    PrunePolicy,
    Target,
    UpdateImageVersionRequest,
)
from airflow_provider_imageversions.studio import describe_users
from airflow_provider_imageversions.triggers import SageMakerImageVersionTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_imageversions._worker import WorkerPoller
    from airflow_provider_imageversions.model import ImageVersion

from airflow_provider_imageversions.operators._base import ChangingOperator, VersionSelector

_OWN_CHECKS, _OWN_PAUSE = 5, 2.0
_IN_USE_PATIENCE = 60.0
"""Maximum time in seconds that pruning waits for another change of a version to complete."""


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
    Create a version of an Amazon SageMaker image, wait until it is CREATED, and return its record with its details.

    A retry makes no duplicate as long as SageMaker remembers the request's ClientToken, which is derived from DAG, run,
    task and map index (and from the request itself): a try after a crash, or a run that is cleared, continues with the
    version that the first try created. Only if that one failed or was deleted, another one is created. AWS does not
    document how long a token is remembered. After that, another version is created; with ``aliases`` SageMaker refuses
    it, as the first version has them, and the task fails. Two Airflows that share an AWS account must not share ids of
    DAGs and runs, and a template must not render to something else at each try, as the time now would.

    With an asset of :func:`~airflow_provider_imageversions.assets.image_version_asset` for the image among its
    ``outlets``, the task itself emits the event that the asset's watcher would, with the same ``event_id``, so that
    DAGs scheduled on the asset start at once.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. Templated, like all that
        follow.
    :param base_image: Registry path of the container image in Amazon ECR, up to 255 characters.
    :param aliases: Aliases for the version, that no other version has; a list, or a string with commas.
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``.
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``.
    :param ml_framework: Name and version, such as ``PyTorch 2.4``.
    :param programming_lang: Name and version, such as ``Python 3.11``.
    :param processor: ``CPU`` or ``GPU``.
    :param horovod: Whether it is compatible with Horovod.
    :param release_notes: Up to 255 characters.
    :param only_if_changed: Create no version if the newest CREATED one has the container image that ``base_image``
        names in Amazon ECR now, by its digest. Aliases and metadata are not applied to that version then; the log names
        those that differ. A version that is CREATING and may be of the same container image is waited for. A retry, or
        a run that is cleared, continues with the version that its first try created. (default: False)
    :param if_unchanged: What to do then: ``return`` the record of the newest CREATED version, or ``skip`` the task.
        (default: ``return``)
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    :param wait_for_completion: Wait until the version is CREATED; default: yes. Otherwise the record is that of a
        version that is CREATING. Not templated, like all that follow.
    :param deferrable: Wait in the triggerer, where all waits for the same image share one API call an interval.
        Default: ``[operators] default_deferrable``.
    :param check_interval: Maximum time in seconds between two status checks. (default: 30)
    :param timeout: Time in seconds after which the task fails. It includes the wait and what precedes it: an image that
        is CREATING, and other changes of the image at the same time, are waited out. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises AirflowSkipException: Nothing changed, and ``if_unchanged`` is ``skip``.
    :raises SageMakerImageOperationError: The version is CREATE_FAILED, with SageMaker's reason; an alias is another
        version's; the image can't get versions. A retry after CREATE_FAILED makes another version.
    :raises SageMakerImageVersionPollingError: Access denied and the like, or the trigger failed, from a deferral.
    :raises SageMakerImageOperationTimeoutError: ``timeout`` is over.
    :raises botocore.exceptions.ClientError: What the service answers; ``ResourceNotFound`` if there is no such image.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateImageVersion.html
    """

    _parameters = _CreateParameters
    template_fields: Sequence[str] = (*_CreateParameters.names(), *AWS_PARAMETERS)
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
        self.wait_for_completion = parse_boolean("wait_for_completion", wait_for_completion)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = parse_boolean("deferrable", deferrable)
        self._set_parameters(locals())
        self._check_outlets()

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
                "asset among the outlets: its consumers would start although there is no new version. Set "
                "if_unchanged='skip'."
            )
        if not self.wait_for_completion:
            raise ValueError(
                "wait_for_completion=False can't be combined with the image's asset among the outlets: its consumers "
                "would start before the version is CREATED. Leave out one or the other; the asset's own watcher tells "
                "of the version when it is."
            )

    def execute(self, context: Any) -> ImageVersion:
        """Create it, or continue with what an earlier try created."""
        return self._create_and_wait(context, deferrable=self.deferrable)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Go on after the deferral, or after it timed out."""
        if is_trigger_timeout(next_method, next_kwargs):
            # The triggerer may have been away. The same request gives the number again.
            try:
                return self._create_and_wait(context, deferrable=False, left=0.0)
            except SageMakerImageOperationTimeoutError:
                raise_execution_timeout(self, self.timeout, f"SageMaker image {self.image_name!r}: the version")
                raise
        raise_if_trigger_failed(next_method, next_kwargs)
        return super().resume_execution(next_method, next_kwargs, context)

    def _create_and_wait(self, context: Any, *, deferrable: bool, left: float | None = None) -> ImageVersion:
        self._check_rendered()
        self._check_outlets()
        parameters, request = _CreateParameters.of(self), CreateImageVersionRequest.of(self)
        task = self._start(context, request.image_name, left)
        if parameters.only_if_changed:
            unchanged = self._find_unchanged(context, task, request, parameters.if_unchanged)
            if unchanged is not None:
                return unchanged
        number = task.wait(lambda hook: self._create_idempotently(hook, request, context["ti"]))
        if not self.wait_for_completion:
            self._lineage = (str(task.hook.conn_region_name), number)
            return task.call(lambda hook: hook.add_details(request.image_name, {"Version": number}))
        if deferrable:
            self.log.info("SageMaker image %r: waiting in the triggerer for version %d", request.image_name, number)
            self.defer(
                trigger=SageMakerImageVersionTrigger(
                    image_name=request.image_name,
                    version=number,
                    include_details=True,
                    poll_interval=self.check_interval,
                    **resolved_aws_parameters(self, task.hook),
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=max(deferral_limit(self, task.left), 1.0)),
            )
        target, was_there = Target(version=number), False

        def look(hook: SageMakerImageVersionsHook) -> decide.Outcome:
            nonlocal was_there
            version = none_if_not_found(hook.describe_image_version, request.image_name, version=number)
            was_there |= version is not None
            return decide.outcome([] if version is None else [version], target, was_there=was_there)

        self._raise_if_failed(task.wait(look))
        return self._emit_outlet_events(
            context, task.call(lambda hook: hook.add_details(request.image_name, {"Version": number})), task.hook
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> ImageVersion:
        """
        Go on after the deferral.

        :param context: The task's context.
        :param event: The trigger's payload.
        """
        hook = SageMakerImageVersionsHook.from_parameters(**aws_parameters(self))
        return self._emit_outlet_events(context, self._raise_if_failed(read_event(event)), hook)

    def _find_unchanged(
        self, context: Any, task: WorkerPoller, request: CreateImageVersionRequest, choice: str
    ) -> ImageVersion | None:
        """Return the newest CREATED version if it has the container image already; skip the task if it is to be."""
        ti = context["ti"]
        identity = hashlib.sha256(json.dumps([ti.dag_id, ti.task_id, ti.map_index]).encode()).hexdigest()[:24]
        key, owner = f"sagemaker_create_{identity}", [ti.run_id, request.image_name, request.base_image]
        if read_task_state(context, key) == owner:
            # An earlier try found it changed, and may have created the version.
            return None
        digests = task.call(lambda hook: hook.find_container_digests(request.base_image))
        if not digests:
            raise SageMakerImageOperationError(
                f"SageMaker image {request.image_name!r}: Amazon ECR has no container image "
                f"base_image={request.base_image!r}. Check account, region, repository and tag"
            )

        def look(hook: SageMakerImageVersionsHook) -> decide.Ready | decide.Waiting | None:
            listed = hook.iter_image_versions(request.image_name, sort_by="VERSION")
            return decide.unchanged_since(
                listed,
                digests,
                lambda number: none_if_not_found(hook.describe_image_version, request.image_name, version=number),
            )

        found = task.wait(look)
        if not isinstance(found, decide.Ready):
            write_task_state(context, key, owner)
            return None
        number = found.version["Version"]
        record = task.call(lambda hook: hook.add_details(request.image_name, {"Version": number}))
        self._lineage = (str(task.hook.conn_region_name), number)
        note = (
            f"SageMaker image {request.image_name!r}: version {number} has the container image of "
            f"{request.base_image} already"
        )
        if choice == "skip":
            raise AirflowSkipException(f"{note}, and if_unchanged is 'skip'.")
        self.log.info("%s; no version was created", note)
        differing = decide.differing_members(record, request.to_boto())
        if differing:
            self.log.warning(
                "SageMaker image %r: not applied to version %d, as it was not created by this task: %s. Use "
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
            # No try makes more than the tries before it could have lost, so a first one takes what it gets: its version
            # may fail, or not be found yet, before it is looked at, and must not be doubled for that.
            if count >= ti.try_number - 1 or self._can_reuse(hook, request, number):
                return number
        raise AssertionError

    def _create(
        self, hook: SageMakerImageVersionsHook, request: CreateImageVersionRequest, token: str
    ) -> int | decide.Waiting:
        try:
            return hook.create_image_version(request, token)
        except Exception as error:
            if not may_be_status_conflict(error):
                raise
            # SageMaker answers the same to a change at the same time, which passes.
            image = none_if_not_found(hook.describe_image, request.image_name)
            obstacle = None if image is None else decide.obstacle(image)
            if obstacle is not None:
                return self._raise_if_failed(obstacle)
            if classify_error(error) is ErrorKind.IN_USE:
                self._raise_if_failed(_find_alias_conflict(hook, request.image_name, request.aliases))
            raise

    def _can_reuse(self, hook: SageMakerImageVersionsHook, request: CreateImageVersionRequest, number: int) -> bool:
        version = None
        for _ in range(_OWN_CHECKS):
            version = none_if_not_found(hook.describe_image_version, request.image_name, version=number)
            if version is not None:
                break
            # It may have been made a moment ago, and not be found yet.
            time.sleep(min(_OWN_PAUSE, self.check_interval))
        if decide.adoptable(version):
            return True
        self.log.info("SageMaker image %r: version %d can't become CREATED, making another", request.image_name, number)
        held = set(request.aliases or ()).intersection(
            none_if_not_found(hook.list_aliases, request.image_name, number) or ()
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
        aws_conn_id = aws_parameters(self)["aws_conn_id"]
        for outlet in self.outlets:
            payload = watched_payload(outlet, version, self.image_name, str(hook.conn_region_name), aws_conn_id)
            if payload is not None:
                context["outlet_events"][outlet].extra.update(payload=payload)
        return version


def _find_alias_conflict(
    hook: SageMakerImageVersionsHook, image_name: str, aliases: Iterable[str] | None
) -> decide.Failed | None:
    """Return which of the aliases belongs to another version."""
    for alias in aliases or ():
        owner = none_if_not_found(hook.describe_image_version, image_name, alias=alias)
        if owner is not None:
            return decide.Failed(
                f"the alias {alias!r} belongs to version {owner['Version']}: leave it out, and move it with "
                f"SageMakerPromoteImageVersionOperator(aliases=[{alias!r}])"
            )
    return None


def _check_aliases(
    alias: str | None, aliases_to_add: tuple[str, ...] | None, aliases_to_delete: tuple[str, ...] | None
) -> None:
    if both := set(aliases_to_add or ()).intersection(aliases_to_delete or ()):
        raise ValueError(f"aliases_to_delete names {', '.join(sorted(both))}, which aliases_to_add names, too.")
    if alias in (aliases_to_delete or ()):
        raise ValueError(
            f"alias={alias!r} is among aliases_to_delete, so a retry would not find the version by it: set version, "
            "its number, instead."
        )


@attrs.frozen(field_transformer=with_converters)
class _UpdateParameters(VersionMetadata, ImageRequest, VersionSelector):
    aliases_to_add: tuple[str, ...] | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))
    aliases_to_delete: tuple[str, ...] | None = attrs.field(default=None, metadata=parsed_by(parse_aliases))

    RULES: ClassVar[tuple[Callable[..., None], ...]] = (*VersionSelector.RULES, _check_aliases)


class SageMakerUpdateImageVersionOperator(ChangingOperator):
    """
    Change the metadata and aliases of a version of an Amazon SageMaker image, and return its record with its details.

    Nothing is called for what is so already, so this is safe to repeat. A version that is CREATING is changed as soon
    as it can be. To give a version an alias that another one has, use :class:`SageMakerPromoteImageVersionOperator`.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. Templated, like all that
        follow.
    :param version: The version's number, 0 or more.
    :param alias: An alias of the version, in place of ``version``.
    :param aliases_to_add: Aliases to add to the version, that no other version has; a list, or a string with commas.
    :param aliases_to_delete: Aliases to remove from the version.
    :param vendor_guidance: ``NOT_PROVIDED``, ``STABLE``, ``TO_BE_ARCHIVED`` or ``ARCHIVED``.
    :param job_type: ``TRAINING``, ``INFERENCE`` or ``NOTEBOOK_KERNEL``.
    :param ml_framework: Name and version, such as ``PyTorch 2.4``.
    :param programming_lang: Name and version, such as ``Python 3.11``.
    :param processor: ``CPU`` or ``GPU``.
    :param horovod: Whether it is compatible with Horovod.
    :param release_notes: Up to 255 characters.
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    :param check_interval: Maximum time in seconds between two status checks while the version is CREATING. Not
        templated, like the next one. (default: 30)
    :param timeout: Time in seconds after which the task fails, also while somebody else changes the version.
        (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: An alias to add belongs to another version.
    :raises SageMakerImageOperationTimeoutError: ``timeout`` is over.
    :raises botocore.exceptions.ClientError: What SageMaker answers; ``ResourceNotFound`` if there is no such version.

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

    def execute(self, context: Any) -> ImageVersion:
        """Change it."""
        self._check_rendered()
        parameters = _UpdateParameters.of(self)
        image_name = parameters.image_name
        to_add, to_delete = parameters.aliases_to_add or (), parameters.aliases_to_delete or ()
        metadata = {name: getattr(parameters, name) for name in VersionMetadata.names()}
        task = self._start(context, image_name)
        # By number from here on: an alias may move to another version before the next check.
        number = task.call(lambda hook: hook.describe_image_version(image_name, **parameters.selector))["Version"]

        def step(hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | None:
            version = hook.describe_image_version(image_name, version=number)
            has = set(hook.list_aliases(image_name, number)) if to_add or to_delete else set()
            adding = [alias for alias in to_add if alias not in has]
            if (refusal := _find_alias_conflict(hook, image_name, adding)) is not None:
                return refusal
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

        self._raise_if_failed(task.wait(step))
        self._lineage = (str(task.hook.conn_region_name), number)
        record = task.call(lambda hook: hook.add_details(image_name, {"Version": number}))
        self.log.info("SageMaker image %r: version %d has the aliases %s", image_name, number, record["Aliases"])
        return record


def _update(
    hook: SageMakerImageVersionsHook, request: UpdateImageVersionRequest, before: ImageVersion
) -> decide.Waiting | None:
    """
    Change a version, or return what to wait for if it cannot be changed yet.

    :param hook: The hook.
    :param request: The call, checked.
    :param before: The version's record just before. A version that was CREATING may be CREATED by the time at which
        the status is checked; then the caller has to try again.
    """
    try:
        hook.update_image_version(request)
    except Exception as error:
        if not may_be_status_conflict(error):
            raise
        version = none_if_not_found(hook.describe_image_version, request.image_name, version=request.version)
        obstacle = None if version is None else decide.in_creation(version) or decide.in_creation(before)
        if obstacle is None:
            raise
        return obstacle
    return None


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
    Move aliases to a version of an Amazon SageMaker image, and return its record with its details.

    Each alias is taken from the version that has it, if there is one, and given to this one. SageMaker needs two calls
    for that, so for a moment no version has the alias. A task that is killed in between leaves it so, and its retry
    gives the alias to the version. If SageMaker refuses the second call for good, the alias is given back. This is safe
    to repeat.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. Templated, like all that
        follow.
    :param version: The number of the version to promote, 0 or more. It has to be CREATED.
    :param alias: An alias of the version to promote, such as ``candidate``, in place of ``version``.
    :param aliases: Aliases to move to the version, such as ``prod``; a list, or a string with commas.
    :param allow_rollback: Whether an alias may be taken from a version with a higher number. Otherwise the task is
        skipped then, so that a run that comes late does not undo a later one's promotion. (default: True)
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    :param check_interval: Maximum time in seconds between two status checks while a version that has one of the aliases
        is CREATING. Not templated, like the next one. (default: 30)
    :param timeout: Time in seconds after which the task fails, also while somebody else changes one of the versions.
        (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: The version is not CREATED and so cannot be promoted.
    :raises SageMakerImageOperationTimeoutError: ``timeout`` is over.
    :raises AirflowSkipException: A version with a higher number has one of the aliases, and ``allow_rollback`` is
        False.
    :raises botocore.exceptions.ClientError: What SageMaker answers; ``ResourceNotFound`` if there is no such version.

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
        """Promote it."""
        self._check_rendered()
        parameters = _PromoteParameters.of(self)
        image_name, aliases = parameters.image_name, parameters.aliases
        task = self._start(context, image_name)
        # By number from here on: an alias may move to another version before the next check.
        number = task.call(lambda hook: hook.describe_image_version(image_name, **parameters.selector))["Version"]
        taken: dict[str, int] = {}

        def step(hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | None:
            version = hook.describe_image_version(image_name, version=number)
            has = set(hook.list_aliases(image_name, number))
            moving = [alias for alias in aliases if alias not in has]
            if not moving:
                return None
            if (refusal := decide.promotable(version)) is not None:
                return refusal
            owners = {
                alias: none_if_not_found(hook.describe_image_version, image_name, alias=alias) for alias in moving
            }
            # All are checked before one is detached, so that a skipped task has changed nothing.
            if not parameters.allow_rollback:
                self._skip_rollback(owners, number)
            for alias, owner in owners.items():
                if (obstacle := self._detach_alias(hook, alias, owner, number, taken)) is not None:
                    return obstacle
            return _update(hook, UpdateImageVersionRequest(image_name, number, aliases_to_add=moving), version)

        try:
            self._raise_if_failed(task.wait(step))
        except BaseException:  # Airflow's execution_timeout is one
            self._restore_alias(task, taken, number)
            raise
        self._lineage = (str(task.hook.conn_region_name), number)
        record = task.call(lambda hook: hook.add_details(image_name, {"Version": number}))
        self.log.info("SageMaker image %r: version %d has the aliases %s", image_name, number, record["Aliases"])
        return record

    def _skip_rollback(self, owners: dict[str, ImageVersion | None], number: int) -> None:
        for alias, owner in owners.items():
            if owner is not None and owner["Version"] > number:
                raise AirflowSkipException(
                    f"SageMaker image {self.image_name!r}: the alias {alias!r} belongs to version {owner['Version']} "
                    f"already, which is newer than version {number}, and allow_rollback is False."
                )

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
                    "it moved it. Giving it to version %d",
                    self.image_name,
                    alias,
                    number,
                )
            return None
        self.log.info(
            "SageMaker image %r: taking the alias %r from version %d; no version has it until version %d does",
            self.image_name,
            alias,
            owner["Version"],
            number,
        )
        taken[alias] = owner["Version"]
        # Where it is not there any more, another task was faster; who has it then is seen when it is to be given.
        return none_if_not_found(
            _update,
            hook,
            UpdateImageVersionRequest(self.image_name, owner["Version"], aliases_to_delete=[alias]),
            owner,
        )

    def _restore_alias(self, task: WorkerPoller, taken: dict[str, int], number: int) -> None:
        for alias, owner in taken.items():
            try:
                if none_if_not_found(task.hook.describe_image_version, self.image_name, alias=alias) is None:
                    task.hook.update_image_version(
                        UpdateImageVersionRequest(self.image_name, owner, aliases_to_add=[alias])
                    )
                    self.log.warning(
                        "SageMaker image %r: the alias %r could not be given to version %d and was given back to "
                        "version %d",
                        self.image_name,
                        alias,
                        number,
                        owner,
                    )
            except Exception:  # noqa: PERF203  # each alias counts; the first error is the one to raise
                self.log.exception(
                    "SageMaker image %r: no version has the alias %r now, which was version %d's. A retry of this task "
                    "will give it to version %d",
                    self.image_name,
                    alias,
                    owner,
                    number,
                )


@attrs.frozen(field_transformer=with_converters)
class _DeleteParameters(ImageRequest, VersionSelector):
    refuse_if_used: tuple[str, ...] = attrs.field(default=(), metadata=parsed_by(parse_scope, accepts_none=False))


class SageMakerDeleteImageVersionOperator(ChangingOperator):
    """
    Delete a version of an Amazon SageMaker image, with its aliases, and wait until it is gone.

    Its container image in Amazon ECR stays. A version that is gone already is a success; a version that is CREATING is
    deleted when it can be.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. Templated, like all that
        follow.
    :param version: The version's number, 0 or more.
    :param alias: An alias of the version, in place of ``version``. A retry, or a run that is cleared, deletes the
        version that has the alias by then: give the number where the alias may be another version's meanwhile.
    :param refuse_if_used: Fail if SageMaker Studio uses the version: ``True``, or where to look, some of ``domains``,
        ``apps``, ``user_profiles`` and ``spaces``. It takes more permissions and more API calls, see
        :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.find_image_version_usage`. Otherwise a
        warning is logged, as SageMaker may delete a version that a space starts from. (default: False)
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    :param wait_for_completion: Wait until the version is gone; default: yes. Not templated, like the next two.
    :param check_interval: Maximum time in seconds between two status checks. (default: 30)
    :param timeout: Time in seconds after which the task fails. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: The version is in use, or DELETE_FAILED, with SageMaker's reason.
    :raises SageMakerImageOperationTimeoutError: ``timeout`` is over.
    :raises botocore.exceptions.ClientError: What the service answers, such as access denied.
    :return: The number of the version; ``None`` if no version had the alias.

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteImageVersion.html
    """

    _parameters = _DeleteParameters
    template_fields: Sequence[str] = (*_DeleteParameters.names(), *AWS_PARAMETERS)

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
        self.wait_for_completion = parse_boolean("wait_for_completion", wait_for_completion)
        self._set_parameters(locals())

    def execute(self, context: Any) -> int | None:
        """Delete it."""
        self._check_rendered()
        parameters = _DeleteParameters.of(self)
        image_name, selector, scope = parameters.image_name, parameters.selector, parameters.refuse_if_used
        task = self._start(context, image_name)
        version = task.call(lambda hook: none_if_not_found(hook.describe_image_version, image_name, **selector))
        if version is None:
            self.log.warning("SageMaker image %r: %s does not exist; nothing to delete", image_name, parameters)
            return parameters.version
        number = version["Version"]
        if not scope:
            self._warn_of_unchecked_usage("refuse_if_used")
        elif users := self._find_users(task, image_name, scope).get(str(number)):
            self._raise_if_failed(
                decide.Failed(
                    f"version {number} is used by {describe_users(users)}, and so it is not deleted. Roll out another "
                    "version there, or set refuse_if_used=False"
                )
            )
        task.wait(lambda hook: _delete(hook, image_name, version))
        if self.wait_for_completion:
            self._raise_if_failed(
                task.wait(
                    lambda hook: decide.remains(
                        none_if_not_found(hook.describe_image_version, image_name, version=number)
                    )
                )
            )
        is_gone = "is deleted" if self.wait_for_completion else "is being deleted"
        self.log.info("SageMaker image %r: version %d %s", image_name, number, is_gone)
        return number


def _delete(hook: SageMakerImageVersionsHook, image_name: str, version: ImageVersion) -> decide.Waiting | None:
    """
    Begin to delete a version, unless that was begun or is done already; return what to wait for if it cannot be yet.

    :param hook: The hook.
    :param image_name: Name of the image.
    :param version: The version's record, which is brought up to date if the call is refused. A later version of the
        same number, after the image was deleted and created again, is not waited for.
    """
    before = decide.in_creation(version)
    try:
        hook.delete_image_version(image_name, version["Version"])
    except Exception as error:
        if classify_error(error) is ErrorKind.MISSING:
            return None
        if not may_be_status_conflict(error):
            raise
        now = none_if_not_found(hook.describe_image_version, image_name, version=version["Version"])
        if now is None or not decide.is_same_version(now, version) or decide.is_being_deleted(now):
            return None
        version.update(now)
        # One that was CREATING may have become CREATED between the refusal and this check.
        obstacle = decide.in_creation(now) or before
        if obstacle is None:
            raise
        return obstacle
    return None


class SageMakerPruneImageVersionsOperator(ChangingOperator):
    """
    Delete the versions of an Amazon SageMaker image that nobody needs any more.

    Failed versions are deleted first, then the oldest. Always kept are the newest CREATED version and what is CREATING.
    Whether a version has an alias is asked just before it is deleted. Safe to repeat, and to run twice at once. What is
    a template and renders to nothing is refused, rather than let more be deleted.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. Templated, like all that
        follow.
    :param keep_newest: Keep this number of the newest CREATED versions. Failed ones do not count.
    :param keep_younger_than: Keep what was created within this time, failed or not; a timedelta or seconds. Give at
        least one of the two; a version that either keeps is kept.
    :param keep_versions: Keep the versions with these numbers; a list, or a string with commas. (default: none)
    :param keep_aliased: Keep versions that have an alias. (default: True)
    :param keep_used: Keep versions that SageMaker Studio uses: ``True``, or where to look, some of ``domains``,
        ``apps``, ``user_profiles`` and ``spaces``. It takes more permissions and more API calls, see
        :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.find_image_version_usage`. If that
        cannot be read, the task fails and deletes nothing. Otherwise a warning is logged, as SageMaker may delete a
        version that a space starts from. (default: False)
    :param limit: Maximum number of versions to delete in one try of the task. (default: all that may go)
    :param preview: Delete nothing, but return what would be deleted. (default: False)
    :param aws_conn_id: The Airflow connection for AWS credentials; ``None``: boto3's default chain.
    :param region_name: AWS region; default: the connection's.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Keyword arguments for botocore's Config.
    :param check_interval: Maximum time in seconds between two status checks of a version that cannot be deleted yet.
        Not templated, like the next one. (default: 30)
    :param timeout: Time in seconds after which the task fails while the API can't be called. What is deleted by then
        stays deleted. A version that somebody else is changing for longer than a minute is kept, with a warning, so
        that it holds up no other. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationTimeoutError: ``timeout`` is over.
    :raises botocore.exceptions.ClientError: What the service answers; ``ResourceNotFound`` if there is no such image.
    :return: ``{"deleted": [...], "kept": {"newest": [...], "age": [...], "alias": [...], "limit": [...], "in_use":
        [...], "status": [...], "listed": [...], "used": [...]}, "used_by": {...}, "preview": bool}``, each a list of
        version numbers in ascending order. All keys are always there. ``newest``, ``age``, ``alias``, ``limit`` and
        ``listed`` (in ``keep_versions``) are kept by the policy; ``used`` is kept by ``keep_used``, and ``used_by``
        says by whom, by the version's number as text; ``in_use`` could not be deleted as somebody else was changing it;
        ``status`` is CREATING, DELETING or unknown. Deletion takes seconds more after that.

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
        """Delete what may go."""
        self._check_rendered()
        image_name, policy = ImageRequest.of(self).image_name, PrunePolicy.of(self)
        task = self._start(context, image_name)
        versions = task.call(lambda hook: hook.list_image_versions(image_name, sort_by="VERSION"))

        def aliases_of(number: int) -> list[str]:
            return task.call(lambda hook: none_if_not_found(hook.list_aliases, image_name, number)) or []

        users: dict[str, list[dict[str, Any]]] | None = None

        def users_of(number: int) -> list[dict[str, Any]]:
            # Once for all, and before anything is deleted.
            nonlocal users
            if users is None:
                scope = parse_scope("keep_used", policy.keep_used)
                users = self._find_users(task, image_name, scope) if scope else {}
            return users.get(str(number), [])

        if not policy.keep_used:
            self._warn_of_unchecked_usage("keep_used")
        deleted: list[int] = []
        used_by: dict[str, list[dict[str, Any]]] = {}
        kept: dict[str, list[int]] = {reason: [] for reason in decide.KEPT}
        for version, policy_reason in decide.prune(
            versions, policy, now=datetime.now(timezone.utc), aliases_of=aliases_of, is_used=lambda n: bool(users_of(n))
        ):
            reason = policy_reason
            if reason is None and not policy.preview:
                reason = self._delete_or_keep(task, image_name, version)
            if reason == "used":
                used_by[str(version["Version"])] = users_of(version["Version"])
                self.log.info(
                    "SageMaker image %r: version %d is kept: it is used by %s",
                    image_name,
                    version["Version"],
                    describe_users(used_by[str(version["Version"])]),
                )
            if reason is not None:
                kept[reason].append(version["Version"])
                continue
            deleted.append(version["Version"])
            self.log.info(
                "SageMaker image %r: version %d (%s, created %s) %s",
                image_name,
                version["Version"],
                version["ImageVersionStatus"],
                version["CreationTime"],
                "would be deleted" if policy.preview else "is being deleted",
            )
        self.log.info(
            "SageMaker image %r: %s %d versions; kept: %s",
            image_name,
            "would delete" if policy.preview else "deleted",
            len(deleted),
            ", ".join(f"{len(numbers)} ({reason})" for reason, numbers in kept.items() if numbers) or "none",
        )
        return {
            "deleted": sorted(deleted),
            "kept": {reason: sorted(numbers) for reason, numbers in kept.items()},
            "used_by": {number: used_by[number] for number in sorted(used_by, key=int)},
            "preview": policy.preview,
        }

    def _delete_or_keep(self, task: WorkerPoller, image_name: str, version: ImageVersion) -> str | None:
        """Begin to delete a version; return the reason for which it stays if it cannot be deleted."""
        try:
            obstacle = task.wait_briefly(lambda hook: _delete(hook, image_name, version), patience=_IN_USE_PATIENCE)
        except Exception as error:
            if classify_error(error) is not ErrorKind.IN_USE:
                raise
            note = describe_error(error)
        else:
            if obstacle is None:
                return None
            note = obstacle.note
        self.log.warning("SageMaker image %r: version %d is kept: %s", image_name, version["Version"], note)
        return "in_use"
