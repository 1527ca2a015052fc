"""Signature schemes, against vectors that providers publish or OpenSSL made."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.http.request import HttpHeaders

import durable_jobs
from durable_jobs import durable
from durable_jobs.definitions.signature_schemes import Delivery, Scheme, Unverified

verify = durable.verify

SLACKS_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2F"
    b"commands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id="
    b"398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


@dataclass(frozen=True)
class Vector:
    """A provider's delivery: scheme, secret, content and time."""

    scheme: Any
    secret: str
    body: bytes
    headers: dict[str, str]
    at: int = 0

    def __str__(self) -> str:
        return str(self.scheme.__name__)


def rfc_4231(secret: Any, **options: Any) -> Any:
    return verify.Hmac(secret, header="X-Signature", algorithm="sha512", **options)


VECTORS = [
    # GitHub's documentation, "Testing the webhook payload validation".
    Vector(
        verify.GitHub,
        "It's a Secret to Everybody",
        b"Hello, World!",
        {
            "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a"
            "37570b6d7586c22c46f4379c8b043e17"
        },
    ),
    # Slack's documentation, "Verifying requests from Slack".
    Vector(
        verify.Slack,
        "8f742231b10e8888abcd99yyyzzz85a5",
        SLACKS_BODY,
        {
            "X-Slack-Request-Timestamp": "1531420618",
            "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235"
            "a7b4a8d21a10bd27519666489c69b503",
        },
        1531420618,
    ),
    # The libraries of Standard Webhooks, and Svix's documentation.
    Vector(
        verify.StandardWebhooks,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        b'{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        1614265330,
    ),
    # printf '%s' '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test
    Vector(
        verify.Stripe,
        "whsec_test",
        b'{"id":"evt_1"}',
        {
            "Stripe-Signature": "t=1492774577,v1=7656fc2882a7ca0a651666b36bf2f2f2"
            "2ee204f54f608f227498a2419f2890b2,v0=00ff"
        },
        1492774577,
    ),
    # printf '%s' '{"id":820982911946154500}' | openssl dgst -sha256 -hmac hush -binary
    # | base64
    Vector(
        verify.Shopify,
        "hush",
        b'{"id":820982911946154500}',
        {"X-Shopify-Hmac-Sha256": "jTGzr08AJvcgtbIkUddSD0iSWB5b7q7u865iNwjRcKI="},
    ),
    # RFC 4231, test case 2.
    Vector(
        rfc_4231,
        "Jefe",
        b"what do ya want for nothing?",
        {
            "X-Signature": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd6"
            "10270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a"
            "38bce737"
        },
    ),
    Vector(verify.SharedSecret, "hush", b"{}", {"Authorization": "Bearer hush"}),
]  # fmt: skip
TIMED = [vector for vector in VECTORS if vector.at]
NAMES: Any = {"ids": str}


def check(vector: Vector, scheme: Scheme | None = None, **changes: Any) -> None:
    """Verify a vector, with some values changed."""
    at = vector.at + changes.get("late", 0)
    headers = {**vector.headers, **changes.get("headers", {})}
    meta = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
    (scheme or vector.scheme(vector.secret)).check(
        Delivery(
            changes.get("body", vector.body),
            HttpHeaders(meta),
            datetime.fromtimestamp(at, UTC) + timedelta(milliseconds=900),
        )
    )


@pytest.mark.parametrize("vector", VECTORS, **NAMES)
def test_signature_of_the_provider_is_accepted(vector: Vector) -> None:
    check(vector)


@pytest.mark.parametrize("vector", VECTORS[:-1], **NAMES)
def test_body_that_was_tampered_with_is_refused(vector: Vector) -> None:
    for body in (vector.body + b" ", vector.body[:-1], b""):
        with pytest.raises(Unverified, match="does not match"):
            check(vector, body=body)


@pytest.mark.parametrize("vector", VECTORS, **NAMES)
def test_wrong_secret_is_refused(vector: Vector) -> None:
    other = "whsec_" + base64.b64encode(b"another").decode()
    with pytest.raises(Unverified, match="does not match"):
        check(vector, vector.scheme(other))


@pytest.mark.parametrize("vector", VECTORS, **NAMES)
def test_both_secrets_count_during_a_rotation(vector: Vector) -> None:
    other = "whsec_" + base64.b64encode(b"another").decode()
    for secrets in ([other, vector.secret], (vector.secret, other)):
        check(vector, vector.scheme(secrets))
        check(vector, vector.scheme(lambda secrets=secrets: secrets))


@pytest.mark.parametrize("vector", VECTORS, **NAMES)
def test_secret_may_be_in_a_setting_that_is_read_late(
    vector: Vector, settings: Any
) -> None:
    scheme = vector.scheme(verify.Setting("THE_SECRET"))
    settings.THE_SECRET = vector.secret
    check(vector, scheme)
    del settings.THE_SECRET
    with pytest.raises(durable.ConfigurationError, match="THE_SECRET"):
        check(vector, scheme)


@pytest.mark.parametrize("vector", TIMED, **NAMES)
@pytest.mark.parametrize(("late", "right"), [(-301, 0), (-300, 1), (300, 1), (301, 0)])
def test_delivery_is_taken_five_minutes_to_either_side(
    vector: Vector, late: int, right: bool
) -> None:
    if right:
        check(vector, late=late)
        return
    with pytest.raises(Unverified, match="301 s away"):
        check(vector, late=late)


