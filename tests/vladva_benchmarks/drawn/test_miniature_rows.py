"""The miniature's rows: each recipe differs from that of `both` in exactly what the row's name says."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import vladva_clip
from vladva_benchmarks.drawn.miniature import Bench, _trained, settings_of
from vladva_benchmarks.drawn.miniature_layouts import ALL_SOFT, BEHIND_SUMMARY, LAYOUTS, PROMPT_BEHIND, write_base
from vladva_benchmarks.drawn.miniature_rows import CHOSEN, ORDERS, ROWS, SEEDS, Choice, Size, recipe_of, slug, sources
from vladva_clip.encoder.backbones.llava import LlavaBackbone
from vladva_clip.sources.locate import BASE_FILE, Source
from vladva_clip.sources.registry import packaged_base
from vladva_clip.storage.base import BaseFiles
from vladva_training.config import flat
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source
from vladva_training.recipes import tiny

SIZE = Size()
BY_NAME = {row.name: row for row in ROWS}
PARTS = {  # what each row changes, beside its name
    "soft-prompt": {"model.train": "none"},
    "lora": {"model.soft_prompt": False},
    "both+ntp": {"loss.ntp_weight": 1.0},
    f"both+ntp, {BEHIND_SUMMARY}": {"loss.ntp_weight": 1.0},
    "both+ntp, twice its weight": {"loss.ntp_weight": 2.0},
    f"both, {PROMPT_BEHIND}": {},
    f"both, {ALL_SOFT}": {},
    "both, contrastive on long captions": {
        "data.short_max_tokens": 500,
        "data.train": tuple(f"{spec}:long" for spec in sources(BY_NAME["both"], SIZE)),
    },
    "both, a quarter of the pairs": {"run.steps": 75, "data.train": ORDERS[CHOSEN.order](75, 32)},
    "both, half of the pairs": {"run.steps": 150, "data.train": ORDERS[CHOSEN.order](150, 32)},
    "both, twice the pairs": {"run.steps": 600, "data.train": ORDERS[CHOSEN.order](600, 32)},
}


def made(name: str, tmp_path, **options) -> dict:
    return flat(recipe_of(BY_NAME[name], 3, SIZE, tmp_path, **options))


def changes(new: dict, old: dict) -> dict:
    return {key: new[key] for key in new if new[key] != old[key]}


@pytest.mark.parametrize("name", PARTS)
def test_a_row_differs_from_both_in_exactly_what_it_says(name, tmp_path):
    found = changes(made(name, tmp_path), made("both", tmp_path))
    assert found.pop("name") == f"miniature {name}"
    assert found == PARTS[name]


def test_both_differs_from_the_tiny_recipe_in_its_parts_and_its_length_alone(tmp_path):
    both = made("both", tmp_path)
    assert (both["model.train"], both["model.soft_prompt"], both["run.steps"]) == ("lora", True, 300)
    assert both["loss.hard_negatives"] == both["loss.text_text_weight"] == both["loss.ntp_weight"] == 0
    assert both["loss.false_negatives"] == "known"
    sections = {key.split(".")[0] for key in changes(both, flat(tiny()))}
    assert sections <= {"name", "data", "loss", "batch", "optim", "run", "output_dir", "seed", "resume"}


def test_the_rows_that_are_compared_have_three_seeds():
    three = {row.name for row in ROWS if row.seeds == SEEDS}
    assert three == {"both", "both+ntp", f"both+ntp, {BEHIND_SUMMARY}"}
    assert {row.seeds for row in ROWS} == {SEEDS, (0,)}
    assert set(PARTS) | {"hand-written", "both", "clip"} == set(BY_NAME)
    assert {row.layout for row in ROWS} == {None, *LAYOUTS}


def test_file_names_have_no_spaces_and_tell_the_rows_apart():
    assert slug("both+ntp, caption behind the summary token") == "both+ntp-caption-behind-the-summary-token"
    assert len({row.slug for row in ROWS}) == len(ROWS)
    assert Choice("places first", 0.0015).slug == "places-first-0.0015"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("row", [row for row in ROWS if row.train], ids=lambda row: row.slug)
def test_every_order_has_as_many_pairs_as_the_run(order, row):
    opened = [open_source(spec) for spec in sources(row, SIZE, Choice(order))]
    assert sum(map(len, opened)) == SIZE.steps(row.share) * SIZE.batch_size
    assert {source.style for source in opened} == {"varied"} and {source.split for source in opened} == {"train"}
    captions = {len(source.captions(0)) for source in opened}
    assert captions == ({1} if row.long else {6})


def test_another_choice_changes_order_and_rate_alone(tmp_path):
    other = made("both", tmp_path, choice=Choice("places first", 1e-3))
    assert changes(other, made("both", tmp_path)) == {
        "data.train": ("scenes:train:3200:varied:pairs:swaps", "scenes:train:6400:varied"),
        "optim.learning_rate": 1e-3,
    }


@pytest.fixture(scope="module")
def prompt_first(tmp_path_factory):
    """The packaged base, stating its family's templates: the prompt first, and a second turn."""
    directory = tmp_path_factory.mktemp("base") / "prompt-first"
    shutil.copytree(packaged_base("vladva-tiny"), directory)
    config = Source(directory, "").stated.replace(prompt=LlavaBackbone.prompt_config())
    (directory / BASE_FILE).write_text(json.dumps(config.to_dict()))
    return directory


