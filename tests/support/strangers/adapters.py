"""Hand-made attacks by an adapter's own files."""

import dataclasses
from typing import Any

from peft import PeftType

from tests.support.strangers.cases import Attack
from tests.support.strangers.configs import BIG, NAN, ODD, one
from tests.support.strangers.tokenizers import SLOW
from vladva_clip.storage.encoding_config import EncodingConfig

LORA, CONFIG, MARKER = "adapter/adapter_config.json", "adapter/vladva_config.json", "adapter/open_clip_config.json"
INITS = (
    True,
    False,
    "gaussian",
    "olora",
    "pissa",
    "pissa_niter_4000",
    "corda",
    "eva",
    "loftq",
    "orthogonal",
    "lora_ga",
)
INITS += ("mica", "pissa_niter_x", "pissa_niter_1000000000", "", "x", None, 3, [], {"a": 1})
# what changes nothing of what the stored LoRA means, or is refused
NEUTRAL: dict[str, tuple] = {
    "init_lora_weights": INITS,
    "eva_config": ({}, {"rho": 2.0}, {"tau": "x"}, 3),
    "corda_config": ({}, {"corda_method": "kpm", "cache_file": "NOTICE.txt", "covariance_file": "/etc/passwd"}, "x"),
    "loftq_config": ({}, {"loftq_bits": 4, "loftq_iter": BIG}, {"loftq_bits": 3}, {"a": 1}, 3, "x"),
    "lora_ga_config": ({}, {"direction": "ArBr", "scale": "stable"}, {"cache_file": "NOTICE.txt"}, 3),
    "runtime_config": ({}, {"ephemeral_gpu_offload": True}, None, 3),
    "inference_mode": (True, False, None, "x", 3),
    "task_type": ("CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION", "x", 3, []),
    "base_model_name_or_path": ("org/other", "/etc/passwd", "", None, 3, ["x"]),
    "revision": ("main", "../..", None, 3),
    "auto_mapping": ({"base_model_class": "os", "parent_library": "subprocess"}, {}, "x", 3),
    "peft_version": ("99.0", "x", None, 3, "9" * 500),
    "megatron_core": ("this", "antigravity", "../x", 3, None),
    "lora_dropout": (0.0, 0.5, 0.999),
}
LOAD: dict[str, tuple] = {
    "r": (0, -1, 20000, BIG, 1.5, "4", True, None, [4]),
    "lora_alpha": (0, -8, 1e308, NAN, "8", None, True, BIG),
    "lora_dropout": (1.0, 2, -1, "x", NAN),
    "target_modules": (
        *("all-linear", "", ".*", "x", "(", None, [], ["q_proj"], [""], ["x"] * 5000, [3], {"q_proj": 1}, 3, "lm_head"),
        *("embed_tokens", ["embed_tokens", "lm_head"], ["q_proj", "v_proj"], *SLOW, "(" * 1000, "a" * 100_000),
        *(r"(.*)*\.q_proj", r"(([a-z_.0-9]+)+)+\.(q_proj|v_proj)!", r"(?:\w+\.?)*?(?:q_proj|v_proj)x"),
    ),
    "exclude_modules": ("(.*)*x", r"(([a-z_.0-9]+)+)+!", [], ["q_proj"], 3, "(", ["x"] * 5000),
    "rank_pattern": (
        *({"never": 20000}, {"never": BIG}, {r"(([a-z_.0-9]+)+)+!": 4}, {"(": 4}, {"q_proj": 20000}, {"q_proj": 0}),
        *({"q_proj": "4"}, {f"x{number}": 4 for number in range(9000)}, [], 3, None, {"": 4}, {"(.*)*x": 4}),
    ),
    "alpha_pattern": ({r"(([a-z_.0-9]+)+)+!": 4}, {"(": 4}, {"q_proj": 1e308}, {"q_proj": "x"}, [], 3, {"": 4}),
    "layers_to_transform": ([0], [BIG], list(range(20000)), -1, 1.5, "x", []),
    "layers_pattern": ("layers", "(", r"(([a-z_.0-9]+)+)+!", ["x"] * 5000, 3, r"((\w*)*)*"),
    "layer_replication": ([[0, 2], [0, 2]], [[0, BIG]], [[0, 2]] * 5000, [], "x", 3),
    "modules_to_save": (["lm_head"], ["embed_tokens"], ["vision_tower"], ["x"], "x", 3, []),
    "target_parameters": (["q_proj.weight"], ["experts.gate_up_proj"], ["weight"], [], "x", 3, [r"(.*)*x"]),
    "trainable_token_indices": ([0], [BIG], {"embed_tokens": [0]}, [], "x", list(range(20000))),
    "monteclora_config": ({}, {"num_samples": BIG}, {"monteclora_n": 20000}, {"a": 1}, 3, "x"),
    "velora_config": ({}, {"num_groups": BIG}, {"a": 1}, 3, "x"),
    "kasa_config": ({}, {"a": 1}, 3, "x"),
    "arrow_config": ({}, {"top_k": BIG}, {"a": 1}, 3),
    "use_bdlora": ({}, {"nblocks": BIG}, True, 3, "x"),
    "alora_invocation_tokens": ([1], [], list(range(20000)), "x"),
    "megatron_config": ({"a": 1}, {}, 3),
    "bias": ("all", "lora_only", "x", None, 3),
    "qalora_group_size": (0, -1, BIG, "x"),
    "ensure_weight_tying": (True, "x"),
    "fan_in_fan_out": (True, "x", 3),
}
FLAGS = ("use_dora", "use_rslora", "use_qalora", "lora_bias")


