"""How often the worker waits for an accelerator: that bounds what an iteration takes on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.engines.local import paged_attention
from tests.engines.local.stand_in import DEVICE, Accelerator, decoder_on_device

LOCKSTEP, SPECULATIVE = 2, 3
"""Most waits in an iteration, however many rows there are and however far base drafts."""

PROMPTS = (
    "Tell me a short story.",
    "Write a story about a dog.",
    "Name a place to visit.",
    "Suggest a hobby.",
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"gamma": 0.5, "temperature": 1.5},
    {"gamma": 0.8, "temperature": 0.7, "top_k": 20},
    {"gamma": 0.3, "temperature": 1.3, "top_p": 0.9, "alternatives": 2},
    {"gamma": 0.6, "temperature": 0, "router": "h-punc"},
)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return ModelPair.tiny(dtype="float64")


@pytest.fixture(scope="module")
def lockstep(pair: ModelPair) -> Iterator[Decoder]:
    with Decoder(pair, lookahead="off") as decoder:
        yield decoder


def texts(decoder: Decoder, prompts: Sequence[str]) -> list[str]:
    params = [
        SamplingParams(seed=seed, max_tokens=16, **settings)
        for seed, settings in zip(range(len(prompts)), SETTINGS, strict=False)
    ]
    return [completion.text for (completion,) in decoder.generate_batch(prompts, params)]


def require_few_waits(lockstep: Decoder, lookahead: Any, prompts: Sequence[str]) -> None:
    """Require that no iteration has too many waits, and that the text is what the CPU says."""
    decoder, iterations = decoder_on_device(lockstep.pair, lookahead=lookahead)
    with decoder:
        said = texts(decoder, prompts)
    assert said == texts(lockstep, prompts)
    assert iterations and all(each.kernels and each.waits for each in iterations)
    worst = max((each.waits for each in iterations), key=len)
    lines = [f"{count} x {line}" for line, count in Counter(worst).most_common()]
    most = LOCKSTEP if lookahead == "off" else SPECULATIVE
    assert len(worst) <= most, "\n".join([f"{len(worst)} waits in one iteration:", *lines])


@pytest.mark.parametrize(
    ("lookahead", "rows"), [("off", 1), ("off", 4), (4, 1), (4, 4), (8, 4), ("auto", 4)]
)
def test_iterations_wait_seldom(lockstep: Decoder, lookahead: Any, rows: int) -> None:
    require_few_waits(lockstep, lookahead, PROMPTS[:rows])


@pytest.mark.parametrize("lookahead", ["off", 4])
def test_rows_of_other_lengths_add_no_waits(
    lockstep: Decoder, lookahead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paged_attention, "GROUP_COST", 0)  # else they would have to be far longer
    prompts = ["Please. " * 25 * row + prompt for row, prompt in enumerate(PROMPTS)]
    require_few_waits(lockstep, lookahead, prompts)


# -- the stand-in itself ---------------------------------------------------------------------------

Numbers = torch.Tensor

COSTS: dict[str, tuple[Callable[[Numbers], Any], int, int]] = {
    # What is done to 0, 1, 2 on the device: how often the host waits, and what is uploaded.
    "tolist": (lambda x: x.tolist(), 1, 0),
    "item": (lambda x: x[2].item(), 1, 0),
    "bool": (lambda x: bool(x.any()), 1, 0),
    "cpu": (lambda x: x.cpu(), 1, 0),
    "to the host": (lambda x: x.to("cpu", non_blocking=True), 1, 0),
    "copy to the host": (lambda x: torch.empty(3).copy_(x), 1, 0),
    "a list": (lambda x: torch.tensor([1.0, 2.0], device=DEVICE), 1, 1),
    "blocking": (lambda x: torch.ones(2).to(DEVICE), 1, 1),
    "blocking, pinned": (lambda x: torch.ones(2).pin_memory().to(DEVICE), 1, 1),
    "blocking, in place": (lambda x: x.copy_(torch.ones(3)), 1, 1),
    "a list as index": (lambda x: x[[0, 1]], 1, 1),
    "an index of the host": (lambda x: x[torch.tensor([0, 1])], 1, 0),
    "a mask": (lambda x: x[x > 0], 1, 0),
    "nonzero": (lambda x: x.nonzero(), 1, 0),
    "where": (lambda x: torch.where(x > 0), 1, 0),
    "non_blocking": (lambda x: torch.ones(2).to(DEVICE, non_blocking=True), 0, 1),
    "pinned": (lambda x: torch.ones(2).pin_memory().to(DEVICE, non_blocking=True), 0, 1),
    "made pinned": (lambda x: torch.ones(2, pin_memory=True).to(DEVICE, non_blocking=True), 0, 1),
    "non_blocking, in place": (lambda x: x.copy_(torch.ones(3), non_blocking=True), 0, 1),
    "made there": (lambda x: torch.zeros(2, device=DEVICE) + torch.arange(2, device=DEVICE), 0, 0),
    "an index": (lambda x: x[torch.zeros(2, dtype=torch.long, device=DEVICE)], 0, 0),
    "a slice": (lambda x: x[:2] + x[1:].to(torch.float64), 0, 0),
    "a number": (lambda x: x.masked_fill_(x > 0, 1).add_(torch.tensor(2.0)), 0, 0),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(("run", "waits", "uploads"), COSTS.values(), ids=COSTS)
def test_what_makes_the_host_wait(
    run: Callable[[Numbers], Any], waits: int, uploads: int, inference: bool
) -> None:
    with torch.inference_mode(inference), Accelerator() as accelerator:
        run(torch.arange(3.0, device=DEVICE))
    assert (len(accelerator.waits), accelerator.uploads) == (waits, uploads)


def test_devices_do_not_mix() -> None:
    with Accelerator(), pytest.raises(RuntimeError, match="of the host and of the accelerator"):
        torch.zeros(2, device=DEVICE) + torch.ones(2)
