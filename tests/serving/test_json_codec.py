import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initx.serving._documents import parse, read_signature_name, show
from keras_initx.serving._errors import ServingError
from keras_initx.serving._examples import decode_examples
from keras_initx.serving._json_read import decode_inputs
from keras_initx.serving._json_write import encode_columns, encode_error, encode_results, encode_rows
from keras_initx.serving._loaded import DTYPES, TensorSpec
from support.served_graphs import TYPES, strings

pytestmark = pytest.mark.tensorflow  # whose messages are the examples


def specs(**types):
    return {name: TensorSpec(f"{name}:0", type_, None) for name, type_ in sorted(types.items())}


def read(text, **types):
    body = text.encode() if isinstance(text, str) else text
    return decode_inputs(parse(body), specs(**types), b"true" in body or b"false" in body)


def error(text, **types):
    with pytest.raises(ServingError) as caught:
        read(text, **types)
    return caught.value


def same(tensor, want, dtype):
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor, np.array(want, dtype))


def test_rows_of_an_unnamed_tensor():
    tensors, rows = read('{"instances": [[1,2],[3,4],[5,6]]}', default="int32")
    same(tensors["default"], [[1, 2], [3, 4], [5, 6]], np.int32)
    assert rows


def test_what_follows_the_document_is_not_read():
    same(read('{"instances": [[1,2]]}X', x="int32")[0]["x"], [[1, 2]], np.int32)
    same(read('\ufeff \n{"instances": [1]} {"instances": 2}', x="int32")[0]["x"], [1], np.int32)


@pytest.mark.parametrize("type_", ["float", "double"])
def test_whole_numbers_and_decimals_mix(type_):
    text = '{"instances": [1, 2.0, 3, 5.003, 0.007, 0.0, 1e2]}'
    same(read(text, x=type_)[0]["x"], [1, 2, 3, 5.003, 0.007, 0, 100], DTYPES[type_])


def test_what_float_cannot_hold():
    with np.errstate(over="raise"):
        tensor = read('{"instances": [1e39, -1e39, 1e-60, 16777217, 18446744073709551616]}', x="float")[0][
            "x"
        ]
    same(tensor, [np.inf, -np.inf, 0, 16777216, 18446744073709551616], np.float32)
    assert read('{"instances": [NaN, Infinity, -Infinity]}', x="float")[0]["x"].tolist()[1:] == [
        np.inf,
        -np.inf,
    ]


def test_a_named_signature():
    assert read_signature_name(parse(b'{"signature_name": "predict_images"}')) == "predict_images"
    assert read_signature_name(parse(b"{}")) == ""
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        read_signature_name(parse(b'{"signature_name": 5}'))


def test_base64_rows_and_lists():
    same(
        read('{"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}', x="string")[0]["x"],
        [b"hello", b"world"],
        object,
    )
    tensor = read('{"instances": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}', x="string")[0]["x"]
    same(tensor, [[b"hello"], [b"world"]], object)
    named = read('{"instances": [{"x": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}]}', x="string")[0]["x"]
    same(named, [[[b"hello"], [b"world"]]], object)


