"""What clients rely on before the model: tokens and transforms, and how the model meets others' tokens and images."""

import copy
import pickle
import shutil
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import CenterCrop, Compose, Normalize

import vladva_clip
from tests.support import samples


def forever(text, count):
    return " ".join([text] * count)


class TestTokenizer:
    def test_rows(self, tokenizer):
        rows = tokenizer(samples.CAPTIONS)
        assert type(rows) is torch.Tensor and rows.dtype == torch.int64
        assert rows.shape == (len(samples.CAPTIONS), 256)
        for row, caption in zip(rows, samples.CAPTIONS, strict=True):
            length = int((row == tokenizer.eot_token_id).nonzero()[0]) + 1
            assert (row == tokenizer.eot_token_id).sum() == 1 and row[length:].eq(0).all()
            word, own = (tokenizer.tokenizer(text).input_ids for text in ("word:", f"word: {caption}"))
            assert [*word, *row[: length - 1]] == own  # the backbone's own ids in the template, unshifted
            assert tokenizer.decode(row[:length]).strip() == caption

    def test_one_string_is_one_row(self, tokenizer):
        assert torch.equal(tokenizer("a red dog"), tokenizer(["a red dog"]))
        assert tokenizer("a red dog").shape == (1, 256)

    def test_any_sequence_of_strings(self, tokenizer):
        expected = tokenizer(samples.CAPTIONS)
        array = np.array(samples.CAPTIONS)
        for texts in (tuple(samples.CAPTIONS), array, list(array), array.astype(object), array.reshape(-1, 1)):
            assert torch.equal(tokenizer(texts), expected)
        assert torch.equal(tokenizer(np.array("dog")), tokenizer("dog"))

    @pytest.mark.parametrize("bad", [[b"dog"], [1], [None], [["dog"]], np.array([1.5])])
    def test_other_things_are_refused(self, tokenizer, bad):
        with pytest.raises(ValueError, match="caption 0 .*string"):
            tokenizer(bad)

    @pytest.mark.parametrize("bad", [{"dog": 1}, {"dog", "cat"}, b"dog", bytearray(b"dog"), None, 1, 1.5, True])
    def test_what_is_no_sequence_is_refused(self, tokenizer, bad):
        """The keys of a dict and the values of bytes would be read as captions, and a set has no order."""
        with pytest.raises(ValueError, match=f"captions .*{type(bad).__name__}.*string"):
            tokenizer(bad)

    def test_a_table_is_not_its_column_names(self, tokenizer):
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame({"caption": ["dog", "cat"]})
        with pytest.raises(ValueError, match="captions .*DataFrame"):
            tokenizer(table)
        assert torch.equal(tokenizer(table["caption"]), tokenizer(["dog", "cat"]))

    def test_truncation_keeps_the_eot(self, tokenizer):
        for width in (8, 77, 256):
            row = tokenizer(forever("a red dog", 200), width)[0]
            assert row.shape == (width,) and row[-1] == tokenizer.eot_token_id
            assert row[:-1].tolist() == tokenizer.encode(forever("a red dog", 200))[: width - 1]

    def test_context_length(self, tokenizer, model):
        assert tokenizer.context_length == model.context_length == model.text.context_length == 256
        narrow, wide = tokenizer("a red dog", context_length=77), tokenizer("a red dog")
        assert narrow.shape == (1, 77) and torch.equal(narrow, wide[:, :77])
        assert torch.equal(model.encode_text(narrow), model.encode_text(wide))

    def test_captions_differ_behind_the_77th_token(self, tokenizer, model):
        same = forever("a red dog on the left of the cat", 12)
        captions = [f"{same} green", f"{same} blue"]
        assert len(tokenizer.encode(same)) > 77
        features = model.encode_text(tokenizer(captions), normalize=True)
        assert (features[0] - features[1]).abs().max() > 1e-3
        cut = model.encode_text(tokenizer(captions, context_length=77), normalize=True)
        torch.testing.assert_close(cut[0], cut[1], rtol=0, atol=1e-6)

    def test_the_empty_caption(self, tokenizer, model):
        for text in ("", "  \n\t"):
            row = tokenizer(text)
            assert row[0, 0] == tokenizer.eot_token_id and row[0, 1:].eq(0).all()
            assert model.encode_text(row).isfinite().all()

    def test_interface(self, tokenizer, tmp_path):
        assert isinstance(tokenizer, open_clip.tokenizer.HFTokenizer)  # push_to_hf_hub replaces any other class
        assert (tokenizer.pad_token_id, tokenizer.sot_token_id) == (0, None)
        assert tokenizer.vocab_size == len(tokenizer.tokenizer)
        tokenizer.save_pretrained(tmp_path)
        assert torch.equal(vladva_clip.VladvaTokenizer(str(tmp_path))(samples.CAPTIONS), tokenizer(samples.CAPTIONS))
        with pytest.warns(UserWarning, match="language"):
            tokenizer.set_language("en")

    def test_beside_a_model_the_models_templates_hold(self, base, adapter, tokenizer, tmp_path):
        """A tokenizer saved among a model's files leaves nothing that keeps the model from being saved again."""
        model = vladva_clip.create_model(f"local-dir:{adapter}")[0]
        model.save_pretrained(tmp_path / "adapter")
        tokenizer.save_pretrained(tmp_path / "adapter")
        model.save_pretrained(tmp_path / "adapter")
        copied = shutil.copytree(base, tmp_path / "base")
        other = vladva_clip.VladvaTokenizer(str(base), prompt=replace(tokenizer.prompt, caption_ids="alone"))
        other.save_pretrained(tmp_path / "alone")
        shutil.copy(tmp_path / "alone" / "vladva_prompt.json", copied)
        found, expected = (vladva_clip.get_tokenizer(f"local-dir:{place}") for place in (copied, base))
        assert found.ids(samples.CAPTIONS) == expected.ids(samples.CAPTIONS)

    def test_copies_and_holds_no_model(self, tokenizer):
        data = pickle.dumps(tokenizer)
        assert len(data) < 200_000
        for copied in (pickle.loads(data), copy.deepcopy(tokenizer)):
            assert torch.equal(copied(samples.CAPTIONS), tokenizer(samples.CAPTIONS))
            assert copied.context_length == 256 and copied.eot_token_id == tokenizer.eot_token_id
        assert not any(isinstance(value, nn.Module) for value in vars(tokenizer).values())

    def test_a_caption_that_spells_special_tokens_is_text(self, tokenizer, model):
        specials = sorted(set(tokenizer.tokenizer.added_tokens_encoder) - {"<unk>"})
        assert len(specials) > 2
        rows = tokenizer([f"a {token} dog" for token in specials])
        assert torch.equal((rows == tokenizer.eot_token_id).sum(dim=1), torch.ones(len(rows), dtype=torch.int64))
        reserved = set(tokenizer.tokenizer.convert_tokens_to_ids(specials)) - {tokenizer.eot_token_id}
        assert not reserved & {id for row in rows.tolist() for id in row[: row.index(tokenizer.eot_token_id)]}
        assert model.encode_text(rows).isfinite().all()


