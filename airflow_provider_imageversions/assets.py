"""Assets that represent images, and helpers for DAGs that are scheduled on them. For Airflow 3."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from weakref import WeakValueDictionary

from airflow_provider_imageversions import decide
from airflow_provider_imageversions._dispatch import payload_of, run_dag_per_version
from airflow_provider_imageversions._parameters import (
    invalid_parameter,
    parse_alias,
    parse_boolean,
    parse_conn_id,
    parse_image_name,
    parse_queue_url,
    parse_seconds,
    parse_time,
)
from airflow_provider_imageversions.compat import assets_have_access_control
from airflow_provider_imageversions.hooks import aws_parameters, check_aws_parameters
from airflow_provider_imageversions.model import LISTED_FIELDS, WATCHED_BY_DEFAULT, WatchConfig, event_payload

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta
    from urllib.parse import SplitResult

    from airflow.sdk import Asset, AssetAccessControl
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_imageversions.model import ImageVersion
    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger

__all__ = [
    "convert_asset_to_openlineage",
    "image_version_asset",
    "image_versions",
    "openlineage_dataset",
    "run_dag_per_version",
    "sanitize_uri",
    "uri_of",
    "watched_payload",
    "watches",
]

SCHEME = "sagemaker-image"
DEFAULT_REGION = "default"
"""The region in the URI of an asset that uses the connection's region."""
DEFAULT_CONNECTION = "aws_default"
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")


