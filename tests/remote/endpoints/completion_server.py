"""A completion endpoint for one model, on a real socket: plain forwards, in the forms of others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn

from baco_integrations import ModelPair
from baco_integrations.core.routing import Source


@dataclass
class CompletionServer:
    """Goes on with token ids, greedily, and tells the most probable tokens of each position.

    Attributes:
        model: The model.
        spell: Gives the text of a token.
        end: Ids that end a text.
        form: How tokens are named: by ``ids`` or ``text`` as vLLM does, or as llama.cpp's
            ``content``.
        most: Most tokens that are told of a position.
        asked: The bodies that came.
        before: Called with each body before it is answered; may be replaced.
        logprobs: Whether any are told.
    """

    model: Any
    spell: Callable[[int], str]
    end: frozenset[int]
    form: str = "ids"
    most: int = 10_000
    name: str = "model"
    logprobs: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[dict[str, Any]], Any] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        data, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            data, more = data + event.get("body", b""), event.get("more_body", False)
        status, answer = await self.answer(scope["path"], json.loads(data or b"{}"))
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": self.name, "owned_by": "test"}]}
        if path != "/v1/completions" or body["model"] != self.name:
            return 404, {"error": {"message": f"no {path}"}}
        self.asked.append(body)
        if self.before is not None and (changed := await self.before(body)) is not None:
            return changed
        if body["logprobs"] > self.most:
            return 400, {"error": {"message": f"at most {self.most} logprobs"}}
        positions = self.go_on(body["prompt"], body["max_tokens"])
        told = self.told(positions, body) if self.logprobs else None
        text = "".join(self.spell(token) for token, _ in positions)
        return 200, {"choices": [{"index": 0, "text": text, "logprobs": told}]}

    @torch.inference_mode()
    def go_on(self, prompt: list[int], count: int) -> list[tuple[int, torch.Tensor]]:
        ids, positions = list(prompt), []
        for _ in range(count):
            logits = self.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            token = int(logits.argmax())
            positions.append((token, logits.log_softmax(-1)))
            ids.append(token)
            if token in self.end:
                break
        return positions

    def told(self, positions: list[tuple[int, torch.Tensor]], body: dict[str, Any]) -> Any:
        by_id = self.form == "ids" and body.get("return_tokens_as_token_ids")

        def name(token: int) -> str:
            return f"token_id:{token}" if by_id else self.spell(token)

        tops = []
        for _, logprobs in positions:
            top = logprobs.topk(min(body["logprobs"], len(logprobs)))
            pairs = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
            tops.append([(i, max(value, -9999.0)) for i, value in pairs])
        if self.form == "content":
            return {
                "content": [
                    {"id": token, "top_logprobs": [{"id": i, "logprob": p} for i, p in top]}
                    for (token, _), top in zip(positions, tops, strict=True)
                ]
            }
        return {
            "tokens": [name(token) for token, _ in positions],
            "token_logprobs": [top[0][1] for top in tops],
            "top_logprobs": [{name(i): p for i, p in top} for top in tops],
        }


class ThreadServer(uvicorn.Server):
    """A server whose thread says when it listens."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws="none")
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Run an ASGI app until the block ends; give its URL."""
    server = ThreadServer(app)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listening.wait(30)
        yield server.url
    finally:
        server.should_exit = server.force_exit = True
        thread.join(30)
        assert not thread.is_alive()


def server_of(pair: ModelPair, side: Source, **more: Any) -> CompletionServer:
    """A server for one side of a pair."""
    tokenizer = getattr(pair, f"{side}_tokenizer")
    data = pair.vocabulary.token_bytes

    def spell(token: int) -> str:
        if token >= len(data):
            return f"<pad{token}>"
        named = tokenizer.convert_ids_to_tokens(token) or f"<no{token}>"
        return data[token].decode("utf-8", "replace") if data[token] else named

    end = pair.base_eos if side == "base" else pair.aligned_eos
    return CompletionServer(getattr(pair, side), spell, end, name=side, **more)


def run_tiny(side: Source) -> None:
    """Serve a side of the embedded pair for ever, and print where; for processes of their own."""
    with listening(server_of(ModelPair.tiny(), side)) as url:
        print(url, flush=True)
        threading.Event().wait()
