"""From a version's folder to a model that is ready to answer, or to the reason why it cannot answer."""

import dataclasses
import logging

from keras_initx.serving._errors import ServingError
from keras_initx.serving._folders import fingerprint, resolve
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import LoadedModel
from keras_initx.serving._row_wise import batched, limits_of
from keras_initx.serving._warm_up import warm_up

__all__ = ["Opened", "open_version"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Opened:
    """The result of loading a version's folder.

    Attributes:
        files: The fingerprint of the files, taken before they were read.
        limits: How many rows run together, and how many requests may wait.
        model: The loaded and warmed model; None if a step failed.
        error: The error of that step; None if all went well.
    """

    files: object
    limits: Limits
    model: LoadedModel | None = None
    error: ServingError | None = None


def open_version(folder: str, boundary: str, limits: Limits, before: LoadedModel | None) -> Opened:
    """Loads and warms a version. It takes seconds and blocks: call it in a thread.

    It does not raise: each failure is in the result.

    Args:
        folder: The version's folder.
        boundary: The folder that must contain it after links are followed.
        limits: The server's limits. A file in the version's folder may change them.
        before: The model of the version that this one would replace, if there is one.
    """
    files = fingerprint(folder, boundary)
    try:
        path = resolve(folder, boundary)
        limits = limits_of(path, limits)
        model = LoadedModel(path)
        try:
            model.signatures = batched(path, model.signatures)
            warm_up(model, before)
            # Half of a new export and half of the old one may load well together. Such a mix must not answer.
            if fingerprint(folder, boundary) != files:
                raise ServingError("ABORTED", f"{folder}: its files changed while they were read")
        except BaseException:
            model.close()
            raise
    except ServingError as error:
        # A fresh error, without a traceback: the frames of the old one would keep the model in memory.
        return Opened(files, limits, error=ServingError(error.code, error.message))
    except Exception as error:
        _log.exception("%s failed to load", folder)
        return Opened(files, limits, error=ServingError("UNKNOWN", f"{folder} cannot be loaded: {error}"))
    return Opened(files, limits, model)
