"""`vladva`: the command line. Its commands lie in `commands/`."""

import sys

from vladva_clip.interface import interrupts  # the rest is imported in `main`, where Ctrl-C is a line

INTERRUPTED = "vladva: interrupted"


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0; 1 if some pictures failed; 2 for an error that the user can fix, explained on stderr in one
        line; 130 after Ctrl-C, with a line on stderr.
    """
    try:
        with interrupts.kept(INTERRUPTED):
            from vladva_clip.commands import program

            return program.run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return interrupts.STATUS


if __name__ == "__main__":
    sys.exit(main())
