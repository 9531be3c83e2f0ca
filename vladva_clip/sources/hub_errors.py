"""Turns what the Hub's client raises into one error with the Hub's reason and what to do, but never a token."""

import re

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # base of all that its HTTP client raises: httpx up to 1.x, httpx2 in 2.x
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# HTTPError is not an OSError, but errors of files and sockets are; the Xet client and uploading threads raise
# RuntimeErrors; invalid names and unreadable answers are ValueErrors and KeyErrors
HUB_ERRORS = (HTTPError, OSError, RuntimeError, ValueError, KeyError)
PACKAGED_WAYS = (
    "Without a network: vladva_clip.create_model('vladva-tiny') is packaged, and 'local-dir:PATH' loads a directory"
)
OFFLINE_WAYS = f"{PACKAGED_WAYS}; HF_HUB_OFFLINE=1 uses what the Hugging Face cache already holds"
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_TOKEN = re.compile(rf"{HUB_TOKEN.pattern}|(?<=[Bb]earer )\S+")
_PASSWORD = re.compile(r"(?<=://)[^\s/@]+@")
_SIGNATURE = re.compile(r"(?<=[?&])[^\s'\"=&]*(?:sign|token|credential|key)[^\s'\"=&]*=[^\s'\"&]*", re.IGNORECASE)
_ADVICE = {
    401: "your token is missing, wrong or expired: `hf auth login`, or set HF_TOKEN",
    403: "your token lacks permission: create one with the access needed ('write' to push), or ask the owner",
    404: "check the spelling of the repository and of the revision",
    409: "another change is in progress: try again",
    412: "someone else has committed in the meantime: pull, look at their change, and try again",
    413: "a file is larger than the Hub accepts",
    429: "too many requests: wait, or log in for a higher limit",
}


class SourceError(ValueError, RuntimeError):
    """A source that can't be fetched or written. A ValueError, and a RuntimeError for code written for open_clip."""


def failed(
    what: str, repo: str, revision: str | None, error: Exception, advice: str = f"try again. {OFFLINE_WAYS}"
) -> SourceError:
    """Return the error to raise for what the client raised: `raise failed(...) from shown(error)`.

    Args:
        what: what did not happen, such as "org/name did not come".
        repo: the Hub id.
        revision: branch, tag or commit that was requested.
        error: the client's.
        advice: what to do if the Hub gave no reason.
    """
    return SourceError(scrub(_explain(what, repo, revision, _refusal(error), advice)))


def shown(error: Exception) -> Exception | None:
    """Return an error as a cause that a traceback may show; None if it, or an error behind it, contains a token."""
    return error if all(scrub(str(each)) == str(each) for each in _chain(error)) else None


def scrub(text: str) -> str:
    """Remove the Hub's tokens, and signatures and passwords in URLs, from a text."""
    if token := get_token():
        text = text.replace(token, "<token>")
    return _TOKEN.sub("<token>", _SIGNATURE.sub("<signature>", _PASSWORD.sub("", text)))


def is_refusal(error: Exception) -> bool:
    """Whether the Hub answered and refused, even if the client says that the cache lacks a file."""
    return isinstance(_refusal(error), HfHubHTTPError)


def _chain(error: BaseException) -> list[BaseException]:
    found = [error]
    while following := found[-1].__cause__ or (None if found[-1].__suppress_context__ else found[-1].__context__):
        found.append(following)
    return found


def _refusal(error: Exception) -> BaseException:
    """The Hub's own answer, which the client wraps in errors of files and threads; else the error itself."""
    if type(error) is ValueError:  # the client's own, which says more, such as that the card is invalid
        return error
    return next((each for each in _chain(error) if isinstance(each, HfHubHTTPError)), error)


def _explain(what: str, repo: str, revision: str | None, error: BaseException, advice: str) -> str:
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms on its Hub page, then `hf auth login` ({_reason(error)})"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: see the branches and tags on its Hub page"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo} is not on the Hub, or private: check the spelling, or `hf auth login` ({_reason(error)})"
    if isinstance(error, HFValidationError):
        return f"{repo!r} is not a Hub id; expected ORG/REPO, or hf-hub:ORG/REPO[@REVISION] as a model's name ({error})"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{what}: HF_HUB_OFFLINE is set, so the Hub is not contacted; unset it"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _explain_status(what, error)
    if isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return f"{repo} is not in the cache, and HF_HUB_OFFLINE is set: unset it to ask the Hub. {PACKAGED_WAYS}"
    if isinstance(error, LocalEntryNotFoundError):
        return f"{repo} is not in the cache and the Hub can't be reached{_why(error)}. {OFFLINE_WAYS}"
    if isinstance(error, ValueError):  # retrying doesn't help, for example with invalid metadata in a card
        return f"{what} ({_story(error)})"
    return f"{what} ({_story(error)}): {advice}"


def _explain_status(what: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    advice = _ADVICE.get(status, "the Hub has a problem: try again later" if status >= 500 else "")
    wait = error.response.headers.get("Retry-After")
    return "; ".join(
        part
        for part in (
            f"{what}: the Hub refused with {status}, {_reason(error)}",
            advice,
            f"try again after {wait} s" if wait else "",
        )
        if part
    )


def _reason(error: HfHubHTTPError) -> str:
    lines = (error.server_message or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _why(error: BaseException) -> str:
    cause = error.__cause__
    return "" if cause is None or isinstance(cause, OfflineModeIsEnabled) else f" ({type(cause).__name__}: {cause})"


def _story(error: BaseException) -> str:
    """The error, followed by its cause if it only says what was being done."""
    return ", ".join(f"{type(each).__name__}: {each}" for each in _story_of(error))


def _story_of(error: BaseException) -> list[BaseException]:
    chain = _chain(error)
    return chain[:2] if type(error) is RuntimeError else chain[:1]
