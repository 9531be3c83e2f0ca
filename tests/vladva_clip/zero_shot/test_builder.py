"""Zero-shot classifiers equal open_clip's, built from fewer tokens."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vladva_clip
from tests.support.adapters import with_lora
from vladva_clip.interface import devices
from vladva_clip.zero_shot import builder, rendering, shared_prefix
from vladva_clip.zero_shot.builder import build_zero_shot_classifier, build_zero_shot_classifier_legacy

NAMES = ["red circle", "dog", "cat", "large green square", "dog", "red square", "blue dog"]  # one of them twice
TEMPLATES = ["a {}", lambda name: f"a small {name}.", "the {} on the left", "{}", "a {}"]
TEMPLATES += [lambda name: "a cat" if name == "cat" else "a dog"]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 3)


def rendered(templates):
    """open_clip's builder takes strings or functions, not both."""
    return [template.format if isinstance(template, str) else template for template in templates]


def build(model, tokenizer, names=NAMES, templates=TEMPLATES, **options):
    return build_zero_shot_classifier(model, tokenizer, names, templates, cache=False, **options)


def test_weights_are_those_of_open_clips_builder(model, tokenizer):
    found = build(model, tokenizer)
    expected = open_clip.build_zero_shot_classifier(model, tokenizer, NAMES, rendered(TEMPLATES))
    assert found.shape == (model.embed_dim, len(NAMES)) and found.dtype == torch.float32
    assert F.cosine_similarity(found, expected, dim=0).min() > 0.99999
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_weights_are_those_of_the_plain_lvlm(model, tokenizer):
    """transformers' own forward over the rendered prompts, a row at a time; an untrained prompt is its template."""
    lvlm, text = model.visual.backbone.lvlm, model.text.prompts.text
    with torch.no_grad():
        columns = []
        for name in NAMES:
            captions = tokenizer.ids([render(name) for render in rendered(TEMPLATES)])
            rows = [torch.tensor([[*text.bos, *text.prefix, *ids, *text.suffix]]) for ids in captions]
            last = [lvlm(input_ids=row, output_hidden_states=True).hidden_states[-1][0, -1] for row in rows]
            columns.append(F.normalize(F.normalize(torch.stack(last), dim=-1).mean(dim=0), dim=0))
    torch.testing.assert_close(build(model, tokenizer), torch.stack(columns, dim=1), rtol=0, atol=1e-5)


def test_a_truncated_models_weights_are_truncated_and_kept_apart(bases, tmp_path):
    whole, short = (
        vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32", truncate_dim=dim)[0]
        for dim in (None, 8)
    )
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{bases['llava']}")
    found = [
        build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path) for model in (whole, short)
    ]
    assert [weights.shape[0] for weights in found] == [whole.embed_dim, 8]
    expected = open_clip.build_zero_shot_classifier(short, tokenizer, NAMES, rendered(TEMPLATES))
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-5)


