"""All reports have the same methods, whatever their rows hold."""

import dataclasses
import html.parser
import json
import math
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from keras_initx.calibration import CalibrationReport, CalibrationRow
from keras_initx.diagnostics import SignalReport, SignalRow, Spectrum, Verdict
from keras_initx.experiments import Trial, TrialResult
from keras_initx.experiments._summarize import summarize
from keras_initx.fans import Fans
from keras_initx.reports import Report
from keras_initx.scaling import CoordinateReport, CoordinateRow, Divergence, Growth, Slope
from keras_initx.strategies import InitReport, InitRow

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

PATH = 'block<1>/dense & more/"kernel"'
NOTE = "left as it is, because its output is constant on this data: 0 < std"
REPORTS = {
    "initialize": InitReport(
        (
            InitRow(PATH, "dense", (27, 72), "initx>HeScaled", Fans(27, 72), math.nan),
            InitRow("bias", "bias", (72,), note=NOTE),
            InitRow("scale", "other", (72,), "ones"),
        ),
        "by_role",
        7,
        False,
        0.25,
    ),
    "calibrate": CalibrationReport(
        (
            CalibrationRow(PATH, "dense", 2.0, 0.5, 1.0, 1),
            CalibrationRow("head/kernel", "dense", math.inf, note=NOTE, bias="the prior of the classes"),
        ),
        samples=64,
        forward_passes=1,
        seconds=0.25,
        steps=3,
        objective=(2.0, -math.inf),
        ranked={"loss": (2.0, -math.inf)},
    ),
    "diagnose": SignalReport(
        (
            SignalRow(PATH, "dense", 8, preactivation_std=math.nan),
            SignalRow("head/kernel", "dense", note=NOTE),
        ),
        (Verdict(PATH, "nonfinite", "its output is <NaN>", "initx.initialize(model)"),),
        math.nan,
        "given",
        64,
        math.inf,
        None,
        None,
        (),
        Spectrum(8, 2, 1.0, 0.5, (1.0, 0.0)),
        0.25,
    ),
    "compare": summarize(
        [
            *(
                TrialResult(
                    Trial(PATH, seed, 0.1, 1), {"loss": [1.0], "val_loss": [seed]}, float(seed), notes=(NOTE,)
                )
                for seed in (0, 1)
            ),
            TrialResult(Trial("<b>zeros</b>", 0, 0.1, 1), failure="ValueError: 1 < 0"),
        ],
        "loss",
        minimize=True,
        reported="validation",
        bounds={"loss": (0.0, None)},
    ),
    "coordinates": CoordinateReport(
        (
            CoordinateRow(8, 0, PATH, "dense", 0, 1.0, 0.0),
            CoordinateRow(8, 0, PATH, "dense", 1, 1.0, 0.5),
            CoordinateRow(16, 0, PATH, "dense", 0, 2.0, 0.0),
            CoordinateRow(16, 0, PATH, "dense", 1, math.nan, math.inf),
        ),
        (
            Slope(PATH, "dense", 0, 1.0, None, 2.0, None, None, None),
            Slope(PATH, "dense", 1, None, None, None, None, None, None),
        ),
        (Growth(PATH, "dense", "hidden", 0.0, 0.5, 0.0),),
        (8, 16),
        1,
        (0,),
        4,
        "Adam",
        (Divergence(16, 0, 1),),
        (NOTE,),
    ),
}
every_report = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)


class Balanced(html.parser.HTMLParser):
    """Collects the text, and fails where a tag is not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@every_report
def test_every_report_is_a_report_and_has_its_methods_from_one_place(report):
    assert isinstance(report, Report)
    for name in ("to_dict", "to_json", "__str__", "__rich__", "_repr_html_"):
        assert getattr(type(report), name) is getattr(Report, name), name
    assert callable(report.to_dataframe)


@every_report
def test_json_is_strict_and_is_the_dict_with_null_for_what_is_not_finite(report):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    found = json.loads(report.to_json(), parse_constant=refuse)
    told = report.to_dict()
    assert found == json.loads(json.dumps(told), parse_constant=lambda _: None)
    assert {field.name for field in dataclasses.fields(report)} <= told.keys()
    assert len(told["rows"]) == len(report.rows)


@every_report
def test_a_dict_holds_only_what_json_has_so_that_finite_reports_round_trip(report):
    def finite(value):
        if isinstance(value, dict):
            return {key: finite(part) for key, part in value.items()}
        if isinstance(value, list):
            return [finite(part) for part in value]
        assert value is None or type(value) in (bool, float, int, str), value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    assert json.loads(report.to_json()) == finite(report.to_dict())


@every_report
def test_a_data_frame_has_a_row_for_each_row_with_the_fields_of_the_row(report):
    pytest.importorskip("pandas")
    found = report.to_dataframe()
    assert len(found) == len(report.rows)
    for record, row in zip(found.to_dict("records"), report.rows, strict=True):
        for field in dataclasses.fields(row):
            value = getattr(row, field.name)
            if isinstance(value, str | bool):
                assert record[field.name] == value, field.name
            elif isinstance(value, int | float):
                assert record[field.name] == pytest.approx(value, nan_ok=True), field.name
            elif isinstance(value, Fans):
                assert (record["fan_in"], record["fan_out"]) == (value.fan_in, value.fan_out)
            elif not isinstance(value, dict | Fans | None):
                assert field.name in record


@every_report
def test_without_pandas_the_error_names_the_extra(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"`to_dataframe` needs pandas\..*'keras-initx\[dataframe\]'"):
        report.to_dataframe()


@every_report
def test_html_is_well_formed_and_escapes_paths(report):
    page = report._repr_html_()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert PATH in parser.text  # as the reader sees it
    assert "block<1>" not in page  # as the page has it
    assert set(parser.tags) <= {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}
    root = ElementTree.fromstring(page)
    rows = root.findall(".//tr")
    assert len({len(row) for row in rows}) == 1
    assert any(PATH in "".join(row.itertext()) for row in rows)


@every_report
def test_text_has_a_line_for_each_row_and_wraps_only_in_a_terminal(report, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = str(report).splitlines()
    assert any(line.startswith(PATH) for line in lines)
    assert any(NOTE in line for line in lines)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    narrow = str(report)
    for word in ("block<1>/dense", "&", 'more/"kernel"'):
        assert word in narrow
    assert all(line == line.rstrip() for line in narrow.splitlines())
