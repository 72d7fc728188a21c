"""
Create a version of a SageMaker image, wait until it is CREATED, and train with its container image.

To run it against AWS, set the params to your image, a container image in Amazon ECR, a SageMaker execution role and a
bucket. The defaults work with the emulator.
"""

from __future__ import annotations

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.param import Param

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator

from airflow_provider_imageversions.operators import (
    SageMakerCreateImageOperator,
    SageMakerCreateImageVersionOperator,
)
from airflow_provider_imageversions.sensors import SageMakerImageVersionSensor

with DAG(
    dag_id="example_wait_for_image_version",
    description="Creates a version of a SageMaker image, waits for it and trains with it.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    params={
        "image_name": Param("demo-image", type="string", description="Name of the SageMaker image; created if missing"),
        "base_image": Param(
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:latest",
            type="string",
            description="Container image in Amazon ECR for the version",
        ),
        "role_arn": Param(
            "arn:aws:iam::123456789012:role/sagemaker", type="string", description="SageMaker execution role"
        ),
        "output_path": Param("s3://demo-bucket/models", type="string", description="S3 location for the model"),
    },
    tags=["example", "sagemaker"],
) as dag:
    create_image = SageMakerCreateImageOperator(
        task_id="create_image", image_name="{{ params.image_name }}", role_arn="{{ params.role_arn }}"
    )

    # [START howto_operator_create]
    # Any system can create the version. An operator that creates it can also wait for it itself.
    create = SageMakerCreateImageVersionOperator(
        task_id="create",
        image_name="{{ params.image_name }}",
        base_image="{{ params.base_image }}",
        wait_for_completion=False,
    )
    # [END howto_operator_create]

    # [START howto_sensor_wait]
    wait = SageMakerImageVersionSensor(
        task_id="wait",
        image_name="{{ params.image_name }}",
        version="{{ ti.xcom_pull('create')['Version'] }}",
        include_details=True,
        poke_interval=5,
        timeout=30 * 60,
        deferrable=True,
    )
    # [END howto_sensor_wait]

    # [START howto_sensor_chain]
    train = SageMakerTrainingOperator(
        task_id="train",
        config={
            "TrainingJobName": "{{ params.image_name }}-{{ ti.xcom_pull('wait')['Version'] }}",
            "AlgorithmSpecification": {
                "TrainingImage": "{{ ti.xcom_pull('wait')['ContainerImage'] }}",
                "TrainingInputMode": "File",
            },
            "RoleArn": "{{ params.role_arn }}",
            "OutputDataConfig": {"S3OutputPath": "{{ params.output_path }}"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
        print_log=False,
        check_interval=5,
    )
    create_image >> create >> wait >> train
    # [END howto_sensor_chain]
