from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import tracemalloc
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice

import botocore.exceptions
import pytest
from botocore.parsers import ResponseParserError, ResponseParserFactory
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from airflow_provider_imageversions import _botocore, hooks, usage
from airflow_provider_imageversions._parameters import TEMPLATE, USAGE_SCOPES
from airflow_provider_imageversions.errors import CertificateError, ErrorKind, MissingConnectionError, classify_error
from airflow_provider_imageversions.hooks import SageMakerImageVersionsHook
from airflow_provider_imageversions.model import CreateImageRequest

IMAGE = "my-image"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def hook(connection):
    return SageMakerImageVersionsHook()


def numbers(records):
    return [record["Version"] for record in records]


def listing_calls(emulator):
    return [call["parameters"] for call in emulator.calls("ListImageVersions")]


def test_a_record_has_the_service_s_fields_as_json(hook, emulator):
    emulator.create_versions(IMAGE, 1, start_time=START)
    assert hook.list_image_versions(IMAGE) == [
        {
            "Version": 1,
            "ImageVersionStatus": "CREATED",
            "ImageArn": "arn:aws:sagemaker:us-east-1:123456789012:image/my-image",
            "ImageVersionArn": "arn:aws:sagemaker:us-east-1:123456789012:image-version/my-image/1",
            "CreationTime": "2026-01-01T00:00:00+00:00",
            "LastModifiedTime": "2026-01-01T00:00:00+00:00",
        }
    ]


def test_every_parameter_reaches_the_wire(hook, emulator):
    emulator.create_versions(IMAGE, 9, start_time=START, spacing_seconds=86400)
    client = emulator.client("sagemaker")
    token = client.list_image_versions(
        ImageName=IMAGE,
        MaxResults=2,
        SortBy="VERSION",
        SortOrder="ASCENDING",
        CreationTimeAfter=START,
        CreationTimeBefore=START + timedelta(days=7),
        LastModifiedTimeAfter=START + timedelta(days=1),
        LastModifiedTimeBefore=START + timedelta(days=8),
    )["NextToken"]
    records = hook.list_image_versions(
        IMAGE,
        creation_time_after=START,
        creation_time_before=(START + timedelta(days=7)).isoformat(),
        last_modified_time_after=START + timedelta(days=1),
        last_modified_time_before=START + timedelta(days=8),
        sort_by="VERSION",
        sort_order="ASCENDING",
        page_size=2,
        starting_token=token,
        statuses=["CREATED"],
        limit=3,
    )
    assert numbers(records) == [4, 5, 6]
    first = listing_calls(emulator)[1]
    assert first == {
        "ImageName": IMAGE,
        "CreationTimeAfter": START.timestamp(),
        "CreationTimeBefore": (START + timedelta(days=7)).timestamp(),
        "LastModifiedTimeAfter": (START + timedelta(days=1)).timestamp(),
        "LastModifiedTimeBefore": (START + timedelta(days=8)).timestamp(),
        "SortBy": "VERSION",
        "SortOrder": "ASCENDING",
        "MaxResults": 2,
        "NextToken": token,
    }


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"sort_order": "ASCENDING"}, [1, 2, 3, 4, 5]),
        ({"sort_by": "VERSION"}, [5, 4, 3, 2, 1]),
        ({"sort_by": "LAST_MODIFIED_TIME"}, [2, 5, 4, 3, 1]),
        ({"creation_time_after": START + timedelta(days=2)}, [5, 4, 3]),
        ({"creation_time_before": START + timedelta(days=2)}, [3, 2, 1]),
        ({"last_modified_time_after": START + timedelta(days=4)}, [5, 2]),
        ({"last_modified_time_before": START + timedelta(days=2)}, [3, 1]),
        ({"statuses": ["CREATE_FAILED", "CREATING"]}, [4, 2]),
        ({"statuses": "CREATED", "limit": 2}, [5, 3]),
        ({"limit": 0}, []),
        ({"limit": "1", "page_size": "1"}, [5]),
    ],
)
def test_filters_and_orders_select(hook, emulator, parameters, expected):
    emulator.create_versions(IMAGE, 5, start_time=START, spacing_seconds=86400)
    emulator.set_version(IMAGE, 2, status="CREATE_FAILED", last_modified_time=START + timedelta(days=9))
    emulator.set_version(IMAGE, 4, status="CREATING", last_modified_time=START + timedelta(days=3))
    assert numbers(hook.list_image_versions(IMAGE, **parameters)) == expected


