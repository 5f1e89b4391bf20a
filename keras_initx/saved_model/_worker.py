"""The script of the process that runs SavedModels for `export`, with TensorFlow and neither Keras nor initx.

It reads lines from its standard input and answers each with a line. A line is a JSON object. The script ends
when its input ends, or when no line came for two minutes. It runs outside of the package, so it must not
import any module of the package.
"""

import contextlib
import json
import logging
import os
import pathlib
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_IDLE = 120.0  # seconds


@contextlib.contextmanager
def load(folder: str | os.PathLike[str]) -> Iterator[Callable[[str, dict[str, Any]], dict[str, Any]]]:
    """Loads a SavedModel in a session, as TensorFlow Serving does.

    `tf.saved_model.load` would also rebuild Python objects around the graph. A server does not.

    Args:
        folder: The version's folder.

    Yields:
        A function from the name of a signature and its inputs by name to its outputs by name.
    """
    import tensorflow as tf

    # TensorFlow warns that this loader is deprecated, but it loads as servers do.
    logger = logging.getLogger("tensorflow")
    level = logger.level
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            logger.setLevel(logging.ERROR)
            meta = tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(folder))
        finally:
            logger.setLevel(level)

        def call(signature: str, feeds: dict[str, Any]) -> dict[str, Any]:
            definition = meta.signature_def[signature]
            named = {definition.inputs[name].name: value for name, value in feeds.items()}
            return session.run({name: info.name for name, info in definition.outputs.items()}, named)

        yield call


class _Worker:
    """Holds the SavedModel of the last job, with the states that its runs left."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._folder = ""
        self._call: Callable[..., dict[str, Any]]

    def answer(self, job: dict[str, str]) -> dict[str, str]:
        """Does one job; returns an empty dict, or a dict with the error.

        Args:
            job: `folder` is the SavedModel to load, or empty to drop the one that is loaded. `requests` and
                `answers` are the files to read and to write.
        """
        try:
            if job["folder"] != self._folder:
                self._open.close()
                self._folder = ""  # if the next one cannot be loaded, none is
                if job["folder"]:
                    self._call = self._open.enter_context(load(job["folder"]))
                self._folder = job["folder"]
            if job["folder"]:
                requests = pickle.loads(pathlib.Path(job["requests"]).read_bytes())
                answers = [self._run(*request) for request in requests]
                pathlib.Path(job["answers"]).write_bytes(pickle.dumps(answers))
        except Exception as error:  # TensorFlow's errors have no narrower base class
            return {"error": f"{type(error).__name__}: {error}"}
        return {}

    def _run(self, signature: str, feeds: dict[str, Any]) -> tuple[Any, float]:
        """Runs one request; an error is an answer, because the requests behind it still run."""
        start = time.perf_counter()
        try:
            found: Any = self._call(signature, feeds)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        return found, time.perf_counter() - start


def main() -> None:
    """Answers lines until the input ends."""
    # Libraries print to the standard output. Their text goes to the standard error, so that only answers go
    # through the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # None in `sys.modules` makes an import fail, as it does on a server.
    for name in ("keras", "keras_initx"):
        sys.modules[name] = None  # type: ignore[assignment]
    # An early import, while the export works on. If it fails, the first job tells the error.
    with contextlib.suppress(Exception):
        import tensorflow  # noqa: F401
    worker = _Worker()
    while True:
        # `readline` cannot be given a time limit, so a timer ends the process. A daemon timer does not keep
        # the process alive when the input ends first.
        timer = threading.Timer(_IDLE, os._exit, [0])
        timer.daemon = True
        timer.start()
        line = sys.stdin.readline()
        timer.cancel()
        if not line:
            return
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
