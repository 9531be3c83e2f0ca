"""What a model writes, held against the scene."""

import pytest

from vladva_clip.quickstart.written_claims import marked, relations, sizes
from vladva_clip.scenes import Scene, long_caption, scenes

SCENE = Scene.of([("circle", "red", "left"), ("square", "blue", "right", "small")])


@pytest.mark.parametrize("scene", scenes("test", 0, 40))
def test_a_true_long_caption_has_no_false_sentence(scene):
    text = long_caption(scene)
    assert marked(text, scene) == text
    assert relations(text, scene) and all(relations(text, scene))
    assert len(sizes(text, scene)) == len(scene.objects) and all(sizes(text, scene))


@pytest.mark.parametrize(
    "sentence",
    [
        "The red circle is to the right of the blue square.",
        "The red circle is over the blue square.",
        "The red circle is left of the red circle.",
        "The green circle is left of the blue square.",
        "A small red circle on the left and a small blue square on the right.",
        "A large red circle at the top.",
        "A large red circle in the top left.",
        "A large yellow star on the left.",
        "There are three shapes on a {kind} background.",
        "There are two shapes on a {other} background.",
    ],
)
def test_a_false_sentence_is_marked(sentence):
    kind = SCENE.background.kind
    sentence = sentence.format(kind=kind, other="plain" if kind != "plain" else "cloudy")
    true = " The blue square is right of the red circle."
    assert marked(sentence + true, SCENE) == f"{sentence} [false]{true}"


def test_counts():
    text = "A small red circle and a small blue square. The red circle is left of the blue square. No more."
    assert sizes(text, SCENE) == [False, True] and relations(text, SCENE) == [True]
    assert relations("", SCENE) == sizes("red", SCENE) == [] and marked("", SCENE) == ""
