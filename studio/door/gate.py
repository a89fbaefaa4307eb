"""Who may come in, before anything of a request is read: which door is open, whose key it is, how much, how large.

On this machine, and as long as no key was ever made, whoever can reach the address may come in, except web pages of
other sites (their browser tells on them) and anything that came through a proxy or under another name (DNS rebinding).
Everywhere else, and from the first key on, a key is needed. A plain ASGI layer: it knows no route and no studio.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.door.keys import PREFIX, Keys
from studio.door.problems import Problem, problem_of
from studio.door.rates import Client, RateExceeded, Rates

OPEN_CLIENT = "loopback"
"""The id of everybody who comes in without a key. No key's id is like it."""
_NO_KEY = "Send a key as `Authorization: Bearer tp-...`. `python -m studio.door.keys add NAME` makes one."


class Gate:
    """Lets requests through to `app` with their `rates.Client` in ``scope["state"]["client"]``, or answers itself.

    `bound_host` is the address that the server listens on; the limits per minute are those of keys without their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        mode: Literal["off", "loopback", "on"],
        bound_host: str,
        keys: Keys,
        rates: Rates,
        requests_per_minute: int,
        tokens_per_minute: int,
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._mode = mode
        self._local = is_loopback(bound_host)
        self._keys = keys
        self._rates = rates
        self._limits = (requests_per_minute, tokens_per_minute)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            client = self._client_of(headers, peer=scope.get("client"))
            self._rates.count_request(client)
            body = await _read_body(receive, headers, limit=self._max_body_bytes)
        except RateExceeded as error:
            await problem_of(error).response()(scope, receive, send)
            return
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        await self._app(scope, _replaying(body, receive), send)

    def _client_of(self, headers: Headers, *, peer: tuple[str, int] | None) -> Client:
        if self._mode == "off" or (self._mode == "loopback" and not self._local):
            raise Problem(
                403,
                "door_closed",
                "The HTTP door is closed here. Beyond this machine it opens with --http-door on, and then needs keys.",
            )
        token = _token(headers)
        if self._mode == "on" or token.startswith(PREFIX) or self._keys.any():
            return self._by_key(token)
        _refuse_strangers(headers, peer=peer)
        return Client(OPEN_CLIENT)

    def _by_key(self, token: str) -> Client:
        if not token:
            raise Problem(401, "missing_api_key", f"This door needs a key. {_NO_KEY}")
        key = self._keys.find(token)
        if key is None:
            raise Problem(401, "invalid_api_key", f"This key is unknown or was revoked. {_NO_KEY}")
        own = (key.requests_per_minute, key.tokens_per_minute)
        requests, tokens = (
            usual if given is None else given for given, usual in zip(own, self._limits, strict=True)
        )
        return Client(key.id, requests, tokens)


def is_loopback(host: str) -> bool:
    """Is this a name or address under which only this machine is reached?"""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_strangers(headers: Mapping[str, str], *, peer: tuple[str, int] | None) -> None:
    """Raises `Problem` for whatever was not sent by a program on this machine, as far as can be told."""
    host, origin = headers.get("host", ""), headers.get("origin")
    own_page = headers.get("sec-fetch-site", "none") in ("none", "same-origin") and (
        origin is None or origin.lower().partition("://")[2] == host.lower()
    )
    through_proxy = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
    from_here = peer is not None and is_loopback(peer[0]) and is_loopback(_name_in(host))
    if not own_page or through_proxy or not from_here:
        raise Problem(
            403,
            "foreign_origin",
            "Without a key this door serves programs on this machine only, not pages of other sites, other names "
            f"or proxies. {_NO_KEY}",
        )


async def _read_body(receive: Receive, headers: Mapping[str, str], *, limit: int) -> bytes:
    """The whole body. Raises `Problem` as soon as it is known to be too large."""
    too_large = Problem(
        413,
        "body_too_large",
        f"The body is larger than {limit:,} bytes. Send less, or raise http_max_body_bytes.",
    )
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > limit:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body that was read already in front of it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _token(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _name_in(host: str) -> str:
    """The name in a Host header, without the port; empty where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
