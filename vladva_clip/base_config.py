"""The JSON files of a base directory: config.json and the image processor's settings, checked."""

from pathlib import Path

from vladva_clip.backbones import FAMILIES
from vladva_clip.config import ImageConfig, positive, read_json

_SIZES = (  # what config.json may hold, at its top or in its parts; where one is absent transformers has a default
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
    *("image_size", "patch_size", "spatial_merge_size", "temporal_patch_size", "depth", "embed_dim", "num_heads"),
)


def read_base_config(directory: Path) -> dict:
    """Read a base's config.json, whose parts are objects and whose sizes are sizes.

    Raises:
        ValueError: the file, what was found and what was expected.
    """
    path = directory / "config.json"
    data = read_json(path)
    if not isinstance(data.get("model_type"), str):
        raise ValueError(
            f"{path}: the family (model_type) {data.get('model_type')!r} is not supported; known: {', '.join(FAMILIES)}"
        )
    parts = {"": data, "vision_config.": data.get("vision_config"), "text_config.": data.get("text_config") or {}}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{path}: {name.rstrip('.')} is {part!r:.60}, expected an object")
        for key in set(_SIZES) & set(part):
            positive(part, key, f"{path}: {name}")
    return data


def processor_config(directory: Path) -> dict:
    """Return the image processor's settings of a base directory (either of transformers' file names).

    Raises:
        ValueError: neither file, or no colours and resampling that a model can have.
    """
    path, data = _processor_file(directory)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: the image processor is {data!r:.60}, expected an object")
    try:
        ImageConfig.of_processor(data, 1, "squash")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return data


def _processor_file(directory: Path) -> tuple[Path, object]:
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (directory / name).is_file():
            data = read_json(directory / name)
            if key is None or key in data:
                return directory / name, data.get(key) if key else data
    raise ValueError(
        f"{directory} holds no preprocessor_config.json, nor a processor_config.json with an image_processor: the "
        "images' mean and std stand there, and a guess would change every feature; get the file from where the base is"
    )
