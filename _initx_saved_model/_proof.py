"""The proof file: the file in a version's folder that tells a server which signatures are row-wise."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

# TensorFlow Serving ignores the files in this folder that it does not know.
FILE = pathlib.Path("assets.extra", "initx_row_wise.json")
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Proof:
    """The result of the experiment for a row-wise signature.

    Attributes:
        batch_sizes: The sizes of the batches that were tried, sorted.
        max_difference: The largest difference between the answer in a batch and the answer alone, as a part
            of the output's largest entry.
        tolerance: The limit of `max_difference`: the tolerance of the dtype, or the response of the model to
            a rounding error of its inputs if this is larger.
    """

    batch_sizes: tuple[int, ...]
    max_difference: float
    tolerance: float


def write_proof(folder: pathlib.Path, found: Mapping[str, Proof | str]) -> tuple[str, ...]:
    """Writes the proof file and returns the names of the proven signatures, sorted.

    Args:
        folder: The version's folder.
        found: For each signature its proof, or the reason why it has none.
    """
    proven = {name: dataclasses.asdict(one) for name, one in found.items() if isinstance(one, Proof)}
    reasons = {name: one for name, one in found.items() if isinstance(one, str)}
    (folder / FILE).parent.mkdir(exist_ok=True)
    content = {
        "format": _FORMAT,
        "fingerprint": _fingerprint(folder),
        "signatures": proven,
        "not_proven": reasons,
    }
    # A server may read the file at this moment. It must find the old file or the new one, and never a half.
    beside = folder / FILE.with_suffix(".new")
    beside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    beside.replace(folder / FILE)
    return tuple(sorted(proven))


def read_proof(folder: pathlib.Path) -> tuple[tuple[str, ...], dict[str, str], str]:
    """Reads the proof file.

    Args:
        folder: The version's folder.

    Returns:
        The names of the proven signatures; for each signature that was tried and not proven the reason; and
        the reason for each signature that the file does not name.
    """
    try:
        content = json.loads((folder / FILE).read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}")
        if content["fingerprint"] != _fingerprint(folder):
            raise ValueError("it belongs to another saved_model.pb")
        proven, reasons = sorted(content["signatures"]), dict(content.get("not_proven", {}))
    except FileNotFoundError:
        return (), {}, "nothing proves that it is row-wise: export it again, or call prove_row_wise"
    except (OSError, ValueError, TypeError, KeyError) as error:
        # A broken proof only makes the server slower, so it is no reason to refuse the version.
        return (), {}, f"{FILE.name} cannot be read: {type(error).__name__}: {error}"
    return tuple(proven), reasons, f"{FILE.name} does not name it"


def _fingerprint(folder: pathlib.Path) -> str:
    """Returns the hash of the program that was proven.

    Somebody may copy a version's folder and replace saved_model.pb in it. The proof of the old program does
    not hold for the new one, and the hash tells.
    """
    with (folder / "saved_model.pb").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
