"""What is to be served: roots, TensorFlow Serving's files, and their faults told by name."""

import os
import subprocess

import pytest

from keras_initx.serving import ModelConfig, find_models, read_batching, read_models
from keras_initx.serving._limits import Limits

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def write(tmp_path, text, name="models.config"):
    path = tmp_path / name
    path.write_text(text)
    return path


def models(*entries):
    return "model_config_list {" + "".join(f"config {{ {entry} }}" for entry in entries) + "}"


def test_a_root_lists_the_folders_that_hold_versions(tmp_path):
    for folder in ("digits/1", "digits/00000002", "words/7", "notes", ".hidden/1", "deep/down/1", "2024x/3"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text("")
    found = find_models(tmp_path)
    assert [config.name for config in found] == ["2024x", "digits", "words"]
    assert found[1] == ModelConfig("digits", str(tmp_path / "digits"), root=str(tmp_path))
    assert (found[1].policy, found[1].boundary) == (1, str(tmp_path))


def test_a_root_that_holds_versions_is_one_model(tmp_path, monkeypatch):
    (tmp_path / "digits" / "1").mkdir(parents=True)
    one = [ModelConfig("digits", str(tmp_path / "digits"))]
    assert find_models(tmp_path / "digits") == find_models(f"{tmp_path}/digits/") == one
    monkeypatch.chdir(tmp_path / "digits")
    assert find_models(".") == one


def test_a_root_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"`root` must be a folder. Received: root='.*/none'. Export"):
        find_models(tmp_path / "none")


def test_a_root_that_is_a_saved_model_itself_is_told_how_to_become_one(tmp_path):
    for name, told in (
        ("7", f"is a version: name its folder, {tmp_path}"),
        ("my model", "Give it one: `mv "),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(b"")
        with pytest.raises(ValueError, match=f"`root` must be the folder of models.*{told}") as caught:
            find_models(tmp_path / name)
    subprocess.run(str(caught.value).split("`")[3], shell=True, check=True)
    assert [config.name for config in find_models(tmp_path / "my model")] == ["my model"]


def test_a_config_file_of_tensorflow_serving(tmp_path):
    path = write(
        tmp_path,
        models(
            "name: 'half' base_path: '/models/half' model_platform: 'tensorflow'",
            "name: 'all' base_path: 'near/all' model_version_policy { all {} }",
            "name: 'two' base_path: '/m' model_version_policy { latest { num_versions: 2 } }",
            """name: 'some' base_path: '/m' model_version_policy { specific { versions: 4 versions: 7 } }
               version_labels { key: 'stable' value: 4 } version_labels { key: 'canary' value: 7 }
               logging_config { sampling_config { sampling_rate: 0.1 } }""",
        ),
    )
    assert read_models(path) == [
        ModelConfig("half", "/models/half"),
        ModelConfig("all", str(tmp_path / "near/all"), "all"),
        ModelConfig("two", "/m", 2),
        ModelConfig("some", "/m", frozenset({4, 7}), {"stable": 4, "canary": 7}),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "model_config_list { config { nome: 'x' } }",
            r'must be the text of a ModelServerConfig.*1:30.*"nome"',
        ),
        ("", "`model_config_list` must be given"),
        (models("base_path: '/m'"), "`name` must not be empty"),
        (models("name: 'm'"), "`base_path` must be a local folder. Received: base_path='' of model 'm'"),
        (
            models("name: 'm' base_path: 's3://b/m'"),
            "`base_path` must be a local folder.*s3://b/m.*Mount or copy",
        ),
        (models("name: 'm' base_path: '/m' model_platform: 'torch'"), "`model_platform` must be.*'torch'"),
        (
            models("name: 'm' base_path: '/m'", "name: 'm' base_path: '/n'"),
            r"`name` must.*Received twice: \['m'\]",
        ),
        (
            models("name: 'm' base_path: '/m' model_version_policy { specific {} }"),
            "at least one version.*'m'",
        ),
        (
            models("name: 'm' base_path: '/m' version_labels { key: 'a-b' value: 1 }"),
            "`labels` must be.*'a-b'",
        ),
    ],
)
def test_faults_of_a_config_file_name_the_file_the_rule_and_what_was_received(tmp_path, text, told):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"(?s){path}.*{told}"):
        read_models(path)


def test_a_batching_file_gives_the_limits_that_it_maps_onto(tmp_path):
    path = write(
        tmp_path,
        """max_batch_size { value: 32 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 10 }
           num_batch_threads { value: 4 } allowed_batch_sizes: 8 allowed_batch_sizes: 32""",
    )
    assert read_batching(path) == {"max_batch_rows": 32, "max_queue": 320}
    assert read_batching(write(tmp_path, "")) == {}
    path = write(tmp_path, "max_enqueued_batches { value: 3 }")
    assert read_batching(path) == {"max_queue": 3 * Limits.max_batch_rows}


# All fields of TensorFlow Serving's session_bundle_config.proto, in the forms that its text may have.
ALL_FIELDS = """
# a comment
max_batch_size { value: 128 }
batch_timeout_micros: { value: 0 }
max_enqueued_batches { value: 10 };
num_batch_threads { value: 4 }
thread_pool_name { value: 'batches' }
enable_large_batch_splitting { value: true }
max_execution_batch_size < value: 64 >
allowed_batch_sizes: [1, 8]
allowed_batch_sizes: 64
pad_variable_length_inputs: true
"""


def test_a_batching_file_with_every_field_is_read(tmp_path):
    assert read_batching(write(tmp_path, ALL_FIELDS)) == {"max_batch_rows": 64, "max_queue": 640}
    whole = ALL_FIELDS.replace("value: true", "value: false")
    assert read_batching(write(tmp_path, whole)) == {"max_batch_rows": 128, "max_queue": 1280}
    unset = ALL_FIELDS.replace("max_execution_batch_size < value: 64 >", "")
    assert read_batching(write(tmp_path, unset)) == {"max_batch_rows": 128, "max_queue": 1280}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_batch_size: 3", "must be the text of a BatchingParameters"),
        ("max_batch_size {}", "max_batch_rows=0"),
    ],
)
def test_faults_of_a_batching_file(tmp_path, text, told):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"(?s){path}.*{told}"):
        read_batching(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_no_model(tmp_path):
    (tmp_path / "closed" / "1").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    try:
        assert find_models(tmp_path) == []
    finally:
        (tmp_path / "closed").chmod(0o755)
