"""The HTTP door in front of a furnished studio, for tests: on a real server on 127.0.0.1, with real clients."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI
from furnished import furnish

from studio.door.keys import Keys
from studio.door.routes import mount_door
from studio.opening import opened
from studio.policy.scripted import ScriptedPolicy


class Doorway:
    """A running door: its studio, its address, and the clients that knock."""

    def __init__(self, studio, address: str) -> None:
        self.studio = studio
        self.address = address
        self.url = f"{address}/v1"
        self._clients = {}

    def client(self, key: str = "none"):
        """The official client. It does not try again by itself, so that tests see every answer."""
        from openai import OpenAI

        if key not in self._clients:
            self._clients[key] = OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=20)
        return self._clients[key]

    def close(self) -> None:
        """Close the official clients' connections."""
        for client in self._clients.values():
            client.close()

    def http(self, key: str | None = None, **headers: str) -> httpx.Client:
        """A bare client, which sends what it is told."""
        given = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=given | headers, timeout=20)

    def key(self, name: str, **limits: int) -> str:
        """A new key."""
        return Keys(self.studio.settings.data_dir).add(name, created_at=0.0, **limits)

    def ask(self, text: str = "What is tea?", *, key: str = "none", **more):
        """One whole reply to one message."""
        more = {"model": "thumbprint", "messages": [{"role": "user", "content": text}]} | more
        return self.client(key).chat.completions.create(**more)

    def tell(self, receipt: str | None = None, *, key: str | None = None, **said) -> httpx.Response:
        """Feedback."""
        body = said if receipt is None else {"receipt": receipt, **said}
        with self.http(key) as http:
            return http.post("/feedback", json=body)

    def turns(self) -> int:
        """How many replies the ledger holds."""
        return self.studio.ledger.counts().turns


@contextmanager
def door_at(folder, *, script=None, bound_host: str = "127.0.0.1", delay: float = 0.0, **settings):
    """A door whose studio's data are in `folder`. `script` is what the policy says instead of its usual replies."""
    with furnish(folder, delay=delay, **settings) as studio:
        if isinstance(studio.policy, ScriptedPolicy):
            studio.policy.context = studio.settings.context_tokens
        if script is not None:
            studio.policy.script = script
        app = FastAPI(openapi_url=None)
        mount_door(app, studio.settings, opened(studio), bound_host=bound_host)
        with served(app) as address:
            doorway = Doorway(studio, address)
            try:
                yield doorway
            finally:
                doorway.close()


@contextmanager
def served(app):
    """A server for `app` on a free port of 127.0.0.1; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def until(holds, *, seconds: float = 10.0):
    """Wait until `holds()` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)
    return found
