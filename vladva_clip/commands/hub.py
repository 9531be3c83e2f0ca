"""`vladva push` and `vladva pull`: adapters to and from the Hub."""

from pathlib import Path

import click

from vladva_clip.commands import options, output

PUSHES = """\b
Examples:
  vladva push runs/7b/adapter org/name
  vladva push runs/7b/adapter org/name --private --commit-message "Trained on 1M pairs"
"""
PULLS = """\b
Examples:
  vladva pull org/name
  vladva pull org/name@v1 --output adapters/name
"""


@click.command(epilog=PUSHES, short_help="Push an adapter to the Hub.")
@click.argument("directory", metavar="DIR", type=options.PATH)
@click.argument("repo", metavar="ORG/NAME")
@click.option("--private", is_flag=True, default=None, help="Make the repository private.")
@click.option("--commit-message", metavar="TEXT", help="The first line of the commit message.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--revision", metavar="BRANCH", help="An existing branch.  [default: main]")
def push(
    directory: Path, repo: str, private: bool | None, commit_message: str | None, create_pr: bool, revision: str | None
) -> int:
    """Push the adapter in DIR to the Hub, in one commit. The repository is created if it doesn't exist."""
    from vladva_clip.hub.push import COMMIT_MESSAGE, push_to_hub

    message = COMMIT_MESSAGE if commit_message is None else commit_message
    pushed = push_to_hub(directory, repo, private, message, create_pr, revision)
    output.line(pushed.pr_url or pushed.commit_url)
    return output.OK


@click.command(epilog=PULLS, short_help="Download an adapter from the Hub.")
@click.argument("repo", metavar="ORG/NAME[@REVISION]")
@click.option("--output", "place", metavar="DIR", type=options.PATH, help="A new directory.  [default: in the cache]")
def pull(repo: str, place: Path | None) -> int:
    """Download an adapter from the Hub and print its directory."""
    from vladva_clip.hub.pull import pull_from_hub

    output.line(str(pull_from_hub(repo, place)))
    return output.OK
