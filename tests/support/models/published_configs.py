"""config.json of the built-in models' bases as published on the Hub, with the many keys that decide nothing.

The files are named after the models. `-resaved` is the form in which transformers 4.52 and later write Qwen2-VL and
Qwen2.5-VL: the LLM's settings in a part of their own, and at the top as well.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "fixtures" / "published_configs"
_FILES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PUBLISHED = {name: config for name, config in _FILES.items() if not name.endswith("-resaved")}
RESAVED = {name.removesuffix("-resaved"): config for name, config in _FILES.items() if name.endswith("-resaved")}
