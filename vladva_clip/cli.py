"""`vladva`: the command line."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 fine, 2 for what the user can mend, with the reason on stderr)."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"vladva: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vladva", description="Generative vision-language models in place of CLIP.")
    commands = parser.add_subparsers(required=True)
    quickstart = commands.add_parser(
        "quickstart", help="draw a few scenes and see what the packaged model makes of them"
    )
    quickstart.add_argument("--output-dir", type=Path, default=Path("vladva-quickstart"), help="where pictures go")
    quickstart.set_defaults(command=_quickstart)
    models = commands.add_parser("models", help="list the model names and tags")
    models.set_defaults(command=_models)
    return parser


def _quickstart(options: argparse.Namespace) -> int:
    from vladva_clip.quickstart import run  # torch is loaded only by the commands that need it

    print(run(options.output_dir))
    return 0


def _models(options: argparse.Namespace) -> int:
    from vladva_clip.registry import list_pretrained

    print("\n".join(list_pretrained(as_str=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
