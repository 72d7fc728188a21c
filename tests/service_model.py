"""Compare raw responses with botocore's service model."""

from __future__ import annotations

import functools
import json
import re

import botocore.session
from botocore.validate import ParamValidator

from airflow_provider_imageversions.emulator.faults import FAULT_HEADER
from airflow_provider_imageversions.emulator.studio import STUDIO_OPERATIONS
from airflow_provider_imageversions.emulator.wire import OPERATIONS

OURS = {*OPERATIONS, *STUDIO_OPERATIONS}

# Errors of every operation: https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html and those of
# the protocol, which the model does not list.
COMMON_ERRORS = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "InternalFailure",
    "InvalidSignatureException",
    "SerializationException",
    "ServiceUnavailable",
    "ThrottlingException",
    "UnrecognizedClientException",
    "ValidationException",
}


@functools.cache
def service_model():
    return botocore.session.Session().get_service_model("sagemaker")


def violations(operation, status, body):
    """
    Return what of an answer is not in the model.

    :param operation: the operation's name, such as ``ListImages``
    :param status: the HTTP status
    :param body: the JSON of the body
    """
    model = service_model().operation_model(operation)
    if status == 200 and model.output_shape is None:
        return [f"{operation} answers nothing, and not {body}"] if body else []
    if status == 200:
        return _problems(body, model.output_shape)
    shapes = {shape.name: shape for shape in model.error_shapes}
    code = body.get("__type")
    members = {name: value for name, value in body.items() if name != "__type"}
    if code in shapes:
        return _problems(members, shapes[code])
    if code in COMMON_ERRORS:
        return [] if set(members) == {"Message"} else [f"{code} has the members {sorted(members)}"]
    return [f"{code} is not an error of {operation}"]


def _problems(body, shape):
    # As botocore's Stubber does: required and unknown members, and types. It leaves the limits out.
    report = ParamValidator().validate(body, shape)
    return [report.generate_report()] if report.has_errors() else list(_beyond_limits(body, shape, shape.name))


def _beyond_limits(value, shape, path):
    if shape.type_name == "structure":
        for name, item in value.items():
            yield from _beyond_limits(item, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _beyond_limits(item, shape.member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _beyond_limits(key, shape.key, f"{path}.{key}")
            yield from _beyond_limits(item, shape.value, f"{path}.{key}")
    limits = shape.metadata
    size = len(value) if isinstance(value, (str, list, dict)) else value
    if "max" in limits and size > limits["max"]:
        yield f"{path} is {size} and the maximum {limits['max']}"
    if "enum" in limits and value not in limits["enum"]:
        yield f"{path} is {value!r} and has to be one of {limits['enum']}"
    if "pattern" in limits and not _pattern(limits["pattern"]).fullmatch(value):
        yield f"{path} is {value!r} and has to match {limits['pattern']}"


@functools.cache
def _pattern(text):
    # The classes of Unicode that Python's re lacks.
    return re.compile(text.replace(r"\p{L}", r"\w").replace(r"\p{N}", r"\w").replace(r"\p{Z}", r"\s"))


class AnswerCheck:
    """Collects what is not in the model, from the answers to all clients of this process."""

    def __init__(self):
        self.found = []

    def __call__(self, response_dict, event_name, **_):
        """Check one answer, unless moto or a fault made it; botocore calls this with each."""
        operation = event_name.rpartition(".")[2]
        # There is no response if the connection failed.
        if operation not in OURS or response_dict is None or FAULT_HEADER in response_dict["headers"]:
            return
        try:
            body = json.loads(response_dict["body"] or b"{}")
        except ValueError:
            self.found.append(f"{operation}: the body is not JSON")
            return
        self.found += [f"{operation}: {each}" for each in violations(operation, response_dict["status_code"], body)]
