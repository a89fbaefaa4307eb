"""The door's addresses, as an application of its own to be mounted at ``/v1``: chat/completions, models, feedback, and
openapi.json, which describes these and nothing else.

While the studio is opening every one answers 503. Here requests meet the studio; the gate before it has let them in,
and the parts behind it know no HTTP.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Mount

from studio.door import answers, asking, sending
from studio.door.gate import Gate
from studio.door.keys import Keys
from studio.door.problems import (
    REFUSALS,
    ErrorBody,
    Problem,
    answer_failure,
    answer_http,
    answer_invalid,
    answer_problem,
    problem_of,
)
from studio.door.rates import Client, Rates
from studio.door.shapes import ChatRequest, FeedbackRequest, OneReply, TwoReplies
from studio.opening import Opening
from studio.settings import StudioSettings

if TYPE_CHECKING:
    from studio.build import Studio
    from studio.door.judging import Taken

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "Refused; `message` says why and `param` which field."},
    "5XX": {"model": ErrorBody, "description": "Not now, or the studio's own fault."},
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


def mount_door(app: FastAPI, settings: StudioSettings, opening: Opening, *, bound_host: str) -> None:
    """Put the door at ``/v1`` of `app`. `bound_host` is the address that the server listens on."""
    mount = Mount("/v1", app=door_app(settings, opening, bound_host=bound_host))
    # Starlette's own pattern stops at a line break, which a path may hold; such paths are the door's as well.
    mount.path_regex = re.compile(mount.path_regex.pattern, re.DOTALL)
    app.router.routes.append(mount)


def door_app(settings: StudioSettings, opening: Opening, *, bound_host: str) -> FastAPI:
    """The application behind `mount_door`."""
    rates = Rates()
    app = FastAPI(
        title="Thumbprint's HTTP door",
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            Problem: answer_problem,
            RequestValidationError: answer_invalid,
            HTTPException: answer_http,
            Exception: answer_failure,
        },
    )
    app.add_middleware(
        Gate,
        mode=settings.http_door,
        bound_host=bound_host,
        keys=Keys(settings.data_dir),
        rates=rates,
        requests_per_minute=settings.http_requests_per_minute,
        tokens_per_minute=settings.http_tokens_per_minute,
        max_body_bytes=settings.http_max_body_bytes,
    )
    routes = _Routes(opening, rates)
    bearer = HTTPBearer(
        auto_error=False, description="A key; on this machine, where none was made, none is needed."
    )
    shared: dict[str, Any] = {"responses": _ERRORS, "dependencies": [Security(bearer)]}
    app.get("/models", response_model=answers.ModelList, **shared)(routes.models)
    app.get("/models/{model}", response_model=answers.ModelCard, **shared)(routes.model)
    shared["dependencies"].append(Depends(_json_only))
    shared["responses"] = {200: {"content": _STREAM}, **_ERRORS}
    app.post("/chat/completions", response_model=answers.Completion, **shared)(routes.complete)
    shared["responses"] = _ERRORS
    app.post("/feedback", response_model=answers.FeedbackAnswer, **shared)(routes.feedback)
    return app


async def _client(request: Request) -> Client:
    client = request.state.client
    assert isinstance(client, Client), "the gate names the client of every request"
    return client


async def _json_only(request: Request) -> None:
    """A body must say that it is JSON: pages of other sites cannot say so without asking first."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            415,
            "not_json",
            f"The body is said to be {kind or 'of no type'!r}; send JSON, with the header "
            "`Content-Type: application/json`.",
        )


Asking = Annotated[Client, Depends(_client)]


class _Routes:
    """The handlers. What they are called and say here is what the OpenAPI page says."""

    def __init__(self, opening: Opening, rates: Rates) -> None:
        self._opening = opening
        self._rates = rates

    async def models(self) -> Response:
        """The base, every loaded adapter, and `thumbprint`, which is whatever is served."""
        return JSONResponse(answers.ModelList(data=self._cards()).model_dump())

    async def model(self, model: str) -> Response:
        """One of them."""
        for card in self._cards():
            if card.id == model:
                return JSONResponse(card.model_dump())
        raise Problem(
            404, "model_not_found", f"There is no model {model!r} here. See /v1/models.", param="model"
        )

    async def complete(self, body: ChatRequest, request: Request, client: Asking) -> Response:
        """A reply, or `n` of them, each with a receipt; as server-sent events with `stream`."""
        door = self._studio().door
        asked = asking.read(body, self._studio().settings)
        try:
            self._rates.check_tokens(client)
            answer = await run_in_threadpool(door.completions.start, asked, client=client.id)
        except REFUSALS as error:
            raise problem_of(error) from error
        self._rates.spend(client, answer.replies[0].stream.prompt_tokens)
        for reply in answer.replies:
            reply.stream.add_done_callback(lambda stream: self._rates.spend(client, stream.completion_tokens))

        def hang_up() -> None:
            door.completions.hang_up(answer)

        if not body.stream:
            return await sending.whole(answer, request, hang_up=hang_up)
        with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return sending.Streamed(answer, with_usage=with_usage, hang_up=hang_up)

    async def feedback(self, body: Annotated[FeedbackRequest, Body()], client: Asking) -> Response:
        """Judge a reply by its receipt, or compare two replies to the same messages by their receipts."""
        try:
            taken = await run_in_threadpool(self._judge, body, client)
        except REFUSALS as error:
            raise problem_of(error) from error
        judgements = [answers.TakenShape(**vars(one)) for one in taken]
        return JSONResponse(answers.FeedbackAnswer(judgements=judgements).model_dump())

    def _judge(self, body: OneReply | TwoReplies, client: Client) -> list[Taken]:
        door = self._studio().door
        rater = door.receipts.rater(client.id, body.rater or "")
        if isinstance(body, TwoReplies):
            pair = [door.receipts.read(text, client=client.id) for text in body.receipts]
            return [door.judging.compare(pair, body.comparison, rater=rater)]
        return door.judging.judge(door.receipts.read(body.receipt, client=client.id), body, rater=rater)

    def _cards(self) -> list[answers.ModelCard]:
        offered = self._studio().door.completions.models()
        return [
            answers.ModelCard(id=name, created=0, version=served.version, fingerprint=served.fingerprint)
            for name, served in offered.items()
        ]

    def _studio(self) -> Studio:
        studio = self._opening.studio
        if studio is not None:
            return studio
        if self._opening.problem:
            raise Problem(503, "not_open", f"The studio could not open: {self._opening.problem}")
        raise Problem(503, "opening", "The studio is still opening. Ask again in a moment.", retry_after=2)
