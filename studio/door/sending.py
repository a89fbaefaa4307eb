"""Getting replies to a client while they are written, and noticing when it has gone.

Nothing here holds a thread while a reply is being written. A reply is reported as ended only once it stands in the
ledger, so that feedback for its receipt finds it. This module decides nothing about replies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from studio.door import answers
from studio.door.problems import Problem
from studio.exchange import WHOLE
from studio.policy.interface import Stream

if TYPE_CHECKING:
    from studio.door.completions import Answer, Reply

RECEIPT_HEADER = "X-Thumbprint-Receipt"
"""Of several replies the receipts follow each other, comma-separated, in the order of the choices."""
WRITTEN_WITHIN = 10.0
"""Seconds that an ended reply is waited for to be in the ledger. What takes longer is written later all the same."""


def headers(answer: Answer) -> dict[str, str]:
    """The headers of an answer; the versions and turns are known before the first word."""
    return {
        RECEIPT_HEADER: ", ".join(reply.signed for reply in answer.replies),
        "Cache-Control": "no-store",
        # Proxies of nginx's kind hold events back otherwise.
        "X-Accel-Buffering": "no",
    }


async def whole(answer: Answer, request: Request, *, hang_up: Callable[[], None]) -> Response:
    """The answer in one piece. Raises `Problem` when a reply broke off; ends the replies when the client goes away."""
    ended = asyncio.create_task(_all_ended(answer))
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return Response(status_code=499)
    finally:
        hang_up()
        gone.cancel()
        ended.cancel()
    for reply in answer.replies:
        problem = _problem_of(reply)
        if problem is not None:
            raise problem
    return JSONResponse(answers.completion(answer).model_dump(), headers=headers(answer))


class Streamed(StreamingResponse):
    """The answer as server-sent events. Whatever ends the response early ends the replies too."""

    def __init__(self, answer: Answer, *, with_usage: bool, hang_up: Callable[[], None]) -> None:
        self._hang_up = hang_up
        super().__init__(
            _events(answer, with_usage=with_usage), headers=headers(answer), media_type="text/event-stream"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hang_up()


async def _events(answer: Answer, *, with_usage: bool) -> AsyncIterator[str]:
    """OpenAI's events: for each choice its role, its pieces and its end; then the usage, if asked for; then DONE."""
    arrived: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()
    readers = [
        asyncio.create_task(_read(reply, index, arrived)) for index, reply in enumerate(answer.replies)
    ]
    try:
        for index in range(len(answer.replies)):
            yield _event(_piece(answer, index, answers.Delta(role="assistant", content="")))
        for _ in range(len(answer.replies)):
            while (said := await arrived.get())[1] is not None:
                yield _event(_piece(answer, said[0], answers.Delta(content=said[1])))
            problem = _problem_of(answer.replies[said[0]])
            yield _event(problem.body() if problem else _piece(answer, said[0], answers.Delta(), last=True))
        if with_usage:
            yield _event(
                answers.chunk(answer, None, used=answers.usage(answer.replies)).model_dump(
                    exclude={"thumbprint"}
                )
            )
        yield "data: [DONE]\n\n"
    finally:
        for reader in readers:
            reader.cancel()


async def _read(reply: Reply, index: int, arrived: asyncio.Queue[tuple[int, str | None]]) -> None:
    """Put the reply's pieces into the queue, and None once it has ended and is written down."""
    async for piece in reply.stream.pieces():
        arrived.put_nowait((index, piece))
    await _ended(reply)
    arrived.put_nowait((index, None))


async def _all_ended(answer: Answer) -> None:
    for reply in answer.replies:
        await _ended(reply)


async def _ended(reply: Reply) -> None:
    """Wait until the reply has ended and is in the ledger."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wake(_stream: Stream) -> None:
        loop.call_soon_threadsafe(ended.set)

    reply.stream.add_done_callback(wake)
    await ended.wait()
    if not reply.exchange.done:
        await run_in_threadpool(reply.exchange.wait, WRITTEN_WITHIN)


async def _gone(request: Request) -> None:
    """Wait until the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _problem_of(reply: Reply) -> Problem | None:
    """What went wrong with an ended reply; None when it ended by itself."""
    if reply.stream.finish in WHOLE:
        return None
    why = reply.stream.error or "The reply was stopped before its end."
    return Problem(500, "reply_broke_off", f"The reply broke off: {why}")


def _piece(answer: Answer, index: int, delta: answers.Delta, *, last: bool = False) -> dict[str, Any]:
    """The chunk that brings `delta` to one reply. Its first and its last one carry the receipt."""
    reply = answer.replies[index]
    proof = answers.receipt(reply) if last or delta.role else None
    finish = answers.finish_reason(reply) if last else None
    choice = answers.ChunkChoice(index=index, delta=delta, finish_reason=finish, thumbprint=proof)
    sent = answers.chunk(answer, choice).model_dump()
    # OpenAI leaves out of a delta what it does not bring.
    sent["choices"][0]["delta"] = delta.model_dump(exclude_none=True)
    if proof is None:
        del sent["thumbprint"], sent["choices"][0]["thumbprint"]
    return sent


def _event(body: dict[str, Any]) -> str:
    # ASCII only: some clients take a Unicode line separator for the end of the line.
    return f"data: {json.dumps(body)}\n\n"
