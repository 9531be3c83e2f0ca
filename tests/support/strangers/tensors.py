"""Hand-made attacks by tensors, and by the index of several weight files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from tests.support.strangers.cases import Attack, Case

WEIGHTS, INDEX = "base/model.safetensors", "base/model.safetensors.index.json"
SPARSE = 1_700_000_000  # bytes of a tensor that is all hole


def attacks() -> list[Attack]:
    """All of them."""
    return [*_weights(), *_adapters(), *_indices()]


def header(tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """The start of a safetensors file: name -> (dtype, shape, bytes)."""
    place, entries = 0, {}
    for name, (dtype, shape, size) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def changed(case: Case, file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Write a safetensors file anew after a change to its tensors, in place or as a return value."""
    tensors = load_file(case.root / file)
    result = change(tensors)
    case.put(file, save(tensors if result is None else result, {"format": "pt"}))


def _sparse(case: Case, file: str, name: str) -> None:
    """The honest tensors, and one of that name whose bytes are all hole."""
    path = case.root / file
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    end = len(data) - 8 - length
    entries[name] = {"dtype": "F32", "shape": [SPARSE // 4], "data_offsets": [end, end + SPARSE]}
    text = json.dumps(entries).encode()
    case.put(file, len(text).to_bytes(8, "little") + text + data[8 + length :])
    os.truncate(path, 8 + len(text) + end + SPARSE)


def _filled(value: float, only: str = "") -> Callable[[dict], dict]:
    return lambda tensors: {
        name: torch.full_like(tensor, value) if only in name and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _weights() -> list[Attack]:
    def of(name: str, change: Callable[[dict], Any], expect: str = "any") -> Attack:
        return Attack(f"weights: {name}", "base", lambda case: changed(case, WEIGHTS, change), expect)

    made = [of(f"all {value}", _filled(value)) for value in (0.0, 1e38, -1e38, 3e38, float("nan"), float("inf"), 1e-40)]
    made += [
        of(f"{only} {value}", _filled(value, only)) for only in ("embed", "norm", "q_proj") for value in (1e38, 0.0)
    ]
    made += [
        of("an unknown tensor", lambda t: t.update(unknown=torch.zeros(3)), "refused"),
        of("many unknown tensors", lambda t: t.update({f"x{n}": torch.zeros(1) for n in range(3000)}), "refused"),
        of("one is missing", lambda t: {n: v for n, v in t.items() if n != sorted(t)[3]}, "refused"),
        of(
            "all but the marks are missing",
            lambda t: {n: v for n, v in t.items() if "k_proj" in n or n.endswith("norm.weight")},
        ),
        of("other shapes", lambda t: {n: v.flatten() for n, v in t.items()}),
        of("transposed", lambda t: {n: v.T.contiguous() if v.ndim == 2 else v for n, v in t.items()}),
        of("in bf16", lambda t: {n: v.bfloat16() for n, v in t.items()}),
        of("in float64", lambda t: {n: v.double() for n, v in t.items()}),
        of("in int8", lambda t: {n: v.to(torch.int8) for n, v in t.items()}),
        of(
            "many layers",
            lambda t: t.update(
                {f"model.language_model.layers.{n}.self_attn.k_proj.weight": torch.zeros(1) for n in range(3000)}
            ),
        ),
        of("names with dots", lambda t: t.update({"." * 200: torch.zeros(1), "a" * 50_000: torch.zeros(1)})),
        of("names of objects", lambda t: t.update({"__class__.weight": torch.zeros(1), "config": torch.zeros(1)})),
        of(
            "a part of another kind",
            lambda t: t.update(
                {"timm_model.weight": torch.zeros(1), "model.vision_tower.timm_model.x": torch.zeros(1)}
            ),
        ),
        of("nothing", lambda t: {"x": torch.zeros(1)}),
        Attack("weights: a large unknown tensor", "base", lambda case: _sparse(case, WEIGHTS, "unknown"), "refused"),
        Attack("weights: a large bias", "base", lambda case: _sparse(case, WEIGHTS, "model.language_model.norm.bias")),
        Attack("weights: a large constant", "base", lambda case: _sparse(case, WEIGHTS, "model.x.inv_freq")),
        Attack(
            "weights: metadata that lies",
            "base",
            lambda case: case.put(WEIGHTS, save(load_file(case.root / WEIGHTS), {"format": "tf"})),
        ),
        Attack("weights: a pickle", "base", lambda case: case.put(WEIGHTS, case.trap()), "refused"),
    ]
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "NOTICE.txt",
        "adapter_model.bin",
        "training_args.bin",
        "tf_model.h5",
    ):
        made.append(
            Attack(
                f"a pickle {name} beside", "base", lambda case, name=name: case.put(f"base/{name}", case.trap()), "same"
            )
        )

    def alone(case: Case) -> None:
        case.put("base/pytorch_model.bin", case.trap())
        (case.root / WEIGHTS).unlink()

    return [*made, Attack("a pickle in place of weights", "base", alone, "refused")]


def _adapters() -> list[Attack]:
    lora, soft = "adapter/adapter_model.safetensors", "adapter/soft_prompt.safetensors"

    def of(file: str, name: str, change: Callable[[dict], Any], expect: str = "any") -> Attack:
        title = f"{Path(file).stem}: {name}"
        return Attack(title, "adapter", lambda case: changed(case, file, change), expect)

    made = []
    for file in (lora, soft):
        made += [of(file, f"all {value}", _filled(value)) for value in (1e38, -1e38, 3e38, 1e20, 0.0, float("nan"))]
        made += [of(file, "an unknown tensor", lambda t: t.update(unknown=torch.zeros(3)), "refused")]
        made += [of(file, "nothing", lambda t: {"x": torch.zeros(1)}, "refused")]
        made += [of(file, "in float64", lambda t: {n: v.double() for n, v in t.items()}, "refused")]
        made += [of(file, "other shapes", lambda t: {n: v.T.contiguous() for n, v in t.items()}, "refused")]
        made.append(
            Attack(
                f"{Path(file).stem}: large",
                "adapter",
                lambda case, file=file: _sparse(case, file, "unknown"),
                "refused",
            )
        )
    made += [
        of(lora, "half are missing", lambda t: {n: v for n, v in t.items() if "lora_A" in n}, "refused"),
        of(
            lora,
            "a weight of the base",
            lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(384, 32)}),
            "refused",
        ),
        of(lora, "other layers", lambda t: {n.replace("layers.0", "layers.7"): v for n, v in t.items()}, "refused"),
        of(
            lora,
            "the vision tower",
            lambda t: {n.replace("language_model", "vision_tower"): v for n, v in t.items()},
            "refused",
        ),
        of(
            lora,
            "dora vectors",
            lambda t: t.update({n.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(32) for n in list(t)}),
            "refused",
        ),
        of(lora, "names with dots", lambda t: {f"{n}..x": v for n, v in t.items()}, "refused"),
    ]
    return made


