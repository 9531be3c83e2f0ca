"""An export without our code: plain transformers and sentence-transformers compute our features and texts."""

import json
import logging

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoProcessor

import vladva_clip
from tests.support import exports
from vladva_clip.storage.tensor_names import EMBEDDING, canonical

SAME = 0.99999
LATER_FAMILIES = ("llava_next", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3")
LATER = [pytest.param(family, marks=pytest.mark.wide) for family in LATER_FAMILIES]
CASES = ("llava", "qwen2_vl", "vladva-tiny", "bare llava")


@pytest.fixture(scope="module", params=[*CASES, *LATER])
def exported(request, bases, tmp_path_factory) -> exports.Exported:
    """Random adapters of every family, the packaged model with one, and hand-written prompts."""
    root = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    if request.param == "vladva-tiny":
        from vladva_clip.sources.registry import packaged_base

        return exports.export_adapter(packaged_base("vladva-tiny"), root)
    if request.param == "bare llava":
        return exports.export(f"local-dir:{bases['llava']}", root / "out")
    return exports.export_adapter(bases[request.param], root)


@pytest.fixture(scope="module")
def plain(exported) -> exports.PlainTransformers:
    return exports.PlainTransformers(exported.directory)


@pytest.fixture(scope="module")
def sentences(exported):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(exported.directory), device="cpu")


def test_plain_transformers_computes_our_features(exported, plain):
    images, texts = exported.features()
    for inputs, ours in ((exported.images, images), (exports.CAPTIONS, texts)):
        assert exports.cosine(plain.features(inputs), ours) > SAME
        assert exports.cosine(torch.cat([plain.features([item]) for item in inputs]), ours) > SAME


def test_sentence_transformers_computes_our_features(exported, sentences):
    images, texts = exported.features()
    for inputs, ours in ((exported.images, images), (exports.CAPTIONS, texts)):
        for batch_size in (1, 8):
            theirs = sentences.encode(inputs, batch_size=batch_size, convert_to_tensor=True)
            assert exports.cosine(theirs, ours) > SAME
            torch.testing.assert_close(theirs.norm(dim=-1), torch.ones(len(inputs)))
    mixed = [exports.CAPTIONS[0], exported.images[1], exports.CAPTIONS[1]]
    ours = torch.stack([texts[0], images[1], texts[1]])
    assert exports.cosine(sentences.encode(mixed, convert_to_tensor=True), ours) > SAME


def test_sentence_transformers_truncates_to_our_features(exported, sentences):
    ours = vladva_clip.truncate(exported.features()[1], 8)
    theirs = sentences.encode(exports.CAPTIONS, truncate_dim=8, normalize_embeddings=True, convert_to_tensor=True)
    assert theirs.shape == ours.shape and exports.cosine(theirs, ours) > SAME


def test_sentence_transformers_cuts_long_captions_where_we_do(exported, sentences):
    """As docs/export.md says: by default nothing is cut, with a length the summary token is put back."""
    long = "a red circle left of a small dog " * 40
    with torch.no_grad():
        ours = exported.model.encode_text(exported.tokenizer([long, "a red circle"]), True)
    length = exported.model.text.prompts.text_length(exported.tokenizer.context_length - 1)
    cut = {"text": {"truncation": True, "max_length": length}}
    theirs = sentences.encode([long, "a red circle"], processing_kwargs=cut, convert_to_tensor=True)
    assert exports.cosine(theirs, ours) > SAME
    whole = sentences.encode([long, "a red circle"], convert_to_tensor=True)
    assert exports.cosine(whole[1:], ours[1:]) > SAME > exports.cosine(whole[:1], ours[:1])


@pytest.mark.parametrize("prompt", ["Describe it.", None])
def test_stock_generate_writes_what_we_write(exported, plain, prompt):
    model, images = exported.model, exported.images[:2]
    side = model.visual.image_size[0]
    if side == 448 or model.config.base.family == "llava_next":  # other sizes are rounded otherwise
        images = [image.resize((side, side)) for image in images]
    suppressed = plain.lvlm.generation_config.suppress_tokens
    model.visual.backbone.lvlm.generation_config.suppress_tokens = suppressed  # random weights choose unused rows
    ours = model.generate(torch.stack([exported.preprocess(image) for image in images]), prompt, max_new_tokens=10)
    assert [plain.generate(image, prompt, 10) for image in images] == ours
    assert any(ours)


def test_it_is_an_ordinary_directory_of_the_family(exported):
    config = AutoConfig.from_pretrained(exported.directory)
    lvlm = exported.model.visual.backbone.lvlm
    assert config.architectures == [type(lvlm).__name__] and config.model_type == lvlm.config.model_type
    base = AutoProcessor.from_pretrained(exported.model.base_directory)
    processor = AutoProcessor.from_pretrained(exported.directory)
    assert processor.chat_template["default"] == base.chat_template
    assert set(processor.chat_template) == {"default", "embed", "embed_vllm", "caption"}
    assert not list(exported.directory.glob("adapter_*")) and not list(exported.directory.glob("soft_prompt*"))


