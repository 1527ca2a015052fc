"""The files for deployments can be parsed, and name what exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from dataclasses import fields
from pathlib import Path
from typing import Any

import django.conf.global_settings
import pytest
import yaml
from celery.app.defaults import DEFAULTS
from celery.bin.celery import celery
from click import Context
from django.test import Client
from django.urls import resolve

from durable_jobs import conf
from tests.docs.pages import DOCS, page
from tests.docs.test_links import parse

FILES = DOCS / "examples" / "deploy"
UNITS = sorted((FILES / "systemd").glob("*.service"))
TIMERS = sorted((FILES / "systemd").glob("*.timer"))
MANIFESTS = sorted((FILES / "kubernetes").glob("*.yaml"))
PAGES = [page(str(path)) for path in sorted((DOCS / "how-to" / "deploy").glob("*.md"))]

SETTINGS = page("docs/how-to/deploy/environment.md").blocks[0].text
READ = set(re.findall(r'os\.environ\.get\("(\w+)"', SETTINGS))
#: Variables that Celery, PostgreSQL's image and the platform read.
OTHERS = {"CELERY_SKIP_CHECKS"}
#: A step may take longer than this without losing its attempt at a restart.
SECONDS_OF_A_STEP = 60


def unit(path: Path) -> RawConfigParser:
    """Parse a systemd unit."""
    parser = RawConfigParser(strict=False)
    # The names of systemd keep their case.
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as documented
    parser.read_string(path.read_text())
    return parser


def documents() -> Iterator[dict[str, Any]]:
    """Yield the objects of the Kubernetes manifests."""
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def compose() -> dict[str, Any]:
    """Parse the Compose file."""
    found: dict[str, Any] = yaml.safe_load((FILES / "compose.yml").read_text())
    return found


def pod_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the pod that an object starts, if it starts one."""
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    pod: dict[str, Any] | None = spec.get("template", {}).get("spec")
    return pod


def pods() -> list[dict[str, Any]]:
    """Return all pods of the manifests."""
    return [pod for document in documents() if (pod := pod_of(document))]


def commands() -> Iterator[list[str]]:
    """Yield each command line of all files, as words."""
    for path in UNITS:
        line = unit(path)["Service"]["ExecStart"].replace("%%", "%")
        program, *rest = shlex.split(line)
        yield [Path(program).name, *rest]
    for line in (FILES / "Procfile").read_text().splitlines():
        yield shlex.split(line.partition(": ")[2])
    for service in compose()["services"].values():
        if "command" in service:
            yield shlex.split(service["command"])
    for pod in pods():
        for container in pod["containers"]:
            if "command" in container:
                yield container["command"]


@pytest.mark.parametrize("line", sorted({shlex.join(one) for one in commands()}))
def test_deploy_commands_are_accepted_by_their_programs(line: str) -> None:
    program, *arguments = words = shlex.split(line)
    if program == "celery":
        assert arguments[:2] == ["-A", "mysite"]
        kind = celery.commands[arguments[2]]
        kind.make_parser(Context(kind)).parse_args(arguments[3:])
    elif program == "python":
        assert arguments[0] == "manage.py"
        parse(arguments[1], arguments[2:])
    else:
        assert words[:2] == ["gunicorn", "mysite.wsgi"]


def test_deploy_files_start_each_kind_of_process() -> None:
    lines = [" ".join(words) for words in commands()]
    for kind in ("beat", "--queues tick", "--queues default,celery", "gunicorn"):
        assert any(kind in line for line in lines), kind


def test_deploy_settings_exist() -> None:
    names = re.findall(r"^([A-Z_]+) \+?= ", SETTINGS, re.MULTILINE)
    for name in names:
        if name.startswith("CELERY_"):
            assert name.removeprefix("CELERY_").lower() in DEFAULTS, name
        else:
            known = hasattr(django.conf.global_settings, name)
            assert known or name == "DURABLE_JOBS", name
    inside = SETTINGS.partition("DURABLE_JOBS = {")[2]
    known_fields = {field.name for field in fields(conf.Settings)}
    assert set(re.findall(r'^    "([A-Z_]+)":', inside, re.MULTILINE)) <= known_fields


def test_deploy_settings_have_all_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"INSTALLED_APPS": []}
    exec(SETTINGS, names)  # noqa: S102  # our own documentation
    assert {"socket_timeout", "socket_connect_timeout"} <= names[
        "CELERY_BROKER_TRANSPORT_OPTIONS"
    ].keys()
    assert "tcp_user_timeout" in names["DATABASES"]["default"]["OPTIONS"]