def test_listing_a_thousand_versions_takes_ten_calls(hook, emulator):
    emulator.create_versions(IMAGE, 1_000)
    assert numbers(hook.iter_image_versions(IMAGE, sort_by="VERSION")) == list(range(1_000, 0, -1))
    assert len(listing_calls(emulator)) == 10


def images(hook, **filters):
    return [image["ImageName"] for image in hook.iter_images(**filters)]


def test_images_are_listed_with_every_filter_and_order(hook, emulator):
    client = emulator.client("sagemaker")
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for day, name in enumerate(["train-b", "train-a", "serve", "train-c"]):
        client.create_image(ImageName=name, RoleArn="arn:aws:iam::123456789012:role/x", DisplayName=name.upper())
        emulator.set_image(name, creation_time=start + timedelta(days=day), last_modified_time=start)
    emulator.set_image("serve", status="CREATE_FAILED", failure_reason="no\x00 role", last_modified_time=start)
    assert images(hook) == ["train-c", "serve", "train-a", "train-b"]
    assert images(hook, name_contains="train", sort_by="IMAGE_NAME", sort_order="ASCENDING") == [
        "train-a",
        "train-b",
        "train-c",
    ]
    day = start + timedelta(days=1)
    assert images(hook, creation_time_after=day, creation_time_before=(day + timedelta(days=1)).isoformat()) == [
        "serve",
        "train-a",
    ]
    assert images(hook, last_modified_time_after=day) == []
    assert len(images(hook, last_modified_time_before=start)) == 4
    before = len(emulator.calls("ListImages"))
    assert images(hook, page_size=2, limit=2) == ["train-c", "serve"]
    assert len(emulator.calls("ListImages")) - before == 1
    token = client.list_images(SortBy="CREATION_TIME", SortOrder="DESCENDING", MaxResults=3)["NextToken"]
    assert images(hook, page_size=3, starting_token=token) == ["train-b"]
    failed = next(image for image in hook.iter_images(name_contains="serve"))
    assert json.loads(json.dumps(failed)) == failed
    assert (failed["ImageStatus"], failed["DisplayName"], failed["FailureReason"]) == (
        "CREATE_FAILED",
        "SERVE",
        "no\ufffd role",
    )


def test_every_parameter_of_a_list_of_images_reaches_the_wire(hook, emulator):
    values = {"NameContains": "a", "SortBy": "IMAGE_NAME", "SortOrder": "ASCENDING", "MaxResults": 7, "NextToken": "t"}
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    records = hook.iter_images(
        name_contains="a",
        creation_time_after=moment,
        creation_time_before=moment,
        last_modified_time_after=moment,
        last_modified_time_before=moment,
        sort_by="image_name",
        sort_order="ascending",
        page_size=7,
        starting_token="t",
    )
    with pytest.raises(botocore.exceptions.ClientError):
        next(records)
    times = dict.fromkeys(("CreationTimeAfter", "CreationTimeBefore"), moment.timestamp())
    times |= dict.fromkeys(("LastModifiedTimeAfter", "LastModifiedTimeBefore"), moment.timestamp())
    assert emulator.calls("ListImages")[-1]["parameters"] == {**values, **times}


def test_images_on_several_pages_are_returned_once_each(hook, emulator):
    client = emulator.client("sagemaker")
    for number in range(5):
        client.create_image(ImageName=f"image-{number}", RoleArn="arn:aws:iam::123456789012:role/x")
    emulator.add_fault("empty_page", operation="ListImages")
    listed = hook.iter_images(page_size=2)
    first = [next(listed)["ImageName"], next(listed)["ImageName"]]
    client.create_image(ImageName="image-9", RoleArn="arn:aws:iam::123456789012:role/x")
    assert sorted([*first, *(image["ImageName"] for image in listed)]) == [f"image-{number}" for number in range(5)]


