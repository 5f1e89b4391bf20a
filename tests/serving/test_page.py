"""The page of the server, in a real browser: what it shows, sends and draws; it asks no other machine."""

import importlib.util
import io
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import urllib.parse
import urllib.request

import numpy as np
import pytest

from keras_initx.serving._page import page as page_of_the_server
from support.served_page import HOSTILE, MODELS, NAMES, serving, write_models

CHROMIUM = pathlib.Path("/usr/bin/chromium")
REQUIRED = os.environ.get("INITX_REQUIRE_BROWSER") == "1"
SECRET = "a-secret-of-the-tests"

in_browser = [
    pytest.mark.browser,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not REQUIRED and not (CHROMIUM.exists() and importlib.util.find_spec("playwright")),
        reason="needs /usr/bin/chromium (apt-get install chromium) and playwright",
    ),
]


def browser_test(function):
    for mark in in_browser:
        function = mark(function)
    return function


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_models(root)
    (root / "token").write_text(SECRET)
    return root


@pytest.fixture(scope="module")
def served(root):
    with serving(root) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens pages; at the end, none may have complained or asked another machine."""
    contexts, complaints, asked = [], [], []

    def open_page(address, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    hosts = {urllib.parse.urlsplit(url).hostname for url in asked if not url.startswith("data:")}
    assert hosts == {"127.0.0.1"}
    assert open_page.complaints == []


@pytest.fixture
def page(open_page, served):
    return open_page(served)


def choose(page, model):
    from playwright.sync_api import expect

    page.get_by_role("button", name=model, exact=True).click()
    expect(page.locator("#name")).to_have_text(model)


def send(page):
    """Sends what the form holds; returns the status and the answer."""
    from playwright.sync_api import expect

    outcome = page.locator("#outcome")
    outcome.evaluate("outcome => { outcome.textContent = ''; }")
    page.get_by_role("button", name="Send").click()
    expect(outcome).to_have_text(re.compile(r"^HTTP \d+ in [\d.]+ ms$"))
    return int(outcome.inner_text().split()[1]), page.locator("#answer").inner_text()


@browser_test
def test_models_versions_and_signatures_are_listed(page):
    from playwright.sync_api import expect

    expect(page.locator("#models button")).to_have_text(list(MODELS))
    choose(page, "half")
    expect(page.locator("#versions tr")).to_have_text(["VersionState", "123AVAILABLE", "1AVAILABLE"])
    expect(page.get_by_label("Signatures of version")).to_have_value("123")
    rows = page.locator("#signatures tr")
    expect(rows.nth(1)).to_contain_text("serving_default")
    expect(rows.nth(1)).to_contain_text("x: float any shape")
    expect(rows.filter(has_text="classify_names")).to_contain_text("scores: float [?, 1]")


@browser_test
def test_a_version_that_cannot_be_loaded_is_told_with_its_error(page):
    from playwright.sync_api import expect

    choose(page, "broken")
    expect(page.locator("#versions tr").nth(1)).to_contain_text("7END")
    expect(page.locator("#versions td.bad").last).to_contain_text("saved_model.pb")
    expect(page.locator("#ask")).to_be_hidden()


@browser_test
def test_names_are_text(page):
    from playwright.sync_api import expect

    choose(page, HOSTILE)
    expect(page.locator("#name")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert send(page)[0] == 200
    assert urllib.parse.quote(HOSTILE, safe="!'()*") in page.locator("#curl").inner_text()


@browser_test
def test_a_prediction_is_sent_and_answered(page):
    from playwright.sync_api import expect

    choose(page, "half")
    page.get_by_label("Signatures of version").select_option("1")
    expect(page.get_by_label("Request", exact=True)).to_have_value('{"instances": [0.0]}')
    page.get_by_label("Request", exact=True).fill('{"instances": [1.0, 2.0, NaN]}')
    page.get_by_label("Request", exact=True).press("Control+Enter")
    expect(page.locator("#outcome")).to_have_text(re.compile("^HTTP 200 in"))
    assert re.findall(r"[\d.]+|NaN", page.locator("#answer").inner_text()) == ["2.5", "3.0", "NaN"]


@browser_test
def test_an_error_is_shown_with_its_status(page, open_page):
    choose(page, "half")
    page.get_by_label("Request", exact=True).fill('{"instances": ["a"]}')
    status, answer = send(page)
    assert status == 400
    assert "not of expected type: float" in json.loads(answer)["error"]
    # Chromium itself tells of every status from 400 on.
    assert len(open_page.complaints) == 1
    assert "status of 400" in open_page.complaints.pop()


@browser_test
@pytest.mark.parametrize("model", ["half", "several", "types", "digits"])
def test_the_example_of_every_signature_is_answered(page, open_page, model):
    from playwright.sync_api import expect

    refused = {"bad_regress": 400, "no_outputs": 400}
    refused |= dict.fromkeys(["half", "bfloat16", "complex64", "complex128", "uint16"], 501)
    choose(page, model)
    expect(page.locator("#signature option").first).to_be_attached()
    for signature in page.locator("#signature option").all_inner_texts():
        page.get_by_label("Signature", exact=True).select_option(signature)
        status, answer = send(page)
        assert status == refused.get(signature, 200), (signature, answer)
        assert ("over gRPC" in page.locator("#hint").inner_text()) == (status == 501)
    open_page.complaints[:] = [text for text in open_page.complaints if "status of" not in text]


@browser_test
def test_the_line_of_curl_gets_the_same_answer(page):
    choose(page, "several")
    page.get_by_label("Signature", exact=True).select_option("strings")
    page.get_by_label("Request", exact=True).fill(
        '{"signature_name": "strings",\n "instances": ["it\'s  `$HOME`", "é"]}'
    )
    status, answer = send(page)
    line = page.locator("#curl").inner_text()
    found = subprocess.run(["bash", "-c", f"{line} --silent"], capture_output=True, check=True, text=True)
    assert (status, json.loads(answer)) == (200, json.loads(found.stdout))
    assert json.loads(answer)["predictions"][0]["copy"] == "it's  `$HOME`"


RING = [
    (0.5 + 0.2 * math.sin(at * math.tau / 24), 0.5 - 0.35 * math.cos(at * math.tau / 24)) for at in range(25)
]
DIGITS = {
    "0": [RING],
    "1": [[(0.42, 0.3), (0.52, 0.15), (0.52, 0.85)]],
    "4": [[(0.45, 0.12), (0.28, 0.55), (0.75, 0.55)], [(0.6, 0.35), (0.6, 0.9)]],
    "7": [[(0.25, 0.15), (0.75, 0.15), (0.45, 0.9)], [(0.35, 0.5), (0.7, 0.5)]],
}


def places(page, stroke):
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page, stroke):
    start, *rest = places(page, stroke)
    page.mouse.move(*start)
    page.mouse.down()
    for place in rest:
        page.mouse.move(*place, steps=4)
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.mouse.up()


@browser_test
def test_classify_takes_a_drawing(page):
    from playwright.sync_api import expect

    choose(page, "digits")
    page.get_by_label("Signature", exact=True).select_option("classify")
    expect(page.locator("#canvas")).to_be_visible()
    for stroke in DIGITS["7"]:
        draw(page, stroke)
    expect(page.locator("#bars .best th")).to_have_text("seven")
    document = json.loads(page.get_by_label("Request", exact=True).input_value())
    assert document["signature_name"] == "classify"
    assert len(document["examples"][0]["image"]) == 64


def png(pixels):
    """The bytes of a PNG file of rows of pixels, from 0 to 255."""
    matplotlib_image = pytest.importorskip("matplotlib.image")
    file = io.BytesIO()
    matplotlib_image.imsave(file, np.asarray(pixels, "uint8"), format="png", cmap="gray", vmin=0, vmax=255)
    return file.getvalue()


# How a page is given a file: a button, a drop, a paste.
GIVE = """([way, bytes, type]) => {
  const file = new File([new Uint8Array(bytes)], "picture", {type}), data = new DataTransfer();
  data.items.add(file);
  const event = way === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
    : new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
  document.querySelector("#canvas").dispatchEvent(event);
}"""


def give(page, way, content, type_="image/png"):
    if way == "file":
        page.locator("#file").set_input_files({"name": "picture", "mimeType": type_, "buffer": content})
    else:
        page.evaluate(GIVE, [way, list(content), type_])


@browser_test
@pytest.mark.parametrize("way", ["file", "drop", "paste"])
def test_a_picture_is_sent_at_the_size_of_the_model(page, way):
    from playwright.sync_api import expect

    picture = np.zeros((12, 8, 3))  # twice the model's size
    picture[:6], picture[6:, :4], picture[6:, 4:] = (255, 0, 0), (0, 255, 0), (30, 60, 90)
    choose(page, "colors")
    expect(page.locator("#canvas")).to_be_visible()
    with page.expect_response(lambda response: response.request.method == "POST"):
        give(page, way, png(picture))
    (sent,) = json.loads(page.get_by_label("Request", exact=True).input_value())["instances"]
    assert np.shape(sent) == (6, 4, 3)
    # Where colours meet, a browser mixes them.
    np.testing.assert_allclose(
        np.array(sent)[[0, 1, 4, 5]][:, [0, 3]], picture[::2, ::2][[0, 1, 4, 5]][:, [0, 3]], atol=3
    )
    expect(page.locator("#bars tr")).to_have_count(3)
    shares = [float(text) for text in page.locator("#bars td:last-child").all_inner_texts()]
    np.testing.assert_allclose(shares, np.mean(sent, (0, 1)), rtol=1e-3)


@browser_test
def test_a_digit_of_ink_on_paper_is_inverted_and_a_drawing_replaces_it(page):
    import sklearn.datasets
    from playwright.sync_api import expect

    known = sklearn.datasets.load_digits()
    three = known.images[known.target == 3][0]
    choose(page, "digits")
    give(page, "file", png(255 - np.kron(three * 255 / 16, np.ones((8, 8)))))
    expect(page.locator("#bars th")).to_have_text(NAMES)  # the labels are asked for once
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.get_by_label("Invert").check()
    expect(page.locator("#bars .best th")).to_have_text("three")
    (sent,) = json.loads(page.get_by_label("Request", exact=True).input_value())["instances"]
    np.testing.assert_allclose(np.squeeze(sent), three, atol=1)
    for stroke in DIGITS["7"]:
        draw(page, stroke)
    expect(page.locator("#bars .best th")).to_have_text("seven")
    expect(page.get_by_label("Invert")).to_be_hidden()


@browser_test
def test_a_file_that_is_no_image_is_told_and_changes_nothing(page):
    from playwright.sync_api import expect

    choose(page, "colors")
    expect(page.locator("#canvas")).to_be_visible()
    before = page.get_by_label("Request", exact=True).input_value()
    give(page, "file", b"no image")
    expect(page.get_by_role("alert")).to_have_text("picture is no image that this browser can read.")
    assert page.get_by_label("Request", exact=True).input_value() == before


@browser_test
def test_a_digit_drawn_by_mouse_is_recognized_as_soon_as_the_pen_is_up(page):
    """The bars have the labels that the signature classify tells, and the canvas stays where it is."""
    from playwright.sync_api import expect

    choose(page, "digits")
    for digit, strokes in DIGITS.items():
        page.locator("#canvas").scroll_into_view_if_needed()
        before = page.locator("#canvas").bounding_box()
        for stroke in strokes:
            draw(page, stroke)
            assert page.locator("#canvas").bounding_box() == before
        expect(page.locator("#bars .best th")).to_have_text(NAMES[int(digit)])
        expect(page.locator("#bars th")).to_have_text(NAMES)
        assert page.locator("#canvas").bounding_box() == before
        (image,) = json.loads(page.get_by_label("Request", exact=True).input_value())["instances"]
        values = [value for row in image for (value,) in row]
        assert len(values) == 64
        assert max(values) == 16
        assert min(values) == 0
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#answered")).to_be_hidden()
    assert set(re.findall(r"[\d.]+", page.get_by_label("Request", exact=True).input_value())) == {"0.0"}


@browser_test
def test_a_digit_drawn_by_a_finger_on_a_phone(open_page, served):
    from playwright.sync_api import expect

    page = open_page(served, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    choose(page, "digits")
    expect(page.locator("#canvas")).to_be_visible()
    finger = page.context.new_cdp_session(page)
    points = [[{"x": x, "y": y}] for x, y in places(page, RING)]
    kinds = itertools.chain(["touchStart"], itertools.repeat("touchMove"))
    for kind, point in zip(kinds, points, strict=False):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": point})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator("#bars .best th")).to_have_text("zero")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@browser_test
def test_a_token_is_asked_for_and_kept_in_memory(root, open_page):
    from playwright.sync_api import expect

    with serving(root, "--token-file", str(root / "token")) as address:
        page = open_page(address)
        token = page.get_by_label("This server asks for a token")
        expect(token).to_be_focused()
        token.fill("a-guess-that-is-not-right")
        token.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("token")
        expect(page.locator("#models button")).to_have_count(0)
        token.fill(SECRET)
        token.press("Enter")
        expect(page.locator("#models button")).to_have_count(len(MODELS))
        expect(token).to_be_hidden()
        choose(page, "half")
        assert send(page)[0] == 200
        assert '"Authorization: Bearer $TOKEN"' in page.locator("#curl").inner_text()
        assert SECRET not in page.url
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert {re.search(r"status of (\d+)", text)[1] for text in open_page.complaints} == {"401"}
    open_page.complaints.clear()


@browser_test
def test_what_is_slipped_into_the_page_does_not_run(page, open_page):
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', `<img src='data:,' onerror='window.hit = 1'>`)"
    )
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'hit = 1'}))")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.evaluate("fetch('http://127.0.0.2:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert all("Content Security Policy" in text for text in open_page.complaints)
    assert len(open_page.complaints) >= 3
    open_page.complaints.clear()


@browser_test
def test_every_control_has_a_name_and_is_reached_by_keyboard(page):
    choose(page, "digits")
    nameless = "el => !el.labels?.length && !el.ariaLabel && !el.textContent.trim()"
    controls = "[...document.querySelectorAll('button, input, select, textarea, canvas, table, pre')]"
    assert page.evaluate(f"{controls}.filter({nameless}).map(el => el.id)") == []
    seen = set()
    page.locator("#models button").first.focus()
    for _ in range(30):
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        page.keyboard.press("Tab")
    assert seen >= {
        "digits",
        "refresh",
        "version",
        "signature",
        "file",
        "scale",
        "fit",
        "clear",
        "request",
        "Send",
        "curl",
    }


def luminance(color):
    digits = color.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_stands_out_by_day_and_by_night():
    """By the contrast that WCAG 2 asks of text, 4.5, and of what surrounds controls, 3."""
    roots = re.findall(r":root \{(.*?)\}", page_of_the_server()[0].decode(), re.DOTALL)
    assert len(roots) == 2
    for content in roots:
        colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", content))
        pairs = {
            (name, ground): 4.5
            for name in ("ink", "faint", "accent", "good", "bad", "warn")
            for ground in ("ground", "panel")
        }
        pairs |= {("on-accent", "accent"): 4.5, ("line", "ground"): 3, ("line", "panel"): 3}
        for (front, back), least in pairs.items():
            light, dark = sorted((luminance(colors[front]), luminance(colors[back])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (front, back)


def test_the_page_names_no_other_place_and_fits_its_policy():
    body, headers = page_of_the_server()
    text = body.decode()
    assert (
        re.findall(
            r"https?://|//[a-z]|@import|\burl\(|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(",
            text,
        )
        == []
    )
    assert re.findall(r"<[^>]+\s(?:style|on[a-z]+)=", text) == []
    policy = dict(headers)[b"content-security-policy"].decode()
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


@pytest.mark.tensorflow
def test_the_server_sends_the_policy(served):
    with urllib.request.urlopen(served, timeout=20) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        assert response.read() == page_of_the_server()[0]
    for name, value in page_of_the_server()[1]:
        assert headers[name.decode()] == value.decode()
