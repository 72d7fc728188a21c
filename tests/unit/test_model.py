from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone

import attrs
import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_imageversions import _parameters, model
from airflow_provider_imageversions._requests import ListImagesRequest, ListImageVersionsRequest
from airflow_provider_imageversions.model import StateChange, Target, clean_text, to_record

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def service():
    return botocore.session.Session().get_service_model("sagemaker")


@pytest.fixture(scope="module")
def operation(service):
    return service.operation_model("ListImageVersions")


def test_a_request_has_every_member_of_the_service_model(operation):
    request = ListImageVersionsRequest(
        image_name="a",
        creation_time_after=NOON,
        creation_time_before=NOON,
        last_modified_time_after=NOON,
        last_modified_time_before=NOON,
        sort_by="VERSION",
        sort_order="ASCENDING",
        page_size=7,
        starting_token="t",
    )
    members = request.to_boto()
    assert set(members) == set(operation.input_shape.members)
    assert not ParamValidator().validate(members, operation.input_shape).has_errors()
    assert members == {
        "ImageName": "a",
        "CreationTimeAfter": NOON,
        "CreationTimeBefore": NOON,
        "LastModifiedTimeAfter": NOON,
        "LastModifiedTimeBefore": NOON,
        "SortBy": "VERSION",
        "SortOrder": "ASCENDING",
        "MaxResults": 7,
        "NextToken": "t",
    }


def test_the_limits_are_those_of_the_service_model(operation):
    members = operation.input_shape.members
    assert members["ImageName"].metadata["max"] == _parameters._IMAGE_NAME_MAX
    assert members["ImageName"].metadata["pattern"] == _parameters._IMAGE_NAME.pattern
    assert (members["MaxResults"].metadata["min"], members["MaxResults"].metadata["max"]) == (
        1,
        _parameters.PAGE_SIZE_MAX,
    )
    assert members["NextToken"].metadata["max"] == _parameters._NEXT_TOKEN_MAX
    assert tuple(members["SortOrder"].enum) == _parameters.SORT_ORDER
    for value in members["SortBy"].enum:
        assert ListImageVersionsRequest("a", sort_by=value).sort_by == value
    listed = operation.output_shape.members["ImageVersions"].member
    assert set(listed.members) == set(model.LISTED_FIELDS)
    assert listed.members["ImageVersionStatus"].enum == [status.value for status in model.ImageVersionStatus]


def test_a_request_for_images_has_every_member_and_limit_of_the_service_model(service):
    shape = service.operation_model("ListImages").input_shape
    times = dict.fromkeys(TIMES, NOON)
    request = ListImagesRequest(
        name_contains="a-B.7", sort_by="image_name", sort_order="ascending", page_size="7", starting_token="t", **times
    )
    assert set(request.to_boto()) == set(shape.members)
    assert not ParamValidator().validate(request.to_boto(), shape).has_errors()
    assert ListImagesRequest().to_boto() == {
        "SortBy": "CREATION_TIME",
        "SortOrder": "DESCENDING",
        "MaxResults": _parameters.PAGE_SIZE_MAX,
    }
    assert (shape.members["MaxResults"].metadata["min"], shape.members["MaxResults"].metadata["max"]) == (1, 100)
    for value in shape.members["SortBy"].enum:
        assert ListImagesRequest(sort_by=value).sort_by == value
    name = shape.members["NameContains"].metadata
    assert ListImagesRequest(name_contains="a" * name["max"])
    for label, values in {
        "name_contains": {"name_contains": "a" * (name["max"] + 1)},
        "starting_token": {"starting_token": "t" * 8193},
        "sort_by": {"sort_by": "VERSION"},
        "page_size": {"page_size": 101},
        "creation_time_after": {"creation_time_after": NOON, "creation_time_before": NOON - timedelta(seconds=1)},
    }.items():
        with pytest.raises(ValueError, match=label):
            ListImagesRequest(**values)


