"""The embedded world: draws scenes and writes their short, long and foil captions.

Everything is a pure function of a split and an index:

    >>> from vladva_clip.scenes import scene, short_captions
    >>> first = scene("train", 0)
    >>> image, captions = first.draw(96), short_captions(first)
"""

from .captions import (
    NUM_SHORT_CAPTIONS,
    Mention,
    Statement,
    focus_statement,
    in_reading_order,
    long_caption,
    one_word_answers,
    placed_captions,
    short_captions,
)
from .claims import CLAIM_KINDS, claim_accuracy, claims, named_pairs, naming_accuracy
from .evaluation_foils import (
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
)
from .foils import FOIL_KINDS, TRIPLE_KINDS, foils, triples, winoground
from .objects import Background, SceneObject
from .relations import RELATION_MARGIN, holds, main_relation
from .vocabulary import (
    BACKGROUNDS,
    CLASS_TEMPLATES,
    COLORS,
    COUNTS,
    HELD_OUT_PAIRS,
    PLACE_PHRASES,
    PLACES,
    RELATION_PHRASES,
    RELATIONS,
    SHAPES,
    SIZES,
)
from .world import (
    FAMILY_SIZE,
    SPLITS,
    Scene,
    crowd,
    family,
    num_objects,
    scene,
    scenes,
    stable_seed,
)

__all__ = [
    "BACKGROUNDS",
    "CLAIM_KINDS",
    "CLASS_TEMPLATES",
    "COLORS",
    "COUNTS",
    "EVALUATION_KINDS",
    "EVALUATION_TRIPLES",
    "FAMILY_SIZE",
    "FOIL_KINDS",
    "HELD_OUT_PAIRS",
    "NUM_SHORT_CAPTIONS",
    "PLACES",
    "PLACE_PHRASES",
    "RELATIONS",
    "RELATION_MARGIN",
    "RELATION_PHRASES",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "TRIPLE_KINDS",
    "Background",
    "Mention",
    "Scene",
    "SceneObject",
    "Statement",
    "claim_accuracy",
    "claims",
    "crowd",
    "evaluation_foils",
    "evaluation_triples",
    "evaluation_winoground",
    "family",
    "focus_statement",
    "foils",
    "holds",
    "in_reading_order",
    "long_caption",
    "main_relation",
    "named_pairs",
    "naming_accuracy",
    "num_objects",
    "one_word_answers",
    "placed_captions",
    "scene",
    "scenes",
    "short_captions",
    "stable_seed",
    "triples",
    "winoground",
]