@pytest.mark.parametrize("vector", TIMED, **NAMES)
@pytest.mark.parametrize("stamp", ["", "x", "-1", "1e9", "1" * 13, "١٢٣"])
def test_invalid_timestamp_is_refused(vector: Vector, stamp: str) -> None:
    for name, value in vector.headers.items():
        if "timestamp" in name.lower():
            changed = {name: stamp}
        elif name == "Stripe-Signature":
            changed = {name: value.replace("t=1492774577", f"t={stamp}")}
        else:
            continue
        with pytest.raises(Unverified, match="no timestamp"):
            check(vector, headers=changed)


@pytest.mark.parametrize("vector", VECTORS, **NAMES)
@pytest.mark.parametrize(
    "value", ["", "v1,", "v0=", "sha256=", "sha256=zz", "Ä", "v1", "=", ",", "\ud800"]
)
def test_invalid_signature_is_refused(vector: Vector, value: str) -> None:
    name = next(
        name
        for name in vector.headers
        if "Signature" in name.title() or "Hmac" in name or name == "Authorization"
    )
    if name == "Stripe-Signature":
        value = f"t=1492774577,v1={value}"
    with pytest.raises(Unverified):
        check(vector, headers={name: value})


def test_svix_names_its_headers_otherwise() -> None:
    vector = VECTORS[2]
    headers = {f"svix{k.removeprefix('webhook')}": v for k, v in vector.headers.items()}
    check(
        Vector(vector.scheme, vector.secret, vector.body, headers, vector.at),
    )


def test_several_signatures_may_be_sent_and_one_must_be_right() -> None:
    standard, stripe = VECTORS[2], VECTORS[3]
    right = standard.headers["webhook-signature"]
    check(standard, headers={"webhook-signature": f"v1a,xx v1,AAAA {right}"})
    given = stripe.headers["Stripe-Signature"]
    check(stripe, headers={"Stripe-Signature": f"{given},v1=00ff"})
    two_times = {"Stripe-Signature": f"t=1,{given}"}
    with pytest.raises(Unverified, match="no timestamp"):
        check(stripe, headers=two_times)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_plain_hmac_with_a_time_and_an_id_is_accepted(
    algorithm: Any, encoding: Any
) -> None:
    scheme = verify.Hmac(
        "hush",
        header="X-Sign",
        algorithm=algorithm,
        encoding=encoding,
        prefix="a=",
        signed="{timestamp}|{id}|{body}",
        timestamp_header="X-Time",
        tolerance="10s",
        id_header="X-Id",
    )
    digest = hmac.new(b"hush", b"100|7|body", getattr(hashlib, algorithm)).digest()
    text = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    headers = {"X-Sign": f"a={text}", "X-Time": "100", "X-Id": "7"}
    vector = Vector(None, "", b"body", headers, 100)
    check(vector, scheme)
    check(vector, scheme, late=10)
    for changes in ({"late": 11}, {"headers": {"X-Id": "8"}}, {"body": b"bodY"}):
        with pytest.raises(Unverified):
            check(vector, scheme, **changes)


def test_secret_in_a_custom_header_is_accepted() -> None:
    scheme = verify.SharedSecret("hush", header="X-Token")
    check(Vector(None, "", b"", {"X-Token": "hush"}), scheme)
    for wrong in ("Bearer hush", "hus", "hushh", ""):
        with pytest.raises(Unverified):
            check(Vector(None, "", b"", {"X-Token": wrong}), scheme)


@pytest.mark.parametrize("secret", ["", [], [""], None, 7, b"hush", ["a", None]])
def test_invalid_secret_is_refused_and_not_shown(secret: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="Expected a secret"):
        verify.GitHub(secret)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "md5"},
        {"encoding": "base32"},
        {"header": "X Y"},
        {"header": None},
        {"timestamp_header": "X-Time"},
        {"signed": "{timestamp}.{body}"},
        {"signed": "no body"},
        {"signed": "{body}{nonce}"},
        {"tolerance": 0},
        {"tolerance": "soon"},
    ],
)
def test_scheme_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(durable.ConfigurationError):
        verify.Hmac("hush", **{"header": "X-Sign", **options})


def test_secrets_are_never_in_a_repr_or_a_message() -> None:
    for vector in VECTORS:
        for secret in (vector.secret, [vector.secret], lambda: "hush"):
            assert vector.secret not in repr(vector.scheme(secret))
            assert "hush" not in repr(vector.scheme(secret))
        hook = durable.Webhook("acme", verify=vector.scheme(vector.secret))
        assert vector.secret not in repr(hook)
    with pytest.raises(durable.ConfigurationError) as caught:
        verify.GitHub(["canary", 7])  # type: ignore[list-item]  # a wrong call
    assert "canary" not in str(caught.value)


def test_secrets_with_equal_values_are_equal() -> None:
    same = verify.GitHub
    assert same("a") == same("a")
    assert same("a") != same("b")
    assert same(["a", "b"]) != same(["ab"])
    assert same(verify.Setting("A")) == same(verify.Setting("A"))
    assert same(verify.Setting("A")) != same("A")


def test_digests_and_secrets_are_compared_only_in_constant_time() -> None:
    """In these modules ``==`` and ``in`` see no digest, no signature and no secret."""
    package = Path(durable_jobs.__file__).parent
    secret = {"secret", "secrets", "signature", "expected", "given", "digest", "key"}
    for path in (*package.glob("webhooks/*.py"), *package.glob("definitions/*.py")):
        if path.name not in {"schemes.py", "verify.py", "secrets.py"} | {
            one.name for one in package.glob("webhooks/*.py")
        }:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(
                isinstance(op, ast.Eq | ast.NotEq) for op in node.ops
            ):
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                assert not names & secret, f"{path.name}:{node.lineno}"
    assert (
        "compare_digest" in (package / "definitions/signature_schemes.py").read_text()
    )
