"""Positions, attention and pooling of published embedders, against transformers' own model and formulas by hand."""

import math

import pytest
import torch

import vladva_clip
from tests.support import adapters, stated
from vladva_clip.encoder import pooling
from vladva_clip.encoder.prefix_cache import MIN_ROWS, PrefixCache
from vladva_clip.encoder.rows import Rows
from vladva_clip.storage.encoding_config import EncodingConfig
from vladva_clip.zero_shot.shared_prefix import encode_in_groups

WAYS = {
    "causal": {},
    "plain": {"positions": "plain"},
    "bidirectional": {"attention": "bidirectional"},
    "mean": {"pooling": "mean"},
    "both": {"attention": "bidirectional", "pooling": "mean", "positions": "plain"},
}
UNSHARED = ("bidirectional", "mean", "both")
TEXTS = [f"a {size} {color} {shape}" for size in ("small", "large") for color in ("red", "green", "blue") for shape in
         ("circle", "square", "dog on the left of the cat")] + ["", "a"]  # fmt: skip


@pytest.fixture(scope="module")
def models(base, tmp_path_factory):
    """The same tiny base of each family in turn, read in each of the ways."""
    root = tmp_path_factory.mktemp("ways")
    return {way: adapters.load(stated.copy(base, root / way, **keys)) for way, keys in WAYS.items()}


@pytest.fixture(scope="module")
def qwen(bases, tmp_path_factory):
    """A tiny Qwen2-VL with plain positions."""
    return adapters.load(stated.copy(bases["qwen2_vl"], tmp_path_factory.mktemp("plain") / "base", positions="plain"))


def images_for(model, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(0))


def text_rows(model, tokenizer, texts: list[str]) -> Rows:
    return model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in tokenizer.ids(texts)])


def one_by_one(model, tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.encode_text(row[None]) for row in tokens])


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = 1e-4) -> bool:
    assert expected.abs().max() > 0.1  # else closeness says nothing
    return torch.allclose(found.double(), expected.double(), rtol=0, atol=atol)


class TestPositions:
    def test_plain_ones_are_those_that_transformers_counts_itself(self, qwen):
        """Its language model, called with the embeddings and without positions, as the authors call it."""
        rows = qwen.visual.rows(images_for(qwen))
        counted = qwen.visual.backbone.lvlm.model.language_model(inputs_embeds=rows.embeddings).last_hidden_state
        assert close(qwen.encode_image(images_for(qwen)), counted[:, -1])
        assert torch.equal(rows.position_ids[:, 0], torch.arange(rows.embeddings.shape[1]).expand(3, -1))

    def test_they_differ_where_the_family_has_a_grid(self, models):
        family, plain = models["causal"], models["plain"]
        found = [model.encode_image(images_for(model)) for model in (family, plain)]
        if family.config.base.family in ("llava", "llava_next", "llava_onevision", "internvl", "idefics3"):
            assert torch.equal(*found)
        else:
            assert not close(*found, atol=1e-2)
        tokens = torch.tensor([[60, 61, 62, family.text.prompts.eot_token_id]])
        assert torch.equal(family.encode_text(tokens), plain.encode_text(tokens))


