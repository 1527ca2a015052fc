"""``python -m bench [peer …] [--workload W1 …]``: compare peers by workload."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from bench import environments, peers, sizes
from bench.adapters import Peer
from bench.race import Results, race
from bench.report import tables
from bench.server import Server
from bench.workloads import NAMES, Workload, workload

#: The markers around the tables in a Markdown file.
BEGIN, END = "<!-- race -->", "<!-- end of race -->"


def main(arguments: list[str]) -> int:
    """Run the workloads. Return 0, 1 if any failed, or 2 if a variable is missing."""
    options = _options(arguments)
    if options.read:
        text = _read(options)
        print(text)
        _write(options, text)
        return 0
    for name in ("DATABASE_URL", "BROKER_URL"):
        if not os.environ.get(name):
            print(f"Set {name}, or run this module under python -m tests.services --.")
            return 2
    server = Server(os.environ["DATABASE_URL"])
    chosen, versions = _installed(options.peers)
    selected = _workloads(options.workload)
    about = _about(server, versions, options)
    print(json.dumps(about), flush=True)
    found = race(chosen, selected, server, sizes.from_options(options), options.repeat)
    text = _heading(about) + "\n\n" + tables(found, chosen, selected) + "\n"
    print("\n" + text)
    _write(options, text)
    return 1 if found.troubles else 0


def _write(options: argparse.Namespace, text: str) -> None:
    """Write the tables to the files that the command line names."""
    if options.table:
        Path(options.table).write_text(text)
    if options.page:
        page = Path(options.page)
        before, begin, rest = page.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"Expected {BEGIN} followed by {END} in {page}.")
        page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def _read(options: argparse.Namespace) -> str:
    """Return the tables for the JSON lines of earlier runs."""
    lines = [
        json.loads(line)
        for name in options.read
        for line in Path(name).read_text().splitlines()
        if line.startswith("{")
    ]
    found = Results()
    for line in lines:
        if "peer" in line:
            found.keep(line.pop("peer"), line.pop("workload"), line)
    chosen = [peers.peer(name) for name in options.peers or peers.NAMES]
    about = next(line for line in lines if "versions" in line)
    return (
        _heading(about) + "\n\n" + tables(found, chosen, _workloads(options.workload))
    )


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="peer", help=", ".join(peers.NAMES))
    parser.add_argument(
        "--workload", action="append", metavar="W", help="W1 to W13; may be repeated"
    )
    parser.add_argument("--repeat", type=int, default=3, help="repetitions")
    parser.add_argument(
        "--table", metavar="FILE", help="write the tables to this file too"
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        help=f"write the tables between {BEGIN} and {END} in this file",
    )
    parser.add_argument(
        "--read",
        action="append",
        metavar="FILE",
        help="measure nothing; use the JSON lines of this file",
    )
    sizes.add_options(parser)
    options = parser.parse_args(arguments)
    for name in options.peers:
        if name not in peers.NAMES:
            parser.error(
                f"unknown peer {name!r}; expected one of {', '.join(peers.NAMES)}"
            )
    return options


def _installed(names: list[str]) -> tuple[list[Peer], dict[str, dict[str, str]]]:
    """Return the peers that can be installed, and the versions of their packages."""
    found, versions = [], {}
    for name in names or peers.NAMES:
        one = peers.peer(name)
        try:
            versions[name] = environments.versions(one)
        except environments.NotInstalled as error:
            print(f"Skipped {one.title}: {error}.", file=sys.stderr)
            continue
        found.append(one)
    return found, versions


def _workloads(names: list[str] | None) -> list[Workload]:
    every = [workload(name) for name in NAMES]
    if not names:
        return every
    wanted = {name.upper() for name in names}
    return [one for one in every if wanted & set(one.names)]


def _about(
    server: Server, versions: dict[str, dict[str, str]], options: argparse.Namespace
) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": _processor(),
        "cores": os.cpu_count(),
        **server.settings(),
        "repeat": options.repeat,
        "versions": versions,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _heading(about: dict[str, object]) -> str:
    versions = about["versions"]
    assert isinstance(versions, dict)
    plain = ", ".join(
        f"{name} {value}" for name, value in about.items() if name != "versions"
    )
    packages = {
        f"{package} {version}"
        for own in versions.values()
        for package, version in own.items()
    }
    return f"{plain}\n\n{', '.join(sorted(packages))}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
