"""Comparisons in TensorBoard: read back by its own HParams backend, from files and without TensorFlow."""

import importlib.util
import math
import shutil

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
from tensorboard.util import tensor_util

from keras_initx.experiments import Trial, TrialResult
from keras_initx.experiments._summarize import summarize
from keras_initx.summaries import EventWriter, read_sessions
from support import forked

pytestmark = pytest.mark.tensorflow  # its code is the same on each backend

STATUSES = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING]
SIGNAL = {"forward_gain": 2.0, "backward_gain": math.inf, "verdicts": []}


class Backend:
    """TensorBoard's own, on what a folder holds now."""

    def __init__(self, folder):
        self.multiplexer = plugin_event_multiplexer.EventMultiplexer()
        self.multiplexer.AddRunsFromDirectory(str(folder))
        self.multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(self.multiplexer, str(folder))
        self.context = backend_context.Context(base_plugin.TBContext(data_provider=provider))

    def groups(self):
        request = api_pb2.ListSessionGroupsRequest(allowed_statuses=STATUSES, start_index=0, slice_size=100)
        handler = list_session_groups.Handler(context.RequestContext(), self.context, "", request)
        return {
            tuple(
                group.hparams[name].string_value or group.hparams[name].number_value
                for name in ("initializer", "seed", "learning_rate")
                if name in group.hparams
            ): group
            for group in handler.run().session_groups
        }

    def experiment(self):
        request = api_pb2.GetExperimentRequest()
        return get_experiment.Handler(context.RequestContext(), self.context, "", request).run()

    def curve(self, run, tag):
        """Steps and values, of which none may stand twice."""
        events = self.multiplexer.Tensors(run, tag)
        assert len({event.step for event in events}) == len(events)
        return {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events}


def metrics_of(group):
    return {metric.name.tag: metric.value for metric in group.metric_values}


def result(label, seed, rate, final=0.5, epochs=2, **more):
    curves = {"loss": [2.0, 1.0], "val_accuracy": [0.25, final if final is not None else math.nan]}
    return TrialResult(
        Trial(label, seed, rate, epochs), curves, final=final, best=0.75, signal=SIGNAL, seconds=3.0, **more
    )


def found(results, reported="validation"):
    return summarize(results, "accuracy", minimize=False, reported=reported)


RESULTS = [
    *(
        result(label, seed, rate, seed / 8)
        for label in ("initx>HeScaled", "a/b: ü")
        for seed in (0, 1)
        for rate in (0.1, 0.01)
    ),
    result("wild", 0, 0.1, None, diverged=True),
    TrialResult(Trial("wild", 1, 0.1, 2), failure="MemoryError: full", seconds=1.0),
]


def test_tensorboards_own_backend_finds_all_trials_with_their_values(tmp_path):
    found(RESULTS).to_tensorboard(tmp_path / "new" / "folder")
    backend = Backend(tmp_path / "new" / "folder")
    groups = backend.groups()
    assert len(groups) == 10
    for one in RESULTS[:8]:
        trial = one.trial
        group = groups[trial.initializer, trial.seed, trial.learning_rate]
        assert group.hparams["epochs"].number_value == 2
        assert metrics_of(group) == {
            "validation/accuracy": one.final,
            "best/accuracy": 0.75,
            "signal/forward_gain": 2.0,
            "seconds": 3.0,
        }
        (session,) = group.sessions
        assert session.status == api_pb2.STATUS_SUCCESS
        assert backend.curve(session.name, "epoch/loss") == {1: 2.0, 2: 1.0}
        assert backend.curve(session.name, "signal/forward_gain") == {0: 2.0}


def test_a_trial_that_is_lost_is_a_failure_without_a_metric(tmp_path):
    found(RESULTS).to_tensorboard(tmp_path)
    backend = Backend(tmp_path)
    wild = [group for (label, *_), group in backend.groups().items() if label == "wild"]
    assert [group.sessions[0].status for group in wild] == [api_pb2.STATUS_FAILURE] * 2
    assert all("validation/accuracy" not in metrics_of(group) for group in wild)
    assert [metrics_of(group)["seconds"] for group in wild] == [3.0, 1.0]
    curve = backend.curve(wild[0].sessions[0].name, "epoch/val_accuracy")
    assert curve[1] == 0.25
    assert math.isnan(curve[2])


