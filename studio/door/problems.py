"""What the door cannot do, said in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.

Existing clients read the status and the code, people read the message. This module knows no studio: it turns the
errors of the parts below, and what pydantic and Starlette say, into answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from memory.database import StorageError
from studio.door.rates import RateExceeded
from studio.door.receipts import ReceiptRefused
from studio.policy.interface import Busy, PolicyClosed, PromptTooLong, UnknownVersion

RETRY_SECONDS = 2
"""What a client is told to wait when every row and the line behind them are full: a short reply's time."""


class ErrorDetail(BaseModel):
    """What went wrong. `param` names the field to mend, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class Problem(Exception):
    """A request that is answered with an error. `retry_after` is in seconds."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, retry_after))}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        detail = ErrorDetail(
            message=self.message, type=_type_of(self.status), param=self.param, code=self.code
        )
        return ErrorBody(error=detail).model_dump()

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


REFUSALS = (Busy, RateExceeded, UnknownVersion, PolicyClosed, StorageError, ValueError)
"""What the studio raises for requests that it cannot serve; `problem_of` says each in OpenAI's shape."""


def problem_of(error: Exception) -> Problem:
    """The problem that one of `REFUSALS` is to a client."""
    match error:
        case Busy():
            return Problem(429, "busy", str(error), retry_after=RETRY_SECONDS)
        case RateExceeded(retry_after=seconds):
            return Problem(429, "rate_limit_exceeded", str(error), retry_after=seconds)
        case ReceiptRefused():
            return Problem(403, "invalid_receipt", str(error), param="receipt")
        case UnknownVersion():
            return Problem(404, "model_not_found", _sentence(error), param="model")
        case PromptTooLong():
            return Problem(400, "context_length_exceeded", str(error), param="messages")
        case PolicyClosed():
            return Problem(503, "closing", str(error), retry_after=RETRY_SECONDS)
        case StorageError():
            sentence = error.strerror or str(error)
            return Problem(503, "storage", f"This cannot be saved now: {sentence}", retry_after=RETRY_SECONDS)
        case _:
            return Problem(400, "invalid_value", str(error))


async def answer_problem(_request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for `Problem`."""
    assert isinstance(error, Problem)
    return error.response()


async def answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for a body that does not have the shape asked for: 400, naming the field."""
    assert isinstance(error, RequestValidationError)
    return _invalid(error.errors()).response()


async def answer_http(_request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for what Starlette refuses: unknown paths and methods, unreadable bodies."""
    assert isinstance(error, HTTPException)
    codes = {404: "unknown_path", 405: "method_not_allowed"}
    problem = Problem(error.status_code, codes.get(error.status_code, "invalid_request"), str(error.detail))
    problem.headers |= dict(error.headers or {})
    return problem.response()


async def answer_failure(_request: Request, _error: Exception) -> JSONResponse:
    """FastAPI's handler for a fault of the studio's own; the server logs it with its traceback."""
    return Problem(500, "failed", "The studio failed at this request; its log says why.").response()


def _invalid(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Of several errors, as every alternative of a field gives one, the one that lies deepest says most."""
    worst = max(errors, key=lambda found: len(found["loc"]))
    if worst["type"] == "json_invalid":
        return Problem(400, "invalid_json", f"The body is not JSON (at character {worst['loc'][-1]}).")
    param = ".".join(str(part) for part in worst["loc"][1:] if _is_written_by_client(part)) or None
    said = str(worst["msg"]).removeprefix("Value error, ")
    code = "unsupported_value" if worst["type"] == "value_error" else "invalid_value"
    return Problem(400, code, f"{param}: {said}" if param else said, param=param)


def _is_written_by_client(part: object) -> bool:
    """A step of a location that stands in the request; pydantic also names the alternative of a union it tried."""
    return isinstance(part, int) or (isinstance(part, str) and part.isidentifier() and part not in ("str",))


def _type_of(status: int) -> str:
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )


def _sentence(error: LookupError) -> str:
    return str(error.args[0]) if error.args else str(error)
