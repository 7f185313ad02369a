"""What goes wrong without its remedy: each control breaks what the other tests show to hold."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from baco_integrations import Decoder
from baco_integrations.core.errors import WorkerError
from baco_integrations.engines.base import TokenOutput
from tests.engines.vllm.pairs import decode, gist, load, run

pytest.importorskip("vllm", reason="vLLM is not installed; CONTRIBUTING says how to run these")


def test_without_the_saved_owner_preemption_changes_answers(
    llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third step takes all rows their places, in the middle of words as well."""
    from baco_integrations.engines.vllm import rows
    from baco_integrations.engines.vllm.engine import VllmEngine

    kept, iterate, steps = rows.state_of, VllmEngine.iterate, count(1)

    def preempting(self: VllmEngine) -> None:
        if next(steps) % 3 == 0:
            self.llm.reset_prefix_cache(reset_running_requests=True)
        iterate(self)

    def forgetful(params: Any, decoded: list[int]) -> Any:
        params.__dict__.pop("baco_state", None)
        return kept(params, decoded)

    with Decoder(load(llama)) as decoder:
        expected = gist(decode(decoder, 32))
    monkeypatch.setattr(VllmEngine, "iterate", preempting)
    found = []
    for state_of in (kept, forgetful):
        monkeypatch.setattr(rows, "state_of", state_of)
        with Decoder(load(llama, max_num_batched_tokens=64), max_rows=24) as decoder:
            found.append(gist(decode(decoder, 32)))
    assert found[0] == expected
    assert found[1] != expected


def test_without_a_salt_of_their_own_requests_read_one_anothers_keys(
    llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from baco_integrations.engines.vllm import admission

    pair = load(llama, max_num_batched_tokens=512)
    shared = tuple(range(20, 120))
    prompts = [(tuple(range(start, start + 70)), shared) for start in (30, 130, 230)]
    expected = [sink.tokens for sink in run(load(llama), prompts)]
    assert [sink.tokens for sink in run(pair, prompts)] == expected

    class One:
        hex = "one"

    monkeypatch.setattr(admission, "uuid4", One)
    assert [sink.tokens for sink in run(pair, prompts)] != expected


def test_routing_behind_vllms_masks_breaks_them(
    llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor of logits sees what vLLM has masked of aligned, and nothing of base."""
    from baco_integrations.engines.vllm import admission, engine
    from baco_integrations.engines.vllm.model import BacoForCausalLM
    from baco_integrations.engines.vllm.rows import Rows

    allowed = list(range(20, 40))
    sampling_of = engine.sampling_of

    def masked(request: Any) -> Any:
        params = sampling_of(request)
        params.allowed_token_ids = allowed
        return params

    pair = load(llama, max_num_batched_tokens=512)
    prompts = [(tuple(range(30, 60)), tuple(range(20, 90)))]
    monkeypatch.setattr(engine, "sampling_of", masked)
    # Here such requests are refused.
    (refused,) = run(pair, prompts)
    assert isinstance(refused.error, WorkerError)
    assert "allowed_token_ids must be None with this model" in str(refused.error)

    of_base: list[Tensor] = []

    def compute_logits(self: Any, hidden: Tensor) -> Tensor:
        base, aligned = hidden.split(self.widths, -1)
        of_base[:] = [self.base.compute_logits(base.contiguous())]
        logits: Tensor = self.aligned.compute_logits(aligned.contiguous())
        return logits

    def apply(self: Rows, logits: Tensor) -> Tensor:
        return self.decide(of_base[0], logits)

    monkeypatch.setattr(admission, "REFUSED", {})
    monkeypatch.setattr(BacoForCausalLM, "compute_logits", compute_logits)
    monkeypatch.setattr(Rows, "apply", apply)
    monkeypatch.setattr(Rows, "is_argmax_invariant", lambda self: False)
    # The processor's reports come too late for vLLM's log-probabilities, so they are not read.
    monkeypatch.setattr(
        engine, "decode", lambda token, _: TokenOutput(token, 0, *(0.0,) * 5, switched=False)
    )
    (broken,) = run(pair, prompts)
    outside = [token for token, _ in broken.tokens if token not in allowed]
    assert 0 < len(outside) < len(broken.tokens)  # base's are outside, aligned's are not
