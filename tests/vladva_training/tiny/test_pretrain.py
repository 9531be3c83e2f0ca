"""Pre-training: the loss falls, a resumed run equals an uninterrupted one, what is saved is an ordinary LLaVA."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor

import vladva_clip
from vladva_clip.encoder.backbones.llava import LlavaBackbone
from vladva_clip.scenes import scene
from vladva_clip.sources.locate import BASE_FILE
from vladva_training.tiny import pretrain
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.course import Course, run
from vladva_training.tiny.forward import target_losses
from vladva_training.tiny.model import build_model, load_base, save_base
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.pretrain import Pretrainer, Settings, _share, named_rates
from vladva_training.tiny.recognition import HEADS, RecognitionHeads
from vladva_training.tiny.tasks import DESCRIBE_LONG, all_texts
from vladva_training.tiny.tokenizer import train_tokenizer

SMALL = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL["num_key_value_heads"] = 2


def make_trainer(tokenizer, course=None, **changes):
    torch.manual_seed(0)
    settings = Settings(**{"image_rows": 2, "text_rows": 2, "caption_rows": 4, **changes})
    course = Course(**{"steps": 4, "warmup_steps": 2, "save_every": 2, "validate_every": 0, **(course or {})})
    trainer = Pretrainer(build_model(tokenizer, **SMALL), tokenizer, settings, course)
    trainer.validation.size = 4
    return trainer


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def silent(*args, **kwargs):
    """Print nothing."""


def steps(trainer, count):
    return [trainer.train_step(trainer.data[step]) for step in range(count)]


@pytest.mark.parametrize("muon", [True, False])
def test_the_loss_falls(tokenizer, muon):
    trainer = make_trainer(tokenizer, {"steps": 40, "learning_rate": 1e-2}, image_rows=4, text_rows=4, muon=muon)
    losses = steps(trainer, 12)
    assert losses[0]["image_short/image"] == pytest.approx(math.log(1024), abs=0.3)
    for name in ("image_short/image", "one_word/text", "text_text/text"):
        assert losses[-1][name] < losses[0][name] - 0.3


def test_images_and_captions_share_the_loss_of_bindings(tokenizer):
    batches = make_trainer(tokenizer, text_rows=3, caption_rows=9).data[0]
    shares = {kind: sum(_share(one, batches) for one in batches if one.modality == kind) for kind in ("image", "text")}
    assert shares == pytest.approx({"image": 0.5, "text": 0.5})
    assert _share(batches[0], batches[:1]) == 1


@pytest.mark.parametrize("muon", [True, False])
def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path, muon):
    whole = make_trainer(tokenizer, muon=muon)
    run(whole, tmp_path / "whole", log=silent)
    first = make_trainer(tokenizer, muon=muon)
    steps(first, 2)
    first.save(tmp_path / "parts")
    second = make_trainer(tokenizer, muon=muon)
    torch.nn.init.zeros_(second.model.lm_head.weight)
    second.resume(tmp_path / "parts")
    run(second, tmp_path / "parts", log=silent)
    assert second.step == whole.step == 4
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(second).items())
    stored = [load_file(tmp_path / name / "base/model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(tensor, stored[1][name]) for name, tensor in stored[0].items())


def test_a_run_is_not_resumed_with_another_vocabulary(tokenizer, tmp_path):
    make_trainer(tokenizer).save(tmp_path)
    other = make_trainer(train_tokenizer([*all_texts(), *["a hexagon"] * 3]))
    with pytest.raises(ValueError, match="vocabulary"):
        other.resume(tmp_path)
    with pytest.raises(ValueError, match="style='varied', now 'classic'"):
        make_trainer(tokenizer, style="classic").resume(tmp_path)


def test_batches_of_worker_processes_are_the_same(tokenizer, tmp_path):
    alone, helped = (make_trainer(tokenizer, {"workers": workers}) for workers in (0, 1))
    run(alone, tmp_path / "alone", log=silent)
    run(helped, tmp_path / "helped", log=silent)
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(helped).items())


def test_the_curve_has_each_task_and_what_validation_found(tokenizer, tmp_path):
    run(make_trainer(tokenizer, {"log_every": 2, "validate_every": 4}), tmp_path, log=silent)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in lines] == [("train", 2), ("train", 4), ("evaluation", 4)]
    assert {"seconds", "one_word/text", "recognition/image", "binding/image", "binding/text"} <= set(lines[0])
    assert {"loss", "image_short/image", "sizes", "relations in captions"} <= set(lines[2])


def test_the_vision_tower_has_its_rate(tokenizer):
    model = build_model(tokenizer, **SMALL)
    groups = named_rates(model, [RecognitionHeads(48)], Settings(vision_rate=0.5))
    slow = {id(one) for named, rate in groups if rate == 0.5 for _, one in named}
    assert slow == {id(one) for one in model.model.vision_tower.parameters()}
    assert sum(len(named) for named, _ in groups[:2]) == len(list(model.parameters()))


def test_the_command_trains_resumes_and_writes_a_base(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "build_model", lambda tokenizer: build_model(tokenizer, **SMALL))
    save_file(build_model(tokenizer, **SMALL).model.vision_tower.state_dict(), tmp_path / "vision.safetensors")
    words = ["--vision", str(tmp_path / "vision.safetensors"), "--output-dir", str(tmp_path / "out")]
    words += ["--image-rows", "2", "--text-rows", "1", "--validate-every", "0"]
    pretrain.main([*words, "--steps", "1"])
    pretrain.main([*words, "--steps", "2", "--resume"])
    assert torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)["step"] == 2
    assert vladva_clip.create_model(f"local-dir:{tmp_path / 'out/base'}")[0].visual.output_dim == 48


@pytest.mark.wide
def test_the_projector_learns_to_keep_what_the_vision_tower_recognises(tokenizer):
    """The heads' loss reaches the projector, begins at guessing among equals and falls."""
    trainer = make_trainer(tokenizer, {"steps": 40, "learning_rate": 1e-2}, image_rows=4, text_rows=1)
    losses = [losses["recognition/image"] for losses in steps(trainer, 12)]
    assert losses[0] == pytest.approx(sum(math.log(len(answers)) for answers in HEADS.values()), rel=0.3)
    assert losses[-1] < losses[0] - 1


