"""The miniature's rows: each recipe differs from that of `both` in exactly what the row's name says."""

from dataclasses import replace

import pytest

import vladva_clip
from vladva_benchmarks.drawn.miniature_layouts import BEHIND_SUMMARY, LAYOUTS, PROMPT_BEHIND, write_base
from vladva_benchmarks.drawn.miniature_rows import CHOSEN, ORDERS, ROWS, SEEDS, Choice, Size, recipe_of, slug, sources
from vladva_clip.encoder.backbones.llava import LlavaBackbone
from vladva_clip.sources.locate import BASE_FILE, Source
from vladva_clip.sources.registry import packaged_base
from vladva_clip.storage.base import BaseFiles
from vladva_training.config import flat
from vladva_training.data.specs import open_source
from vladva_training.recipes import tiny

SIZE = Size()
BY_NAME = {row.name: row for row in ROWS}
PARTS = {  # what each row changes, beside its name
    "soft-prompt": {"model.train": "none"},
    "lora": {"model.soft_prompt": False},
    "both+ntp": {"loss.ntp_weight": 1.0},
    f"both+ntp, {BEHIND_SUMMARY}": {"loss.ntp_weight": 1.0},
    f"both, {PROMPT_BEHIND}": {},
    "both, contrastive on long captions": {
        "data.short_max_tokens": 500,
        "data.train": tuple(f"{spec}:long" for spec in sources(BY_NAME["both"], SIZE)),
    },
    "both, a quarter of the pairs": {"run.steps": 150, "data.train": ORDERS[CHOSEN.order](150, 32)},
    "both, half of the pairs": {"run.steps": 300, "data.train": ORDERS[CHOSEN.order](300, 32)},
    "both, twice the pairs": {"run.steps": 1200, "data.train": ORDERS[CHOSEN.order](1200, 32)},
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
    assert (both["model.train"], both["model.soft_prompt"], both["run.steps"]) == ("lora", True, 600)
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
    other = made("both", tmp_path, choice=Choice("families", 1e-3))
    assert changes(other, made("both", tmp_path)) == {
        "data.train": ("scenes:train:19200:varied",),
        "optim.learning_rate": 1e-3,
    }


@pytest.fixture(scope="module")
def prompt_first(tmp_path_factory):
    """The packaged base, stating its family's templates: the prompt first, and a second turn."""
    directory = tmp_path_factory.mktemp("base") / "prompt-first"
    LAYOUTS["family"] = lambda prompt: LlavaBackbone.prompt_config()
    try:
        base = packaged_base("vladva-tiny")
        if Source(base, "").stated.prompt == LlavaBackbone.prompt_config():
            return base
        write_base(base, "family", directory)
        return directory
    finally:
        del LAYOUTS["family"]


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
    }[layout]
    assert new == old.replace(prompt=replace(old.prompt, **expected))
    model, _ = vladva_clip.create_model(f"local-dir:{place}")
    assert model.config.prompt.second_turn == new.prompt.second_turn
    assert (model.visual.prompts.second_turn == ()) == (layout == BEHIND_SUMMARY)
    with pytest.raises(ValueError, match=f"{BASE_FILE}.*already has the layout"):
        write_base(place, layout, tmp_path / "again")
