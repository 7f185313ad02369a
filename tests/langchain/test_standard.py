"""LangChain's own suites for chat models.

The unit tests run on the embedded pair. The integration tests ask for things that only a competent
model does (copy an argument, call the right tool, stop calling after the result), so they run on a
scripted one that does them: the decoder, the grammar and the parsing of calls are the real ones.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models
from langchain_tests.unit_tests import ChatModelUnitTests

from baco_integrations import ScriptedPair
from baco_integrations.langchain import ChatBACo
from baco_integrations.models.scripted import END, Context

load = importlib.import_module("langchain_core.load.load")  # hidden behind a function of its name


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatBACo]:
        return ChatBACo

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"pair": "tiny"}

    @pytest.fixture(autouse=True)
    def _trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # `allowed_objects="all"` means the classes on core's own list of partners. Anybody else's
        # are loaded with `allowed_objects=[ChatBACo]`; the suite has no way to say so.
        paths = load._get_default_allowed_class_paths("all") | {tuple(ChatBACo.lc_id())}
        monkeypatch.setitem(load._default_class_paths_cache, "all", paths)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_serialized_objects_are_loaded_where_the_class_is_trusted() -> None:
    llm = ChatBACo(pair="tiny", gamma=0.3, stop=["x"], timeout=9)
    again = load.load(
        dumpd(llm), allowed_objects=[ChatBACo], valid_namespaces=["baco_integrations"]
    )
    assert again == llm
    with pytest.raises(ValueError, match="not allowed"):
        load.load(dumpd(llm), allowed_objects="core")


def fill(schema: dict[str, Any], text: str, root: dict[str, Any], name: str = "") -> Any:
    """A value that a schema allows, with numbers and quoted strings copied from the text."""
    if "$ref" in schema:
        return fill(root["$defs"][schema["$ref"].split("/")[-1]], text, root, name)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if options := schema.get("anyOf", schema.get("oneOf")):
        return fill(options[0], text, root, name)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        return {
            key: fill(value, text, root, key) for key, value in schema.get("properties", {}).items()
        }
    if kind == "array":
        return [fill(schema.get("items", {"type": "string"}), text, root, name)]
    if kind in ("integer", "number"):
        return int((re.findall(r"\d+", text) or ["1"])[0])
    quoted = re.findall(r"'([^']+)'", text) if "name" in name else []
    return {"boolean": True, "null": None}.get(kind, (quoted or [text.strip()])[0])


def answer(prompt: str) -> str:
    """What a competent model would say."""
    lines = prompt.splitlines()
    tools = [json.loads(line[9:]) for line in lines if line.startswith("offered: ")]
    role, text = re.findall(r"^(system|user|assistant|tool): (.*)", prompt, re.M)[-1]
    if schema := re.search(r"follows this schema:\n(\{.*)", prompt):
        form = json.loads(schema[1])
        return json.dumps(fill(form, text, form), ensure_ascii=False)
    if keys := re.findall(r"['`](\w+)['`]", prompt) if "JSON" in prompt else []:
        return json.dumps(dict.fromkeys(keys, "Because."))
    if not tools or role != "user":
        return "Hello there, what can I do for you today?"
    tool = next((tool for tool in tools if tool["name"] in text), tools[0])
    arguments = fill(tool["parameters"], text, tool["parameters"])
    call = json.dumps({"name": tool["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def competent() -> ScriptedPair:
    # Where the grammar lets the script not have its way, it closes what is open.
    characters = set(Path(chat_models.__file__).read_text()) | set(map(chr, range(32, 127)))
    vocabulary = ['"', "}", "]", *sorted(characters | {"\n"} - set('"}]'))]

    def script(context: Context) -> dict[str, float]:
        wanted, said = answer(context.prompt), context.text
        following = wanted[len(said) : len(said) + 1] if wanted.startswith(said) else ""
        weights = {token: 1e-6 / (place + 1) for place, token in enumerate(vocabulary)}
        return {**weights, (following or END): 1.0}

    return ScriptedPair(script, script, vocabulary=vocabulary, context=16384)


PAIR = competent()


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatBACo]:
        return ChatBACo

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"pair": PAIR}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {**super().standard_chat_model_params, "max_tokens": 400}

    @property
    def supports_json_mode(self) -> bool:
        return True


def test_every_skip_has_its_reason(request: pytest.FixtureRequest) -> None:
    """Images, sounds, files, other APIs' content and recorded traffic are not for a local pair."""
    flags = TestIntegration()
    assert not (flags.supports_image_inputs or flags.supports_audio_inputs)
    assert flags.has_tool_calling and flags.has_tool_choice and flags.has_structured_output
