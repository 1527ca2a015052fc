"""``python -m tests.golden record``: record the runs of this release.

It starts its own PostgreSQL. Existing recordings of the release are kept. ``--anew``
records them again, for an unpublished release.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

import django

from tests.golden import journals
from tests.lab.databases import migrate, own_postgres
from tests.lab.processes import SETTINGS


def main(arguments: list[str]) -> int:
    """Record the cases and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("command", choices=["record"])
    parser.add_argument("--anew", action="store_true", help="also what is there")
    options = parser.parse_args(arguments)
    with own_postgres() as server:
        os.environ.update({"DATABASE_URL": server.url, **SETTINGS})
        django.setup()
        migrate(server.url)
        _record(journals.release(), anew=options.anew)
    return 0


def _record(release: str, *, anew: bool) -> None:
    from django.db import connections
    from django.test import override_settings

    from tests.golden.cases import CASES
    from tests.golden.worlds import KEPT, record

    logging.disable(logging.CRITICAL)  # faults are made on purpose
    try:
        with override_settings(DURABLE_JOBS=KEPT):
            for name, build in CASES.items():
                if anew or not journals.file(release, name).exists():
                    journals.write(release, name, record(name, build))
                    print(f"{release}/{name}")
    finally:
        connections.close_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
