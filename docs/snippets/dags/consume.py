"""A DAG that consumes events itself, of docs/retraining.md."""

# [START retraining_consume]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.assets import image_version_asset, image_versions

image = image_version_asset("my-training-image", include_details=True)

with DAG("report", schedule=[image], max_active_runs=1):

    @task(inlets=[image])
    def report(dag_run=None, triggering_asset_events=None, inlet_events=None):
        later = [event for event in inlet_events[image] if event.timestamp > dag_run.run_after]
        for version in image_versions(triggering_asset_events, later):
            print(version["Version"], version["ContainerImage"])

    report()
# [END retraining_consume]
