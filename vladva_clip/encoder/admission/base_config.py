"""The JSON files that say what a base is: config.json, the image processor's and the generation's settings, admitted.

What is returned holds the keys that the family lists, and no others: transformers sees nothing else of these files.
"""

from pathlib import Path
from typing import Any

from vladva_clip.encoder.backbones import FAMILIES, backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.config_fields import MAX_POSITIONS, MAX_VOCABULARY, SPECIAL_IDS
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.config import ImageConfig, nearest, read_json
from vladva_clip.storage.fields import FLAG, Fields, admit, list_of, one_of, real, refuse_acting, text, whole

CONFIG, GENERATION = "config.json", "generation_config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_GENERATION: Fields = {
    **SPECIAL_IDS,
    "suppress_tokens": list_of(whole(0, MAX_VOCABULARY), 1 << 14).or_null(),
    **{name: whole(0, MAX_POSITIONS).or_null() for name in ("max_length", "max_new_tokens", "top_k")},
    **{name: real(0, 1e6).or_null() for name in ("temperature", "top_p", "repetition_penalty")},
    **{name: FLAG.or_null() for name in ("do_sample", "use_cache")},
    "transformers_version": text(64),
}


def read_base_config(directory: Path) -> dict[str, Any]:
    """Read a base's config.json: what its family lists of it, whose parts are objects and whose sizes are sizes.

    Raises:
        ValueError: the file, what was found and what was expected; a key that would choose code, files or kernels.
    """
    path = directory / CONFIG
    refuse_links_out(directory, (CONFIG,))
    data = read_json(path)
    fields = dict(family_of(data, path).config_fields)
    if data.get("text_config"):  # then the LLM's keys at the top, as older files have them, decide nothing
        flat = set(fields["text_config"].fields) - {"model_type", "tie_word_embeddings", *SPECIAL_IDS}
        fields = {key: field for key, field in fields.items() if key not in flat}
    return admit(data, fields, f"{path}: ")


def vocabulary_size(base_config: dict[str, Any]) -> int | None:
    """Return the rows of the token embedding that a config.json states; None where it leaves them to transformers."""
    return base_config.get("text_config", base_config).get("vocab_size")


def family_of(data: dict[str, Any], path: Path) -> type[Backbone]:
    """Return the family that the content of a config.json names.

    Raises:
        ValueError: none of ours.
    """
    found = data.get("model_type")
    if not isinstance(found, str) or found not in FAMILIES:
        hint = nearest(found, FAMILIES) if isinstance(found, str) else f"known: {', '.join(FAMILIES)}"
        raise ValueError(f"{path}: the family (model_type) {found!r:.80} is not supported; {hint}")
    return backbone_class(found)


def processor_config(directory: Path) -> dict[str, Any]:
    """Return the image processor's settings of a base directory (either of transformers' file names).

    Raises:
        ValueError: neither file, no colors and resampling that a model can have, or an image processor that isn't the
            family's.
    """
    path, data = _processor_file(directory)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: the image processor is {data!r:.60}, expected an object")
    try:
        ImageConfig.of_processor(data, 1, "squash")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return admit(data, family_in(directory).processor_fields, f"{path}: ")


def processor_settings(directory: Path) -> dict[str, Any]:
    """Return what processor_config.json says beside the image processor; empty without the file.

    Raises:
        ValueError: another family's processor, or values of another kind.
    """
    path = directory / PROCESSOR
    refuse_links_out(directory, (PROCESSOR,))
    if not path.is_file():
        return {}
    fields: Fields = {
        "processor_class": family_in(directory).processor_fields["processor_class"],
        "image_token": one_of(family_in(directory).visual_span.slot),
        "patch_size": whole(1, 1 << 10),
        "num_additional_image_tokens": whole(0, 1 << 10),
        "vision_feature_select_strategy": one_of("default", "full"),
    }
    return admit(read_json(path), fields, f"{path}: ")


def generation_config(directory: Path) -> dict[str, Any]:
    """Return a base's settings for generation; without the file, the special ids of its config.json.

    Raises:
        ValueError: values that transformers can't use, or code of the base's own.
    """
    path = directory / GENERATION
    refuse_links_out(directory, (GENERATION,))
    if not path.is_file():
        config = read_base_config(directory)
        return {key: config[key] for key in SPECIAL_IDS if key in config}
    return admit(read_json(path), _GENERATION, f"{path}: ")


def family_in(directory: Path) -> type[Backbone]:
    """Return the family that a base's config.json names; raises ValueError as `family_of`."""
    refuse_links_out(directory, (CONFIG,))
    return family_of(read_json(directory / CONFIG), directory / CONFIG)


def _processor_file(directory: Path) -> tuple[Path, object]:
    refuse_links_out(directory, (PREPROCESSOR, PROCESSOR))
    for name, key in ((PREPROCESSOR, None), (PROCESSOR, "image_processor")):
        if (directory / name).is_file():
            data = read_json(directory / name)
            refuse_acting(set(data), data, f"{directory / name}: ")
            if key is None or key in data:
                return directory / name, data.get(key) if key else data
    raise ValueError(
        f"{directory} holds no preprocessor_config.json, nor a processor_config.json with an image_processor: the "
        "images' mean and std stand there, and a guess would change every feature; get the file from where the base is"
    )
