"""What a real TensorBoard makes of a run of ours: over its HTTP data routes, and drawn in a browser."""

import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import keras
import numpy as np
import PIL.Image
import pytest
from keras import layers

from keras_initx.callbacks import WeightHistograms
from keras_initx.summaries import EventWriter
from support import forked

CHROMIUM = pathlib.Path("/usr/bin/chromium")
STEPS = [0, 1, 2]
KINDS = ("weights", "gradients", "activations")
LAYERS = ["0_stem", "1_relu", "2_inner/d", "3_head"]
# CI sets it, so that a browser that is missing there is seen.
REQUIRED = os.environ.get("INITX_REQUIRE_BROWSER") == "1"


def poll(url, seconds=90):
    """TensorBoard takes up to 15 s to start where TensorFlow is installed: ask until it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                answer = json.load(response)
            if answer:
                return answer
        except OSError:
            pass
        assert time.monotonic() < deadline, f"no answer from {url}"
        time.sleep(0.3)


@contextlib.contextmanager
def tensorboard(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    null = subprocess.DEVNULL
    server = forked.Forked(command, preload="tensorflow", stdout=null, stderr=null)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Address of a TensorBoard that shows a run with all kinds, Keras' own callback beside it."""
    folder = tmp_path_factory.mktemp("runs")
    inner = keras.Sequential([layers.Input((5,)), layers.Dense(5, name="d")], name="inner")
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(5, name="stem"),
            layers.ReLU(name="relu"),
            inner,
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).standard_normal((32, 4)).astype("float32")
    callbacks = [
        WeightHistograms(folder, gradients=True, activations=True, update_ratio=True, data=(x, x[:, :1])),
        keras.callbacks.TensorBoard(folder, histogram_freq=1),
    ]
    model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=callbacks)
    with EventWriter(folder / "others") as writer:
        writer.image("signal/by depth", np.arange(60, dtype="uint8").reshape(4, 15), step=3)
        writer.scalar("gain/forward", 1.0, step=0)
        writer.layout({"signal": {"gain": ["gain/.*"]}})
    with tensorboard(folder) as address:
        poll(f"{address}/data/environment")
        yield address


def data(root, plugin, route, **query):
    return poll(f"{root}/data/plugin/{plugin}/{route}?{urllib.parse.urlencode(query)}")


pytestmark = pytest.mark.tensorflow


def test_histograms_are_listed_by_kind_and_layer_with_all_steps(root):
    tags = data(root, "histograms", "tags")
    assert sorted(tags) == [".", "train"]
    found = {kind: sorted(tag for tag in tags["."] if tag.startswith(f"{kind}/")) for kind in KINDS}
    weights = [f"{layer}/{name}" for layer in LAYERS if "relu" not in layer for name in ("bias", "kernel")]
    assert found["weights"] == [f"weights/{tag}" for tag in weights]
    assert found["gradients"] == [f"gradients/{tag}" for tag in weights]
    assert found["activations"] == [f"activations/{layer}" for layer in LAYERS]
    for tag in tags["."]:
        series = data(root, "histograms", "histograms", run=".", tag=tag)
        assert [step for _, step, _ in series] == STEPS
        assert {np.shape(table) for _, _, table in series} == {(30, 3)}


def test_keras_own_histograms_of_the_same_folder_are_those_of_our_next_step(root):
    ours = data(root, "histograms", "histograms", run=".", tag="weights/3_head/kernel")
    theirs = data(root, "histograms", "histograms", run="train", tag="net/head/kernel/histogram")
    # Keras' step e is the state after epoch e + 1, which is our step e + 1.
    assert [step for _, step, _ in theirs] == [0, 1]
    for mine, other in zip(ours[1:], theirs, strict=True):
        np.testing.assert_allclose(other[2], mine[2], rtol=1e-6)


def test_update_ratios_are_scalars_from_step_one_on(root):
    tags = data(root, "scalars", "tags")["."]
    assert len(tags) == 6
    series = data(root, "scalars", "scalars", run=".", tag="update_ratio/2_inner/d/kernel")
    assert [step for _, step, _ in series] == STEPS[1:]
    assert all(0 < value < 1 for _, _, value in series)


def test_an_image_and_a_layout_are_found_by_their_dashboards(root):
    (entry,) = data(root, "images", "images", run="others", tag="signal/by depth", sample=0)
    assert entry["step"] == 3
    with urllib.request.urlopen(f"{root}/data/plugin/images/individualImage?{entry['query']}") as response:
        assert response.headers["Content-Type"] == "image/png"
        assert PIL.Image.open(response).size == (15, 4)
    (category,) = data(root, "custom_scalars", "layout")["category"]
    assert category["title"] == "signal"
    assert category["chart"][0]["multiline"]["tag"] == ["gain/.*"]


@pytest.mark.browser
@pytest.mark.skipif(
    not REQUIRED and not (CHROMIUM.exists() and importlib.util.find_spec("playwright")),
    reason="needs /usr/bin/chromium (apt-get install chromium) and playwright",
)
def test_a_browser_draws_them_and_asks_no_other_machine(root, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    requests, failed = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.goto(f"{root}/#histograms&tagFilter=activations", wait_until="domcontentloaded")
        # The tags that match come first, in a pane of their own; the categories follow.
        matching = page.locator("tf-category-paginated-view").first
        cards = matching.locator("tf-histogram-loader")
        expect(cards).to_have_count(len(LAYERS), timeout=60_000)
        assert cards.evaluate_all("cards => cards.map(card => card.tag)") == [
            f"activations/{layer}" for layer in LAYERS
        ]
        curves = matching.locator("vz-histogram-timeseries path.outline")
        expect(curves).to_have_count(len(LAYERS) * len(STEPS), timeout=60_000)
        # Each goes up from the axis, over the bins and down again.
        points = curves.evaluate_all(
            "curves => curves.map(curve => curve.getAttribute('d').split('L').length)"
        )
        assert min(points) > 30
        page.screenshot(path=tmp_path / "histograms.png")
        browser.close()
    assert {urllib.parse.urlsplit(url).hostname for url in requests if url.startswith("http")} == {
        "127.0.0.1"
    }
    assert failed == []