METADATA = {
    "vendor_guidance": "STABLE",
    "job_type": "TRAINING",
    "ml_framework": "PyTorch 2.4",
    "programming_lang": "Python 3.11",
    "processor": "GPU",
    "horovod": True,
    "release_notes": "Notes",
}
CHANGES = {
    "CreateImage": (
        model.CreateImageRequest,
        {
            "image_name": "a",
            "role_arn": "arn:aws:iam::123456789012:role/x",
            "display_name": "A",
            "description": "B",
            "tags": {"k": "v"},
        },
        set(),
    ),
    "CreateImageVersion": (
        model.CreateImageVersionRequest,
        {"image_name": "a", "base_image": "b", "aliases": ["c"], **METADATA},
        {"ClientToken"},
    ),
    "UpdateImageVersion": (
        model.UpdateImageVersionRequest,
        {"image_name": "a", "version": 1, "aliases_to_add": ["c"], "aliases_to_delete": ["d"], **METADATA},
        {"Alias"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_request_that_changes_something_has_every_member_of_the_service_model(service, name):
    request, values, elsewhere = CHANGES[name]
    shape = service.operation_model(name).input_shape
    members = request(**values).to_boto()
    assert set(members) | elsewhere == set(shape.members)
    given = {**members, **({"ClientToken": "t"} if "ClientToken" in elsewhere else {})}
    assert not ParamValidator().validate(given, shape).has_errors()


def edges(shape):
    """Values at and beyond the limits of a string's shape, with whether SageMaker accepts them."""
    metadata = shape.metadata
    if "enum" in metadata:
        return [(value, True) for value in metadata["enum"]] + [("NO_SUCH", False)]
    low, high = metadata.get("min", 1), metadata["max"]
    samples = {
        "arn:aws[a-z\\-]*:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+": "arn:aws:iam::123456789012:role/",
        "[a-zA-Z]+ ?\\d+\\.\\d+(\\.\\d+)?": "a1.",
    }
    start, filler = samples.get(metadata["pattern"], ""), "7"
    return [
        (start + filler * (high - len(start)), True),
        (start + filler * (high + 1 - len(start)), False),
        *([((start + filler)[: low - 1], False)] if low > 1 else []),  # an empty text counts as not given
        ("two\nlines", False),
    ]


@pytest.mark.parametrize("name", CHANGES)
def test_the_limits_of_texts_and_choices_are_those_of_the_service_model(service, name):
    request, values, _ = CHANGES[name]
    shapes = service.operation_model(name).input_shape.members
    checked = 0
    for field in values:
        (member,) = set(request(**values).to_boto()) & {
            "".join(w.capitalize() for w in field.split("_")),
            "MLFramework",
        } - ({"MLFramework"} if field != "ml_framework" else set())
        shape = shapes[member]
        if shape.type_name != "string" or field == "image_name":
            continue
        for value, allowed in edges(shape):
            checked += 1
            if allowed:
                request(**{**values, field: value})
            else:
                with pytest.raises(ValueError, match=field):
                    request(**{**values, field: value})
    assert checked >= 10


@pytest.mark.parametrize("value", [{"k": "v"}, [{"Key": "k", "Value": "v"}]])
@pytest.mark.parametrize("render", [lambda value: value, json.dumps, str])
def test_tags_may_be_a_dict_or_aws_s_list_or_what_a_template_makes_of_one(value, render):
    assert _parameters.parse_tags("tags", render(value)) == ({"Key": "k", "Value": "v"},)


@pytest.mark.parametrize("value", [["a", "b"], '["a", "b"]', "['a', 'b']", "a, b", " ['a','b']"])
def test_a_list_may_be_what_a_template_makes_of_one(value):
    assert _parameters.parse_aliases("aliases", value) == ("a", "b")


@pytest.mark.parametrize("value", ["['a', 'b'", "[a, b]", "[1, 2]", "[" * 5000, "{'a': 'b'}"])
def test_an_invalid_list_is_rejected(value):
    with pytest.raises(ValueError, match="aliases="):
        _parameters.parse_aliases("aliases", value)


@pytest.mark.parametrize(
    "value", [{"": "v"}, {"k": 1}, {"k": "v" * 257}, [{"Key": "k"}], "k=v", {str(n): "" for n in range(51)}]
)
def test_what_are_no_tags_is_refused(value):
    with pytest.raises(ValueError, match="tags"):
        _parameters.parse_tags("tags", value)


def test_a_client_token_is_valid_and_specific_to_request_and_origin(service):
    request = model.CreateImageVersionRequest(image_name="a", base_image="b", aliases="c, d")
    same = model.CreateImageVersionRequest(image_name="a", base_image="b", aliases=["c", "d"])
    other = model.CreateImageVersionRequest(image_name="a", base_image="b2", aliases=["c", "d"])
    token = request.client_token("dag", "run", "task", -1, 0)
    assert token == same.client_token("dag", "run", "task", -1, 0)
    assert (
        len({token, other.client_token("dag", "run", "task", -1, 0), request.client_token("dag", "run", "task", -1, 1)})
        == 3
    )
    shape = service.operation_model("CreateImageVersion").input_shape.members["ClientToken"]
    assert len(token) <= shape.metadata["max"]
    assert re.fullmatch(shape.metadata["pattern"], token)


@pytest.mark.parametrize(
    ("value", "seconds"), [(1, 1.0), (0.5, 0.5), ("90", 90.0), ("1.5", 1.5), (timedelta(days=1), 86400.0)]
)
def test_seconds_may_be_a_number_a_text_or_a_timedelta(value, seconds):
    assert _parameters.parse_seconds("timeout", value) == seconds


@pytest.mark.parametrize(
    "value", [0, -1, True, "", "soon", "-1", "1e9", float("inf"), float("nan"), timedelta(0), None]
)
def test_what_are_no_seconds_is_refused(value):
    with pytest.raises(ValueError, match="timeout"):
        _parameters.parse_seconds("timeout", value)


def test_the_details_are_all_that_the_service_describes():
    session = botocore.session.Session()
    described = session.get_service_model("sagemaker").operation_model("DescribeImageVersion").output_shape.members
    assert {*model.LISTED_FIELDS, *model.DETAIL_FIELDS} == {*described, "Aliases"}


def test_a_request_asks_for_pages_of_100_newest_first_by_default():
    assert ListImageVersionsRequest("a").to_boto() == {
        "ImageName": "a",
        "SortBy": "CREATION_TIME",
        "SortOrder": "DESCENDING",
        "MaxResults": 100,
    }


@pytest.mark.parametrize("name", ["a", "A1", "a-b.c", "x" * 63, "sagemaker-distribution-cpu"])
def test_a_valid_image_name_is_taken(name):
    assert ListImageVersionsRequest(name).image_name == name


@pytest.mark.parametrize(
    "name",
    ["-a", "a-", "a--b", "a.-b", "a_b", "a b", "ä", "a\n", "x" * 64, "x" * 10**6, None, 3, b"a", ["a"]],
)
def test_an_invalid_image_name_is_refused_by_name_and_value(name):
    with pytest.raises(ValueError, match=r"^image_name=.*1 to 63 letters, digits") as caught:
        ListImageVersionsRequest(name)
    assert repr(name)[:100] in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_arn_in_place_of_a_name_is_answered_with_advice():
    with pytest.raises(ValueError, match="not its ARN"):
        ListImageVersionsRequest("arn:aws:sagemaker:us-east-1:123456789012:image/a")


TIMES = ["creation_time_after", "creation_time_before", "last_modified_time_after", "last_modified_time_before"]


@pytest.mark.parametrize("field", TIMES)
@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31 12:00:00+00:00",
        "2026-01-31T13:00:00.000+01:00",
        "20260131T120000Z",
        " 2026-01-31T12:00:00Z ",
    ],
)
def test_an_aware_time_is_taken_in_every_usual_form(field, value):
    assert getattr(ListImageVersionsRequest("a", **{field: value}), field) == NOON


@pytest.mark.parametrize("field", TIMES)
@pytest.mark.parametrize("value", [datetime(2026, 1, 31), "2026-01-31T12:00:00", "2026-01-31"])  # noqa: DTZ001 # naive
def test_a_naive_time_is_refused_with_the_way_to_make_it_aware(field, value):
    with pytest.raises(ValueError, match=rf"^{field}=.*no time zone.*append \+00:00.*tzinfo=timezone\.utc"):
        ListImageVersionsRequest("a", **{field: value})


@pytest.mark.parametrize("field", TIMES)
@pytest.mark.parametrize("value", ["yesterday", "2026-13-01T00:00:00Z", 1769860800, NOON.date(), object(), "{{ ds }}"])
def test_what_is_no_time_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"^{field}=.*ISO-8601"):
        ListImageVersionsRequest("a", **{field: value})