def test_several_named_tensors_by_row():
    tensors, _ = read(
        """{"instances": [
            {"i": [[1,2],[3,4],[5,6]], "s": ["foo", "bar"], "f": [1.0, NaN], "d": [NaN]},
            {"i": [[7,8],[9,0],[1,2]], "s": ["baz", "bat"], "f": [2.0, Infinity], "d": [2.0]}]}""",
        i="int32",
        s="string",
        f="float",
        d="double",
    )
    same(tensors["i"], [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32)
    same(tensors["s"], [[b"foo", b"bar"], [b"baz", b"bat"]], object)
    same(tensors["f"], [[1, np.nan], [2, np.inf]], np.float32)
    same(tensors["d"], [[np.nan], [2]], np.float64)


def test_columns():
    for text in ('{"inputs": {"x": [[[1,2],[3,4]]]}}', '{"inputs": [[[1,2],[3,4]]]}'):
        tensors, rows = read(text, x="int32")
        same(tensors["x"], [[[1, 2], [3, 4]]], np.int32)
        assert not rows
    text = '{"inputs": {"i": [[1,2]], "s": ["foo", "bar"], "b": {"b64": "aGVsbG8="}, "more": 1}}'
    tensors, _ = read(text, i="int32", s="string", b="string")
    same(tensors["s"], [b"foo", b"bar"], object)
    assert tensors["b"].shape == ()
    assert tensors["b"].item() == b"hello"
    assert sorted(tensors) == ["b", "i", "s"]  # names that the signature lacks are ignored


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("instances = [1, 2]", "JSON Parse error: Invalid value"),
        ('{"instances": [1, 2}', "JSON Parse error: .* at offset: "),
        ("[1, 2]", "JSON Value: .* Is not object"),
        ('{"instances": [[1,2]], "inputs": [[1,2]]}', "Not formatted correctly expecting only one of"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": 1}', "to be an list/array"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"instances": [[1,2],[3,4],[5,6,7]]}', "Expecting tensor size: 2 but got: 3"),
        ('{"instances": [[1,2],[3,4],[[5,6]]]}', r"Expecting shape \[2\] but got: \[1,2\]"),
        ('{"instances": [1, [1]]}', r"Expecting shape \[\] but got: \[1\]"),
        ('{"instances": [[1,2],["a","b"]]}', 'JSON Value: "a" Type: String is not of expected type: int32'),
        ('{"instances": [2.0]}', "Type: Number is not of expected type: int32"),
        ('{"instances": [true]}', "JSON Value: true Type: True is not of expected type: int32"),
        ('{"instances": [1, false]}', "Type: False is not of expected type: int32"),
        ('{"instances": [null]}', "Type: Null is not of expected type: int32"),
        ('{"instances": [{"b64": "aGVsbG8="}]}', "Type: Object is not of expected type: int32"),
        ('{"instances": [2147483648]}', "is not of expected type: int32"),
        (
            '{"instances": [[[1],[2,3]]]}',
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        ('{"instances": [[1,[2]]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"instances": [[[1],2]]}', "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
    ],
)
def test_errors_of_an_unnamed_tensor(text, message):
    found = error(text, x="int32")
    assert found.code == "INVALID_ARGUMENT"
    with pytest.raises(ServingError, match=message):
        raise found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instances": [[1,2]]}', "instances is a plain list, but expecting list of objects"),
        ('{"instances": [{"b64": ""}]}', "instances is a plain list, but expecting list of objects"),
        ('{"inputs": [[1,2]]}', "inputs is a plain value/list, but expecting an object"),
        ('{"instances": [{"i": 1, "s": "a"}, [1]]}', "Expecting object but got list at item 1"),
        ('{"instances": [{"i": 1, "s": "a"}, {"i": 1}]}', "element: 1 .* keys must be equal to: i,s"),
        ('{"instances": [{"i": 1, "s": "a", "t": 2}]}', "does not have named input: t"),
        (
            '{"instances": [{"i": [1], "s": "a"}, {"i": [[1]], "s": "a"}]}',
            "element: 1 key: i .*Expecting shape",
        ),
        ('{"instances": [{"i": [1], "s": "a"}, {"i": [1, 2], "s": "a"}]}', "Expecting tensor size"),
        ('{"inputs": {"i": 1}}', "Missing named input: s"),
    ],
)
def test_errors_of_several_named_tensors(text, message):
    with pytest.raises(ServingError, match=message):
        read(text, i="int32", s="string")


def test_a_list_of_rows_takes_no_object_in_between():
    with pytest.raises(ServingError, match="Expecting value/list but got object at item 1"):
        read('{"instances": [["baz"], {"x": ["bat"]}]}', x="string")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"b64": "*"}', "Unable to base64 decode"),
        ('{"b64": "aGVsbG8=="}', "Unable to base64 decode"),
        ('["a", {"c": 1}]', "not formatted correctly for base64 data"),
        ("1", "is not of expected type: string"),
        (r'"\ud800"', "surrogate pair"),
    ],
)
def test_errors_of_strings(value, message):
    with pytest.raises(ServingError, match=message):
        read(
            f'{{"inputs": {value}}}' if value != '{"b64": "*"}' else f'{{"instances": [{value}]}}', x="string"
        )


