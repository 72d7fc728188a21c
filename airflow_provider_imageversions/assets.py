"""The asset that stands for an image, and what a DAG that is scheduled on it needs. For Airflow 3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from airflow_provider_imageversions.hooks import AWS_PARAMETERS, check_aws_parameters
from airflow_provider_imageversions.model import (
    LISTED_FIELDS,
    WATCHED_BY_DEFAULT,
    Watched,
    event_payload,
    parse_alias,
    parse_boolean,
    parse_image_name,
    parse_seconds,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from urllib.parse import SplitResult

    from airflow.sdk import Asset
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_imageversions.model import ImageVersion
    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger

SCHEME = "sagemaker-image"
DEFAULT_REGION = "default"
"""Stands in a URI for the region of the connection."""
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")


def image_version_asset(
    image_name: str, *, name: str | None = None, uri: str | None = None, **trigger_kwargs: Any
) -> Asset:
    """
    Make the asset for an image, with the watcher that fires for each of its versions, or each move of an alias.

    A DAG with ``schedule=[image_version_asset("my-image")]`` runs when a version is CREATED, one with
    ``schedule=[image_version_asset("my-image", alias="prod")]`` when the alias has moved to another version.

    :param image_name: Name of the image: 1 to 63 letters, digits, single hyphens and dots.
    :param name: Name of the asset; default: its URI. Give one where connections to different accounts watch images
        of the same name and region.
    :param uri: URI of the asset; default: ``sagemaker-image://REGION/IMAGE``, with ``default`` for the connection's
        region, and ``?statuses=...`` where not only CREATED is watched, or ``?alias=...``.
    :param trigger_kwargs: For
        :class:`~airflow_provider_imageversions.triggers.SageMakerImageVersionEventTrigger`: ``statuses``,
        ``start_from``, ``alias``, ``poll_interval``, ``include_details``, ``aws_conn_id``, ``region_name``,
        ``verify``, ``botocore_config``.
    :raises ValueError: A parameter is outside its limits, or does not go with ``alias``.
    :raises TypeError: The trigger has no such parameter.
    :raises ImportError: This is Airflow 2, which has no asset watchers.
    """
    # Here rather than above: Airflow imports this module for sanitize_uri() alone, early and everywhere.
    try:
        from airflow.sdk import Asset, AssetWatcher  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "image_version_asset() needs Airflow 3, whose assets have watchers. On Airflow 2 schedule the DAG by time, "
            "and wait with SageMakerImageVersionSensor."
        ) from error

    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger  # noqa: PLC0415

    known = SageMakerImageVersionEventTrigger(image_name=image_name).serialize()[1].keys() - {"image_name"}
    if unknown := trigger_kwargs.keys() - known:
        # The trigger itself takes anything, for the sake of rows that another version of this package stored.
        raise TypeError(
            f"{', '.join(sorted(unknown))}: there is no such parameter; there are {', '.join(sorted(known))}."
        )
    watched = Watched(
        image_name,
        trigger_kwargs.get("statuses", WATCHED_BY_DEFAULT),
        trigger_kwargs.get("start_from", "latest"),
        trigger_kwargs.get("alias"),
    )
    for label, text in (("name", name), ("uri", uri)):
        if text is not None and not isinstance(text, str):
            raise refuse(label, text, "it must be a text.")
    aws = {name: value for name, value in trigger_kwargs.items() if name in AWS_PARAMETERS}
    check_aws_parameters(aws)
    checked: dict[str, Any] = {
        "statuses": watched.statuses,
        "include_details": parse_boolean("include_details", trigger_kwargs.get("include_details", False)),
    }
    if "poll_interval" in trigger_kwargs:
        checked["poll_interval"] = parse_seconds("poll_interval", trigger_kwargs["poll_interval"])
    trigger = SageMakerImageVersionEventTrigger(image_name=image_name, **{**trigger_kwargs, **checked})
    uri = uri or uri_of(image_name, trigger_kwargs.get("region_name"), watched.statuses, watched.alias)
    return Asset(name=name or uri, uri=uri, watchers=[AssetWatcher(name=f"watch {name or uri}", trigger=trigger)])


def uri_of(
    image_name: str,
    region_name: str | None = None,
    statuses: Iterable[str] = WATCHED_BY_DEFAULT,
    alias: str | None = None,
) -> str:
    """
    Give the URI for an image.

    :param image_name: Name of the image.
    :param region_name: AWS region; ``None``: the connection's.
    :param statuses: The statuses that are watched.
    :param alias: The alias whose moves are watched; ``None``: versions are.
    """
    watched = sorted(statuses)
    query = {} if watched == sorted(WATCHED_BY_DEFAULT) else {"statuses": "-".join(watched)}
    if alias is not None:
        query["alias"] = alias
    return urlunsplit((SCHEME, region_name or DEFAULT_REGION, f"/{image_name}", urlencode(query), ""))


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an image's asset; Airflow calls this for every asset with the scheme.

    :param uri: The URI.
    :raises ValueError: It is none of ``sagemaker-image://REGION/IMAGE``, or has ``?alias=`` with no valid alias.
    """
    form = f"the form is {SCHEME}://REGION/IMAGE, with {DEFAULT_REGION!r} for the connection's region"
    if uri.netloc != DEFAULT_REGION and not _REGION.fullmatch(uri.netloc):
        raise ValueError(f"URI {uri.geturl()!r}: {uri.netloc!r} is no AWS region; {form}.")
    try:
        parse_image_name("image_name", uri.path.removeprefix("/"))
        for key, value in parse_qsl(uri.query, keep_blank_values=True):
            if key == "alias":
                parse_alias("alias", value)
    except ValueError as error:
        raise ValueError(f"URI {uri.geturl()!r}: {error} {form}.") from error
    return uri