def stated(prompt) -> tuple:
    """What layouts change, of a config's prompts."""
    return prompt.second_turn, prompt.image_template, prompt.soft_slots


@pytest.mark.parametrize("name", [row.name for row in ROWS if row.layout])
@pytest.mark.wide
def test_a_row_of_another_layout_trains_and_is_measured_in_it(prompt_first, tmp_path, name):
    bench = Bench(Size(samples=48, batch_size=16), tmp_path, prompt_first)
    trained = _trained(BY_NAME[name], 0, bench)
    own, old = trained.encoder.model.config.prompt, Source(prompt_first, "").stated.prompt
    expected = LAYOUTS[BY_NAME[name].layout](old)
    assert stated(own) == stated(expected) != stated(old)
    assert len(trained.captioner.model.generate(torch.zeros(1, 3, 64, 64), None, 2)) == 1
    settings = settings_of(BY_NAME[name], 0, bench)
    assert settings["layout"] == BY_NAME[name].layout and str(tmp_path) not in json.dumps(settings)


@pytest.mark.wide
def test_the_contrastive_loss_of_the_long_captions_row_sees_long_captions(prompt_first, tmp_path):
    row, size = BY_NAME["both, contrastive on long captions"], Size(samples=48, batch_size=16)
    recipe = recipe_of(row, 0, size, tmp_path)
    splitter = CaptionSplitter(vladva_clip.get_tokenizer(f"local-dir:{prompt_first}"), recipe.data.short_max_tokens)
    for spec in recipe.data.train:
        split = splitter.split(open_source(spec).captions(0))
        assert len(split.short) == 1 and len(split.short[0]) > 30 and not split.long
    _trained(row, 0, Bench(size, tmp_path, prompt_first))
    metrics = [json.loads(line) for line in next(tmp_path.rglob("metrics.jsonl")).read_text().splitlines()]
    losses = [value for line in metrics for key, value in line.items() if key.endswith("contrastive")]
    assert losses and min(losses) > 0.1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_the_templates_and_no_weight(prompt_first, tmp_path, layout):
    place = tmp_path / "copy"
    write_base(prompt_first, layout, place)
    old, new = Source(prompt_first, "").stated, Source(place, "").stated
    assert BaseFiles(place).fingerprint == BaseFiles(prompt_first).fingerprint
    expected = {
        BEHIND_SUMMARY: {"second_turn": None},
        PROMPT_BEHIND: {
            "image_template": "USER: {visual}\n{prompt} ASSISTANT:",
            "text_template": "USER: {caption}\n{prompt} ASSISTANT:",
        },
        ALL_SOFT: {"soft_slots": "template"},
    }[layout]
    assert new == old.replace(prompt=replace(old.prompt, **expected))
    model, _ = vladva_clip.create_model(f"local-dir:{place}")
    assert model.config.prompt.second_turn == new.prompt.second_turn
    assert (model.visual.prompts.second_turn == ()) == (layout == BEHIND_SUMMARY)
    assert all(model.visual.prompts.image.soft) == (layout == ALL_SOFT)
    with pytest.raises(ValueError, match=f"{BASE_FILE}.*already has the layout"):
        write_base(place, layout, tmp_path / "again")
