"""The arguments that both pre-training commands have."""

import argparse

from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import STYLES
from vladva_training.tiny.course import Course


def add_style(parser: argparse.ArgumentParser) -> None:
    """Add --style and --seed."""
    parser.add_argument("--style", choices=STYLES[:2], default="varied", help="how scenes are drawn and described")
    parser.add_argument("--seed", type=int, default=0)


def add_course(parser: argparse.ArgumentParser, course: Course) -> None:
    """Add the arguments of a course, with its values as defaults, and --output-dir, --resume and --compile.

    A course of one step has no default length: the command wants one.
    """
    parser.add_argument("--output-dir", type=user_path, required=True)
    length = parser.add_mutually_exclusive_group(required=course.minutes is None)
    length.add_argument("--minutes", type=float, default=course.minutes)
    length.add_argument("--steps", type=int)
    parser.add_argument("--learning-rate", type=float, default=course.learning_rate)
    parser.add_argument("--decay-share", type=float, default=course.decay_share, help="of the run, at its end")
    parser.add_argument("--save-every", type=int, default=course.save_every, metavar="STEPS")
    parser.add_argument("--validate-every", type=int, default=course.validate_every, metavar="STEPS")
    parser.add_argument("--patience", type=int, help="end after so many validations without a better loss")
    parser.add_argument("--workers", type=int, default=course.workers, help="processes that draw scenes")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the output directory")
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")


def course_of(options: argparse.Namespace) -> Course:
    """The course that a command line asks for."""
    names = ("steps", "minutes", "learning_rate", "decay_share", "save_every", "validate_every", "patience", "workers")
    values = {name: getattr(options, name) for name in names}
    return Course(**values | ({"minutes": None} if options.steps else {}))
