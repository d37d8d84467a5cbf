"""Validate a request against AWS's own service model, which ships with botocore.

botocore itself (1.44) checks only required parameters, minima and types. New users mostly run into the other
limits: maxima, allowed values and patterns.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.core.formatting import quote
from psa.core.parsing import nearest

_CREATE: Final = "CreateTrainingJob"


def request_errors(operation: str, request: Mapping[str, Any], service: str = "sagemaker") -> list[str]:
    """Return the errors of a request, one line each with its path; an empty list if it is valid.

    Reads files only: no network, no credentials, no client. Raises UserError without the extra `aws`.
    """
    shape = _service(service).operation_model(operation).input_shape
    found = [] if shape is None else list(_structure(shape, request, ""))
    if not found and (service, operation) == ("sagemaker", _CREATE):
        found = list(_beyond_the_model(request))
    return found


@functools.cache
def output_members(operation: str, service: str = "sagemaker") -> frozenset[str]:
    """Return the names of all members that an operation's response may have."""
    shape = _service(service).operation_model(operation).output_shape
    return frozenset() if shape is None else frozenset(shape.members)


@functools.cache
def training_instance_types() -> tuple[str, ...]:
    """Return every instance type on which SageMaker trains."""
    return tuple(_service("sagemaker").shape_for("TrainingInstanceType").enum)


@functools.cache
def _service(name: str) -> Any:
    try:
        from botocore.loaders import Loader
        from botocore.model import ServiceModel
    except ImportError:
        raise UserError("AWS's service model is not installed", how_to_install("aws")) from None
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def _value(shape: Any, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if not _KINDS[kind](value):
        yield f"{path}: {type(value).__name__}, not {_NAMES.get(kind, kind)}: {quote(value)}"
    elif kind in _CHECKS:
        yield from _CHECKS[kind](shape, value, path)


def _structure(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    members = shape.members
    prefix = f"{path}." if path else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"{prefix}{name}: missing"
    for name, member in value.items():
        if name not in members:
            yield f"{prefix}{name}: unknown{_nearest(str(name), members)}"
        elif member is None and name not in shape.required_members:
            yield f"{prefix}{name}: None; leave it out"
        elif member is not None:
            yield from _value(members[name], member, f"{prefix}{name}")
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield f"{path}: {len(value)} members; just one of {', '.join(members)} is allowed"


def _list(shape: Any, value: Sequence[Any], path: str) -> Iterator[str]:
    yield from _size(shape, len(value), path, "items")
    for number, item in enumerate(value):
        yield from _value(shape.member, item, f"{path}[{number}]")


def _map(shape: Any, value: Mapping[Any, Any], path: str) -> Iterator[str]:
    yield from _size(shape, len(value), path, "entries")
    for key, item in value.items():
        yield from _value(shape.key, key, f"{path} (key {quote(key)})")
        yield from _value(shape.value, item, f"{path}[{quote(key)}]")


def _string(shape: Any, value: str, path: str) -> Iterator[str]:
    allowed, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
    if allowed:
        if value not in allowed:
            choices = f"one of {', '.join(allowed)}" if len(allowed) <= 10 else f"{len(allowed)} are known"
            yield f"{path}: unknown value {quote(value)}{_nearest(value, allowed) or f'; {choices}'}"
        return
    yield from _size(shape, len(value), path, "characters")
    if pattern and not _java(pattern).fullmatch(value):
        yield f"{path}: {quote(value)} does not match {pattern}"


def _number(shape: Any, value: float, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and value < low:
        yield f"{path}: {value} is less than {low}"
    if high is not None and value > high:
        yield f"{path}: {value} is more than {high}"


def _blob(shape: Any, value: bytes | str, path: str) -> Iterator[str]:
    # a request received over HTTP still has it in base64
    try:
        content = base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        yield f"{path}: neither bytes nor base64: {quote(value)}"
    else:
        yield from _size(shape, len(content), path, "bytes")


def _size(shape: Any, size: int, path: str, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{path}: {size} {unit}, at least {low} are needed"
    if high is not None and size > high:
        yield f"{path}: {size:,} {unit}, at most {high:,} are allowed"


@functools.cache
def _java(pattern: str) -> Any:
    r"""Compile a pattern of the service model: \p{..} as in Java, and a dot matches no line separator."""
    try:
        import regex
    except ImportError:
        raise UserError(
            "the package regex is not installed, which checks AWS's patterns",
            how_to_install("aws"),
        ) from None
    return regex.compile(pattern, regex.WORD)


def _beyond_the_model(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield errors beyond the model that CreateTrainingJob reports for the parameters used here."""
    for name in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
        if name not in request:
            yield f"{name}: missing"
    algorithm, resources = request.get("AlgorithmSpecification", {}), request.get("ResourceConfig", {})
    if ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm):
        yield "AlgorithmSpecification: just one of TrainingImage and AlgorithmName is needed"
    if "InstanceGroups" not in resources:
        for name in ("InstanceType", "InstanceCount"):
            if not resources.get(name):
                yield f"ResourceConfig.{name}: missing"
    is_spot = request.get("EnableManagedSpotTraining", False)
    yield from _times(request.get("StoppingCondition", {}), is_spot)
    if is_spot and resources.get("KeepAlivePeriodInSeconds"):
        yield "ResourceConfig.KeepAlivePeriodInSeconds: only without EnableManagedSpotTraining"
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"InputDataConfig: more than one channel is called {name}"


def _times(stopping: Mapping[str, Any], spot: bool) -> Iterator[str]:
    path, longest = "StoppingCondition.MaxWaitTimeInSeconds", stopping.get("MaxWaitTimeInSeconds")
    if not spot:
        if longest is not None:
            yield f"{path}: only for EnableManagedSpotTraining"
    elif longest is None:
        yield f"{path}: missing, which EnableManagedSpotTraining needs"
    elif longest < stopping.get("MaxRuntimeInSeconds", 86_400):
        yield f"{path}: {longest} is less than MaxRuntimeInSeconds"


def _nearest(name: str, known: Any) -> str:
    near = nearest(name, known, likeness=0.6)
    return f"; did you mean {near}?" if near else ""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "structure": lambda value: isinstance(value, Mapping),
    "map": lambda value: isinstance(value, Mapping),
    "list": lambda value: isinstance(value, list | tuple),
    "string": lambda value: isinstance(value, str),
    "character": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": _whole,
    "long": _whole,
    "float": _real,
    "double": _real,
    "blob": lambda value: isinstance(value, bytes | bytearray | str),
    # a request received over HTTP has a number of seconds
    "timestamp": lambda value: isinstance(value, dt.datetime | str) or _real(value),
}
_NAMES: Final = {"structure": "a mapping", "map": "a mapping", "list": "a list", "string": "a string"}
_NAMES.update(boolean="true or false", integer="a whole number", long="a whole number", float="a number")
_NAMES.update(double="a number", blob="bytes", timestamp="a time")
_CHECKS: Final[dict[str, Callable[[Any, Any, str], Iterator[str]]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _number,
    "long": _number,
    "float": _number,
    "double": _number,
    "blob": _blob,
}
