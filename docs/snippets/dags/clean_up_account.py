"""A DAG that prunes all images of an account, of docs/cleanup.md."""

# [START clean_up_account]
from airflow.sdk import DAG, task

from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.operators import SageMakerPruneImageVersionsOperator

with DAG("clean_up_account", schedule="@weekly", catchup=False) as dag:

    @task
    def image_names():
        return [image["ImageName"] for image in SageMakerImageVersionsHook().iter_images()]

    SageMakerPruneImageVersionsOperator.partial(
        task_id="prune", keep_newest=5, keep_used=True, max_active_tis_per_dag=1
    ).expand(image_name=image_names())
# [END clean_up_account]
