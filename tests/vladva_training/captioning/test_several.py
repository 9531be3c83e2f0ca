"""Several short captions per image: what is drawn again, what is kept, and what an image gets in any batch."""

from collections import Counter

import pytest

from tests.support.samples import picture
from vladva_clip.factory import get_tokenizer
from vladva_clip.records.records import Record
from vladva_training.captioning.drafts import Draft
from vladva_training.captioning.settings import CaptionSettings
from vladva_training.captioning.several import ROUNDS, plain, write_several
from vladva_training.data.captions import CaptionSplitter

LONG = "a small red circle on the left of a large blue square and a green dog above a cat " * 3


class Deck:
    """A captioner whose n-th draw for an image is the n-th of the image's cards, the last one from then on."""

    name = "deck"

    def __init__(self, cards: dict[str, list[str]], refused: str = ""):
        self.cards, self.refused, self.seen = cards, refused, Counter()

    def sample(self, images, seeds, temperature, top_p):
        assert len({len(own) for own in seeds}) == 1 and (temperature, top_p) == (0.8, 0.95)
        if any(own[0].startswith(f"{self.refused} ") for own in seeds):
            raise ValueError("too narrow")
        self.seen.update(seed for own in seeds for seed in own)
        return [[self._card(*seed.rsplit(" ", 1)) for seed in own] for own in seeds]

    def _card(self, key: str, number: str) -> str:
        cards = self.cards[key]
        return cards[min(int(number), len(cards) - 1)]


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(get_tokenizer("vladva-tiny"))


def draft(key: str, *captions: str, number: int = 0) -> Draft:
    return Draft.of(number, Record(key, picture(number), captions))


def run(drafts: list[Draft], deck: Deck, splitter, count: int = 3) -> int:
    settings = CaptionSettings("list", 9, fill="short", short_count=count, temperature=0.8, top_p=0.95)
    return write_several(drafts, deck, settings, splitter)


def test_equal_captions_are_drawn_again(splitter):
    deck = Deck({"a": ["a dog", "A  dog.", "a cat", "a dog ", "a red dog", "never drawn"]})
    one = draft("a")
    assert run([one], deck, splitter) == 3
    assert one.captions == ["a dog", "a cat", "a red dog"] and one.authors == ["deck"] * 3
    assert not one.problems
    assert deck.seen == {f"a {number}": 1 for number in range(5)}  # three at once, then one by one


def test_captions_of_the_source_count_and_are_not_written_again(splitter):
    deck = Deck({key: ["a dog", "a cat", "a fish"] for key in "abc"})
    own = {"a": ("A dog.", LONG), "b": ("a hat", "a coat", "a shoe"), "c": ("a hat", "A hat")}
    drafts = [draft(key, *captions, number=number) for number, (key, captions) in enumerate(own.items())]
    assert run(drafts, deck, splitter) == 4
    assert drafts[0].captions == ["A dog.", LONG, "a cat", "a fish"] and drafts[0].authors[:2] == [None, None]
    assert drafts[1].captions == ["a hat", "a coat", "a shoe"]
    assert drafts[2].captions == ["a hat", "A hat", "a dog", "a cat"]


def test_draws_are_bounded_and_a_shortage_is_a_problem(splitter):
    deck = Deck({"a": ["a dog", "", LONG, "2023", "a cat", "a dog"]})
    one = draft("a")
    assert run([one], deck, splitter, count=4) == 2
    assert one.captions == ["a dog", "a cat"]
    (problem,) = one.problems
    assert problem.reason == "too few different captions written" and problem.key == "a"
    draws = 4 + 3 + 2 * (ROUNDS - 2)
    assert f"2 of 4 after {draws} draws of deck" in problem.detail and sum(deck.seen.values()) == draws
    for reason in ("1 empty", "1 caption of another length", "1 unusable", f"{draws - 5} caption written twice"):
        assert reason in problem.detail


def test_a_refused_image_costs_only_itself(splitter):
    deck = Deck({key: ["a dog", "a dog", "a cat", "a fish"] for key in "abc"}, refused="b")
    drafts = [draft(key, number=number) for number, key in enumerate("abc")]
    assert run(drafts, deck, splitter) == 6
    assert [len(one.captions) for one in drafts] == [3, 0, 3]
    assert [problem.reason for problem in drafts[1].problems] == ["image refused"] and not drafts[0].problems


def test_an_image_gets_the_same_captions_in_any_batch(splitter):
    words = ["dog", "cat", "fish", "hat", "coat"]
    cards = {str(n): [f"a {words[(n * step) % 5]}" for step in range(12)] for n in range(1, 9)}

    def captions(numbers) -> dict[str, tuple]:
        drafts = [draft(str(n), *["a hat"][: n % 2], number=n) for n in numbers]
        run(drafts, Deck(cards), splitter)
        return {one.record.key: (one.captions, one.problems) for one in drafts}

    together = captions(range(1, 9))
    assert {len(problems) for _, problems in together.values()} == {0, 1}  # 5 shows only one card
    assert captions(range(8, 0, -1)) == together
    assert {key: found for n in range(1, 9) for key, found in captions([n]).items()} == together


@pytest.mark.parametrize("same", ["a dog", " A DOG", "a  Dog.", "a dog . "])
def test_captions_in_plain_form(same):
    assert plain(same) == "a dog" != plain("a dogs")