def variables() -> Iterator[tuple[str, set[str]]]:
    """Yield the variables that each way to deploy sets."""
    lines = (FILES / "mysite.env").read_text().splitlines()
    yield "mysite.env", {line.partition("=")[0] for line in lines}
    yield "compose.yml", set(compose()["x-app"]["environment"])
    kubernetes: set[str] = set()
    for document in documents():
        kubernetes |= set(document.get("data", ())) | set(
            document.get("stringData", ())
        )
    yield "kubernetes", kubernetes


@pytest.mark.parametrize(("name", "given"), list(variables()))
def test_deploy_files_set_the_variables_that_the_settings_read(
    name: str, given: set[str]
) -> None:
    assert READ - {"QUEUE_PREFIX"} <= given
    assert given <= READ | OTHERS


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_services_restart_and_stop_as_workers_need_it(path: Path) -> None:
    service = unit(path)["Service"]
    if service["Type"] == "oneshot":
        return
    assert service["Restart"] == "always"
    assert service["KillMode"] == "mixed"
    if "--queues default" in service["ExecStart"]:
        assert int(service["TimeoutStopSec"]) > SECONDS_OF_A_STEP


@pytest.mark.parametrize("path", [*UNITS, *TIMERS], ids=lambda path: path.name)
def test_systemd_verifies_the_units(path: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for one in [*UNITS, *TIMERS]:
        # The programs are not on this machine: an existing program replaces them.
        text = re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", one.read_text())
        (tmp_path / one.name).write_text(text)
    found = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / path.name)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in found.stderr.splitlines() if "mysite" in line]
    assert not ours, found.stderr


def test_compose_services_depend_on_existing_services() -> None:
    services = compose()["services"]
    for service in services.values():
        for name, condition in service.get("depends_on", {}).items():
            assert name in services
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
    worker = services["worker"]
    assert worker["stop_grace_period"] == "5m"
    assert worker["restart"] == "unless-stopped"


def test_kubernetes_objects_fit_each_other() -> None:
    every = list(documents())
    names = {(one["kind"], one["metadata"]["name"]) for one in every}
    assert len(names) == len(every)
    for document in every:
        if document["kind"] == "Deployment":
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"] == labels
        if document["kind"] == "Service":
            assert document["spec"]["selector"]["app"] in {
                one["metadata"]["name"] for one in every if one["kind"] == "Deployment"
            }
    for pod in pods():
        for container in pod["containers"]:
            for source in container["envFrom"]:
                ((kind, reference),) = source.items()
                kind = kind.removesuffix("Ref")
                kind = kind[0].upper() + kind[1:]
                assert (kind, reference["name"]) in names


def test_kubernetes_restarts_workers_and_waits_for_their_steps() -> None:
    deployments = [one for one in documents() if one["kind"] == "Deployment"]
    for document in deployments:
        pod = document["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Always"
        if document["metadata"]["name"] == "mysite-worker":
            assert pod["terminationGracePeriodSeconds"] > SECONDS_OF_A_STEP
            assert "livenessProbe" not in pod["containers"][0]


def test_deploy_probes_have_addresses_that_exist() -> None:
    paths = [
        probe["httpGet"]["path"]
        for pod in pods()
        for container in pod["containers"]
        for kind, probe in container.items()
        if kind.endswith("Probe")
    ]
    check = compose()["services"]["web"]["healthcheck"]["test"][-1]
    paths += re.findall(r"http://[^/]+(/[^\"]+)", check)
    assert len(paths) == 3
    for path in paths:
        assert resolve(path).url_name == "health"


def test_kubernetes_probe_names_a_host_that_django_allows(settings: Any) -> None:
    web = next(pod for pod in pods() if pod["containers"][0]["name"] == "web")
    probe = web["containers"][0]["livenessProbe"]["httpGet"]
    (header,) = probe["httpHeaders"]
    config = next(one for one in documents() if one["kind"] == "ConfigMap")
    settings.ALLOWED_HOSTS = config["data"]["ALLOWED_HOSTS"].split(",")
    # This test has no database: the probe must not ask one.
    named = Client().get(probe["path"], headers={header["name"]: header["value"]})
    assert named.status_code == 200
    unnamed = Client().get(probe["path"], headers={"Host": "10.0.0.7"})
    assert unnamed.status_code == 400


def test_deploy_files_are_shown_unchanged_on_the_pages() -> None:
    shown = {block.text for one in PAGES for block in one.blocks}
    for path in FILES.rglob("*"):
        if path.is_file():
            assert path.read_text() in shown, path