class TestForeignTokens:
    def refused_tokens(self, model, tokens):
        with pytest.raises(ValueError, match="tokenizer") as caught:
            model.encode_text(tokens)
        return str(caught.value)

    def test_clip_bpe(self, model):
        for name in ("ViT-B-32", "RN50"):
            message = self.refused_tokens(model, open_clip.get_tokenizer(name)(samples.CAPTIONS))
            assert "row 0" in message and str(model.text.prompts.eot_token_id) in message
        self.refused_tokens(model, open_clip.tokenize(["dog"]))

    def test_the_other_family(self, model, bases):
        other = next(d for family, d in bases.items() if family != model.config.base.family)
        self.refused_tokens(model, vladva_clip.get_tokenizer(f"local-dir:{other}")(samples.CAPTIONS))

    def test_one_bad_row_among_good_ones_is_named(self, model, tokenizer):
        eot, good = tokenizer.eot_token_id, tokenizer(samples.CAPTIONS)
        missing, behind, beyond, negative = (good.clone() for _ in range(4))
        missing[3][missing[3] == eot] = 0
        behind[3, -1] = 5
        beyond[3, 0] = model.vocab_size
        negative[3, 0] = -1
        for tokens in (missing, behind, beyond, negative):
            assert "row 3 " in self.refused_tokens(model, tokens)
            model.encode_text(tokens[:3])

    def test_the_last_id_of_the_vocabulary_is_good(self, model, tokenizer):
        tokens = tokenizer(["dog"])
        tokens[0, 0] = model.vocab_size - 1
        assert model.encode_text(tokens).isfinite().all()

    def test_other_types_and_shapes(self, model, tokenizer):
        good = tokenizer(samples.CAPTIONS)
        others = (good[0], good[None], samples.CAPTIONS, "dog", good.tolist(), good.numpy(), None, True)
        for bad in (good.float(), good.bool(), good.to(torch.complex64), *others):
            self.refused_tokens(model, bad)
        self.refused_tokens(model, torch.zeros(2, 0, dtype=torch.int64))
        self.refused_tokens(model, torch.zeros(2, 256, dtype=torch.int64))

    def test_other_integer_types(self, model, tokenizer):
        tokens = tokenizer(samples.CAPTIONS)
        assert torch.equal(model.encode_text(tokens.int()), model.encode_text(tokens))