def llama_both_ways(trunk, embeddings: torch.Tensor) -> torch.Tensor:
    """A Llama without causality over one row without padding, `(T, D)`, in float64: written out, with no mask."""
    states, config = embeddings.double(), trunk.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = states.shape[-1] // heads
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(len(states), dtype=torch.float64)[:, None] * frequencies.repeat(2)

    def rotated(x):
        half = torch.cat([-x[..., width // 2 :], x[..., : width // 2]], dim=-1)
        return x * angles.cos() + half * angles.sin()

    def normed(x, norm):
        return norm.weight.double() * x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()

    def parts(x, linear, count):
        return (x @ linear.weight.double().T).view(len(x), count, width).transpose(0, 1)

    for layer in trunk.layers:
        attention, mlp, x = layer.self_attn, layer.mlp, normed(states, layer.input_layernorm)
        query, key = rotated(parts(x, attention.q_proj, heads)), rotated(parts(x, attention.k_proj, groups))
        key, value = (t.repeat_interleave(heads // groups, 0) for t in (key, parts(x, attention.v_proj, groups)))
        mixed = (query @ key.transpose(1, 2) / math.sqrt(width)).softmax(-1) @ value
        states = states + mixed.transpose(0, 1).flatten(1) @ attention.o_proj.weight.double().T
        x = normed(states, layer.post_attention_layernorm)
        gate = torch.nn.functional.silu(x @ mlp.gate_proj.weight.double().T)
        states = states + (gate * (x @ mlp.up_proj.weight.double().T)) @ mlp.down_proj.weight.double().T
    return normed(states, trunk.norm)


class TestBidirectionalAttention:
    def test_against_the_formula(self, bases, tmp_path):
        model = adapters.load(stated.copy(bases["llava"], tmp_path / "base", attention="bidirectional"))
        tokenizer = vladva_clip.get_tokenizer(f"local-dir:{tmp_path}/base")
        texts, trunk = ["a red circle", "a"], model.visual.backbone.trunk_module
        rows = text_rows(model, tokenizer, texts)
        ends = rows.layout.summary_index.tolist()
        by_hand = [llama_both_ways(trunk, row[: end + 1]) for row, end in zip(rows.embeddings, ends, strict=True)]
        assert close(model.encode_text(tokenizer(texts)), torch.stack([states[-1] for states in by_hand]))
        rows = model.visual.rows(images_for(model, 1))
        assert close(model.encode_image(images_for(model, 1))[0], llama_both_ways(trunk, rows.embeddings[0])[-1])

    def test_against_transformers_with_a_mask_that_hides_nothing(self, models, tokenizer):
        """One row without padding at a time, eager attention, float64: Qwen's M-RoPE stays transformers' own."""
        model = models["bidirectional"]
        for rows, feature in (
            (model.visual.rows(images_for(model, 1)), model.encode_image(images_for(model, 1))),
            (text_rows(model, tokenizer, ["a dog"]), model.encode_text(tokenizer(["a dog"]))),
        ):
            trunk, length = model.visual.backbone.trunk_module, rows.embeddings.shape[1]
            positions = rows.position_ids.expand(*rows.position_ids.shape[:-2], 1, length)
            nothing, own = torch.zeros(1, 1, length, length), trunk.config._attn_implementation
            try:
                trunk.config._attn_implementation = "eager"
                more = {"attention_mask": nothing, **rows.trunk_inputs}  # Qwen3-VL's feature maps
                whole = trunk(inputs_embeds=rows.embeddings, position_ids=positions, **more)
            finally:
                trunk.config._attn_implementation = own
            assert close(feature[0], whole.last_hidden_state[0, -1])

    @pytest.mark.parametrize("way", ["bidirectional", "both"])
    def test_it_sees_what_follows(self, models, tokenizer, way):
        """The first token of a row depends on the caption, which no causal model could see."""
        first = [model_states(models[way], tokenizer, text)[0] for text in ("a red circle", "a green dog")]
        assert not close(*first, atol=1e-2)
        assert close(*(model_states(models["causal"], tokenizer, text)[0] for text in ("a red circle", "a green dog")))

    @pytest.mark.parametrize("way", WAYS)
    def test_a_longer_neighbor_changes_nothing(self, models, tokenizer, way):
        tokens = tokenizer(["a dog", "a small red circle on the left of the large green square, above the blue cat"])
        together = models[way].encode_text(tokens)
        assert close(together, one_by_one(models[way], tokens))
        with torch.no_grad():  # nor does padding to the context length, as in an exported program
            assert close(models[way].text._whole(tokens), together)

    @pytest.mark.parametrize("way", ["bidirectional", "both"])
    def test_without_the_padding_mask_it_would(self, models, tokenizer, way, monkeypatch):
        tokens = tokenizer(["a dog", "a small red circle on the left of the large green square, above the blue cat"])
        expected = models[way].encode_text(tokens)
        monkeypatch.setattr(Rows, "_both_ways", lambda rows: torch.zeros(1, 1, *[rows.embeddings.shape[1]] * 2))
        found = models[way].encode_text(tokens)
        assert not close(found[0], expected[0], atol=1e-2) and close(found[1], expected[1])

    @pytest.mark.parametrize("way", WAYS)
    def test_images_are_independent_of_their_batch(self, models, way):
        images = images_for(models[way], 3)
        alone = torch.cat([models[way].encode_image(image[None]) for image in images])
        assert close(models[way].encode_image(images), alone)
        assert not close(alone[0], alone[1], atol=1e-2)

    def test_what_needs_causality_is_refused(self, models, tokenizer):
        model = models["bidirectional"]
        images, caption = images_for(model), torch.tensor([60, 61])
        with pytest.raises(ValueError, match="bidirectional.*no captions"):
            model.visual.continued_rows(model.visual.backbone.visual_tokens(images), [caption, None])
        with pytest.raises(ValueError, match="bidirectional.*cache=None"):
            text_rows(model, tokenizer, ["a dog"]).hidden_states(
                PrefixCache(config=model.visual.backbone.lvlm.config.get_text_config())
            )
        for prompt in (None, "What is it?"):
            with pytest.raises(ValueError, match="bidirectional.*generate"):
                model.generate(images, prompt)
        visual = model.visual.backbone.visual_tokens(images)
        assert close(model.visual.continued_rows(visual, [None, None]).features(), model.encode_image(images))
        assert models["plain"].generate(images, max_new_tokens=2) and models["mean"].generate(images, max_new_tokens=2)


def model_states(model, tokenizer, text: str) -> torch.Tensor:
    with torch.no_grad():
        return text_rows(model, tokenizer, [text]).hidden_states()[0]


class TestSharedBeginnings:
    """Where a feature needs all of its row, no beginning is shared; the others go on sharing theirs."""

    def test_whose_features_need_no_more_than_their_tokens_behind(self, models):
        shares = {way: model.text._shares_beginning(MIN_ROWS) for way, model in models.items()}
        assert shares == {way: way not in UNSHARED for way in WAYS}

    @pytest.mark.parametrize("way", WAYS)
    def test_many_captions_have_the_features_of_single_ones(self, models, tokenizer, way):
        assert len(TEXTS) > MIN_ROWS
        tokens = tokenizer(TEXTS)
        assert close(models[way].encode_text(tokens), one_by_one(models[way], tokens))

    @pytest.mark.parametrize("way", WAYS)
    def test_so_has_the_classifier(self, models, tokenizer, way):
        model, templates = models[way], ["a {}", "a small {}"]
        names = [text.removeprefix("a ") for text in TEXTS if len(text) > 1]
        found = vladva_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
        rows = [[template.format(name) for template in templates] for name in names]
        features = [torch.cat([model.encode_text(tokenizer(text), True) for text in row]) for row in rows]
        means = torch.stack([torch.nn.functional.normalize(part.mean(0), dim=0) for part in features])
        assert close(found.T, means)

    @pytest.mark.parametrize("way", UNSHARED)
    def test_sharing_would_change_them_or_fail(self, models, tokenizer, way, monkeypatch):
        model, tokens = models[way], tokenizer(TEXTS)
        expected = model.encode_text(tokens)
        monkeypatch.setattr(EncodingConfig, "shares_beginnings", True)
        captions = [tuple(ids) for ids in tokenizer.ids(TEXTS)]
        if model.config.encoding.is_causal:
            assert not close(model.encode_text(tokens), expected, atol=1e-2)
            for rows, features in encode_in_groups(model.text, captions):
                assert not close(features, expected[rows], atol=1e-2)
        else:
            for encode in (lambda: model.encode_text(tokens), lambda: list(encode_in_groups(model.text, captions))):
                with pytest.raises(ValueError, match="bidirectional"):
                    encode()

    @pytest.mark.parametrize("way", UNSHARED)
    def test_rows_are_not_cut(self, models, tokenizer, way):
        with pytest.raises(AssertionError, match="depends on all of its row"):
            text_rows(models[way], tokenizer, ["a dog"]).columns(1)


class TestMeanPooling:
    def test_it_is_the_mean_over_the_tokens_of_a_row(self, models, tokenizer):
        model, texts = models["mean"], ["a red circle", "", "a small dog on the left"]
        rows = text_rows(model, tokenizer, texts)
        states, ends = rows.hidden_states().double(), rows.layout.summary_index.tolist()
        means = torch.stack([row[: end + 1].mean(0) for row, end in zip(states, ends, strict=True)])
        assert close(model.encode_text(tokenizer(texts)), means)
        states = model.visual.rows(images_for(model)).hidden_states().double()
        assert close(model.encode_image(images_for(model)), states.mean(1))
        assert not close(means, models["causal"].encode_text(tokenizer(texts)), atol=1e-2)

    def test_a_bf16_model_sums_in_float32(self):
        """In bf16, 256 + 1 is 256: a sum in its own precision would stop there."""
        states = torch.ones(1, 1000, 2, dtype=torch.bfloat16)
        states[:, 0] = 300
        found = pooling.mean_features(states, torch.tensor([899]))
        assert found.dtype == torch.float32 and found[0, 0].item() == pytest.approx((300 + 899) / 900, rel=1e-6)
        assert pooling.mean_features(states.double(), torch.tensor([899])).dtype == torch.float64

    def test_what_stands_in_the_padding_does_not_count(self):
        states = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        ends = torch.tensor([3, 6])
        expected = torch.stack([states[0, :4].mean(0), states[1].mean(0)])
        states[0, 4:] = 1e9
        torch.testing.assert_close(pooling.mean_features(states, ends), expected, rtol=0, atol=1e-12)
