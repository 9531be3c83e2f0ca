"""Short captions with what each of them claims: sayings.

Five sayings of a scene decide together what a family varies: two or more name the focus pair with its relation, one or
more name sizes, one names places, and the rest is mixed: counts, backgrounds, one object among several, color or shape
alone.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations

from .captions import (
    Mention,
    Statement,
    classic_captions,
    enumerate_phrases,
    focus_statement,
    placed_captions,
    with_article,
)
from .facts import (
    Fact,
    Saying,
    background_fact,
    count_fact,
    exists_fact,
    placed_claims,
    relation_fact,
    statement_claims,
)
from .long_captions import numbered
from .objects import SceneObject
from .relations import holds
from .sampling import pick, sample, shuffled, stable_seed
from .vocabulary import MORE_RELATION_PHRASES, RELATIONS
from .wordings import (
    BACKGROUND_WORDINGS,
    COLOR_NAMES,
    COUNT_LIST_WORDINGS,
    COUNT_ONE_OF_WORDINGS,
    COUNT_WORDINGS,
    EXISTS_WORDINGS,
    MORE_PLACE_PHRASES,
    ONLY_WORDINGS,
    OTHERS_WORDINGS,
    PLACE_WORDINGS,
    RELATION_WORDINGS,
    SIDE_PHRASES,
)
from .world import Scene

_MAX_TOKENS = 29
_ONE_SIZE = 0.4
"""How many of the statements with sizes tell one size only, as some false ones do."""
_ARTICLES = ("a", "a", "a", "the", "")


def short_captions(scene: Scene) -> list[str]:
    """Five different captions of under 30 words in varied wording: the texts of `short_sayings`.

    Those of a classic scene name every object with its color and shape, and each of them distinguishes the scene from
    the first three members of its family: it places the focus pair.
    """
    return [saying.text for saying in short_sayings(scene)]


def short_sayings(scene: Scene) -> list[Saying]:
    """The five short captions of a scene, each with the facts that it claims."""
    if scene.style == "classic":
        return [Saying(text, _claims(said, scene)) for text, said in classic_captions(scene)]
    rng = random.Random(stable_seed("sayings", scene.seed))
    return shuffled(rng, _different(_SEVERAL if len(scene.objects) > 1 else _SINGLE, scene, rng))


def placed_sayings(scene: Scene) -> list[Saying]:
    """The captions of `placed_captions`, each with the facts that it claims."""
    return [Saying(text, placed_claims(scene.objects)) for text in placed_captions(scene)]


def _claims(said: Statement | None, scene: Scene) -> frozenset[Fact]:
    return statement_claims(said) if said else placed_claims(scene.objects)


Teller = Callable[[Scene, random.Random], Saying]
"""Says something about a scene."""


def _different(tellers: Sequence[Teller], scene: Scene, rng: random.Random) -> list[Saying]:
    """What each teller says, told again until it is short enough and new."""
    told: dict[str, Saying] = {}
    for teller in tellers:
        saying = teller(scene, rng)
        while saying.text in told or not is_short(saying.text):
            saying = teller(scene, rng)
        told[saying.text] = saying
    return list(told.values())


def is_short(text: str) -> bool:
    """Whether a text has under 30 words and punctuation marks."""
    return len(re.findall(r"\w+|[^\w\s]", text)) <= _MAX_TOKENS


def say_statement(statement: Statement, rng: random.Random) -> str:
    """A statement in one of many wordings, with or without articles."""
    name = _namer(rng)
    said = say_relation(name(statement.first.name), statement.relation, name(statement.second.name), rng)
    if not statement.others:
        return said
    others = enumerate_phrases([name(mention.name) for mention in statement.others])
    return pick(rng, OTHERS_WORDINGS).format(said=said, others=others)


def say_relation(first: str, relation: str, second: str, rng: random.Random) -> str:
    """Who is where relative to whom, for two phrases."""
    return pick(rng, RELATION_WORDINGS).format(
        first=first,
        second=second,
        relation=pick(rng, MORE_RELATION_PHRASES[relation]),
        side=pick(rng, SIDE_PHRASES[RELATIONS[relation]]),
    )


def say_places(placed: Sequence[tuple[str, str]], rng: random.Random) -> str:
    """Names with places: one in many wordings, several as a list, four without prepositions."""
    name = _namer(rng)
    if len(placed) == 1:
        ((one, place),) = placed
        return pick(rng, PLACE_WORDINGS).format(object=name(one), place=pick(rng, MORE_PLACE_PHRASES[place]))
    brief = len(placed) > 3 or rng.random() < 0.2
    places = [place if brief else pick(rng, MORE_PLACE_PHRASES[place]) for _, place in placed]
    return enumerate_phrases([f"{name(one)} {place}" for (one, _), place in zip(placed, places, strict=True)])


def say_exist(names: Sequence[str], rng: random.Random) -> str:
    """Names alone, in many wordings."""
    return _exist([*map(_namer(rng), names)], rng)


def _exist(phrases: Sequence[str], rng: random.Random) -> str:
    return pick(rng, EXISTS_WORDINGS).format(objects=enumerate_phrases(list(phrases)))


def say_count(count: int, names: Sequence[str], rng: random.Random) -> str:
    """How many objects there are, with the names of one or all of them or with none."""
    if count == 1 and names and rng.random() < 0.5:
        return pick(rng, ONLY_WORDINGS).format(object=with_article(names[0]))
    if not names:
        return numbered(pick(rng, COUNT_WORDINGS), count)
    phrases = [*map(with_article, names)]
    wordings = COUNT_ONE_OF_WORDINGS if len(names) == 1 and count > 1 else COUNT_LIST_WORDINGS
    return numbered(pick(rng, wordings), count, object=phrases[0], objects=enumerate_phrases(phrases))


def _namer(rng: random.Random) -> Callable[[str], str]:
    """Puts the same article before every name: "a" mostly, "the", or none."""
    article = pick(rng, _ARTICLES)
    return with_article if article == "a" else lambda name: f"{article} {name}".strip()


def _focus(scene: Scene, rng: random.Random) -> Saying:
    return _stated(scene, rng, with_size=False, with_others=rng.random() < 0.5)


def _sized_focus(scene: Scene, rng: random.Random) -> Saying:
    return _stated(scene, rng, with_size=True, with_others=rng.random() < 0.4)


def _stated(scene: Scene, rng: random.Random, with_size: bool, with_others: bool) -> Saying:
    statement = focus_statement(scene, with_size)
    statement = statement if with_others else Statement(statement.first, statement.relation, statement.second)
    statement = statement if rng.random() < 0.5 else statement.inverse()
    statement = _with_one_size(statement, rng) if with_size and rng.random() < _ONE_SIZE else statement
    return Saying(say_statement(statement, rng), statement_claims(statement))


def _with_one_size(statement: Statement, rng: random.Random) -> Statement:
    """The statement with the size of the first or the second object alone."""
    sized = pick(rng, ("first", "second"))
    first, second, *others = (replace(mention, size=None) for mention in statement.mentions)
    without = Statement(first, statement.relation, second, tuple(others))
    return replace(without, **{sized: getattr(statement, sized)})


def _placed(scene: Scene, rng: random.Random) -> Saying:
    """All objects with their places, some of the time with their number, or one or two of them."""
    count = len(scene.objects) if rng.random() < 0.6 else 1 + int(rng.random() * 2)
    objects = sample(rng, scene.objects, min(count, len(scene.objects)))
    return place_saying(objects, len(objects) == len(scene.objects), rng)


def place_saying(objects: Sequence[SceneObject], are_all: bool, rng: random.Random) -> Saying:
    """Objects with their places, and some of the time with their number, if they are all there are."""
    mentions = [Mention.of(one, with_size=rng.random() < 0.2) for one in objects]
    text = say_places([(mention.name, one.place) for mention, one in zip(mentions, objects, strict=True)], rng)
    claims = placed_claims(objects) | {exists_fact(mention.name) for mention in mentions if mention.size}
    if len(objects) > 1 and are_all and rng.random() < 0.4:
        return Saying(f"{numbered('{count} objects', len(objects))}: {text}", claims | {count_fact(len(objects))})
    return Saying(text, claims)


def _any_relation(scene: Scene, rng: random.Random) -> Saying:
    """A relation of any two objects on any axis, named by color and shape, by color, or by shape."""
    pairs = permutations(scene.objects, 2)
    held = [(a, relation, b) for a, b in pairs for relation in RELATIONS if holds(relation, a, b)]
    first, relation, second = pick(rng, held)
    if rng.random() < 0.4:
        return brief_relation((first.color, first.shape), relation, (second.color, second.shape), rng)
    sized = rng.random() < 0.4
    statement = Statement(Mention.of(first, sized), relation, Mention.of(second, sized))
    statement = _with_one_size(statement, rng) if sized and rng.random() < _ONE_SIZE else statement
    return Saying(say_statement(statement, rng), statement_claims(statement))


def brief_relation(first: tuple[str, str], relation: str, second: tuple[str, str], rng: random.Random) -> Saying:
    """A relation of two (color, shape) pairs that are named by color alone or by shape alone."""
    part = int(rng.random() * 2)
    name = partial(color_phrase, rng=rng) if part == 0 else _namer(rng)
    text = say_relation(name(first[part]), relation, name(second[part]), rng)
    return Saying(text, frozenset({relation_fact(first[part], relation, second[part])}))


def color_phrase(color: str, rng: random.Random) -> str:
    """A thing of which only the color is told."""
    return pick(rng, COLOR_NAMES).format(color=color, a=with_article(color).split()[0])


def _mixed(scene: Scene, rng: random.Random) -> Saying:
    return pick(rng, (*[_counted] * 3, _one_of_several, _one_of_several, _listed, _on_background))(scene, rng)


def _counted(scene: Scene, rng: random.Random) -> Saying:
    count = len(scene.objects)
    return count_saying(count, sample(rng, scene.objects, pick(rng, (0, 1, count, count))), rng)


def count_saying(count: int, told: Sequence[SceneObject], rng: random.Random) -> Saying:
    """A number of objects with the names of some of them."""
    names = [Mention.of(one, with_size=count < 4 and rng.random() < 0.2).name for one in told]
    return Saying(say_count(count, names, rng), frozenset({count_fact(count), *map(exists_fact, names)}))


def _one_of_several(scene: Scene, rng: random.Random) -> Saying:
    """One object by any of its names."""
    one = pick(rng, scene.objects)
    if rng.random() < 0.15:
        return Saying(_exist([color_phrase(one.color, rng)], rng), frozenset({exists_fact(one.color)}))
    pair, sized = Mention.of(one).name, Mention.of(one, with_size=True).name
    name = pick(rng, (pair, pair, sized, sized, one.shape, f"{one.size} {one.shape}"))
    return Saying(say_exist([name], rng), frozenset({exists_fact(name)}))


def exist_saying(mentions: Sequence[Mention], rng: random.Random) -> Saying:
    """There are such objects."""
    names = [mention.name for mention in mentions]
    return Saying(say_exist(names, rng), frozenset(map(exists_fact, names)))


def _listed(scene: Scene, rng: random.Random) -> Saying:
    """All objects, all of them with their sizes or none."""
    sized = rng.random() < 0.5
    return exist_saying([Mention.of(one, sized) for one in shuffled(rng, scene.objects)], rng)


def _on_background(scene: Scene, rng: random.Random) -> Saying:
    return background_saying(scene, scene.background.kind, rng)


def background_saying(scene: Scene, kind: str, rng: random.Random) -> Saying:
    """One or two objects of the scene and a background."""
    told = sample(rng, scene.objects, min(len(scene.objects), 1 + int(rng.random() * 2)))
    names = [Mention.of(one).name for one in told]
    said = enumerate_phrases([*map(with_article, names)])
    text = pick(rng, BACKGROUND_WORDINGS).format(said=said, kind=kind)
    return Saying(text, frozenset({background_fact(kind), *map(exists_fact, names)}))


def _pair(scene: Scene, rng: random.Random) -> Saying:
    return exist_saying([Mention.of(scene.objects[0])], rng)


def _size(scene: Scene, rng: random.Random) -> Saying:
    return exist_saying([Mention.of(scene.objects[0], with_size=True)], rng)


_SEVERAL: tuple[Teller, ...] = (_focus, _sized_focus, _placed, _any_relation, _mixed)
_SINGLE: tuple[Teller, ...] = (_pair, _size, _placed, _counted, _mixed)
