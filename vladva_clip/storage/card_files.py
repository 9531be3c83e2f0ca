"""The files of a model card in an adapter's directory, and the mark of a card that we wrote."""

from pathlib import Path

README, NOTES, RESULTS, RECORD = "README.md", "card.md", "results", "training_record.json"
MAX_CARD = 1 << 22  # bytes
MARK = "<!-- written by `vladva card`: change card.md, results/ or the config, and write it anew -->"


def is_ours(path: Path) -> bool:
    """Whether a card is one that `vladva card`, saving or a push wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(MAX_CARD)
