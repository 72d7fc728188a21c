"""Resources of Studio, for tests that need some of it in an emulator."""

from __future__ import annotations

import json

ROLE = "arn:aws:iam::123456789012:role/sagemaker"
BASE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/churn"
VERSION_ARN = "arn:aws:sagemaker:us-east-1:123456789012:image-version"
CONFIG = "my-config"


class Studio:
    """
    Creates resources of Studio through a client.

    :param client: boto3's client for SageMaker
    """

    def __init__(self, client):
        self.client = client

    def image(self, name, versions, *, aliases=None):
        """Create an image with versions 1 to N; ``aliases`` maps a version's number to its aliases."""
        self.client.create_image(ImageName=name, RoleArn=ROLE)
        for number in range(1, versions + 1):
            self.client.create_image_version(
                ImageName=name,
                BaseImage=f"{BASE}:{number}",
                ClientToken=f"token-{number}",
                Aliases=(aliases or {}).get(number, []),
            )

    def config(self, name=CONFIG, app="JupyterLab"):
        members = {"KernelGateway": {"KernelSpecs": [{"Name": "python3"}]}}.get(app, {})
        suffix = "" if app == "KernelGateway" else "App"
        self.client.create_app_image_config(AppImageConfigName=name, **{f"{app}{suffix}ImageConfig": members})

    def domain(self, name="team", *, space_settings=None, **user_settings):
        more = {} if space_settings is None else {"DefaultSpaceSettings": {"ExecutionRole": ROLE, **space_settings}}
        return self.client.create_domain(
            DomainName=name,
            AuthMode="IAM",
            DefaultUserSettings={"ExecutionRole": ROLE, "SecurityGroups": ["sg-1"], **user_settings},
            SubnetIds=["subnet-1"],
            VpcId="vpc-1",
            **more,
        )["DomainId"]

    def profile(self, domain_id, name="ann", **settings):
        self.client.create_user_profile(DomainId=domain_id, UserProfileName=name, UserSettings=settings)
        return name

    def space(self, domain_id, name="notes", **settings):
        self.client.create_space(DomainId=domain_id, SpaceName=name, SpaceSettings=settings)
        return name

    def app(self, domain_id, app_type="JupyterLab", *, space=None, profile=None, spec=None, name="default"):
        owner = {"UserProfileName": profile} if space is None else {"SpaceName": space}
        more = {} if spec is None else {"ResourceSpec": spec}
        self.client.create_app(DomainId=domain_id, AppType=app_type, AppName=name, **owner, **more)
        return {"DomainId": domain_id, "AppType": app_type, "AppName": name, **owner}

    def user_settings(self, domain_id):
        return self.client.describe_domain(DomainId=domain_id)["DefaultUserSettings"]


def custom_image(image, version=None, config=CONFIG):
    number = {} if version is None else {"ImageVersionNumber": version}
    return {"ImageName": image, "AppImageConfigName": config, **number}


def spec(image, version):
    return {"SageMakerImageVersionArn": f"{VERSION_ARN}/{image}/{version}"}


class Store:
    """In place of a task's state store, with the signatures of Airflow's."""

    def __init__(self):
        self.values = {}

    def get(self, key, default=None):
        return self.values.get(key, default)

    def set(self, key, value, *, retention=None):  # noqa: ARG002  # Airflow's own signature
        self.values[key] = json.loads(json.dumps(value))
