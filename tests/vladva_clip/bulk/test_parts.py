"""Part files say what they are of, whatever the names are, and notice any damage."""

import os

import pytest
import torch

from tests.support import damage
from vladva_clip.bulk.parts import Part, Parts, Row
from vladva_clip.storage.sealed import DamagedError

ROWS = [
    Row("a.png", "image", 12, 34),
    Row(os.fsdecode(b"caf\xe9\n.png"), error="a reason"),
    Row("\u202eword \U0001f600", "text"),
]
PART = Part(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), ROWS, 1.5)


def test_what_is_written_is_read(tmp_path):
    Parts(tmp_path).write("some-0", PART)
    found = Parts(tmp_path).read("some-0", 3)
    assert torch.equal(found.features, PART.features) and found.rows == ROWS and found.seconds == 1.5


def test_none_where_nothing_is(tmp_path):
    assert Parts(tmp_path).read("some-0", 3) is None


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_items_is_damage(tmp_path, count):
    Parts(tmp_path).write("some-0", PART)
    with pytest.raises(DamagedError, match="expected float32"):
        Parts(tmp_path).read("some-0", count)


@pytest.mark.parametrize("harm", damage.TENSORS.values(), ids=damage.TENSORS)
def test_damage_is_noticed(tmp_path, harm):
    parts = Parts(tmp_path)
    parts.write("some-0", PART)
    harm(parts.path("some-0"))
    if harm is damage.link_to_nothing:
        assert parts.read("some-0", 3) is None
    else:
        with pytest.raises(DamagedError):
            parts.read("some-0", 3)


def test_long_names_and_reasons_fit(tmp_path):
    rows = [Row("\x01" * 4096, error="e" * 100_000) for _ in range(20)]
    Parts(tmp_path).write("some-0", Part(torch.zeros(20, 2), rows))
    found = Parts(tmp_path).read("some-0", 20)
    assert [row.name for row in found.rows] == [row.name for row in rows] and len(found.rows[0].error) == 1000