def test_the_older_builder_too(model, tokenizer):
    found = build_zero_shot_classifier_legacy(model, tokenizer, NAMES, TEMPLATES[:1])
    expected = open_clip.build_zero_shot_classifier_legacy(model, tokenizer, NAMES, TEMPLATES[:1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_captions_that_are_too_long_are_cut_by_the_tokenizer(model, tokenizer):
    def narrow(texts):
        return tokenizer(texts, context_length=4)

    found = build(model, narrow)
    torch.testing.assert_close(
        found, open_clip.build_zero_shot_classifier(model, narrow, NAMES, rendered(TEMPLATES)), rtol=0, atol=1e-5
    )
    assert not torch.allclose(found, build(model, tokenizer), atol=1e-3)


def test_equal_texts_are_tokenised_and_embedded_once(model, tokenizer, monkeypatch):
    seen: list[str] = []

    def counting(texts):
        seen.extend(texts)
        return tokenizer(texts)

    rows = []
    trunk = type(model.text.backbone).trunk
    monkeypatch.setattr(
        type(model.text.backbone),
        "trunk",
        lambda self, e, p, c: rows.append(len(e) if c.get_seq_length() else 0) or trunk(self, e, p, c),
    )
    build(model, counting)
    texts = {render(name) for name in NAMES for render in rendered(TEMPLATES)}
    assert len(seen) == len(texts) < len(NAMES) * len(TEMPLATES)
    assert sum(rows) == len(texts)


def test_many_texts_are_tokenised_in_parts(model, tokenizer, monkeypatch):
    expected = build(model, tokenizer)
    monkeypatch.setattr(builder, "TEXTS_PER_CALL", 5)
    assert torch.equal(build(model, tokenizer), expected)


def test_a_model_in_train_mode_is_evaluated_and_stays_in_train_mode(bases):
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{bases['llava']}")
    with_lora(model, dropout=0.5)
    expected = build(model, tokenizer)
    model.train().set_grad_checkpointing()
    torch.testing.assert_close(build(model, tokenizer), expected, rtol=0, atol=1e-6)
    assert model.training and model.visual.backbone.trunk_module.training


def test_the_callers_autocast_changes_nothing(model, tokenizer):
    expected = build(model, tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(build(model, tokenizer), expected)


def test_the_result_is_the_callers_own(model, tokenizer):
    found = build(model, tokenizer)
    found.zero_()
    assert not found.requires_grad and not found.is_inference()
    assert build(model, tokenizer).norm() > 1


def test_the_device_is_the_callers_or_the_models(model, tokenizer, monkeypatch):
    assert build(model, tokenizer).device == model.visual.backbone.device
    monkeypatch.setattr(
        devices, "available", lambda: {"meta": 1, "cpu": 1}
    )  # any device but the CPU, which every machine has
    assert build(model, tokenizer, device="meta").device.type == "meta"


def test_progress_counts_texts(model, tokenizer, capsys):
    build(model, tokenizer, use_tqdm=True)
    texts = {render(name) for name in NAMES for render in rendered(TEMPLATES)}
    assert f"{len(texts)}/{len(texts)}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["build_zero_shot_classifier", "build_zero_shot_classifier_legacy"])
def test_other_models_go_to_open_clips_own_builder(name):
    open_clip_model = open_clip.create_model(
        "ViT-B-32", text_cfg={"width": 32, "heads": 2, "layers": 1}, vision_cfg={"width": 64, "layers": 1}
    )
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    arguments = (open_clip_model.eval(), tokenizer, ["dog", "cat"], ["a {}", "the {}"])
    assert torch.equal(getattr(vladva_clip, name)(*arguments), getattr(open_clip, name)(*arguments))


@pytest.mark.parametrize(
    ("names", "templates", "said"),
    [
        ([], ["{}"], "classnames is empty"),
        (["dog"], [], "templates is empty"),
        ("dog", ["{}"], "classnames is str .*'dog'.*list"),
        (["dog"], "a {}", "templates is str"),
        (iter(["dog"]), ["{}"], "classnames is list_iterator"),
        (b"dog", ["{}"], "classnames is bytes"),
        (["dog"], b"a {}", "templates is bytes"),
        ({"dog": 0}, ["{}"], "classnames is dict"),
        (["dog", 1], ["{}"], "class name 1 is int .*string"),
        (["dog", None], [str], "class name 1 is NoneType"),
        ([["dog"]], ["{}"], "class name 0 is list"),
        (["dog"], ["{}", 1], "template 1 is int"),
        (["dog"], [b"a {}"], "template 0 is bytes"),
        (["dog"], ["{}", "a photo"], "template 1 .*'a photo'.*one hole"),
        (["dog"], ["a {c}"], "template 0 is 'a {c}'.*one hole"),
        (["dog"], ["{} and {}"], "one hole"),
        (["dog"], ["a {"], "one hole"),
        (["dog"], ["{{}}"], "one hole"),
        (["dog"], ["{:{}}"], "one hole"),
        (["dog"], ["{:d}"], "one hole"),
        (["dog"], ["{:.3}"], "template 0 is '{:.3}'.*one hole"),
        (["dog"], ["{!r}"], "one hole"),
        (["dog"], ["{:>9}"], "one hole"),
        (["dog"], ["{0.__class__}"], "one hole"),
        (["dog"], ["{0[0]}"], "one hole"),
        (["dog"], ["{name}"], "one hole"),
        (["dog"], ["{} {0}"], "one hole"),
        (["dog"], ["{1}"], "one hole"),
        (["dog"], ["a } {}"], "one hole"),
        (["dog"], [""], "template 0 is ''.*one hole"),
        (["dog", "dog"], ["{}"], "all 2 class names are 'dog'"),
        ([""], ["a {}"], "1 class names .*empty"),
        (["", " "], ["a {}"], "2 class names .*empty"),
        (["dog", "cat"], ["{}", lambda name: "a photo"], "template 1 .*same.*'a photo'"),
        (["dog", "cat"], [lambda name: "a photo"], "template 0 .*'a photo'.*'dog'.*'cat'"),
        (["dog", "cat"], [lambda name: name.encode()], "template 0 .*bytes .b'dog'.*'dog'.*string"),
    ],
)
def test_wrong_names_and_templates_are_refused(model, tokenizer, names, templates, said):
    with pytest.raises(ValueError, match=said):
        build(model, tokenizer, names, templates)


def test_names_that_the_context_length_cuts_off_are_refused(model, tokenizer):
    """All columns would be equal, as without a hole."""

    def narrow(texts):
        return tokenizer(texts, context_length=4)

    with pytest.raises(ValueError, match="2 classes .*tokens.*in the middle of the picture"):
        build(model, narrow, ["dog", "cat"], ["a small and red one in the middle of the picture: {}"])


def test_open_clips_and_clip_benchmarks_lists_pass():
    import clip_benchmark.datasets.builder

    for templates in (open_clip.OPENAI_IMAGENET_TEMPLATES, open_clip.SIMPLE_IMAGENET_TEMPLATES, ["{0}, a kind of {0}"]):
        assert len(rendering.renderers(open_clip.IMAGENET_CLASSNAMES, templates)) == len(templates)
    folder = Path(clip_benchmark.datasets.builder.__file__).parent
    for path in folder.glob("*_zeroshot_classification_templates.json"):
        for templates in json.loads(path.read_text()).values():
            if isinstance(templates, list):
                assert rendering.renderers(["dog", "cat"], templates, "c")[0]("dog") == templates[0].format(c="dog")


def test_names_that_stand_twice_or_are_empty_are_warned_of(model, tokenizer):
    with pytest.warns(UserWarning, match="1 class names .*'dog'") as caught:
        build(model, tokenizer, ["dog", "cat", " dog"], ["{}"])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="class name .*empty"):
        build(model, tokenizer, ["dog", ""], ["a {}"])


def test_the_hole_of_clip_benchmark_stands_where_its_lists_do():
    for template in ("a {}", "a dog", "a {c:.2}", "a {c} {d}", "{c.x}"):
        with pytest.raises(ValueError, match="one hole {c}") as caught:
            rendering.renderers(["dog", "cat"], ["{c}", template], "c")
        assert repr(template) in str(caught.value)


def test_another_models_tokens_are_refused(model):
    with pytest.raises(ValueError, match="end-of-text id"):
        build(model, open_clip.get_tokenizer("ViT-B-32"))


def photographs(directory):
    return [Image.open(path) for path in sorted(directory.glob("*.JPEG"))]


def classify(names, templates, shared_data, limit, compared=1):
    """Classify photographs, with every `compared`-th class held against open_clip's builder: logits `(N, classes)`."""
    model, preprocess = vladva_clip.create_model("vladva-tiny")
    tokenizer = vladva_clip.get_tokenizer("vladva-tiny")
    images = torch.stack([preprocess(image) for image in photographs(shared_data / "data" / "photos")[:limit]])
    features = model.encode_image(images, normalize=True)
    ours = build(model, tokenizer, names, templates)
    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, names[::compared], templates)
    assert F.cosine_similarity(ours[:, ::compared], theirs, dim=0).min() > 0.99999
    logits = 100 * features @ ours
    torch.testing.assert_close(logits[:, ::compared], 100 * features @ theirs, rtol=0, atol=1e-2)
    return logits


def test_imagenets_names_on_photographs(shared_data, monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 16)
    logits = classify(open_clip.IMAGENET_CLASSNAMES[::7], open_clip.OPENAI_IMAGENET_TEMPLATES[:1], shared_data, 8)
    assert logits.shape == (8, 143) and len(logits.argmax(dim=1).unique()) > 1


@pytest.mark.slow
def test_all_of_imagenets_names_and_templates_on_all_photographs(shared_data, monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 16)
    logits = classify(open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES, shared_data, None, 40)
    assert logits.shape == (128, 1000) and len(logits.argmax(dim=1).unique()) > 1
