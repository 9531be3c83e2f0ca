"""What goes wrong while pushing: the Hub's reason and what to do, and a repository that is as it was."""

import json
import logging
import shutil
import traceback

import pytest

import vladva_clip
from tests.support import adapters, hub_server
from tests.support.hub_server import Fault
from tests.support.hub_server.client import TOKEN, call
from vladva_clip.sources.hub_errors import SourceError, scrub

REPO = "org/adapter"
UPLOAD, COMMIT = f"/{REPO}.git/info/lfs/objects/batch", f"/api/models/{REPO}/commit/main"


@pytest.fixture(scope="module")
def directory(bases, tmp_path_factory):
    """An adapter whose base has a name that everybody knows."""
    directory = tmp_path_factory.mktemp("failures") / "adapter"
    adapters.write_adapter(bases["llava"], directory)
    config = json.loads((directory / "vladva_config.json").read_text())
    config["base"]["id"] = "vladva-tiny"
    (directory / "vladva_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def hub():
    """With a repository that holds an earlier adapter and somebody's notes."""
    with hub_server.start() as hub:
        hub.tokens = {TOKEN}
        hub.repos[REPO] = hub_server.Repo(REPO, {"notes.txt": b"mine", "soft_prompt.safetensors": b"earlier"})
        yield hub


def push(hub, directory, *faults: Fault, token: str | None = TOKEN, **options) -> str:
    """Push against faults; returns the message, after a look at the repository and a search for the token."""
    hub.faults = list(faults)
    before = {name: list(commits) for name, commits in hub.repos[REPO].branches.items()}
    with hub_server.online(hub, token), pytest.raises(SourceError) as caught:
        vladva_clip.push_to_hub(directory, REPO, **options)
    assert hub.repos[REPO].branches == before
    shown = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in shown and "X-Amz-Signature" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST", "/preupload/", 401, "Invalid user token."), ["Invalid user token", "hf auth login"]),
        (
            Fault("POST", COMMIT, 403, "You have read access only"),
            ["403, You have read access only", "'write' to push"],
        ),
        (Fault("POST", COMMIT, 404, "gone", {"X-Error-Code": "RepoNotFound"}), ["not on the Hub, or private"]),
        (
            Fault("POST", COMMIT, 429, "Rate limit", {"Retry-After": "77"}),
            ["429, ", "too many requests", "after 77 s"],
        ),
        (Fault("POST", COMMIT, 500, "Internal"), ["500, ", "Internal", "try again later"]),
        (Fault("POST", "/preupload/", 503, "Maintenance"), ["503, ", "Maintenance", "try again later"]),
        (Fault("POST", UPLOAD, 413, "File is too large"), ["413, File is too large", "larger than the Hub"]),
        (Fault("PUT", "/lfs/", 500, "disk"), ["500, ", "disk", "try again later"]),
        (Fault("GET", "/api/models", 403, "Blocked"), ["403, Blocked", "your token"]),
    ],
    ids=lambda value: f"{value.status} {value.path.split('/')[-1]}" if isinstance(value, Fault) else "",
)
def test_the_hubs_reason_and_what_to_do(hub, directory, fault, said):
    message = push(hub, directory, fault)
    for part in said:
        assert part in message, message


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST", "/create", cut=True), "RemoteProtocolError"),
        (Fault("POST", "/preupload/", cut=True), "RemoteProtocolError"),
        (Fault("POST", UPLOAD, cut=True), "RemoteProtocolError"),
        (Fault("PUT", "/lfs/", cut=True), "Error while uploading '"),
        (Fault("POST", COMMIT, cut=True), "RemoteProtocolError"),
    ],
    ids=lambda value: value.path.split("/")[-1] if isinstance(value, Fault) else "",
)
def test_a_cut_connection(hub, directory, fault, said):
    """Pushed again, with the line whole, all is there: what was uploaded without a commit does no harm."""
    message = push(hub, directory, fault)
    assert said in message and "try again" in message
    assert ("may have been made" in message) == (fault.path == COMMIT)
    assert ("nothing was committed" in message) == (fault.path != COMMIT)
    hub.faults = []
    with hub_server.online(hub):
        vladva_clip.push_to_hub(directory, REPO)
    files = hub.repos[REPO].at("main").files
    assert files["soft_prompt.safetensors"] == (directory / "soft_prompt.safetensors").read_bytes()
    assert files["notes.txt"] == b"mine"


def test_a_line_that_breaks_once_is_mended_by_the_client(hub, directory):
    hub.faults = [Fault("PUT", "/lfs/", cut=True, times=1), Fault("POST", UPLOAD, 503, times=2)]
    with hub_server.online(hub):
        vladva_clip.push_to_hub(directory, REPO)
    assert hub.repos[REPO].at("main").files["adapter_model.safetensors"]


