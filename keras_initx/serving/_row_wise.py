"""Which signatures may run rows of several clients together: those that are proven, and those asked for."""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_initx.serving._batching import Limits
from keras_initx.serving._configs import read_batching
from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import Signature

__all__ = ["batched", "limits_of"]

_log = logging.getLogger(__name__)
PROOF = os.path.join("assets.extra", "initx_row_wise.json")  # noqa: PTH118
# TensorFlow Serving's file of one version, which its flag --enable_per_model_batching_parameters turns on.
ASKED = "batching_params.pbtxt"
_WORST = 0.1  # the tolerance of the coarsest type, bfloat16


def batched(path: str, signatures: Mapping[str, Signature]) -> dict[str, Signature]:
    """Returns a version's signatures, and marks those whose rows may run beside rows of other clients.

    An answer must not differ from the answer to the same request alone. A text that is padded to its longest
    neighbour, or an output that is not one per row, would change it. So a signature is marked for one of two
    reasons:

    - `export` proved it, and `assets.extra/initx_row_wise.json` says so. A signature that takes strings or
      changes the model's state is not marked, whatever that file says.
    - The operator put `batching_params.pbtxt` into the version's folder, as for TensorFlow Serving, and so
      asks for batches of every signature.

    Args:
        path: The version's folder.
        signatures: Its signatures by name.
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
    """Returns a server's limits with those that `batching_params.pbtxt` of a version sets.

    Args:
        path: The version's folder.
        limits: Those of the server.

    Raises:
        ServingError: INVALID_ARGUMENT where the file is no text of a `BatchingParameters`.
    """
    file = pathlib.Path(path) / ASKED
    if not file.exists():
        return limits
    try:
        return dataclasses.replace(limits, **read_batching(file))
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", str(error)) from error


def _can_be_proven(signature: Signature) -> bool:
    return not signature.writes and all(spec.type != "string" for spec in signature.inputs.values())


def _proven(folder: pathlib.Path) -> set[str]:
    """The signatures that the proof lists; none where it is absent, or is not of this model."""
    try:
        document = json.loads((folder / PROOF).read_text("utf-8"))
        return _read(document, folder)
    except FileNotFoundError:
        return set()
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        _log.warning("%s proves nothing, so every request runs alone: %s", folder / PROOF, error)
        return set()


def _read(document: Any, folder: pathlib.Path) -> set[str]:
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
