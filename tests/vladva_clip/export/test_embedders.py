"""Exports of published embedders: captions verbatim and joined with their neighbors, query templates, no head."""

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import processors
from transformers import AutoModel, AutoTokenizer

import vladva_clip
from tests.support import adapters, exports
from tests.support.models import embedders
from vladva_clip import cli

SAME = 0.99999


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Named as no embedder is."""
    return embedders.write_qwen(tmp_path_factory.mktemp("published") / "base")


def exported(base: Path, root: Path, tag: str | None = None, **changes) -> exports.Exported:
    """The model of a base under a profile of one's own, and its export."""
    profile = embedders.write_profile(root / "own.json", **changes)
    source = f"local-dir:{base}"
    model, preprocess = vladva_clip.create_model(source, tag, precision="fp32", profile=profile)
    vladva_clip.export_model(base, root / "out", "fp32", pretrained=tag, profile=profile)
    return exports.Exported(model, preprocess, vladva_clip.get_tokenizer(source, profile=profile), root / "out")


@torch.no_grad()
def texts_of(found: exports.Exported) -> torch.Tensor:
    return found.model.encode_text(found.tokenizer(embedders.CAPTIONS), True)


def parity(found: exports.Exported) -> None:
    """Transformers, sentence-transformers and this package read the export with the model's own features."""
    plain, sentences = exports.PlainTransformers(found.directory), SentenceTransformer(str(found.directory))
    again, _ = vladva_clip.create_model(f"local-dir:{found.directory}", precision="fp32")
    tokens = vladva_clip.get_tokenizer(f"local-dir:{found.directory}")(embedders.CAPTIONS)
    images, texts = found.features()[0], texts_of(found)
    for inputs, ours in ((found.images, images), (embedders.CAPTIONS, texts)):
        assert exports.cosine(plain.features(inputs), ours) > SAME
        assert exports.cosine(torch.cat([plain.features([item]) for item in inputs]), ours) > SAME
        assert exports.cosine(sentences.encode(inputs, convert_to_tensor=True), ours) > SAME
    assert exports.cosine(again.encode_text(tokens, True), texts) > SAME


@pytest.mark.parametrize("template", [embedders.CHAT, embedders.WITH_TEXT_BEHIND], ids=["chat", "text behind"])
def test_captions_as_they_are(base, tmp_path, template):
    parity(exported(base, tmp_path, text_template=template.format("{caption}")))


def test_cleaned_and_joined(base, tmp_path):
    """White space goes, the empty caption keeps its line breaks."""
    changes = {"clean": "open_clip", "text_template": embedders.WITH_TEXT_BEHIND.format("{caption}")}
    found = exported(base, tmp_path, **changes)
    plain = exports.PlainTransformers(found.directory)
    captions = [caption for caption in embedders.CAPTIONS if "&amp;" not in caption]
    with torch.no_grad():
        ours = found.model.encode_text(found.tokenizer(captions), True)
    assert exports.cosine(plain.features(captions), ours) > SAME


def test_captions_that_stand_alone_and_as_they_are(base, tmp_path):
    parity(exported(base, tmp_path, caption_ids="alone"))


@pytest.mark.wide
def test_the_real_tokenizer(shared_data, tmp_path):
    own = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2_vl")
    base = embedders.write_qwen(tmp_path / "base", own, vocab_size=151936)
    template = embedders.WITH_TEXT_BEHIND.format("{caption}")
    parity(exported(base, tmp_path, text_template=template))


def test_a_tokenizer_that_appends_the_token_which_is_read(tmp_path):
    """As Qwen3-VL-Embedding's: the export's template writes the token, so its tokenizer must not."""
    own = embedders.tokenizer()
    token = "<|endoftext|>"
    frame = processors.TemplateProcessing(f"$A {token}", special_tokens=[(token, own.convert_tokens_to_ids(token))])
    own.backend_tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), frame])
    found = exported(embedders.write_qwen(tmp_path / "base", own), tmp_path, "retrieval")
    assert own("a").input_ids[-1] == own.convert_tokens_to_ids(token)
    parity(found)


def test_a_query_template(base, tmp_path):
    """The text template of its tag, written by the export's own tokenizer."""
    found, default = exported(base, tmp_path / "query", "retrieval"), exported(base, tmp_path / "document")
    parity(found)
    assert exports.cosine(texts_of(found), texts_of(default)) < 0.999
    written = json.loads((found.directory / "vladva_export.json").read_text())
    assert written["prompt"]["tokens_template"] is None


def test_a_query_template_that_needs_other_ids(base, tmp_path):
    """Captions follow a space there, and a line break in documents, from which the model rewrites them."""
    profile = embedders.write_profile(tmp_path / "own.json")
    data = json.loads(profile.read_text())
    data["tags"]["retrieval"]["text_template"] = embedders.CHAT.format("Find it: {caption}\nSummary in one word:")
    profile.write_text(json.dumps(data))
    model, preprocess = vladva_clip.create_model(f"local-dir:{base}", "retrieval", precision="fp32", profile=profile)
    assert model.text.prompts.rewriter is not None
    vladva_clip.export_model(base, tmp_path / "out", "fp32", pretrained="retrieval", profile=profile)
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}", profile=profile)
    parity(exports.Exported(model, preprocess, tokenizer, tmp_path / "out"))


