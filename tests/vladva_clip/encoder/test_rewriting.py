"""Models that share a tokenizer: the ids of the default template become the rows of the query's."""

import copy
import pickle

import pytest
import torch

import vladva_clip
from tests.support import adapters, stated
from tests.support.published_templates import ANSWER, END, TEXTS, config_of, prompts_of, rows_of, whole
from vladva_clip.encoder.prefix_cache import MIN_ROWS
from vladva_clip.encoder.rewriting import CaptionRewriter
from vladva_clip.storage.config import PromptConfig
from vladva_clip.zero_shot import encoder_identity

QUERY = f"<|im_start|>user\nabove the caption: {{caption}}{ANSWER}"
DOCUMENT = f"<|im_start|>user\n{{caption}}{ANSWER}"
CAPTIONS = [f"a {color} {shape}." for color in ("red", "green", "blue") for shape in ("circle", "square", "dog", "cat")]
CAPTIONS += ["", " a dog", "\na dog", "dog ", "a dog\n", "«été» 狗😀", "on the left of the large red circle, below"]


@pytest.mark.parametrize(("default", "query"), [("rzen", "rzen query"), ("lamra", "lamra query"), ("rzen", "unite")])
def test_rows_have_the_ids_of_the_whole_string(default, query, real_qwen, tokenizer_of, many_captions):
    config = config_of(TEXTS[query], tokens_template=TEXTS[default])
    tokenizer, prompts = tokenizer_of(config), prompts_of(real_qwen, config)
    ids = tokenizer.ids(many_captions)
    assert ids == tokenizer_of(config_of(TEXTS[default])).ids(many_captions)
    rows = rows_of(prompts, ids)
    for caption, row in zip(many_captions, rows, strict=True):
        assert row == whole(real_qwen, TEXTS[query].replace("{caption}", caption)), caption
    before, suffix = prompts.text.before, prompts.text.suffix
    unwritten = [[*before, *one, *suffix] for one in ids]
    assert sum(one != row for one, row in zip(unwritten, rows, strict=True)) > 190  # what rewriting is for


def test_ids_that_fit_are_left_alone(real_qwen):
    """GME's instruction stands in the system turn: its captions stand where a document's do."""
    query = TEXTS["gme"].replace("You are a helpful assistant.", "Find an image that matches the given text.")
    assert CaptionRewriter.build(real_qwen, config_of(query, tokens_template=TEXTS["gme"])) is None
    assert CaptionRewriter.build(real_qwen, config_of(TEXTS["gme"])) is None
    assert CaptionRewriter.build(real_qwen, config_of(TEXTS["rzen query"], tokens_template=TEXTS["gme"])) is not None


def test_a_caption_cut_inside_a_letter(real_qwen, tokenizer_of):
    """The half of an emoji becomes the sign for what can't be read; the template around it stays."""
    config = config_of(TEXTS["rzen query"], tokens_template=TEXTS["rzen"])
    row = tokenizer_of(config)(["a 👩‍👩‍👧"], 5)[0, :-1].tolist()
    (found,) = rows_of(prompts_of(real_qwen, config), [row])
    assert real_qwen.decode(found).startswith(TEXTS["rzen query"].partition("{caption}")[0] + "a ")
    assert real_qwen.decode(found).endswith(END)


@pytest.fixture(scope="module")
def places(bases, tmp_path_factory):
    root = tmp_path_factory.mktemp("queries")
    prompt = {"image_prompt": "", "text_prompt": "", "soft_slots": "template", "second_turn": None}
    prompt |= {"image_template": DOCUMENT.replace("{caption}", "{visual}"), "text_template": QUERY}
    prompt |= {"caption_ids": "joined", "clean": "none"}
    own = stated.copy(bases["qwen2_vl"], root / "own", prompt)
    return {"own": own, "shared": stated.copy(own, root / "shared", prompt | {"tokens_template": DOCUMENT})}


@pytest.fixture(scope="module")
def own(places):
    """(features of CAPTIONS, classifier) of the model that needs no rewriting."""
    model, tokenizer = adapters.load(places["own"]), vladva_clip.get_tokenizer(f"local-dir:{places['own']}")
    assert model.text.prompts.rewriter is None
    classifier = vladva_clip.build_zero_shot_classifier(model, tokenizer, ["dog", "red cat"], ["a {}.", "{}"])
    return torch.cat([model.encode_text(tokenizer(caption)) for caption in CAPTIONS]), classifier


