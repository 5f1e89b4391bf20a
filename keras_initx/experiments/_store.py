"""Results on disk, one file a trial, so that a comparison that was killed goes on where it was."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_initx.experiments._trial import Trial, TrialResult

__all__ = ["Store"]


class Store:
    """A folder of results.

    Args:
        folder: The folder; it is made when there is none.
        fingerprint: What the results depend on besides their trials, as `Problem.fingerprint` tells it.
        schemes: What each label stands for.

    Raises:
        ValueError: If the folder cannot be written, or holds the results of another comparison.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str, schemes: Mapping[str, Any]) -> None:
        self.folder = pathlib.Path(folder)
        self._manifest = self.folder / "comparison.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            before = json.loads(self._manifest.read_text()) if self._manifest.exists() else {}
            self._check(before, fingerprint, schemes)
            merged = {**before.get("schemes", {}), **schemes}
            self._write(self._manifest, {"fingerprint": fingerprint, "schemes": merged})
        except OSError as error:
            raise ValueError(
                f"`store` must be a folder that can be written. Received: store={str(folder)!r}: "
                f"{error.strerror}. Choose another."
            ) from error

    def _check(self, before: dict[str, Any], fingerprint: str, schemes: Mapping[str, Any]) -> None:
        other = [
            label
            for label in schemes
            if before.get("schemes", {}).get(label, schemes[label]) != schemes[label]
        ]
        what = f"another initializer of the label {other[0]!r}" if other else ""
        if before and before["fingerprint"] != fingerprint:
            what = "another model, other data, or another metric, target or batch size"
        if what:
            raise ValueError(
                f"`store` must be empty, or hold results of the same comparison. Received: "
                f"store={str(self.folder)!r}, made with {what}. Choose another folder, or remove this one."
            )

    def read(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Returns the results that are there already, of these trials."""
        files = [self.folder / f"{trial.key}.json" for trial in trials]
        return [TrialResult.from_dict(json.loads(file.read_text())) for file in files if file.exists()]

    def write(self, result: TrialResult) -> None:
        """Keeps a result; a kill leaves all of it or nothing."""
        self._write(self.folder / f"{result.trial.key}.json", result.to_dict())

    def _write(self, path: pathlib.Path, content: Any) -> None:
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
