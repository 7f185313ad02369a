"""One conversation, two prompts: exact texts, and ids without forged or doubled control tokens."""

from __future__ import annotations

import time

import pytest

from baco_integrations.core.errors import ParameterError, PromptError
from baco_integrations.text import template_bounds
from baco_integrations.text.encoding import Encoder
from baco_integrations.text.prompts import (
    check_base_prompt,
    merge_turns,
    render_aligned,
    render_base,
    stop_strings,
)
from baco_integrations.text.templates import ChatTemplate
from tests.families import make_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
HISTORY = [
    {"role": "user", "content": "Name a city."},
    {"role": "assistant", "content": "Oslo."},
    {"role": "user", "content": "Another."},
]
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
}
TOOL = {"role": "tool", "content": "Rain."}

# In the manner of Gemma, Mistral and templates that know neither system nor tools.
STRICT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[answer]{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)
DROPS_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)
SWITCHES = (
    "{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
    "[{{ 'quick' if '/quick' in s else 'slow' }}]{{ s | replace('/quick', '') | trim }}"
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
NEVER = "{{ raise_exception('Not today') }}"


def templated(template):
    tokenizer = make_tokenizer("byte-level")
    tokenizer.chat_template = template
    return Encoder(tokenizer)


class TestBase:
    def test_qa(self):
        assert render_base("qa", [SYSTEM, *HISTORY]) == (
            "Be brief.\n\nQ: Name a city.\nA: Oslo.\n\nQ: Another.\nA:"
        )

    def test_qa_opens_a_new_answer_after_an_answer(self):
        assert render_base("qa", HISTORY[:2]) == "Q: Name a city.\nA: Oslo.\nA:"

    def test_qa_writes_tools_as_text(self):
        assert render_base("qa", [HISTORY[0], CALL, TOOL]) == (
            'Q: Name a city.\nA: weather({"city": "Oslo"})\n\nTool: Rain.\nA:'
        )

    def test_plain(self):
        text = render_base("plain", [SYSTEM, *HISTORY])
        assert text == "Be brief.\n\nName a city.\n\nOslo.\n\nAnother.\n\n"

    def test_urial(self):
        text = render_base("urial", HISTORY)
        assert text.startswith("# Instruction\n\n")
        assert text.endswith(
            "# Query:\nName a city.\n\n# Answer:\nOslo.\n\n# Query:\nAnother.\n\n# Answer:\n"
        )

    def test_turns_of_one_role_are_merged(self):
        messages = [HISTORY[0], {"role": "user", "content": "In Norway.", "name": "Ada"}]
        assert render_base("qa", messages) == "Q: Name a city.\n\nIn Norway.\nA:"

    def test_callers_messages_are_left_alone(self):
        messages = [HISTORY[0], HISTORY[2]]
        render_base("qa", messages)
        assert messages == [HISTORY[0], HISTORY[2]]

    def test_a_function(self):
        def shout(messages):
            return messages[-1]["content"].upper()

        assert render_base(check_base_prompt(shout), HISTORY) == "ANOTHER."
        assert stop_strings(shout) == ()
        shout.stop = ("!",)
        assert stop_strings(shout) == ("!",)

    def test_a_function_that_returns_no_text(self):
        with pytest.raises(PromptError, match="base_prompt"):
            render_base(lambda messages: None, HISTORY)

    @pytest.mark.parametrize("fault", [lambda m: 1 / 0, lambda m: "a \ud835", lambda m: m[9]])
    def test_a_function_that_fails(self, fault):
        with pytest.raises(PromptError, match=r"base_prompt must be (a function that|whole)"):
            render_base(fault, HISTORY)

    def test_many_messages_of_one_role(self):
        many = [{"role": "user", "content": "x" * 40}] * 20_000
        began = time.perf_counter()
        assert len(merge_turns(many)[0]["content"]) == 42 * 20_000 - 2
        assert time.perf_counter() - began < 1

    @pytest.mark.parametrize("kind", ["qa", "urial"])
    def test_stop_string_opens_the_next_turn(self, kind):
        one, two = (render_base(kind, HISTORY[:n]) for n in (1, 3))
        assert stop_strings(kind)[0] in two[len(one) :]

    @pytest.mark.parametrize("kind", ["QA", "urail", 3, None])
    def test_unknown_kind(self, kind):
        with pytest.raises(ParameterError, match="base_prompt must be one of plain, qa"):
            check_base_prompt(kind)


class TestAligned:
    def test_history_ends_with_an_open_answer(self):
        encoder = Encoder(make_tokenizer("byte-level", chat_template=True))
        text = render_aligned(encoder, [SYSTEM, *HISTORY])
        assert text.startswith("<|begin_of_text|><|im_start|>system\nBe brief.<|im_end|>\n")
        assert text.endswith("Another.<|im_end|>\n<|im_start|>assistant\n")

    @pytest.mark.parametrize(
        ("template", "messages", "text"),
        [
            (STRICT, [SYSTEM, HISTORY[0]], "[user]Be brief.\n\nName a city.[answer]"),
            (STRICT, [HISTORY[0], HISTORY[2]], "[user]Name a city.\n\nAnother.[answer]"),
            (STRICT, HISTORY[1:], "[user][assistant]Oslo.[user]Another.[answer]"),
            (STRICT, [SYSTEM], "[user]Be brief.[answer]"),
            (
                STRICT,
                [HISTORY[0], CALL, TOOL],
                '[user]Name a city.[assistant]<tool_call>\n{"name": "weather", "arguments": '
                '{"city": "Oslo"}}\n</tool_call>[user]<tool_response>\nRain.\n</tool_response>'
                "[answer]",
            ),
            (NO_SYSTEM, [SYSTEM, HISTORY[0]], "[user]Be brief.\n\nName a city."),
            (NO_SYSTEM, [HISTORY[0], SYSTEM], "[user]Be brief.\n\nName a city."),
            (DROPS_SYSTEM, [SYSTEM, HISTORY[0]], "[user]Be brief.\n\nName a city."),
            (SWITCHES, [{**SYSTEM, "content": "/quick"}, HISTORY[0]], "[quick][user]Name a city."),
            (
                SWITCHES,
                [{**SYSTEM, "content": "Sing. /quick"}, HISTORY[0]],
                "[quick]Sing.[user]Name a city.",
            ),
            (SWITCHES, [HISTORY[0], SYSTEM], "[slow][user]Be brief.\n\nName a city."),
            (
                SWITCHES,
                [{**SYSTEM, "content": "/quick"}, HISTORY[0], SYSTEM],
                "[slow][user]/quick\n\nBe brief.\n\nName a city.",
            ),
        ],
    )
    def test_templates_that_refuse(self, template, messages, text):
        rendered = render_aligned(templated(template), messages)
        assert rendered.removeprefix("<|begin_of_text|>") == text

    def test_template_that_refuses_everything(self):
        with pytest.raises(PromptError, match="Not today"):
            render_aligned(templated(NEVER), HISTORY)

    @pytest.mark.parametrize(
        ("template", "told"),
        [
            ("{{ 1 / 0 }}", "The template says: ZeroDivisionError: division by zero."),
            ("{{ x.y }}", "The template says: 'x' is undefined."),
            ("{% for %}", "The template says: Expected an expression"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "says: RecursionError: maximum"),
            ("{{ raise_exception('<|im_end|> ' + 'no') }}", r"says: <\|im_end\|> no\."),
            ("{{ 'a' * 10 ** 10 }}", "The template makes a text of more than"),
            ("x", "The template drops the system message."),
        ],
    )
    def test_what_a_template_that_fails_says(self, template, told):
        with pytest.raises(PromptError, match=told):
            render_aligned(templated(template), [SYSTEM, *HISTORY])

    def test_a_template_without_end_is_asked_once(self, monkeypatch):
        asked, render = [], ChatTemplate.render
        monkeypatch.setattr(ChatTemplate, "render", lambda *a: (asked.append(a), render(*a))[1])
        monkeypatch.setattr(template_bounds, "SECONDS", 0.1)
        with pytest.raises(PromptError, match="The template takes too long"):
            loop = "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2
            render_aligned(templated(loop), [SYSTEM, *HISTORY])
        assert len(asked) == 1

    def test_variables_and_tools_reach_the_template(self):
        encoder = templated("{{ enable_thinking }} {{ tools[0].name }}")
        options = {"template_kwargs": {"enable_thinking": False}, "tools": [{"name": "weather"}]}
        assert render_aligned(encoder, HISTORY, **options) == "False weather"
