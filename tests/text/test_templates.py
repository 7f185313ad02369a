"""Templates write what they write with transformers, and end whatever they do."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from jinja2 import TemplateError

from baco_integrations.core.messages import conversation
from baco_integrations.text import template_bounds
from baco_integrations.text.template_bounds import TemplateLimitError, rendering_until
from baco_integrations.text.templates import ChatTemplate
from tests.families import make_tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CALL = {"id": "a", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": [1]}}}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}
HISTORY = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "a"},
    {"role": "assistant", "content": "<think>\nno\n</think>\n\nNo.", "reasoning": "none"},
    {"role": "user", "content": "And\u00a0in Bergen 😀?", "name": "Ada"},
]

# In the manners of models: whole turns, roles between marks, tags within text, counted turns.
MANNERS = {
    "turns": """\
{%- if tools %}
    {{- '<|im_start|>system\\n<tools>' }}
    {%- for tool in tools %}
        {{- "\\n" ~ tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role in ("user", "system") or not message.tool_calls %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- else %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '<tool_call>\\n{"name": "' }}{{ tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson(indent=2) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
    "marked roles": "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content }}{% endfor %}",
    "thoughts": """\
{{- bos_token }}{%- set ns = namespace(last=messages|length - 1, text='') %}
{%- for message in messages[::-1] if message.role == "user" %}
    {%- set ns.last = loop.index0 %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<think>' ~ thought | trim ~ '</think>' }}
    {%- endif %}
    {{- message.reasoning_content or '-' }}{{ message.thinking or '' }}
    {%- set ns.text = ns.text + content | trim %}
{%- endfor %}
{{- ns.text | replace('R', 'r') }}{{ ns.last }}{{ eos_token }}""",
    "macros": """\
{%- macro turn(role, text='') -%}
    {%- if role == 'user' -%}{%- set role = 'human' -%}{%- endif -%}
    {{ '%s: %s' % (role, text) }}|{{ "{}-{}".format(role, loop_index) }}|{{ caller and caller() }}
{%- endmacro -%}
{%- for message in messages -%}
    {%- if loop.index0 % 2 == 1 and not loop.last %}{% continue %}{% endif -%}
    {%- call turn(message['role'], message['content'][:5]) -%}{{ loop.index * 2 }}{%- endcall -%}
    {%- generation %}{{ message.name | default('<none>') | upper }}{% endgeneration -%}
    {{- [1, 'a', message.role] | join('<sep>') }}{{ {'user': 'U'}.get(message.role, '?') }}
    {{- message | attr('role') }}{{ loop['index'] }}{{ [message] | map(attribute='role') | join }}
    {%- for key in {'<sep>': 1} %}{{ key }}{% endfor %}
    {{- {'role': message.role} | tojson }}{{ message.content | length ** 2 }}
{%- endfor -%}""",
}

RANGES = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LONG = "{% set a = 'a' * 100000 %}"
NESTED = "".join(
    f"{{% macro m{i}() %}}{{{{ m{i + 1}() }}}}{{{{ m{i + 1}() }}}}{{% endmacro %}}"
    for i in range(40)
)
ENDLESS = {
    "loops": RANGES,
    "macros": NESTED + "{% macro m40() %}{% endmacro %}{{ m0() }}",
    "recursion": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(50) }}",
    "recursive loop": "{% for n in [50] recursive %}{% if n %}{{ loop([n - 1] * 2) }}{% endif %}"
    "{% endfor %}",
    "filter": "{% set l = range(99999) | list %}{{ l | select('in', l) | list }}",
    "sorting": "{% for i in range(9999) %}{% set l = range(99999) | sort %}{% endfor %}",
}
HUGE = {
    "output": "{% for i in range(99999) %}" + "a" * 1000 + "{% endfor %}",
    "product": "{{ 'a' * 10 ** 10 }}",
    "product of variables": LONG + "{{ a * 1000 }}",
    "list": "{{ [messages] * 10 ** 9 }}",
    "power": "{{ 7 ** (10 ** 10) }}",
    "squares": "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
    "{% endfor %}",
    "sum": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}"
    "{% endfor %}",
    "sums": LONG + "{{ " + " + ".join("a" * 40) + " }}",
    "joined": "{% set a = 'a' %}" + "{% set a = a ~ a %}" * 40,
    "blocks": "{% set a = 'a' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40,
    "lists of lists": "{% set a = 'a' %}" + "{% set a = [a, a] %}" * 40,
    "dicts of dicts": "{% set a = 'a' %}" + "{% set a = {'x': a, 'y': a} %}" * 40,
    "arguments": "{% macro m(x) %}{{ m(x + x) }}{% endmacro %}{{ m('a') }}",
    "padding": "{{ 'a' | center(10 ** 10) }}",
    "padding method": "{{ 'a'.ljust(10 ** 10) }}",
    "bytes": "{{ (1).to_bytes(10 ** 10, 'big') }}",
    "format": "{{ '%9999999999d' % 1 }}",
    "format with width": "{{ '%*d' % (9999999999, 1) }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "format method": "{{ '{:{}}'.format(1, 9999999999) }}",
    "format of bytes": "{{ '%9999999999d'.encode() % 1 }}",
    "fields": LONG + "{{ ('%s' * 99) % ([a] * 99) }}",
    "sum of lists": "{{ ([[1]] * 1000) | sum(start=[]) }}",
    "texts of lists": "{{ 'abcd' " + "| list | string " * 20 + "}}",
    "replace": LONG + "{{ a | replace('a', a) }}",
    "replace method": LONG + "{{ a.replace('', a) }}",
    "join": LONG + "{{ range(99) | map('default', a) | join(a) }}",
    "join method": LONG + "{{ a.join(a) }}",
    "translate": LONG + "{{ a.translate({97: a}) }}",
    "tabs": "{{ ('\\t' * 100000).expandtabs(100000) }}",
    "indent": "{{ messages | tojson(indent=10 ** 10) }}",
    "quotes": "{{ '\"' " + "| tojson " * 40 + "}}",
    "slices": "{{ messages | slice(10 ** 10) | list }}",
}  # fmt: skip