def test_a_time_that_leaves_the_calendar_is_refused():
    with pytest.raises(ValueError, match="years 1 to 9999"):
        ListImageVersionsRequest("a", creation_time_after="0001-01-01T00:00:00+10:00")
    with pytest.raises(ValueError, match=r"^creation_time_after="):
        ListImageVersionsRequest("a", creation_time_after="9999-12-31T24:00:00Z")


@pytest.mark.parametrize("kind", ["creation_time", "last_modified_time"])
def test_an_empty_range_of_times_is_refused(kind):
    with pytest.raises(ValueError, match=rf"^{kind}_after=.*later than {kind}_before"):
        ListImageVersionsRequest("a", **{f"{kind}_after": NOON, f"{kind}_before": NOON - timedelta(seconds=1)})


@pytest.mark.parametrize(("value", "expected"), [(1, 1), (100, 100), ("50", 50), (" 7 ", 7), (None, 100)])
def test_a_page_size_may_be_a_rendered_template(value, expected):
    assert ListImageVersionsRequest("a", page_size=value).page_size == expected


@pytest.mark.parametrize("value", [0, 101, -1, "0", "101", 5.0, "5.0", "ten", True, [], "9" * 5000])
def test_a_page_size_outside_the_limits_is_refused(value):
    with pytest.raises(ValueError, match=r"^page_size="):
        ListImageVersionsRequest("a", page_size=value)


