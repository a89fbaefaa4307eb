"""A stand-in for a vLLM server, for the faults that a real one will not show on request.

It answers as vLLM 0.32 does, in the shapes, statuses and words that were read off a real server, and refuses what
that refuses. What a model computes is given: four numbers for the canaries, and one sentence for a reply.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from training.fingerprint import CANARIES
from training.prompt import encode_text


class StandIn:
    """A server on 127.0.0.1, serving `root` with `base_numbers`.

    `numbers` and `sentences` are by adapter folder name; ``"base"`` is the base, and the adapter of zeros is taken for
    it unless `null_numbers` say otherwise. `gate` holds replies back before
    every token while it is clear, and `pauses_after` so many tokens clears it; `dies_after` breaks the connection
    after so many; `load_error` is a status and a text.
    """

    def __init__(
        self, tokenizer: Any, root: str, *, context: int = 256, key: str = "", lora_updating: bool = True
    ) -> None:
        self.tokenizer = tokenizer
        self.root = root
        self.context = context
        self.key = key
        self.numbers: dict[str, list[float]] = {"base": [-10.0, -20.0, -5.0, -30.0]}
        self.sentences: dict[str, str] = {"base": "I am the base, and I speak for a while."}
        self.null_numbers: list[float] | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.pauses_after: int | None = None
        self.dies_after: int | None = None
        self.load_error: tuple[int, str] | None = None
        self.lora_updating = lora_updating
        self.sends_ids = True
        self.adapters: dict[str, str] = {}
        self.names_seen: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.running = 0
        self.aborted = 0
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def versions(self) -> list[str]:
        """The versions that are loaded, in the order of loading."""
        return [name for path in self.adapters.values() if not (name := Path(path).name).startswith(".null-")]

    def up(self) -> StandIn:
        """Listen; the second time on the same port, with nothing loaded, as after a restart."""
        self.adapters.clear()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        server = self._server = uvicorn.Server(
            uvicorn.Config(self._app(), log_level="critical", lifespan="off")
        )
        self._thread = threading.Thread(target=_serve, args=(server, listening), daemon=True)
        self._thread.start()
        while not server.started:
            threading.Event().wait(0.002)
        return self

    def down(self) -> None:
        """Go away as a killed process does: every connection is reset."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.force_exit = server.should_exit = True
        self._thread.join()
        self.running = 0

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.get("/health")(lambda: Response())
        app.get("/v1/models")(self._models)
        app.post("/tokenize")(self._tokenize)
        app.post("/v1/completions")(self._completions)
        if self.lora_updating:
            app.post("/v1/load_lora_adapter")(self._load)
            app.post("/v1/unload_lora_adapter")(self._unload)

        @app.middleware("http")
        async def authorize(request: Request, call_next: Any) -> Any:
            given = request.headers.get("authorization")
            if self.key and request.url.path.startswith("/v1") and given != f"Bearer {self.key}":
                return JSONResponse({"error": "Unauthorized"}, status_code=401)
            return await call_next(request)

        return app

    def _models(self) -> Any:
        base = {"id": "served", "object": "model", "root": self.root, "parent": None}
        cards = [
            {"id": name, "object": "model", "root": path, "parent": "served", "max_model_len": None}
            for name, path in self.adapters.items()
        ]
        return {"object": "list", "data": [{**base, "max_model_len": self.context}, *cards]}

    async def _tokenize(self, request: Request) -> Any:
        text = (await request.json())["prompt"]
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return {"count": len(tokens), "max_model_len": self.context, "tokens": tokens, "token_strs": None}

    async def _load(self, request: Request) -> Any:
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if self.load_error is not None:
            return _error(*self.load_error)
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not self._is_null(path) and Path(path).name not in self.numbers:
            return _error(404, f"Loading lora {name} failed: No adapter found for <path>")
        self.adapters[name] = path
        self.names_seen.append(name)
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: Request) -> Any:
        name = (await request.json())["lora_name"]
        if name not in self.adapters:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")

    async def _completions(self, request: Request) -> Any:
        body = await request.json()
        ids, model = body["prompt"], body["model"]
        if model != "served" and model not in self.adapters:
            return _error(404, f"The model `{model}` does not exist. Valid aliases: <path>")
        if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
            return _error(400, "This stand-in wants token ids.")
        if len(ids) + body["max_tokens"] > self.context:
            return _error(400, f"This model's maximum context length is {self.context} tokens.")
        path = self.adapters.get(model, "base")
        which = "base" if self._is_null(path) else Path(path).name
        if body.get("allowed_token_ids") is not None:
            null = self.null_numbers if self._is_null(path) else None
            return self._logprob(ids, body["allowed_token_ids"], null or self.numbers[which])
        self.asked.append(body)
        return StreamingResponse(self._speak(self.sentences[which], body), media_type="text/event-stream")

    def _is_null(self, path: str) -> bool:
        return (Path(path) / "adapter_config.json").is_file() and Path(path).name.startswith(".null-")

    def _logprob(self, ids: list[int], allowed: list[int], numbers: list[float]) -> Any:
        """One token of a canary: its number is spread evenly over its tokens."""
        for (prompt, continuation), number in zip(CANARIES, numbers, strict=True):
            after = encode_text(self.tokenizer, continuation)
            whole = encode_text(self.tokenizer, prompt) + after
            if whole[: len(ids) + 1] == ids + allowed and len(ids) >= len(whole) - len(after):
                logprobs = {"tokens": ["…"], "token_logprobs": [number / len(after)], "top_logprobs": [{}]}
                choice = {"index": 0, "text": "…", "finish_reason": "length", "token_ids": allowed}
                choices = [{**choice, "logprobs": logprobs}]
                return {"id": "cmpl-0", "object": "text_completion", "created": 0, "choices": choices}
        return _error(400, "These are not the ids of a canary.")

    async def _speak(self, sentence: str, body: dict[str, Any]) -> Any:
        self.running += 1
        try:
            ends = body["stop_token_ids"]
            tokens = [*encode_text(self.tokenizer, sentence), ends[0]][: body["max_tokens"]]
            for count, token in enumerate(tokens):
                if count == self.pauses_after:
                    self.gate.clear()
                while not self.gate.is_set():
                    await asyncio.sleep(0.002)
                if count == self.dies_after:
                    raise ConnectionResetError("the stand-in dies")
                finish = None if count < len(tokens) - 1 else "stop" if token in ends else "length"
                choice = {"index": 0, "text": "…", "finish_reason": finish, "token_ids": [token]}
                if not self.sends_ids:
                    choice["token_ids"] = None
                chunk = {"id": "cmpl-0", "object": "text_completion", "created": 0, "choices": [choice]}
                yield f"data: {json.dumps(chunk)}\n\n"
                await asyncio.sleep(0)
            yield "data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise
        finally:
            self.running -= 1


def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    async def until_told() -> None:
        await server.serve(sockets=[listening])
        for _ in range(3):  # connections that were being made have still to appear
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.01)

    asyncio.run(until_told())


def _error(status: int, message: str) -> JSONResponse:
    kind = "NotFoundError" if status == 404 else "BadRequestError"
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": None, "code": status}}, status_code=status
    )
