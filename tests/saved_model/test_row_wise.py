"""Which signatures a server may batch: only those whose answers never differ from the answer alone."""

import json

import keras
import numpy as np
import pytest
import row_wise_models
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _proof, inspect

pytestmark = pytest.mark.tensorflow
FILE = "assets.extra/initx_row_wise.json"


@pytest.mark.parametrize("name", row_wise_models.NOT_ROW_WISE)
def test_a_model_whose_rows_meet_is_not_proven(tmp_path, name):
    exported = initx.export(row_wise_models.NOT_ROW_WISE[name](), tmp_path)
    assert exported.row_wise == ()
    found = inspect(tmp_path).versions[0]
    assert found.row_wise == ()
    assert set(found.alone) == {"serve", "serving_default"}
    print(name, "|", found.alone["serve"])


@pytest.mark.parametrize("name", row_wise_models.ROW_WISE)
def test_a_model_whose_rows_never_meet_is_proven(tmp_path, name):
    exported = initx.export(row_wise_models.ROW_WISE[name](), tmp_path)
    assert exported.row_wise == ("serve", "serving_default"), inspect(tmp_path)
    proof = json.loads((tmp_path / "1" / FILE).read_text())["signatures"]["serving_default"]
    assert {1, 2, 3, 8} <= set(proof["batch_sizes"])
    assert 0 <= proof["max_difference"] <= proof["tolerance"]
