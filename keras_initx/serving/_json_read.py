"""JSON requests to tensors, by TensorFlow Serving's rules for rows (`instances`) and columns (`inputs`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_initx.serving._documents import is_base64, read_string, show, type_error
from keras_initx.serving._errors import ServingError, invalid
from keras_initx.serving._loaded import DTYPES, TensorSpec

__all__ = ["decode_inputs"]

_INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"}
_FLOATS = {"float", "double"}


def decode_inputs(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec], may_hold_bools: bool = True
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns a signature's inputs from a document.

    Args:
        document: What `parse` returned.
        specs: The signature's inputs.
        may_hold_bools: False tells that the document holds neither `true` nor `false`, which is then not
            looked for among numbers.

    Returns:
        The tensors by name, and whether they came as rows.

    Raises:
        ServingError: In TensorFlow Serving's words, where they are not what the signature takes.
    """
    for name, spec in specs.items():
        if spec.type not in DTYPES:
            raise ServingError("UNIMPLEMENTED", f"Conversion of JSON for input {name} to type: {spec.type}")
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid(
            f"JSON Value: {show(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if rows:
        return _from_rows(document, specs, may_hold_bools), True
    if columns:
        return _from_columns(document["inputs"], specs, may_hold_bools), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_rows(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec], bools: bool
) -> dict[str, np.ndarray]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {show(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {show(document)} No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(specs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    if _is_object(instances[0]):
        return _from_objects(instances, specs, bools)
    ((name, spec),) = specs.items()
    tensor = _fast(instances, spec.type, bools)
    return {name: _stack(instances, spec, "") if tensor is None else tensor}


def _from_objects(
    instances: list[Any], specs: Mapping[str, TensorSpec], bools: bool
) -> dict[str, np.ndarray]:
    for index, row in enumerate(instances):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {index} of input list")
        for name in row.keys() - specs.keys():
            raise invalid(
                f"Failed to process element: {index} key: {name} of 'instances' list. Error: "
                f"INVALID_ARGUMENT: JSON object: does not have named input: {name}"
            )
        if row.keys() != specs.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {show(row)} keys must "
                f"be equal to: {','.join(specs)}"
            )
    found = {}
    for name, spec in specs.items():
        values = [row[name] for row in instances]
        tensor = _fast(values, spec.type, bools)
        found[name] = _stack(values, spec, f" key: {name}") if tensor is None else tensor
    return found


def _from_columns(value: Any, specs: Mapping[str, TensorSpec], bools: bool) -> dict[str, np.ndarray]:
    if not _is_object(value):
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as "
                "per tensorinfo_map"
            )
        value = dict.fromkeys(specs, value)
    found = {}
    for name, spec in specs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        tensor = _fast(value[name], spec.type, bools)
        found[name] = _slow(value[name], spec.type) if tensor is None else tensor
    return found


def _fast(value: Any, type_: str, bools: bool) -> np.ndarray | None:
    """The tensor, by NumPy alone; None where it is none, or takes a closer look."""
    if (type_ not in _FLOATS and type_ not in _INTEGERS) or bools or isinstance(value, str):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        return None
    if array.dtype.kind in ("iuf" if type_ in _FLOATS else "iu"):
        if type_ in _FLOATS:
            with np.errstate(over="ignore"):
                return array.astype(DTYPES[type_])
        bounds = np.iinfo(DTYPES[type_])
        if array.min(initial=0) >= bounds.min and array.max(initial=0) <= bounds.max:
            return array.astype(DTYPES[type_])
    return None


def _stack(rows: list[Any], spec: TensorSpec, key: str) -> np.ndarray:
    """The tensor of rows, one by one, for its values or for the error."""
    tensors: list[np.ndarray] = []
    for index, row in enumerate(rows):
        if not key and _is_object(row):
            raise invalid(f"Expecting value/list but got object at item {index} of input list")
        try:
            tensors.append(_slow(row, spec.type))
            if tensors[-1].size != tensors[0].size:
                raise invalid(f"Expecting tensor size: {tensors[0].size} but got: {tensors[-1].size}")
            if tensors[-1].shape != tensors[0].shape:
                want, got = (str(list(tensors[at].shape)).replace(" ", "") for at in (0, -1))
                raise invalid(f"Expecting shape {want} but got: {got}")
        except ServingError as error:
            raise ServingError(
                error.code,
                f"Failed to process element: {index}{key} of 'instances' list. Error: {error.code}: "
                f"{error.message}",
            ) from None
    return np.stack(tensors)


def _slow(value: Any, type_: str) -> np.ndarray:
    """The tensor of a value or of nested lists, whose sizes are those of the first elements."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > 32:  # of NumPy, before 2.0
        raise invalid(f"Encountered list at unexpected level: 32 expected < {len(shape)}")
    flat: list[Any] = []
    _fill(value, 0, shape, type_, flat)
    tensor = np.empty(len(flat), DTYPES[type_])
    with np.errstate(over="ignore"):
        tensor[:] = flat
    return tensor.reshape(shape)


def _fill(value: Any, level: int, shape: list[int], type_: str, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {show(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected "
                f"at level: {len(shape)}"
            )
        flat.append(_read(value, type_))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    for element in value:
        _fill(element, level + 1, shape, type_, flat)


def _read(value: Any, type_: str) -> Any:
    if type_ == "string":
        return read_string(value)
    if type_ == "bool" and isinstance(value, bool):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if type_ in _FLOATS and number:
        return _to_float(value)
    if type_ in _INTEGERS and number and isinstance(value, int):
        bounds = np.iinfo(DTYPES[type_])
        if bounds.min <= value <= bounds.max:
            return value
    if type_ in _FLOATS or type_ in _INTEGERS or type_ == "bool" or isinstance(value, dict):
        raise type_error(value, type_)
    raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {show(value)} to type: {type_}")


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise invalid("JSON Parse error: Number too big to be stored in double.") from None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)
