"""The shipped base of vladva-tiny: an ordinary LLaVA directory whose captions are right on scenes it never saw."""

import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from vladva_clip.scenes import naming_accuracy, scenes, short_captions, short_sayings
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.evaluate import SHIPPED_BASE, generate_captions, right_scenes, similarity_scores
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.tasks import IMAGE_SUMMARY, all_texts, summary_task
from vladva_training.tiny.tokenizer import train_tokenizer


def test_it_is_small_and_stored_in_bf16():
    weights = SHIPPED_BASE / "model.safetensors"
    assert weights.stat().st_size < 14_000_000
    tensors = load_file(weights)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    tower = [name for name in tensors if "vision_tower" in name]
    assert tower and all("vision_tower.vision_model." in name for name in tower)  # as 5.0 has it


def test_the_stock_classes_load_it():
    assert isinstance(LlavaForConditionalGeneration.from_pretrained(SHIPPED_BASE), LlavaForConditionalGeneration)
    assert AutoProcessor.from_pretrained(SHIPPED_BASE).tokenizer.pad_token == "<pad>"


def test_its_tokenizer_is_the_one_the_script_trains(base):
    assert base[1].tokenizer.get_vocab() == train_tokenizer(all_texts()).get_vocab()


def test_its_processor_makes_the_prompt_and_the_pixels_of_training(base):
    _, processor = base
    drawn = scenes("test", 0, 1)[0]
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": IMAGE_SUMMARY}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=drawn.draw(), text=text, add_special_tokens=False, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == Batcher(processor.tokenizer).image_prompt_ids(IMAGE_SUMMARY)
    torch.testing.assert_close(inputs["pixel_values"][0], draw_pixels(drawn), atol=1e-5, rtol=1e-5)


def test_its_captions_name_the_objects_of_new_scenes(base):
    model, processor = base
    drawn = scenes("test", 4000, 24)
    captions = generate_captions(model, Batcher(processor.tokenizer), drawn)
    assert naming_accuracy(drawn, captions) >= 0.9


def test_it_answers_the_one_word_prompt_with_a_word_of_the_scene(base):
    model, processor = base
    drawn, batcher = scenes("test", 4100, 16), Batcher(processor.tokenizer)
    input_ids = torch.tensor([batcher.prefix_ids(None)] * len(drawn))
    with torch.no_grad():
        logits = model(input_ids=input_ids, pixel_values=torch.stack([draw_pixels(one) for one in drawn])).logits
    words = processor.tokenizer.batch_decode(logits[:, -1].argmax(-1, keepdim=True))
    said = [summary_task(IMAGE_SUMMARY, short_captions(one)).answers for one in drawn]
    right = [word.strip() in answers for answers, word in zip(said, words, strict=True)]
    assert sum(right) >= 14


def test_similarity_scores_of_a_gallery_known_by_family_only():
    similarity = torch.eye(4).repeat_interleave(4, 0).repeat_interleave(4, 1)
    similarity = similarity + 0.1 * torch.eye(16).roll(1, 1) * similarity
    scores = similarity_scores(similarity, torch.eye(16, dtype=torch.bool))
    assert scores["text_to_family_R@1"] == 1 and scores["text_to_image_R@5"] == 1
    assert scores["text_to_image_R@1"] == 0


def test_a_caption_is_right_for_every_scene_of_which_it_is_true():
    assert torch.equal(right_scenes(scenes("test", 0, 16)), torch.eye(16, dtype=torch.bool))
    drawn = scenes("test", 0, 48, "varied")
    expected = [[short_sayings(one)[0].true_of(other) for other in drawn] for one in drawn]
    assert right_scenes(drawn).tolist() == expected and sum(map(sum, expected)) > 60
