"""What decoding means, spelled out for one row in plain NumPy, and a checker built on it.

Nothing here is shared with the package's step: distributions come from plain forwards over the
whole context, and each rule is written as a sentence of the definition.

What a grammar adds:

- Signals are read from base's raw logits, as ever. The grammar refuses tokens on both sides before
  a token is drawn. Where base's raw top-1 is refused, banned or reserved, aligned is asked.
- At a place of structure aligned gives the token, whoever owns the word, and no word boundary
  counts.
- Within the value of a JSON string (not a key, and of tool calls only within the arguments) sides
  are routed as ever; behind the opening quote no word is running. Base emits no token that holds a
  quote, for closing is structure; but whether its word is finished is asked of a top-1 that may be
  such a token.
- In free text before a call that may come, base emits no token that holds the first character of
  what opens calls. Where the text ends with a beginning of the opener, it is structure.
- Patterns and choices are routed throughout.
- Router `base` writes structure too, and nothing is reserved from it.
- The turn may end exactly where the text is complete.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import torch
from llguidance import LLMatcher

from baco_integrations import Completion, SamplingParams
from baco_integrations.core.messages import conversation
from baco_integrations.core.tool_calls import CallReader
from baco_integrations.text.grammar import Grammars, grammar_of
from baco_integrations.text.prompts import with_schema

WORD_MASS = 1e-3
OTHERS_NUMBERS = {"aligned": [0, 3, 4], "base": [1]}
"""The numbers of the model that a router has no use for: engines need not run it."""


@dataclass
class Decision:
    token: int
    source: str
    sampled: np.ndarray


@dataclass
class Limit:
    """What a grammar says of one position: who is asked, and for which tokens."""

    allowed: np.ndarray
    structure: bool
    begins: bool
    reserved: np.ndarray
    opener: bool


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
    limit: Limit | None = None,
) -> Decision:
    """Decide one token from raw logits of shape [size]."""
    u_token, u_route = uniforms
    vocabulary, name = pair.vocabulary, params.router
    raw = softmax(base)
    top_base, top_aligned = int(base.argmax()), int(aligned.argmax())
    entropy = -sum(p * math.log(p) for p in raw if p > 0)
    banned, structure = banned_for_base(pair, params), False
    emits = {"base": np.where(banned, -np.inf, base), "aligned": aligned}
    wishes = emits
    if limit is not None:
        structure = limit.structure and name != "base"
        banned = banned | ~limit.allowed
        wishes = {
            "base": np.where(banned, -np.inf, base),
            "aligned": np.where(limit.allowed, aligned, -np.inf),
        }
        if name != "base":
            banned = banned | limit.reserved
        emits = wishes | {"base": np.where(banned, -np.inf, base)}

    # Router: content, refused top-1, first token, then the logit rule.
    routed = "aligned"
    if wants_base(name, params.effective_gamma, float(raw.max()), entropy, u_route):
        routed = "base"
    if name != "base":
        content_top = top_aligned if params.signal_model == "aligned" else top_base
        if content_says_aligned(name, content_top, vocabulary) or banned[top_base]:
            routed = "aligned"
        if owner is None and params.first == "aligned":
            routed = "aligned"
        if limit is not None and limit.opener and limit.reserved[top_aligned]:
            routed = "aligned"

    # Structure is aligned's; a base that may emit nothing finishes no word; then word boundary.
    source, restricted = routed, False
    if structure:
        source = "aligned"
    elif owner == "base" and np.isneginf(emits["base"]).all():
        source = routed
    elif params.boundary and owner is not None and not (limit and limit.begins):
        if not vocabulary.starts_word[int(wishes[owner].argmax())]:
            source = owner
        elif routed != owner:
            mass = softmax(emits[routed])[vocabulary.starts_word].sum()
            source, restricted = (owner, False) if mass < WORD_MASS else (routed, True)
    logits = np.where(restricted & ~vocabulary.starts_word, -np.inf, emits[source])
    settings = params.side(source)
    return Decision(draw(logits, settings, u_token), source, distribution(logits, settings))


def draw(logits: np.ndarray, settings: Any, u: float) -> int:
    cdf = np.cumsum(distribution(logits, settings))
    return int(np.searchsorted(cdf, u * cdf[-1], side="right"))


def distribution(logits: np.ndarray, settings: Any) -> np.ndarray:
    """What a token is drawn from."""
    if settings.temperature == 0:
        return np.eye(len(logits))[int(logits.argmax())]
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
    return softmax(scaled)


@torch.inference_mode()
def full_logits(
    model: Any, prompt: list[int], tokens: list[int], size: int, real: int
) -> np.ndarray:
    """Logits before each token, [tokens, size], from one plain forward over all, no cache."""
    logits = model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0].double().numpy()
    logits = logits[len(prompt) - 1 : -1, :real]
    return np.pad(logits, ((0, 0), (0, size - logits.shape[1])), constant_values=-np.inf)


def prompts(pair: Any, messages: Any, params: SamplingParams) -> dict[str, list[int]]:
    """What each side is fed: only aligned is told of schemas and tools."""
    told = messages
    if params.json_schema is not None and params.show_schema:
        told = with_schema(conversation(messages), params.json_schema)
    tools = {"tools": list(params.offered)} if params.offered else {}
    return {
        "base": pair.render_base(messages, tokenize=True),
        "aligned": pair.render_aligned(told, tokenize=True, **tools),
    }


def check(
    pair: Any,
    messages: Any,
    params: SamplingParams,
    completion: Completion,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> int:
    """Confirm source, token and probabilities of every step; return the number of steps checked.

    `rtol` and `atol` are how far the numbers may be off, for engines that are less precise.
    """
    tokens = [step.token_id for step in completion.steps]
    sides = {}
    fed = prompts(pair, messages, params)
    for name, model, real in (
        ("base", pair.base, pair.base_size),
        ("aligned", pair.aligned, pair.aligned_size),
    ):
        sides[name] = full_logits(model, fed[name], tokens, pair.size, real)
    owner = None
    for position, step in enumerate(completion.steps):
        base, aligned = sides["base"][position], sides["aligned"][position]
        uniforms = uniform_pair(completion.seed, completion.sample, position)
        limit = limit_after(pair, params, tokens[:position])
        expected = decide(pair, params, base, aligned, owner, uniforms, limit)
        where = f"{params!r} position {position}"
        assert (step.token_id, step.source) == (expected.token, expected.source), where
        assert step.switched == (owner is not None and owner != step.source), where
        raw = softmax(base)
        entropy = -sum(p * math.log(p) for p in raw if p > 0)
        found = np.array([step.p_base, step.p_aligned, step.p_sampled, step.p_max, step.entropy])
        kinds = {"base": raw, "aligned": softmax(aligned), "sampled": expected.sampled}
        wanted = np.array([*(each[step.token_id] for each in kinds.values()), raw.max(), entropy])
        others = OTHERS_NUMBERS.get(str(params.router))
        if others and not params.alternatives:
            wanted[others] = np.where(np.isnan(found[others]), np.nan, wanted[others])
        # Norms are in float32 even in a float64 model: now and then a rounding flips there.
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, err_msg=where)
        check_alternatives(params, step, kinds)
        free = limit is not None and (limit.structure or limit.begins)
        if step.switched and params.boundary and not free:
            assert pair.vocabulary.starts_word[step.token_id], where
        owner = step.source
    check_end(pair, params, completion)
    return len(tokens)


def check_alternatives(params: SamplingParams, step: Any, kinds: dict[str, np.ndarray]) -> None:
    """Confirm the most probable tokens of base, of aligned, and of what was drawn from."""
    assert (step.alternatives is None) == (params.alternatives == 0)
    for kind, offered in (step.alternatives or {}).items():
        wanted = np.sort(kinds[kind])[::-1][: params.alternatives]
        found = [each.probability for each in offered]
        missing = [0.0] * (len(wanted) - len(found))
        assert all(found)
        assert len({each.token_id for each in offered}) == len(offered)
        told = [kinds[kind][each.token_id] for each in offered]
        np.testing.assert_allclose(found, told, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose([*found, *missing], wanted, rtol=1e-6, atol=1e-9)


# -- grammars --------------------------------------------------------------------------------------


def limit_after(pair: Any, params: SamplingParams, tokens: list[int]) -> Limit | None:
    """What a request's grammar says behind some tokens, worked out from their beginning."""
    if grammar_of(params, pair.call_format) is None:
        return None
    spelling = grammar_bytes(pair, bool(params.offered))
    said = b"".join(spelling[token] for token in tokens)
    structure, reserved = place(said, params, pair.call_format)
    holds = np.array([bool(reserved) and reserved in data for data in pair.vocabulary.token_bytes])
    matcher = fresh_matcher(pair, params)
    assert matcher.consume_tokens(tokens) or not tokens, said
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    allowed = np.unpackbits(bits, bitorder="little")[: pair.size].astype(bool)
    may_end = complete(said, params, pair.call_format)
    assert may_end == matcher.is_accepting(), said
    ends = pair.base_eos if params.router == "base" else pair.aligned_eos
    allowed[list(ends)] = may_end
    # A string that has just been opened has an odd number of quotes and nothing behind the last.
    begins = reserved == b'"' and said.endswith(b'"') and not said.endswith(b'\\"')
    return Limit(allowed, structure, begins, holds, reserved not in (b"", b'"'))


