"""What the Hub answers: (status, headers, body) for each kind of request."""

import base64
import re
from typing import Any

from tests.support.hub_server.store import Commit, Repo, etag, is_large, lines, sha256, tree

Answer = tuple[int, dict[str, str], Any]
SIGNATURE = "X-Amz-Signature=5ec12e7"  # a CDN's URL lets in whoever has it


def refuse(status: int, message: str, code: str = "", **headers: str) -> Answer:
    given = {"X-Error-Code": code} if code else {}
    return status, {"X-Error-Message": message, **given, **headers}, {"error": message}


def answer(hub: Any, method: str, path: str, query: dict[str, list[str]], body: bytes, token: str) -> Answer:
    for verb, pattern, route, writes in _ROUTES:
        match = re.fullmatch(pattern, path)
        if match and method in verb.split():
            if writes and token not in hub.tokens:
                return refuse(401, "Invalid username or password.")
            return _with_repo(hub, route, match.groupdict(), query, body, token)
    return refuse(404, f"no route for {method} {path}")


def _with_repo(hub: Any, route: Any, given: dict[str, str], query: dict, body: bytes, token: str) -> Answer:
    """Replace a repository's id and revision by what they stand for, or say that there is none."""
    if "repo" in given:
        repo = hub.every or hub.repos.get(given["repo"])
        if repo is None or (repo.private and token not in hub.tokens):
            return refuse(404 if token in hub.tokens else 401, "Repository not found", "RepoNotFound")
        given["repo"] = repo
        if "revision" in given or route is _info:
            given["commit"] = repo.at(given.get("revision") or "main")
            if given["commit"] is None:
                return refuse(404, f"Invalid rev id: {given['revision']}", "RevisionNotFound")
    return route(hub, query=query, body=body, token=token, **given)


def _create(hub: Any, body: bytes, **_: Any) -> Answer:
    (asked,) = lines(body)
    repo = f"{asked['organization']}/{asked['name']}"
    if repo in hub.repos:
        said = "You already created this model repo"
        return 409, {}, {"error": said, "url": f"{hub.url}/{repo}"}
    private = asked.get("visibility") == "private" or asked.get("private", False)
    hub.repos[repo] = Repo(repo, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=bool(private))
    return 200, {}, {"url": f"{hub.url}/{repo}", "name": repo}


def _info(hub: Any, repo: Repo, commit: Commit, query: dict, **_: Any) -> Answer:
    siblings = [{"rfilename": name} for name in sorted(commit.files)]
    if "blobs" in query:
        siblings = [_details(**file) for file in tree(commit.files)]
    info = {"_id": "0", "id": repo.id, "sha": commit.oid, "siblings": siblings, "tags": [], "private": repo.private}
    return 200, {}, info


def _details(path: str, size: int, oid: str, lfs: dict | None = None, **_: Any) -> dict:
    """A file as the info of a repository shows it, whose words are not those of the listing."""
    large = {"lfs": {"sha256": lfs["oid"], **lfs}} if lfs else {}
    return {"rfilename": path, "size": size, "blobId": oid, **large}


def _tree(hub: Any, commit: Commit, **_: Any) -> Answer:
    return 200, {}, tree(commit.files)


def _preupload(hub: Any, commit: Commit, body: bytes, **_: Any) -> Answer:
    files = []
    for entry in lines(body)[0]["files"]:
        name, there = entry["path"], commit.files.get(entry["path"])
        mode = "lfs" if is_large(name) else "regular"
        oid = None if there is None else etag(name, there)
        files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return 200, {}, {"files": files}


def _batch(hub: Any, body: bytes, **_: Any) -> Answer:
    objects = []
    for entry in lines(body)[0]["objects"]:
        if entry["oid"] not in hub.objects:
            upload = {"href": f"{hub.url}/lfs/{entry['oid']}?{SIGNATURE}", "header": {}}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/verify/{entry['oid']}"}}
        objects.append(entry)
    return 200, {}, {"transfer": "basic", "objects": objects}


def _upload(hub: Any, oid: str, body: bytes, **_: Any) -> Answer:
    hub.objects[oid] = body
    return 200, {}, b""


def _verify(hub: Any, oid: str, **_: Any) -> Answer:
    if sha256(hub.objects[oid]) != oid:
        del hub.objects[oid]
        return refuse(422, "the uploaded file has another checksum")
    return 200, {}, {}


def _commit(hub: Any, repo: Repo, commit: Commit, revision: str, query: dict, body: bytes, **_: Any) -> Answer:
    header, *operations = lines(body)
    if header["value"].get("parentCommit") not in (None, commit.oid):
        return refuse(412, "A commit has happened since. Please refresh and try again.")
    files = dict(commit.files)
    for operation in operations:
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        else:
            del files[value["path"]]
    message = header["value"]["summary"]
    if "create_pr" in query:
        made, number = repo.open_pr(files, message)
        return 200, {}, _told(hub, repo, made) | {"pullRequestUrl": f"{hub.url}/{repo.id}/discussions/{number}"}
    return 200, {}, _told(hub, repo, repo.commit(files, message, revision))


def _told(hub: Any, repo: Repo, made: Commit) -> dict[str, str]:
    return {"commitUrl": f"{hub.url}/{repo.id}/commit/{made.oid}", "commitOid": made.oid}


def _resolve(hub: Any, commit: Commit, name: str, **_: Any) -> Answer:
    """Small files come at once; large ones from a CDN, as the Hub has it."""
    if name not in commit.files:
        return refuse(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})
    body = commit.files[name]
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{etag(name, body)}"'}
    if not is_large(name):
        return 200, headers, body
    hub.objects[sha256(body)] = body
    linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(body))}
    return 302, {**headers, **linked, "Location": f"{hub.cdn}/{sha256(body)}/{name}?{SIGNATURE}"}, b""


def _cdn(hub: Any, oid: str, token: str, **_: Any) -> Answer:
    if token:
        return refuse(400, "Only one auth mechanism allowed")
    return 200, {"ETag": f'"{oid}"'}, hub.objects[oid]


def _valid(hub: Any, **_: Any) -> Answer:
    return 400 if hub.card_errors else 200, {}, {"errors": hub.card_errors, "warnings": []}


_REPO, _OID = r"(?P<repo>[\w.-]+/[\w.-]+)", r"(?P<oid>[0-9a-f]{64})"
_AT = rf"/api/models/{_REPO}"
_ROUTES = [  # methods, path, route, whether it writes
    ("POST", "/api/repos/create", _create, True),
    ("POST", "/api/validate-yaml", _valid, True),
    ("GET", _AT, _info, False),
    ("GET", rf"{_AT}/revision/(?P<revision>.+)", _info, False),
    ("GET", rf"{_AT}/tree/(?P<revision>.+)", _tree, False),
    ("POST", rf"{_AT}/preupload/(?P<revision>.+)", _preupload, True),
    ("POST", rf"{_AT}/commit/(?P<revision>.+)", _commit, True),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _batch, True),
    ("PUT", rf"/lfs/{_OID}", _upload, False),  # its URL is signed
    ("POST", rf"/verify/{_OID}", _verify, True),
    ("HEAD GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+|refs/pr/\d+)/(?P<name>.+)", _resolve, False),
    ("HEAD GET", rf"/cdn/{_OID}/(?P<name>.+)", _cdn, False),
]
