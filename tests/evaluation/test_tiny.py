"""The tiny world as a benchmark."""

from baco_integrations.evaluation import TinyOracle, tiny_prompts
from baco_integrations.tiny.requests import requests
from cookbook.tiny_pair import world


def test_requests_keep_their_conversations() -> None:
    prompts = tiny_prompts()
    assert [prompt.messages for prompt in prompts] == [r.messages for r in requests("eval")]
    assert [prompt.id for prompt in tiny_prompts(30)] == [
        prompts[place * 107 // 30].id for place in range(30)
    ]


def test_paraphrases_are_held_out_wordings_and_always_the_same() -> None:
    trained = {message["content"] for r in world.requests("train") for message in r.messages}
    prompts = tiny_prompts()
    assert tiny_prompts() == prompts
    assert min(len(prompt.paraphrases) for prompt in prompts) >= 2
    assert not trained & {text for prompt in prompts for text in prompt.paraphrases}
    assert not trained & {prompt.again for prompt in prompts}


def test_the_oracle_judges_by_id() -> None:
    oracle = TinyOracle()
    assert oracle.judge("eval-place-plain", "I would pick Lisbon.").content == "Lisbon"
    assert not oracle.judge("eval-place-plain", "I would pick Lisbon").valid
    assert oracle.mentioned("eval-place-plain", "lol Lisbon and") == ("Lisbon",)
    assert oracle.mentioned("eval-place-plain", "nothing") == ()