def _indices() -> list[Attack]:
    def of(name: str, change: Callable[[dict], Any], expect: str = "any") -> Attack:
        def apply(case: Case) -> None:
            case.copy("sharded", "base")
            data = case.read(INDEX)
            result = change(data)
            case.put(INDEX, data if result is None else result)

        return Attack(f"index: {name}", "base", apply, expect)

    def every(value: Any) -> Callable[[dict], None]:
        return lambda data: data["weight_map"].update(dict.fromkeys(data["weight_map"], value))

    first = "model-00001-of-00003.safetensors"
    names = (
        "../case/base/config.json",
        "/etc/passwd",
        "index.safetensors/..",
        "",
        ".",
        "NOTICE.txt",
        "model.safetensors",
    )
    names += (
        "https://example.org/x.safetensors",
        "org/x.safetensors",
        f"./{first}",
        f"../base/{first}",
        "a\0.safetensors",
    )
    made = [of(f"all in {name!r}", every(name), "refused") for name in names]
    made += [
        of(f"weight_map {value!r}", lambda data, v=value: data.update(weight_map=v), "refused")
        for value in ({}, [], None, 3)
    ]
    made += [of(f"all in {value!r}", every(value), "refused") for value in (None, 3, [first], {})]
    return [
        *made,
        of("as it should be", lambda data: None, "same"),
        of("all in one shard", every(first)),
        of(
            "thousands of shards",
            lambda d: d["weight_map"].update({f"x{n}": f"m{n}.safetensors" for n in range(9000)}),
            "refused",
        ),
        of("one more name", lambda d: d["weight_map"].update(unknown=first)),
        of("one name fewer", lambda d: d["weight_map"].pop(sorted(d["weight_map"])[0]) and None),
        of("metadata", lambda d: d.update(metadata=[1]), "any"),
        of("a huge total", lambda d: d.update(metadata={"total_size": 1 << 62}), "any"),
        of("itself", every("model.safetensors.index.json"), "refused"),
        of("deep", lambda d: "[" * 100_000, "refused"),
        of(
            "a shard twice in links",
            lambda d: d["weight_map"].update({n: "../" * 3 + first for n in d["weight_map"]}),
            "refused",
        ),
    ]
