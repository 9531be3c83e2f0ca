"""Keys of a base's files that several families read, with the values that each may have.

The bounds are far above published models. They reject configs that no machine could build.
"""

from vladva_clip.storage.config import RESAMPLING
from vladva_clip.storage.fields import FLAG, Check, Fields, Part, either, is_number, list_of, one_of, real, whole

MAX_LAYERS, MAX_WIDTH, MAX_HEADS = 256, 1 << 16, 1 << 10
MAX_VOCABULARY = 1 << 22  # rows of the token embedding
MAX_POSITIONS = 1 << 24  # tokens
MAX_SIDE, MAX_PATCH = 1 << 14, 1 << 10  # pixels
MAX_PATCHES = 1 << 13  # of one image, before merging; 448 pixels make 1,024

LAYERS, WIDTH, HEADS = whole(1, MAX_LAYERS), whole(1, MAX_WIDTH), whole(1, MAX_HEADS)
FEED_FORWARD = whole(1, 8 * MAX_WIDTH)
VOCABULARY, POSITIONS = whole(1, MAX_VOCABULARY), whole(1, MAX_POSITIONS)
SIDE, PATCH = whole(1, MAX_SIDE), whole(1, MAX_PATCH)
FRACTION, SPREAD = real(0, 1), real(0, 100)
TOKEN_ID = whole(-1, MAX_VOCABULARY)
TOKEN_IDS = either(TOKEN_ID, list_of(TOKEN_ID, 64))
ACTIVATION = one_of("silu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu")
SPECIAL_IDS: Fields = {
    "bos_token_id": TOKEN_ID.or_null(),
    "eos_token_id": TOKEN_IDS.or_null(),
    "pad_token_id": TOKEN_ID.or_null(),
}
_THETA, _FACTOR = real(1, 1e12), real(1e-3, 1e6)
# without `dynamic` and `longrope`, which make features depend on the row's length
ROPE: Fields = {
    "type": one_of("default", "linear", "llama3", "yarn", "mrope"),
    "rope_type": one_of("default", "linear", "llama3", "yarn", "mrope"),
    "rope_theta": _THETA,
    "mrope_section": list_of(whole(1, MAX_WIDTH), 3),
    "partial_rotary_factor": FRACTION,
    "original_max_position_embeddings": POSITIONS,
    **{name: _FACTOR for name in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")},
    **{name: _FACTOR.or_null() for name in ("attention_factor", "mscale", "mscale_all_dim")},
    "truncate": FLAG,
}
LLM: Fields = {
    "hidden_size": WIDTH,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS.or_null(),
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "hidden_act": ACTIVATION,
    "rms_norm_eps": FRACTION,
    "initializer_range": FRACTION,
    "attention_dropout": FRACTION,
    "tie_word_embeddings": FLAG,
    "use_cache": FLAG,
    "rope_theta": _THETA,
    "rope_scaling": Part(ROPE, optional=True),
    "rope_parameters": Part(ROPE, optional=True),
    **SPECIAL_IDS,
}

VISION_TOWER: Fields = {  # of CLIP and SigLIP
    "hidden_size": WIDTH,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_channels": one_of(3),
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": FRACTION,
    "attention_dropout": FRACTION,
}

LLAMA: Fields = {
    **LLM,
    "model_type": one_of("llama"),
    "head_dim": WIDTH.or_null(),
    "attention_bias": FLAG,
    "mlp_bias": FLAG,
}

_OF_BYTES = Check("1/255", lambda value: is_number(value) and abs(value - 1 / 255) < 1e-6)
_PIXELS = whole(1, 1 << 30)  # of a side, or of an image
_SIDES = ("height", "width", "shortest_edge", "longest_edge")


def _is_size(value: object) -> bool:
    return _PIXELS.holds(value) or (
        isinstance(value, dict) and all(key in _SIDES and _PIXELS.holds(item) for key, item in value.items())
    )


_SIZE = Check("pixels or an object of sides in pixels", _is_size)


def processor(classes: tuple[str, ...], image_processors: tuple[str, ...]) -> Fields:
    """Return a family's fields of preprocessor_config.json (and of `image_processor` in processor_config.json).

    Args:
        classes: allowed values of `processor_class`.
        image_processors: allowed values of `image_processor_type`.
    """
    return {
        "processor_class": one_of(*classes).or_null(),
        "image_processor_type": one_of(*image_processors).or_null(),
        "size": _SIZE.or_null(),
        "crop_size": _SIZE.or_null(),
        "resample": one_of(*RESAMPLING),
        "image_mean": list_of(real(-1e6, 1e6), 3),
        "image_std": list_of(real(0, 1e6), 3),
        "rescale_factor": _OF_BYTES,
        **{f"do_{name}": one_of(True).or_null() for name in ("resize", "normalize", "rescale")},
        **{f"do_{name}": FLAG.or_null() for name in ("center_crop", "convert_rgb")},
        "do_pad": one_of(False).or_null(),
        **{name: _PIXELS.or_null() for name in ("min_pixels", "max_pixels")},
        **{name: PATCH.or_null() for name in ("patch_size", "temporal_patch_size", "merge_size")},
    }
