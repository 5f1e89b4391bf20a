"""`check_reachable`: tells within seconds that a data set cannot be downloaded."""

from collections.abc import Iterable

from keras_initx.extras import require

__all__ = ["check_reachable"]

_SECONDS = 5.0


def check_reachable(name: str, hosts: Iterable[str], cure: str = "") -> None:
    """Raises ConnectionError if a host does not answer within 5 seconds; an HTTP error is an answer too.

    Args:
        name: The name of the data set, for the message.
        hosts: The hosts that the data set is downloaded from.
        cure: One more cure for the message, with a semicolon and a space at its end.
    """
    require("requests", extra="examples", purpose=f"The download of {name!r}")
    import requests

    for host in sorted(hosts):
        try:
            requests.head(f"https://{host}", timeout=_SECONDS)
        except requests.RequestException as error:
            raise ConnectionError(
                f"The data set {name!r} is not on this machine and {host} cannot be reached to download it. "
                f"Connect to a network; {cure}or prepare the data set on another machine, copy the folder, "
                "and set TFDS_DATA_DIR to it; or take 'initx_digits' or 'initx_pydoc/code', which need no "
                "network."
            ) from error
