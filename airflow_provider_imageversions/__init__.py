"""Apache Airflow provider for Amazon SageMaker image versions."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_INTEGRATION = "Amazon SageMaker image versions"

_CONFIG = {
    "sagemaker_image_versions": {
        "description": "Rate limits for calls to the SageMaker API, and the maximum size of a result in the metadata "
        "database.",
        "options": {
            "calls_per_second": {
                "description": "Maximum number of API calls per second of one triggerer through one connection and "
                "region, on average. SageMaker publishes no limit; throttling was seen at about 2. After a quiet time, "
                "10 calls can be made at once. Throttling halves the rate for a while.",
                "version_added": "0.1.0",
                "type": "float",
                "example": None,
                "default": "1.0",
            },
            "usage_calls_per_second": {
                "description": "Maximum number of API calls per second of a task or a hook that finds out who uses a "
                "version in SageMaker Studio, for example with keep_used. Throttling halves the rate for a while.",
                "version_added": "0.1.0",
                "type": "float",
                "example": None,
                "default": "2.0",
            },
            "max_xcom_bytes": {
                "description": "Maximum size in bytes of JSON that SageMakerListImageVersionsOperator writes to the "
                "metadata database; 0 for no limit. A larger result fails the task. The limit does not apply to "
                "results that an XCom backend stores elsewhere. A warning is logged above 262144 bytes.",
                "version_added": "0.1.0",
                "type": "integer",
                "example": None,
                "default": "4194304",
            },
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider metadata. Airflow calls this at every start, so it imports neither Airflow nor boto."""

    def of_integration(module: str) -> list[dict[str, Any]]:
        return [{"integration-name": _INTEGRATION, "python-modules": [f"airflow_provider_imageversions.{module}"]}]

    return {
        "package-name": "airflow-provider-imageversions",
        "name": _INTEGRATION,
        "description": "List the versions of `Amazon SageMaker images "
        "<https://docs.aws.amazon.com/sagemaker/latest/dg/studio-byoi.html>`__, wait for them, and act on them.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListImageVersions.html",
                "tags": ["aws"],
            }
        ],
        "hooks": of_integration("hooks"),
        "operators": of_integration("operators"),
        "sensors": of_integration("sensors"),
        "triggers": of_integration("triggers"),
        "extra-links": [
            "airflow_provider_imageversions.links.SageMakerImageLink",
            "airflow_provider_imageversions.links.SageMakerStudioDomainLink",
        ],
        "asset-uris": [
            {
                "schemes": ["sagemaker-image"],
                "handler": "airflow_provider_imageversions.assets.sanitize_uri",
                "to_openlineage_converter": "airflow_provider_imageversions.assets.convert_asset_to_openlineage",
            }
        ],
        "config": _CONFIG,
    }