class TestTransform:
    def test_is_a_compose_of_one_fixed_size(self, preprocess, model):
        assert type(preprocess) is Compose
        assert preprocess.transforms[0].size == model.visual.image_size
        assert any(isinstance(step, Normalize) for step in preprocess.transforms)
        if model.visual.preprocess_cfg["resize_mode"] == "shortest":
            assert any(isinstance(step, CenterCrop) for step in preprocess.transforms)
        for size in ((1, 1), (3, 300), (500, 20), model.visual.image_size):
            tensor = preprocess(samples.noise_picture(0, size))
            assert tensor.shape == (3, *model.visual.image_size) and tensor.dtype == torch.float32

    @pytest.mark.parametrize("mode", ["RGBA", "RGBX", "RGBa", "CMYK", "P", "PA", "YCbCr", "HSV"])
    def test_colour_modes_show_the_same_picture(self, preprocess, mode):
        picture = samples.picture(1)
        image = picture.quantize(8) if mode in ("P", "PA") else picture
        for step in {"RGBa": ["RGBA", "RGBa"]}.get(mode, [mode]):
            image = image.convert(step)
        assert image.mode == mode
        found, expected = preprocess(image), preprocess(picture)
        assert (found - expected).abs().mean() < 0.05  # HSV and YCbCr round
        if mode != "RGBa":  # which PIL takes to RGB by way of RGBA
            assert torch.equal(found, preprocess(image.convert("RGB")))  # first the colours, then the resampling
        assert (preprocess(samples.picture(2)) - expected).abs().mean() > 0.3

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I of 16 bits"])
    def test_grey_modes_show_the_same_picture(self, preprocess, mode):
        grey = samples.picture(1).convert("1").convert("L")
        image = grey
        if mode == "I of 16 bits":
            image, mode = Image.fromarray(np.asarray(grey).astype(np.int32) * 256), "I"
        elif mode.startswith("I;16"):
            raw = (np.asarray(grey).astype(np.uint16) * 256).astype(">u2" if mode.endswith("B") else "<u2")
            image = Image.frombytes(mode, grey.size, raw.tobytes())
        else:
            for step in {"La": ["LA", "La"]}.get(mode, [mode]):
                image = image.convert(step)
        assert image.mode == mode
        torch.testing.assert_close(preprocess(image), preprocess(grey), rtol=0, atol=0.0351)  # two of 255 levels
        assert preprocess(image).std() > 0.1

    def test_lab(self, preprocess):
        tensors = [preprocess(Image.new("LAB", (64, 64), (light, 128, 128))) for light in (20, 200)]
        assert all(tensor.isfinite().all() for tensor in tensors)
        assert (tensors[0] - tensors[1]).abs().mean() > 0.5

    @pytest.mark.parametrize("bad", [np.zeros((9, 9, 3), np.uint8), torch.zeros(3, 9, 9), "photo.png", None])
    def test_other_things_are_refused(self, preprocess, bad):
        with pytest.raises(ValueError, match="PIL image"):
            preprocess(bad)

    def test_copies(self, preprocess, base):
        _, train, val = vladva_clip.create_model_and_transforms(f"local-dir:{base}", precision="fp32")
        picture = samples.noise_picture(3)
        for transform in (preprocess, val):
            data = pickle.dumps(transform)
            assert len(data) < 10_000
            for copied in (pickle.loads(data), copy.deepcopy(transform)):
                assert torch.equal(copied(picture), preprocess(picture))
        torch.manual_seed(0)
        augmented = train(picture)
        torch.manual_seed(0)
        assert torch.equal(pickle.loads(pickle.dumps(train))(picture), augmented)
        assert augmented.shape == preprocess(picture).shape and not torch.equal(augmented, train(picture))

    def test_images_that_preprocess_did_not_make(self, model):
        height, width = model.visual.image_size
        good = torch.zeros(2, 3, height, width)
        for bad in (good[0], good[:, :1], good[..., 1:], good.byte(), good[None], [good[0]], good.numpy(), None):
            with pytest.raises(ValueError, match="preprocess"):
                model.encode_image(bad)