# By abseil's Base64Unescape, which TensorFlow Serving calls: white space anywhere, also in the padding; the
# padding all there or all left out, of `=` or `.`; the alphabet of RFC 4648's section 4 alone.
@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", b""),
        (" \n", b""),
        ("aGVsbG8=", b"hello"),
        ("aGVsbG8", b"hello"),
        ("aGVsbG8.", b"hello"),
        ("aGVs\nbG8=\r\n", b"hello"),
        ("a G\tV\vs\fbG8 =", b"hello"),
        ("aA==", b"h"),
        ("aA", b"h"),
        ("aA=.", b"h"),
        ("aA = =", b"h"),
        ("aB==", b"h"),  # bits that nobody reads
        ("+/+/", b"\xfb\xff\xbf"),
        ("aA=", None),
        ("aA===", None),
        ("a", None),
        ("aGVsb", None),
        ("aGVs=", None),
        ("=", None),
        ("aA==aA==", None),
        ("-_-_", None),
        ("aG\0Vs", None),
        ("aG\u00a0Vs", None),  # a space, but none of ASCII
    ],
)
def test_base64_as_tensorflow_serving_reads_it(text, want):
    body = json.dumps({"instances": [{"b64": text}]})
    if want is None:
        with pytest.raises(ServingError, match="Unable to base64 decode"):
            read(body, x="string")
    else:
        assert read(body, x="string")[0]["x"].tolist() == [want]


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 80))
def test_base64_of_any_bytes_with_breaks_anywhere(data, padded, width):
    text = base64.b64encode(data).decode()
    text = text if padded else text.rstrip("=")
    text = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    assert read(json.dumps({"inputs": {"b64": text}}), x="string")[0]["x"].item() == data


def test_bytes_that_are_no_utf8_come_back_as_they_were():
    tensor = read(b'{"instances": ["\xff\xfe"]}', x="string")[0]["x"]
    assert tensor[0] == b"\xff\xfe"
    assert b'"\xff\xfe"' in encode_rows({"y": tensor})


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_every_type_goes_there_and_back(type_):
    values = TYPES[type_]
    for text in (json.dumps({"instances": values}), json.dumps({"instances": values, "note": True})):
        tensor = read(text, x=type_)[0]["x"]
        assert tensor.dtype == DTYPES[type_]
        assert json.loads(encode_rows({"y": tensor})) == {"predictions": values}


