"""The runner that spreads trials over processes and machines: Ray Tune with its schedulers."""

import contextlib
import copy
import math
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_initx.checks import check_count, is_number
from keras_initx.experiments._problem import Problem
from keras_initx.experiments._sequential import Progress
from keras_initx.experiments._trial import Trial, TrialResult
from keras_initx.experiments._tune import environment, make_keeper, make_task, quiet_tune, share
from keras_initx.extras import require_ray

__all__ = ["Ray"]


class Ray:
    """Makes trials in processes of Ray's, as many at once as there are CPUs and GPUs for.

    Ray starts on this machine and ends with the comparison; or it is the cluster at `address`, or at the
    environment's `RAY_ADDRESS`; or that which the program has initialized already, which is used as it is.
    What a trial raises is its result. A trial whose process or machine dies is made again from its start.

    Args:
        cpus: CPUs of a trial, which has as many threads.
        gpus: GPUs of a trial; of a fraction, trials share a GPU and its memory. Of 0, trials see none.
        address: The address of a running cluster, or `"auto"`.
        early_stopping: Whether ASHA ends trials that are behind; or a scheduler of `ray.tune.schedulers`
            that ends trials. It sees the logs of each epoch.
        retries: How many times a trial that was lost is made again, before it counts as failed.
        progress: Whether to show on stderr how far it is, and how long it will take.

    Raises:
        ImportError: If the extra `ray` is missing or too old.
        ValueError: If an argument is wrong.

    Reference:
        Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.
    """

    def __init__(
        self,
        *,
        cpus: float = 1,
        gpus: float = 0,
        address: str | None = None,
        early_stopping: Any = False,
        retries: int = 2,
        progress: bool = True,
    ) -> None:
        require_ray("`Ray`", "fsspec", "pandas", "pyarrow", "requests")
        self.cpus, self.gpus = _amount("cpus", cpus), _amount("gpus", gpus)
        self.address = address or os.environ.get("RAY_ADDRESS")
        if self.address and self.address.startswith("ray://"):
            raise ValueError(
                f"`address` must be that of a cluster's head, or 'auto'. Received: address={self.address!r}, "
                "which is Ray Client's. Run on a machine of the cluster, with 'auto'."
            )
        self.early_stopping = _check_scheduler(early_stopping)
        self.retries: int = check_count("retries", retries, least=0)
        self.progress: bool = progress

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials.

        Args:
            problem: What all trials share. It is copied to each machine once.
            trials: What to make.
            keep: What to do with a result; called in this process as soon as a trial has ended.

        Raises:
            ValueError: If the problem cannot be sent to another process, or a trial fits on no machine.
            KeyboardInterrupt: If it was interrupted; trials that had not ended are lost.
        """
        with _connected(self.address), quiet_tune(), tempfile.TemporaryDirectory() as folder:
            _check_fits(self.cpus, self.gpus)
            keeper = make_keeper(trials, keep, Progress(len(trials), self.progress))
            shared = share(problem, trials, bool(self.early_stopping))
            task = make_task(shared, environment(self.cpus, self.gpus))
            while left := [number for number in range(len(trials)) if number not in keeper.ended]:
                options = self._scheduling(problem, trials) | {"callbacks": [keeper], "storage_path": folder}
                if self._tune(task, left, options, keeper) and len(keeper.ended) < len(trials):
                    raise KeyboardInterrupt  # which Tune took

    def _tune(self, task: Callable[[Any], None], numbers: list[int], options: Any, keeper: Any) -> bool:
        """Has Tune make trials. It ends early, and False, when Ray's memory monitor has ended a process."""
        import ray
        from ray import tune

        try:
            tune.run(
                task,
                config={"number": tune.grid_search(numbers)},
                resources_per_trial={"cpu": self.cpus, "gpu": self.gpus},
                max_failures=self.retries,
                raise_on_failed_trial=False,
                reuse_actors=True,  # or each trial waits for its process to import Keras
                verbose=0,
                **options,
            )
        except tune.TuneError as error:
            if keeper.unkept:
                raise keeper.unkept from error
            if keeper.broken:
                raise ValueError(
                    "The model's function and the data must be such that Ray's processes can load them. "
                    f"Received: {keeper.broken} Install what they import on all machines."
                ) from error
            raise
        except RuntimeError as error:  # Tune does not know this one of Ray's errors, and gives up
            if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
                raise
            keeper.ran_out(str(error.__cause__), self.retries)
            return False
        return True

    def _scheduling(self, problem: Problem, trials: Sequence[Trial]) -> dict[str, Any]:
        if not self.early_stopping:
            return {}
        scheduler = copy.deepcopy(self.early_stopping)  # what it learned is of one comparison
        if scheduler is True:
            from ray.tune.schedulers import ASHAScheduler

            scheduler = ASHAScheduler(max_t=max(trial.epochs for trial in trials))
        if getattr(scheduler, "metric", None):
            return {"scheduler": scheduler}
        mode = "min" if problem.minimize else "max"
        return {"scheduler": scheduler, "metric": f"val_{problem.metric}", "mode": mode}


def _amount(name: str, value: Any) -> float:
    real = is_number(value) and math.isfinite(value)
    least = 0 if name == "gpus" else 0.001
    if not real or value < least or (value > 1 and value != int(value)):
        raise ValueError(
            f"`{name}` must be a whole number, or a fraction of one. Received: {name}={value!r}."
        )
    return value


def _check_scheduler(chosen: Any) -> Any:
    """Refuses what would pause trials, which needs checkpoints, or change what they are."""
    if isinstance(chosen, bool):
        return chosen
    from ray.tune import schedulers

    others = (
        schedulers.HyperBandScheduler,
        schedulers.PopulationBasedTraining,
        schedulers.PopulationBasedTrainingReplay,
        schedulers.ResourceChangingScheduler,
    )
    if not isinstance(chosen, schedulers.TrialScheduler) or isinstance(chosen, others):
        raise ValueError(
            "`early_stopping` must be True, False, or a scheduler of Ray Tune that ends trials, as ASHA or "
            f"the median rule. Received: {type(chosen).__name__}."
        )
    return chosen


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """The Ray that is there, or the cluster of others, or one of this machine that ends here."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address, "logging_level": "warning"}
    # Its sockets have long names already, of at most 107 characters with this folder's.
    home = tempfile.TemporaryDirectory(prefix="initx-", dir="/tmp", ignore_cleanup_errors=True)
    with home as folder:
        if not address:
            # Ray 2.60 asks for a token where RAY_AUTH_MODE does not say otherwise.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_worker_niceness", "0")
            alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
            options = {"address": "local", "logging_level": "error", **alone}
        import ray

        ray.init(log_to_driver=False, **options)
        try:
            yield
        finally:
            ray.shutdown()


def _check_fits(cpus: float, gpus: float) -> None:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        found = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ValueError(
            f"`cpus` and `gpus` must fit on a machine. Received: cpus={cpus}, gpus={gpus}, and machines with "
            f"{found}."
        )
