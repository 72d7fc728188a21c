"""The service's model as JSON schemas, to compare what the emulator sends with."""

from __future__ import annotations

import functools
import json

import jsonschema
from botocore.loaders import Loader

SHAPES = Loader().load_service_model("sagemaker", "service-2")


def schema_of(name):
    """The JSON schema of a shape of botocore's model: nothing that it does not name, nor in another form."""
    shape = SHAPES["shapes"][name]
    if shape["type"] == "structure":
        properties = {member: schema_of(reference["shape"]) for member, reference in shape["members"].items()}
        required = shape.get("required", [])
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if shape["type"] == "list":
        return {"type": "array", "items": schema_of(shape["member"]["shape"])}
    if shape["type"] == "map":
        return {"type": "object", "additionalProperties": schema_of(shape["value"]["shape"])}
    kind = {"timestamp": "number", "long": "integer"}.get(shape["type"], shape["type"])
    limits = {"string": ("minLength", "maxLength"), "integer": ("minimum", "maximum")}.get(kind, ())
    schema = {"type": kind}
    schema |= {limit: shape[limit[:3]] for limit in limits if limit[:3] in shape}
    if "pattern" in shape:
        schema["pattern"] = f"^({shape['pattern']})$"
    return {**schema, "enum": shape["enum"]} if "enum" in shape else schema


@functools.cache
def validator_of(operation):
    output = SHAPES["operations"][operation].get("output")
    return jsonschema.Draft202012Validator(schema_of(output["shape"]) if output else {"const": {}})


def check_answer(response_dict, event_name, **_):
    """Compare what came over the wire with the model; to be called by botocore for each answer."""
    if response_dict["status_code"] == 200:
        validator_of(event_name.rpartition(".")[2]).validate(json.loads(response_dict["body"]))
