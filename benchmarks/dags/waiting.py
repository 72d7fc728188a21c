"""The DAGs that benchmarks/real_airflow.py runs; environment variables configure them."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from benchmarks.peer import PeerSensor

KIND, SENSORS, INTERVAL = (os.environ[f"BENCHMARK_{name}"] for name in ("KIND", "SENSORS", "INTERVAL"))
OPERATORS = {
    "deferrable": (SageMakerImageVersionSensor, {"deferrable": True}),
    "start_from_trigger": (SageMakerImageVersionSensor, {"start_from_trigger": True}),
    "start_from_trigger, end_from_trigger": (
        SageMakerImageVersionSensor,
        {"start_from_trigger": True, "end_from_trigger": True},
    ),
    "peer": (PeerSensor, {}),
}

operator, arguments = OPERATORS[KIND]
for dag_id, image_name, sensors in (
    ("warm_up", "created", int(SENSORS)),
    ("lone", "waited-for", 1),
    ("burst", "waited-for", int(SENSORS)),
):
    with DAG(dag_id, schedule=None, max_active_tasks=1_000):
        for number in range(sensors):
            operator(
                task_id=f"wait_{number}",
                image_name=image_name,
                version=1,
                poke_interval=float(INTERVAL),
                **arguments,
            )