@cache
def grammar_bytes(pair: Any, calls: bool) -> list[bytes]:
    """What each token may add to a grammar's text: control tokens nothing, but for calls' tags."""
    control, markers = pair.vocabulary.control, pair.call_markers if calls else {}
    spelled = enumerate(pair.vocabulary.token_bytes)
    return [markers.get(token, b"" if control[token] else data) for token, data in spelled]


@cache
def _grammars(pair: Any, calls: bool) -> Grammars:
    return Grammars(grammar_bytes(pair, calls), pair.encode, pair.call_format)


def fresh_matcher(pair: Any, params: SamplingParams) -> LLMatcher:
    """A matcher that has seen nothing yet."""
    grammar = grammar_of(params, pair.call_format)
    assert grammar is not None
    return _grammars(pair, bool(params.offered)).compile_for(params, grammar).deep_copy()


def place(said: bytes, params: SamplingParams, form: Any) -> tuple[bool, bytes]:
    """Whether what follows a text is structure, and the character that base may not write there."""
    text = said.decode("latin-1")
    calls = bool(params.offered)
    if params.json_schema is None and not calls:
        return False, b""
    if params.json_schema is not None:  # with tools beside it, the beginning tells which it is
        calls = calls and bool(form.opener) and text.lstrip().startswith(form.opener)
    elif not params.forced_calls:
        if form.opener:
            before, opened, text = text.partition(form.opener)
            begun = any(before.endswith(form.opener[:n]) for n in range(1, len(form.opener)))
            if not opened:
                return begun, b"" if begun else form.opener[:1].encode()
        elif not text.startswith(("{", " {")):
            return False, b"" if text.strip() else b"{"
    # Strings and marks in their order; the last string may be open.
    parts = re.findall(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[][{}:,]', text, re.DOTALL)
    last = parts[-1] if parts else ""
    if not last.startswith('"') or re.fullmatch(r'"(?:[^"\\]|\\.)*"', last, re.DOTALL):
        return True, b""
    open_brackets: list[str] = []
    for part in parts:
        if part in "[{":
            open_brackets.append(part)
        elif part in "]}":
            open_brackets.pop()
    previous = parts[-2] if len(parts) > 1 else ""
    in_array = open_brackets[-1:] == ["["]
    is_value = previous == ":" or in_array or not open_brackets
    arguments = form.begin + form.before + ("{" if form.divider else '{"name": "", "arguments": {')
    least = arguments.count("{") + arguments.count("[") - arguments.count("]")
    value = is_value and (not calls or len(open_brackets) >= least)
    return not value, b'"' if value else b""


def complete(said: bytes, params: SamplingParams, form: Any) -> bool:
    """Whether a text is all that was asked for."""
    try:
        text = said.decode()
    except UnicodeDecodeError:
        return False
    bare = text.removeprefix(" ")
    if params.offered:
        free = not params.forced_calls and params.json_schema is None
        if free and not (form.opener in text if form.opener else bare.startswith("{")):
            # Rust takes fewer characters for white space; white space alone is no answer yet.
            visible = any(not char.isspace() or char in "\x1c\x1d\x1e\x1f" for char in text)
            return bool(form.opener) or not text or visible
        if free and form.opener:
            bare = text[text.index(form.opener) :]
        if params.json_schema is None or _are_calls(bare, params, form):
            return _are_calls(bare, params, form)
    if params.json_schema is not None:
        return valid(bare, params.json_schema)
    if params.regex is not None:
        return re.fullmatch(params.regex, bare) is not None or (
            re.fullmatch(params.regex, text) is not None
        )
    return bare in params.choices or text in params.choices


def _are_calls(text: str, params: SamplingParams, form: Any) -> bool:
    """Whether a text is calls from its beginning to its end."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in params.offered}
    if params.tool_choice in schemas:
        schemas = {params.tool_choice: schemas[params.tool_choice]}
    if not text.startswith(form.begin):
        return False
    text, count = text[len(form.begin) :], 0
    while True:
        if not text.startswith(form.before):
            return False
        text = text[len(form.before) :]
        name, _, rest = text.partition(form.divider) if form.divider else ("", "", text)
        try:
            call, length = json.JSONDecoder().raw_decode(rest)
        except ValueError:
            return False
        if form.divider:
            call, length = {"name": name, form.arguments: call}, length + len(text) - len(rest)
        if list(call) != ["name", form.arguments] or call["name"] not in schemas:
            return False
        if not valid(json.dumps(call[form.arguments]), schemas[call["name"]]):
            return False
        text, count = text[length:], count + 1
        if not text.startswith(form.after):
            return False
        text = text[len(form.after) :]
        if text == form.end:
            return count == 1 or (params.parallel_tool_calls and form.separator is not None)
        if form.separator is None or not text.startswith(form.separator):
            return False
        text = text[len(form.separator) :]


def valid(text: str, schema: Any) -> bool:
    """Whether a text is JSON that follows a schema."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def check_end(pair: Any, params: SamplingParams, completion: Completion) -> None:
    """Confirm text, reason and usage from the tokens alone."""
    tokens = [step.token_id for step in completion.steps]
    only_base = params.router == "base"
    ends = pair.base_eos if only_base else pair.aligned_eos
    stops = (*params.stop, *(pair.base_stop if only_base else ()))
    assert not ends & set(tokens[:-1])
    text, stopped = spelled(pair, [token for token in tokens if token not in ends], stops)
    calls = 0
    if params.offered:
        names = [tool["function"]["name"] for tool in params.offered]
        reader = CallReader(pair.call_format, names, str)
        cut = stopped or tokens[-1] not in ends
        text, _ = reader.push(text, last=True, cut=cut)
        calls = len(reader.calls)
        found = [call[1:] for call in completion.tool_calls]
        assert found == [call[1:] for call in reader.calls]
    before = [token for token in tokens[:-1] if token not in ends]
    assert not spelled(pair, before, stops, unfinished="ignore")[1], "decoded beyond a stop string"
    if stopped or tokens[-1] in ends:
        reason = "tool_calls" if calls else "stop"
        if not stopped and grammar_of(params, pair.call_format):
            spelling = grammar_bytes(pair, bool(params.offered))
            said = b"".join(spelling[token] for token in tokens[:-1])
            assert complete(said, params, pair.call_format), said
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
