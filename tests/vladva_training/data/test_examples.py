import random

import numpy as np
import pytest
import torch

import vladva_clip
from tests.support.samples import picture
from tests.support.training.pairs import LONG, noisy_pixels, to_pixels
from vladva_clip.records.records import BadRecord, Record
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.examples import ExampleMaker
from vladva_training.step.identity import identity
from vladva_training.step.known import MAX_CLAIMS, MAX_FACTS

SHORTS = ("a red circle", "the dog", "a blue square", "the cat on the left", "a green circle")
FOILS = ("a green dog", "a blue cat", "the red square", "a large dog")


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))


def record(captions=(*SHORTS, LONG), hard_negatives=FOILS):
    return Record("k", picture(0), captions, hard_negatives)


def ids(splitter, text):
    split = splitter.split([text])
    return list((split.short or split.long)[0])


def test_an_example_holds_one_caption_of_each_kind(splitter):
    example, unused = ExampleMaker(splitter, to_pixels).make(record(), 0, 0)
    assert example.short.tolist() == ids(splitter, example.short_text) and example.short_text in SHORTS
    assert example.long.tolist() == ids(splitter, LONG)
    assert example.short.dtype == example.long.dtype == torch.int64
    assert example.other_short is None and example.hard_negatives == () and not unused
    assert torch.equal(example.pixels, to_pixels(picture(0))) and example.key == "k"


@pytest.mark.parametrize(("captions", "missing"), [((LONG,), "short"), (SHORTS, "long")])
def test_one_kind_is_enough(splitter, captions, missing):
    example, _ = ExampleMaker(splitter, to_pixels, with_other_short=True).make(record(captions), 0, 0)
    assert getattr(example, missing) is None and (example.short is None) != (example.long is None)
    assert (example.short_text is None) == (example.other_short is None) == (missing == "short")


def test_choices_are_a_function_of_seed_epoch_and_position(splitter):
    def chosen(seed, epoch, position):
        maker = ExampleMaker(splitter, to_pixels, seed, num_hard_negatives=2, with_other_short=True)
        example, _ = maker.make(record(), epoch, position)
        return example.short_text, example.other_short.tolist(), [row.tolist() for row in example.hard_negatives]

    first = [chosen(1, 0, position) for position in range(30)]
    assert [chosen(1, 0, position) for position in range(30)] == first
    assert first != [chosen(1, 1, position) for position in range(30)]
    assert first != [chosen(2, 0, position) for position in range(30)]
    assert {text for text, *_ in first} == set(SHORTS)


def test_the_other_short_caption_differs(splitter):
    maker = ExampleMaker(splitter, to_pixels, with_other_short=True)
    for position in range(20):
        example, _ = maker.make(record(("the dog", "the  dog", "the cat")), 0, position)
        assert example.other_short.tolist() != example.short.tolist()
    assert maker.make(record(("the dog", "the dog ")), 0, 0)[0].other_short is None


def test_hard_negatives_differ_from_each_other(splitter):
    for count, expected in ((0, 0), (2, 2), (9, 4)):
        example, _ = ExampleMaker(splitter, to_pixels, num_hard_negatives=count).make(record(), 0, 0)
        rows = {tuple(row.tolist()) for row in example.hard_negatives}
        assert len(example.hard_negatives) == len(rows) == expected
        assert rows <= {tuple(ids(splitter, text)) for text in FOILS}


def test_unused_captions_are_counted(splitter):
    maker = ExampleMaker(splitter, to_pixels, num_hard_negatives=2)
    _, unused = maker.make(record(("the dog", "", LONG * 20), (LONG, " ")), 0, 0)
    expected = {"caption too long": 1, "caption empty": 1, "hard negative too long": 1, "hard negative empty": 1}
    assert unused == expected


def test_a_usable_hard_negative_replaces_an_unusable_one(splitter):
    captions = ("the dog", "the cat", LONG)
    negatives = ("the  cat", " the dog", "the dog", "a red square", "a  red square ", LONG, "", "a blue cat")
    for position in range(10):
        maker = ExampleMaker(splitter, to_pixels, num_hard_negatives=2)
        example, unused = maker.make(record(captions, negatives), 0, position)
        found = [row.tolist() for row in example.hard_negatives]
        assert sorted(found) == sorted(ids(splitter, text) for text in ("a red square", "a blue cat"))
        texts = [splitter.split([text]).short[0] for text in example.further_texts[1:]]
        assert [list(row) for row in texts] == found and example.further_texts[0] is None
        reasons = {"equals a caption": 3, "repeated": 1, "too long": 1, "empty": 1}
        assert unused == {f"hard negative {reason}": count for reason, count in reasons.items()}
    assert maker.make(record(captions, negatives[:3]), 0, 0)[0].hard_negatives == ()
    assert not ExampleMaker(splitter, to_pixels).make(record(captions, negatives), 0, 0)[1]


def test_case_makes_a_different_text_unless_the_tokenizer_lowers_it(splitter):
    maker = ExampleMaker(splitter, to_pixels, num_hard_negatives=1)
    assert len(maker.make(record(("the dog",), ("The dog",)), 0, 0)[0].hard_negatives) == 1
    lowering = CaptionSplitter(splitter._tokenizer)
    lowering._clean = lambda text: text.lower().strip()
    maker = ExampleMaker(lowering, to_pixels, num_hard_negatives=1)
    assert maker.make(record(("the dog",), ("The dog",)), 0, 0)[0].hard_negatives == ()


