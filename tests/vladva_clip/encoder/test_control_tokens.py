"""No caption writes a control token, whatever a tokenizer's files say of it."""

import json
from pathlib import Path

import pytest
import torch

import vladva_clip
from vladva_clip.encoder.backbones import backbone_class


@pytest.fixture
def family(bare):
    return backbone_class(json.loads((bare / "config.json").read_text())["model_type"])


def edit(copy: Path, change, name: str = "tokenizer.json") -> None:
    data = json.loads((copy / name).read_text())
    change(data)
    (copy / name).write_text(json.dumps(data))


def tokenizer(copy: Path):
    return vladva_clip.get_tokenizer(f"local-dir:{copy}")


def plain(data: dict) -> None:
    for token in data["added_tokens"]:
        token["special"] = False


def test_tokens_that_are_not_flagged_as_special(bare, base, family):
    """Tried with every control token in a caption: the ids are those of the honest tokenizer, which spells it out."""
    edit(bare, plain)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (bare / name).is_file():
            edit(bare, lambda data: [data.pop(key) for key in ("added_tokens_decoder",) if key in data], name)
    captions = [f"a red {token} circle" for token in family.control_tokens]
    found, expected = tokenizer(bare)(captions), tokenizer(base)(captions)
    assert torch.equal(found, expected)
    known = tokenizer(base).tokenizer.get_vocab()
    controls = torch.tensor([known[token] for token in family.control_tokens if token != family.eos_token])
    assert not torch.isin(found[found != 0], controls).any()  # padding is 0, and so may a control token be
    assert (found == known[family.eos_token]).sum() == len(captions)  # the one end of each row


def test_the_model_sees_the_same_rows(bare, base):
    edit(bare, plain)
    tokens = tokenizer(bare)(["a red </s> <image> <|im_end|> circle"])
    models = [vladva_clip.create_model(f"local-dir:{place}", precision="fp32")[0] for place in (bare, base)]
    assert torch.equal(*(model.encode_text(tokens) for model in models))


def test_a_vocabulary_that_spells_one_in_plain_letters(bare, family):
    """A word that shares its id: refused, or (as older `tokenizers` read such a file) not that word's id any more."""
    known = {
        token["content"]: token["id"] for token in json.loads((bare / "tokenizer.json").read_text())["added_tokens"]
    }
    control = known[family.eos_token]

    def share(data: dict) -> None:
        vocabulary = data["model"]["vocab"]
        word = next(word for word in vocabulary if word.lstrip("▁Ġ") == "x")
        vocabulary[word] = control

    edit(bare, share)
    try:
        ids = tokenizer(bare).ids(["x y x", "x"])
    except ValueError as error:
        assert "control token" in str(error) or "can't build the tokenizer" in str(error)
    else:
        assert control not in {number for row in ids for number in row}


@pytest.mark.parametrize("kind", ["missing", "another end"])
def test_a_tokenizer_of_no_family_of_ours(bare, family, kind):
    def change(data: dict) -> None:
        data["eos_token"] = "a" if kind == "another end" else data["eos_token"]

    edit(bare, change, "tokenizer_config.json")
    if kind == "missing":
        slot = family.visual_span.slot
        for named in ("additional_special_tokens", "extra_special_tokens"):  # transformers would add it again
            edit(bare, lambda data, named=named: data.pop(named, None), "tokenizer_config.json")
        edit(bare, lambda data: data.update(added_tokens=[t for t in data["added_tokens"] if t["content"] != slot]))
    with pytest.raises(ValueError, match="eos_token is 'a'" if kind == "another end" else "lacks"):
        tokenizer(bare)


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "a list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "wrong types": lambda path: path.write_text(json.dumps({"model": 3, "added_tokens": "x", "eos_token": [1]})),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no vocabulary": lambda path: path.write_text(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}})),
    "another class": lambda path: path.write_text(json.dumps({"tokenizer_class": "BertTokenizer"})),
    "a word for a flag": lambda path: path.write_text(json.dumps({"add_prefix_space": "yes", "model": {}})),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_broken_files_are_named(bare, name, kind):
    BROKEN[kind](bare / name)
    with pytest.raises(ValueError, match=str(bare)):
        tokenizer(bare)


STEPS = {
    "a pattern that searches for ever": ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}}),
    "a replacement that grows": (
        "normalizer",
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100},
    ),
    "steps that double": (
        "normalizer",
        {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 20,
        },
    ),
    "an unknown step": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "nothing to replace": ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "a"}),
}


@pytest.mark.parametrize("kind", STEPS)
def test_steps_that_grow_or_search_for_ever(bare, kind):
    place, step = STEPS[kind]
    if step["type"] == "Split":
        step = {**step, "behavior": "Isolated", "invert": False}
    edit(bare, lambda data: data.update({place: step}))
    with pytest.raises(ValueError, match=f"tokenizer.json: {place}"):
        tokenizer(bare)


def test_dropout_is_refused(bare):
    edit(bare, lambda data: data["model"].update(dropout=0.5))
    with pytest.raises(ValueError, match="dropout"):
        tokenizer(bare)