def attacks() -> list[Attack]:
    """All of them."""
    return [*_lora(), *_config(), *_marker(), *_card()]


def _lora() -> list[Attack]:
    made = [one(key, value, "same", LORA) for key, values in NEUTRAL.items() for value in values]
    made += [one(key, value, "any", LORA) for key, values in LOAD.items() for value in values]
    made += [one(key, value, "any", LORA) for key in FLAGS for value in (True, "x", 3, None)]
    made += [one("peft_type", kind.value, "refused" if kind.value != "LORA" else "same", LORA) for kind in PeftType]
    made += [one("peft_type", kind, "any", LORA) for kind in ODD]
    made += [one(key, value, "any", LORA) for key in ("a new setting", "__class__", "self") for value in ODD[:4]]
    huge = (("r", 20000), ("rank_pattern", {"proj": 4}))
    made.append(Attack("a rank that no layer has", "adapter", lambda case: case.set(LORA, *huge)))
    never = (("rank_pattern", {"never": 20000}), ("alpha_pattern", {"never": 1}))
    return [*made, Attack("a pattern that matches nothing", "adapter", lambda case: case.set(LORA, *never), "same")]


def _config() -> list[Attack]:
    keys = ("base", "prompt", "image", "embed_dim", "context_length", "dtype", "logit_scale", "format_version")
    keys += ("base.id", "base.family", "base.fingerprint", "base.revision", "image.size", "image.mean", "image.std")
    keys += ("image.interpolation", "image.resize_mode", "image.fill_color", "prompt.num_image_soft_tokens")
    keys += ("prompt.image_template", "prompt.text_template", "written_by", "extra", "prompt.num_text_soft_tokens")
    keys += tuple(
        f"prompt.{name}"
        for name in ("image_prompt", "text_prompt", "soft_slots", "second_turn", "caption_ids", "visual_span", "clean")
    )
    keys += ("prompt.tokens_template", "base.profile", "encoding")
    keys += tuple(f"encoding.{field.name}" for field in dataclasses.fields(EncodingConfig))
    made = [one(key, value, file=CONFIG) for key in keys for value in (*ODD, BIG, 1 << 62, NAN)]
    for key, number in (("image.mean", 1e308), ("image.std", 1e-300), ("image.std", 1e308), ("image.mean", -1e30)):
        made.append(one(key, [number] * 3, file=CONFIG))
    for size in (1, 13, 28, 55, 57, 112, 224, 1 << 14, 16380, 1 << 20):
        made.append(one("image.size", size, file=CONFIG))
    long, many = "a" * 900_000, "a b " * 200_000
    for hole, key in (
        ("{visual}", "prompt.image_template"),
        ("{caption}", "prompt.text_template"),
        ("{caption}", "prompt.second_turn"),
        ("", "prompt.text_prompt"),
    ):
        texts = (
            hole,
            hole * 2,
            "",
            f"{long}{hole}",
            f"{many}{hole}",
            f"<image>{hole}</s>",
            f"{hole}\0",
            f"{{0}}{hole}",
        )
        texts += (
            f"<image><image>{hole}",
            f"<|image_pad|>{hole}<|im_end|>",
            f"{hole} {{x}}",
            f"{hole}\ud800",
            "{{" + hole,
        )
        made += [one(key, text, file=CONFIG) for text in texts]
    ids = (
        "/etc",
        "local-dir:/",
        "local-dir:/proc/self",
        "local-dir:~",
        "local-dir:.",
        "hf-hub:org/x",
        "org/x",
    )
    made += [one("base.id", name, file=CONFIG) for name in (*ids, "local-dir:case/base", "a" * 3000)]
    made += [one("embed_dim", value, file=CONFIG) for value in (1, 31, 33, 64, 1 << 16, 1 << 17)]
    made += [one("context_length", value, file=CONFIG) for value in (1, 2, 1 << 20, (1 << 20) + 1)]
    made += [one("logit_scale", value, file=CONFIG) for value in (80.0, 81.0, -80, 1e300)]
    return made


