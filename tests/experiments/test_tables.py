"""What a comparison is written as: text, Markdown, LaTeX, data frames."""

import json
import re

import pytest

from keras_initx.experiments import Trial, TrialResult
from keras_initx.experiments._summarize import summarize

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

SIGNAL = {"forward_gain": 1.5, "backward_gain": 2.0, "loss": 0.7, "verdicts": ["dead", "shrinks"]}


def trial(label, seed, values, rate=None, signal=None, **more):
    curves = {"loss": [1.0] * len(values), "val_accuracy": list(values)}
    return TrialResult(
        Trial(label, seed, rate, 2), curves, values[-1], test=values[-1], signal=signal, **more
    )


PLAIN = summarize(
    [trial(label, seed, [0.2, 0.9 + seed / 100]) for label in ("initx>He_1", "a & b") for seed in range(2)],
    "accuracy",
    minimize=False,
    reported="test",
    bounds={"accuracy": (0.0, 1.0), "loss": (0.0, None)},
)
RICH = summarize(
    [
        *(
            trial("a|b", seed, [0.2, value], rate, SIGNAL)
            for seed in (0, 1)
            for rate, value in ((0.1, 0.5), (0.01, 0.4))
        ),
        TrialResult(Trial("c", 0, 0.1, 2), failure="MemoryError: full\nof it"),
        TrialResult(Trial("c", 0, 0.01, 2), diverged=True),
    ],
    "accuracy",
    minimize=False,
    reported="validation",
    chance=0.5,
)


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_empty_columns_are_left_out_of_every_table():
    titles = ["initializer", "test accuracy (more is better)", "std", "95 % interval", "seeds", "s"]
    assert cells(PLAIN.to_markdown().splitlines()[0]) == titles
    assert re.split("  +", str(PLAIN).splitlines()[0]) == titles
    assert [line.count("&") for line in PLAIN.to_latex().replace(r"\&", "").splitlines()[2:6:2]] == [5, 5]
    one = summarize([trial("a", 0, [0.9])], "accuracy", minimize=False, reported="test")
    assert "inf" not in str(one)  # of one seed there is no interval
    assert "95 %" not in str(one)


def test_the_table_says_which_rate_was_chosen_on_what_and_what_stayed_at_chance():
    head, _, first, second = RICH.to_markdown().splitlines()[:4]
    row = dict(zip(cells(head), cells(first), strict=True))
    assert row["learning rate, chosen on validation"] == "0.1"
    assert (row["validation accuracy (more is better)"], row["note"]) == ("0.5", "at chance")
    assert row["initializer"] == r"a\|b"  # a cell still
    assert cells(second)[0] == "c"
    assert RICH.to_markdown().count("\n| ") == 1 + 2 + 2 + 4  # two tables: rules, rows, and all rates
    assert "learning rate, chosen" not in str(PLAIN)
    assert "- c failed: MemoryError: full\n- of it\n" in RICH.to_markdown()


def test_latex_is_a_table_of_booktabs_whose_signs_are_escaped():
    lines = PLAIN.to_latex().splitlines()
    assert lines[:2] == [r"\begin{tabular}{lrrrrr}", r"\toprule"]
    assert lines[2].startswith(
        r"initializer & test accuracy $\uparrow$ & std & 95 \% interval & seeds & s \\"
    )
    assert {line.split(" & ")[0] for line in lines[4:6]} == {r"initx\textgreater{}He\_1", r"a \& b"}
    assert lines[6:8] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.startswith("% ") for line in lines[8:])
    assert any("No recommendation" in line for line in lines[8:])
    less = summarize([trial("a", 0, [0.9])], "loss", minimize=True, reported="test").to_latex()
    assert r"test loss $\downarrow$" in less


def test_latex_needs_no_pandas_and_keeps_its_comments_on_one_line_each(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    after = RICH.to_latex().split(r"\end{tabular}")[1]
    assert all(line.startswith("% ") for line in after.strip().splitlines())


@pytest.mark.parametrize(
    ("table", "rows", "columns"),
    [
        ("trials", 6, {"initializer", "seed", "learning_rate", "final", "failure", "signal_forward_gain"}),
        ("epochs", 8, {"initializer", "seed", "learning_rate", "epoch", "loss", "val_accuracy"}),
        ("initializers", 4, {"initializer", "learning_rate", "mean", "std", "metric", "minimize", "chosen"}),
        ("rows", 2, {"initializer", "learning_rate", "mean", "std", "metric", "minimize"}),
    ],
)
def test_cells_of_a_data_frame_are_flat(table, rows, columns):
    pytest.importorskip("pandas")
    found = RICH.to_dataframe(table)
    assert len(found) == rows
    assert columns <= set(found.columns)
    kinds = {type(value) for column in found.columns for value in found[column].tolist()}
    assert kinds <= {str, int, float, bool, type(None)}
    json.dumps(found.to_dict("records"))


def test_a_data_frame_has_the_numbers_of_the_comparison():
    pytest.importorskip("pandas")
    found = RICH.to_dataframe("initializers")
    assert found[found["chosen"]]["learning_rate"].tolist() == [row.learning_rate for row in RICH.rows]
    trials = RICH.to_dataframe("trials")
    assert trials["signal_verdicts"].tolist()[0] == "dead; shrinks"
    assert trials["last_val_accuracy"].tolist()[:4] == [0.5, 0.4, 0.5, 0.4]
    assert RICH.to_dataframe("epochs")["val_accuracy"].tolist()[:2] == [0.2, 0.5]
    rows = RICH.to_dataframe("rows")
    assert rows["initializer"].tolist() == [row.initializer for row in RICH.rows] == ["a|b", "c"]
    assert rows["mean"].tolist()[0] == RICH.rows[0].mean
    assert rows.equals(RICH.to_dataframe())
    allowed = r"`table` must be one of \['epochs', 'initializers', 'rows', 'trials'\]"
    with pytest.raises(ValueError, match=allowed):
        RICH.to_dataframe("columns")


def test_curves_keep_to_the_bounds_of_their_log():
    (curve, *_) = PLAIN.curves().values()
    assert 0 < curve.low[-1] < curve.mean[-1] < curve.high[-1] < 1
    open_ended = summarize(list(PLAIN.results), "accuracy", minimize=False, reported="test")
    assert next(iter(open_ended.curves().values())).high[-1] > 0.95
