"""A Hub cache that fills itself: each published repository is written when it is first asked for."""

from pathlib import Path

from tests.support.published import authors, repositories

NAMES = tuple(repositories.REPOSITORIES)


class Shelf:
    """A hand-made Hub cache.

    Args:
        cache_dir: where the cache is.
        tokenizer: the directory with the real tokenizer's files.
    """

    def __init__(self, cache_dir: Path, tokenizer: Path) -> None:
        self.cache_dir = cache_dir
        self.tokenizer = tokenizer
        self._snapshots: dict[str, Path] = {}

    def directory(self, name: str) -> Path:
        """Return the snapshot of a profile's repository."""
        if name not in self._snapshots:
            published = repositories.REPOSITORIES[name]
            self._snapshots[name] = repositories.put(self.cache_dir, published, self.tokenizer)
        return self._snapshots[name]

    def authors(self, name: str) -> authors.Authors:
        """Load a profile's repository as its authors do."""
        return authors.Authors(self.directory(name), authors.WAYS[name])