def test_a_list_of_images_whose_tokens_repeat_is_named(hook, emulator):
    client = emulator.client("sagemaker")
    for number in range(3):
        client.create_image(ImageName=f"image-{number}", RoleArn="arn:aws:iam::123456789012:role/x")
    emulator.add_fault("cyclic_token", operation="ListImages", times=None)
    with pytest.raises(botocore.exceptions.PaginationError, match="list_images: "):
        list(hook.iter_images(page_size=1))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"name_contains": "a b"}, "name_contains"), ({"page_size": 0}, "page_size"), ({"limit": -1}, "limit")],
)
def test_a_bad_filter_of_images_is_refused_before_any_call(hook, emulator, parameters, message):
    with pytest.raises(ValueError, match=message):
        hook.iter_images(**parameters)
    assert emulator.calls() == []


def test_an_image_is_deleted(hook, emulator):
    emulator.creation_seconds = 0
    emulator.create_versions(IMAGE, 1)
    hook.delete_image(IMAGE)
    assert images(hook) == []
    with pytest.raises(botocore.exceptions.ClientError, match=r"SageMaker finds no image 'my-image'"):
        hook.delete_image(IMAGE)


def test_the_newest_created_version_takes_one_call(hook, emulator):
    emulator.create_versions(IMAGE, 1_000)
    assert numbers(hook.list_image_versions(IMAGE, statuses=["CREATED"], limit=1)) == [1_000]
    assert len(listing_calls(emulator)) == 1


def test_a_page_is_fetched_when_its_first_record_is_needed(hook, emulator):
    emulator.create_versions(IMAGE, 250)
    records = hook.iter_image_versions(IMAGE)
    assert len(listing_calls(emulator)) == 0
    list(islice(records, 100))
    assert len(listing_calls(emulator)) == 1
    next(records)
    assert len(listing_calls(emulator)) == 2


def test_a_limit_on_the_edge_of_a_page_does_not_fetch_the_next(hook, emulator):
    emulator.create_versions(IMAGE, 250)
    assert len(hook.list_image_versions(IMAGE, limit=200)) == 200
    assert len(listing_calls(emulator)) == 2


