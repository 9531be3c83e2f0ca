"""Warnings logged once per model name: the weakness of a bare LVLM, a license without commercial use."""

import logging

from vladva_clip.sources import registry
from vladva_clip.sources.locate import CONFIG_FILE, Source

_log = logging.getLogger(__name__)
_announced: set[str] = set()


def announce(model_name: str, source: Source, base_id: str) -> None:
    """Log once per name what a user should know about a model (`source`, over the base `base_id`)."""
    if model_name in _announced:
        return
    _announced.add(model_name)
    license = source.profile.license if source.profile else registry.license_of(base_id)
    if license and registry.forbids_commercial_use(license):
        _log.warning("%s: the license of %s, %s, allows no commercial use", model_name, base_id, license)
    if source.is_adapter or source.is_export or source.profile or source.config_file == CONFIG_FILE:
        return
    _log.warning(
        "%s: training-free mode, the bare %s with hand-written prompts; its embeddings are weak without an adapter "
        "trained with the recipe",
        model_name,
        source.base_id,
    )
