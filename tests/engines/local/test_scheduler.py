"""Rows hold what their sequences have read, whoever comes, goes, waits or begins alike."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baco_integrations import Decoder, SamplingParams
from baco_integrations.engines.base import EngineRequest, EngineSettings
from baco_integrations.engines.local import engine as local
from baco_integrations.engines.local import scheduler as slots
from baco_integrations.engines.local.engine import LocalEngine
from baco_integrations.engines.local.prefix_cache import (
    MAX_PREFIXES,
    PrefixCache,
    common_length,
)
from baco_integrations.engines.local.runner import ModelRunner
from baco_integrations.engines.local.scheduler import Scheduler, similar_lengths
from baco_integrations.engines.local.sequence import LocalSequence
from baco_integrations.engines.local.speculative import COSTS
from baco_integrations.engines.metrics import Metrics
from baco_integrations.engines.open import open_engine
from baco_integrations.models.scripted import ScriptedPair
from tests.engines.local.scripted_runner import local_decoder
from tests.pairs import random_pair
from tests.scripted import endless

SPACE = ScriptedPair({"": {" a": 1}}, {}).token_space


class Tape:
    """A runner without a model: each row is the list of tokens it has read."""

    page = page_bytes = 1
    most_pages = 10**9

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def prefill(self, rows: Any, tokens: Any, positions: Any) -> torch.Tensor:
        for row, fed, position in zip(rows, tokens, positions, strict=True):
            assert position <= len(row)
            row[position:] = fed
        return torch.tensor([[row[-1]] for row in rows])

    def forward(self, rows: Any, tokens: Any, positions: Any) -> Any:
        raise NotImplementedError

    def share(self, row: list[int], length: int) -> list[int]:
        assert len(row) >= length
        self.rows.append(row[:length])
        return self.rows[-1]

    def release(self, row: list[int]) -> None:
        self.rows = [each for each in self.rows if each is not row]

    def reset(self) -> None:
        self.rows.clear()


def sequence(base: list[int], aligned: list[int], n: int = 1) -> LocalSequence:
    params, prompts = SamplingParams(n=n, seed=0), (tuple(base), tuple(aligned))
    request = EngineRequest(prompts, params, 0, 0, frozenset(), 50, 50, sink=None)  # type: ignore[arg-type]
    return LocalSequence(request, SPACE, 0.0)


def say(each: LocalSequence, token: int) -> None:
    """Do as a step does: pending in, a token out."""
    for side, row in enumerate(each.rows):
        row[each.position(side) :] = [each.pending(side)]
    each.tokens.append(token)


def confirm(held: Scheduler, tapes: dict[int, Tape]) -> None:
    """Every row begins with what its sequence has read, and there are no others."""
    for side, tape in tapes.items():
        for each in held.sequences:
            read = each.read(side)
            assert each.rows[side][:read] == [*each.history(side)[:read]]
        kept = held.prefix_caches[side].saved.values()
        used = [*(each.rows[side] for each in held.sequences), *kept]
        assert {*map(id, used)} == {*map(id, tape.rows)}


# Texts that often begin alike.
TEXTS = st.tuples(st.integers(0, 2), st.integers(1, 90), st.integers(0, 3)).map(
    lambda drawn: [drawn[0]] * drawn[1] + [9, drawn[2]]
)
MOVES = st.one_of(
    st.tuples(st.just("admit"), st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), max_size=5)),
    st.tuples(st.just("prefill"), st.integers(1, 40)),
    st.tuples(st.just("say"), st.integers(0, 3)),
    st.tuples(st.just("release"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("reset")),
)


@given(st.lists(MOVES, max_size=30), st.sampled_from([0, 200, 10_000]))
def test_rows_hold_what_their_sequences_have_read(moves: list[Any], budget: int) -> None:
    tapes, metrics = {0: Tape(), 1: Tape()}, Metrics()
    held, waiting = Scheduler(tapes, 2 * budget, metrics), []
    for move, *values in moves:
        if move == "admit":
            for base, aligned, twice in values[0]:
                waiting += [sequence(base, aligned, 1 + twice) for _ in range(1 + twice)]
            if not held.prefilling and waiting:
                held.admit(waiting)
                assert waiting[0] in held.prefilling  # the first one never waits for another
                waiting = [each for each in waiting if each not in held.prefilling]
        elif move == "prefill" and held.prefilling:
            group = held.prefilling
            _, logits = held.prefill(values[0])
            for side, last in logits.items():
                assert last[:, 0].tolist() == [each.pending(side) for each in group]
        elif move == "say":
            for each in held.running:
                say(each, values[0])
        elif move == "release" and values[0] < len(held.sequences):
            held.release(held.sequences[values[0]], keep=values[1])
        elif move == "reset":
            waiting = [*held.sequences, *waiting]
            held.reset()
        confirm(held, tapes)
        for kept in held.prefix_caches.values():
            assert kept.bytes <= budget and len(kept.saved) <= MAX_PREFIXES
            assert kept.bytes == sum(map(len, kept.saved.values()))
            assert all(tuple(row) == text for text, row in kept.saved.items())
    assert metrics.prefilled >= 0


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_beginnings(one: list[int], other: list[int]) -> None:
    length = common_length(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or length in (
        len(one),
        len(other),
    )


def test_the_least_recently_used_prefix_goes_first() -> None:
    tape = Tape()
    prefixes = PrefixCache(tape, 20)

    def add(first: int, length: int) -> None:
        prefixes.add((first,) * length, [first] * length)

    add(1, 10)
    add(2, 10)
    assert prefixes.longest((1, 1, 7)).length == 2  # used again
    add(3, 5)
    assert prefixes.longest((2, 2)).length == 0 and prefixes.longest((1,)).length == 1
    add(1, 12)  # takes the place of its own beginning
    assert prefixes.bytes == 17
    add(4, 1)
    add(1, 5)  # is kept already
    assert prefixes.bytes == 18 and len(tape.rows) == 3


def test_of_a_text_that_is_too_long_the_beginning_is_kept() -> None:
    prefixes = PrefixCache(Tape(), 20)
    prefixes.add(tuple(range(18)), [*range(18)])
    prefixes.add(tuple(range(30)), [*range(30)])
    prefixes.add(tuple(range(40)), [*range(40)])
    assert prefixes.longest(tuple(range(50))).length == 20 == prefixes.bytes
    nothing = PrefixCache(Tape(), 0)
    nothing.add((1, 2), [1, 2])
    assert nothing.longest((1, 2)).length == 0


PREFACE = "The town lies by the river, between two hills. " * 4


def turns(decoder: Decoder, count: int) -> list[str]:
    """Hold a chat; return what was said."""
    messages: list[dict[str, str]] = []
    for turn in range(count):
        messages.append({"role": "user", "content": f"{PREFACE if not turn else ''}And {turn}?"})
        (said,) = decoder.generate(messages, seed=turn, max_tokens=8, router="rand", gamma=0.5)
        messages.append({"role": "assistant", "content": said.text})
    return [message["content"] for message in messages]


def test_the_next_turn_of_a_chat_reads_only_what_is_new() -> None:
    pair = random_pair()
    with Decoder(pair) as decoder, Decoder(pair, prefix_bytes=0) as forgetful:
        assert turns(decoder, 5) == turns(forgetful, 5)
        assert forgetful.metrics.reused == 0
        assert decoder.metrics.prefilled < 0.45 * forgetful.metrics.prefilled
        both = decoder.metrics.reused + decoder.metrics.prefilled
        assert both == forgetful.metrics.prefilled


def test_who_arrives_together_and_begins_alike_has_the_beginning_read_once() -> None:
    pair = random_pair()
    asked = [f"{PREFACE}{number}?" for number in range(6)]
    with Decoder(pair, prefix_bytes=0) as decoder:
        batch = decoder.generate_batch(asked, seed=1, max_tokens=6)
        shared = sum(
            common_length(*(render(text, tokenize=True) for text in asked[:2]))
            for render in (pair.render_base, pair.render_aligned)
        )
        assert decoder.metrics.reused >= 5 * shared
    with Decoder(pair, prefix_bytes=0) as decoder:
        for text, (together,) in zip(asked, batch, strict=True):
            (alone,) = decoder.generate(text, seed=1, max_tokens=6)
            assert [step[:3] for step in alone.steps] == [step[:3] for step in together.steps]


def test_rows_that_run_go_on_while_a_long_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []  # tokens read for each row; -1 where running rows were fed
    read, advance = ModelRunner.prefill, ModelRunner.forward

    def noting_read(side: ModelRunner, rows: Any, tokens: Any, positions: Any) -> Any:
        calls.append(sum(map(len, tokens)))
        return read(side, rows, tokens, positions)

    def noting_advance(side: ModelRunner, rows: Any, tokens: Any, *more: Any) -> Any:
        calls.append(-len(tokens))
        return advance(side, rows, tokens, *more)

    monkeypatch.setattr(ModelRunner, "prefill", noting_read)
    monkeypatch.setattr(ModelRunner, "forward", noting_advance)
    long = "word " * 120
    with Decoder(random_pair(), lookahead="off") as decoder:
        (alone,) = decoder.generate(long, seed=1, max_tokens=4)
        with decoder.stream("x", seed=2, max_tokens=400) as running:
            next(running)
            calls.clear()
            (beside,) = decoder.generate("Z" + long, seed=1, max_tokens=4)
    pieces = [count for count in calls if count > 0]
    bearable = local.PREFILL_SLOWDOWN * (1 / COSTS["cpu"].query + 1)
    assert len(pieces) > 20 and max(pieces) <= bearable
    for place, count in enumerate(calls):
        if count > 0:  # both sides read a piece, then the running row is fed
            assert any(later < 0 for later in calls[place + 1 : place + 4])
    assert beside.text != "" and alone.usage.prompt_tokens < beside.usage.prompt_tokens


def test_a_long_prompt_is_not_kept_waiting_by_short_ones() -> None:
    with Decoder(random_pair(), max_rows=4) as decoder:
        short = [decoder.stream("x", seed=seed, max_tokens=60) for seed in range(4)]
        long = decoder.stream("word " * 100, seed=9, max_tokens=2)
        later = [decoder.stream("y", seed=seed, max_tokens=60) for seed in range(12)]
        list(long)
        # Only those who came into a slot with it, or into one that a short text left, have begun.
        assert sum(bool(each.mailbox.decoded) for each in later) <= 4
        for each in (*short, *later):
            list(each)
        assert decoder.metrics.admitted == 17
        assert 0 < decoder.metrics.mean_wait_s <= decoder.metrics.longest_wait_s
        assert decoder.metrics.tokens_per_second > 0


def test_a_row_waits_for_who_reads_the_same() -> None:
    tapes = {0: Tape(), 1: Tape()}
    held = Scheduler(tapes, 0, Metrics())
    text = list(range(100, 100 + slots.MIN_SHARED_WAIT + 2))
    rows = [
        sequence(text, text),
        sequence([*text, 1], text),
        sequence([1, 2], [1, 2]),
        sequence(text, text),
    ]
    held.admit(rows)
    assert set(held.prefilling) == {rows[0], rows[2]}
    held.prefill(500)
    held.admit(rows[1:2] + rows[3:])
    assert set(held.prefilling) == {rows[1], rows[3]}
    assert held.prefill(500)[0] <= 3
    confirm(held, tapes)


def test_rows_that_have_said_different_things_do_not_wait_for_each_other() -> None:
    held = Scheduler({0: Tape(), 1: Tape()}, 0, Metrics())
    rows = [sequence([1, 2], [1, 2, 3]) for _ in range(3)]
    for number, each in enumerate(rows):  # as where memory ran out and all begin again
        each.tokens += [number] * 5
    held.admit(rows)
    assert set(held.prefilling) == set(rows)


def test_rows_wait_for_tokens_that_they_share_and_not_for_as_many_others() -> None:
    size = slots.MIN_SHARED_WAIT + 2
    held = Scheduler({0: Tape(), 1: Tape()}, 0, Metrics())
    rows = [sequence([first] * size, [first] * size) for first in range(3)]
    held.admit(rows)
    assert set(held.prefilling) == set(rows)


@pytest.mark.parametrize("said", [0, 3])
def test_what_is_kept_is_what_was_read(said: int) -> None:
    tapes = {0: Tape(), 1: Tape()}
    held = Scheduler(tapes, 10_000, Metrics())
    half = sequence(list(range(60)), list(range(100, 160)))
    held.admit([half])
    held.prefill(slots.MIN_CACHED + 4)
    held.release(half, keep=True)  # cancelled while it is read
    whole = sequence(list(range(200, 230)), list(range(300, 340)))
    held.admit([whole])
    held.prefill(100)
    for token in range(said):
        say(whole, token)
    held.release(whole, keep=True)
    for side, kept in held.prefix_caches.items():
        assert sorted(map(len, kept.saved)) == [slots.MIN_CACHED + 4, whole.position(side)]
        assert all(tuple(row) == text for text, row in kept.saved.items())


def test_samples_keep_the_prompt_that_they_share_and_nothing_that_they_said() -> None:
    tapes = {0: Tape(), 1: Tape()}
    held = Scheduler(tapes, 10_000, Metrics())
    one = sequence(list(range(30)), list(range(40)), n=2)
    held.admit([one])
    held.prefill(100)
    say(one, 7)
    held.release(one, keep=True)
    assert [list(kept.saved) for kept in held.prefix_caches.values()] == [
        [tuple(range(29))],
        [tuple(range(39))],
    ]


def test_whoever_leaves_takes_nobody_along() -> None:
    tapes = {0: Tape(), 1: Tape()}
    held = Scheduler(tapes, 0, Metrics())
    held.admit([sequence([n] * 20, [n] * 9) for n in range(4)])
    held.prefill(100)
    held.admit([sequence([n] * 30, [n] * 40) for n in range(10, 14)])
    held.prefill(7)
    for part, place in (("running", 1), ("prefilling", 2), ("running", 0), ("running", 1)):
        held.release(getattr(held, part)[place], keep=False)
        confirm(held, tapes)
    held.prefill(6)
    assert (len(held.running), len(held.prefilling)) == (1, 3)
    confirm(held, tapes)


def test_a_row_lends_only_what_it_has_seen() -> None:
    tapes = {0: Tape(), 1: Tape()}
    held = Scheduler(tapes, 0, Metrics())
    text = list(range(40))
    held.admit([sequence(text, text)])
    held.prefill(100)
    held.admit([sequence([*text, 77], [*text, 78, 79])])
    assert held.prefilling[0].prefilled == [39, 39]  # the last of 40 tokens is yet to be fed
    confirm(held, tapes)


def test_a_row_lends_what_it_has_said() -> None:
    tapes = {0: Tape(), 1: Tape()}
    held = Scheduler(tapes, 0, Metrics())
    text, said = list(range(40)), list(range(60, 66))
    held.admit([sequence(text, text)])
    held.prefill(100)
    for token in said:
        say(held.running[0], token)
    held.admit([sequence([*text, *said, 77], [*text, *said, 78])])
    assert held.prefilling[0].prefilled == [45, 45]  # the last of what was said is yet to be read
    confirm(held, tapes)


def test_several_groups_share_what_running_rows_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_read: list[int] = []  # by aligned, between two of its steps
    read, advance = ModelRunner.prefill, ModelRunner.forward

    def noting_read(side: ModelRunner, rows: Any, tokens: Any, positions: Any) -> Any:
        if side is aligned:
            tokens_read[-1] += sum(map(len, tokens))
        return read(side, rows, tokens, positions)

    def noting_advance(side: ModelRunner, *read: Any) -> Any:
        if side is aligned:
            tokens_read.append(0)
        return advance(side, *read)

    pair = random_pair()
    engine = open_engine(pair, EngineSettings(lookahead="off", prefix_bytes=0))
    assert isinstance(engine, LocalEngine)
    aligned = engine.runners[1]
    with Decoder(pair, engine=engine) as decoder:
        running = [decoder.stream("x", seed=seed, max_tokens=250) for seed in range(12)]
        for stream in running:
            next(stream)
        tokens_read.append(0)
        monkeypatch.setattr(ModelRunner, "prefill", noting_read)
        monkeypatch.setattr(ModelRunner, "forward", noting_advance)
        asked = [chr(ord("A") + number) * 9 + " and so on" for number in range(12)]
        decoder.generate_batch(asked, seed=1, max_tokens=2)
        bearable = local.PREFILL_SLOWDOWN * (1 / COSTS["cpu"].query + 24)
        for stream in running:
            stream.close()
    assert sum(tokens_read) > 2 * bearable and max(tokens_read) <= bearable


def test_samples_share_one_prefill() -> None:
    pair = endless()
    with local_decoder(pair, max_rows=8) as decoder:
        decoder.generate("x" * 100, n=8, max_tokens=3)
        assert decoder.metrics.prefilled == 2 * (pair.count_tokens("x" * 100) - 1)
        decoder.generate("y" * 100, n=20, max_tokens=3)
    # 20 samples in slots for 8 arrive in three waves; no wave overlaps another here.
    assert decoder.metrics.prefilled <= 8 * (pair.count_tokens("x" * 100) - 1)


def test_rows_of_like_length_are_read_together() -> None:
    lengths = sorted(random.Random(1).choices(range(1, 129), k=64))
    for padding in (0, 12, 200):
        ranges = similar_lengths(lengths, padding)
        assert [each for place in ranges for each in lengths[place]] == lengths
        for one, other in pairwise(ranges):
            group, longer = lengths[one], lengths[one.start : other.start + 1]
            assert max(group) * len(group) - sum(group) <= padding
            assert max(longer) * len(longer) - sum(longer) > padding
    assert len(similar_lengths(lengths, 10_000)) == 1
