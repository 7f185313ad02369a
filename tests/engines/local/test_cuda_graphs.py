"""Forwards of fixed shape say what others say, and can be recorded.

A CUDA graph is stood in for by a tape: it keeps a forward's operations with the very tensors that
they read and wrote, so that a replay that depends on anything else goes wrong as a graph would.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.core.errors import ParameterError
from baco_integrations.engines.local import runner as sides
from baco_integrations.engines.local.cuda_graphs import Graphs, Shape, padded
from baco_integrations.engines.local.paged_attention import PAGE
from baco_integrations.engines.local.runner import ModelRunner
from tests.families import FAMILIES, make_model, make_pair_folder
from tests.lora import save_adapter
from tests.pairs import random_pair

VOCABULARY = 80
ROWS = 6
CASES = [
    (family, "eager" if family == "gemma2" else "sdpa")  # soft-capped scores have no sdpa
    for family in FAMILIES
]


class Tape(TorchDispatchMode):
    """Operations with fixed addresses, to run again; waiting for the device is refused."""

    ATEN = torch.ops.aten
    REFUSED = (ATEN.item, ATEN._local_scalar_dense, ATEN.nonzero)

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in self.REFUSED:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def wait(model: Any, args: Any, given: dict[str, Any]) -> None:
    """Look at a number on the device, which no recording allows."""
    assert given["position_ids"].max().item() >= 0


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Record on tapes wherever a CUDA graph would be recorded; return what was recorded."""
    recorded: list[Tape] = []

    def record(self: Graphs, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        with Tape() as tape:
            output = run()
        recorded.append(tape)

        def replay() -> Tensor:
            tape.replay()
            return output

        return replay

    monkeypatch.setattr(Graphs, "_record", record)
    return recorded


# -- one side --------------------------------------------------------------------------------------


Row = tuple[int, list[list[int]]]


class Twins:
    """A side with fixed shapes and one without, which are told the same, at random."""

    def __init__(self, model: Any, seed: int, limit: int = 400) -> None:
        sizes = {"max_rows": ROWS, "max_length": limit}
        self.plain = ModelRunner(model, **sizes, graphs="off")
        self.fixed = ModelRunner(model, **sizes, graphs="on")
        self.draw = random.Random(seed)
        # Of each row: how much it has seen, and its pages on both sides.
        self.running: list[Row] = []
        self.reading: list[Row] = []
        self.kept: list[Row] = []
        self.limit = limit

    def both(self, name: str, rows: list[Row], *args: Any) -> list[Any]:
        """Call a side's method with its own pages of some rows."""
        return [
            getattr(side, name)([row[1][place] for row in rows], *args)
            for place, side in enumerate((self.plain, self.fixed))
        ]

    def share(self, row: Row | None, length: int) -> Row:
        sides = enumerate((self.plain, self.fixed))
        return (length, [side.share(row[1][at] if row else [], length) for at, side in sides])

    def drop(self, row: Row) -> None:
        for side, pages in zip((self.plain, self.fixed), row[1], strict=True):
            side.release(pages)

    def tokens(self, lengths: list[int]) -> list[list[int]]:
        return [[self.draw.randrange(VOCABULARY) for _ in range(length)] for length in lengths]

    def read(self) -> None:
        """Begin to read prompts behind the rows that run, or go on with it."""
        if not self.reading and len(self.running) < ROWS:
            count = self.draw.randint(1, ROWS - len(self.running))
            self.reading = [self.share(None, 0) for _ in range(count)]
        if self.reading:
            lengths = [self.draw.randint(1, 12) for _ in self.reading]
            self.both("prefill", self.reading, self.tokens(lengths), [at for at, _ in self.reading])
            self.reading = [
                (at + more, pages) for (at, pages), more in zip(self.reading, lengths, strict=True)
            ]

    def run(self) -> None:
        self.running += self.reading
        self.reading = []

    def advance(self) -> float:
        """Feed all rows that run; return how far apart the logits are."""
        width = self.draw.choice((1, 1, 1, 2, 3, 4, 5, 7, 9))
        seen = [at for at, _ in self.running]
        if not seen or max(seen) + width > self.limit:
            return 0.0
        one, other = self.both("forward", self.running, self.tokens([width] * len(seen)), seen)
        assert one.shape == other.shape
        # Some of it may be rolled back.
        self.running = [(at + self.draw.randint(1, width), pages) for at, pages in self.running]
        return float((one - other).abs().max())

    def copy(self) -> None:
        if len(self.running) > 1:
            source, target = self.draw.sample(range(len(self.running)), 2)
            self.drop(self.running[target])
            self.running[target] = self.share(self.running[source], self.running[source][0])

    def release(self) -> None:
        if self.running:
            self.drop(self.running.pop(0))

    def keep(self) -> None:
        if self.running:
            row = self.draw.choice(self.running)
            self.kept.append(self.share(row, row[0]))

    def load(self) -> None:
        if self.running and self.kept:
            row, place = self.draw.choice(self.kept), self.draw.randrange(len(self.running))
            self.drop(self.running[place])
            self.running[place] = self.share(row, self.draw.randint(1, row[0]))

    def reset(self) -> None:
        for side in (self.plain, self.fixed):
            side.reset()
        self.running, self.reading, self.kept = [], [], []

    def go(self, steps: int) -> float:
        others = [self.read, self.run, self.copy, self.release, self.keep, self.load]
        furthest = 0.0
        for _ in range(steps):
            for _ in range(4):
                furthest = max(furthest, self.advance())
            self.draw.choice(others * 4 + [self.reset])()
        return furthest


@pytest.fixture
def small_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let short texts need several shapes."""
    monkeypatch.setattr(sides, "VIEW", 8)


@pytest.mark.usefixtures("small_views")
@pytest.mark.parametrize("recorded", [False, True], ids=["run", "replayed"])
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_fixed_shapes_say_the_same(
    family: str, attention: str, recorded: bool, request: pytest.FixtureRequest
) -> None:
    tapes = request.getfixturevalue("tapes") if recorded else []
    twins = Twins(make_model(family, VOCABULARY, attn_implementation=attention), len(family))
    assert twins.go(40) < (1e-11 if attention == "sdpa" else 1e-4)
    assert bool(tapes) == recorded


@pytest.mark.usefixtures("small_views")
def test_there_are_few_shapes() -> None:
    twins, shapes = Twins(make_model("llama", VOCABULARY), seed=5), set[Shape]()
    for _ in range(60):
        twins.go(2)
        shapes |= {*twins.fixed.graphs.shapes}
    rows, columns = ({size[0] for _, size, _ in shapes}, {width for _, _, width in shapes})
    views = {(size[1] - 3 * width) * PAGE for _, size, width in shapes}
    assert rows == {1, 2, 4, ROWS} and columns == {1, 2, 3, 5, 9}
    assert views <= {16, 32, 64, 128, 256, 400} and len(views) > 3


@pytest.mark.parametrize("family", ["llama", "olmo3", "gemma3", "smollm3"])
def test_compilers_find_one_graph(family: str) -> None:
    side = ModelRunner(make_model(family, VOCABULARY), graphs="on")
    row = side.share([], 0)
    expected = side.forward([row], [[5, 6]], [0])
    torch.compiler.reset()
    compiled = torch.compile(side.run_graph, backend="eager", fullgraph=True)
    inputs = side.inputs([row], [[5, 6]], [0], (1, 2, 1))
    with torch.inference_mode():
        torch.testing.assert_close(compiled(inputs, 2), expected, rtol=0, atol=1e-11)


def test_lower_precision() -> None:
    model = make_model("llama", VOCABULARY, dtype=torch.bfloat16)
    plain, fixed = (ModelRunner(model, graphs=mode) for mode in ("off", "on"))
    tokens = [[5, 6], [7, 8], [9, 10]]
    one, other = (
        side.forward([side.share([], 0) for _ in tokens], tokens, [0, 0, 0])
        for side in (plain, fixed)
    )
    assert other.dtype == torch.bfloat16
    torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mode", ["off", "on"])
def test_logits_go_where_they_are_wanted(mode: Any) -> None:
    side = ModelRunner(make_model("llama", VOCABULARY), "meta", graphs=mode)
    assert side.forward([side.share([], 0)], [[5, 6]], [0]).device.type == "meta"
    assert side.model.device.type == "cpu"


def test_what_was_handed_out_stays(tapes: list[Tape]) -> None:
    side = ModelRunner(make_model("llama", VOCABULARY), graphs="on")
    rows = [side.share([], 0)]
    for _ in range(2):
        side.forward(rows, [[5]], [0])
    first = side.forward(rows, [[6]], [0])
    kept = first.clone()
    side.forward(rows, [[7]], [0])
    assert len(tapes) == 1 and torch.equal(first, kept)


def test_sizes() -> None:
    assert [padded(size, 24) for size in (1, 2, 3, 9, 16, 17, 24, 30)] == [
        *(1, 2, 4, 16, 16, 24, 24, 30)
    ]


# -- on a GPU --------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
@pytest.mark.usefixtures("small_views")
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_graphs_say_the_same(family: str, attention: str) -> None:
    model = make_model(family, VOCABULARY, attn_implementation=attention).cuda()
    twins = Twins(model, len(family))
    assert twins.go(40) < (1e-11 if attention == "sdpa" else 1e-4)
    assert any(twins.fixed.graphs.replays.values())


@needs_gpu
def test_the_device_goes_on_after_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    refusing, willing = (make_model("llama", VOCABULARY).cuda() for _ in range(2))
    refusing.register_forward_pre_hook(wait, with_kwargs=True)
    assert Twins(refusing, 1).go(20) < 1e-11
    assert len(caplog.records) == 1
    twins = Twins(willing, 1)
    assert twins.go(20) < 1e-11
    assert any(twins.fixed.graphs.replays.values())


# -- whole decoders --------------------------------------------------------------------------------

GIFT = {"type": "object", "properties": {"idea": {"type": "string"}}, "required": ["idea"]}
SETTINGS: tuple[dict[str, Any], ...] = (
    {"gamma": 0.7},
    {"router": "rand", "gamma": 0.5, "max_tokens": 6},
    {"router": "h-punc", "json_schema": GIFT},
    {"router": "base", "max_tokens": 11},
    {"regex": "[a-z ]{5,12}[.]"},
    {"temperature": 0, "gamma": 0.6, "n": 2},
)


def answers(decoder: Decoder) -> list[list[tuple[Any, ...]]]:
    """Decode more than there is room for, so that rows join and leave; return what was said."""
    prompts = [f"Name a place{', please' * (number % 4)}." for number in range(10)]
    params = [
        SamplingParams(**{"seed": seed, "max_tokens": 24} | SETTINGS[seed % len(SETTINGS)])
        for seed in range(10)
    ]
    batch: list[list[Completion]] = decoder.generate_batch(prompts, params)
    return [[step[:3] for step in sample.steps] for each in batch for sample in each]


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return ModelPair.tiny(dtype="float64")


@pytest.fixture(scope="module")
def expected(pair: ModelPair) -> list[list[tuple[Any, ...]]]:
    with Decoder(pair, lookahead="off", graphs="off") as decoder:
        return answers(decoder)


@pytest.mark.parametrize("lookahead", ["off", "auto", 4])
def test_the_output_is_the_same(
    pair: ModelPair, expected: list[Any], tapes: list[Tape], lookahead: Any
) -> None:
    with Decoder(pair, max_rows=4, lookahead=lookahead, graphs="on") as decoder:
        assert answers(decoder) == expected
    assert 1 < len(tapes) < 40


@pytest.mark.parametrize("kind", ["adapter", "one-model"])
@pytest.mark.parametrize("lookahead", ["auto", 3])
def test_the_output_of_shared_weights_is_the_same(
    tmp_path: Path, tapes: list[Tape], lookahead: Any, kind: str
) -> None:
    base, aligned = make_pair_folder(tmp_path, "llama")
    if kind == "adapter":
        pair = ModelPair.from_adapter(base, save_adapter(base, tmp_path / "adapter"))
    else:
        pair = ModelPair.from_model(aligned)
    with Decoder(pair, max_rows=5, lookahead="off", graphs="off") as decoder:
        said = answers(decoder)
    with Decoder(pair, max_rows=5, lookahead=lookahead, graphs="on") as decoder:
        assert answers(decoder) == said
    assert tapes


def test_who_cannot_be_recorded_goes_on_without(
    tapes: list[Tape], caplog: pytest.LogCaptureFixture
) -> None:
    pair = random_pair()
    with Decoder(pair, graphs="off") as decoder:
        said = answers(decoder)
    hook = pair.base.register_forward_pre_hook(wait, with_kwargs=True)
    try:
        with Decoder(pair, graphs="on") as decoder, caplog.at_level(logging.WARNING):
            assert answers(decoder) == said
    finally:
        hook.remove()
    (warning,) = caplog.records
    assert "not permitted when stream is capturing" in warning.getMessage()
    assert tapes  # of aligned, which can


def no_memory(hidden: bool) -> None:
    try:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    finally:
        if hidden:  # as when a recording that has failed is ended
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.mark.parametrize("hidden", [False, True])
def test_memory_that_runs_out_while_recording_is_no_refusal(
    pair: ModelPair,
    expected: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hidden: bool,
) -> None:
    short = iter([False, True, False, True])

    def record(self: Graphs, run: Callable[[], Tensor]) -> None:
        if next(short, False):
            no_memory(hidden)

    monkeypatch.setattr(Graphs, "_record", record)
    with Decoder(pair, graphs="on") as decoder:
        assert answers(decoder) == expected
        assert decoder.metrics.restarts == 2
    assert not caplog.records


def test_a_driver_without_memory_says_so_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(self: Graphs, run: Callable[[], Tensor]) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(Graphs, "_record", record)
    side = ModelRunner(make_model("llama", VOCABULARY), graphs="on")
    rows = [side.share([], 0)]
    side.forward(rows, [[5]], [0])
    with pytest.raises(torch.OutOfMemoryError, match="CUDA error"):
        side.forward(rows, [[5]], [0])
    side.reset()
    assert not side.graphs.shapes


def test_modes() -> None:
    with pytest.raises(ParameterError, match="graphs must be 'auto', 'on' or 'off'"):
        Decoder(random_pair(), graphs="yes")  # type: ignore[arg-type]
    model = make_model("llama", VOCABULARY)
    assert not ModelRunner(model).fixed  # it is on the CPU
    model.lm_head.to("meta")  # as if on another device
    assert not ModelRunner(model).fixed
    with pytest.raises(ParameterError, match="spread over cpu and meta"):
        ModelRunner(model, graphs="on")