def openlineage_dataset(region: str, image_name: str, version: int | None = None) -> Dataset:
    """
    Describe an image to OpenLineage, for what OpenLineage's provider calls: nothing else may import it.

    :param region: AWS region, or ``default`` as in an asset's URI.
    :param image_name: Name of the image.
    :param version: Number of the version; ``None``: no certain one.
    """
    from openlineage.client.event_v2 import Dataset  # noqa: PLC0415  # most installations do without
    from openlineage.client.facet_v2 import dataset_version_dataset  # noqa: PLC0415  # likewise

    facets: dict[str, Any] = {}
    if version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return Dataset(namespace=f"{SCHEME}://{region}", name=image_name, facets=facets)


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:  # noqa: ARG001  # Airflow's signature
    """
    Describe an image's asset to OpenLineage, which calls this for an asset among a task's inlets or outlets.

    :param asset: The asset; its URI tells the region and the image, and no version.
    :param lineage_context: The hook that reported the asset, if one did.
    """
    uri = urlsplit(asset.uri)
    return openlineage_dataset(uri.netloc, uri.path.removeprefix("/"))


def watches(asset: object) -> list[SageMakerImageVersionEventTrigger]:
    """
    Give the triggers with which an asset watches an image's versions; none if it is another asset.

    :param asset: An asset, as from :func:`image_version_asset`, or whatever else can be an outlet.
    """
    from airflow_provider_imageversions.triggers import SageMakerImageVersionEventTrigger  # noqa: PLC0415  # as above

    triggers = [watcher.trigger for watcher in getattr(asset, "watchers", ())]
    return [trigger for trigger in triggers if isinstance(trigger, SageMakerImageVersionEventTrigger)]


def watched_payload(
    asset: object, version: ImageVersion, image_name: str, region: str, aws_conn_id: str | None
) -> dict[str, Any] | None:
    """
    Give what an asset's watcher will tell of a version, for a task that tells it before; ``None`` if it won't.

    :param asset: An asset, or whatever else can be an outlet.
    :param version: The version's record with its details.
    :param image_name: Name of the image.
    :param region: AWS region.
    :param aws_conn_id: The Airflow connection, as through another one the image of that name may be another.
    """
    for trigger in watches(asset):
        if trigger.alias is not None:
            # Only its watcher knows what the move before was, and so what identifies this one.
            continue
        if trigger.region_name not in {None, region} or trigger.aws_conn_id != aws_conn_id:
            continue
        record: Any = {key: value for key, value in version.items() if trigger.include_details or key in LISTED_FIELDS}
        payload = event_payload(record, image_name, region)
        if trigger.image_name == image_name and payload["status"] in trigger.statuses:
            return {**payload, "redelivered": False}
    return None


def image_versions(*sources: Mapping[Any, Iterable[Any]] | Iterable[Any]) -> list[dict[str, Any]]:
    """
    Give what asset events tell of, each ``event_id`` once, in the order in which the versions were created.

    Give it both what the run was started for and the asset's latest events, from a task with the asset among its
    ``inlets``: several versions may be in one run, one may come twice, and one that comes while a run is about to be
    made, or held back by ``max_active_runs``, is in no run's triggering events before a further one comes.

    :param sources: ``triggering_asset_events`` and ``inlet_events[asset]`` of the task's context.
    :return: The payloads of :class:`~airflow_provider_imageversions.triggers.SageMakerImageVersionEventTrigger`.
    """
    told: dict[str, dict[str, Any]] = {}
    for source in sources:
        for event in chain.from_iterable(source.values()) if isinstance(source, Mapping) else source:
            payload = (event.extra or {}).get("payload", event.extra)
            if isinstance(payload, dict) and "event_id" in payload:
                told.setdefault(payload["event_id"], payload)
    return sorted(told.values(), key=lambda payload: (payload["CreationTime"], payload["Version"]))
