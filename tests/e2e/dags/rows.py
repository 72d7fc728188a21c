"""One wait in each mode and kind, for the comparison of what its success leaves in the database."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

IMAGE = "rows-image"
MODES = {
    "deferrable": {"deferrable": True},
    "start": {"start_from_trigger": True},
    "end": {"end_from_trigger": True},
    "both": {"start_from_trigger": True, "end_from_trigger": True},
    "poke": {"mode": "poke"},
}
WAIT = {
    "image_name": IMAGE,
    "poke_interval": 1,
    "timeout": 300,
    "retries": 1,
    "retry_delay": 1,
    "weight_rule": "absolute",  # what comes after a task differs from mode to mode
}


def wait(kind, mode, **options):
    """Wait for a version; those that would hold a worker's slot come after all others."""
    return SageMakerImageVersionSensor(
        task_id=f"{kind}_{mode}",
        version=1,
        trigger_rule="all_done" if mode == "poke" else "all_success",
        **WAIT,
        **MODES[mode],
        **options,
    )


with DAG("leaves_rows", schedule=None, catchup=False) as dag:
    waits = {}
    for mode, options in MODES.items():
        plain = wait("plain", mode)
        mapped = SageMakerImageVersionSensor.partial(
            task_id=f"mapped_{mode}",
            map_index_template="version {{ task.version }}",
            trigger_rule="all_done" if mode == "poke" else "all_success",
            **WAIT,
            **options,
        ).expand(version=[1, 2])
        # What maps over the result needs the number of its items.
        counted = wait("counted", mode)
        EmptyOperator.partial(task_id=f"over_{mode}").expand(doc=counted.output)
        result = wait("result", mode)
        dag.add_result(result.output)
        named = wait("named", mode, map_index_template="version {{ task.version }}")
        waits[mode] = [plain, mapped, counted, result, named]
    last = waits.pop("poke")
    for earlier in waits.values():
        for task in earlier:
            chain(task, last)