def image_version_asset(
    image_name: str,
    *,
    name: str | None = None,
    uri: str | None = None,
    group: str | None = None,
    extra: dict[str, Any] | None = None,
    access_control: AssetAccessControl | None = None,
    statuses: Iterable[str] | str = WATCHED_BY_DEFAULT,
    start_from: str | int | datetime = "latest",
    alias: str | None = None,
    poll_interval: float | timedelta = 60.0,
    include_details: bool = False,
    wake_queue: str | None = None,
    aws_conn_id: str | None = DEFAULT_CONNECTION,
    region_name: str | None = None,
    verify: bool | str | None = None,
    botocore_config: dict[str, Any] | None = None,
) -> Asset:
    """
    Return the asset of an image, with a watcher that emits an event for each new version or each move of an alias.

    A DAG with ``schedule=[image_version_asset("my-image")]`` runs when a version is CREATED. A DAG with
    ``schedule=[image_version_asset("my-image", alias="prod")]`` runs when the alias has moved to another version.

    A different image, region, connection, set of statuses, alias or ``name`` makes a different asset, with its own
    watcher. All other arguments (``poll_interval``, ``include_details``, ``wake_queue``, ``start_from``, ``verify``,
    ``botocore_config``) belong to the asset's single watcher. Airflow keeps the watcher of the DAG file that it parsed
    last, so use the same values in each file.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param name: Name of the asset, which no other asset may have. (default: its URI)
    :param uri: URI of the asset, which no other asset may have. (default:
        ``sagemaker-image://REGION/IMAGE``, with ``default`` for the connection's region, and a query with the arguments
        that differ from the defaults, see :func:`uri_of`)
    :param group: Group of the asset. (default: Airflow's, ``"asset"``)
    :param extra: Metadata of the asset, as JSON. (default: none)
    :param access_control: Which teams may produce and consume the asset. Requires Airflow 3.3. (default: Airflow's)
    :param statuses: Statuses to emit events for: ``"CREATED"``, ``"CREATE_FAILED"`` or both. (default:
        ``("CREATED",)``)
    :param start_from: Where the watcher starts the first time: ``"latest"`` for versions that reach a status from now
        on, ``"earliest"`` for all existing versions too, a version number for that version and those above, or an aware
        datetime for versions created at or after it. With ``alias``, ``"latest"`` or ``"earliest"``. (default:
        ``"latest"``)
    :param alias: Emit an event each time this alias moves, instead of for new versions. (default: None)
    :param poll_interval: Maximum time in seconds, or as a timedelta, between status checks. (default: 60)
    :param include_details: Whether to add the fields of DescribeImageVersion and ListAliases, such as
        ``ContainerImage``. (default: False)
    :param wake_queue: URL of an SQS queue that receives SageMaker's EventBridge events. A message makes the watcher
        poll at once, so ``poll_interval`` can be long, such as 900. (default: None)
    :param aws_conn_id: The Airflow connection used for AWS credentials; ``None`` uses boto3's default credential chain.
        (default: ``"aws_default"``)
    :param region_name: AWS region. (default: the connection's region)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle. (default: the connection's setting)
    :param botocore_config: Keyword arguments for botocore's Config. (default: the connection's settings)
    :raises ValueError: A parameter is outside its limits, or cannot be combined with ``alias``.
    :raises ImportError: This is Airflow 2, which has no asset watchers.
    """
    # Not at the top, because Airflow imports this module early and everywhere, for sanitize_uri() alone.
    try:
        from airflow.sdk import Asset, AssetWatcher  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "image_version_asset() needs Airflow 3, whose assets have watchers. On Airflow 2 schedule the DAG by time, "
            "and wait with SageMakerImageVersionSensor."
        ) from error

    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger  # noqa: PLC0415

    watched = WatchConfig(image_name, statuses, start_from, alias)
    for label, text in (("name", name), ("uri", uri)):
        if text is not None and not (isinstance(text, str) and text.strip()):
            raise invalid_parameter(label, text, "it must be a string that is not empty.")
    trigger = SageMakerImageVersionEventTrigger(
        image_name=image_name,
        # In one order and one type, so that only real differences count as such.
        statuses=sorted(watched.statuses),
        start_from=watched.start_from,
        alias=alias,
        poll_interval=parse_seconds("poll_interval", poll_interval),
        include_details=parse_boolean("include_details", include_details),
        wake_queue=None if wake_queue is None else parse_queue_url("wake_queue", wake_queue),
        aws_conn_id=aws_conn_id,
        region_name=region_name,
        verify=verify,
        botocore_config=botocore_config,
    )
    check_aws_parameters(aws_parameters(trigger))
    uri = uri or uri_of(image_name, region_name, watched.statuses, watched.alias, aws_conn_id=aws_conn_id, name=name)
    options = _asset_options(group, extra, access_control)
    asset = Asset(
        name=name or uri, uri=uri, watchers=[AssetWatcher(name=f"watch {name or uri}", trigger=trigger)], **options
    )
    _warn_of_conflict(asset, trigger)
    return asset


def _asset_options(
    group: str | None, extra: dict[str, Any] | None, access_control: AssetAccessControl | None
) -> dict[str, Any]:
    """Return the arguments of an asset that are set."""
    if access_control is not None and not assets_have_access_control():
        raise invalid_parameter(
            "access_control", access_control, "the assets of this Airflow version do not support it. Leave it out."
        )
    options = {"group": group, "extra": extra, "access_control": access_control}
    return {name: value for name, value in options.items() if value is not None}


_ASSETS: WeakValueDictionary[tuple[str, str], Asset] = WeakValueDictionary()
"""The assets of this process by name and by URI, which are both unique in Airflow: keys such as ``("name", "a")``."""


def _warn_of_conflict(asset: Asset, trigger: SageMakerImageVersionEventTrigger) -> None:
    """Warn about two assets or watchers in one DAG file, or in files that are loaded together, as in a test."""
    names = {"name": asset.name, "URI": asset.uri}
    others = {label: _ASSETS.get((label, value)) for label, value in names.items()}
    _ASSETS.update(dict.fromkeys(names.items(), asset))
    for label, other in others.items():
        if other is not None and (other.name, other.uri) != (asset.name, asset.uri):
            warnings.warn(
                f"Two assets have the {label} {names[label]!r}, and Airflow keeps one of them: {other.name!r} with the "
                f"URI {other.uri!r}, and {asset.name!r} with the URI {asset.uri!r}. Give the assets different names "
                "and URIs.",
                UserWarning,
                stacklevel=3,
            )
            return
    for watcher in watches(others["name"]):
        if differences := trigger.differences(watcher):
            warnings.warn(
                f"Asset {asset.name!r} has two watchers with different arguments ({', '.join(differences)}), and "
                "Airflow keeps one of them. Use the same arguments wherever image_version_asset() makes the asset, or "
                "give the assets different names.",
                UserWarning,
                stacklevel=3,
            )


