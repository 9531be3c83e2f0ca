"""Whether the Hub can be reached at all, asked once. Its client would try each request for half a minute."""

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError

SECONDS = 10  # for a connection; the client's own limit for small requests
_NO_CONNECTION = ("ConnectError", "ConnectTimeout", "ProxyError")  # of httpx, or of httpx2 with huggingface_hub 2.x


def unreachable() -> Exception | None:
    """Return why no connection to the Hub can be made: no network, no such host, nobody answers there.

    Returns:
        The error, or None: it answered, whatever it said; or `HF_HUB_OFFLINE` forbids to ask.
    """
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except HTTPError as error:
        return error if type(error).__name__ in _NO_CONNECTION else None
    return None
