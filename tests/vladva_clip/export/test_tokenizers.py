"""Captions between special tokens keep their ids with each kind of tokenizer that LLaVA is published with."""

import json
import shutil

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

import vladva_clip
from tests.support import exports
from tests.support.models import layouts, llama, tiny_bases
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.encoder.templates import caption_ids
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.export import chat, slots

SAME = 0.99999


def parity(exported: exports.Exported) -> None:
    """Plain transformers computes our features, of captions and images."""
    plain = exports.PlainTransformers(exported.directory)
    ours = exported.features()
    assert exports.cosine(plain.features(exported.images), ours[0]) > SAME
    assert exports.cosine(plain.features(exports.CAPTIONS), ours[1]) > SAME


def test_a_normalizer_that_puts_a_space_before_every_piece(tmp_path):
    """Llama's older files: no pre-tokenizer, "▁" prepended to whatever stands between special tokens."""
    base = tiny_bases.write_llava(tmp_path / "base")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    data = {**json.loads(tokenizer.to_str()), "pre_tokenizer": None}
    (base / "tokenizer.json").write_text(json.dumps(data))
    exported = exports.export_adapter(base, tmp_path)
    assert '"" + caption' in AutoProcessor.from_pretrained(exported.directory).chat_template["embed"]
    parity(exported)


def test_a_pre_tokenizer_that_puts_a_space_before_a_text_only(bases, tmp_path):
    exported = exports.export_adapter(bases["llava"], tmp_path)
    assert '" " + caption' in AutoProcessor.from_pretrained(exported.directory).chat_template["embed"]
    parity(exported)


def test_a_tokenizer_that_changes_captions_between_special_tokens_is_refused(tmp_path):
    """One that turns spaces into signs, so that what stands for SentencePiece's own space is one too."""
    base = tiny_bases.write_llava(tmp_path / "base")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.normalizer = normalizers.Replace(" ", "_")
    tokenizer.save(str(base / "tokenizer.json"))
    layouts.state(base, layouts.FIRST_FORMAT["llava"])  # captions by themselves, where that space is one too
    with pytest.raises(ValueError, match="special tokens.*can't be exported"):
        vladva_clip.export_model(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.wide
@pytest.mark.parametrize("legacy", [False, True])
def test_the_real_llama_tokenizer(shared_data, bases, tmp_path, legacy):
    """Its 32002 tokens leave 62 of the published 32064 rows free, more than both templates need."""
    base = shutil.copytree(bases["llava"], tmp_path / "base")
    tokenizer = llama.llava_tokenizer(shared_data, base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "legacy": legacy}))
    config = tiny_bases.llava_config(tokenizer)
    config["text_config"]["vocab_size"] = 32064
    processor = json.loads((base / "preprocessor_config.json").read_text())
    tiny_bases.write_base(base, LlavaForConditionalGeneration, tokenizer, config, processor, tiny_bases.LLAVA_CHAT)
    exported = exports.export_adapter(base, tmp_path)
    processor = AutoProcessor.from_pretrained(exported.directory)
    assert processor.tokenizer.convert_tokens_to_ids("<|vladva_image_0|>") == 32002
    assert exports.PlainTransformers(exported.directory).lvlm.get_input_embeddings().weight.shape[0] == 32064
    parity(exported)


@pytest.mark.wide
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("first", ["prompt", "content"])
def test_captions_keep_their_ids_behind_the_slots(shared_data, tmp_path, family, first):
    """A caption whose first sign could merge with the name of the token in front of it, as Qwen merges ">(" does."""
    directory = shared_data / "tokenizers" / "qwen2_vl"
    if family == "llava":
        llama.llava_tokenizer(shared_data, directory := tmp_path / "llama")
    tokenizer, kind = AutoTokenizer.from_pretrained(directory), backbone_class(family)
    config = kind.prompt_config() if first == "prompt" else layouts.content_first(family)
    prompts = Prompts.build(tokenizer, config, kind.visual_span, kind.starts_with_bos)
    expected = VladvaTokenizer(directory, prompt=config).ids(chat.PROBES)
    spelled = slots.slot_templates(config, prompts, slots.add_slots(tokenizer, prompts, 1 << 20))
    rows = Prompts.build(tokenizer, spelled, kind.visual_span, kind.starts_with_bos)
    chat.embed_templates(tokenizer, spelled, kind.visual_span, rows)  # which raises if one has other ids
    texts = [" ".join(text.split()) for text in chat.PROBES]
    assert caption_ids(tokenizer, spelled.caption_place, texts) == expected


def test_photographs_through_the_processor_have_our_features(shared_data, bases, tmp_path):
    """Real photographs of any shape, resized and cut by transformers there and by our transform here."""
    exported = exports.export_adapter(bases["llava"], tmp_path)
    paths = sorted((shared_data / "data" / "photos").glob("*.JPEG"))[:12]
    photos = [Image.open(path).convert("RGB") for path in paths]
    with torch.no_grad():
        ours = exported.model.encode_image(torch.stack([exported.preprocess(photo) for photo in photos]), True)
    assert len(photos) == 12
    assert exports.cosine(exports.PlainTransformers(exported.directory).features(photos), ours) > SAME
