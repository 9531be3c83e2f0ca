"""The embedded world: draws scenes and writes their short, long and foil captions.

Everything is a pure function of a split, an index and a style of drawing ("classic", "varied" or "unseen"):

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
    one_word_answers,
    placed_captions,
)
from .claims import CLAIM_KINDS, claim_accuracy, claims, named_pairs, naming_accuracy
from .evaluation_foils import (
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
)
from .facts import Fact, Saying, facts
from .families import SINGLE_MEMBERS, VARIED_MEMBERS
from .foils import FOIL_KINDS, TRIPLE_KINDS, foils, triples, winoground
from .long_captions import long_caption
from .looks import CLASSIC, STYLES, Look, sample_look
from .negatives import false_sayings, hard_negatives
from .objects import Background, SceneObject
from .relations import RELATION_MARGIN, holds, main_relation
from .sampling import stable_seed
from .sayings import placed_sayings, short_captions, short_sayings
from .vocabulary import (
    BACKGROUNDS,
    CLASS_TEMPLATES,
    CLASSIC_BACKGROUNDS,
    COLORS,
    COUNTS,
    HELD_OUT_PAIRS,
    MORE_RELATION_PHRASES,
    NUMBERS,
    PLACE_PHRASES,
    PLACES,
    RELATION_PHRASES,
    RELATIONS,
    SHAPES,
    SIZES,
)
from .wordings import all_wordings
from .world import (
    FAMILY_SIZE,
    SPLITS,
    Scene,
    crowd,
    family,
    family_size,
    num_objects,
    scene,
    scenes,
)

__all__ = [
    "hard_negatives",
    "false_sayings",
    "Saying",
    "facts",
    "placed_sayings",
    "short_sayings",
    "MORE_RELATION_PHRASES",
    "NUMBERS",
    "all_wordings",
    "BACKGROUNDS",
    "Background",
    "CLAIM_KINDS",
    "CLASSIC",
    "CLASSIC_BACKGROUNDS",
    "CLASS_TEMPLATES",
    "COLORS",
    "COUNTS",
    "EVALUATION_KINDS",
    "EVALUATION_TRIPLES",
    "FAMILY_SIZE",
    "FOIL_KINDS",
    "Fact",
    "HELD_OUT_PAIRS",
    "Look",
    "Mention",
    "NUM_SHORT_CAPTIONS",
    "PLACES",
    "PLACE_PHRASES",
    "RELATIONS",
    "RELATION_MARGIN",
    "RELATION_PHRASES",
    "SHAPES",
    "SINGLE_MEMBERS",
    "SIZES",
    "SPLITS",
    "STYLES",
    "Scene",
    "SceneObject",
    "Statement",
    "TRIPLE_KINDS",
    "VARIED_MEMBERS",
    "claim_accuracy",
    "claims",
    "crowd",
    "evaluation_foils",
    "evaluation_triples",
    "evaluation_winoground",
    "family",
    "family_size",
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
    "sample_look",
    "scene",
    "scenes",
    "short_captions",
    "stable_seed",
    "triples",
    "winoground",
]
