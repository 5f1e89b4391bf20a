"""JSON requests to arrays, by TensorFlow Serving's rules for rows (`instances`) and columns (`inputs`).

    rows:     {"instances": [{"a": 1, "b": [2, 3]}, {"a": 4, "b": [5, 6]}]}     one object for each row
    columns:  {"inputs": {"a": [1, 4], "b": [[2, 3], [5, 6]]}}                  one tensor for each input
    both are  a = [1, 4], b = [[2, 3], [5, 6]]; with a single input, the objects and the name are left out

There are two ways to an array. `_fast` gives the lists to NumPy, and gives up if the result could differ from
TensorFlow Serving's. `_slow` then goes through the values one by one, for the array or for the exact error.

The error texts are TensorFlow Serving's, word for word (with its spelling mistakes): clients may parse them.
"""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from keras_initx.serving._documents import Json, is_base64, read_string, show, type_error
from keras_initx.serving._errors import ServingError, invalid
from keras_initx.serving._loaded import DTYPES, TensorSpec

__all__ = ["decode_inputs"]

_INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"}
_FLOATS = {"float", "double"}


def decode_inputs(
    document: Mapping[str, Json], specs: Mapping[str, TensorSpec], may_hold_bools: bool = True
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the inputs of a signature from the body of a request.

    Args:
        document: The body, from `parse`.
        specs: The signature's inputs.
        may_hold_bools: False if the body contains neither `true` nor `false`. Numbers are then read faster:
            NumPy would take a `true` among numbers for 1, so otherwise each value is looked at.

    Returns:
        The arrays by name, and whether they came as rows.

    Raises:
        ServingError: If the body does not have the form, the names, the types or the shapes of the inputs.
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
    document: Mapping[str, Json], specs: Mapping[str, TensorSpec], bools: bool
) -> dict[str, np.ndarray]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {show(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {show(document)} No values in 'instances' array")
    if not _is_object(instances[0]) and len(specs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    # The first row decides the form. A row of another form is an error, with its index.
    if _is_object(instances[0]):
        return _from_objects(instances, specs, bools)
    ((name, spec),) = specs.items()
    tensor = _fast(instances, spec.type, bools)
    return {name: _stack(instances, spec, "") if tensor is None else tensor}


def _from_objects(
    instances: list[Json], specs: Mapping[str, TensorSpec], bools: bool
) -> dict[str, np.ndarray]:
    rows: list[dict[str, Json]] = []
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
        rows.append(row)
    found = {}
    for name, spec in specs.items():
        values = [row[name] for row in rows]
        tensor = _fast(values, spec.type, bools)
        found[name] = _stack(values, spec, f" key: {name}") if tensor is None else tensor
    return found


def _from_columns(value: Json, specs: Mapping[str, TensorSpec], bools: bool) -> dict[str, np.ndarray]:
    if _is_object(value):
        named = value
    else:
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as "
                "per tensorinfo_map"
            )
        named = dict.fromkeys(specs, value)  # the only input's name is left out in the request
    found = {}
    for name, spec in specs.items():
        if name not in named:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        tensor = _fast(named[name], spec.type, bools)
        found[name] = _slow(named[name], spec.type) if tensor is None else tensor
    return found


def _fast(value: Json, type_: str, bools: bool) -> np.ndarray | None:
    """Returns the array by NumPy alone; None if the values are not plain numbers and need a closer look."""
    if (type_ not in _FLOATS and type_ not in _INTEGERS) or bools or isinstance(value, str):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        return None
    # NumPy's own choice of type shows mixtures: strings, None and huge integers do not give "iuf". An integer
    # tensor must not be read from floats.
    if array.dtype.kind in ("iuf" if type_ in _FLOATS else "iu"):
        if type_ in _FLOATS:
            with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite
                return array.astype(DTYPES[type_])
        bounds = np.iinfo(DTYPES[type_])
        if array.min(initial=0) >= bounds.min and array.max(initial=0) <= bounds.max:
            return array.astype(DTYPES[type_])
    return None


def _stack(rows: list[Json], spec: TensorSpec, key: str) -> np.ndarray:
    """Returns the array of all rows, read one by one, or raises the error of the first bad row."""
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


def _slow(value: Json, type_: str) -> np.ndarray:
    """Returns the array of a value or of nested lists, read value by value, or raises the exact error."""
    # The first element of each level decides the shape. `_fill` compares all others with it.
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > 32:  # the limit of NumPy before 2.0
        raise invalid(f"Encountered list at unexpected level: 32 expected < {len(shape)}")
    flat: list[bytes | bool | float] = []
    _fill(value, 0, shape, type_, flat)
    tensor = np.empty(len(flat), DTYPES[type_])
    with np.errstate(over="ignore"):
        tensor[:] = flat
    return tensor.reshape(shape)


def _fill(value: Json, level: int, shape: list[int], type_: str, flat: list[bytes | bool | float]) -> None:
    """Appends the values of nested lists to `flat`, and checks that every list has its level's size."""
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


def _read(value: Json, type_: str) -> bytes | bool | float:
    """Returns one value as the tensor's type, or raises the exact error."""
    if type_ == "string":
        return read_string(value)
    if type_ == "bool" and isinstance(value, bool):
        return value
    # To Python a bool is an int, so it must be excluded among numbers.
    number = None if isinstance(value, bool) or not isinstance(value, int | float) else value
    if type_ in _FLOATS and number is not None:
        return _to_float(number)
    if type_ in _INTEGERS and isinstance(number, int):
        bounds = np.iinfo(DTYPES[type_])
        if bounds.min <= number <= bounds.max:  # refused otherwise: TensorFlow Serving would wrap it around
            return number
    if type_ in _FLOATS or type_ in _INTEGERS or type_ == "bool" or isinstance(value, dict):
        raise type_error(value, type_)
    raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {show(value)} to type: {type_}")


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise invalid("JSON Parse error: Number too big to be stored in double.") from None


def _is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    return isinstance(value, dict) and not is_base64(value)
