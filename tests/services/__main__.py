"""Run a command with both servers up: ``python -m tests.services -- command …``."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from tests.services import ServiceError, running

USAGE = "usage: python -m tests.services -- command [argument …]"


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        with running(), subprocess.Popen(arguments) as process:
            # Ctrl-C reaches the command too: let it end in its own way.
            while process.returncode is None:
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
            return process.returncode
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
