"""Programs recorded from the towers: traces are refused, exports are right for inputs they were not made from."""

import pytest
import torch

import vladva_clip
from vladva_clip.encoder.tokenizer import VladvaTokenizer

MADE_FROM = ["a red circle", "a blue square and a green star"]
OTHERS = ["a yellow triangle left of a circle on the right of a dog", "", "dog", "a red circle"]


def images_for(model, count: int) -> torch.Tensor:
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(count))


def exported(tower, given: torch.Tensor, sizes: dict | None = None, strict: bool = False):
    return torch.export.export(tower, (given,), dynamic_shapes=sizes and (sizes,), strict=strict).module()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("way", ["text", "visual", "model", "method", "onnx"])
def test_traces_are_refused(model, tokenizer, way):
    images, tokens = images_for(model, 2), tokenizer(MADE_FROM)
    trace = {
        "text": lambda: torch.jit.trace(model.text, tokens),
        "visual": lambda: torch.jit.trace(model.visual, images),
        "model": lambda: torch.jit.trace(model, (images, tokens)),
        "method": lambda: torch.jit.trace_module(model, {"encode_text": tokens}),
        "onnx": lambda: torch.onnx.export(model.text, (tokens,), "none.onnx", dynamo=False),
    }
    with pytest.raises(ValueError, match=r"torch\.export"):
        trace[way]()


def test_an_exported_text_tower_takes_any_captions_of_any_number_and_width(model, tokenizer: VladvaTokenizer):
    sizes = {0: torch.export.Dim("rows", max=4096), 1: torch.export.Dim("width", min=3, max=4096)}
    program = exported(model.text, tokenizer(MADE_FROM), sizes)
    for captions in (OTHERS, OTHERS[:1], MADE_FROM):
        for width in (32, 256):
            tokens = tokenizer(captions, width)
            torch.testing.assert_close(program(tokens), model.encode_text(tokens), rtol=0, atol=1e-5)
    foreign = tokenizer([*OTHERS, *MADE_FROM])  # rows that no program can refuse
    foreign[1, 0] = model.vocab_size + 9
    foreign[2, 0] = -1
    foreign[3][foreign[3] == tokenizer.eot_token_id] = 5
    foreign[4, -1] = 5
    assert program(foreign).isnan().all(dim=1).tolist() == [False, True, True, True, True, False]


class TestImages:
    @pytest.mark.parametrize("family", ["llava", pytest.param("internvl", marks=pytest.mark.wide)])
    def test_an_exported_image_tower_takes_any_number_of_images(self, bases, family):
        model, _ = vladva_clip.create_model(f"local-dir:{bases[family]}", precision="fp32")
        program = exported(model.visual, images_for(model, 2), {0: torch.export.Dim("images", max=4096)})
        for count in (1, 2, 5):
            images = images_for(model, count)
            torch.testing.assert_close(program(images), model.encode_image(images), rtol=0, atol=1e-5)

    @pytest.mark.slow
    def test_the_whole_model(self, llava, bases):
        tokens = vladva_clip.get_tokenizer(f"local-dir:{bases['llava']}")(OTHERS[:2])
        program = torch.export.export(llava, (images_for(llava, 2), tokens), strict=False).module()
        images = images_for(llava, 3)[:2]
        for found, expected in zip(program(images, tokens.flip(0)), llava(images, tokens.flip(0)), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    def test_a_family_that_cannot_be_exported_says_so(self, bases):
        qwen, _ = vladva_clip.create_model(f"local-dir:{bases['qwen2_vl']}", precision="fp32")
        with pytest.raises(ValueError, match="image tower"):
            exported(qwen.visual, images_for(qwen, 1))
