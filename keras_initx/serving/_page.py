"""The page that the local server shows at `/`."""

import base64
import functools
import hashlib
import importlib.resources
import re

__all__ = ["page"]

_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


@functools.cache
def page() -> tuple[bytes, dict[str, str]]:
    """Returns the page and the headers that it is sent with.

    It holds no data and so needs no token; it asks `/v1/models` and what follows from it. Its one script and
    its one style are allowed by their hashes: whatever else got into the page would not run.

    >>> body, headers = page()
    >>> "unsafe" in headers["Content-Security-Policy"]
    False
    """
    body = (importlib.resources.files("keras_initx.serving") / "page.html").read_bytes()
    allowed = {tag: _hash(body, tag) for tag in ("script", "style")}
    return body, {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _POLICY.format(**allowed),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _hash(body: bytes, tag: str) -> str:
    """The source expression that allows the page's only element of a kind."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
