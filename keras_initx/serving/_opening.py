"""A version's folder to a model that is ready to answer, or to the reason why it is not."""

import dataclasses
import logging

from keras_initx.serving._batching import Limits
from keras_initx.serving._errors import ServingError
from keras_initx.serving._folders import fingerprint, resolve
from keras_initx.serving._loaded import LoadedModel
from keras_initx.serving._row_wise import batched, limits_of
from keras_initx.serving._warm_up import warm_up

__all__ = ["Opened", "open_version"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Opened:
    """What came of a folder.

    Attributes:
        files: The fingerprint of its files, from before they were read.
        model: The loaded and warmed model; None where that failed.
        limits: What the version takes at a time.
        error: Why it failed.
    """

    files: object
    limits: Limits
    model: LoadedModel | None = None
    error: ServingError | None = None


def open_version(folder: str, boundary: str, limits: Limits, before: LoadedModel | None) -> Opened:
    """Loads and warms a version; call it in a thread.

    Args:
        folder: The version's folder.
        boundary: The folder that it may not lie outside of.
        limits: Those of the server.
        before: The version that this one is to replace, if there is one.
    """
    files = fingerprint(folder, boundary)
    try:
        path = resolve(folder, boundary)
        limits = limits_of(path, limits)
        model = LoadedModel(path)
        try:
            model.signatures = batched(path, model.signatures)
            warm_up(model, before)
            if fingerprint(folder, boundary) != files:
                raise ServingError("ABORTED", f"{folder}: its files changed while they were read")
        except BaseException:
            model.close()
            raise
    except ServingError as error:
        # Without the frames that hold the model.
        return Opened(files, limits, error=ServingError(error.code, error.message))
    except Exception as error:
        _log.exception("%s failed to load", folder)
        return Opened(files, limits, error=ServingError("UNKNOWN", f"{folder} cannot be loaded: {error}"))
    return Opened(files, limits, model)
