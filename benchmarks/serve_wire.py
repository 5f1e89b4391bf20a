"""Reads the messages of the protocol without TensorFlow, because its import takes seconds and memory."""

import struct
from collections.abc import Iterator


def prediction(response: bytes) -> list[float]:
    """Reads the floats of a PredictResponse with one output."""
    (entry,) = [value for field, value in fields(response) if field == 1]
    (tensor,) = [value for field, value in fields(entry) if field == 2]
    # 4 is `tensor_content`, 5 `float_val`, packed.
    data = b"".join(value for field, value in fields(tensor) if field in (4, 5))
    return [value for (value,) in struct.iter_unpack("<f", data)]


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterates over the fields of bytes in a protocol buffer, and skips other fields."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        field, kind = divmod(varint(), 8)
        if kind == 0:
            varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield field, message[position : position + size]
        position += size
