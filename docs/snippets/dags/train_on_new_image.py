"""A DAG that waits for a version that another system registers, of docs/training.md."""

# [START training_next]
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.sdk import DAG

from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG("train_on_new_image", schedule=None, params={"last_version": 7}):
    wait = SageMakerImageVersionSensor(
        task_id="wait",
        image_name="my-training-image",
        after_version="{{ params.last_version }}",
        include_details=True,  # ContainerImage is not in the list, but in the details
        deferrable=True,
        poke_interval=60,
        timeout=2 * 60 * 60,
    )
    train = SageMakerTrainingOperator(
        task_id="train",
        config={
            "TrainingJobName": "train-v{{ ti.xcom_pull('wait')['Version'] }}",
            "AlgorithmSpecification": {
                "TrainingImage": "{{ ti.xcom_pull('wait')['ContainerImage'] }}",
                "TrainingInputMode": "File",
            },
            "RoleArn": "arn:aws:iam::123456789012:role/sagemaker",
            "OutputDataConfig": {"S3OutputPath": "s3://my-bucket/models"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    )
    wait >> train
# [END training_next]
