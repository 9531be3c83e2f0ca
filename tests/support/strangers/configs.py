"""Hand-made attacks by a base's config.json and generation_config.json."""

from typing import Any

from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils.quantization_config import QuantizationMethod

from tests.support.strangers.cases import Attack, Case

CONFIG, GENERATION = "base/config.json", "base/generation_config.json"
BIG, NAN, INF = 10**9, float("nan"), float("inf")
SIZES = (
    *("text.num_hidden_layers", "text.vocab_size", "text.hidden_size", "text.intermediate_size"),
    *("text.num_attention_heads", "text.num_key_value_heads", "text.head_dim", "text.max_position_embeddings"),
    *("vision.patch_size", "vision.hidden_size"),
)
LLAVA_SIZES = (
    *("vision.num_hidden_layers", "vision.image_size", "vision.intermediate_size", "vision.num_attention_heads"),
    *("vision.num_channels", "vision.projection_dim"),
)
QWEN_SIZES = ("vision.depth", "vision.embed_dim", "vision.num_heads", "vision.mlp_ratio", "vision.in_chans")
QWEN_SIZES += ("vision.spatial_merge_size", "vision.temporal_patch_size")
NOT_SIZES = (20000, BIG, 1 << 62, 0, -1, 1.5, 2.0, True, "2", None, [2], {"a": 2}, 7)
NUMBERS = ("text.rms_norm_eps", "text.initializer_range", "text.attention_dropout", "vision.layer_norm_eps")
NUMBERS += ("text.rope_theta", "vision.attention_dropout", "vision.initializer_range")
NOT_NUMBERS = (NAN, INF, -1.0, 0, 1e308, "1e-6", None, [], True)
ODD = (None, True, 3, -1.5, "x", "", [], ["x"], {}, {"a": {"b": 1}})
KEYS = (
    *("architectures", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id", "use_cache", "id2label"),
    *("num_labels", "problem_type", "return_dict", "output_attentions", "output_hidden_states", "is_encoder_decoder"),
    *("chunk_size_feed_forward", "attention_bias", "text.attention_bias", "mlp_bias", "pretraining_tp", "layer_types"),
    *("sliding_window", "use_sliding_window", "text.layer_types", "text.pretraining_tp", "transformers_version"),
    *("vision_config", "text_config", "projector_hidden_act", "multimodal_projector_bias", "image_seq_length"),
    *("vision_feature_layer", "vision_feature_select_strategy", "image_token_index", "image_token_id", "torchscript"),
)
KERNELS = ("org/kernel", "org/kernel@main:flash", "kernels-community/flash-attn", "paged|flash_attention_2", "flex", "")
ROPES = (*ROPE_INIT_FUNCTIONS, "default", "mrope", "su", "none", "", "../x")
BAD_ROPES: tuple[dict[str, Any], ...] = (
    {},
    {"factor": 1e300},
    {"factor": -1},
    {"factor": "8"},
    {"factor": 8.0, "original_max_position_embeddings": 0},
    {"factor": 8.0, "original_max_position_embeddings": 1 << 60, "beta_fast": 0, "beta_slow": 0},
    {"factor": 8.0, "short_factor": [1.0] * 30000, "long_factor": [1.0] * 30000},
    {"factor": 8.0, "short_factor": [], "long_factor": [0.0] * 4, "attention_factor": NAN},
    {"factor": 8.0, "low_freq_factor": 0, "high_freq_factor": 0, "original_max_position_embeddings": 8},
    {"factor": 2.0, "mrope_section": [1 << 20, 1, 1], "rope_theta": 0},
    {"factor": 2.0, "mrope_section": [-1, 3, 2], "rope_theta": -5.0},
    {"factor": 2.0, "mrope_section": [], "rope_theta": "1e4"},
    {"factor": 2.0, "mrope_section": "x", "partial_rotary_factor": 0.0},
    {"factor": 2.0, "partial_rotary_factor": 1e9},
)
TIMM = {"model_type": "timm_wrapper", "architecture": "resnet18", "model_args": {"checkpoint_path": "NOTICE.txt"}}


def attacks() -> list[Attack]:
    """All of them."""
    return [*_sizes(), *_values(), *_names(), *_nested(), *_generation()]


def one(key: str, value: Any, expect: str = "any", file: str = CONFIG, families: Any = None) -> Attack:
    """A file in which one value is another."""
    name = f"{file.partition('/')[2].removesuffix('.json')} {key} = {value!r:.60}"
    more = {"families": families} if families else {}
    return Attack(name, file.partition("/")[0], lambda case: case.set(file, (key, value)), expect, **more)


def _sizes() -> list[Attack]:
    kinds = ((SIZES, None), (LLAVA_SIZES, ("llava",)), (QWEN_SIZES, ("qwen2_vl",)))
    made = [one(key, value, families=only) for keys, only in kinds for key in keys for value in NOT_SIZES]
    return [*made, Attack("both depths huge", "base", lambda case: _both_depths(case))]


def _both_depths(case: Case) -> None:
    vision = "vision.num_hidden_layers" if case.family == "llava" else "vision.depth"
    case.set(CONFIG, ("text.num_hidden_layers", 5000), (vision, 5000))


def _values() -> list[Attack]:
    made = [one(key, value) for key in NUMBERS for value in NOT_NUMBERS]
    made += [one(key, value) for key in KEYS for value in ODD]
    layers = (-99, 0, 3, 4, BIG, [-2] * 5000, [0, BIG], [[-2]], [], -2.0, [True], list(range(-3, 4)))
    made += [one("vision_feature_layer", value, families=("llava",)) for value in layers]
    acts = ("", "x", "prelu", "xielu", "linear", "relu6", None, ["gelu", {}], "torch.nn.Flatten", 3)
    made += [one(key, act) for key in ("text.hidden_act", "vision.hidden_act") for act in acts]
    ropes = [{"rope_type": kind, **more} for kind in ROPES for more in BAD_ROPES]
    made += [one(f"text.{key}", rope) for key in ("rope_scaling", "rope_parameters") for rope in ropes]
    old = [{"type": kind, "factor": 4.0} for kind in ROPES]
    return made + [one("text.rope_scaling", rope) for rope in [*old, *ODD]]


def _names() -> list[Attack]:
    made = []
    for method in QuantizationMethod:
        settings = {"quant_method": method.value, "bits": 4, "load_in_4bit": True, "group_size": 128}
        made += [one(f"{where}quantization_config", settings, "refused") for where in ("", "text.")]
    made += [one("quantization_config", value) for value in ODD]
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation", "use_kernels"):
        made += [one(f"{where}{key}", name) for where in ("", "text.", "vision.") for name in (*KERNELS, {"": "org/k"})]
    for key in ("transformers_weights", "_name_or_path", "model_args", "adapter", "base_model_name_or_path"):
        made += [one(key, name) for name in ("org/other", "../../outside", "NOTICE.txt", "/etc/passwd", 3, ["x"], {})]
    for key in ("dtype", "torch_dtype", "text.dtype", "vision.torch_dtype"):
        kinds = (
            "auto",
            "float64",
            "int8",
            "torch.float16",
            "os",
            "nn.Linear",
            "",
            "__class__",
            "float8_e4m3fn",
            "bool",
        )
        made += [one(key, kind) for kind in (*kinds, 32, {"": "float16"}, None)]
    code = {name: "NOTICE.Model" for name in ("AutoConfig", "AutoModel", "AutoModelForImageTextToText")}
    code |= {"AutoTokenizer": ["org/repo--NOTICE.Tokenizer", None]}
    return made + [one(f"{where}auto_map", code) for where in ("", "text.", "vision.")]


def _nested() -> list[Attack]:
    """Models of other kinds in the places where a config has parts; what they name is beside it, and a pickle."""
    nested = {
        "timm with a pickle": TIMM,
        "timm from the Hub": {**TIMM, "model_args": {"pretrained": True}},
        "timm backbone": {"model_type": "timm_backbone", "backbone": "resnet18", "use_timm_backbone": True},
        "a backbone of its own": {"model_type": "detr", "backbone_config": TIMM, "use_timm_backbone": False},
        "a named backbone": {"model_type": "detr", "backbone": "org/x", "use_pretrained_backbone": True},
        "no model type": {"hidden_size": 24},
        "a path": {"model_type": "../../outside"},
        "code": {"model_type": "remote", "auto_map": {"AutoConfig": "NOTICE.Config"}},
        "another of the house": {"model_type": "llava"},
        "many experts": {"model_type": "mixtral", "num_local_experts": 10**6, "num_hidden_layers": 1000},
    }
    made = []
    for name, part in nested.items():
        for place in ("vision_config", "text_config", "audio_config", "backbone_config", "vision_config.vision_config"):
            made.append(Attack(f"{name} as {place}", "base", _nesting(place, part)))
    return made


def _nesting(place: str, part: dict[str, Any]) -> Any:
    def nest(case: Case) -> None:
        case.set(CONFIG, (place, part))
        case.put("base/NOTICE.txt", case.trap())

    return nest


def _generation() -> list[Attack]:
    keys = ("eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens", "max_length", "max_new_tokens")
    keys += ("transformers_version", "do_sample", "temperature", "num_beams", "cache_implementation", "stop_strings")
    keys += ("guidance_scale", "watermarking_config", "compile_config", "custom_generate", "assistant_confidence")
    values = (-1, BIG, 1 << 62, NAN, "x", [[1]], list(range(20000)), {"a": 1}, None, True)
    return [one(key, value, "same", GENERATION) for key in keys for value in values]