def test_slots_are_rows_of_the_vocabulary_that_generation_never_chooses(exported):
    processor = AutoProcessor.from_pretrained(exported.directory)
    prompts, base = exported.model.visual.prompts, AutoProcessor.from_pretrained(exported.model.base_directory)
    counts = {"image": len(prompts.image.ids), "text": len(prompts.text.ids)}
    names = [f"<|vladva_{side}_{index}|>" for side, count in counts.items() for index in range(count)]
    ids = processor.tokenizer.convert_tokens_to_ids(names)
    first = len(base.tokenizer)
    assert ids == list(range(first, first + len(names)))
    assert json.loads((exported.directory / "generation_config.json").read_text())["suppress_tokens"] == ids
    tensors = {canonical(name): t for name, t in load_file(exported.directory / "model.safetensors").items()}
    before = exported.model.visual.backbone.lvlm.get_input_embeddings().weight
    vectors = before[[*prompts.image.ids, *prompts.text.ids]]
    soft = torch.tensor([*prompts.image.soft, *prompts.text.soft])
    vectors[soft] = torch.cat([exported.model.visual.soft_prompt.weight, exported.model.text.soft_prompt.weight])
    assert torch.equal(tensors[EMBEDDING][ids], vectors)
    kept = min(first, len(before))  # InternVL's tokenizer has a token beyond the rows
    assert torch.equal(tensors[EMBEDDING][:kept], before[:kept])
    assert len(tensors[EMBEDDING]) == (len(before) if ids[-1] < len(before) else 64 * (ids[-1] // 64 + 1))


def test_create_model_knows_that_the_prompts_are_folded_in(exported, caplog):
    source = f"local-dir:{exported.directory}"
    with caplog.at_level(logging.WARNING):
        model, preprocess = vladva_clip.create_model(source)
    assert "training-free" not in caplog.text
    tokenizer = vladva_clip.get_tokenizer(source)
    assert tokenizer.context_length == exported.tokenizer.context_length
    assert torch.equal(tokenizer(exports.CAPTIONS), exported.tokenizer(exports.CAPTIONS))
    for ours, theirs in zip(
        exports.Exported(model, preprocess, tokenizer, exported.directory).features(), exported.features(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert model.logit_scale.item() == exported.model.logit_scale.item()
    images = torch.stack([exported.preprocess(image) for image in exported.images])
    assert len(model.generate(images, "Describe it.", 4)) == len(images)


def test_no_path_of_this_machine_is_written(exported):
    """The base it was made of is named all the same, with its fingerprint."""
    for path in exported.directory.rglob("*.json"):
        assert str(exported.directory.parent.parent) not in path.read_text(), path
    written = json.loads((exported.directory / "vladva_export.json").read_text())["base"]
    assert written["fingerprint"] == exported.model.config.base.fingerprint
    assert written["id"].rpartition("/")[2].removeprefix("local-dir:") in exported.model.config.base.id


def test_an_adapter_of_an_export_is_saved_and_loaded(exported, tmp_path):
    model, preprocess = vladva_clip.create_model(f"local-dir:{exported.directory}")
    model.save_pretrained(tmp_path)
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path}")
    tokens = exported.tokenizer(exports.CAPTIONS)
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))


def test_the_template_takes_one_image_or_one_caption(exported, plain):
    def render(*contents):
        messages = [{"role": "user", "content": content} for content in contents]
        return plain.processor.apply_chat_template(messages, chat_template="embed", tokenize=False)

    text, image = {"type": "text", "text": "a dog"}, {"type": "image"}
    assert render("a dog") == render([text]) != render([image])
    for_vllm = plain.processor.apply_chat_template(
        [{"role": "user", "content": [text]}], chat_template="embed_vllm", tokenize=False
    )
    tokens = plain.processor.tokenizer
    assert tokens(for_vllm, add_special_tokens=False).input_ids == tokens(render([text])).input_ids
    for wrong in (([text, image],), ([],), ([{"type": "video"}],), ([text], [text])):
        with pytest.raises(Exception, match="the template embed takes"):
            render(*wrong)


def test_qwen2_vl_takes_any_square_and_other_shapes_once_squashed(bases, tmp_path):
    """Its processor keeps the aspect ratio; chat has the base's resolution when asked (docs/export.md)."""
    exported = exports.export_adapter(bases["qwen2_vl"], tmp_path)
    plain, side = exports.PlainTransformers(exported.directory), exported.model.visual.image_size[0]
    squares = [exported.images[0].resize((size, size)) for size in (29, 300, 447, 449, 1001)]
    wide = exported.images[2].resize((700, 300))
    with torch.no_grad():
        ours = exported.model.encode_image(torch.stack([exported.preprocess(x) for x in (*squares, wide)]), True)
    assert exports.cosine(plain.features(squares), ours[:-1]) > SAME
    assert exports.cosine(plain.features([wide]), ours[-1:]) < SAME
    squashed = wide.resize((side, side), Image.Resampling.BICUBIC)
    assert exports.cosine(plain.features([squashed]), ours[-1:]) > SAME

    def grid(**kwargs):
        chat = [{"role": "user", "content": [{"type": "image", "image": wide}]}]
        batch = plain.processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_tensors="pt", **kwargs
        )
        return batch["image_grid_thw"].tolist()

    base = AutoProcessor.from_pretrained(bases["qwen2_vl"]).image_processor
    size = {"shortest_edge": base.size["shortest_edge"], "longest_edge": base.size["longest_edge"]}
    assert grid() != [[1, 22, 50]] == grid(images_kwargs={"size": size})
