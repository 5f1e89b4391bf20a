"""Predict, classify and regress on a loaded version, whichever way the request came."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keras_initx.serving._errors import ServingError, invalid
from keras_initx.serving._loaded import Signature

__all__ = ["DEFAULT", "Served", "Versions", "check_inputs", "choose", "classify", "regress", "run"]

DEFAULT = "serving_default"  # the signature of a request that names none
_METHOD = "tensorflow/serving/"


class Served(Protocol):
    """A loaded version of a model, which runs what it is asked."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def number(self) -> int:
        """The version."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """Its signatures by name."""

    @property
    def signature_defs(self) -> Mapping[str, Any]:
        """The same as TensorFlow's messages."""

    async def run(
        self, signature: Signature, inputs: dict[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Returns the named outputs, from inputs that the signature accepts."""


class Versions(Protocol):
    """The models that are served: `keras_initx.serving.Models`, or what stands for it."""

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served:
        """Returns the version that is asked for."""

    def statuses(self, name: str) -> Sequence[Any]:
        """Returns the state of each version of a model, or nothing for an unknown one."""

    def reason(self, name: str) -> str:
        """Returns why a model holds no version, and how to mend it; empty where it holds one."""

    def names(self) -> Sequence[str]:
        """Returns the names of the models."""

    async def reload(self, configs: Any) -> None:
        """Serves what a new configuration says."""


def choose(version: Served, key: str, method: str) -> Signature:
    """Returns the signature for a classification or a regression.

    Args:
        version: The loaded version.
        key: The signature's name; empty for the default.
        method: `classify` or `regress`.

    Raises:
        ServingError: If there is none of that name, or it is made for something else.
    """
    key = key or DEFAULT
    signature = version.signatures.get(key)
    if signature is None:
        raise invalid(f"No signature was found with the name: {key}")
    noun = {"classify": "classification", "regress": "regression"}[method]
    if signature.method != _METHOD + method:
        raise invalid(
            f"Expected {noun} signature method_name to be {_METHOD}{method}. Was: {signature.method}"
        )
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise ServingError("FAILED_PRECONDITION", f"No {noun} inputs found in SignatureDef: {key}")
    return signature


def check_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Raises unless each input has a shape that the signature takes; names and types are right already."""
    for name, tensor in inputs.items():
        spec = signature.inputs[name]
        if not spec.accepts(tensor.shape):
            want = "[" + ",".join("?" if size is None else str(size) for size in spec.shape or ()) + "]"
            got = "[" + ",".join(map(str, tensor.shape)) + "]"
            raise invalid(f"input tensor alias {name!r} must have shape {want}. Received: {got}")


async def run(
    version: Served, signature: Signature, inputs: dict[str, np.ndarray], outputs: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Runs a signature on inputs of the right names and types, after a look at their shapes.

    Args:
        version: The loaded version.
        signature: One of its signatures.
        inputs: Every input of it.
        outputs: The outputs to return; empty for all.
    """
    check_inputs(signature, inputs)
    return await version.run(signature, inputs, outputs or tuple(signature.outputs))


async def classify(
    version: Served, signature: Signature, examples: Sequence[bytes]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns labels and scores, each of shape [examples, classes], or None where the model gives none.

    Args:
        version: The loaded version.
        signature: What `choose` returned.
        examples: Serialized `tf.train.Example` messages.

    Raises:
        ServingError: If the signature's outputs are not those of a classification.
    """
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    names = [name for name in ("classes", "scores") if name in signature.outputs]
    if not names:
        raise ServingError(
            "FAILED_PRECONDITION",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {sorted(signature.outputs)}",
        )
    found = await run(version, signature, _examples(examples), names)
    classes, scores = found.get("classes"), found.get("scores")
    for name, tensor, kind, told in (("classes", classes, "O", "STRING"), ("scores", scores, "f", "FLOAT")):
        if tensor is None:
            continue
        if tensor.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {list(tensor.shape)}")
        if tensor.dtype.kind != kind or tensor.dtype.itemsize == 2:
            raise invalid(f"Expected {name} Tensor of DT_{told}. Got: {tensor.dtype}")
        if len(tensor) != len(examples):
            raise invalid(f"Expected {name} output batch size of {len(examples)}. Got: {len(tensor)}")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. "
            f"{scores.shape[1]}"
        )
    return classes, scores


async def regress(version: Served, signature: Signature, examples: Sequence[bytes]) -> np.ndarray:
    """Returns a number per example.

    Args:
        version: The loaded version.
        signature: What `choose` returned.
        examples: Serialized `tf.train.Example` messages.

    Raises:
        ServingError: If the signature's outputs are not those of a regression.
    """
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "outputs" not in signature.outputs:
        raise ServingError(
            "FAILED_PRECONDITION", f"No regression outputs found in SignatureDef: {signature.key}"
        )
    values = (await run(version, signature, _examples(examples), ["outputs"]))["outputs"]
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(values.shape)}"
        )
    if len(values) != len(examples):
        raise invalid(f"Input batch size did not match output batch size: {len(examples)} vs. {len(values)}")
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    return values.reshape(-1)


def _examples(examples: Sequence[bytes]) -> dict[str, np.ndarray]:
    if not examples:
        raise invalid("Input is empty.")
    tensor = np.empty(len(examples), object)
    tensor[:] = examples
    return {"inputs": tensor}
