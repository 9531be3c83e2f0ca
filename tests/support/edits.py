"""Changes to files in place."""

import json
from pathlib import Path


def edit_json(path: Path, **changes: object) -> None:
    """Set keys at the top level of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