def uri_of(
    image_name: str,
    region_name: str | None = None,
    statuses: Iterable[str] = WATCHED_BY_DEFAULT,
    alias: str | None = None,
    *,
    aws_conn_id: str | None = DEFAULT_CONNECTION,
    name: str | None = None,
) -> str:
    """
    Return the default URI of an image's asset.

    The query has the arguments that differ from the defaults: ``alias``, ``connection`` (or ``credentials=boto3``
    without a connection), ``name`` and ``statuses``.

    :param image_name: Name of the image.
    :param region_name: AWS region. (default: the connection's region, written as ``default``)
    :param statuses: Statuses that are watched. (default: ``("CREATED",)``)
    :param alias: Alias whose moves are watched, instead of new versions. (default: None)
    :param aws_conn_id: The Airflow connection; ``None`` uses boto3's default credential chain. (default:
        ``"aws_default"``)
    :param name: Name of the asset, if it differs from the URI. (default: None)
    """
    watched = sorted(statuses)
    query = {
        "alias": alias,
        "connection": aws_conn_id if aws_conn_id != DEFAULT_CONNECTION else None,
        "credentials": None if aws_conn_id else "boto3",
        "name": name,
        "statuses": "-".join(watched) if watched != sorted(WATCHED_BY_DEFAULT) else None,
    }
    # In the order that Airflow uses.
    given = {key: value for key, value in sorted(query.items()) if value}
    return urlunsplit((SCHEME, region_name or DEFAULT_REGION, f"/{image_name}", urlencode(given), ""))


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an image's asset. Airflow calls this for every asset with this scheme.

    :param uri: The URI.
    :raises ValueError: It is not of the form ``sagemaker-image://REGION/IMAGE``, or its query has an invalid
        ``alias`` or ``connection``.
    """
    form = f"the form is {SCHEME}://REGION/IMAGE, with {DEFAULT_REGION!r} for the connection's region"
    if uri.netloc != DEFAULT_REGION and not _REGION.fullmatch(uri.netloc):
        raise ValueError(f"URI {uri.geturl()!r}: {uri.netloc!r} is not an AWS region; {form}.")
    try:
        parse_image_name("image_name", uri.path.removeprefix("/"))
        for key, value in parse_qsl(uri.query, keep_blank_values=True):
            if key == "alias":
                parse_alias("alias", value)
            elif key == "connection":
                parse_conn_id("connection", value)
    except ValueError as error:
        raise ValueError(f"URI {uri.geturl()!r}: {error} {form}.") from error
    return uri


def openlineage_dataset(region: str, image_name: str, version: int | None = None) -> Dataset:
    """
    Return the OpenLineage dataset of an image. Only code that OpenLineage's provider calls can import OpenLineage.

    :param region: AWS region, or ``default`` as in an asset's URI.
    :param image_name: Name of the image.
    :param version: Number of the version. (default: none in particular)
    """
    from openlineage.client.event_v2 import Dataset  # noqa: PLC0415  # most installations do without
    from openlineage.client.facet_v2 import dataset_version_dataset  # noqa: PLC0415  # likewise

    facets: dict[str, Any] = {}
    if version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return Dataset(namespace=f"{SCHEME}://{region}", name=image_name, facets=facets)


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:  # noqa: ARG001  # Airflow's signature
    """
    Return the OpenLineage dataset of an image's asset. OpenLineage calls this for a task's inlets and outlets.

    :param asset: The asset, whose URI has the region and the image, but no version.
    :param lineage_context: The hook that reported the asset, if any.
    """
    uri = urlsplit(asset.uri)
    return openlineage_dataset(uri.netloc, uri.path.removeprefix("/"))


def watches(asset: object) -> list[SageMakerImageVersionEventTrigger]:
    """
    Return the triggers with which an asset watches an image's versions; empty for other assets.

    :param asset: An asset, as from :func:`image_version_asset`, or another outlet.
    """
    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger  # noqa: PLC0415  # as above

    triggers = [watcher.trigger for watcher in getattr(asset, "watchers", ())]
    return [trigger for trigger in triggers if isinstance(trigger, SageMakerImageVersionEventTrigger)]


def watched_payload(
    asset: object,
    version: ImageVersion,
    image_name: str,
    region: str,
    aws_conn_id: str | None,
    *,
    own_region: str | None,
) -> dict[str, Any] | None:
    """
    Return the payload that an asset's watcher would emit for a version; ``None`` if it would not emit an event.

    :param asset: An asset, or another outlet.
    :param version: The version's record with its details.
    :param image_name: Name of the image.
    :param region: AWS region.
    :param aws_conn_id: The Airflow connection: with another one, the same name may mean another image.
    :param own_region: The connection's own region, where a watcher without a region polls; ``None`` if it has none.
    """
    for trigger in watches(asset):
        if trigger.alias is not None:
            # Only the watcher knows the previous move, which identifies this one.
            continue
        if (trigger.region_name or own_region) != region or trigger.aws_conn_id != aws_conn_id:
            continue
        if trigger.image_name != image_name or not _emits(trigger, version):
            continue
        record: Any = {key: value for key, value in version.items() if trigger.include_details or key in LISTED_FIELDS}
        return event_payload(record, image_name, region)
    return None


def _emits(trigger: SageMakerImageVersionEventTrigger, version: ImageVersion) -> bool:
    """Return whether a watcher emits an event for a version of its image that reaches its status from now on."""
    try:
        config = WatchConfig(trigger.image_name, trigger.statuses, trigger.start_from)
    except ValueError:
        # Not from image_version_asset(): the watcher reports it, and stays inactive.
        return False
    start_from = config.start_from
    begin = decide.baseline([version], start_from if isinstance(start_from, int) else "earliest")
    since = None if isinstance(start_from, (int, str)) else start_from
    return bool(decide.detect_new_versions([version], begin, statuses=tuple(config.statuses), since=since)[0])


def image_versions(*sources: Mapping[Any, Iterable[Any]] | Iterable[Any]) -> list[dict[str, Any]]:
    """
    Return the image versions of asset events, each ``event_id`` once, in the order in which they were created.

    Use it in a DAG that consumes the events itself; :func:`run_dag_per_version` starts a run for each version instead.
    Pass the run's triggering events and later ones, from a task with the asset among its ``inlets``: a run may be
    started for several versions, and an event that is stored after the run is queued but before it is created is not
    among any run's triggering events until another event is stored. So two runs may have the same version.

    :param sources: ``triggering_asset_events``, and events of ``inlet_events[asset]``, of the task's context.
    :return: The payloads of :class:`~airflow_provider_imageversions.triggers.SageMakerImageVersionEventTrigger`.
    """
    payloads: dict[str, dict[str, Any]] = {}
    for source in sources:
        for event in chain.from_iterable(source.values()) if isinstance(source, Mapping) else source:
            payload = payload_of(event)
            if payload is not None and _created(payload) is not None:
                payloads.setdefault(payload["event_id"], payload)
    return sorted(payloads.values(), key=lambda payload: (_created(payload), payload["Version"]))


def _created(payload: Mapping[str, Any]) -> datetime | None:
    """Return when the version was created; ``None`` if an event that a person made does not say so."""
    try:
        return parse_time("CreationTime", payload["CreationTime"])
    except (KeyError, ValueError):
        return None
