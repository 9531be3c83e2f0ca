"""`vladva`: the command line."""

import argparse
import sys
from pathlib import Path

from vladva_clip.interface import devices, extras, precision_words
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.interface.arguments import user_path
from vladva_clip.interface.terminal import take_any_text


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 for an error that the user can fix, explained on stderr."""
    take_any_text()
    options = _parser().parse_args(arguments)
    try:
        with extras.named(f"vladva {options.command.__name__.strip('_')}"):
            return options.command(options)
    except (ValueError, OSError) as error:
        print(without_addresses(f"vladva: {error}"), file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vladva", description="Generative vision-language models in place of CLIP.")
    commands = parser.add_subparsers(required=True)
    quickstart = commands.add_parser("quickstart", help="draw a few scenes and test the packaged model on them")
    words = "folder for the pictures (default: %(default)s)"
    quickstart.add_argument("--output-dir", type=user_path, default=Path("vladva-quickstart"), help=words)
    devices.add_option(quickstart, default=devices.AUTO)
    quickstart.set_defaults(command=_quickstart)
    models = commands.add_parser("models", help="list the model names and tags, with license, size and origin")
    models.add_argument("--fit", action="store_true", help="the download and memory of each, and which fit here")
    models.set_defaults(command=_models)
    _add_export(commands)
    _add_card(commands)
    _add_push(commands)
    _add_pull(commands)
    return parser


def _add_export(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser(
        "export", help="write a merged model that needs only transformers, sentence-transformers or vLLM"
    )
    export.add_argument("model", metavar="DIR", help="the directory of an adapter or LVLM, or a model name")
    export.add_argument("output", metavar="OUT", type=user_path, help="the directory to write")
    precision_words.add_option(export, "the adapter's own")
    export.add_argument("--max-shard-size", default="2GB", help="limit of a weight file (default: %(default)s)")
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export in OUT")
    export.add_argument("--pretrained", metavar="TAG", help="a tag of the model, such as retrieval (default: its own)")
    words = "as which published embedder to read the LVLM in DIR: a profile's name, or a JSON file"
    export.add_argument("--profile", metavar="PROFILE", help=words)
    export.set_defaults(command=_export)


def _add_card(commands: argparse._SubParsersAction) -> None:
    card = commands.add_parser("card", help="write a model card from the config, training record and result files")
    card.add_argument("model", metavar="DIR", help="an adapter's directory, or the name of a packaged model")
    card.add_argument("--output", type=user_path, help="the file to write (default: README.md in DIR)")
    words = "result files (default: DIR/results/*.json)"
    card.add_argument("--results", type=user_path, nargs="+", metavar="JSON", help=words)
    card.add_argument("--license", help="a license from the Hub's list (default: the base's own, if known)")
    card.add_argument("--overwrite", action="store_true", help="replace a card that this command did not write")
    card.set_defaults(command=_card)


def _add_push(commands: argparse._SubParsersAction) -> None:
    push = commands.add_parser("push", help="push an adapter to the Hub, in one commit")
    push.add_argument("directory", metavar="DIR", type=user_path, help="the adapter's directory")
    push.add_argument("repo", metavar="ORG/NAME", help="the repository, created if it doesn't exist")
    push.add_argument("--private", action="store_true", default=None, help="make the repository private")
    push.add_argument("--commit-message", metavar="TEXT", help="first line of the commit message")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    push.add_argument("--revision", metavar="BRANCH", help="an existing branch (default: main)")
    push.set_defaults(command=_push)


def _add_pull(commands: argparse._SubParsersAction) -> None:
    pull = commands.add_parser("pull", help="download an adapter from the Hub and print its directory")
    pull.add_argument("repo", metavar="ORG/NAME[@REVISION]", help="the repository, with a branch, tag or commit")
    pull.add_argument("--output", metavar="DIR", type=user_path, help="a new directory (default: the Hub's cache)")
    pull.set_defaults(command=_pull)


def _quickstart(options: argparse.Namespace) -> int:
    from vladva_clip.quickstart.tour import run  # late: only commands that need torch load it

    print(run(options.output_dir, device=options.device))
    return 0


def _models(options: argparse.Namespace) -> int:
    if options.fit:
        from vladva_clip.sources.fit_table import fit_lines
        from vladva_clip.sources.room import Room

        print("\n".join(fit_lines(Room.here())))
        return 0
    from vladva_clip.sources.listing import lines

    print("\n".join(lines()))
    return 0


def _export(options: argparse.Namespace) -> int:
    from vladva_clip.export.run import export_model

    given = {name: getattr(options, name) for name in ("max_shard_size", "overwrite", "pretrained", "profile")}
    print(export_model(options.model, options.output, options.precision, **given))
    return 0


def _card(options: argparse.Namespace) -> int:
    from vladva_clip.hub import card

    given = {"results": options.results, "license": options.license, "overwrite": options.overwrite}
    if user_path(options.model).is_dir():
        print(card.write_card(options.model, options.output, **given))
        return 0
    if options.output is None:
        raise ValueError(f"{options.model} is not a directory; for the card of a packaged model, give --output FILE")
    print(card.write_named_card(options.model, options.output, **given))
    return 0


def _push(options: argparse.Namespace) -> int:
    from vladva_clip.hub.push import COMMIT_MESSAGE, push_to_hub

    message = COMMIT_MESSAGE if options.commit_message is None else options.commit_message
    pushed = push_to_hub(options.directory, options.repo, options.private, message, options.create_pr, options.revision)
    print(pushed.pr_url or pushed.commit_url)
    return 0


def _pull(options: argparse.Namespace) -> int:
    from vladva_clip.hub.pull import pull_from_hub

    print(pull_from_hub(options.repo, options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
