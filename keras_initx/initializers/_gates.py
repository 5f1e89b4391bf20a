"""The number of gates in a fused kernel or bias."""

from collections.abc import Sequence

__all__ = ["count_gates"]

_KNOWN = (3, 4)  # GRU; LSTM and ConvLSTM


def count_gates(shape: Sequence[int], recurrent: bool = False) -> int:
    """Returns the number of gates of a kernel or bias, if its shape tells the number.

    >>> count_gates((8, 24), recurrent=True), count_gates((5, 32))
    (3, 4)

    Args:
        shape: Shape of a kernel or a bias. Its last axis is gates * units.
        recurrent: Whether the axis before the last axis is units, as in a recurrent kernel.

    Returns:
        3 or 4.

    Raises:
        ValueError: If both 3 and 4 gates fit the shape, or neither.
    """
    size = shape[-1]
    # In a recurrent kernel both axes hold the units, so their ratio is the number of gates.
    square = [n for n in _KNOWN if recurrent and size == n * shape[-2]]
    fitting = square or [n for n in _KNOWN if not size % n]
    if len(fitting) == 1 or not size:
        return fitting[0]
    told = (
        f"{size} is 4 gates of {size // 4} units and 3 of {size // 3}"
        if fitting
        else f"neither 4 nor 3 divides {size}"
    )
    raise ValueError(
        "`gates` must be given where the shape does not tell it. Received: gates=None, "
        f"shape={tuple(shape)}: {told}. Pass gates=4 for LSTM and ConvLSTM, gates=3 for GRU; "
        "`keras_initx.initialize` reads it off the layer."
    )
