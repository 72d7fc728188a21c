"""The operators for SageMaker Studio: find who uses which version, roll a version out, and roll it back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_provider_imageversions import decide, deferral, errors, studio
from airflow_provider_imageversions._parameters import (
    USAGE_SCOPES,
    blank_parameter,
    invalid_parameter,
    parse_alias,
    parse_boolean,
    parse_domain_id,
    parse_mapping,
    parse_member,
    parse_names,
    parse_seconds,
    parse_studio_name,
    parse_version,
    parsed_by,
    truncated_repr,
    with_converters,
)
from airflow_provider_imageversions._requests import ImageRequest, UsageRequest
from airflow_provider_imageversions._task import Flag, is_deferrable
from airflow_provider_imageversions._worker import WorkerPoller
from airflow_provider_imageversions.compat import (
    AirflowSkipException,
    is_trigger_timeout,
    read_task_state,
    write_task_state,
)
from airflow_provider_imageversions.hooks import AWS_PARAMETERS, resolved_aws_parameters
from airflow_provider_imageversions.links import SageMakerImageLink, SageMakerStudioDomainLink
from airflow_provider_imageversions.model import ErrorKind, describe_error
from airflow_provider_imageversions.operators._base import ChangingOperator, ImageOperator
from airflow_provider_imageversions.triggers import SageMakerStudioUpdateTrigger
from airflow_provider_imageversions.usage import find_newest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook


class SageMakerImageVersionUsageOperator(ImageOperator):
    """
    Find which domains, apps, user profiles and spaces of Amazon SageMaker Studio use which version of an image.

    The operator reads the custom images and default resource specs of domains, user profiles and spaces, and the
    resource specs of apps. Each domain, user profile and space takes an API call. ``[sagemaker_image_versions]
    usage_calls_per_second`` (default: 2) limits the rate.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param scope: Where to check: some of ``domains``, ``apps``, ``user_profiles`` and ``spaces``; a list, or a
        comma-separated string. (default: all) (templated)
    :param domain_id: Check only this domain. A domain that does not exist is an error only with ``domains`` in
        ``scope``. (default: all domains) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. At two calls per second, one hour is
        enough for 7,200 calls. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises botocore.exceptions.ClientError: SageMaker's error. Where access is denied, the message names the
        permission.
    :return: The users of each version, by version number (a string), as
        :meth:`~airflow_provider_imageversions.hooks.SageMakerImageVersionsHook.find_image_version_usage` returns them.
    :rtype: dict[str, list[dict[str, Any]]]

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeDomain.html
    """

    _READS: ClassVar[bool] = True
    _parameters = UsageRequest
    template_fields: Sequence[str] = (*UsageRequest.names(), *AWS_PARAMETERS)

    def __init__(
        self,
        *,
        image_name: str,
        scope: Iterable[str] | str = USAGE_SCOPES,
        domain_id: str | None = None,
        timeout: timedelta | float = 3600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self.timeout = parse_seconds("timeout", timeout)
        self._set_parameters(locals())

    def execute(self, context: Any) -> dict[str, list[dict[str, Any]]]:
        """Find the users of each version."""
        self._check_rendered()
        request = UsageRequest.of(self)
        image_name = request.image_name
        # A cluster policy or a later line of the DAG file may have changed it.
        self.timeout = parse_seconds("timeout", self.timeout)
        task = WorkerPoller(self, image_name, timeout=self.timeout)
        SageMakerImageLink.store(context, self, task.hook, image_name)
        used = task.call(lambda hook: hook.find_image_version_usage(**attrs.asdict(request), timeout=task.left))
        for number, users in used.items():
            self.log.info(
                "SageMaker image %r: version %s is used by %s", image_name, number, studio.describe_users(users)
            )
        self._lineage = (str(task.hook.conn_region_name), None)
        return used


def _check_one_source(version: int | None, alias: str | None, restore: Mapping[str, Any] | None) -> None:
    if [version, alias, restore].count(None) != 2:  # noqa: PLR2004  # exactly one of three is given
        raise ValueError(
            f"version={truncated_repr(version)}, alias={truncated_repr(alias)}, restore={truncated_repr(restore)}: "
            "pass exactly one of them."
        )


def _check_config_name(app_image_config_name: str | None, restore: Mapping[str, Any] | None) -> None:
    if (restore is None) == (app_image_config_name is None):
        raise ValueError(
            f"app_image_config_name={truncated_repr(app_image_config_name)}, restore={truncated_repr(restore)}: pass "
            "app_image_config_name with version or alias, and leave it out with restore."
        )


def _check_restore_alone(restore: Mapping[str, Any] | None, set_default: object, only_if_newer: object) -> None:
    # Before rendering, a template may still become False.
    if restore is not None and (set_default is True or only_if_newer is True):
        raise ValueError(
            f"set_default={set_default}, only_if_newer={only_if_newer}, restore={truncated_repr(restore)}: leave out "
            "set_default and only_if_newer with restore."
        )


@attrs.frozen(field_transformer=with_converters, kw_only=True)
class _RolloutParameters(ImageRequest):
    domain_id: str = attrs.field(metadata=parsed_by(parse_domain_id))
    version: int | None = attrs.field(default=None, metadata=parsed_by(parse_version))
    alias: str | None = attrs.field(default=None, metadata=parsed_by(parse_alias))
    app_image_config_name: str | None = attrs.field(default=None, metadata=parsed_by(parse_studio_name))
    app_type: str = attrs.field(
        default="JupyterLab", metadata=parsed_by(partial(parse_member, choices=studio.APP_TYPES), accepts_none=False)
    )
    user_profile_name: str | None = attrs.field(default=None, metadata=parsed_by(parse_studio_name))
    set_default: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))
    only_if_newer: bool = attrs.field(default=False, metadata=parsed_by(parse_boolean, accepts_none=False))
    restore: dict[str, Any] | None = attrs.field(default=None, metadata=parsed_by(parse_mapping))

    PRESENCE_RULES: ClassVar[tuple[Callable[..., None], ...]] = (
        _check_one_source,
        _check_config_name,
        _check_restore_alone,
    )


class SageMakerRolloutImageVersionOperator(ChangingOperator):
    """
    Roll a version of an image out to an Amazon SageMaker Studio domain or user profile, or roll it back.

    The operator sets the version in the image's entry in an app's list of custom images. For a domain, it changes the
    default user settings and, if the domain has any, the default space settings; for a user profile, its settings. It
    preserves all other entries, and all other settings of the app that botocore supports. Then it waits until the
    domain or the user profile is InService again.

    Running apps keep their version until they are restarted, and spaces and user profiles that pin a version keep it.
    The log lists them.

    The operator is safe to repeat. It stores the previous state before it changes the settings (in the task's state
    store on Airflow 3.3 and later, otherwise in an Airflow Variable), so that a retry can return it. UpdateDomain has
    no compare-and-set: the task reads the settings again after the update, and repeats the update if a concurrent one
    has undone it. Use a pool with one slot for each domain, created with ``--include-deferred``, because deferred tasks
    take no slot otherwise.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots. (templated)
    :param domain_id: ID of the domain, such as ``d-abcdefghijkl``. (templated)
    :param version: Number of the version, 0 or more. The version must be CREATED. Set exactly one of this, ``alias``
        and ``restore``. (default: none) (templated)
    :param alias: An alias of the version, such as ``prod``. The settings get the number of the version that has the
        alias now, because Studio's list of custom images does not support aliases. (default: none) (templated)
    :param app_image_config_name: Name of the app image config for the image's entry. Required with ``version`` or
        ``alias``. (default: none) (templated)
    :param app_type: ``JupyterLab``, ``CodeEditor`` or ``KernelGateway``. (default: ``JupyterLab``) (templated)
    :param user_profile_name: Roll out to this user profile only. An XComArg that resolves to ``None`` is an error.
        (default: the whole domain) (templated)
    :param set_default: Also make the version the default of the app, with its DefaultResourceSpec. (default: False)
        (templated)
    :param only_if_newer: Skip the task if the settings already have a CREATED version with a higher number, so that a
        late run does not undo the roll-out of a later one. (default: False) (templated)
    :param restore: The ``previous`` value of an earlier result, to restore the settings before that roll-out: an entry
        without a number, with another number, or no entry. If the roll-out changed the default, its image is restored,
        too, unless the default no longer refers to the image. Cannot be combined with ``set_default`` and
        ``only_if_newer``. (default: none) (templated)
    :param report_remaining: Log the running apps, the spaces and the user profiles of the domain that keep another
        version. This needs an API call for each space and user profile. (default: True)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``aws_default``) (templated)
    :param region_name: AWS region. (default: the connection's region) (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
        (templated)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings) (templated)
    :param deferrable: Wait for the update in the triggerer. (default: ``[operators] default_deferrable``)
    :param check_interval: Maximum time between status checks, in seconds or as a timedelta. (default: 30)
    :param timeout: Time after which the task fails, in seconds or as a timedelta. (default: 3600)
    :raises ValueError: A parameter is outside its limits; when the DAG is parsed, if it is known then.
    :raises SageMakerImageOperationError: The version is not CREATED, the app image config does not exist, the list of
        custom images is full, or the update failed (the message has SageMaker's reason). If the update failed, the
        previous entry is restored.
    :raises SageMakerImageOperationTimeoutError: The operation did not complete within ``timeout``.
    :raises SageMakerImageVersionPollingError: While the task was deferred, the trigger failed, or reported an error
        such as access denied.
    :raises AirflowSkipException: The settings have a version with a higher number, and ``only_if_newer`` is True.
    :raises botocore.exceptions.ClientError: SageMaker's error; ``ResourceNotFound`` if there is no such domain,
        user profile, image or version.
    :return: A dict:

        - ``image_name``, ``domain_id``, ``user_profile_name`` and ``app_type``: the parameters.
        - ``changed``: whether the settings were changed.
        - ``current``: the image's entry now. Its ``version`` is a number, ``unpinned`` (Studio uses the newest version)
          or ``absent`` (the image has no entry).
        - ``previous``: the entry before the roll-out, the value for ``restore``.
    :rtype: dict[str, Any]

    .. seealso::
        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateDomain.html
    """

    _parameters = _RolloutParameters
    template_fields: Sequence[str] = (*_RolloutParameters.names(), *AWS_PARAMETERS)
    report_remaining = Flag()
    deferrable = Flag()
    operator_extra_links = (SageMakerImageLink(), SageMakerStudioDomainLink())
    template_fields_renderers: ClassVar[dict[str, str]] = {"restore": "json", "botocore_config": "json"}

    def __init__(
        self,
        *,
        image_name: str,
        domain_id: str,
        version: int | str | None = None,
        alias: str | None = None,
        app_image_config_name: str | None = None,
        app_type: str = "JupyterLab",
        user_profile_name: str | None = None,
        set_default: bool | str = False,
        only_if_newer: bool | str = False,
        restore: Mapping[str, Any] | str | None = None,
        report_remaining: bool = True,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_name=image_name, **kwargs)
        self.report_remaining = report_remaining
        self.deferrable = is_deferrable(deferrable)
        self._set_parameters(locals())
        self._is_for_profile = user_profile_name is not None

    def execute(self, context: Any) -> dict[str, Any]:
        """Roll the version out, or restore an earlier state."""
        return self._roll_out(context, deferrable=self.deferrable)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Continue after the deferral, or after it timed out."""
        if is_trigger_timeout(next_method, next_kwargs):
            # The triggerer may have been down.
            try:
                return self._roll_out(context, deferrable=False, resumed=True, left=0.0)
            except errors.SageMakerImageOperationTimeoutError:
                unmet = f"SageMaker image {self.image_name!r}: the version was not rolled out"
                deferral.raise_execution_timeout(self, self.timeout, unmet)
                raise
        deferral.raise_if_trigger_failed(next_method, next_kwargs)
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(
        self, context: Any, event: Any = None, began: str | None = None, number: int | None = None
    ) -> dict[str, Any]:
        """
        Continue after the domain or the user profile was updated.

        :param context: The task's context.
        :param event: The trigger's payload.
        :param began: Start of the wait, as an ISO-8601 string.
        :param number: Number of the version that is rolled out; its alias may have moved.
        """
        match event:
            case {"status": "done"}:
                return self._roll_out(context, deferrable=True, resumed=True, began=began, number=number)
            case {"status": "error", "error": str(error)}:
                raise errors.SageMakerImageVersionPollingError(error)
        raise deferral.unreadable_event(event)

    def _roll_out(
        self,
        context: Any,
        *,
        deferrable: bool,
        resumed: bool = False,
        left: float | None = None,
        began: str | None = None,
        number: int | None = None,
    ) -> dict[str, Any]:
        self._check_rendered()
        parameters = _RolloutParameters.of(self)
        if self._is_for_profile and parameters.user_profile_name is None:
            # It would concern the whole domain.
            raise blank_parameter("user_profile_name", None)
        if number is not None:
            parameters = attrs.evolve(parameters, version=number, alias=None)
        image_name = parameters.image_name
        start = datetime.now(timezone.utc) if began is None else datetime.fromisoformat(began)
        if began is not None:
            waited = (datetime.now(timezone.utc) - start).total_seconds()
            left = parse_seconds("timeout", self.timeout) - waited
        task = self._start(context, left)
        SageMakerStudioDomainLink.store(context, self, task.hook, parameters.domain_id)
        rollout = task.call(lambda hook: self._plan(hook, parameters))
        steps = _Steps(self.log, context, task, rollout, parameters.only_if_newer)
        if resumed and number is None and (written := steps.written_number()) is not None:
            # Airflow passes no number after a deferral that timed out, and the alias may have moved.
            parameters = attrs.evolve(parameters, version=written, alias=None)
            rollout = task.call(lambda hook: self._plan(hook, parameters))
            steps = _Steps(self.log, context, task, rollout, parameters.only_if_newer)
        while True:
            if not resumed and not self._raise_if_failed(task.wait(steps.write)):
                break
            if deferrable and not resumed:
                self.log.info("SageMaker image %r: waiting in the triggerer for %s", image_name, rollout.target)
                self.defer(
                    trigger=SageMakerStudioUpdateTrigger(
                        domain_id=rollout.target.domain_id,
                        user_profile_name=rollout.target.user_profile_name,
                        check_interval=self.check_interval,
                        **resolved_aws_parameters(self, task.hook),
                    ),
                    method_name="execute_complete",
                    kwargs={"began": start.isoformat(), "number": rollout.number},
                    timeout=timedelta(
                        seconds=max(deferral.deferral_limit(self, task.left, spent=self.timeout - task.left), 1.0)
                    ),
                )
            resumed = False
            if steps.settle():
                break
        self._lineage = (str(task.hook.conn_region_name), rollout.number)
        result = steps.result()
        if result["changed"] and self.report_remaining:
            self._report_remaining(task, rollout, result["current"]["version"])
        return result

    def _plan(self, hook: SageMakerImageVersionsHook, parameters: _RolloutParameters) -> studio.Rollout:
        image_name, config = parameters.image_name, parameters.app_image_config_name
        target = studio.RolloutTarget(parameters.domain_id, parameters.app_type, parameters.user_profile_name)
        if parameters.restore is not None:
            return self._plan_restore(hook, target, parameters.restore)
        version = hook.describe_image_version(image_name, version=parameters.version, alias=parameters.alias)
        number = version["Version"]
        self._check_entry(hook, number, config, target.app_type)
        spec = studio.resource_spec(version["ImageArn"], number) if parameters.set_default else None
        return studio.Rollout(image_name, target, config, number, spec)

    def _plan_restore(
        self, hook: SageMakerImageVersionsHook, target: studio.RolloutTarget, restore: Mapping[str, Any]
    ) -> studio.Rollout:
        own = {"image_name": self.image_name, **asdict(target)}
        try:
            other = {name: restore[name] for name, value in own.items() if restore[name] != value}
            places = parse_mapping("places", restore["places"])
            states = {
                place: studio.EntryState.from_json(parse_mapping(place, places[place]))
                for place in parse_names("places", list(places), choices=target.places)
            }
            config = parse_studio_name("app_image_config_name", restore["app_image_config_name"])
            default = parse_boolean("default_changed", restore["default_changed"])
        except (KeyError, ValueError) as error:
            problem = f"{error} is missing." if isinstance(error, KeyError) else str(error)
            raise invalid_parameter(
                "restore",
                restore,
                f"it must be the 'previous' of a result of SageMakerRolloutImageVersionOperator, unchanged. {problem}",
            ) from error
        entries = [state.entry for state in states.values() if state.entry is not None]
        for entry in entries:
            if entry["ImageName"].lower() != self.image_name.lower():
                other["ImageName"] = entry["ImageName"]
        if other:
            raise invalid_parameter("restore", restore, f"it belongs to {other}, but this task is for {own}.")
        for entry in entries:
            self._check_entry(hook, entry.get("ImageVersionNumber"), entry["AppImageConfigName"])
        rollout = studio.Rollout(self.image_name, target, config, restore=states, restores_default=default)
        for number in sorted(rollout.default_versions(states)) if default else ():
            self._check_version(hook, number)
        return rollout

    def _check_entry(
        self, hook: SageMakerImageVersionsHook, number: int | None, config: str | None, app_type: str | None = None
    ) -> None:
        """Raise an error if the version or the app image config of an entry cannot be attached."""
        if number is not None:
            self._check_version(hook, number)
        found = errors.none_if_not_found(
            hook.describe_studio, "describe_app_image_config", {"AppImageConfigName": config}
        )
        if found is None:
            raise self._error(
                f"the app image config {config!r} does not exist. Create it, or correct app_image_config_name"
            )
        others = studio.other_app_types(found, app_type)
        if others:
            self.log.warning(
                "SageMaker image %r: the app image config %r is for %s, but app_type is %s",
                self.image_name,
                config,
                " and ".join(others),
                app_type,
            )

    def _check_version(self, hook: SageMakerImageVersionsHook, number: int) -> None:
        version = errors.none_if_not_found(hook.describe_image_version, self.image_name, version=number)
        if version is None:
            raise self._error(f"version {number} does not exist, so it cannot be rolled out")
        self._raise_if_failed(decide.refusal(version, "rolled out"))

    def _report_remaining(self, task: WorkerPoller, rollout: studio.Rollout, version: int | str) -> None:
        if not isinstance(version, int):
            return
        target = rollout.target
        scope = ["apps", "spaces", *(["user_profiles"] if target.user_profile_name is None else [])]
        try:
            used = task.hook.find_image_version_usage(
                self.image_name, scope, domain_id=target.domain_id, timeout=task.left
            )
        except Exception as error:
            if errors.classify_error(error) is None:
                raise
            # The roll-out itself is done.
            self.log.warning(
                "SageMaker image %r: could not read who keeps another version: %s",
                self.image_name,
                describe_error(error),
            )
            return
        for kind, users in studio.not_following(used, target, version).items():
            cure = "until it is restarted" if kind == "app" else "because its settings pin it"
            for user in users:
                self.log.info(
                    "SageMaker image %r: %s keeps version %d %s",
                    self.image_name,
                    studio.describe_users([user]),
                    user["version"],
                    cure,
                )


@attrs.define
class _Steps:
    """
    The steps of one roll-out. A retry can repeat each of them.

    :param log: The task's logger.
    :param context: The task's context.
    :param task: The poller that calls the API.
    :param rollout: The roll-out.
    :param only_if_newer: Whether to skip the task if the settings have a higher version.
    """

    log: Any
    _context: Any
    _task: WorkerPoller
    _rollout: studio.Rollout
    _only_if_newer: bool
    _previous: Mapping[str, studio.EntryState] | None = attrs.field(init=False, default=None)
    _document: Mapping[str, Any] = attrs.field(init=False, factory=dict)
    _changed: bool = attrs.field(init=False, default=False)

    @property
    def _target(self) -> studio.RolloutTarget:
        return self._rollout.target

    @property
    def _label(self) -> str:
        return f"SageMaker image {self._rollout.image_name!r}"

    @property
    def _key(self) -> str:
        identity = json.dumps([self._rollout.image_name, *map(str, (self._target, self._target.app_type))])
        return f"sagemaker_rollout_{hashlib.sha256(identity.encode()).hexdigest()[:24]}"

    @property
    def _owner(self) -> list[Any]:
        ti = self._context["ti"]
        return [ti.dag_id, ti.run_id, ti.task_id, ti.map_index]

    def write(self, hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | bool:
        """
        Update the settings, unless they are up to date.

        :param hook: The hook.
        :return: Whether an update is in progress; or what to wait for before an update is possible; or why it is
            impossible.
        """
        document = self._describe(hook)
        obstacle = studio.updatable(document)
        changes = self._rollout.changes(document)
        if obstacle is not None and (changes or isinstance(obstacle, decide.Failed)):
            return obstacle
        self._read_previous(document, is_up_to_date=not changes)
        if not changes and obstacle is not None:
            # An update of an earlier try, or one that does not concern the image.
            return True
        if not changes and not studio.is_update_failed(document):
            return False
        if self._only_if_newer:
            self._skip_older(hook, document)
        # Other updates may have undone this one until the timeout.
        late = decide.Waiting(f"{self._target} is not up to date") if self._task.left <= 0 else None
        if (obstacle := self._rollout.overfull(document, changes) or late) is not None:
            return obstacle
        if changes:
            self._store([*self._written(), self._rollout.wanted(document)])
        request = self._target.request(changes or self._rollout.repetition(document))
        try:
            hook.update_studio(f"update_{self._target.kind}", request)
        except Exception as error:
            if errors.classify_error(error) is not ErrorKind.IN_USE:
                raise
            # The settings have to be read again after the other update.
            return decide.Waiting(f"{self._target} is being updated")
        self._changed = True
        if self._rollout.number is None:
            self.log.info("%s: restoring %s in %s", self._label, self._wanted_version(), self._target)
        else:
            self.log.info("%s: updating %s to %s", self._label, self._target, self._wanted_version())
        return True

    def _read_previous(self, document: Mapping[str, Any], *, is_up_to_date: bool) -> None:
        state, stored = self._rollout.state(document), self._stored()
        # If the alias has moved since an earlier try, the settings have the version which that try wrote.
        is_own = is_up_to_date or any(self._same(state, written) for written in self._written())
        self._previous = (stored if is_own else None) or state
        self._changed |= is_up_to_date and stored is not None

    def settle(self) -> bool:
        """
        Wait until the update is done; return whether the settings are up to date.

        :raises SageMakerImageOperationError: The update failed. The previous entry is restored, unless it was changed
            by a concurrent update.
        """
        if self._previous is None:
            # The task was resumed: this try has not read them.
            self._previous = self._stored()
            self._changed = self._previous is not None
        outcome = self._task.wait(self._outcome)
        if isinstance(outcome, decide.Failed):
            self._fail(outcome)
        if not self._rollout.changes(self._document):
            if self._rollout.number is None:
                self.log.info("%s: restored %s in %s", self._label, self._wanted_version(), self._target)
            else:
                self.log.info("%s: %s has %s", self._label, self._target, self._wanted_version())
            if self._written():
                # If the task is cleared later, what it has written is the previous state of another update.
                self._store([])
            return True
        if not self._is_as_before():
            raise errors.SageMakerImageOperationError(
                f"{self._label}: another update of {self._target} has replaced the entry (now: {self._present()}). Use "
                "a pool with one slot for each domain, created with --include-deferred"
            )
        self.log.warning(
            "%s: another update of %s has undone this one, because both ran at the same time; repeating it",
            self._label,
            self._target,
        )
        return False

    def result(self) -> dict[str, Any]:
        """Return the result of the task, and log what a roll-back kept."""
        if kept := self._rollout.kept_defaults(self._document):
            self.log.warning(
                "%s: kept the DefaultResourceSpec in %s of %s, because it no longer refers to this image. To replace "
                "it, roll out with set_default=True",
                self._label,
                " and ".join(kept),
                self._target,
            )
        current, number = self._rollout.state(self._document), self._rollout.number
        others = self._rollout.default_versions(current) - {number}
        if number is not None and others:
            default = ", ".join(map(str, sorted(others)))
            self.log.info("%s: version %s remains the default of %s (set_default)", self._label, default, self._target)
        for place, state in current.items():
            if number is None and place not in self._rollout.restore:
                self.log.warning(
                    "%s: %s of %s keeps %s, because it had no settings at the time of the roll-out that is undone",
                    self._label,
                    place,
                    self._target,
                    _name_of(state.version),
                )
        return {
            **self._identity(),
            "changed": self._changed,
            "current": self._record(current),
            "previous": self._record(current if self._previous is None else self._previous),
        }

    def _outcome(self, hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | None:
        return studio.update_outcome(self._describe(hook))

    def _describe(self, hook: SageMakerImageVersionsHook) -> Mapping[str, Any]:
        self._document = hook.describe_studio(f"describe_{self._target.kind}", self._target.identity)
        return self._document

    def _fail(self, outcome: decide.Failed) -> None:
        message = f"{self._label}: {self._target} could not be updated: {outcome.reason}"
        # An update of something else may have failed: what this task did not write, it does not undo.
        if not self._written() or self._previous is None or not studio.is_update_failed(self._document):
            raise errors.SageMakerImageOperationError(message)
        if self._rollout.changes(self._document):
            kept = (
                "The previous entry is unchanged" if self._is_as_before() else "Another update has replaced the entry"
            )
            raise errors.SageMakerImageOperationError(f"{message}. {kept}")
        try:
            back = self._task.wait(self._put_back)
            if back is None:
                back = self._task.wait(self._outcome)
        except Exception:
            self.log.exception(
                "%s: the previous entry in %s could not be restored; a retry of this task updates it again",
                self._label,
                self._target,
            )
            raise errors.SageMakerImageOperationError(message) from None
        if not self._is_as_before():
            raise errors.SageMakerImageOperationError(
                f"{message}. The previous entry could not be restored (now: {self._present()})"
            )
        self._store([])
        but = f", but: {back.reason}" if isinstance(back, decide.Failed) else ""
        raise errors.SageMakerImageOperationError(f"{message}. The previous entry was restored{but}")

    def _put_back(self, hook: SageMakerImageVersionsHook) -> decide.Waiting | decide.Failed | None:
        document = self._describe(hook)
        obstacle = studio.updatable(document)
        if obstacle is not None:
            return obstacle
        # An update at the same time may have replaced it.
        if self._previous is None or self._rollout.changes(document):
            return None
        if changes := self._rollout.undo(document, self._previous):
            hook.update_studio(f"update_{self._target.kind}", self._target.request(changes))
        return None

    def _skip_older(self, hook: SageMakerImageVersionsHook, document: Mapping[str, Any]) -> None:
        number, image_name = self._rollout.number, self._rollout.image_name
        if number is None:
            return
        newer: list[int] = []
        for each in self._rollout.pinned_after(document):
            version = errors.none_if_not_found(hook.describe_image_version, image_name, version=each)
            if version is not None and decide.refusal(version, "used") is None:
                newer.append(each)
                break
            # The image may have been created again since, with numbers from 1.
            self.log.warning("%s: replacing version %d in %s, which cannot be used", self._label, each, self._target)
        if any(state.version == studio.UNPINNED for state in self._rollout.state(document).values()):
            newest = find_newest(hook, image_name)
            newer += [] if newest is None or newest <= number else [newest]
        if newer:
            raise AirflowSkipException(
                f"{self._label}: {self._target} has version {max(newer)} already, which is newer than version "
                f"{number}, and only_if_newer is True."
            )

    def _is_as_before(self) -> bool:
        return self._previous is not None and self._same(self._rollout.state(self._document), self._previous)

    def _present(self) -> str:
        """Return what the settings have now, for an error."""
        states = self._rollout.state(self._document)
        defaults = [f"default {state.default} in {place}" for place, state in states.items()]
        return ", ".join(
            [f"{state.version} in {place}" for place, state in states.items()]
            + (defaults if self._rollout.with_default else [])
        )

    def _same(self, states: Mapping[str, studio.EntryState], others: Mapping[str, studio.EntryState]) -> bool:
        return all(place in others and self._rollout.agrees(state, others[place]) for place, state in states.items())

    def _wanted_version(self) -> str:
        if self._rollout.number is not None:
            return f"version {self._rollout.number}"
        return " and ".join(dict.fromkeys(_name_of(state.version) for state in self._rollout.restore.values()))

    def _record(self, states: Mapping[str, studio.EntryState]) -> dict[str, Any]:
        return {
            **self._identity(),
            "app_image_config_name": self._rollout.app_image_config_name,
            "default_changed": self._rollout.with_default,
            "version": next(iter(states.values())).version,
            "places": _to_json(states),
        }

    def _identity(self) -> dict[str, Any]:
        return {"image_name": self._rollout.image_name, **asdict(self._target)}

    def written_number(self) -> int | None:
        """Return the number that the task has written but not seen in the settings yet; none for a roll-back."""
        written = [] if self._rollout.number is None else self._written()
        states = written[-1].values() if written else ()
        return next((state.version for state in states if isinstance(state.version, int)), None)

    def _written(self) -> list[dict[str, studio.EntryState]]:
        """Return what the task has written since it last completed, oldest first."""
        stored = read_task_state(self._context, self._key)
        if not isinstance(stored, dict) or stored.get("owner") != self._owner:
            return []
        return [
            {place: studio.EntryState.from_json(state) for place, state in states.items()}
            for states in stored.get("written", ())
        ]

    def _store(self, written: list[dict[str, studio.EntryState]]) -> None:
        value = {"owner": self._owner, "previous": _to_json(self._previous or {}), "written": [*map(_to_json, written)]}
        write_task_state(self._context, self._key, value)

    def _stored(self) -> dict[str, studio.EntryState] | None:
        stored = read_task_state(self._context, self._key)
        # A Variable may be of another run.
        if not isinstance(stored, dict) or stored.get("owner") != self._owner:
            return None
        return {place: studio.EntryState.from_json(state) for place, state in stored["previous"].items()}


def _name_of(version: int | str) -> str:
    return f"version {version}" if isinstance(version, int) else f"the state {version!r}"


def _to_json(states: Mapping[str, studio.EntryState]) -> dict[str, Any]:
    return {place: state.to_json() for place, state in states.items()}