DIGITS = {ord(digit): 0xD800 + int(digit) for digit in "0123456789"}


def rendered(source: str, **variables: Any) -> str:
    written = ChatTemplate(source, SPECIAL, DIGITS).render(conversation(HISTORY), variables)
    return written.translate({own: digit for digit, own in DIGITS.items()})


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_bounds, "SECONDS", 0.05)


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("manner", MANNERS)
def test_as_transformers_renders(manner: str, prompt: bool, tools: Any) -> None:
    tokenizer = make_tokenizer("sentencepiece")
    expected = tokenizer.apply_chat_template(
        HISTORY,
        tools=tools,
        chat_template=MANNERS[manner],
        add_generation_prompt=prompt,
        tokenize=False,
    )
    special = tokenizer.special_tokens_map
    letters = sorted({ord(char) for name in ("<|user|>", *special.values()) for char in name})
    alphabet = {letter: 0xD800 + place for place, letter in enumerate(letters)}
    template = ChatTemplate(MANNERS[manner], special, alphabet)
    options = {"tools": tools, "add_generation_prompt": prompt}
    marked = template.render(conversation(HISTORY), options)
    assert marked.translate({own: letter for letter, own in alphabet.items()}) == expected
    assert marked != expected


# What a template puts together of its own words and of what is said, and then looks at.
COMPOSED = "{% set t = '<b>' ~ messages[1].content ~ '</b>\\n' ~ messages[1].content ~ '</b>' %}"


@pytest.mark.parametrize(
    "look",
    [
        "{{ '<b>' in t }}",
        "{{ '<b>' ~ messages[1].content == '<b>Rain?</b>' }}",
        "{% macro b() %}<b>{% endmacro %}{{ b() != '<b>' }}",
        "{{ t.split('</b>') | join('|') }}",
        "{{ t.split('</b>', 1)[1] }}",
        "{{ t.rsplit('</b>', 1)[0] }}",
        "{{ t.partition('</b>') | join('|') }}",
        "{{ t.split() | join('|') }}{{ t.strip() }}{{ t.splitlines() | join('|') }}",
        "{{ t.startswith('<b>') }}{{ t.endswith('</b>') }}{{ t.find('</b>') }}{{ t.count('b') }}",
        "{{ t.removeprefix('<b>') }}{{ t.strip('<b>') }}",
        "{{ t.replace('</b>', '.') }}{{ t | replace('</b>', '.', count=1) }}",
        "{{ t.upper() }}{{ t | upper }}{{ t | title }}{{ t | escape }}",
        "{{ t[:4] }}{{ t | length }}{{ t | trim }}",
        "{{ ('[' ~ messages[1].content ~ '] {}').format('x') }}",
    ],
)
def test_what_is_composed_reads_as_it_does_with_transformers(look: str) -> None:
    source, alphabet = COMPOSED + look, {ord(char): 0xD800 + ord(char) for char in "/<>[]{}bB"}
    history = [*HISTORY[:1], {"role": "user", "content": "Rain?</b>"}]
    expected = make_tokenizer("wordpiece").apply_chat_template(
        history, chat_template=source, tokenize=False
    )
    marked = ChatTemplate(source, {}, alphabet).render(conversation(history), {})
    assert marked.translate({own: letter for letter, own in alphabet.items()}) == expected


