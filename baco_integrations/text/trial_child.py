"""What the child process of `trial` runs: it compiles and tries each grammar that it is sent.

It is run as a script, so that the child imports nothing but the engine. Invariant: it ends with
the process that started it, even in the middle of a grammar, and takes no more than its share of
memory.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

STACK = 2 << 20
"""A quarter of what threads have: what fits here fits where it is compiled for good."""
MEMORY = 8 << 30
REHEARSED, SECONDS = 256, 0.5
"""So many bytes of a text are written on trial, or for so long, as some limits show only then."""
_CLOSING = frozenset(b'"]}')


class ByteTokenizer:
    """A vocabulary of all bytes; what compiling takes hardly depends on the vocabulary."""

    bos_token_id = None
    eos_token_id = 256
    special_token_ids: Sequence[int] = (256,)
    tokens: Sequence[bytes] = (*(bytes([byte]) for byte in range(256)), b"\xff<end>")

    def __call__(self, text: bytes) -> list[int]:
        """Return the bytes as tokens."""
        return list(text)


def answer(
    tokenizer: LLTokenizer, grammar: str, text: str | None, limits: dict[str, Any]
) -> tuple[str, bool]:
    """Say what the engine finds wrong with a grammar, and whether it admits a text."""
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**limits))
    if text is not None:
        return "", matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()
    draw, end = random.Random(0), time.monotonic() + SECONDS
    for _ in range(REHEARSED):
        mask = matcher.compute_bitmask()
        allowed = [byte for byte in range(256) if mask[byte >> 3] >> (byte & 7) & 1]
        if not allowed or time.monotonic() > end:
            break
        closing = [byte for byte in allowed if byte in _CLOSING]
        matcher.consume_token(draw.choice(closing if closing and draw.random() < 0.3 else allowed))
    return matcher.get_error(), False


def serve(lines: queue.SimpleQueue[bytes]) -> None:
    """Answer each line, for ever."""
    tokenizer = LLTokenizer(TokenizerWrapper(ByteTokenizer()), eos_token=256)
    print(flush=True)
    while True:
        try:
            found = answer(tokenizer, *json.loads(lines.get()))
        except BaseException as error:  # a panic is no Exception
            found = f"{type(error).__name__}: {error}", False
        print(json.dumps(found), flush=True)


def main() -> None:
    """Limit memory, and answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    if sys.platform != "win32":
        import resource

        os.nice(5)  # neighbours' decoding goes first
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (min(MEMORY, most) if most > 0 else MEMORY, most))
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.stack_size(STACK)
    threading.Thread(target=serve, args=(lines,), daemon=True).start()
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
