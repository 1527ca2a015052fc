"""A place for each peer's packages: a virtual environment, and npm's folder.

Peers do not agree on the versions of what they share, so each has its own. They are
made once, in a cache folder, and made anew when their requirements change.
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

#: Where to look for a Python that is new enough, the best first.
PYTHONS = ("python3.14", "python3.13", "python3.12")
_VERSION = "import json, sys; print(json.dumps(sys.version_info[:2]))"


class NotInstalled(Exception):
    """A peer cannot be installed here; the message says why."""


def cache() -> Path:
    """Return the folder of what the benchmark installs."""
    home = (
        os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "durable-jobs-bench"
    )
    return Path(home)


def python(peer: Peer) -> Path:
    """Return the Python that runs a peer, with all that it needs; install it first."""
    if not peer.requirements:
        return Path(sys.executable)
    place = _place(peer.name, [*peer.requirements, *peer.npm])
    done = place / "installed"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        _make(peer, place)
        done.touch()
    return place / "bin" / "python"


def npm(peer: Peer) -> Path:
    """Return the folder of a peer's npm packages, which ``python`` has installed."""
    return _place(peer.name, [*peer.requirements, *peer.npm]) / "npm"


def _place(name: str, requirements: list[str]) -> Path:
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    return cache() / f"{name}-{digest}"


def _make(peer: Peer, place: Path) -> None:
    print(f"Installing {peer.title} in {place}.", file=sys.stderr)
    _run([_base(peer), "-m", "venv", str(place)])
    _run([str(place / "bin" / "pip"), "install", "-q", *peer.requirements])
    if peer.npm:
        (place / "npm").mkdir()
        command = ["npm", "install", "--no-audit", "--no-fund", *peer.npm]
        _run([*command, "--prefix", str(place / "npm")])


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
    """Return Pythons on the path, and those that are installed beside this one."""
    found = [path for name in PYTHONS if (path := shutil.which(name))]
    beside = Path(sys.base_prefix).parent.glob("3.*/bin/python3")
    return [*found, *map(str, sorted(beside, reverse=True))]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotInstalled(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise NotInstalled((done.stderr or done.stdout).strip().splitlines()[-1])


def versions(peer: Peer) -> dict[str, str]:
    """Return the versions of what a peer is made of."""
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