@pytest.mark.parametrize(
    "cut",
    [
        "t.split('</b>')[0]",
        "t.partition('</b>')[0]",
        "t.replace('</b>', '')[:5]",
        "t.split()[0][:5]",
        "t.strip()[:5]",
    ],
)
def test_what_is_cut_out_of_a_composed_text_leaves_the_rest_as_it_is(cut: str) -> None:
    alphabet = {ord(char): 0xD800 + ord(char) for char in "/<>b"}
    source = COMPOSED.replace("[1]", "[-1]") + f"{{{{ {cut} }}}}"
    marked = ChatTemplate(source, {}, alphabet).render(conversation("Hi"), {})
    assert marked == "<b>".translate(alphabet) + "Hi"


@pytest.mark.parametrize(
    "write",
    [
        "{{ c.arguments | tojson }}",
        "{{ c.arguments if c.arguments is string else c.arguments | tojson }}",
        "{{ c.arguments }}",
        "{{ '' + c.arguments + '' }}",
        "{{ c.arguments ~ '' }}",
        "{{ '%s' % c.arguments }}",
        "{{ c.arguments | string }}",
    ],
)
def test_arguments_are_json_for_every_template(write: str) -> None:
    source = f"{{% set c = messages[2].tool_calls[0].function %}}{write}"
    assert rendered(source) == '{"city": "Oslo", "days": [1]}'


def test_arguments_can_be_looked_into() -> None:
    source = (
        "{% for k, v in messages[2].tool_calls[0].function.arguments | items %}{{ k }}={{ v }};"
    )
    assert rendered(source + "{% endfor %}") == "city=Oslo;days=[1];"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end(kind: str) -> None:
    began = time.monotonic()
    with pytest.raises(TemplateLimitError, match="takes too long"):
        rendered(ENDLESS[kind])
    assert time.monotonic() - began < 2


def test_an_earlier_deadline() -> None:
    began = time.monotonic()
    with rendering_until(began + 0.02), pytest.raises(TemplateLimitError, match="too long"):
        rendered(RANGES)
    assert time.monotonic() - began < template_bounds.SECONDS / 2


@pytest.mark.parametrize("kind", HUGE)
def test_what_grows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_bounds, "CHARACTERS", 2**18)
    began = time.monotonic()
    with pytest.raises(TemplateLimitError, match="makes a text of more than 262144 characters"):
        rendered(HUGE[kind])
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "large",
    [
        "range(99999) | join('a' * 2000)",
        "('{0:9999}' * 3000).format('')",
        "('%(a)9999s' * 3000) % {'a': ''}",
        "('%(a).9999f' * 3000) | format(a=1)",
    ],
)
def test_what_is_written_is_weighed_before_it_is_there(
    large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_bounds, "CHARACTERS", 2**18)
    tracemalloc.start()
    try:
        with pytest.raises(TemplateLimitError, match="makes a text of more"):
            rendered(f"{{{{ {large} }}}}")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("joined", "text"),
    [
        ("'abc' | join", "abc"),
        ("'abc' | join('-')", "a-b-c"),
        ("['a', 'b'] | join(d=', ')", "a, b"),
        ("messages[:2] | join(' ', attribute='role')", "system user"),
        ("{'a': 1, 'b': 2} | join", "ab"),
        ("{'a': 'x', 'b': 'y'}.values() | join('-')", "x-y"),
        ("range(3) | join", "012"),
        ("nothing | join", ""),
    ],
)
def test_whatever_has_items_is_joined(joined: str, text: str) -> None:
    assert rendered(f"{{{{ {joined} }}}}") == text


def test_what_is_large_but_not_too_large() -> None:
    text = "a <b> " * 100_000
    source = (
        "{% for m in messages %}{{ m.content.split(' ') | length }}"
        "{{ m.content | replace('<', '[') }}{{ [m.content] | tojson(indent=4) }}"
        "{{ '%s|%d' % (m.content, 10 ** 9) }}"
        "{{ '{}'.format(m.content) | indent(2) }}{{ ('-' * 80) | center(100) }}{% endfor %}"
    )
    written = ChatTemplate(source, {}, {}).render(conversation(text), {})
    assert len(written) > 4 * len(text)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ namespace(__class__=1) }}",
        "{% set n = namespace() %}{% set n._x = 1 %}",
        "{{ lipsum(n=10 ** 9) }}",
        "{% include 'x' %}",
        "{{ raise_exception('no') }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_what_fails(source: str) -> None:
    with pytest.raises((TemplateError, TypeError, ZeroDivisionError, RecursionError)):
        assert rendered(source) == "unreachable"
