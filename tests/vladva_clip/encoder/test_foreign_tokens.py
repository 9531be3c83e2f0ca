"""Tokens of one family given to a model of another: every row is refused. The real tokenizers of three families."""

import itertools

import pytest

import vladva_clip
from tests.support.models import llama
from vladva_clip.encoder.token_rows import foreign_rows, split_captions
from vladva_clip.encoder.tokenizer import VladvaTokenizer

ROWS = {"tiny": 1024, "llava": 32064, "qwen2_vl": 151936}  # of the token embeddings
ENDS = {"tiny": 1, "llava": 2, "qwen2_vl": 151645}


@pytest.fixture(scope="module")
def tokenizers(shared_data, tmp_path_factory):
    place = tmp_path_factory.mktemp("llava")
    llama.llava_tokenizer(shared_data, place)
    directories = {"llava": place, "qwen2_vl": shared_data / "tokenizers" / "qwen2_vl"}
    return {"tiny": vladva_clip.get_tokenizer()} | {
        name: VladvaTokenizer(directory) for name, directory in directories.items()
    }


@pytest.mark.parametrize(("of", "to"), [*itertools.permutations(ROWS, 2)])
def test_every_row_is_refused(tokenizers, many_captions, of, to):
    captions = [*many_captions, "", '"', "a red circle", "!" * 2000, "</s><|im_end|>"]
    tokens = tokenizers[of](captions)
    assert tokenizers[to].eot_token_id == ENDS[to]
    assert not foreign_rows(tokens, ENDS[of], ROWS[of]).any() and foreign_rows(tokens, ENDS[to], ROWS[to]).all()
    for row in tokens[::20]:
        with pytest.raises(ValueError, match=r"not made for this model.*get_tokenizer"):
            split_captions(row[None], ENDS[to], ROWS[to])