@pytest.mark.parametrize("type_", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_a_number_beyond_its_type_is_refused(type_):
    bounds = np.iinfo(DTYPES[type_])
    for number in (bounds.min - 1, bounds.max + 1, 10**400):
        assert f"is not of expected type: {type_}" in error(f'{{"instances": [{number}]}}', x=type_).message


@pytest.mark.parametrize("type_", ["half", "bfloat16", "complex64", "resource"])
def test_types_that_json_does_not_carry_are_unimplemented(type_):
    assert error('{"instances": [1.0]}', x=type_).http_status == 501
    assert error('{"instances": [[]]}', x="resource").http_status == 501


def test_numbers_that_no_double_holds_are_refused():
    assert "too big" in error(f'{{"instances": [{10**400}]}}', x="float").message
    assert "too big" in error(f'{{"instances": [{"9" * 5000}]}}', x="float").message


@pytest.mark.parametrize(
    "document", ["[" * 100_000, '{"instances": ' + "[" * 100_000 + "1" + "]" * 100_000 + "}"]
)
def test_deep_nesting_is_an_error_and_no_crash(document):
    assert error(document, x="float").http_status == 400
    assert error('{"instances": ' + "[" * 70 + "1" + "]" * 70 + "}", x="float").http_status == 400
    wide = read('{"instances": ' + "[" * 30 + "1" + "]" * 30 + "}", x="float")[0]["x"]
    assert wide.shape == (1,) * 30


def test_a_value_in_a_message_is_cut():
    assert len(show(list(range(1000)))) < 300
    assert show({"a": [1, None, True]}) == '{"a": [1, null, true]}'


def test_answers_by_row_and_by_column():
    tensor = np.arange(12, dtype=np.int32).reshape(2, 3, 2)
    assert json.loads(encode_rows({"y": tensor})) == {"predictions": tensor.tolist()}
    assert json.loads(encode_columns({"y": tensor})) == {"outputs": tensor.tolist()}
    assert json.loads(encode_rows({"y": tensor[0, :, 0]})) == {"predictions": [0, 2, 4]}
    assert json.loads(encode_columns({"y": np.float32(1.5).reshape(())})) == {"outputs": 1.5}


def test_answers_of_several_outputs():
    outputs = {
        "f": np.array([[1.0], [2.0]], np.float32),
        "d": np.array([8.0, 9.0]),
        "s": np.array([[b"foo", b"bar"], [b"baz", b"bat"]], object),
        "s_bytes": np.array([[b"hello"], [b"tf"]], object),
    }
    rows = [
        {"d": 8.0, "f": [1.0], "s": ["foo", "bar"], "s_bytes": [{"b64": "aGVsbG8="}]},
        {"d": 9.0, "f": [2.0], "s": ["baz", "bat"], "s_bytes": [{"b64": "dGY="}]},
    ]
    assert json.loads(encode_rows(outputs)) == {"predictions": rows}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert json.loads(encode_columns(outputs)) == {"outputs": columns}


def numbers(tensor):
    return encode_columns({"y": np.asarray(tensor)}).decode().split('"outputs": ')[1].rstrip("\n}")


def test_floats_are_as_short_as_they_can_be():
    values = np.array([9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5, 0.2, 3, -0.0], np.float32)
    assert numbers(values) == "[9e+06, 999999.0, 0.5, 0.0003, 3e-05, 555557.5, 0.2, 3.0, -0.0]"
    assert numbers(np.array([1 / 3], np.float32)) == "[0.333333343]"
    assert numbers(np.array([1 / 3])) == "[0.33333333333333331]"
    assert numbers(np.array([np.nan, np.inf, 3, -np.inf])) == "[NaN, Infinity, 3.0, -Infinity]"
    assert numbers(np.array([0.1, 65504], np.float16)) == "[0.0999755859, 65504.0]"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1), st.lists(st.floats(), min_size=1))
def test_every_float_is_read_back(singles, doubles):
    for values, dtype in ((singles, np.float32), (doubles, np.float64)):
        tensor = np.array(values, dtype)
        back = np.array(json.loads(encode_columns({"y": tensor}))["outputs"]).astype(dtype)
        np.testing.assert_array_equal(back, tensor)


def test_answers_that_are_none():
    with pytest.raises(ServingError, match="no shape information"):
        encode_rows({"y": np.float32(1).reshape(())})
    with pytest.raises(ServingError, match="tensor type: complex64"):
        encode_rows({"y": np.zeros(1, np.complex64)})
    for sizes in ((2, 1), (0, 1)):
        with pytest.raises(ServingError, match="inconsistent batch size: 1 expecting"):
            encode_rows({"a": np.zeros((sizes[0], 2), np.int32), "b": strings(b"foo")})


def test_no_rows():
    assert json.loads(encode_rows({"y": np.zeros((0, 2), np.int32)})) == {"predictions": []}
    empty = {"a": np.zeros((0, 1, 2), object), "b": np.zeros((0, 3, 4), np.float32)}
    assert json.loads(encode_rows(empty)) == {"predictions": []}
    assert json.loads(encode_columns({"y": np.zeros((2, 0, 3), np.int32)})) == {"outputs": [[], []]}
    assert json.loads(encode_rows({"y": np.zeros((2, 0), np.float32)})) == {"predictions": [[], []]}


