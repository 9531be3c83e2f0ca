"""What format 3 of the config states, what earlier versions imply, and what no config can say."""

import copy
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from vladva_clip.storage import adapter_files
from vladva_clip.storage.config import (
    FORMAT_VERSION,
    PromptConfig,
    VladvaConfig,
    prompt_from_dict,
    prompt_to_dict,
)
from vladva_clip.storage.encoding_config import EncodingConfig
from vladva_clip.storage.prompt_config import CaptionPlace, VisualSpan

FIXTURES = Path(__file__).parents[2] / "fixtures"
PROMPT_KEYS, ENCODING_KEYS = ([field.name for field in fields(cls)] for cls in (PromptConfig, EncodingConfig))
LATER_KEYS = ("visual_span", "clean", "tokens_template")
FIRST_KEYS = ("image_template", "text_template", "num_image_soft_tokens", "num_text_soft_tokens")


def stored(version: int = FORMAT_VERSION) -> dict:
    """The config of a stored adapter as JSON data."""
    return json.loads((FIXTURES / f"adapter_format_{version}" / adapter_files.CONFIG).read_text())


def changed(part: str, version: int = FORMAT_VERSION, drop: str | None = None, **keys) -> dict:
    data = copy.deepcopy(stored(version))
    data[part] = {key: value for key, value in {**data[part], **keys}.items() if key != drop}
    return data


class TestFormat3:
    @pytest.mark.parametrize("key", PROMPT_KEYS)
    def test_every_key_of_the_prompt_must_be_there(self, key):
        assert VladvaConfig.from_dict(stored())
        with pytest.raises(ValueError, match=rf"config\.prompt lacks {key}"):
            VladvaConfig.from_dict(changed("prompt", drop=key))

    @pytest.mark.parametrize("key", ENCODING_KEYS)
    def test_every_key_of_the_encoding_must_be_there(self, key):
        with pytest.raises(ValueError, match=rf"config\.encoding lacks {key}"):
            VladvaConfig.from_dict(changed("encoding", drop=key))

    @pytest.mark.parametrize(("part", "near"), [("prompt", "caption_ids"), ("encoding", "pooling")])
    def test_an_unknown_key_is_refused_with_the_nearest(self, part, near):
        with pytest.raises(ValueError, match=rf"config\.{part} has the unknown key '{near}s'; did you mean {near}"):
            VladvaConfig.from_dict(changed(part, **{f"{near}s": "alone"}))

    def test_the_encoding_itself_must_be_there(self):
        with pytest.raises(ValueError, match="config lacks encoding"):
            VladvaConfig.from_dict({key: value for key, value in stored().items() if key != "encoding"})

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *(("positions", value) for value in ("mrope", None, 0)),
            *(("pooling", value) for value in ("first", "cls", None)),
            *(("attention", value) for value in ("full", True)),
            *(("projection", value) for value in ("linear", False)),
            *(("headless", value) for value in (None, 1, "yes")),
            *(("matryoshka_dims", value) for value in (64, [0], [64, 32], [32, 32], ["32"], [32.5], [True], [1] * 65)),
        ],
    )
    def test_values_that_an_encoding_can_not_have(self, key, value):
        with pytest.raises(ValueError, match=key):
            VladvaConfig.from_dict(changed("encoding", **{key: value}))

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("caption_ids", "together"),
            ("clean", "lower"),
            ("clean", None),
            ("visual_span", "<image>"),
            ("visual_span", {"slot": 5}),
            ("visual_span", {"opening": "<image>"}),
            ("visual_span", {"slot": "<image>", "middle": ""}),
            ("tokens_template", "without a hole"),
            ("tokens_template", "{caption} {caption}"),
            ("tokens_template", "{caption} {visual}"),
        ],
    )
    def test_values_that_a_prompt_can_not_have(self, key, value):
        with pytest.raises(ValueError, match=r"|".join((key, "visual_span"))):
            VladvaConfig.from_dict(changed("prompt", **{key: value}))

    def test_it_survives_json(self):
        config = VladvaConfig.from_dict(stored())
        encoding = EncodingConfig("plain", "mean", "bidirectional", "trunk", True, (64, 256))
        span = VisualSpan("<|image_pad|>", "<|vision_start|>")
        prompt = {"caption_ids": "joined", "clean": "none", "visual_span": span, "tokens_template": "{caption} a"}
        config = config.replace(encoding=encoding, prompt=replace(config.prompt, **prompt))
        assert VladvaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        written = json.loads(json.dumps(prompt_to_dict(config.prompt)))
        assert prompt_from_dict(written) == config.prompt
        del written["prompt"]["clean"]
        with pytest.raises(ValueError, match="prompt lacks clean"):
            prompt_from_dict(written)

    def test_two_encodings_are_two_configs(self):
        config, other = VladvaConfig.from_dict(stored()), VladvaConfig.from_dict(changed("encoding", pooling="mean"))
        assert config != other and other.encoding.pooling == "mean"


