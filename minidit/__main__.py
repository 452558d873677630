"""`python -m minidit` is the command `minidit`, which Ctrl-C ends in one line at any moment, also while it is imported."""

import sys


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        from minidit.cli import main as command

        return command()
    except KeyboardInterrupt:
        sys.stderr.write("\nminidit: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