@pytest.fixture(scope="module")
def model(places):
    return adapters.load(places["shared"])


@pytest.fixture(scope="module")
def tokenizer(places):
    return vladva_clip.get_tokenizer(f"local-dir:{places['shared']}")


class TestModels:
    """On a tiny Qwen2-VL, against the model that tokenizes captions in the query's template itself."""

    def test_the_tokenizer_is_the_documents(self, places, model, tokenizer):
        assert model.text.prompts.rewriter is not None
        own = vladva_clip.get_tokenizer(f"local-dir:{places['own']}")
        assert tokenizer.ids(["a dog"]) != own.ids(["a dog"])
        for caption in CAPTIONS:
            assert tokenizer.decode(tokenizer.encode(caption)) == own.decode(own.encode(caption)) == caption

    def test_captions_together_and_one_by_one(self, model, tokenizer, own):
        assert len(CAPTIONS) > MIN_ROWS and model.text._shares_beginning(len(CAPTIONS))
        torch.testing.assert_close(model.encode_text(tokenizer(CAPTIONS)), own[0], rtol=0, atol=1e-4)
        alone = torch.cat([model.encode_text(tokenizer(caption)) for caption in CAPTIONS])
        torch.testing.assert_close(alone, own[0], rtol=0, atol=1e-4)
        assert (own[0] - own[0][:1]).abs()[1:].amax(1).min() > 0.01

    def test_classifiers(self, model, tokenizer, own, monkeypatch):
        built = vladva_clip.build_zero_shot_classifier(model, tokenizer, ["dog", "red cat"], ["a {}.", "{}"])
        torch.testing.assert_close(built, own[1], rtol=0, atol=1e-5)
        monkeypatch.setattr("vladva_clip.zero_shot.shared_prefix.MIN_ROWS", 2)
        options = {"cache": False}
        built = vladva_clip.build_zero_shot_classifier(model, tokenizer, ["dog", "red cat"], ["a {}.", "{}"], **options)
        torch.testing.assert_close(built, own[1], rtol=0, atol=1e-5)

    def test_classifiers_on_disk_are_not_those_of_a_model_that_leaves_ids_alone(self, places, model):
        other = adapters.load(places["own"])
        assert model.text.prompts.text == other.text.prompts.text
        assert encoder_identity.of_model(model) != encoder_identity.of_model(other)

    def test_a_tokenizer_stays_the_same_when_it_has_cut_a_caption(self, tokenizer):
        before = encoder_identity.of_tokenizer(tokenizer)
        assert tokenizer("a dog " * 1000).shape[1] < 1000
        assert encoder_identity.of_tokenizer(tokenizer) == before

    def test_rows_of_the_training(self, model, tokenizer, own):
        rows = model.text.rows([torch.tensor(ids) for ids in tokenizer.ids(CAPTIONS)])
        with torch.no_grad():
            torch.testing.assert_close(rows.features(), own[0], rtol=0, atol=1e-4)

    def test_copies(self, model, tokenizer, own):
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other.encode_text(tokenizer(CAPTIONS)), own[0], rtol=0, atol=1e-4)

    def test_an_adapter_keeps_it(self, model, places, tmp_path):
        trained = adapters.with_lora(adapters.load(places["shared"]))
        trained.save_pretrained(tmp_path / "adapter")
        again = adapters.load(tmp_path / "adapter")
        tokenizer = vladva_clip.get_tokenizer(f"local-dir:{tmp_path}/adapter")
        assert tokenizer.prompt.tokens_template == DOCUMENT and again.text.prompts.rewriter is not None
        tokens = tokenizer(CAPTIONS)
        torch.testing.assert_close(again.encode_text(tokens), trained.encode_text(tokens), rtol=0, atol=1e-4)

    def test_no_program_can_be_recorded(self, model, tokenizer):
        with pytest.raises(ValueError, match="torch.export.*tag 'default'"):
            torch.export.export(model.text, (tokenizer(["a dog", "dog"]),), strict=False)
        with pytest.raises(ValueError, match="torch.export.*tag 'default'"):
            model.text.prompts.whole_text_batch(tokenizer(["a dog"]))


def test_captions_that_are_tokenized_alone_need_none(real_qwen):
    config = PromptConfig("{visual} word:", "a caption: {caption} word:", caption_ids="alone", tokens_template=DOCUMENT)
    assert CaptionRewriter.build(real_qwen, config) is None