def test_a_base_without_its_head(tmp_path):
    """Read by AutoModel and sentence-transformers; there is no chat template that asks for a caption."""
    base = embedders.write_qwen(tmp_path / "base", headless=True)
    found = exported(base, tmp_path, headless=True)
    assert not found.model.visual.backbone.has_head
    sentences, plain = SentenceTransformer(str(found.directory)), exports.PlainTransformers(found.directory, AutoModel)
    assert "caption" not in plain.processor.chat_template
    for inputs, ours in ((found.images, found.features()[0]), (embedders.CAPTIONS, texts_of(found))):
        assert exports.cosine(plain.features(inputs), ours) > SAME
        assert exports.cosine(sentences.encode(inputs, convert_to_tensor=True), ours) > SAME
    again, _ = vladva_clip.create_model(f"local-dir:{found.directory}")
    with pytest.raises(ValueError, match="head"):
        again.generate(torch.zeros(1, 3, 112, 112))


SPAN = {"slot": "<|image_pad|>", "opening": "", "closing": ""}
REFUSED = [
    ({"positions": "plain"}, "positions='plain'.*qwen2_vl.*vladva_clip"),
    ({"attention": "bidirectional"}, "attention='bidirectional'.*causal.*vladva_clip"),
    ({"pooling": "mean"}, "pooling='mean'.*last token.*vladva_clip"),
    ({"visual_span": SPAN}, r"visual span '<\|image_pad\|>'.*vision_start.*vladva_clip"),
]


@pytest.mark.parametrize(("changes", "match"), REFUSED, ids=[next(iter(changes)) for changes, _ in REFUSED])
def test_what_the_readers_cannot_be_told_is_refused(base, tmp_path, changes, match):
    profile = embedders.write_profile(tmp_path / "own.json", **changes)
    with pytest.raises(ValueError, match=match):
        vladva_clip.export_model(base, tmp_path / "out", profile=profile)
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]


def test_plain_positions_where_the_familys_are_plain(bases, tmp_path):
    """LLaVA's, whose name nobody asks for."""
    config = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")[0].config.to_dict()
    config["encoding"]["positions"] = "plain"
    profile = tmp_path / "own.json"
    profile.write_text(json.dumps(config))
    model, preprocess = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32", profile=profile)
    vladva_clip.export_model(bases["llava"], tmp_path / "out", "fp32", profile=profile)
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{bases['llava']}", profile=profile)
    found = exports.Exported(model, preprocess, tokenizer, tmp_path / "out")
    assert exports.cosine(exports.PlainTransformers(found.directory).features(found.images), found.features()[0]) > SAME


def test_an_adapter_over_the_export_of_a_packaged_profile(base, tmp_path):
    """The export's own templates count then, not the profile's, so it names none."""
    vladva_clip.export_model(base, tmp_path / "out", "fp32", profile="ops-mm-2b")
    assert json.loads((tmp_path / "out" / "vladva_export.json").read_text())["base"]["profile"] is None
    model = adapters.write_adapter(tmp_path / "out", tmp_path / "adapter")
    assert "<|vladva_text_0|>" in model.config.prompt.text_template
    assert adapters.same(adapters.load(tmp_path / "adapter", merge_lora=False), model)


def test_a_tag_of_a_built_in_name(tmp_path):
    """Its base without the adapter that its name stands for."""
    vladva_clip.export_model("vladva-tiny", tmp_path / "bare", "fp32", pretrained="base")
    tokens = vladva_clip.get_tokenizer("vladva-tiny")(["a red circle", "a blue square"])
    sources = (f"local-dir:{tmp_path / 'bare'}", None), ("vladva-tiny", "base"), ("vladva-tiny", None)
    again, base, adapter = (
        vladva_clip.create_model(*source, precision="fp32")[0].encode_text(tokens, True) for source in sources
    )
    assert exports.cosine(again, base) > SAME > exports.cosine(base, adapter)
    with pytest.raises(ValueError, match="unknown tag 'retrieval' of vladva-tiny; valid tags: base, scenes"):
        vladva_clip.export_model("vladva-tiny", tmp_path / "other", pretrained="retrieval")


def test_the_command(base, tmp_path, capsys):
    profile, out = embedders.write_profile(tmp_path / "own.json"), tmp_path / "out"
    arguments = ["export", str(base), str(out), "--profile", str(profile)]
    assert cli.main([*arguments, "--pretrained", "retrieval"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    written = json.loads((out / "vladva_export.json").read_text())["prompt"]["text_template"]
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert json.loads((out / "vladva_export.json").read_text())["prompt"]["text_template"] != written
    assert cli.main([*arguments, "--overwrite", "--pretrained", "queries"]) == 2
    assert "retrieval, default" in capsys.readouterr().err


def test_profiles_and_tags_that_do_not_fit(base, tmp_path):
    profile = embedders.write_profile(tmp_path / "own.json")
    for options, match in (
        ({"profile": profile, "pretrained": "queries"}, "unknown tag 'queries'.*retrieval, default"),
        ({"pretrained": "retrieval"}, "unknown tag 'retrieval'.*no profile"),
        ({"profile": "ops-mm-9b"}, "unknown profile 'ops-mm-9b'.*ops-mm"),
    ):
        with pytest.raises(ValueError, match=match):
            vladva_clip.export_model(base, tmp_path / "out", **options)
    with pytest.raises(ValueError, match=r"own\.json.*vladva-tiny.*decides how"):
        vladva_clip.export_model("vladva-tiny", tmp_path / "out", profile=profile)