def test_a_perfect_guess_has_no_loss_and_a_uniform_one_the_logarithm(tokenizer):
    model, batch = build_model(tokenizer, **SMALL), Batcher(tokenizer).batch("text", 0, 4)
    torch.nn.init.zeros_(model.lm_head.weight)
    losses = target_losses(model, batch)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(1024)))


def test_the_saved_base_is_bf16_and_loads_with_the_stock_classes(tokenizer, tmp_path):
    model = build_model(tokenizer, **SMALL)
    save_base(model, tokenizer, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    loaded, _ = load_base(tmp_path)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float())


def test_the_base_states_its_familys_templates(tokenizer, tmp_path):
    save_base(build_model(tokenizer, **SMALL), tokenizer, tmp_path)
    stated = json.loads((tmp_path / BASE_FILE).read_text())["prompt"]
    assert stated["image_template"] == LlavaBackbone.image_template
    assert stated["second_turn"] == LlavaBackbone.second_turn
    prompts = vladva_clip.create_model(f"local-dir:{tmp_path}")[0].visual.prompts
    assert prompts.image_row(64) == [*Batcher(tokenizer).prefix_ids(None)]


def test_a_base_that_was_loaded_is_saved_as_it_was(tokenizer, tmp_path):
    """Another config.json would be another fingerprint."""
    save_base(build_model(tokenizer, **SMALL), tokenizer, tmp_path / "first")
    model, processor = load_base(tmp_path / "first")
    save_base(model, processor.tokenizer, tmp_path / "second")
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_processor_makes_the_sequence_and_the_pixels_of_training(tokenizer, tmp_path):
    save_base(build_model(tokenizer, **SMALL), tokenizer, tmp_path)
    processor, drawn = AutoProcessor.from_pretrained(tmp_path), scene("test", 0)
    content = [{"type": "image"}, {"type": "text", "text": DESCRIBE_LONG}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=drawn.draw(), text=text, add_special_tokens=False, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == Batcher(tokenizer).image_prompt_ids(DESCRIBE_LONG)
    torch.testing.assert_close(inputs["pixel_values"][0], draw_pixels(drawn), atol=1e-5, rtol=1e-5)