def _marker() -> list[Attack]:
    made = [one(key, value, "same", MARKER) for key in ("model_cfg", "preprocess_cfg", "vladva_clip") for value in ODD]
    deep = {"vision_cfg": {"timm_model_name": "resnet18", "timm_model_pretrained": True, "layers": BIG}}
    deep |= {"text_cfg": {"hf_model_name": "org/x", "hf_tokenizer_name": "org/y"}}
    return [*made, *(one(f"model_cfg.{key}", value, "same", MARKER) for key, value in deep.items())]


def _card() -> list[Attack]:
    def putting(name: str, file: str, data: Any) -> Attack:
        return Attack(f"card: {name}", "adapter", lambda case: case.put(f"adapter/{file}", data), entry="card")

    made = [
        putting(f"record {value!r:.40}", "training_record.json", value) for value in (*ODD, {"recipe": {"name": ODD}})
    ]
    made.append(
        putting("record of templates", "training_record.json", {"recipe": {"name": "{{x}} `|\n# a", "\0": "\ud800"}})
    )
    metrics = ({}, {"a": NAN}, {"a": "x"}, {"a": {"b": 1}}, {"a": BIG}, {f"m{number}": 0.5 for number in range(3000)})
    made += [
        putting(f"metrics {value!r:.40}", "results/x.json", {"dataset": "d", "metrics": value, "task": "t"})
        for value in metrics
    ]
    made += [putting(f"results {value!r:.40}", "results/x.json", value) for value in ODD]
    made += [
        putting(f"dataset {value!r:.40}", "results/x.json", {"dataset": value, "metrics": {"a": 1.0}}) for value in ODD
    ]
    texts = (
        "---\nlicense: x\n---\n",
        "## " * 200_000,
        "\n## a" * 100_000,
        "# " + "#" * 500_000,
        "\ud800",
        "\0",
        b"\xff" * 9999,
    )
    texts += (
        "---\n" * 9999,
        "&a [*a, *a]\n",
        "!!python/object/apply:os.system ['x']",
        "## " + " " * 400_000 + "x",
    )
    made.append(
        Attack("card: a large text", "adapter", lambda c: c.put("adapter/card.md", "a" * (64 << 20)), entry="card")
    )
    return made + [putting(f"text {text[:20]!r}", "card.md", text) for text in texts]