@pytest.mark.parametrize(
    ("field", "allowed"),
    [("sort_by", ("CREATION_TIME", "LAST_MODIFIED_TIME", "VERSION")), ("sort_order", _parameters.SORT_ORDER)],
)
def test_an_order_is_one_of_the_service_s(field, allowed):
    for value in allowed:
        assert getattr(ListImageVersionsRequest("a", **{field: value.lower()}), field) == value
    for value in ["NAME", 1, ["VERSION"]]:
        with pytest.raises(ValueError, match=rf"^{field}=.*{allowed[0]}"):
            ListImageVersionsRequest("a", **{field: value})


@pytest.mark.parametrize("value", [5, b"x", "x" * 8193])
def test_an_impossible_token_is_refused(value):
    with pytest.raises(ValueError, match=r"^starting_token="):
        ListImageVersionsRequest("a", starting_token=value)


def test_none_means_that_an_optional_value_is_not_given():
    optional = [name for name in ListImageVersionsRequest.names() if name != "image_name"]
    assert ListImageVersionsRequest("a", **dict.fromkeys(optional)) == ListImageVersionsRequest("a")


@pytest.mark.parametrize("blank", ["", "None", " ", " None "])
@pytest.mark.parametrize(
    ("request_class", "required"),
    [
        (ListImageVersionsRequest, {"image_name": "a"}),
        (model.CreateImageRequest, {"image_name": "a", "role_arn": "arn:aws:iam::123456789012:role/r"}),
        (model.CreateImageVersionRequest, {"image_name": "a", "base_image": "b"}),
        (model.UpdateImageVersionRequest, {"image_name": "a", "version": 1}),
        (model.PrunePolicy, {"keep_newest": 1}),
        (Target, {}),
    ],
)
def test_a_value_that_renders_to_nothing_is_an_error_that_names_it(request_class, required, blank):
    for name in request_class.names():
        with pytest.raises(ValueError, match=rf"^{re.escape(name)}='.*is not valid"):
            request_class(**{**required, name: blank})


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.binary(), st.lists(st.text()), st.none()))
def test_any_value_is_parsed_to_what_the_service_takes_or_refused_with_a_value_error(value):
    for field in attrs.fields(ListImageVersionsRequest):
        name = field.name
        try:
            field.metadata["parse"](name, value)
        except ValueError as error:
            assert str(error).startswith(f"{name}=")  # noqa: PT017 # both ends are right


