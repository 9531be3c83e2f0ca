"""Push an adapter to the Hub: one commit of the files we know, on top of the revision that was inspected."""

import tempfile
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    hf_hub_download,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from vladva_clip.hub import card
from vladva_clip.interface.arguments import user_path
from vladva_clip.sources import contents
from vladva_clip.sources.hub_errors import HUB_ERRORS, SourceError, failed, shown
from vladva_clip.sources.locate import EXPORT_FILE
from vladva_clip.storage import adapter_files, allowed_files
from vladva_clip.storage.config import LOCAL, VladvaConfig
from vladva_clip.storage.foreign_files import REMADE, TEXTS, matches

COMMIT_MESSAGE = "Add a vladva_clip adapter"
# the sources of a model card: README.md has what others need of them, without paths of this machine
STAY_BEHIND = (card.RECORD, card.NOTES, f"{card.RESULTS}/*.json")
_BROKE_OFF = {
    False: "the commit may have been made just before that; pushing again does no harm, so try again",
    True: "the pull request may have been opened just before that: check the Hub page, then try again",
}


# of httpx and httpx2: no byte of the request has left; the commit is a single request, which is never repeated
_NEVER_CONNECTED = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")


class Saveable(Protocol):
    """Any model with `save_pretrained`, such as a `VladvaCLIP`. Pushing a directory doesn't import transformers."""

    def save_pretrained(self, directory: str | Path) -> Any: ...


def push_to_hub(
    model: Saveable | str | Path,
    repo: str,
    private: bool | None = None,
    commit_message: str = COMMIT_MESSAGE,
    create_pr: bool = False,
    revision: str | None = None,
) -> CommitInfo:
    """Push an adapter to the Hub in a single commit; on failure the repository's content stays as it was.

    Uses the Hub client's login (`hf auth login` or HF_TOKEN). A missing repository is created. Files of an earlier
    adapter that this one lacks are deleted in the same commit; other files in the repository are left alone.

    Args:
        model: a model, whose adapter is saved first, or an adapter's directory.
        repo: the Hub id, `org/name`.
        private: whether a new repository is private; the organization's default for None. True refuses an existing one
            that is public.
        commit_message: the first line of the commit message.
        create_pr: open a pull request instead of committing to the branch.
        revision: an existing branch, `main` for None.

    Returns:
        huggingface_hub's CommitInfo: `oid`, `commit_url`, and `pr_url` with create_pr.

    Raises:
        ValueError: the directory is not an adapter or holds other files, or nobody else can get its base; nothing has
            been sent.
        SourceError: the Hub refused, someone else committed in the meantime, or the connection broke; with the Hub's
            reason and what to do.
    """
    if isinstance(model, str | Path):
        return _push(user_path(model), repo, private, commit_message, create_pr, revision)
    with tempfile.TemporaryDirectory(prefix="vladva-push-") as directory:
        model.save_pretrained(directory)
        return _push(Path(directory), repo, private, commit_message, create_pr, revision)


def files_to_push(directory: Path) -> dict[str, Path]:
    """Return the files of an adapter's directory that go to the Hub, by their names there.

    Hidden files and folders and the sources of the model card stay behind.

    Raises:
        ValueError: the directory is not an adapter, has files that don't belong to one, or links to places outside (the
            same rule as for loading, `allowed_files.require_inside`).
    """
    is_export = (directory / EXPORT_FILE).is_file()
    contents.require_adapter(directory, "; it is an export, which `hf upload` pushes" if is_export else "")
    files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if not path.is_dir()}
    files = {name: path for name, path in files.items() if not (name[0] == "." or matches(name, STAY_BEHIND))}
    foreign = [name for name in files if not matches(name, (*REMADE, *TEXTS))]
    if foreign:
        raise ValueError(
            f"{directory} holds {', '.join(foreign)}, which don't belong to an adapter; nothing was pushed. Move them "
            "away, or push them with `hf upload`"
        )
    _refuse_others_files(directory, files)
    return files


