"""Truncated and quantised features, against sentence-transformers and plain arithmetic."""

import sys

import numpy as np
import pytest
import torch
from sentence_transformers import quantize_embeddings
from sentence_transformers.util import truncate_embeddings

import vladva_clip
from tests.support import samples
from vladva_clip import dequantize, quantize, truncate


def drawn(count: int, seed: int = 0, width: int = 20) -> torch.Tensor:
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(noise + 0.3, dim=-1)


class TestTruncate:
    def test_equals_sentence_transformers_and_has_length_one(self):
        found = truncate(drawn(7), 5)
        expected = torch.nn.functional.normalize(truncate_embeddings(drawn(7), 5), dim=-1)
        assert torch.equal(found, expected)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(7))

    @pytest.mark.parametrize("dim", [0, -1, 21, 2.0, True, "4"])
    def test_dimensions(self, dim):
        with pytest.raises(ValueError, match=f"truncate_dim is {dim!r}.*from 1 to 20"):
            truncate(drawn(2), dim)

    @pytest.mark.parametrize("features", [torch.zeros(3), torch.zeros(2, 3, dtype=torch.long), [[1.0]]])
    def test_features(self, features):
        with pytest.raises(ValueError, match="tensor \\(N, D\\) of floats"):
            truncate(features, 1)


@pytest.fixture(scope="module")
def short(base):
    return vladva_clip.create_model(f"local-dir:{base}", precision="fp32", truncate_dim=8)[0]


class TestModel:
    def test_features_are_the_leading_dimensions(self, short, model, tokenizer):
        images, tokens = torch.randn(3, 3, *model.visual.image_size), tokenizer(samples.CAPTIONS)
        for ours, whole in (
            (short.encode_image(images), model.encode_image(images)),
            (short.encode_text(tokens), model.encode_text(tokens)),
        ):
            assert torch.equal(ours, whole[:, :8])
            assert ours.untyped_storage().nbytes() == ours.numel() * 4  # no memory of what was cut off
            expected = truncate(torch.nn.functional.normalize(whole, dim=-1), 8)
            torch.testing.assert_close(torch.nn.functional.normalize(ours, dim=-1), expected, rtol=0, atol=1e-6)
        found = short(images, tokens)
        torch.testing.assert_close(found[0], truncate(model(images)[0], 8), rtol=0, atol=1e-6)
        torch.testing.assert_close(found[1].norm(dim=-1), torch.ones(len(tokens)))
        assert short.get_logits(images, tokens)[0].shape == (3, len(tokens))

    def test_all_that_states_the_width_agrees(self, short, model):
        assert short.embed_dim == short.visual.output_dim == short.text.output_dim == 8
        assert short.encode_image(torch.zeros(0, 3, *short.visual.image_size)).shape == (0, 8)
        assert short.encode_text(torch.zeros(0, 4, dtype=torch.long)).shape == (0, 8)
        assert short.config == model.config and short.config.embed_dim == model.embed_dim == 32

    def test_it_is_saved_whole(self, short, tmp_path):
        short.save_pretrained(tmp_path)
        whole = vladva_clip.VladvaCLIP.from_pretrained(tmp_path)
        assert whole.embed_dim == 32
        assert vladva_clip.VladvaCLIP.from_pretrained(tmp_path, truncate_dim=4).embed_dim == 4

    def test_in_open_clip_too(self, base):
        import open_clip

        name = f"local-dir:{base}"
        with pytest.raises(ValueError, match="truncate_dim is 33.*from 1 to 32"):
            vladva_clip.create_model(name, truncate_dim=33)
        vladva_clip.register("a-truncated-one", base)
        model = open_clip.create_model("a-truncated-one", truncate_dim=4)
        assert model.encode_image(torch.zeros(1, 3, *model.visual.image_size)).shape == (1, 4)


class TestQuantize:
    @pytest.mark.parametrize("precision", ["int8", "uint8"])
    def test_8_bits_equal_sentence_transformers(self, precision):
        features, calibration = drawn(50, seed=1), drawn(300)
        found = quantize(features, precision, calibration)
        expected = quantize_embeddings(features.numpy(), precision, calibration_embeddings=calibration.numpy())
        assert found.dtype == expected.dtype == np.dtype(precision) and np.array_equal(found, expected)
        ends = torch.stack([calibration.amin(dim=0), calibration.amax(dim=0)])  # all that has to be kept
        assert np.array_equal(quantize(features, precision, ends), found)

    @pytest.mark.parametrize("precision", ["int8", "uint8"])
    def test_decoded_they_are_within_half_a_step(self, precision):
        features = drawn(300)
        decoded = dequantize(quantize(features, precision, features), features)
        step = (features.amax(dim=0) - features.amin(dim=0)).numpy() / 255
        assert decoded.dtype == np.float32 and (np.abs(decoded - features.numpy()) <= 0.51 * step).all()

    def test_beyond_the_calibration_the_last_step_is_taken(self):
        far = torch.tensor([[9.0, -9.0]])
        ends = torch.tensor([[-2.0, -2.0], [2.0, 2.0]])
        assert np.array_equal(quantize(far, "int8", ends), quantize(far.clamp(-2, 2), "int8", ends))
        assert quantize(far, "int8", ends)[0, 0] > 120 and quantize(far, "int8", ends)[0, 1] == -128

    @pytest.mark.parametrize(("precision", "dtype"), [("binary", np.int8), ("ubinary", np.uint8)])
    def test_signs(self, precision, dtype):
        found = quantize(drawn(9), precision)
        assert found.shape == (9, 3) and found.dtype == dtype
        bits = np.unpackbits((found.astype(int) + (128 if dtype == np.int8 else 0)).astype(np.uint8), axis=1, count=20)
        assert np.array_equal(bits == 1, drawn(9).numpy() > 0)

    def test_arrays_and_half_precision(self):
        assert np.array_equal(quantize(drawn(4).numpy(), "ubinary"), quantize(drawn(4), "ubinary"))
        assert quantize(drawn(4).bfloat16(), "ubinary").shape == (4, 3)

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ((drawn(2), "int4"), "int4.*int8, uint8, binary, ubinary"),
            ((drawn(2), "float32"), "float32.*int8"),
            ((drawn(2), "int8"), "int8 .*calibration"),
            ((drawn(2), "binary", drawn(2)), "binary .*calibration"),
            ((drawn(2), "int8", drawn(1)), "at least 2 rows.*20"),
            ((drawn(2), "int8", drawn(4, width=19)), "width 20"),
            ((drawn(2)[0], "binary"), "\\(N, D\\) floats"),
            ((drawn(2).long(), "binary"), "\\(N, D\\) floats"),
            ((drawn(2) * float("nan"), "binary"), "NaN"),
        ],
    )
    def test_refused(self, arguments, reason):
        with pytest.raises(ValueError, match=reason):
            quantize(*arguments)

    def test_codes_that_are_none(self):
        with pytest.raises(ValueError, match="int8 or uint8"):
            dequantize(np.zeros((2, 3)), drawn(2, width=3))

    def test_without_sentence_transformers(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as Python marks what can't be imported
        with pytest.raises(ImportError, match=r"pip install .*\[vectors\]"):
            quantize(drawn(2), "binary")
