"""The process that holds the servers named in its arguments, as ``DATABASE_URL``.

It prints the addresses as one line of JSON, and stops the servers and removes their
directory when its standard input closes or it gets SIGTERM.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pwd import struct_passwd

from tests.services.postgres import postgres
from tests.services.processes import ServiceError
from tests.services.valkey import valkey

SERVERS = {"DATABASE_URL": postgres, "BROKER_URL": valkey}
# The path of a unix socket holds about 100 bytes, whatever TMPDIR says.
LONGEST_TEMPORARY_DIRECTORY = 60


def main(names: list[str]) -> int:
    """Start the servers, print their addresses, and stop them on request."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        try:
            account = account_of_servers()
            base = stack.enter_context(_directory(account))
            addresses = {
                name: stack.enter_context(SERVERS[name](base, account))
                for name in names
            }
        except ServiceError as error:
            print(json.dumps({"error": str(error)}), flush=True)
            return 1
        print(json.dumps(addresses), flush=True)
        sys.stdin.buffer.read()
    return 0


def account_of_servers() -> struct_passwd | None:
    """Return the account that PostgreSQL runs as, which must not be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    msg = "PostgreSQL does not run as root, and there is no user postgres or nobody."
    raise ServiceError(msg)


@contextmanager
def _directory(account: struct_passwd | None) -> Iterator[Path]:
    parent = tempfile.gettempdir()
    if len(parent) > LONGEST_TEMPORARY_DIRECTORY:
        parent = "/tmp"  # noqa: S108 -- mkdtemp makes a private directory in it
    base = Path(tempfile.mkdtemp(prefix="durable-", dir=parent))
    try:
        if account is not None:
            os.chown(base, account.pw_uid, account.pw_gid)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
