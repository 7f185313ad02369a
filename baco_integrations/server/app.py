"""The application: endpoints of OpenAI's API, health, metrics, and pages to look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from .. import __version__
from ..api.errors import ApiError, ErrorAnswer, error_answer, status_of
from ..api.requests import ChatBody, CompletionBody, GenerationBody, TokenizeBody
from ..api.responses import ChatCompletion, Served, ServedList, TextCompletion
from ..core.errors import (
    BacoError,
    DeadlineError,
    DecoderClosedError,
    ParameterError,
    PromptError,
    QueueFullError,
)
from ..core.params import SamplingParams
from ..core.settings import stated
from .answers import ask, served_pair, whole_chat, whole_text
from .gate import Gate, error_headers
from .logs import LOGGER
from .metrics import ServerMetrics
from .pages import add_pages
from .pairs import ServedPair, ServedPairs
from .settings import ServerSettings
from .streams import stream_chat, stream_text
from .tokens import Tokens, tokenize

_ABOUT = """\
Chat and completions as OpenAI has them, decoded by a base and an aligned model together. Every
setting of decoding may stand in a body beside OpenAI's own fields; for clients that can send no
other field, in the model's id: `NAME@gamma=0.7`. Fields that are not known are tolerated, and
listed in the header `X-BACo-Ignored`.
"""
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "The request is not allowed; `param` names what is to blame.",
        401: "No valid key.",
        403: "The host that was asked for is not this one.",
        404: "There is no such model.",
        408: "The body came too slowly.",
        413: "The body is too long.",
        415: "The body is not JSON.",
        429: "The queue is full; `Retry-After` says when to come again.",
        500: "The server failed.",
        503: "The server is about to end, or the pair cannot be loaded.",
        504: "The request took too long.",
    }.items()
}
EXPECTED = (ApiError, DeadlineError, DecoderClosedError)
"""Errors of requests that need no trace in the log."""
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, as server-sent events of chunks.",
        "content": {"text/event-stream": {}},
    }
}
_SECURE = [Depends(HTTPBearer(auto_error=False))]


def create_app(pairs: ServedPairs, settings: ServerSettings | None = None) -> FastAPI:
    """Return the application that serves pairs.

    It closes their decoders when it ends.

    Args:
        pairs: The pairs.
        settings: How callers are let in and limited.
    """
    settings = settings or ServerSettings()
    pairs.max_prompt_tokens = settings.max_prompt_tokens

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await asyncio.to_thread(pairs.close)

    app = FastAPI(
        title="BACo",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=_ERRORS,
    )
    metrics = ServerMetrics(pairs)
    app.state.pairs, app.state.settings, app.state.metrics = pairs, settings, metrics
    app.state.draining = False
    app.state.counting = asyncio.Lock()  # long texts, one at a time, leave threads to others
    add_answers(app)
    add_facts(app)
    add_pages(app)
    for kind in (BacoError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.allow_origins:  # outermost, so that pages can read what the gate refuses
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients in a browser send headers of their own
            expose_headers=["x-request-id", "x-baco-ignored"],
        )
    return app


def add_answers(app: FastAPI) -> None:
    """Add the endpoints that decode."""

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=_STREAMED,
        dependencies=_SECURE,
    )
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        """Answer a conversation."""
        asked = await ask(request, body, [body.conversation()])
        if body.stream:
            return marked(await stream_chat(request, asked, body), body)
        whole = await whole_chat(request, asked)  # written in a thread: it may be long
        return marked(await asyncio.to_thread(json_response, whole), body)

    @app.post(
        "/v1/completions",
        response_model=TextCompletion,
        responses=_STREAMED,
        dependencies=_SECURE,
    )
    async def completions(request: Request, body: CompletionBody) -> Response:
        """Go on with texts, which both models read as they stand."""
        asked = await ask(request, body, body.prompts())
        if body.stream:
            return marked(await stream_text(request, asked, body), body)
        whole = await whole_text(request, asked, bool(body.echo))
        return marked(await asyncio.to_thread(json_response, whole), body)


def add_facts(app: FastAPI) -> None:
    """Add the endpoints that tell of the pairs and of the server."""

    @app.get("/v1/models", response_model=ServedList, dependencies=_SECURE)
    async def models(request: Request) -> Response:
        """List the pairs that are served."""
        pairs = request.app.state.pairs
        served = [served_data(each, pairs.defaults) for each in pairs]
        return json_response({"object": "list", "data": served})

    @app.get("/v1/models/{model:path}", response_model=Served, dependencies=_SECURE)
    async def model(request: Request, model: str) -> Response:
        """Tell of one pair."""
        pairs = request.app.state.pairs
        return json_response(served_data(served_pair(pairs, model)[0], pairs.defaults))

    @app.post("/v1/baco/tokenize", response_model=Tokens, dependencies=_SECURE)
    async def tokens(request: Request, body: TokenizeBody) -> Response:
        """Count the tokens of a text or a conversation."""
        pairs: ServedPairs = request.app.state.pairs
        decoder = await pairs.decoder(served_pair(pairs, body.model)[0])
        async with request.app.state.counting:
            return json_response(await asyncio.to_thread(tokenize, decoder, body))

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=dict[str, str])
    async def health(request: Request) -> Response:
        """Tell whether the server takes requests."""
        draining = request.app.state.draining
        answer = {"status": "draining" if draining else "ok", "version": __version__}
        return json_response(answer, 503 if draining else 200)

    @app.get("/metrics", response_class=PlainTextResponse, dependencies=_SECURE)
    async def metrics(request: Request) -> Response:
        """Tell Prometheus what has been done."""
        text = request.app.state.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def json_response(
    data: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return data as JSON."""
    return Response(to_json(data), status, dict(headers or {}), media_type="application/json")


