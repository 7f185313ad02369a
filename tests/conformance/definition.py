"""What decoding means, spelled out for one row in plain NumPy, and a checker built on it.

Nothing here is shared with the package's step: distributions come from plain forwards over the
whole context, and each rule is written as a sentence of the definition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from baco_integrations import Completion, SamplingParams

WORD_MASS = 1e-3


@dataclass
class Decision:
    token: int
    source: str


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def uniform_pair(seed: int, index: int, position: int) -> tuple[float, float]:
    """The two uniforms of a position, drawn one by one from the counter-based generator."""
    generator = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))
    words = [int(generator.random_raw()) for _ in range(2 * position + 2)][-2:]
    return (words[0] >> 12) / 2**52, (words[1] >> 12) / 2**52


def banned_for_base(pair: Any, params: SamplingParams) -> np.ndarray:
    vocabulary = pair.vocabulary
    if params.router == "base":
        return np.arange(pair.size) >= pair.base_size
    banned = vocabulary.control | ~pair.shared
    for end in (*pair.base_eos, *pair.aligned_eos):
        banned[end] = True
    return banned | vocabulary.line_break if params.line_breaks == "aligned" else banned


def wants_base(name: str, gamma: float, p_max: float, entropy: float, u_route: float) -> bool:
    if name == "base":
        return True
    if name == "aligned":
        return False
    if name == "nudge":
        return p_max > 1 - gamma
    rule = name.split("-")[0]
    if rule == "p":
        return p_max < gamma
    if rule == "h":
        return math.exp(-entropy) < gamma
    if rule == "rand":
        return u_route < gamma
    return True


def content_says_aligned(name: str, top: int, vocabulary: Any) -> bool:
    words = name.split("-")
    return ("punc" in words and bool(vocabulary.punctuation[top])) or (
        "fc" in words and bool(vocabulary.function_word[top])
    )


def decide(
    pair: Any,
    params: SamplingParams,
    base: np.ndarray,
    aligned: np.ndarray,
    owner: str | None,
    uniforms: tuple[float, float],
) -> Decision:
    """Decide one token from raw logits of shape [size]."""
    u_token, u_route = uniforms
    vocabulary, name = pair.vocabulary, params.router
    raw = softmax(base)
    top_base, top_aligned = int(base.argmax()), int(aligned.argmax())
    entropy = -sum(p * math.log(p) for p in raw if p > 0)
    banned = banned_for_base(pair, params)
    emits = {"base": np.where(banned, -np.inf, base), "aligned": aligned}

    # Router: content, banned top-1, first token, then the logit rule.
    routed = "aligned"
    if wants_base(name, params.effective_gamma, float(raw.max()), entropy, u_route):
        routed = "base"
    if name != "base":
        content_top = top_aligned if params.signal_model == "aligned" else top_base
        if content_says_aligned(name, content_top, vocabulary) or banned[top_base]:
            routed = "aligned"
        if owner is None and params.first == "aligned":
            routed = "aligned"

    # Word boundary.
    source, restricted = routed, False
    if params.boundary and owner is not None:
        if not vocabulary.starts_word[int(emits[owner].argmax())]:
            source = owner
        elif routed != owner:
            mass = softmax(emits[routed])[vocabulary.starts_word].sum()
            source, restricted = (owner, False) if mass < WORD_MASS else (routed, True)
    if source == "base" and np.isneginf(emits["base"]).all():
        source, restricted = "aligned", False  # base may emit nothing
    logits = np.where(restricted & ~vocabulary.starts_word, -np.inf, emits[source])
    return Decision(draw(logits, params.side(source), u_token), source)


def draw(logits: np.ndarray, settings: Any, u: float) -> int:
    if settings.temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / settings.temperature
    if settings.top_k:
        kth = np.sort(scaled)[::-1][min(settings.top_k, len(scaled)) - 1]
        scaled = np.where(scaled < kth, -np.inf, scaled)
    if settings.top_p < 1:
        probabilities, total = softmax(scaled), 0.0
        for token in np.argsort(-scaled, kind="stable"):
            if total >= settings.top_p:
                scaled[token] = -np.inf
            total += probabilities[token]
    if settings.min_p:
        probabilities = softmax(scaled)
        scaled = np.where(probabilities < settings.min_p * probabilities.max(), -np.inf, scaled)
    cdf = np.cumsum(softmax(scaled))
    return int(np.searchsorted(cdf, u * cdf[-1], side="right"))


@torch.inference_mode()
def full_logits(
    model: Any, prompt: list[int], tokens: list[int], size: int, real: int
) -> np.ndarray:
    """Logits before each token, [tokens, size], from one plain forward over all, no cache."""
    logits = model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0].double().numpy()
    logits = logits[len(prompt) - 1 : -1, :real]
    return np.pad(logits, ((0, 0), (0, size - logits.shape[1])), constant_values=-np.inf)


def check(pair: Any, messages: Any, params: SamplingParams, completion: Completion) -> int:
    """Confirm source, token and probabilities of every step; return the number of steps checked."""
    tokens = [step.token_id for step in completion.steps]
    sides = {}
    for name, model, render, real in (
        ("base", pair.base, pair.render_base, pair.base_size),
        ("aligned", pair.aligned, pair.render_aligned, pair.aligned_size),
    ):
        sides[name] = full_logits(model, render(messages, tokenize=True), tokens, pair.size, real)
    owner = None
    for position, step in enumerate(completion.steps):
        base, aligned = sides["base"][position], sides["aligned"][position]
        uniforms = uniform_pair(completion.seed, completion.sample, position)
        expected = decide(pair, params, base, aligned, owner, uniforms)
        where = f"{params!r} position {position}"
        assert (step.token_id, step.source) == (expected.token, expected.source), where
        assert step.switched == (owner is not None and owner != step.source), where
        raw = softmax(base)
        entropy = -sum(p * math.log(p) for p in raw if p > 0)
        found = (step.p_base, step.p_aligned, step.p_max, step.entropy)
        wanted = (raw[step.token_id], softmax(aligned)[step.token_id], raw.max(), entropy)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12, err_msg=where)
        if step.switched and params.boundary:
            assert pair.vocabulary.starts_word[step.token_id], where
        owner = step.source
    check_end(pair, params, completion)
    return len(tokens)


def check_end(pair: Any, params: SamplingParams, completion: Completion) -> None:
    """Confirm text, reason and usage from the tokens alone."""
    tokens = [step.token_id for step in completion.steps]
    only_base = params.router == "base"
    ends = pair.base_eos if only_base else pair.aligned_eos
    stops = (*params.stop, *(pair.base_stop if only_base else ()))
    assert not ends & set(tokens[:-1])
    text, stopped = spelled(pair, [token for token in tokens if token not in ends], stops)
    before = [token for token in tokens[:-1] if token not in ends]
    assert not spelled(pair, before, stops, unfinished="ignore")[1], "decoded beyond a stop string"
    if stopped or tokens[-1] in ends:
        reason = "stop"
    else:
        reason = "length"
        assert len(tokens) == params.max_tokens  # no window is full here
    assert (completion.text, completion.finish_reason) == (text, reason)
    assert "".join(step.text for step in completion.steps) == text
    assert completion.usage.completion_tokens == len(tokens)


def spelled(
    pair: Any, tokens: list[int], stops: tuple[str, ...], unfinished: str = "replace"
) -> tuple[str, bool]:
    """The text of tokens, ended where the first stop string is complete."""
    data = b"".join(pair.vocabulary.token_bytes[token] for token in tokens)
    text = data.decode(errors=unfinished).lstrip()
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(found)[1]], True) if found else (text, False)
