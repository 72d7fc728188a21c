"""The DAGs that benchmarks/real_airflow.py runs; what they hold is said by the environment."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor
from benchmarks.peer import PeerSensor

KIND, SENSORS, INTERVAL = (os.environ[f"BENCHMARK_{name}"] for name in ("KIND", "SENSORS", "INTERVAL"))
OPERATORS = {
    "deferrable": (SageMakerImageVersionSensor, {"deferrable": True}),
    "start_from_trigger": (SageMakerImageVersionSensor, {"deferrable": True, "start_from_trigger": True}),
    "peer": (PeerSensor, {}),
}

operator, arguments = OPERATORS[KIND]
for dag_id, image_name in (("warm_up", "created"), ("measured", "waited-for")):
    with DAG(dag_id, schedule=None, max_active_tasks=1_000):
        for number in range(int(SENSORS)):
            operator(
                task_id=f"wait_{number}",
                image_name=image_name,
                version=1,
                poke_interval=float(INTERVAL),
                **arguments,
            )