def test_at_parse_time_what_is_known_is_checked_and_templates_are_left_alone():
    template = "{{ params.x }}"

    def check(**values):
        given_values = {**dict.fromkeys(ListImageVersionsRequest.names()), "image_name": template, **values}
        ListImageVersionsRequest.check_literals(given_values, _parameters.TEMPLATE)

    check(sort_by="VERSION", creation_time_after=object(), limit=template)
    with pytest.raises(ValueError, match="sort_by"):
        check(sort_by="NAME")
    with pytest.raises(ValueError, match="later than"):
        check(creation_time_after=NOON, creation_time_before=NOON - timedelta(days=1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "the latest version"),
        ({"version": 3}, "version 3"),
        ({"version": "3"}, "version 3"),
        ({"alias": "prod"}, "the version with the alias 'prod'"),
        ({"alias": "prod", "after_version": 2}, "the version with the alias 'prod' after version 2"),
        ({"after_version": "0"}, "a version after version 0"),
        (
            {"after_version": 2, "created_after": NOON},
            "a version after version 2 and created at or after 2026-01-31T12:00:00+00:00",
        ),
    ],
)
def test_a_target_says_what_it_is(arguments, text):
    assert str(Target(**arguments)) == text


@pytest.mark.parametrize("other", [{"alias": "prod"}, {"after_version": 1}, {"created_after": NOON}])
def test_a_version_excludes_the_other_targets(other):
    with pytest.raises(ValueError, match=f"version=3.*{next(iter(other))}.*leave out"):
        Target(version=3, **other)


@pytest.mark.parametrize(
    "arguments",
    [{"version": -1}, {"version": "one"}, {"version": True}, {"after_version": 1.5}, {"alias": "-x"}, {"alias": "a b"}],
)
def test_an_invalid_target_is_refused_by_name(arguments):
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}="):
        Target(**arguments)


@pytest.mark.parametrize(
    "value", ["CREATED,CREATE_FAILED", '["CREATED", "CREATE_FAILED"]', ("CREATED", "CREATE_FAILED")]
)
def test_statuses_may_be_a_list_or_what_a_template_makes_of_one(value):
    assert _parameters.parse_statuses("statuses", value) == ("CREATED", "CREATE_FAILED")


def test_a_set_is_taken_in_the_same_order_by_every_process():
    assert _parameters.parse_aliases("aliases", set("jihgfedcba")) == tuple("abcdefghij")


@pytest.mark.parametrize("value", ["READY", ["CREATED", 3], [], '["CREATED"', 5, {"CREATED": 1}])
def test_an_unknown_status_is_refused(value):
    with pytest.raises(ValueError, match=r"^statuses="):
        _parameters.parse_statuses("statuses", value)


def test_a_record_is_plain_json_in_utc_without_the_response_s_metadata():
    item = {
        "Version": 3,
        "ImageVersionStatus": "CREATE_FAILED",
        "CreationTime": NOON.astimezone(timezone(timedelta(hours=2))),
        "LastModifiedTime": NOON + timedelta(milliseconds=5),
        "FailureReason": "no\x00 base\x1b[31m image\ud800\n\tz\u0085\N{SNOWMAN}",
        "Horovod": False,
        "ResponseMetadata": {"RequestId": "x"},
    }
    record = to_record(item)
    assert (
        json.loads(json.dumps(record))
        == record
        == {
            "Version": 3,
            "ImageVersionStatus": "CREATE_FAILED",
            "CreationTime": "2026-01-31T12:00:00+00:00",
            "LastModifiedTime": "2026-01-31T12:00:00.005000+00:00",
            "FailureReason": "no\ufffd base\ufffd[31m image\ufffd\n\tz\ufffd\N{SNOWMAN}",
            "Horovod": False,
        }
    )


@given(st.text(st.characters()))
def test_cleaned_text_fits_every_database_and_terminal(text):
    cleaned = clean_text(text)
    assert len(cleaned) == len(text)
    cleaned.encode()
    assert not any(ord(character) < 0x20 and character not in "\t\n" for character in cleaned)


STORED_CURSOR = '[[1, 3, "2026-01-31T12:00:00.005000+00:00"], [5, 5, "2026-01-31T12:00:01+00:00"]]'
STORED_ALIAS_CURSOR = '["8f14e45fceea167a5a36dedd4bea2543", "c9f0f895fb98ab9159f51fd0297e236d", 2]'


