"""Admit the JSON files that describe a base: config.json and the settings of image processor and generation.

Only the keys that the family lists are returned; transformers sees nothing else of these files.
"""

from pathlib import Path
from typing import Any

from vladva_clip.encoder.backbones import FAMILIES, backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.config_fields import MAX_POSITIONS, MAX_VOCABULARY, SPECIAL_IDS
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.base import CONFIG, BaseFiles
from vladva_clip.storage.config import ImageConfig, nearest
from vladva_clip.storage.fields import FLAG, Fields, admit, list_of, one_of, real, refuse_acting, text, whole

GENERATION = "generation_config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_GENERATION: Fields = {
    **SPECIAL_IDS,
    "suppress_tokens": list_of(whole(0, MAX_VOCABULARY), 1 << 14).or_null(),
    **{name: whole(0, MAX_POSITIONS).or_null() for name in ("max_length", "max_new_tokens", "top_k")},
    **{name: real(0, 1e6).or_null() for name in ("temperature", "top_p", "repetition_penalty")},
    **{name: FLAG.or_null() for name in ("do_sample", "use_cache")},
    "transformers_version": text(64),
}


def read_base_config(base: BaseFiles) -> dict[str, Any]:
    """Return the keys of a base's config.json that its family accepts, checked: parts are objects, sizes are positive.

    What the file leaves out and its family implies is stated.

    Raises:
        ValueError: the file, what was found and what was expected; a key that would choose code, files or kernels.
    """
    data, path = base.config, base.path(CONFIG)
    family = family_of(data, path)
    fields = dict(family.config_fields)
    if data.get("text_config"):  # older files repeat the LLM's keys at the top level, where they have no effect
        flat = set(fields["text_config"].fields) - {"model_type", "tie_word_embeddings", *SPECIAL_IDS}
        fields = {key: field for key, field in fields.items() if key not in flat}
    return {**family.implied_config, **admit(data, fields, f"{path}: ")}


def vocabulary_size(base_config: dict[str, Any]) -> int | None:
    """Return the rows of the token embedding that a config.json states; None if it relies on transformers' default."""
    return base_config.get("text_config", base_config).get("vocab_size")


def ties_head(base_config: dict[str, Any]) -> bool:
    """Return whether a config.json ties the head to the token embedding."""
    own = base_config.get("tie_word_embeddings")
    return bool(base_config.get("text_config", {}).get("tie_word_embeddings") if own is None else own)


def family_of(data: dict[str, Any], path: Path) -> type[Backbone]:
    """Return the backbone class of the family that a config.json names.

    Args:
        data: the file's content.
        path: the file, for errors.

    Raises:
        ValueError: a family that we don't support.
    """
    found = data.get("model_type")
    if not isinstance(found, str) or found not in FAMILIES:
        hint = nearest(found, FAMILIES) if isinstance(found, str) else f"known: {', '.join(FAMILIES)}"
        raise ValueError(f"{path}: the family (model_type) {found!r:.80} is not supported; {hint}")
    return backbone_class(found)


def family_in(base: BaseFiles) -> type[Backbone]:
    """Return the backbone class of the family that a base's config.json names; raises ValueError as `family_of`."""
    return family_of(base.config, base.path(CONFIG))


def processor_config(base: BaseFiles) -> dict[str, Any]:
    """Return the image processor's settings, from whichever of transformers' two files has them.

    Raises:
        ValueError: neither file, invalid colors or resampling, or an image processor of another family.
    """
    path, data = _processor_file(base)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: the image processor is {data!r:.60}, expected an object")
    try:
        ImageConfig.of_processor(data, 1, "squash")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return admit(data, family_in(base).processor_fields, f"{path}: ")


def processor_settings(base: BaseFiles) -> dict[str, Any]:
    """Return the settings of processor_config.json besides the image processor; empty without the file.

    Raises:
        ValueError: another family's processor, or values of the wrong kind.
    """
    refuse_links_out(base.directory, (PROCESSOR,))
    if not base.has(PROCESSOR):
        return {}
    family = family_in(base)
    shared = {"processor_class", "image_seq_length"} & set(family.processor_fields)
    fields: Fields = {
        **{key: family.processor_fields[key] for key in shared},
        "image_token": one_of(family.visual_span.slot),
        "patch_size": whole(1, 1 << 10),
        "num_additional_image_tokens": whole(0, 1 << 10),
        "image_seq_len": whole(1, 1 << 15),
        "vision_feature_select_strategy": one_of("default", "full"),
    }
    return admit(base.json(PROCESSOR), fields, f"{base.path(PROCESSOR)}: ")


def generation_config(base: BaseFiles) -> dict[str, Any]:
    """Return a base's generation settings; without the file, the special ids of its config.json.

    Raises:
        ValueError: values that transformers can't use, or code that the base brings along.
    """
    refuse_links_out(base.directory, (GENERATION,))
    if not base.has(GENERATION):
        config = read_base_config(base)
        return {key: config[key] for key in SPECIAL_IDS if key in config}
    return admit(base.json(GENERATION), _GENERATION, f"{base.path(GENERATION)}: ")


def _processor_file(base: BaseFiles) -> tuple[Path, object]:
    """The file with the image processor's settings, and these."""
    refuse_links_out(base.directory, (PREPROCESSOR, PROCESSOR))
    for name, key in ((PREPROCESSOR, None), (PROCESSOR, "image_processor")):
        if base.has(name):
            data = base.json(name)
            refuse_acting(set(data), data, f"{base.path(name)}: ")
            if key is None or key in data:
                return base.path(name), data.get(key) if key else data
    raise ValueError(
        f"{base.directory} holds no preprocessor_config.json, nor a processor_config.json with an image_processor: "
        "these files state the images' mean and std, and guessing them would change every feature; get the file from "
        "where the base came from"
    )
