"""Pre-training: the loss falls, a resumed run equals an uninterrupted one, what is saved is an ordinary LLaVA."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

import vladva_clip
from vladva_clip.scenes import scene
from vladva_clip.sources.locate import BASE_FILE
from vladva_clip.sources.registry import packaged_base
from vladva_training.tiny.batches import Batcher, draw_pixels
from vladva_training.tiny.forward import target_losses
from vladva_training.tiny.model import build_model, load_base, save_base
from vladva_training.tiny.pretrain import Pretrainer, Settings, parameter_groups, pretrain
from vladva_training.tiny.pretrain_vision import HEADS
from vladva_training.tiny.tasks import IMAGE_SUMMARY

SMALL = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL["num_key_value_heads"] = 2


def make_trainer(tokenizer, **changes):
    torch.manual_seed(0)
    values = {"steps": 4, "image_rows": 2, "text_rows": 2, "warmup_steps": 2, "log_every": 100, "save_every": 2}
    return Pretrainer(build_model(tokenizer, **SMALL), tokenizer, Settings(**{**values, **changes}))


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_the_loss_falls(tokenizer):
    trainer = make_trainer(tokenizer, steps=40, learning_rate=1e-2, image_rows=4, text_rows=4)
    losses = [trainer.train_step() for _ in range(12)]
    assert losses[0]["image_long/image"] == pytest.approx(math.log(1024), abs=0.3)
    for name in ("image_long/image", "one_word/text", "text_text/text"):
        assert losses[-1][name] < losses[0][name] - 0.3


def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path):
    whole = make_trainer(tokenizer)
    pretrain(whole, tmp_path, log=lambda *args, **kwargs: None)
    first = make_trainer(tokenizer)
    first.train_step(), first.train_step()
    first.save(tmp_path)
    second = make_trainer(tokenizer, seed=0)
    second.resume(tmp_path)
    pretrain(second, tmp_path, log=lambda *args, **kwargs: None)
    assert second.step == whole.step == 4
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(second).items())


def test_a_run_by_the_clock_ends(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, steps=None, minutes=0.01)
    lines = []
    pretrain(trainer, tmp_path, log=lambda line, flush: lines.append(line))
    assert trainer.done and trainer.seconds >= 0.6
    assert (tmp_path / "checkpoint.pt").exists() and not list(tmp_path.rglob(".*"))


def test_progress_lines_name_losses_rate_and_time_left(tokenizer, tmp_path):
    lines = []
    pretrain(make_trainer(tokenizer, log_every=2), tmp_path, log=lambda line, flush: lines.append(line))
    assert len(lines) == 2
    assert all(word in lines[0] for word in ("step 2", "one_word/image", "rows/s", "min left"))


def test_settings_want_one_length():
    with pytest.raises(ValueError, match="expected exactly one of the two"):
        Settings()
    with pytest.raises(ValueError, match="expected exactly one of the two"):
        Settings(steps=3, minutes=2)


def test_learning_rate_warms_up_holds_and_decays():
    settings = Settings(steps=1000, learning_rate=1.0, warmup_steps=100, decay_share=0.4)
    rates = [settings.learning_rate_at(step, 0) for step in (0, 100, 600, 800, 1000)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 0.505, 0.01])
    by_clock = Settings(minutes=10, learning_rate=1.0, decay_share=0.4)
    assert by_clock.learning_rate_at(500, 480) == pytest.approx(0.505)


def test_only_matrices_decay_and_the_vision_tower_has_its_rate(tokenizer):
    model = build_model(tokenizer, **SMALL)
    groups = parameter_groups(model, Settings(steps=1, weight_decay=0.1, vision_rate=0.5))
    assert all((p.ndim >= 2) == (group["weight_decay"] == 0.1) for group in groups for p in group["params"])
    slow = {id(p) for group in groups if group["rate"] == 0.5 for p in group["params"]}
    assert slow == {id(p) for p in model.model.vision_tower.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_projector_learns_to_keep_what_the_vision_tower_recognises(tokenizer):
    """The heads' loss reaches the projector, begins at guessing among equals and falls."""
    trainer = make_trainer(tokenizer, steps=40, learning_rate=1e-2, image_rows=4, text_rows=1)
    losses = [trainer.train_step()["recognition/image"] for _ in range(12)]
    assert losses[0] == pytest.approx(sum(math.log(len(answers)) for answers in HEADS.values()), rel=0.3)
    assert losses[-1] < losses[0] - 1


def test_a_perfect_guess_has_no_loss_and_a_uniform_one_the_logarithm(tokenizer):
    model, batch = build_model(tokenizer, **SMALL), Batcher(tokenizer).text_batches(0, 4)[0]
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


def test_the_base_states_the_rows_that_it_is_pre_trained_on(tokenizer, tmp_path):
    """As the packaged one does: by the family's own templates it would get rows that it never saw."""
    save_base(build_model(tokenizer), tokenizer, tmp_path)
    assert (tmp_path / BASE_FILE).read_bytes() == (packaged_base("vladva-tiny") / BASE_FILE).read_bytes()
    prompts = vladva_clip.create_model(f"local-dir:{tmp_path}")[0].visual.prompts
    assert prompts.image_row(64) == Batcher(tokenizer).image_prompt_ids(IMAGE_SUMMARY)
    assert prompts.second_turn == ()


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
    content = [{"type": "image"}, {"type": "text", "text": IMAGE_SUMMARY}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=drawn.draw(), text=text, add_special_tokens=False, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == Batcher(tokenizer).image_prompt_ids(IMAGE_SUMMARY)
    torch.testing.assert_close(inputs["pixel_values"][0], draw_pixels(drawn), atol=1e-5, rtol=1e-5)