def test_the_identity_does_not_depend_on_transform_or_position(splitter):
    maker = ExampleMaker(splitter, noisy_pixels)
    (first, _), (again, _) = maker.make(record(), 0, 0), maker.make(record(("the cat",)), 1, 7)
    assert first.picture == again.picture != 0 and not torch.equal(first.pixels, again.pixels)
    other = Record("k", picture(1), SHORTS)
    assert maker.make(other, 0, 0)[0].picture != first.picture


CLAIMS = {
    " a  red circle": frozenset({"red circle"}),  # cleaned as the caption is
    "a green dog": frozenset({"green dog"}),
    "a blue cat": frozenset({"cat", "red circle"}),
    "the red square": frozenset(),
}


def knowing(facts=("red circle", "cat"), claims=CLAIMS):
    return Record("k", picture(0), (" a  red circle", "the dog"), FOILS, frozenset(facts), claims)


def test_facts_and_claims_are_passed_on_as_identities(splitter):
    maker = ExampleMaker(splitter, to_pixels, num_hard_negatives=4, with_other_short=True, with_facts=True)
    expected = {text: () for text in (*SHORTS, *FOILS)}
    expected |= {"a red circle": (identity(b"red circle"),), "a green dog": (identity(b"green dog"),)}
    orders = set()
    for position in range(10):
        example, unused = maker.make(knowing(), 0, position)
        assert example.facts.tolist() == sorted((identity(b"red circle"), identity(b"cat")))
        texts = [example.short_text, *example.further_texts]
        assert example.claims == tuple(expected[text] for text in texts) and len(texts) == 5
        assert "a blue cat" not in texts and unused == {"hard negative is true by the facts": 1}
        orders.add(tuple(texts))
    assert {texts[0] for texts in orders} == {"a red circle", "the dog"}


def test_the_other_short_caption_says_most_nearly_the_same(splitter):
    texts = ("a red cat", "the red cat sits", "a cat left of a dog", "a dog", "who knows")
    claims = dict(zip(texts, map(frozenset, (["cat"], ["cat"], ["cat", "dog", "left"], ["dog"], [])), strict=True))
    maker = ExampleMaker(splitter, to_pixels, with_other_short=True, with_facts=True)
    found = set()
    for position in range(40):
        given = Record("k", picture(0), texts, (), frozenset(["cat", "dog", "left"]), claims)
        example, _ = maker.make(given, 0, position)
        found.add((example.short_text, *example.further_texts))
    pairs = {(one, other) for one, other in found if one != "who knows"}
    assert pairs == {
        ("a red cat", "the red cat sits"),
        ("the red cat sits", "a red cat"),
        *(("a cat left of a dog", other) for other in ("a red cat", "the red cat sits", "a dog")),
        ("a dog", "a cat left of a dog"),
    }
    assert {other for one, other in found if one == "who knows"} == set(texts[:-1])


@pytest.mark.parametrize(("others", "chosen"), [(("a dog",), None), (("a dog", "who knows"), "who knows")])
def test_captions_that_share_no_claim_are_no_pair(splitter, others, chosen):
    claims = {"a red cat": frozenset(["cat"]), "a dog": frozenset(["dog"])}
    maker = ExampleMaker(splitter, to_pixels, with_other_short=True, with_facts=True)
    given = Record("k", picture(0), ("a red cat", *others), (), frozenset(["cat", "dog"]), claims)
    for position in range(20):
        example, _ = maker.make(given, 0, position)
        if example.short_text == "a red cat":
            assert example.further_texts == (chosen,)


def test_facts_are_left_out_unless_requested(splitter):
    example, unused = ExampleMaker(splitter, to_pixels, num_hard_negatives=4).make(knowing(), 0, 0)
    assert len(example.facts) == 0 and example.claims == () and not unused
    assert "a blue cat" in example.further_texts


def test_an_absent_caption_claims_nothing(splitter):
    example, _ = ExampleMaker(splitter, to_pixels, with_facts=True).make(record(SHORTS), 0, 0)
    assert example.claims == ((), ()) and len(example.facts) == 0


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({"facts": map(str, range(MAX_FACTS + 1))}, "too many facts", f"{MAX_FACTS + 1} facts, expected at most"),
        ({"claims": {"the dog": set(range(MAX_CLAIMS + 1))}}, "too many claims", "claims of 'the dog', expected"),
    ],
)
def test_more_facts_than_a_batch_has_room_for_make_a_record_bad(splitter, fields, reason, detail):
    with pytest.raises(BadRecord, match=detail) as caught:
        ExampleMaker(splitter, to_pixels, with_facts=True).make(knowing(**fields), 0, 0)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("captions", "reason"),
    [((), "missing caption"), (("", "\n "), "empty caption"), ((LONG * 20, ""), "captions too long")],
)
def test_a_record_without_usable_caption_is_bad(splitter, captions, reason):
    with pytest.raises(BadRecord) as caught:
        ExampleMaker(splitter, to_pixels).make(record(captions), 0, 0)
    assert caught.value.reason == reason


def test_a_random_transform_depends_only_on_the_position_and_restores_the_generators(splitter):
    maker = ExampleMaker(splitter, noisy_pixels)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = maker.make(record(), 0, 3)[0].pixels
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    torch.rand(5)
    assert torch.equal(first, maker.make(record(), 0, 3)[0].pixels)
    assert not torch.equal(first, maker.make(record(), 0, 4)[0].pixels)