def test_results():
    labels = np.array([[b"car", b"bike"], [b"car", b"bike"]], object)
    scores = np.array([[0.2, 0.7], [0.7, 0.1]], np.float32)
    want = [[["car", 0.2], ["bike", 0.7]], [["car", 0.7], ["bike", 0.1]]]
    assert json.loads(encode_results(labels, scores)) == {"results": want}
    assert json.loads(encode_results(None, scores[:, :1])) == {"results": [[["", 0.2]], [["", 0.7]]]}
    assert json.loads(encode_results(labels[:1], None)) == {"results": [[["car", 0.0], ["bike", 0.0]]]}
    text = encode_results(None, np.array([0.2, np.inf, 1, -np.inf, np.nan], np.float32)).decode()
    assert '"results": [0.2, Infinity, 1.0, -Infinity, NaN]' in text


def test_errors_are_json_whatever_they_say():
    for message in ('Bad key: "key"', "a\nb\x00\udcff", "é"):
        assert json.loads(encode_error(message).decode("utf-8", "surrogateescape")) == {"error": message}


def features(example):
    from tensorflow.core.example.example_pb2 import Example

    found = Example.FromString(example).features.feature
    return {
        name: (value.WhichOneof("kind"), list(getattr(value, value.WhichOneof("kind")).value))
        for name, value in found.items()
    }


def test_examples():
    first, second, third = decode_examples(
        parse(
            b"""{"context": {"query": "pizza", "location": ["sfo"]}, "examples": [
            {"names": ["foo", "bar"], "ratings": [8.0, 9.0, NaN], "age": 20},
            {"names": ["baz", {"b64": "aGVsbG8="}], "ratings": 6.0, "mix": [1, true, false]},
            {"query": "own", "ratings": -Infinity}]}"""
        )
    )
    context = {"query": ("bytes_list", [b"pizza"]), "location": ("bytes_list", [b"sfo"])}
    found = features(first)
    assert found.pop("ratings")[1][:2] == [8.0, 9.0]
    assert found == context | {"names": ("bytes_list", [b"foo", b"bar"]), "age": ("int64_list", [20])}
    assert features(second) == context | {
        "names": ("bytes_list", [b"baz", b"hello"]),
        "ratings": ("float_list", [6.0]),
        "mix": ("int64_list", [1, 1, 0]),
    }
    assert features(third)["query"] == ("bytes_list", [b"own"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"context": [{"names": "foo"}]}', "Example must be JSON object but got JSON Array"),
        ("{}", "key 'examples' is expected and was not found"),
        ('{"examples": {"names": "foo"}}', "list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [[{"names": "foo"}]]}', "Example must be JSON object"),
        ('{"examples": [{"names": [10, null]}]}', "names has element with unexpected JSON type: Null"),
        ('{"examples": [{"names": [10, 10.0]}]}', "feature: names expecting type: int64"),
        ('{"examples": [{"names": ["a", 1]}]}', "feature: names expecting type: bytes"),
        (
            '{"examples": [{"names": [10, {"test": 10}]}]}',
            "names has element with unexpected JSON type: Object",
        ),
        ('{"examples": [{"names": [[10], 20]}]}', "names has element with unexpected JSON type: Array"),
        ('{"examples": [{"names": [20, 18446744073709551603]}]}', "Only int64 is supported"),
    ],
)
def test_errors_of_examples(text, message):
    with pytest.raises(ServingError, match=message):
        decode_examples(parse(text.encode()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["x", "b64", "instances", "inputs", "examples", "context"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(TYPES)),
    st.one_of(
        st.binary(max_size=40),
        st.tuples(st.sampled_from(["instances", "inputs", "examples"]), JSON).map(
            lambda pair: json.dumps({pair[0]: pair[1]}).encode()
        ),
        JSON.map(lambda value: json.dumps(value).encode()),
    ),
)
def test_anything_is_a_tensor_or_an_error_of_the_client(type_, body):
    codes = set()
    for read_it in (
        lambda: read(body, x=type_),
        lambda: read(body, x=type_, y="string"),
        lambda: decode_examples(parse(body)),
    ):
        try:
            read_it()
        except ServingError as refused:
            codes.add(refused.http_status)
    assert codes <= {400, 501}