def test_a_stored_cursor_stays_readable():
    """Airflow's asset state store has rows of earlier versions of this package."""
    assert (model.Cursor.KEY, model.AliasCursor.KEY) == ("runs", "alias")
    cursor = model.Cursor.from_json(json.loads(STORED_CURSOR))
    assert [number for number in range(8) if cursor.run_of(number) is not None] == [1, 2, 3, 5]
    assert cursor.run_of(2).latest == "2026-01-31T12:00:00.005000+00:00"
    assert cursor.progress == 4
    assert json.dumps(cursor.to_json()) == STORED_CURSOR
    alias = model.AliasCursor.from_json(json.loads(STORED_ALIAS_CURSOR))
    assert (alias.owner, alias.progress) == ("8f14e45fceea167a5a36dedd4bea2543", 2)
    assert json.dumps(alias.to_json()) == STORED_ALIAS_CURSOR


# --- EventBridge -----------------------------------------------------------------------------------------


def state_change(**detail):
    """An event in the shape that AWS documents."""
    defaults = {
        "ImageArn": "arn:aws:sagemaker:us-east-1:123456789012:image/my-image",
        "ImageVersionArn": "arn:aws:sagemaker:us-east-1:123456789012:image-version/97abd9d2-26fe-4a45-bb28",
        "ImageVersionStatus": "Created",
        "Version": 3.0,
        "Tags": {},
    }
    return {
        "version": "0",
        "id": "12345678-1234-1234-1234-111122223333",
        "detail-type": "SageMaker Image Version State Change",
        "source": "aws.sagemaker",
        "account": "123456789012",
        "region": "us-east-1",
        "detail": {**defaults, **detail},
    }


def change(**detail):
    return StateChange.from_message(json.dumps(state_change(**detail)))


@pytest.mark.parametrize("status", ["CREATE_FAILED", "CreateFailed", "Create_Failed", "create_failed"])
def test_events_of_one_change_are_equal_whatever_the_case(status):
    arn = "arn:aws:SageMaker:US-EAST-1:123456789012:image/My-Image"
    assert change(ImageVersionStatus=status, ImageArn=arn) == change(ImageVersionStatus="CREATE_FAILED")
    assert change().image_name == "my-image"
    assert change().region == "us-east-1"


@pytest.mark.parametrize(
    "other",
    [
        {"ImageVersionStatus": "CREATING"},
        {"Version": 4.0},
        {"ImageVersionArn": "arn:aws:sagemaker:us-east-1:123456789012:image-version/other"},
        {"ImageArn": "arn:aws:sagemaker:us-east-1:123456789012:image/other"},
        {"ImageArn": "arn:aws-cn:sagemaker:cn-north-1:123456789012:image/my-image"},
    ],
)
def test_events_of_different_changes_differ(other):
    assert change(**other) not in {None, change()}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[" * 100_000,
        "null",
        "[]",
        "{}",
        json.dumps({**state_change(), "detail-type": "SageMaker Image State Change"}),
        json.dumps({**state_change(), "detail": None}),
        json.dumps({**state_change(), "detail": []}),
        json.dumps(state_change(ImageArn=None)),
        json.dumps(state_change(ImageArn="arn:aws:sagemaker:us-east-1:123456789012:domain/my-image")),
        json.dumps({"Type": "Notification", "Message": json.dumps(state_change())}),
    ],
)
def test_another_message_reports_no_change(body):
    assert StateChange.from_message(body) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_an_event_breaks_it(value):
    for name in ("ImageArn", "ImageVersionArn", "ImageVersionStatus", "Version"):
        change(**{name: value})


def test_a_queue_of_each_partition_is_taken_and_has_its_region():
    session = botocore.session.Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("sqs", partition):
            client = session.create_client("sqs", region, aws_access_key_id="x", aws_secret_access_key="y")
            url = f"{client.meta.endpoint_url}/123456789012/image-versions"
            client.close()
            assert _parameters.parse_queue_url("wake_queue", url) == url
            assert _parameters.locate_queue(url) == (region, None)
    emulated = "http://127.0.0.1:5000/123456789012/image-versions"
    assert _parameters.locate_queue(_parameters.parse_queue_url("wake_queue", emulated)) == (
        None,
        "http://127.0.0.1:5000",
    )