def test_the_domains_and_the_metrics_stand_above_the_runs(tmp_path):
    found([result("a", 0, 0.1, test=0.5), result("b", 7, 0.001, test=0.25)], "test").to_tensorboard(tmp_path)
    experiment = Backend(tmp_path).experiment()
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == {"initializer", "seed", "learning_rate", "epochs"}
    assert list(infos["initializer"].domain_discrete) == ["a", "b"]
    interval = infos["learning_rate"].domain_interval
    assert (interval.min_value, interval.max_value) == (0.001, 0.1)
    assert [name for name in infos if not infos[name].differs] == ["epochs"]
    assert [info.name.tag for info in experiment.metric_infos] == [
        *("test/accuracy", "validation/accuracy", "best/accuracy", "signal/forward_gain", "seconds"),
    ]


def test_a_learning_rate_that_is_the_models_own_is_left_out(tmp_path):
    found([result("a", 0, None)]).to_tensorboard(tmp_path)
    backend = Backend(tmp_path)
    assert list(backend.groups()) == [("a", 0)]
    assert {info.name for info in backend.experiment().hparam_infos} == {"initializer", "seed", "epochs"}


def test_a_second_call_replaces_what_is_there_and_adds_what_is_not(tmp_path):
    found(RESULTS[:4]).to_tensorboard(tmp_path)
    with EventWriter(tmp_path) as others:  # a histogram callback's, say
        others.scalar("mine", 1.0, 0)
    assert len(list(tmp_path.rglob("*.initx"))) == 4 + 1 + 1  # trials, what is above them, and mine
    again = [
        result("initx>HeScaled", 0, 0.1, 1.0),
        result("zeros", 0, 0.1),
        result("zeros", 0, 0.1, epochs=9),
    ]
    found(again).to_tensorboard(tmp_path)
    backend = Backend(tmp_path)
    groups = backend.groups()
    files = [str(path) for path in tmp_path.rglob("*.initx")]
    assert len(files) == 6 + 1 + 1
    assert others.path in files
    group = groups["initx>HeScaled", 0, 0.1]
    assert metrics_of(group)["validation/accuracy"] == 1.0
    assert backend.curve(group.sessions[0].name, "epoch/val_accuracy") == {1: 0.25, 2: 1.0}
    (info,) = (info for info in backend.experiment().hparam_infos if info.name == "initializer")
    assert list(info.domain_discrete) == ["initx>HeScaled", "zeros"]
    assert len(backend.groups()) == 5


def test_a_comparison_in_a_folder_below_is_another_one(tmp_path):
    lost = TrialResult(Trial("a", 0, 0.1, 2), failure="MemoryError: full", seconds=1.0)
    found([result("below", 0, 0.1)]).to_tensorboard(tmp_path / "below")
    found([lost, result("b", 0, 0.1)]).to_tensorboard(tmp_path)
    assert {session.hparams["initializer"] for session in read_sessions(tmp_path)} == {"a", "b"}
    shutil.rmtree(tmp_path / "below")
    tags = [info.name.tag for info in Backend(tmp_path).experiment().metric_infos]
    assert tags == ["validation/accuracy", "best/accuracy", "signal/forward_gain", "seconds"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    comparison = found(RESULTS[:1])
    with pytest.raises(ValueError, match="`log_dir` must be a folder that can be written"):
        comparison.to_tensorboard(tmp_path / "file")
    with pytest.raises(ValueError, match="`log_dir` must be a local folder"):
        comparison.to_tensorboard("memory://runs")
    with pytest.raises(TypeError, match="`log_dir` must be a path"):
        comparison.to_tensorboard(None)


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_it_imports_no_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from keras_initx.experiments import Trial, TrialResult\n"
        "from keras_initx.experiments._summarize import summarize\n"
        "results = [TrialResult(Trial('a', 0, 0.1, 1), {'loss': [1.0]}, final=1.0)]\n"
        f"summarize(results, 'loss', True, 'validation').to_tensorboard({str(tmp_path)!r})\n"
        "assert not any(name.split('.')[0] == 'tensorflow' for name in sys.modules)"
    )
    forked.run(["-c", code], env=forked.backend("jax"), check=True)
    assert list(Backend(tmp_path).groups()) == [("a", 0, 0.1)]
