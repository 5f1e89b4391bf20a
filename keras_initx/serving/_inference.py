"""Predict, classify and regress on a loaded version. REST and gRPC both end here.

The error texts are TensorFlow Serving's, word for word: clients may parse them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keras_initx.serving._configs import ModelConfig
from keras_initx.serving._errors import ServingError, invalid
from keras_initx.serving._loaded import Signature
from keras_initx.serving._version import VersionStatus

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

__all__ = ["DEFAULT", "Served", "Versions", "check_inputs", "choose", "classify", "regress", "run"]

DEFAULT = "serving_default"  # the signature for requests that do not name one
_METHOD = "tensorflow/serving/"


class Served(Protocol):
    """A loaded version of a model that can run requests."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def number(self) -> int:
        """The version's number."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""

    @property
    def signature_defs(self) -> "Mapping[str, SignatureDef]":
        """The same signatures as TensorFlow's messages."""

    async def run(
        self, signature: Signature, inputs: dict[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature on checked inputs, and returns the named outputs."""


class Versions(Protocol):
    """The served models: `keras_initx.serving.Models`, a wrapper around it, or a stand-in for tests."""

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served:
        """Returns the version that a request asks for, or raises ServingError."""

    def statuses(self, name: str) -> Sequence[VersionStatus]:
        """Returns the state of each version of a model; empty for an unknown model."""

    def reason(self, name: str) -> str:
        """Returns why a model's folder holds no version, and the cure; empty if it holds one."""

    def names(self) -> Sequence[str]:
        """Returns the names of the models."""

    async def reload(self, configs: Sequence[ModelConfig]) -> None:
        """Serves another configuration from now on."""


def choose(version: Served, key: str, method: str) -> Signature:
    """Returns the signature for a classification or a regression.

    Args:
        version: The loaded version.
        key: The signature's name; empty for `serving_default`.
        method: `classify` or `regress`.

    Raises:
        ServingError: If there is no signature of that name, or if it is made for another method.
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
    """Checks that each input has a shape that fits the signature. Names and types were checked before.

    Raises:
        ServingError: INVALID_ARGUMENT, with the input's name and both shapes.
    """
    for name, tensor in inputs.items():
        spec = signature.inputs[name]
        if not spec.accepts(tensor.shape):
            want = "[" + ",".join("?" if size is None else str(size) for size in spec.shape or ()) + "]"
            got = "[" + ",".join(map(str, tensor.shape)) + "]"
            raise invalid(f"input tensor alias {name!r} must have shape {want}. Received: {got}")


async def run(
    version: Served, signature: Signature, inputs: dict[str, np.ndarray], outputs: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Checks the shapes of the inputs, then runs a signature.

    Args:
        version: The loaded version.
        signature: One of its signatures.
        inputs: All inputs of the signature, of the right types.
        outputs: The names of the outputs to return; empty for all.

    Returns:
        The outputs by name.

    Raises:
        ServingError: If a shape does not fit, or if the version refuses the request or fails.
    """
    check_inputs(signature, inputs)
    return await version.run(signature, inputs, outputs or tuple(signature.outputs))


async def classify(
    version: Served, signature: Signature, examples: Sequence[bytes]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Runs a classification.

    Args:
        version: The loaded version.
        signature: The signature, from `choose`.
        examples: Serialized `tf.train.Example` messages.

    Returns:
        The labels (bytes) and the scores (float32 or float64), each of shape [examples, classes]. A model may
        have only one of the two; the other one is None.

    Raises:
        ServingError: If the outputs do not have the names, types or shapes of a classification.
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
        if tensor.dtype.kind != kind or tensor.dtype.itemsize == 2:  # 2 bytes: float16
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
    """Runs a regression.

    Args:
        version: The loaded version.
        signature: The signature, from `choose`.
        examples: Serialized `tf.train.Example` messages.

    Returns:
        One float32 number for each example, of shape [examples].

    Raises:
        ServingError: If the outputs do not have the name, type or shape of a regression.
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
    # Not `np.array(examples)`: that makes fixed-width strings, which lose zero bytes at their ends.
    tensor = np.empty(len(examples), object)
    tensor[:] = examples
    return {"inputs": tensor}
