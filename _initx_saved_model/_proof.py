"""The file beside a SavedModel that tells a server which signatures are row-wise."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

FILE = pathlib.Path("assets.extra", "initx_row_wise.json")
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Proof:
    """That a signature is row-wise, and on what it was tried.

    Attributes:
        batch_sizes: The sizes of the batches, sorted.
        max_difference: The largest difference to the answer alone, as a part of the output's largest entry.
        tolerance: What it may be: what the check allows, or what rounding the inputs changes if it is more.
    """

    batch_sizes: tuple[int, ...]
    max_difference: float
    tolerance: float


def write_proof(folder: pathlib.Path, found: Mapping[str, Proof | str]) -> tuple[str, ...]:
    """Writes the file, and returns the names of the signatures that are proven, sorted.

    Args:
        folder: The version's folder.
        found: For each signature its proof, or why there is none.
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
    # A server that reads at this moment must not see half of it.
    beside = folder / FILE.with_suffix(".new")
    beside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    beside.replace(folder / FILE)
    return tuple(sorted(proven))


def read_proof(folder: pathlib.Path) -> tuple[tuple[str, ...], dict[str, str], str]:
    """Returns the names of the proven signatures, why others are not, and why any other is not.

    Args:
        folder: The version's folder.
    """
    try:
        content = json.loads((folder / FILE).read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}")
        if content["fingerprint"] != _fingerprint(folder):
            raise ValueError("it is of another saved_model.pb")
        proven, reasons = sorted(content["signatures"]), dict(content.get("not_proven", {}))
    except FileNotFoundError:
        return (), {}, "nothing proves that it is row-wise: export it again, or call prove_row_wise"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return (), {}, f"{FILE.name} cannot be read: {type(error).__name__}: {error}"
    return tuple(proven), reasons, f"{FILE.name} does not name it"


def _fingerprint(folder: pathlib.Path) -> str:
    """Of the program that was proven: a proof that was copied beside another one proves nothing."""
    with (folder / "saved_model.pb").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