def test_an_answer_that_is_lost_after_the_commit(hub, directory):
    """The commit stands, which the client can't know: the message says so, and pushing again commits nothing twice."""
    repo = hub.repos[REPO]
    hub.faults = [Fault("POST", COMMIT, lost=True)]
    with hub_server.online(hub), pytest.raises(SourceError, match="may have been made.*pushing again does no harm"):
        vladva_clip.push_to_hub(directory, REPO)
    assert len(repo.branches["main"]) == 2
    hub.faults = []
    with hub_server.online(hub):
        assert vladva_clip.push_to_hub(directory, REPO).oid == repo.at("main").oid
    assert len(repo.branches["main"]) == 2


def test_a_hub_that_can_t_be_reached_gets_nothing(hub, directory):
    hub.shutdown()
    hub.server_close()
    message = push(hub, directory)
    assert message.startswith(f"nothing was sent to {REPO} (ConnectError") and "check the network" in message


def test_a_hub_that_goes_away_before_the_commit(hub, directory):
    """Files may have been uploaded, but the commit's own request was never sent."""
    hub.faults = [Fault("GET", f"/api/models/{REPO}", do=hub.socket.close)]
    message = push(hub, directory, *hub.faults)
    assert message.startswith(f"nothing was committed to {REPO}") and "may have been" not in message


@pytest.mark.parametrize("create_pr", [False, pytest.param(True, marks=pytest.mark.wide)])
def test_offline_nothing_is_sent(hub, directory, create_pr):
    """With HF_HUB_OFFLINE=1, in a process of its own, as the client reads it when it is imported."""
    pushed = f"vladva_clip.push_to_hub({str(directory)!r}, {REPO!r}, create_pr={create_pr})"
    said = call(pushed, hub.url, offline=True, HF_TOKEN=TOKEN)
    assert said.startswith(f"SourceError nothing was sent to {REPO}: HF_HUB_OFFLINE is set") and "may have" not in said
    assert hub.asked == []


def test_an_upload_that_arrives_changed(hub, directory):
    message = push(hub, directory, Fault("PUT", "/lfs/", change=lambda body: body[:-1] + b"?"))
    assert "422, the uploaded file has another checksum" in message


def test_somebody_commits_in_the_meantime(hub, directory):
    """Between our look at the branch and our commit."""
    repo = hub.repos[REPO]
    theirs = {"theirs.txt": b"theirs"}
    hub.faults = [Fault("POST", COMMIT, do=lambda: repo.commit(theirs, "theirs"), times=1)]
    with hub_server.online(hub), pytest.raises(SourceError, match="412, A commit has happened since.*try again"):
        vladva_clip.push_to_hub(directory, REPO)
    assert repo.at("main").files == theirs
    with hub_server.online(hub):
        vladva_clip.push_to_hub(directory, REPO)
    assert repo.at("main").files["theirs.txt"] == b"theirs" and "vladva_config.json" in repo.at("main").files


def test_a_card_that_the_hub_does_not_take(hub, directory, tmp_path):
    shutil.copytree(directory, tmp_path / "adapter")
    (tmp_path / "adapter/README.md").write_text("# No metadata")
    hub.card_errors = [{"message": "license is unknown"}]
    message = push(hub, tmp_path / "adapter")
    assert "Invalid metadata in README.md" in message and "license is unknown" in message
    assert "try again" not in message


def test_a_branch_that_is_not_there(hub, directory):
    assert "has no revision 'dev'" in push(hub, directory, revision="dev")


@pytest.mark.parametrize("token", [None, "hf_NotTheRightTokenAtAll"])
def test_nobody_and_somebody_else(hub, directory, token):
    message = push(hub, directory, token=token)
    assert "401, Invalid username or password" in message and "hf auth login" in message


def test_a_gitignore_would_leave_files_out(hub, directory):
    hub.repos[REPO].commit({".gitignore": b"*.json"}, "ignore")
    assert "has a .gitignore" in push(hub, directory)


def test_a_new_repository_stays_empty(hub, directory):
    hub.faults = [Fault("POST", "/commit/", 500, "Internal")]
    with hub_server.online(hub), pytest.raises(SourceError, match="nothing was committed to org/new"):
        vladva_clip.push_to_hub(directory, "org/new")
    assert set(hub.repos["org/new"].at("main").files) == {".gitattributes"}


def test_a_hub_that_repeats_the_token(hub, directory, caplog):
    """In its reason, which errors show, and in what is logged."""
    caplog.set_level(logging.DEBUG)
    message = push(hub, directory, Fault("POST", COMMIT, 403, f"the token {TOKEN} may not write"))
    assert "the token <token> may not write" in message
    assert not [
        record for record in caplog.records if record.name.startswith("vladva") and TOKEN in record.getMessage()
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bearer abcdef", "Bearer <token>"),
        ("hf_abcdefghij is wrong", "<token> is wrong"),
        ("https://me:secret@hub/x", "https://hub/x"),
        ("https://cdn/x?a=1&X-Amz-Signature=5ec&b=2", "https://cdn/x?a=1&<signature>&b=2"),
        ("https://hub/api?create_pr=1, hf_hub", "https://hub/api?create_pr=1, hf_hub"),
    ],
)
def test_what_is_taken_out_of_messages(text, expected):
    assert scrub(text) == expected
