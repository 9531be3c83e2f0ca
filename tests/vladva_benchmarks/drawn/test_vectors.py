"""The table of stored features: its forms on features whose answer is known, its marks, one small run."""

import pytest
import torch

from vladva_benchmarks.cli import main
from vladva_benchmarks.drawn import vectors

WIDTH = 32


def known() -> tuple[torch.Tensor, torch.Tensor]:
    """Texts, and images that are nearly the same, one for one."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(40, WIDTH, generator=generator), dim=-1)
    return texts, torch.nn.functional.normalize(texts + 0.01 * torch.randn(40, WIDTH, generator=generator), dim=-1)


@pytest.mark.parametrize(
    "form", list(vectors.forms(WIDTH))[:3] + list(vectors.forms(WIDTH))[5:], ids=lambda form: form[0]
)
def test_each_form_finds_what_is_nearly_the_same(form):
    texts, images = known()
    similarity = form[2](texts, images)
    assert similarity.shape == (40, 40) and torch.equal(similarity.argmax(dim=1), torch.arange(40))


def test_the_forms_measure_what_they_say():
    texts, images = known()
    torch.testing.assert_close(vectors.int8(texts, images), vectors.full(texts, images), rtol=0, atol=0.02)
    signs = ((texts > 0)[:, None] == (images > 0)[None]).sum(dim=2) * 2 - WIDTH
    assert torch.equal(vectors.binary(texts, images), signs.float())
    assert [size for _, size, _ in vectors.forms(256)] == [1024, 512, 256, 128, 64, 256, 256, 32, 32]


def test_the_document_needs_its_marks(tmp_path, capsys):
    document = tmp_path / "vectors.md"
    document.write_text("nothing")
    assert main(["vectors", "--scenes", "8", "--document", str(document)]) == 2
    assert "lacks the marks" in capsys.readouterr().err and document.read_text() == "nothing"


def test_a_small_run(tmp_path, capsys):
    document = tmp_path / "vectors.md"
    document.write_text(f"before\n{vectors.START}\nold\n{vectors.END}\nafter\n")
    assert main(["vectors", "--scenes", "8", "--tag", "base", "--document", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "tag `base`: 8 scenes of `test`, one caption each, D = 256" in text
    *printed, last = capsys.readouterr().out.strip().splitlines()
    assert text.count("\n| ") == 10 and "\n".join(printed) in text and last == f"table: {document}"