def test_the_iterator_keeps_no_more_than_the_numbers_of_versions(distant_emulator, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", distant_emulator.airflow_connection())
    hook = SageMakerImageVersionsHook()

    def peak(count):
        # A first page, for what is made once.
        next(hook.iter_image_versions(IMAGE))
        tracemalloc.start()
        assert sum(1 for _ in hook.iter_image_versions(IMAGE)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    distant_emulator.create_versions(IMAGE, 200)
    small = peak(200)
    distant_emulator.create_versions(IMAGE, 800)
    # A record takes 800 bytes, a number in a set 80.
    assert (peak(1_000) - small) / 800 < 200


@pytest.mark.parametrize("kind", ["repeating_token", "cyclic_token"])
def test_a_repeating_token_is_a_transient_error(hook, emulator, kind):
    emulator.create_versions(IMAGE, 250)
    emulator.add_fault(kind, times=None)
    with pytest.raises(botocore.exceptions.PaginationError) as caught:
        hook.list_image_versions(IMAGE)
    assert classify_error(caught.value) is ErrorKind.TRANSIENT
    assert len(listing_calls(emulator)) < 12


def test_a_missing_image_is_botocore_s_error_with_region_and_connection(hook, emulator):
    with pytest.raises(hook.conn.exceptions.ResourceNotFound) as caught:
        hook.list_image_versions("other-image")
    message = str(caught.value)
    assert "'other-image'" in message
    assert "us-east-1" in message
    assert "'aws_default'" in message
    assert caught.value.response["Error"]["Code"] == "ResourceNotFound"
    assert classify_error(caught.value) is ErrorKind.MISSING


@pytest.mark.parametrize(
    ("which", "named"),
    [({"version": 9}, "version 9 of image 'my-image'"), ({"alias": "prod"}, "alias 'prod' of image")],
)
def test_a_missing_version_or_alias_is_named(hook, emulator, which, named):
    emulator.create_versions(IMAGE, 1)
    with pytest.raises(hook.conn.exceptions.ResourceNotFound, match=named):
        hook.describe_image_version(IMAGE, **which)


def test_a_version_is_described_by_number_or_alias_with_its_details(hook, emulator):
    emulator.create_versions(IMAGE, 2)
    base = "123456789012.dkr.ecr.us-east-1.amazonaws.com/repository:tag"
    emulator.client("sagemaker").create_image_version(
        ImageName=IMAGE,
        BaseImage=base,
        ClientToken="token",
        Aliases=["prod", "blue"],
        MLFramework="PyTorch 2.4",
        Horovod=True,
    )
    emulator.set_version(IMAGE, 3, status="CREATED")
    described = hook.describe_image_version(IMAGE, version=3)
    assert described == hook.describe_image_version(IMAGE, alias="prod")
    assert described["BaseImage"] == base
    assert described["ContainerImage"].startswith("123456789012.dkr.ecr.us-east-1.amazonaws.com/")
    assert described["MLFramework"] == "PyTorch 2.4"
    assert described["Horovod"] is True
    assert isinstance(described["CreationTime"], str)
    assert "ResponseMetadata" not in described
    detailed = hook.add_details(IMAGE, hook.list_image_versions(IMAGE, limit=1)[0])
    assert detailed == {**described, "Aliases": ["blue", "prod"]}


def test_all_pages_of_aliases_are_read(hook, emulator):
    emulator.create_versions(IMAGE, 2)
    client = emulator.client("sagemaker")
    aliases = [f"alias-{number:03}" for number in range(120)]
    client.update_image_version(ImageName=IMAGE, Version=1, AliasesToAdd=aliases)
    client.update_image_version(ImageName=IMAGE, Version=2, AliasesToAdd=["prod"])
    assert sorted(hook.list_aliases(IMAGE, version=1)) == aliases
    assert sorted(hook.list_aliases(IMAGE)) == [*aliases, "prod"]
    assert len(emulator.calls("ListAliases")) == 4


def test_version_and_alias_exclude_each_other(hook):
    with pytest.raises(ValueError, match="version=1 and alias='prod': pass only one"):
        hook.describe_image_version(IMAGE, version=1, alias="prod")


@pytest.mark.parametrize(
    "parameters",
    [{"page_size": 0}, {"limit": -1}, {"statuses": ["READY"]}, {"sort_by": "NAME"}, {"creation_time_after": "today"}],
)
def test_bad_input_is_refused_before_any_call(hook, emulator, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        hook.iter_image_versions(IMAGE, **parameters)
    assert emulator.calls() == []


def test_a_connection_that_does_not_exist_is_an_error_and_never_ambient_credentials(emulator, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
    hook = SageMakerImageVersionsHook("no_such_connection", region_name="us-east-1")
    with pytest.raises(MissingConnectionError, match=r"'no_such_connection'.*Create it.*aws_conn_id=None") as caught:
        hook.list_image_versions(IMAGE)
    assert classify_error(caught.value) is ErrorKind.CREDENTIALS
    assert emulator.calls() == []


@pytest.mark.parametrize("aws_conn_id", [None, ""])
def test_no_connection_means_boto3_s_default_chain(emulator, monkeypatch, aws_conn_id):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
    emulator.create_versions(IMAGE, 1)
    hook = SageMakerImageVersionsHook(aws_conn_id, region_name="us-east-1")
    assert len(hook.list_image_versions(IMAGE)) == 1
    assert emulator.calls("ListImageVersions")[0]["access_key_id"] == "ambient"


def test_retries_and_timeouts_are_pinned(connection):
    config = SageMakerImageVersionsHook().conn.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 3}
    assert (config.connect_timeout, config.read_timeout) == (5, 15)


@pytest.mark.parametrize(
    ("given", "retries", "read_timeout"),
    [
        ({"retries": {"max_attempts": 7}}, {"mode": "standard", "total_max_attempts": 8}, 15),
        ({"retries": {"total_max_attempts": 7}}, {"mode": "standard", "total_max_attempts": 7}, 15),
        ({"retries": {"mode": "adaptive"}}, {"mode": "adaptive", "total_max_attempts": 3}, 15),
        ({"read_timeout": 33}, {"mode": "standard", "total_max_attempts": 3}, 33),
    ],
)
def test_the_connection_or_the_caller_may_set_retries_and_timeouts(connection, given, retries, read_timeout):
    by_caller = SageMakerImageVersionsHook(config=given).conn.meta.config
    connection(config_kwargs=given)
    by_connection = SageMakerImageVersionsHook().conn.meta.config
    for config in (by_caller, by_connection):
        assert config.retries == retries
        assert config.read_timeout == read_timeout


def test_the_caller_s_settings_take_precedence_over_the_connection_s(connection):
    connection(config_kwargs={"proxies": {"https": "http://proxy:1"}, "read_timeout": 33, "connect_timeout": 3})
    config = SageMakerImageVersionsHook(config={"retries": {"total_max_attempts": 7}, "read_timeout": 44}).conn_config
    assert config.botocore_config.proxies == {"https": "http://proxy:1"}
    assert config.botocore_config.retries == {"mode": "standard", "total_max_attempts": 7}
    assert (config.botocore_config.read_timeout, config.botocore_config.connect_timeout) == (44, 3)


def test_region_and_tls_verification_reach_the_client(connection):
    hook = SageMakerImageVersionsHook(region_name="eu-west-1", verify=False)
    assert hook.conn.meta.region_name == "eu-west-1"
    assert hook.verify is False


@pytest.mark.beyond_model
@pytest.mark.parametrize(
    ("kind", "fault", "calls"),
    [
        ("throttling", ErrorKind.THROTTLED, 3),
        ("server_error", ErrorKind.TRANSIENT, 3),
        ("unavailable", ErrorKind.TRANSIENT, 3),
        ("reset", ErrorKind.TRANSIENT, 3),
        ("truncated", ErrorKind.TRANSIENT, 1),
        ("broken_json", ErrorKind.TRANSIENT, 1),
        ("expired_token", ErrorKind.CREDENTIALS, 1),
        ("invalid_token", ErrorKind.CREDENTIALS, 1),
        ("access_denied", ErrorKind.PERMANENT, 1),
    ],
)
def test_a_fault_is_retried_where_that_helps_and_judged(hook, emulator, kind, fault, calls, request):
    if kind == "truncated":
        request.getfixturevalue("truncation_unseen")
    emulator.create_versions(IMAGE, 1)
    emulator.add_fault(kind, times=None)
    with pytest.raises(Exception) as caught:  # noqa: PT011 # each kind has its own type
        hook.list_image_versions(IMAGE)
    assert classify_error(caught.value) is fault
    assert len(listing_calls(emulator)) == calls


NO_VERSIONS = b'{"ImageVersions": []}'


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that nobody but itself has signed: PEM files of it and its key."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, critical=True).sign(key, hashes.SHA256())
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_bytes(signed.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.mark.beyond_model
@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"ImageVersions": null}',
        b'{"ImageVersions": 1}',
        b'{"ImageVersions": [null]}',
        b'{"ImageVersions": ["version"]}',
        b'{"ImageVersions": [{}]}',
        b'{"ImageVersions": [{"Version": "1", "ImageVersionStatus": "CREATED"}]}',
        b'{"ImageVersions": [{"Version": 1, "ImageVersionStatus": "CREATED", "CreationTime": "soon"}]}',
        b'{"ImageVersions": [{"Version": 1, "ImageVersionStatus": "CREATED", "CreationTime": 1e300}]}',
    ],
    ids=lambda body: body.decode(errors="replace")[:60],
)
def test_an_invalid_response_is_a_temporary_error(connection, serve, body):
    connection(endpoint_url=f"http://{serve(body)}")
    hook = SageMakerImageVersionsHook()
    for call in (hook.list_image_versions, hook.describe_image_version, hook.list_aliases, hook.describe_image):
        with pytest.raises(ResponseParserError, match="response is broken") as caught:
            call(IMAGE)
        assert classify_error(caught.value) is ErrorKind.TRANSIENT


@pytest.mark.beyond_model
@pytest.mark.parametrize("item", ["null", '"image"', "{}", '{"ImageName": "my-image"}'])
def test_an_invalid_item_of_a_list_is_a_temporary_error(connection, serve, monkeypatch, item):
    monkeypatch.setattr(usage, "PATIENCE", 0)
    image = '"ImageName": "my-image", "ImageArn": "arn", "ImageStatus": "CREATED"'
    lists = ", ".join(f'"{name}": [{item}]' for name in ("Images", "Domains", "Apps", "UserProfiles", "Spaces"))
    connection(endpoint_url=f"http://{serve(f'{{{image}, {lists}}}'.encode())}")
    hook = SageMakerImageVersionsHook()
    calls = [lambda: list(hook.iter_images())]
    calls += [partial(hook.find_image_version_usage, IMAGE, scope) for scope in USAGE_SCOPES]
    for call in calls:
        with pytest.raises(ResponseParserError, match="response is broken") as caught:
            call()
        assert classify_error(caught.value) is ErrorKind.TRANSIENT


def test_an_unverified_certificate_is_a_permanent_error(connection, serve, certificate, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    connection(
        endpoint_url=f"https://{serve(NO_VERSIONS, context=context)}",
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    (tmp_path / "empty.pem").touch()
    (tmp_path / "damaged.pem").write_text(certificate[0].read_text()[:200] + "\n-----END CERTIFICATE-----\n")
    for bundle in (None, "missing.pem", "empty.pem", "damaged.pem", "."):
        verify = bundle and str(tmp_path / bundle)
        with pytest.raises(CertificateError, match=r"verify=.*CA bundle") as caught:
            SageMakerImageVersionsHook(verify=verify).list_image_versions(IMAGE)
        assert classify_error(caught.value) is classify_error(caught.value.__cause__) is ErrorKind.PERMANENT
    assert SageMakerImageVersionsHook(verify=str(certificate[0])).list_image_versions(IMAGE) == []


def test_a_broken_handshake_is_a_temporary_error(connection, serve):
    connection(endpoint_url=f"https://{serve(NO_VERSIONS)}", config_kwargs={"retries": {"total_max_attempts": 1}})
    with pytest.raises(botocore.exceptions.SSLError) as caught:
        SageMakerImageVersionsHook().list_image_versions(IMAGE)
    assert classify_error(caught.value) is ErrorKind.TRANSIENT


@pytest.mark.parametrize(
    ("region", "answer", "fault"),
    [
        ("us-esat-1", socket.EAI_NONAME, ErrorKind.PERMANENT),
        ("us-esat-1", socket.EAI_AGAIN, ErrorKind.TRANSIENT),  # the name service itself is away
        ("us-east-1", socket.EAI_NONAME, ErrorKind.TRANSIENT),
        ("cn-north-1", socket.EAI_NONAME, ErrorKind.TRANSIENT),
    ],
)
def test_a_region_that_does_not_exist_is_a_misconfiguration(monkeypatch, connection, region, answer, fault):
    connection(endpoint_url=None, config_kwargs={"retries": {"total_max_attempts": 1}})

    def look_up(*_, **__):
        raise socket.gaierror(answer, "no address")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hook = SageMakerImageVersionsHook(region_name=region)
    request = CreateImageRequest(image_name=IMAGE, role_arn="arn:aws:iam::123456789012:role/sagemaker")
    for call in (lambda: hook.list_image_versions(IMAGE), lambda: hook.create_image(request)):
        with pytest.raises(botocore.exceptions.BotoCoreError) as caught:
            call()
        assert classify_error(caught.value) is fault
        if fault is ErrorKind.PERMANENT:
            assert "region" in str(caught.value)
            assert repr(region) in str(caught.value)


def test_missing_credentials_are_judged_as_such(emulator):
    hook = SageMakerImageVersionsHook(None, region_name="us-east-1")
    with pytest.raises(botocore.exceptions.NoCredentialsError) as caught:
        hook.list_image_versions(IMAGE)
    assert classify_error(caught.value) is ErrorKind.CREDENTIALS


def test_a_missing_region_is_a_misconfiguration(connection):
    with pytest.raises(ValueError, match=r"No AWS region configured .*Set region_name on the task") as caught:
        SageMakerImageVersionsHook(None).list_image_versions(IMAGE)
    assert classify_error(caught.value) is ErrorKind.PERMANENT


def test_an_error_that_no_call_should_raise_is_not_judged():
    assert classify_error(KeyError("bug")) is None


def test_timestamps_of_either_form_are_parsed():
    assert _botocore.parse_timestamp(1767225600.123) == START + timedelta(milliseconds=123)
    assert _botocore.parse_timestamp("2026-01-01T00:00:00Z") == START


ANSWERS = {
    "ListImageVersions": {
        "ImageVersions": [
            {"Version": 2, "CreationTime": 1767225600.123, "FailureReason": None, "NotModelledYet": {"a": [1]}},
            {"Version": 1, "CreationTime": "2026-01-01T00:00:00Z"},
            None,
            {},
        ],
        "NextToken": "b",
    },
    "DescribeImageVersion": {"Version": 1, "Horovod": False, "LastModifiedTime": 1767225600, "MLFramework": ""},
    "DescribeImage": {"ImageName": IMAGE, "ImageStatus": "CREATED", "FailureReason": None},
    "ListAliases": {"SageMakerImageVersionAliases": ["a", "b"], "NextToken": None},
    "DescribeTrainingJob": {
        "HyperParameters": {"epochs": "3"},
        "AlgorithmSpecification": {"MetricDefinitions": [{"Name": "loss", "Regex": ".*"}], "TrainingImage": None},
        "FinalMetricDataList": [{"MetricName": "loss", "Value": 0.5, "Timestamp": 1767225600.5}],
        "ResourceConfig": None,
    },
    "DeleteImageVersion": {},
}


@pytest.mark.parametrize("operation", ANSWERS)
def test_answers_are_parsed_to_what_botocore_makes_of_them(hook, operation):
    model = hook.conn.meta.service_model
    response = {"status_code": 200, "headers": {}, "body": json.dumps(ANSWERS[operation]).encode()}
    shape = model.operation_model(operation).output_shape
    factory = hook.get_session()._session.get_component("response_parser_factory")
    for protocol in model.metadata["protocols"]:
        expected = ResponseParserFactory().create_parser(protocol).parse(response, shape)
        assert factory.create_parser(protocol).parse(response, shape) == expected


def test_sessions_share_one_loader_of_service_models(hook):
    loaders = [hook.get_session()._session.get_component("data_loader") for _ in range(2)]
    assert loaders[0] is loaders[1]


@pytest.mark.parametrize(
    "value",
    [
        "us-east-1",
        '{"proxies": {"https": "http://me:pw@proxy:1"}}',
        {"no_such_option": 1},
        {"connect_timeout": b"x"},
        {"proxies": {"https": "http://me:pw@proxy:1"}},
        {"proxies": {"https": "//me:pw@proxy:1"}},
        {"proxies": {"https": "me:pw@proxy:1"}},
        {"proxies": {"https": "http://pw@proxy:1"}},
    ],
)
def test_a_botocore_configuration_that_cannot_work_or_has_a_password_is_refused(value):
    with pytest.raises(ValueError, match="botocore_config") as caught:
        hooks.check_aws_parameters({"botocore_config": value}, template=TEMPLATE)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("kind", ["creation_time", "last_modified_time"])
def test_a_bound_with_fractional_seconds_is_exact(hook, emulator, kind):
    emulator.create_versions(IMAGE, 6, start_time=START, spacing_seconds=0.25)

    def numbers(**filters):
        return sorted(record["Version"] for record in hook.list_image_versions(IMAGE, **filters))

    fourth = START + timedelta(seconds=0.75)
    assert numbers(**{f"{kind}_before": fourth}) == [1, 2, 3, 4]
    assert numbers(**{f"{kind}_after": fourth}) == [4, 5, 6]
    assert numbers(**{f"{kind}_after": fourth, f"{kind}_before": fourth}) == [4]
    assert numbers(**{f"{kind}_before": START}) == [1]


def test_the_latest_possible_time_is_an_upper_bound(hook, emulator):
    emulator.create_versions(IMAGE, 1)
    bound = datetime.max.replace(tzinfo=timezone.utc)
    assert len(hook.list_image_versions(IMAGE, creation_time_before=bound, last_modified_time_before=bound)) == 1
