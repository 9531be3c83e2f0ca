"""Questions about a scene: every answer follows from the scene."""

from vladva_clip.scenes import PLACE_PHRASES, RELATION_PHRASES, foils, holds, scenes
from vladva_training.tiny.questions import questions

YES_NO = ("yes", "no")


def test_every_object_is_asked_about_and_every_claim_is_made():
    for drawn in scenes("train", 0, 40):
        counts = {kind: len(asked) for kind, asked in questions(drawn).items()}
        objects = len(drawn.objects)
        assert counts == {
            "color": objects,
            "shape": objects,
            "place": objects,
            "relation": 2,
            "neighbor": 4,
            "claim": 14,
        }


def test_questions_about_an_object_have_its_words_for_answers():
    for drawn in scenes("train", 0, 100):
        for kind, word in (("color", "color"), ("shape", "shape"), ("place", "place")):
            for question in questions(drawn)[kind]:
                asked = [o for o in drawn.objects if o.shape in question.prompt or o.color in question.prompt]
                assert len(asked) == 1
                expected = getattr(asked[0], word)
                assert question.answer == (PLACE_PHRASES[expected] if kind == "place" else expected)


def test_relations_and_neighbors_hold_in_the_scene():
    for drawn in scenes("train", 0, 100):
        names = {f"{o.color} {o.shape}": o for o in drawn.objects}
        asked = questions(drawn)
        for prompt, relation in asked["relation"]:
            first, second = prompt.removeprefix("Where is the ").removesuffix("?").split(" to the ")
            assert holds(relation, names[first], names[second])
        for prompt, neighbor in asked["neighbor"]:
            text = prompt.removeprefix("What is ").removesuffix("?")
            relation, phrase = next(
                (relation, phrase)
                for relation, phrases in RELATION_PHRASES.items()
                for phrase in sorted(phrases, key=len, reverse=True)
                if text.startswith(f"{phrase} the ")
            )
            second = text.removeprefix(f"{phrase} the ")
            assert holds(relation, names[neighbor.removeprefix("the ")], names[second])


def test_claims_are_the_captions_and_their_foils():
    for drawn in scenes("test", 0, 20):
        pairs = foils(drawn).values()
        expected = [
            (f"Is this true: {text}?", answer) for pair in pairs for text, answer in zip(pair, YES_NO, strict=True)
        ]
        assert questions(drawn)["claim"] == expected
