"""The signatures that may run rows of several clients together: proven by `export`, or asked for by a file.

Joining rows is safe only if each row's output depends on that row alone. That cannot be read from a graph, so
nothing is joined without one of the two.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_initx.serving._configs import read_batching
from keras_initx.serving._errors import ServingError
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import Signature

__all__ = ["batched", "limits_of"]

_log = logging.getLogger(__name__)
# The file that `export` writes into a version's folder.
PROOF = os.path.join("assets.extra", "initx_row_wise.json")  # noqa: PTH118
# A file that an operator writes into a version's folder. TensorFlow Serving reads the same file, with its
# flag --enable_per_model_batching_parameters.
ASKED = "batching_params.pbtxt"
_WORST = 0.1  # `export` tolerates this difference for the coarsest type, bfloat16; more is no proof


def batched(path: str, signatures: Mapping[str, Signature]) -> dict[str, Signature]:
    """Returns a version's signatures, with `batched` set for those that may run rows of several clients.

    A request must get the same answer in a batch as alone. Some models break this: they pad a text to its
    longest neighbour, or return another number of rows. So a signature is marked for one of two reasons only:

    - `export` proved it, and wrote it into `assets.extra/initx_row_wise.json`. That file does not count for a
      signature that takes strings or changes the model's state.
    - The operator put `batching_params.pbtxt` into the version's folder, as for TensorFlow Serving. This
      marks every signature whose inputs and outputs have a free first dimension. The log warns of unproven
      ones.

    Args:
        path: The version's folder.
        signatures: The version's signatures by name.
    """
    folder = pathlib.Path(path)
    asked, proven = (folder / ASKED).exists(), _proven(folder)
    marked = {
        key: dataclasses.replace(
            signature,
            batched=signature.has_batch and (asked or (key in proven and _can_be_proven(signature))),
        )
        for key, signature in signatures.items()
    }
    unproven = sorted(key for key, signature in marked.items() if signature.batched and key not in proven)
    if unproven:
        _log.warning(
            "%s asks for batches of %s. Nobody proved that answers do not depend on other clients' rows.",
            folder / ASKED,
            unproven,
        )
    return marked


def limits_of(path: str, limits: Limits) -> Limits:
    """Returns the limits of a version: the server's limits, changed by `batching_params.pbtxt` if it exists.

    Args:
        path: The version's folder.
        limits: The server's limits.

    Raises:
        ServingError: INVALID_ARGUMENT if the file does not hold the text of a `BatchingParameters`.
    """
    file = pathlib.Path(path) / ASKED
    if not file.exists():
        return limits
    try:
        return dataclasses.replace(limits, **read_batching(file))
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", str(error)) from error


def _can_be_proven(signature: Signature) -> bool:
    # The proof tries rows of numbers, so it says nothing about strings. And each run of a signature that
    # writes changes the next answer.
    return not signature.writes and all(spec.type != "string" for spec in signature.inputs.values())


def _proven(folder: pathlib.Path) -> set[str]:
    """Returns the names of the proven signatures; none if the proof is absent, broken or of another model."""
    try:
        document = json.loads((folder / PROOF).read_text("utf-8"))
        return _read(document, folder)
    except FileNotFoundError:
        return set()
    # A file that anybody may have edited: every way to be wrong must end in "proves nothing".
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        _log.warning("%s proves nothing, so every request runs alone: %s", folder / PROOF, error)
        return set()


def _read(document: dict[str, Any], folder: pathlib.Path) -> set[str]:
    if document["format"] != 1:
        raise ValueError(f"its format is {document['format']!r}, not 1")
    of_model = document.get("fingerprint")
    if of_model is not None:
        with (folder / "saved_model.pb").open("rb") as file:
            if of_model != hashlib.file_digest(file, "sha256").hexdigest():
                raise ValueError("it belongs to another saved_model.pb")
    return {
        key
        for key, facts in document["signatures"].items()
        if 0 <= facts["max_difference"] <= facts["tolerance"] <= _WORST
    }
