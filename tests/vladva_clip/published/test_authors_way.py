"""The authors' way by itself, before ours is held against it: ids as counted by hand, batches, sizes kept."""

import pytest
import torch
from safetensors import safe_open

from tests.support.published import repositories, samples
from tests.support.published.shelf import NAMES

HEAD = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198]  # system turn, `user\n`
TAIL = [151645, 198, 151644, 77091, 198, 151643]  # <|im_end|> ... assistant\n<|endoftext|>
INSTRUCTED = [151644, 8948, 198, 9885, 458, 2168, 429, 9071, 279, 2661, 1467, 13, *HEAD[9:]]
UNITE_END, LAMRA_END = [3403, 11652, 304, 825, 3409, 25], [3403, 11652, 304, 825, 3409, 25, 220, *TAIL[:-1]]
RZEN_QUERY = [9885, 752, 458, 17778, 2168, 429, 9071, 279, 2661, 17256, 25]
TEXTS = {  # of "a dog."; 624 is ".\n"
    "gme-qwen2-vl-2b": [*HEAD, 64, 5562, 13, *TAIL],
    "unite-2b": [*HEAD, 64, 5562, 624, 19237, *UNITE_END, *TAIL],
    "lamra-ret": [*HEAD, 64, 5562, 624, 9190, 5612, 551, *LAMRA_END],
}
EMPTY = {  # 271 is "\n\n"
    "gme-qwen2-vl-2b": [*HEAD, *TAIL],
    "unite-2b": [*HEAD[:-1], 271, 19237, *UNITE_END, *TAIL],
    "lamra-ret": [*HEAD[:-1], 271, 9190, 5612, 551, *LAMRA_END],
}
QUERIES = {
    "ops-mm-2b": [*INSTRUCTED, 64, 5562, 13, *TAIL],
    "gme-qwen2-vl-2b": [*INSTRUCTED, 64, 5562, 13, *TAIL],
    "rzenembed": [*HEAD, *RZEN_QUERY, 264, 5562, 13, *TAIL],
}
IMAGE_ENDS = {  # behind <|vision_end|>
    "ops-mm-2b": TAIL,
    "gme-qwen2-vl-2b": TAIL,
    "rzenembed": [65743, 279, 2661, 2168, 13, *TAIL],
    "unite-2b": [198, 19237, 3403, 2168, 304, 825, 3409, 25, *TAIL],
    "lamra-ret": [198, 9190, 5612, 551, 3403, 2168, 304, 825, 3409, 25, 220, *TAIL[:-1]],
}
SIDES = {name: (56, 336, 448, 476) if name == "lamra-ret" else (448, 476, 980) for name in NAMES}

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def way(shelf, name):
    return shelf.authors(name)


def test_ids_are_those_counted_by_hand(way, name):
    as_gme = name if name in TEXTS else "gme-qwen2-vl-2b"
    assert way.ids(way.text_inputs(["a dog."])) == [TEXTS[as_gme]]
    assert way.ids(way.text_inputs([""])) == [EMPTY[as_gme]]
    if name in QUERIES:
        assert way.ids(way.text_inputs(["a dog."], query=True)) == [QUERIES[name]]
    if name in IMAGE_ENDS:
        (row,) = way.ids(way.image_inputs([samples.picture(448)]))
        assert row == [*HEAD, 151652, *[151655] * 256, 151653, *IMAGE_ENDS[name]]


def test_a_batch_is_its_rows(way):
    captions = list(samples.CAPTIONS.values())
    rows = torch.cat([way.features(way.text_inputs([caption])) for caption in captions])
    torch.testing.assert_close(way.features(way.text_inputs(captions)), rows, atol=2e-6, rtol=0)
    similarity = rows @ rows.T - torch.eye(len(rows))
    assert similarity.max() < 0.9999  # no two captions look alike


def test_no_picture_of_these_sizes_is_resized(way, name):
    for side in SIDES[name]:
        assert way.image_inputs([samples.picture(side)])["image_grid_thw"].tolist() == [[1, side // 14, side // 14]]
    smaller = 448 if name != "lamra-ret" else 336  # the others' least number of tokens is 256
    assert way.image_inputs([samples.picture(336)])["image_grid_thw"].tolist() == [[1, smaller // 14, smaller // 14]]


def test_the_files_have_the_names_of_the_first_release(shelf, name):
    """391 tensors of the tower and 338 of the LLM in a 2B with 32 and 28 layers; here both have two."""
    names = set()
    for path in shelf.directory(name).glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    own_head = repositories.REPOSITORIES[name].rows > 151936
    assert ("lm_head.weight" in names) == own_head
    rest = names - {"lm_head.weight"}
    assert all(part.startswith(("visual.", "model.layers.", "model.norm.", "model.embed_tokens.")) for part in rest)
    blocks = [part for part in rest if part.startswith(("visual.blocks.0.", "model.layers.0."))]
    tower, llm = (sum(part.startswith(start) for part in blocks) for start in ("visual", "model"))
    assert len(rest) - 2 * len(blocks) + 32 * tower + 28 * llm == 729
