"""The files of a model card in an adapter's directory, and the mark of a card that this package wrote."""

from pathlib import Path

README, NOTES, RESULTS, RECORD = "README.md", "card.md", "results", "training_record.json"
MAX_CARD = 1 << 22  # bytes
MARK = "<!-- written by `vladva card`: change card.md, results/ or the config, and write it anew -->"


def is_ours(path: Path) -> bool:
    """Whether `vladva card`, a save or a push wrote this card."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(MAX_CARD)
