"""The web page at `/`, where a user can try the models."""

import base64
import functools
import hashlib
import pathlib
import re

__all__ = ["page"]

_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


@functools.cache
def page() -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Returns the page and its HTTP headers, without the content type.

    The page itself contains no data, so it needs no token. Its script asks `/v1/models` for data, with the
    user's token. The headers allow only this one script and this one style, by their hashes. So a script that
    an attacker smuggled into the page would not run.

    >>> dict(page()[1])[b"x-content-type-options"]
    b'nosniff'
    """
    body = pathlib.Path(__file__).with_name("page.html").read_bytes()
    # Computed from the file, so an edited page cannot disagree with its policy.
    policy = _POLICY.format(script=_hash(body, "script"), style=_hash(body, "style"))
    return body, [
        (b"content-security-policy", policy.encode()),
        (b"cache-control", b"no-cache"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _hash(body: bytes, tag: str) -> str:
    """Returns the policy's expression that allows the page's only `<script>` or `<style>`."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
