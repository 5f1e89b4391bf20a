"""The trial of heads: does a kernel make an output of the model, by which activation, and which output?

A law makes a head from the inputs of its layer and the targets of an output. That is right only if

    pre-activation  =  rows of the input * kernel + bias
    output          =  the pre-activation, or its softmax, log-softmax or sigmoid

A trace cannot tell this of every model, such as one that pools or adds logits, or a subclassed one. So the
model runs on a first batch with random numbers in place of the pre-activations, and the outputs are compared
with the numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Arrays, Batch, Loss, Model, Tensor
from keras_initx.calibration._filters import rows_for
from keras_initx.walk import KernelSite

__all__ = ["Output", "form_of_loss", "logits_note", "rows_of", "try_heads"]

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda values: values,
    "softmax": lambda values: np.exp(_log_softmax(values)),
    "sigmoid": lambda values: 1 / (1 + np.exp(-values)),
    "log_softmax": lambda values: _log_softmax(values),
}
# Largest accepted difference, relative to the largest entry: a few roundings of the dtype.
_TOLERANCES = {"float16": 0.02, "bfloat16": 0.05}
_TOLERANCE_IN_FLOAT32 = 1e-2  # accelerators may multiply with ten bits
_FORMS = {
    "binarycrossentropy": "binary",
    "binaryfocalcrossentropy": "binary",
    "categoricalcrossentropy": "categorical",
    "categoricalfocalcrossentropy": "categorical",
    "categoricalhinge": "categorical",
    "cosinesimilarity": "numeric",
    "hinge": "binary",
    "huber": "numeric",
    "huberloss": "numeric",
    "kldivergence": "categorical",
    "logcosh": "numeric",
    "mae": "numeric",
    "meanabsoluteerror": "numeric",
    "meansquarederror": "numeric",
    "mse": "numeric",
    "sparsecategoricalcrossentropy": "categorical",
    "squaredhinge": "binary",
}


@dataclasses.dataclass(frozen=True)
class Output:
    """The output that a head makes.

    Attributes:
        place: Number of the output, among all outputs of the model.
        count: Number of outputs.
        name: Name of the output in dicts of targets; empty if the outputs have no names.
        activation: Name of the activation between the head and the output, or `"linear"`.
        rows: The inputs of the head in the trial.
    """

    place: int
    count: int
    name: str
    activation: str
    rows: np.ndarray

    def pick(self, what: str, given: Any, path: str) -> Any:
        """Returns the part for this output: of targets, their weights or losses.

        Args:
            what: Name of the argument, for the error.
            given: One part for all outputs; or a list, or a dict by name, with a part for each.
            path: Path of the head, for the error.
        """
        if isinstance(given, Mapping) and self.name in given:
            return given[self.name]
        if isinstance(given, list | tuple) and len(given) == self.count:
            return given[self.place]
        if isinstance(given, Mapping | list | tuple) or (self.count > 1 and what == "targets"):
            keys = sorted(given) if isinstance(given, Mapping) else f"of {np.shape(given)}"
            raise ValueError(
                f"`{what}` must be a list with a part for each of {self.count} outputs, or a dict with their "
                f"names. Received: {type(given).__name__} {keys}, for output {self.name or self.place} of "
                f"`{path}`."
            )
        return given


def rows_of(site: KernelSite, inputs: Tensor) -> np.ndarray:
    """Returns the rows that a kernel multiplies, of shape (examples, positions, fan_in); empty if unknown."""
    fan_in = int(np.prod(site.kernel.shape[:-1]))
    if site.role != "conv" and tuple(inputs.shape)[-1:] != (fan_in,):
        return np.empty((0, 0, fan_in), "float32")
    rows = rows_for(site, inputs)
    return rows.reshape(len(rows), -1, fan_in)


def try_heads(
    model: Model, batch: Batch, sites: Sequence[KernelSite], training: bool
) -> tuple[dict[KernelSite, Output], dict[KernelSite, str]]:
    """Returns the output of each head, and why other kernels make none.

    Args:
        model: The model.
        batch: A batch of data.
        sites: The kernels, without obstacles.
        training: Whether the model runs as in training.
    """
    shown: dict[KernelSite, list[tuple[np.ndarray, np.ndarray]]] = {site: [] for site in sites}
    rows: dict[KernelSite, np.ndarray] = {}
    readers: dict[KernelSite, str] = {}
    random = np.random.default_rng(0)

    def enter(site: KernelSite, inputs: Tensor) -> None:
        rows[site] = rows_of(site, inputs)

    def observe(site: KernelSite, output: Tensor) -> Tensor:
        drawn = random.standard_normal(tuple(output.shape))
        shown[site].append((_numpy(output), drawn))
        return ops.convert_to_tensor(drawn, output.dtype)

    def read(site: KernelSite, reader: str) -> None:
        readers.setdefault(site, reader)

    run = probe.run(model, batch, sites, observe, enter, training, read=read)
    outputs, names = tree.flatten(run), _names(model, run)
    found, notes = {}, {}
    for site in sites:
        notes[site] = _fault(site, shown[site], rows.get(site), readers.get(site, ""))
        if notes[site]:
            continue
        made = _made(shown[site][0][1], outputs, site.layer.compute_dtype)
        if made:
            place, activation = made
            found[site] = Output(place, len(outputs), names[place], activation, rows[site])
        else:
            notes[site] = "no output of the model is its pre-activation, or the softmax or sigmoid of this"
    return found, notes


def _names(model: Model, outputs: Arrays) -> list[str]:
    """Returns the name of each output; empty texts for outputs without names."""
    if isinstance(outputs, Mapping):
        places = tree.pack_sequence_as(outputs, list(range(len(tree.flatten(outputs)))))
        names = {place: name for name, place in places.items() if isinstance(place, int)}
    else:
        names = dict(enumerate(getattr(model, "output_names", None) or ()))
    return [names.get(place, "") for place in range(len(tree.flatten(outputs)))]


def _fault(
    site: KernelSite, shown: list[tuple[np.ndarray, np.ndarray]], rows: np.ndarray | None, reader: str
) -> str:
    """Returns why a kernel cannot be made from the inputs of its layer; empty if it can."""
    if getattr(site.layer, "data_format", None) == "channels_first":
        return "its channels come first: give the data in the format channels_last"
    if site.shared or len(shown) > 1:
        return f"its kernel is used {max(len(shown), 1 + len(site.shared))} times: a head is used once"
    if reader:
        return f"`{reader}` reads its kernel, too"
    if not shown or rows is None:
        return "the data never reached it"
    kernel = _numpy(site.kernel.value).reshape(-1, site.kernel.shape[-1])
    bias = np.zeros(kernel.shape[1]) if site.bias is None else _numpy(site.bias.value).ravel()
    pre = shown[0][0].reshape(-1, kernel.shape[1])
    fits = len(bias) == kernel.shape[1] and rows.shape[0] * rows.shape[1] == len(pre)
    if fits and _close(pre, rows.reshape(len(pre), -1) @ kernel + bias, site.layer.compute_dtype):
        return ""
    return "its output is not the product of its input's last axis and its kernel, plus the bias"


def _made(drawn: np.ndarray, outputs: Sequence[Tensor], dtype: str) -> tuple[int, str] | None:
    """Returns the number of the output that shows some numbers, and the activation that they went through."""
    for place, output in enumerate(outputs):
        if int(np.prod(tuple(output.shape))) != drawn.size:
            continue
        values = _numpy(output).reshape(drawn.shape)
        for name, function in _ACTIVATIONS.items():
            if _close(values, function(drawn), dtype):
                return place, name
    return None


def _close(found: np.ndarray, wanted: np.ndarray, dtype: str) -> bool:
    limit = _TOLERANCES.get(dtype, _TOLERANCE_IN_FLOAT32)
    return bool(np.abs(found - wanted).max(initial=0) <= limit * max(np.abs(wanted).max(initial=0), 1e-6))


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")), "float64")


def form_of_loss(loss: Loss | None) -> str | None:
    """Returns the form of the targets that a loss takes; None if it is not known.

    >>> form_of_loss("mse"), form_of_loss(keras.losses.BinaryCrossentropy()), form_of_loss("crossentropy")
    ('numeric', 'binary', None)

    Args:
        loss: The loss of one output, or None.
    """
    if isinstance(loss, str) and loss.lower() not in ("crossentropy", "ce"):
        loss = keras.losses.get(loss)
    name = getattr(loss, "name", getattr(loss, "__name__", ""))
    return _FORMS.get(str(name).lower().replace("_", ""))


def logits_note(loss: Loss | None, form: str, activation: str) -> str:
    """Returns a note if a loss takes logits where the head makes probabilities, or the other way round."""
    if form == "numeric" or loss is None:
        return ""
    loss = keras.losses.get(loss) if isinstance(loss, str) and form_of_loss(loss) else loss
    takes = getattr(loss, "from_logits", False if form_of_loss(loss) else None)
    if "crossentropy" not in str(getattr(loss, "name", getattr(loss, "__name__", ""))).replace("_", ""):
        return ""
    if takes is None or takes == (activation == "linear"):
        return ""
    made, cure = ("logits", True) if activation == "linear" else ("probabilities", False)
    return f"the head makes {made}, and the loss takes the other: compile it with from_logits={cure}"
