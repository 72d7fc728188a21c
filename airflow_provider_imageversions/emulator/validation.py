"""Checks a request against the limits in botocore's service model, as SageMaker does."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from botocore.loaders import Loader

from airflow_provider_imageversions.emulator.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

Shape: TypeAlias = "dict[str, Any]"

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "timestamp": (int, float),
    "list": (list,),
    "structure": (dict,),
    "map": (dict,),
}


def validate(operation: str, parameters: Any) -> dict[str, Any]:
    """
    Return the parameters that the operation knows, or refuse them.

    :param operation: an operation of SageMaker, such as ``ListImageVersions``
    :param parameters: what the request's body held
    :raises ApiError: ``ValidationException`` with every violated constraint, or ``SerializationException``
        for a value of the wrong type
    """
    model = _service_model()
    shape = model["shapes"][model["operations"][operation]["input"]["shape"]]
    known = _cast(parameters, shape)
    problems = list(_violations(known, shape, ""))
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        raise ApiError("ValidationException", f"{len(problems)} validation {noun} detected: {'; '.join(problems)}")
    return known  # type: ignore[no-any-return]


@functools.cache
def _service_model() -> dict[str, Any]:
    return Loader().load_service_model("sagemaker", "service-2")  # type: ignore[no-any-return]


def _shape(reference: dict[str, Any]) -> Shape:
    return _service_model()["shapes"][reference["shape"]]  # type: ignore[no-any-return]


def _cast(value: Any, shape: Shape) -> Any:
    """Drop what SageMaker ignores (nulls, unknown members); refuse JSON of another type."""
    kind = shape["type"]
    if type(value) not in _JSON_TYPES[kind]:
        raise ApiError(
            "SerializationException",
            f"{type(value).__name__} value can not be converted to {kind.capitalize()}",
        )
    if kind == "structure":
        return {
            name: _cast(value[name], _shape(member))
            for name, member in shape["members"].items()
            if value.get(name) is not None
        }
    if kind == "list":
        return [_cast(item, _shape(shape["member"])) for item in value]
    if kind == "map":
        return {name: _cast(item, _shape(shape["value"])) for name, item in value.items()}
    return value


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    for constraint in _broken(value, shape):
        yield f"Value '{_printed(value)}' at '{path}' failed to satisfy constraint: {constraint}"
    if shape["type"] == "structure":
        for name in shape.get("required", ()):
            if name not in value:
                yield (
                    f"Value null at '{_member_path(path, name)}' failed to satisfy constraint: Member must not be null"
                )
        for name, item in value.items():
            yield from _violations(item, _shape(shape["members"][name]), _member_path(path, name))
    elif shape["type"] == "list":
        member = _shape(shape["member"])
        if member["type"] == "structure":
            for position, item in enumerate(value, start=1):
                yield from _violations(item, member, f"{path}.{position}.member")
        elif any(_broken(item, member) for item in value):
            # SageMaker names the list, not the item, and every constraint an item has.
            yield (
                f"Value '{_printed(value)}' at '{path}' failed to satisfy constraint: "
                f"Member must satisfy constraint: [{', '.join(text for _, text in _constraints(member))}]"
            )


def _member_path(path: str, name: str) -> str:
    return f"{path}.{name[0].lower()}{name[1:]}" if path else f"{name[0].lower()}{name[1:]}"


def _printed(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _broken(value: Any, shape: Shape) -> list[str]:
    return [text for holds, text in _constraints(shape) if not holds(value)]


def _constraints(shape: Shape) -> Iterator[tuple[Any, str]]:
    """Yield each constraint of a shape as a test and SageMaker's wording of it."""
    is_number = shape["type"] in {"integer", "long"}
    size, noun = (int, "value") if is_number else (len, "length")
    if "max" in shape:
        yield (
            lambda value: size(value) <= shape["max"],
            f"Member must have {noun} less than or equal to {shape['max']}",
        )
    if "min" in shape:
        yield (
            lambda value: size(value) >= shape["min"],
            f"Member must have {noun} greater than or equal to {shape['min']}",
        )
    if "pattern" in shape:
        yield (
            _pattern(shape["pattern"]).fullmatch,
            f"Member must satisfy regular expression pattern: {shape['pattern']}",
        )
    if "enum" in shape:
        yield (
            shape["enum"].__contains__,
            f"Member must satisfy enum value set: [{', '.join(shape['enum'])}]",
        )


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    # Python's re has no Unicode categories: letters and numbers are within \w, separators within \s.
    return re.compile(text.replace(r"\p{L}", r"\w").replace(r"\p{N}", r"\w").replace(r"\p{Z}", r"\s"))
