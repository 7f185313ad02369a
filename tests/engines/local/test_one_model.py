"""One model as both sides: one forward, one cache, and the texts of the same model given twice."""

from __future__ import annotations

import copy
import gc
import weakref
from functools import cache

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.engines.local.prefix_cache import common_length
from tests.families import make_model, make_tokenizer
from tests.pairs import one_model_pair

TEXTS = ("Name a city.", "Hi", "A story about the sea, and tell me why.")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}},
    "required": ["name"],
}


@cache
def two_copies() -> ModelPair:
    one = one_model_pair()
    tokenizers = one.base_tokenizer, one.aligned_tokenizer
    return ModelPair(one.base, copy.deepcopy(one.base), *tokenizers)


def test_the_texts_are_those_of_two_copies_and_the_forwards_half_as_many() -> None:
    params = [
        SamplingParams(gamma=0.7, seed=1, n=3, max_tokens=16),
        SamplingParams(router="h-punc", gamma=0.9, temperature=0, max_tokens=20),
        SamplingParams(router="rand", gamma=0.5, seed=2, max_tokens=24, json_schema=SCHEMA),
    ]
    said, forwards = [], []
    for pair in (one_model_pair(), two_copies()):
        with Decoder(pair, lookahead="off") as decoder:
            batch = decoder.generate_batch(TEXTS, params)
            forwards.append(decoder.metrics.forwards)
        said.append([[step[:3] for step in one.steps] for each in batch for one in each])
        assert len(said[-1]) == 5
    assert said[0] == said[1]
    assert forwards[1] == 2 * forwards[0]


def test_each_prompt_is_read_once() -> None:
    pair, told = one_model_pair(), TEXTS[2]
    prompts = [render(told, tokenize=True) for render in (pair.render_base, pair.render_aligned)]
    assert common_length(*prompts) == 0  # nothing of one is known from the other
    with Decoder(pair) as decoder:
        first = decoder.generate(told, seed=1, max_tokens=8)
        read = decoder.metrics.prefilled
        assert read == sum(map(len, prompts)) - 2
        assert decoder.generate(told, seed=1, max_tokens=8, n=4)[0].text == first[0].text
        assert decoder.metrics.prefilled - read < 8  # the pending tokens alone
        assert decoder.metrics.reused >= read


def test_both_sides_share_one_cache_and_the_model_goes_with_its_last_user() -> None:
    tokenizer = make_tokenizer("byte-level", chat_template=True)
    pair = ModelPair.from_model(make_model("llama", len(tokenizer)), tokenizer)
    gone = weakref.ref(pair.base)
    with Decoder(pair) as decoder:
        decoder.generate("Hi", seed=1, max_tokens=4)
        base, aligned = decoder.engine.runners.values()  # type: ignore[attr-defined]
        assert base is aligned
    del pair, decoder, base, aligned
    gc.collect()
    assert gone() is None
