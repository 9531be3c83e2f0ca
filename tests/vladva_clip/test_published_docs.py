"""docs/published_models.md and the README say of the published embedders what their profiles say."""

import json
import re
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support import published_docs
from tests.support.published_docs import FOLDER, PAGES, ROOT
from vladva_clip.sources import fit, registry

README, PAGE, FIT_PAGE = (page.read_text() for page in PAGES)
FOUND = published_docs.profiles()
needs_profiles = pytest.mark.skipif(not FOUND, reason="no profiles in this tree")

COLUMNS = {
    "Flickr30k T2I R@1": ("retrieval", "Flickr30k T2I R@1"),
    "COCO T2I R@1": ("retrieval", "COCO T2I R@1"),
    "SugarCrepe swap att": ("sugarcrepe", "swap att"),
    "SugarCrepe++ swap obj ITT": ("sugarcrepe_pp", "swap obj ITT"),
    "Winoground text": ("winoground", "text"),
    "ImageNet top-1": ("imagenet1k", "top-1"),
}


def rows(text: str) -> dict[str, list[str]]:
    """First cell without its quotes -> the other cells, of all table rows whose first cell is a name in code."""
    cells = ([cell.strip() for cell in line.strip(" |").split(" | ")] for line in text.splitlines() if "|" in line)
    return {row[0].strip("`"): row[1:] for row in cells if re.fullmatch(r"`[\w.-]+`", row[0])}


@needs_profiles
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_parts_are_those_of_the_profiles(page):
    """If this fails, `python -m tests.support.published_docs` writes them anew."""
    made = published_docs.rewritten(page.read_text(), FOUND)
    assert published_docs.parts(page.read_text()) == published_docs.parts(made)


@needs_profiles
def test_the_tables_agree_with_the_files():
    """Read cell by cell, without the code that writes the tables."""
    chosen, read = (rows(published_docs.parts(text)[part]) for text, part in ((README, "names"), (PAGE, "contracts")))
    assert set(chosen) == set(read) == {file.stem for file in FOLDER.glob("*.json")}
    for name, (link, license, parameters, download, width, tags) in chosen.items():
        profile = json.loads((FOLDER / f"{name}.json").read_text())
        assert profile["name"] == name and f"huggingface.co/{profile['repository']})" in link
        assert license == (profile["license"] or "-") == read[name][1]
        assert parameters == read[name][2] == f"{profile['num_parameters'] / 10**9:.2f}B"
        assert download == read[name][3] == f"{profile['download_gb']:.1f} GB"
        assert int(re.match(r"\d+", width)[0]) == profile["config"]["embed_dim"]
        assert re.findall(r"`([\w-]+)`", tags) == list(profile["tags"]) and tags == read[name][5]


@needs_profiles
def test_published_scores_stand_in_a_table_of_the_page():
    """A score of a profile stands in a row of its model."""
    tables = PAGE.split("\n## Published scores\n")[1].split("\n## ")[0]
    for profile in FOUND:
        cells = re.findall(rf"^\| `{re.escape(profile['name'])}` \|(.*)$", tables, re.M)
        for score in profile["scores"]:
            assert any(score["value"] in map(float, re.findall(r"\d+\.?\d*", row)) for row in cells), score


@needs_profiles
def test_every_profile_has_exact_image_sizes():
    sizes = rows(PAGE.split("\n## Image sizes\n")[1].split("\n## ")[0])
    for profile in FOUND:
        unit, exact, *_ = sizes[profile["name"]]
        first, last = map(int, re.findall(r"\d+", exact)[:2])
        assert first <= profile["config"]["image"]["size"] <= last
        assert not any(size % int(unit) for size in (first, last, profile["config"]["image"]["size"]))