def _push(
    directory: Path, repo: str, private: bool | None, commit_message: str, create_pr: bool, revision: str | None
) -> CommitInfo:
    files = files_to_push(directory)
    _refuse_local_base(adapter_files.read(directory).config)
    _refuse_name(repo)
    if not commit_message.strip():
        raise ValueError("the commit message is empty, expected a line that describes the commit")
    try:
        return _commit(files, repo, private, commit_message, create_pr, revision)
    except SourceError:
        raise
    except HUB_ERRORS as error:
        what, advice = _outcome(error, repo, create_pr)
        raise failed(what, repo, revision, error, advice) from shown(error)


def _outcome(error: Exception, repo: str, create_pr: bool) -> tuple[str, str]:
    """Return what an error of the client means for the repository, and what to do about it."""
    path = _requested(error)
    never_connected = type(error).__name__ in _NEVER_CONNECTED
    if isinstance(error, OfflineModeIsEnabled) or (never_connected and path.endswith("/repos/create")):
        return f"nothing was sent to {repo}", "check the network, a proxy and HF_ENDPOINT, then try again"
    if f"/{repo}/commit/" in path and not never_connected and not isinstance(error, HfHubHTTPError):
        return f"the push to {repo} broke off", _BROKE_OFF[create_pr]
    return f"nothing was committed to {repo}", "try again"


def _requested(error: Exception) -> str:
    """Return the path of the request in which the connection broke; "" if the error is of another kind."""
    try:
        return str(error.request.url.path) if isinstance(error, HTTPError) else ""
    except RuntimeError:  # the client's property, for an error without a request
        return ""


def _commit(
    files: dict[str, Path], repo: str, private: bool | None, commit_message: str, create_pr: bool, revision: str | None
) -> CommitInfo:
    api = HfApi()
    api.create_repo(repo, private=private, exist_ok=True)
    found = api.model_info(repo, revision=revision)
    _refuse_public(found, private)
    there = [sibling.rfilename for sibling in found.siblings or []]
    _refuse_ignoring(there, repo)
    files = _without_our_card_over_a_persons(files, there, repo, found.sha)
    stale = [name for name in there if matches(name, REMADE) and name not in files]
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    operations += [CommitOperationDelete(name) for name in stale]
    return api.create_commit(
        repo,
        operations,
        commit_message=commit_message,
        revision=revision,
        create_pr=create_pr,
        parent_commit=found.sha,  # the inspected revision; the Hub refuses if the branch has moved since
    )


def _without_our_card_over_a_persons(
    files: dict[str, Path], there: list[str], repo: str, revision: str | None
) -> dict[str, Path]:
    """Leave out a generated model card if the repository has one that a person wrote."""
    ours = card.README in files and card.is_ours(files[card.README])
    if (
        not ours
        or card.README not in there
        or card.is_ours(Path(hf_hub_download(repo, card.README, revision=revision)))
    ):
        return files
    return {name: path for name, path in files.items() if name != card.README}


def _refuse_others_files(directory: Path, files: dict[str, Path]) -> None:
    """A link in a stranger's directory could publish any file of this machine."""
    for name, path in files.items():
        if not path.is_file():
            raise ValueError(f"{directory / name} is not a regular file (a pipe, a device, a broken link); remove it")
        allowed_files.require_inside(directory, path)


def _refuse_local_base(config: VladvaConfig) -> None:
    if config.base.id.startswith(LOCAL):
        raise ValueError(
            f"the adapter's base is {config.base.id}, a directory of this machine that nobody else has: push the "
            "base too (`hf upload`), and train or save the adapter over hf-hub:ORG/NAME"
        )


def _refuse_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise SourceError(f"{repo!r} is not a Hub id ({error}); expected ORG/NAME") from error
    if repo.count("/") != 1:
        raise SourceError(f"{repo!r} is not a Hub id; expected ORG/NAME, with a branch in the revision argument")


def _refuse_public(found: ModelInfo, private: bool | None) -> None:
    if private and not found.private:
        raise SourceError(
            f"{found.id} already exists and is public, but private=True was given; nothing was pushed. Make it private "
            "on its Hub page, or choose another name"
        )


def _refuse_ignoring(there: list[str], repo: str) -> None:
    """The Hub silently skips what a .gitignore names, so the adapter could miss a file."""
    if ".gitignore" in there:
        raise SourceError(f"{repo} has a .gitignore, which may make the Hub skip files; remove it and push again")
