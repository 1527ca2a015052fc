"""Install each peer in its own virtual environment, with a directory for npm.

Peers need different versions of the same packages. Environments are created once, in a
cache directory, and created again when their requirements change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.adapters import Peer

#: Commands to try for a newer Python, in this order.
PYTHONS = ("python3.14", "python3.13", "python3.12")
_VERSION = "import json, sys; print(json.dumps(sys.version_info[:2]))"


class NotInstalled(Exception):
    """The peer cannot be installed on this machine. The message is the reason."""


def cache() -> Path:
    """Return the directory of the installed environments."""
    home = (
        os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "durable-jobs-bench"
    )
    return Path(home)


def python(peer: Peer) -> Path:
    """Return the Python of a peer's environment. Install the peer if needed."""
    if not peer.requirements:
        return Path(sys.executable)
    directory = _directory(peer.name, [*peer.requirements, *peer.npm])
    done = directory / "installed"
    if not done.exists():
        shutil.rmtree(directory, ignore_errors=True)
        _make(peer, directory)
        done.touch()
    return directory / "bin" / "python"


def npm(peer: Peer) -> Path:
    """Return the directory of a peer's npm packages. ``python`` installs them."""
    return _directory(peer.name, [*peer.requirements, *peer.npm]) / "npm"


def _directory(name: str, requirements: list[str]) -> Path:
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    return cache() / f"{name}-{digest}"


def _make(peer: Peer, directory: Path) -> None:
    print(f"Installing {peer.title} in {directory}.", file=sys.stderr)
    _run([_base(peer), "-m", "venv", str(directory)])
    _run([str(directory / "bin" / "pip"), "install", "-q", *peer.requirements])
    if peer.npm:
        (directory / "npm").mkdir()
        command = ["npm", "install", "--no-audit", "--no-fund", *peer.npm]
        _run([*command, "--prefix", str(directory / "npm")])


def _base(peer: Peer) -> str:
    if sys.version_info[:2] >= peer.oldest_python:
        return sys.executable
    for path in _pythons():
        found = subprocess.run([path, "-c", _VERSION], capture_output=True, check=False)
        if found.returncode == 0 and tuple(json.loads(found.stdout)) >= (
            peer.oldest_python
        ):
            return path
    wanted = ".".join(map(str, peer.oldest_python))
    raise NotInstalled(f"needs Python {wanted} or newer")


def _pythons() -> list[str]:
    """Return the Pythons on ``PATH`` and in the same directory as this Python."""
    found = [path for name in PYTHONS if (path := shutil.which(name))]
    installed = Path(sys.base_prefix).parent.glob("3.*/bin/python3")
    return [*found, *map(str, sorted(installed, reverse=True))]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotInstalled(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise NotInstalled((done.stderr or done.stdout).strip().splitlines()[-1])


def versions(peer: Peer) -> dict[str, str]:
    """Return the versions of a peer's packages."""
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    names = [*peer.stated]
    found = subprocess.run(
        [str(python(peer)), "-c", code, *names],
        capture_output=True,
        text=True,
        check=True,
    )
    known: dict[str, str] = json.loads(found.stdout)
    for name in peer.npm:
        manifest = npm(peer) / "node_modules" / name / "package.json"
        known[name] = json.loads(manifest.read_text())["version"]
    return known
