"""A program that kills the examples and lets them go on: `python killed_examples.py`, in an empty folder.

Each run is a process that is forked from this one before TensorFlow has done anything, so that what they
import is imported once. In the folder `killed` one is killed and another goes on; `whole` runs through.
"""

import os
import pathlib
import signal
import subprocess
import sys
import traceback
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples")]


def run(example, runs):
    by_example = {
        "image_classification": ["--model", "separable", "--augment", "--initializer", "by_role"],
        "text_classification": ["--length", "8", "--initializer", "initx>LSUV"],
    }
    sys.argv = [example.__name__, *by_example[example.__name__], "--epochs", "2", "--runs", runs]
    example.main(example.parse_arguments()[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_within_the_second_epoch(example):
    class Checkpoint(example.training.Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            if "1" in self.record["epochs"] and batch == 1:
                die()

    example.training.Checkpoint = Checkpoint
    run(example, "killed")


def killed_before_the_second_checkpoint(example):
    """Its record is in place, the model is written, but beside the first checkpoint."""
    replace = example.training.replace

    def stop(path, write):
        if path.name == "checkpoint.keras" and path.exists():
            write(path.with_name(f"new-{path.name}"))
            die()
        replace(path, write)

    example.training.replace = stop
    run(example, "killed")


def run_whole(example):
    example.save = lambda *arguments: None  # the run that went on has done it
    run(example, "whole")


def fork(task, *arguments):
    """Runs a task in a process of its own and returns its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    import matplotlib.pyplot  # noqa: F401  for all of them

    import image_classification
    import text_classification
    from keras_initx.saved_model import _process
    from support import forked, small_data

    # Else each process that exports starts another, which imports TensorFlow.
    _process.subprocess = types.SimpleNamespace(**vars(subprocess) | {"Popen": forked.ForExports})
    small_data.use()
    for example, killed in (
        (image_classification, killed_within_the_second_epoch),
        (text_classification, killed_before_the_second_checkpoint),
    ):
        assert fork(killed, example) == -signal.SIGKILL
        assert fork(run, example, "killed") == 0
        assert fork(run_whole, example) == 0
