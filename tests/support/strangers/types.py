"""Every model type, tokenizer and processor that the installed transformers knows, in every place that names one."""

from collections.abc import Iterator
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from tests.support.strangers.cases import FAMILIES, Attack, Case
from tests.support.strangers.configs import CONFIG
from tests.support.strangers.tokenizers import IMAGES, PROCESSOR, SETTINGS

PLACES = ("vision_config", "text_config", "")
FOREIGN = ("audio_config", "backbone_config", "vision_config.backbone_config", "text_config.vision_config")
# (family, place): what an honest config.json may say there
OWN = {("llava", ""): {"llava"}, ("qwen2_vl", ""): {"qwen2_vl"}, ("llava", "vision_config"): {"clip_vision_model"}}
OWN |= {("llava", "text_config"): {"llama"}, ("qwen2_vl", "vision_config"): {"qwen2_vl_vision", "qwen2_vl"}}
OWN |= {("qwen2_vl", "text_config"): {"qwen2_vl_text"}}


def _attacks() -> Iterator[Attack]:
    for name in sorted(CONFIG_MAPPING_NAMES):
        for place in PLACES:
            for family in FAMILIES:
                expect = "any" if name in OWN.get((family, place), ()) else "refused"
                title = f"type {name} as {place or 'the model'} of {family}"
                yield Attack(title, "base", _typed(name, place), expect, "create base", (family,))
        for family in FAMILIES:  # no part of the family's
            for place in FOREIGN:
                title = f"type {name} as {place} of {family}"
                yield Attack(title, "base", _typed(name, place), "refused", "create base", (family,))


def _typed(name: str, *places: str) -> Any:
    keys = [f"{place}.model_type" if place else "model_type" for place in places]
    return lambda case: case.set(CONFIG, *((key, name) for key in keys))


TYPES = tuple(_attacks())


def _classes() -> Iterator[Attack]:
    for key, file, names in (
        ("tokenizer_class", SETTINGS, TOKENIZER_MAPPING_NAMES),
        ("image_processor_type", IMAGES, IMAGE_PROCESSOR_MAPPING_NAMES),
        ("feature_extractor_type", IMAGES, FEATURE_EXTRACTOR_MAPPING_NAMES),
        ("processor_class", PROCESSOR, PROCESSOR_MAPPING_NAMES),
    ):
        found = {name for value in names.values() for name in _strings(value)}
        for number, name in enumerate(sorted(found)):
            family = FAMILIES[number % 2]
            entry = "create base" if key == "tokenizer_class" else "export base"
            yield Attack(f"class {key} {name}", "base", _named(file, key, name), "any", entry, (family,))


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [name for item in value.values() for name in _strings(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in _strings(item)]
    return [value] if isinstance(value, str) else []


def _named(file: str, key: str, name: str) -> Any:
    def apply(case: Case) -> None:
        case.set(file, (key, name))

    return apply


CLASSES = tuple(_classes())
