"""The authors' way by itself, before ours is held against it: ids as counted by hand, batches, sizes kept."""

import pytest
import torch
from safetensors import safe_open

from tests.support.published import later_authors, samples
from tests.support.published.later_repositories import GVE, NAMES, QUERY, QWEN3, REPOSITORIES

HEAD = [151644, 8948, 198]  # <|im_start|>system\n
USER = [151645, 198, 151644, 872, 198]
TAIL = [151645, 198, 151644, 77091, 198, 151643]  # <|im_end|> ... assistant\n<|endoftext|>
HELPFUL = [2610, 525, 264, 10950, 17847, 13]  # You are a helpful assistant.
REPRESENT = [65743, 279, 1196, 594, 1946, 13]  # Represent the user's input.
RETRIEVE = [87665, 5335, 476, 1467, 9760, 311, 279, 1196, 594, 3239, 13]  # QUERY
FRAMES = {name: [*HEAD, *(HELPFUL if name in GVE else REPRESENT), *USER] for name in NAMES}

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def way(later, name):
    return later_authors.of(name, later.directory(name))


def test_ids_are_those_counted_by_hand(way, name):
    assert way.ids(way.text_inputs(["a dog."])) == [[*FRAMES[name], 64, 5562, 13, *TAIL]]
    assert way.ids(way.text_inputs([""])) == [[*FRAMES[name], *TAIL]]
    assert way.ids(way.text_inputs(["\n x"])) == [[*FRAMES[name][:-1], 271, 856, *TAIL]]  # 271 is "\n\n"
    assert way.ids(way.image_inputs([samples.picture(448)])) == [
        [*FRAMES[name], 151652, *[151655] * (256 if name in GVE else 196), 151653, *TAIL]
    ]


@pytest.mark.parametrize("name", QWEN3, indirect=True)
def test_ids_of_queries(way, name):
    assert way.processor.tokenizer(QUERY).input_ids == [*RETRIEVE, 151643]
    assert way.ids(way.text_inputs(["a dog."], query=True)) == [[*HEAD, *RETRIEVE, *USER, 64, 5562, 13, *TAIL]]


def test_a_batch_is_its_rows(way, name):
    captions = list(samples.CAPTIONS.values())
    rows = torch.cat([way.features(way.text_inputs([caption])) for caption in captions])
    torch.testing.assert_close(way.features(way.text_inputs(captions)), rows, atol=2e-6, rtol=0)
    assert (rows @ rows.T - torch.eye(len(rows))).max() < 0.9999  # no two captions look alike
    pictures = [samples.picture(448, seed) for seed in range(3)]
    seen = torch.cat([way.features(way.image_inputs([picture])) for picture in pictures])
    torch.testing.assert_close(way.features(way.image_inputs(pictures)), seen, atol=2e-6, rtol=0)
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_what_becomes_of_pictures(way, name):
    """GVE's are made smaller above 256 tokens; the repository of Qwen3-VL-Embedding keeps 64 to 1120 pixels."""
    sides, side = ((56, 448, 896), 14) if name in GVE else ((64, 1120), 16)
    grids = [way.image_inputs([samples.picture(pixels)])["image_grid_thw"].tolist() for pixels in sides]
    assert grids == [[[1, kept // side, kept // side]] for kept in sides[:2]] + [[[1, 32, 32]]] * (len(sides) - 2)


@pytest.mark.parametrize("name", QWEN3, indirect=True)
def test_the_repositorys_own_bounds(way, name):
    sized = [way.processor.image_processor(samples.picture(side))["image_grid_thw"].tolist() for side in (1120, 1152)]
    assert sized == [[[1, 70, 70]], [[1, 70, 70]]]


def test_files_and_tensor_names_are_the_published_ones(later, name):
    """Of so many blocks as published there are, with what two files of other layers repeat, as many tensors."""
    directory, expected = later.directory(name), dict(zip(NAMES, (824, 729, 625, 749), strict=True))[name]
    names = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    assert ("lm_head.weight" in names) == (name == "gve-7b")
    starts = ("visual.", "model.layers.") if name in GVE else ("model.visual.", "model.language_model.layers.")
    repeated = {f"{starts[0]}blocks.": 32 if name in GVE else 27 if name.endswith("8b") else 24}
    repeated[starts[1]] = {"gve-3b": 36, "gve-7b": 28, QWEN3[0]: 28, QWEN3[1]: 36}[name]
    count = sum(not part.startswith(tuple(repeated)) for part in names)
    count += sum(times * sum(part.startswith(f"{start}0.") for part in names) for start, times in repeated.items())
    assert count == expected
    assert all((directory / other).is_file() for other in REPOSITORIES[name].others)
