"""``manage.py durable_keys``: create, list and revoke keys of the HTTP API."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from durable_jobs import clock
from durable_jobs.control import api_keys
from durable_jobs.control.actor import Actor
from durable_jobs.control.scopes import SCOPES
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import DurableError
from durable_jobs.management.database_command import DatabaseCommand
from durable_jobs.models import ApiKey
from durable_jobs.store import db

_VIA = "manage.py durable_keys"
_FORMATS = ["text", "json"]


class Command(DatabaseCommand):
    """A command with actions."""

    help = "Create, list or revoke keys of the HTTP API."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions and their options."""
        actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
        create = actions.add_parser("create", help="create a key and print it once")
        create.add_argument("name", metavar="NAME", help="what the key is for")
        create.add_argument(
            "--owner",
            required=True,
            metavar="USERNAME",
            help="the user on whose behalf it acts",
        )
        create.add_argument(
            "--scope",
            action="append",
            required=True,
            choices=list(SCOPES),
            help="a permission of the key; repeat for several scopes",
        )
        create.add_argument(
            "--event",
            action="append",
            default=[],
            metavar="PREFIX",
            help="prefix of the events that it may send; repeat for several (all)",
        )
        create.add_argument(
            "--expires", metavar="DURATION", help="how long it is valid (forever)"
        )
        actions.add_parser("list", help="list the keys without their secrets")
        revoke = actions.add_parser("revoke", help="revoke a key")
        revoke.add_argument("key", metavar="ID", type=int, help="its id, as listed")
        revoke.add_argument("--reason", default="", help="the reason, for other users")
        for action in actions.choices.values():
            action.add_argument("--format", choices=_FORMATS, default="text")

    def handle(self, **options: Any) -> None:
        """Run the action."""
        try:
            {"create": self._create, "list": self._list, "revoke": self._revoke}[
                options["action"]
            ](options)
        except DurableError as error:
            raise CommandError(error.message) from None

    def _create(self, options: dict[str, Any]) -> None:
        expires = options["expires"]
        if expires is not None:
            expires = clock.now() + parse_duration(expires, what="option --expires")
        made = api_keys.create(
            Actor(_Operator(_user(options["owner"])), via=_VIA),
            options["name"],
            options["scope"],
            events=options["event"],
            expires_at=expires,
        )
        if options["format"] == "json":
            self._json({**_as_json(made.key), "text": made.text})
            return
        self.stdout.write(made.text)
        self.stderr.write("Save the key: it is not shown again.")

    def _list(self, options: dict[str, Any]) -> None:
        rows = list(db.rows(ApiKey).order_by("pk"))
        if options["format"] == "json":
            self._json([_as_json(key) for key in rows])
            return
        for key in rows:
            used = "never" if key.used_at is None else f"{key.used_at:%Y-%m-%d %H:%M}"
            until = "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d}"
            owner = api_keys.owner_of(key)
            state = api_keys.state(key, clock.now())
            self.stdout.write(
                f"{key.pk}  {key}  {state}  owner {owner or 'deleted'}  used {used}  "
                f"expires {until}  {' '.join(key.scopes)}  "
                f"events {' '.join(key.events) or 'all'}"
            )

    def _revoke(self, options: dict[str, Any]) -> None:
        key = db.rows(ApiKey).filter(pk=options["key"]).first()
        if key is None:
            raise CommandError(f"There is no key {options['key']}.")
        owner = api_keys.owner_of(key)
        done = api_keys.revoke(
            Actor(_Operator(owner), via=_VIA), key, options["reason"]
        )
        if options["format"] == "json":
            self._json({**_as_json(key), "changed": done})
        else:
            state = "is revoked" if done else "was revoked before"
            self.stdout.write(f"{key} {state}.")

    def _json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2))


class _Operator:
    """A user with every permission, since commands need none."""

    is_active = True

    def __init__(self, user: Any) -> None:
        self.pk = None if user is None else user.pk

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        """Allow everything."""
        return True


def _user(username: str) -> Any:
    users = get_user_model()
    try:
        return users._default_manager.get_by_natural_key(username)
    except users.DoesNotExist:
        raise CommandError(f"There is no user {username!r}.") from None


def _as_json(key: ApiKey) -> dict[str, Any]:
    times = ("created_at", "expires_at", "used_at", "revoked_at")
    return {
        "id": key.pk,
        **{name: getattr(key, name) for name in ("name", "prefix", "scopes", "events")},
        "owner": key.owner,
        "state": api_keys.state(key, clock.now()),
        **{
            name: None if (at := getattr(key, name)) is None else at.isoformat()
            for name in times
        },
    }