def marked(response: Response, body: GenerationBody) -> Response:
    """Name the fields of a body that have no meaning here in a header of the response."""
    if body.ignored:
        # Names come from outside: escaped as ASCII, and without spaces at their ends, no
        # header can be broken by them.
        short = [name[:40].strip(" ") for name in body.ignored[:20]]
        names = ", ".join(ascii(name)[1:-1] for name in short if name)
        response.headers["x-baco-ignored"] = names
    return response


def served_data(served: ServedPair, defaults: Mapping[str, Any]) -> Served:
    """Return what is told of a pair."""
    base, aligned = served.models
    decoder = served.decoder
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "baco",
        "baco": {
            "loaded": decoder is not None,
            "base": base,
            "aligned": aligned,
            "context": None if decoder is None else list(decoder.pair.context),
            "defaults": dict(defaults),
        },
    }


async def handle(request: Request, error: Exception) -> Response:
    """Answer with an error object."""
    told = api_error(error)
    if isinstance(told, PromptError) and request.url.path.endswith("/v1/completions"):
        named = told.parameter.replace("messages", "prompt", 1)
        told = PromptError(named, told.allowed, told.received, told.remedy)
    status, headers = status_of(told), dict(error_headers(told))
    if isinstance(error, QueueFullError):
        headers["retry-after"] = str(retry_after(request))
    noted = request.state.noted
    noted.facts["error"] = type(error).__name__
    if status >= 500 and not isinstance(error, EXPECTED):
        LOGGER.error("a request failed", exc_info=error, extra={"facts": {"id": noted.id}})
    return json_response(error_answer(told), status, headers)


def api_error(error: Exception) -> BaseException:
    """Return an error of the framework's as one of ours."""
    if isinstance(error, RequestValidationError):
        return invalid_field(error)
    if isinstance(error, HTTPException):
        codes = {404: "not_found", 405: "method_not_allowed"}
        return ApiError(error.status_code, codes.get(error.status_code, "refused"), error.detail)
    return error


def invalid_field(error: RequestValidationError) -> BaseException:
    """Return the first of pydantic's errors, in the words of the setting if it is one."""
    first = error.errors()[0]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, BacoError):
        return inner
    place = [str(part) for part in first["loc"] if part != "body"]
    setting = SamplingParams.model_fields.get(place[0]) if place else None
    if setting is not None:
        allowed, remedy = stated(setting, "allowed"), stated(setting, "remedy")
        return ParameterError(place[0], allowed, first.get("input"), remedy)
    if first["type"] == "json_invalid":
        return ApiError(400, "invalid_json", "The body is no JSON.")
    name = ".".join(place) or "body"
    return ApiError(400, "invalid_value", f"{name}: {first['msg']}.", name)


def retry_after(request: Request) -> int:
    """Return in how many seconds a caller should come again: about as long as others wait."""
    decoders = [each.decoder for each in request.app.state.pairs if each.decoder is not None]
    waited = max((decoder.metrics.mean_wait_s for decoder in decoders), default=1.0)
    return min(max(ceil(waited), 1), 60)