def test_the_readme_s_table_of_results_is_the_paper_s():
    published = json.loads((ROOT / "benchmarks/published.json").read_text())
    tables = {table["id"]: table for table in published["tables"]}
    part = README.split("\n## What to expect\n")[1].split("\n## ")[0]
    columns, _, *lines = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    assert len(lines) > 4
    for name, *values in ([cell.strip() for cell in line] for line in lines):
        for column, value in zip(map(str.strip, columns[1:]), values, strict=True):
            table, inner = COLUMNS[column]
            place = [one["name"] for one in tables[table]["columns"]].index(inner)
            held = {key.replace(", 400M", ""): row for key, row in tables[table]["rows"].items()}
            assert value == (f"{held[name][place]:.1f}" if name in held else ""), (name, column)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two profiles by hand."""
    shared = {"revision": None, "license": "mit", "transformers": "5.3", "unverified": ["the tokenizer"], "scores": []}
    encoding = {"positions": "plain", "headless": True, "matryoshka_dims": [64, 128, 8]}
    config = {"family": "a", "embed_dim": 128, "context_length": 99, "image": {"size": 56}, "encoding": encoding}
    one = {"name": "one", "repository": "org/One", "num_parameters": 1_234_567_890, "config": config, **shared}
    one["download_gb"] = 2.5
    one |= {"tags": {"retrieval": {}, "default": {}}, "instructions": {"retrieval": "Find it: "}}
    other = {**one, "name": "other", "tags": {"default": {}}, "instructions": {}, "unverified": ["its <end>"]}
    other["config"] = {**config, "family": "b", "encoding": {**encoding, "headless": False, "matryoshka_dims": []}}
    for profile in (one, other):
        (tmp_path / f"{profile['name']}.json").write_text(json.dumps(profile))
    return tmp_path


def test_the_parts_of_two_profiles(folder):
    page = "x\n<!-- profiles: names -->\nold\n<!-- end -->\ny\n<!-- profiles: instructions -->\n<!-- end -->\n"
    page += "<!-- profiles: contracts -->\n<!-- end -->\n<!-- profiles: unverified -->\n<!-- end -->\n"
    found = published_docs.rewritten(page, published_docs.profiles(folder))
    assert "old" not in found and found.startswith("x\n") and "\ny\n" in found
    made = published_docs.parts(found)
    shared = "[org/One](https://huggingface.co/org/One) | mit | 1.23B | 2.5 GB"
    assert made["names"].splitlines()[2:] == [
        f"| `other` | {shared} | 128 | `default` |",
        f"| `one` | {shared} | 128 (from 8) | `retrieval`, `default` |",
    ]
    assert "| plain | may be missing | 56 px | 99 | 5.3 |" in made["contracts"]
    assert made["instructions"].splitlines()[2:] == ['| `one` | "Find it: " |']
    assert made["unverified"].splitlines() == ["- `other`: its `<end>`", "- `one`: the tokenizer"]
    assert published_docs.rewritten(found, published_docs.profiles(folder)) == found
    with pytest.raises(KeyError, match="nothing"):
        published_docs.rewritten("<!-- profiles: nothing -->\n<!-- end -->", [])


def test_the_page_s_own_profile_is_read(bases, tmp_path):
    """Its JSON, over a tiny Qwen2-VL: another template than the family's, and a tag of its own for queries."""
    file = tmp_path / "mine.json"
    file.write_text(re.findall(r"^```json\n(.*?)^```", PAGE, re.S | re.M)[0])
    name, options = f"local-dir:{bases['qwen2_vl']}", {"precision": "fp32", "image_size": 56}
    model, preprocess = vladva_clip.create_model(name, profile=file, **options)
    queries, _ = vladva_clip.create_model(name, "retrieval", profile=file, **options)
    bare, _ = vladva_clip.create_model(name, **options)
    tokens = vladva_clip.get_tokenizer(name, profile=file)(["a dog."])
    image = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.encode_image(image), queries.encode_image(image))
        assert not torch.allclose(model.encode_image(image), bare.encode_image(image), atol=1e-3)
        assert not torch.allclose(model.encode_text(tokens), queries.encode_text(tokens), atol=1e-3)


def test_the_table_of_what_fits_agrees_with_the_figures():
    """Read cell by cell, without the code that writes the table."""
    cells = [[cell.strip() for cell in line.strip(" |").split(" | ")] for line in FIT_PAGE.splitlines()]
    read = {(row[0].strip("`"), row[1].split()[0]): row[2:] for row in cells if row[0].startswith("`") and row[1:]}
    assert set(read) == {(name, word) for name in registry.MODELS for word in fit.precisions(name)}
    for (name, word), (download, _, *memory) in read.items():
        assert download == ("packaged" if name == "vladva-tiny" else fit.in_words(fit.of(name, word).download_bytes))
        for device, cell in zip(("cpu", "gpu"), memory, strict=True):
            found = fit.of(name, word, device)
            assert cell == f"{fit.in_words(found.memory_bytes)} {found.origin}", (name, word, device)


def test_the_page_s_constants_are_those_of_the_arithmetic():
    for number in (fit.BATCH, fit.CAPTION, fit.PROMPT, *fit.MICRO_BATCH_TOKENS.values()):
        assert f"{number:,}" in FIT_PAGE
    assert f"{fit.RUNTIME['cpu'] / 1e9:.2f} GB" in FIT_PAGE and f"{fit.RUNTIME['gpu'] / 1e9:.2f} GB" in FIT_PAGE


def test_the_readme_lists_every_model():
    """Names and base repositories of the registry; aliases stand beside their models."""
    listed = README.split("\n## Models\n")[1].split("\n## ")[0]
    for name, entry in registry.MODELS.items():
        row = re.search(rf"^\| `{re.escape(name)}`.*$", listed, re.M)
        assert row, name
        assert entry.base is None or f"huggingface.co/{entry.base})" in row[0], name
