"""Repositories in memory: branches of commits, each with all its files."""

import hashlib
import itertools
import json
from dataclasses import dataclass, field

COMMIT = "c" * 40  # of a repository that was there from the start
LARGE = (".safetensors", ".bin")  # what .gitattributes leaves to LFS
_count = itertools.count(1)


@dataclass(frozen=True)
class Commit:
    oid: str
    files: dict[str, bytes]
    message: str


@dataclass
class Repo:
    """`branches` holds each branch's commits, the newest last; pull requests are branches `refs/pr/N`."""

    id: str
    files: dict[str, bytes] = field(default_factory=dict)
    first: str | None = None
    private: bool = False
    branches: dict[str, list[Commit]] = field(init=False)

    def __post_init__(self) -> None:
        self.branches = {"main": [Commit(self.first or new_oid(), dict(self.files), "initial commit")]}

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch or an oid."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((commit for branch in self.branches.values() for commit in branch if commit.oid == revision), None)

    def commit(self, files: dict[str, bytes], message: str, branch: str = "main") -> Commit:
        made = Commit(new_oid(), files, message)
        self.branches[branch].append(made)
        return made

    def open_pr(self, files: dict[str, bytes], message: str) -> tuple[Commit, int]:
        number = len(self.branches)
        self.branches[f"refs/pr/{number}"] = []
        return self.commit(files, message, f"refs/pr/{number}"), number


def new_oid() -> str:
    return f"{next(_count):040x}"


def is_large(name: str) -> bool:
    return name.endswith(LARGE)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def etag(name: str, body: bytes) -> str:
    """As the Hub's: the sha256 of a large file, git's own id of another."""
    return sha256(body) if is_large(name) else hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def tree(files: dict[str, bytes]) -> list[dict]:
    """The listing of a commit, in the Hub's form."""
    entries = []
    for name, body in sorted(files.items()):
        entry = {"type": "file", "path": name, "size": len(body), "oid": etag(name, body)}
        if is_large(name):
            entry["lfs"] = {"oid": sha256(body), "size": len(body), "pointerSize": 127}
        entries.append(entry)
    return entries


def lines(body: bytes) -> list[dict]:
    """The operations of a commit: JSON, one a line."""
    return [json.loads(line) for line in body.splitlines() if line]