class TestEarlierVersions:
    @pytest.mark.parametrize("version", [1, 2])
    def test_they_imply_what_they_always_meant(self, version):
        config = VladvaConfig.from_dict(stored(version))
        assert config.format_version == FORMAT_VERSION
        assert config.encoding == EncodingConfig("family", "last", "causal", None, False, ())
        assert (config.prompt.visual_span, config.prompt.clean, config.prompt.tokens_template) == (
            None,
            "open_clip",
            None,
        )
        assert config.prompt.caption_ids == {1: "alone", 2: "in_place"}[version]
        assert VladvaConfig.from_dict(config.to_dict()) == config

    def test_the_second_version_is_the_third_with_the_rest_stated(self):
        assert VladvaConfig.from_dict(stored(2)) == VladvaConfig.from_dict(stored(3))

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("key", LATER_KEYS)
    def test_they_refuse_later_keys_of_the_prompt(self, version, key):
        with pytest.raises(ValueError, match=f"unknown key '{key}'; format version {version} has image_template"):
            VladvaConfig.from_dict(changed("prompt", version, **{key: stored()["prompt"][key]}))

    @pytest.mark.parametrize("key", sorted(set(PROMPT_KEYS) - {*LATER_KEYS, *FIRST_KEYS}))
    def test_the_first_refuses_those_of_the_second(self, key):
        with pytest.raises(ValueError, match=f"unknown key '{key}'; format version 1"):
            VladvaConfig.from_dict(changed("prompt", 1, **{key: stored(2)["prompt"][key]}))

    @pytest.mark.parametrize("version", [1, 2])
    def test_they_refuse_an_encoding(self, version):
        with pytest.raises(ValueError, match=f"unknown key 'encoding'; format version {version}"):
            VladvaConfig.from_dict({**stored(version), "encoding": asdict(EncodingConfig())})

    @pytest.mark.parametrize("key", ["second_turn", "soft_slots", "caption_ids"])
    def test_the_second_states_all_of_its_own(self, key):
        with pytest.raises(ValueError, match=rf"config\.prompt lacks {key}"):
            VladvaConfig.from_dict(changed("prompt", 2, drop=key))


class TestWhereCaptionsStand:
    """Which white space around a caption belongs to its ids (see the templates' tests for the ids themselves)."""

    @pytest.mark.parametrize(
        ("template", "in_place", "joined"),
        [
            ("user\n{caption}<e>", CaptionPlace("user\n"), CaptionPlace("user", "\n", "", True)),
            ("user\n{caption}\nSum", CaptionPlace("user\n", "", "\n"), CaptionPlace("user", "\n", "\n", True)),
            ("it: {caption} A:", CaptionPlace("it:", " "), CaptionPlace("it:", " ", "", True)),
            ("it: \n {caption}\r\nA", CaptionPlace("it: \n", " ", "\r\n"), CaptionPlace("it:", " \n ", "\r\n", True)),
            ("{caption} A:", CaptionPlace(""), CaptionPlace("", "", "", True)),
        ],
    )  # fmt: skip
    def test_each_way(self, template, in_place, joined):
        for way, place in (("alone", None), ("in_place", in_place), ("joined", joined)):
            assert PromptConfig("{visual} a", template, caption_ids=way).caption_place == place
            elsewhere = PromptConfig("{visual} a", "q {caption} a", caption_ids=way, tokens_template=template)
            assert elsewhere.caption_place == place  # as the tokenizer sees them
            assert elsewhere.text_place == PromptConfig("{visual} a", "q {caption} a", caption_ids=way).caption_place


@pytest.mark.parametrize(
    ("attention", "pooling", "shares"),
    [
        ("causal", "last", True),
        ("causal", "mean", False),
        ("bidirectional", "last", False),
        ("bidirectional", "mean", False),
    ],
)
def test_when_beginnings_are_shared(attention, pooling, shares):
    encoding = EncodingConfig(attention=attention, pooling=pooling)
    assert (encoding.is_causal, encoding.shares_beginnings) == (attention == "causal", shares)
