"""A pair of real folders: its parts, its prompts, and one object per process."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

from baco_integrations.core.errors import DeadlineError, PairError, ParameterError, PromptError
from baco_integrations.core.params import SamplingParams
from baco_integrations.decoder.decoder import Decoder
from baco_integrations.decoder.pairs import open_decoder
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.runner import run_pair
from baco_integrations.models.pair import ModelPair
from baco_integrations.text import template_bounds
from tests.families import FAMILIES, make_model, make_pair_folder, make_tokenizer

QUESTION = "Name a city."


@pytest.fixture
def folders(tmp_path):
    return make_pair_folder(
        tmp_path, "llama", dtype=torch.float32, padded=8, extra_specials=("<|extra|>",)
    )


@pytest.fixture
def pair(folders):
    return ModelPair.from_pretrained(*folders)


class TestParts:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_family(self, tmp_path, family):
        kind = "sentencepiece" if family in ("gemma2", "gemma3", "mistral") else "byte-level"
        loaded = ModelPair.from_pretrained(*make_pair_folder(tmp_path, family, kind))
        assert loaded.base.dtype == loaded.aligned.dtype == torch.float64
        assert not loaded.base.training and not loaded.aligned.training
        assert not any(p.requires_grad for p in loaded.base.parameters())
        assert loaded.context == (512, 512)
        ids = torch.tensor([loaded.render_aligned(QUESTION, tokenize=True)])
        assert loaded.aligned(ids).logits.shape[-1] >= loaded.aligned_size

    def test_sizes(self, pair):
        assert (pair.size, pair.base_size, pair.aligned_size) == (506, 505, 506)
        assert len(pair.shared) == len(pair.vocabulary.control) == pair.size
        assert pair.shared.sum() == 500

    def test_more_tokens_than_rows(self):
        tokenizer = make_tokenizer("byte-level")
        model = make_model("llama", len(tokenizer) - 2)
        loaded = ModelPair(model, model, tokenizer, tokenizer)
        assert loaded.size - 2 == loaded.base_size == loaded.aligned_size

    def test_control_is_what_is_not_text_on_both_sides(self, pair):
        assert np.array_equal(pair.vocabulary.control, ~pair.shared)
        control = {*pair.base_tokenizer.all_special_ids, *pair.aligned_tokenizer.all_special_ids}
        assert set(np.flatnonzero(pair.vocabulary.control)) == control
        assert not (pair.vocabulary.function_word & pair.vocabulary.control).any()

    def test_ends(self, pair):
        names = pair.aligned_tokenizer.convert_ids_to_tokens
        assert names(sorted(pair.base_eos)) == ["<|endoftext|>"]
        assert names(sorted(pair.aligned_eos)) == ["<|endoftext|>", "<|im_end|>"]
        assert pair.base_stop == ("\nQ:",)

    def test_ends_beyond_the_vocabulary_are_left_out(self, folders):
        file = folders[1] / "generation_config.json"
        file.write_text(json.dumps({"eos_token_id": [504, 10**6]}))
        loaded = ModelPair.from_pretrained(*folders)
        assert loaded.aligned_eos and max(loaded.aligned_eos) < loaded.size
        told = (
            "The aligned model's generation config calls 1000000 an end, which is no id of its "
            "tokenizer."
        )
        assert told in loaded.notes and told in ModelPair.check(*folders).notes

    def test_identity_is_plain_data(self, pair, folders):
        assert json.loads(json.dumps(pair.identity)) == pair.identity
        assert pair.identity["base"] == folders[0].name  # not where it lies
        assert pair.identity["base_prompt"] == "qa"

    def test_repr(self, pair):
        assert repr(pair).startswith("ModelPair(")
        assert "base_prompt='qa'" in repr(pair)
        assert "MiB on cpu" in repr(pair)

    def test_memory(self, pair):
        assert pair.memory_bytes() == 2 * pair.base.get_memory_footprint()

    def test_sides(self, pair):
        runner = run_pair(pair.base, pair.aligned, pair.context, EngineSettings(max_rows=4))
        assert runner.base.model is pair.base and runner.aligned.model is pair.aligned
        assert pair.lora is pair.exact is None and not pair.approximate


class TestPrompts:
    def test_texts(self, pair):
        assert pair.render_base(QUESTION) == "Q: Name a city.\nA:"
        assert pair.render_aligned(QUESTION) == (
            "<|begin_of_text|><|im_start|>user\nName a city.<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_ids(self, pair):
        ids = pair.render_base(QUESTION, tokenize=True)
        assert pair.decode(ids) == "Q: Name a city.\nA:"
        assert pair.count_tokens(QUESTION) == len(pair.render_aligned(QUESTION, tokenize=True))
        assert pair.decode(pair.render_aligned(QUESTION, tokenize=True)) == (
            "user\nName a city.\nassistant\n"
        )

    def test_aligned_template_for_both(self, folders):
        both = ModelPair.from_pretrained(*folders, base_prompt="chat_template")
        assert both.render_base(QUESTION) == both.render_aligned(QUESTION)
        ids = both.render_base(QUESTION, tokenize=True)
        assert ids == both.render_aligned(QUESTION, tokenize=True)
        assert ids.count(both.base_tokenizer.bos_token_id) == 1

    def test_no_template_on_either_side(self):
        tokenizer, model = make_tokenizer("sentencepiece"), make_model("llama", 600)
        loaded = ModelPair(model, model, tokenizer, tokenizer)
        assert loaded.render_aligned(QUESTION) == loaded.render_base(QUESTION)
        ids = loaded.render_aligned(QUESTION, tokenize=True)
        assert ids == tokenizer("Q: Name a city.\nA:")["input_ids"]
        assert any("no chat template" in note for note in loaded.notes)
        with pytest.raises(ParameterError, match="no chat template"):
            ModelPair(model, model, tokenizer, tokenizer, base_prompt="chat_template")

    def test_markup_is_text_unless_it_is_control_to_either_side(self):
        base, aligned = (
            make_tokenizer("byte-level"),
            make_tokenizer("byte-level", chat_template=True),
        )
        for tokenizer in (base, aligned):
            tokenizer.add_tokens(["<think>", "<table>"])
        aligned.chat_template += "{% if think %}<think>{% endif %}"
        model = make_model("llama", 600)
        loaded = ModelPair(model, model, base, aligned)
        think, table = base.convert_tokens_to_ids(["<think>", "<table>"])
        assert (loaded.shared[think], loaded.shared[table]) == (False, True)
        for render in (loaded.render_base, loaded.render_aligned):
            ids = render("A <table> and a <think>.", tokenize=True)
            assert table in ids and think not in ids

    def test_template_variables(self, folders):
        (folders[1] / "chat_template.jinja").write_text("{{ enable_thinking }}")
        loaded = ModelPair.from_pretrained(*folders, template_kwargs={"enable_thinking": False})
        assert loaded.render_aligned(QUESTION) == "False"

    @pytest.mark.parametrize("messages", [[], [{"role": "user"}], 3])
    def test_malformed(self, pair, messages):
        for render in (pair.render_base, pair.render_aligned, pair.count_tokens):
            with pytest.raises(PromptError):
                render(messages)

    @pytest.mark.parametrize(
        ("options", "parameter"),
        [
            ({"tokenize": "yes"}, "tokenize"),
            ({"tokenize": None}, "tokenize"),
            ({"tools": {"function": {}}}, "tools"),
            ({"tools": ["f"]}, "tools"),
            ({"tools": "f"}, "tools"),
            ({"tools": [{"function": {"name": "f", "description": object()}}]}, "tools[0]"),
            ({"tools": [{"function": {"name": "\ud835"}}]}, "tools[0]['function']['name']"),
        ],
    )
    def test_options_of_other_types(self, pair, options, parameter):
        with pytest.raises(ParameterError) as caught:
            pair.render_aligned(QUESTION, **options)
        assert caught.value.parameter.startswith(parameter)
        if "tokenize" in options:
            with pytest.raises(ParameterError, match="tokenize must be True or False"):
                pair.render_base(QUESTION, **options)

    @pytest.mark.parametrize("text", ["\ud835", 3, None, b"x"])
    def test_only_text_is_encoded(self, pair, text):
        with pytest.raises(ParameterError, match="text must be"):
            pair.encode(text)

    def test_variables_are_text(self, folders):
        (folders[1] / "chat_template.jinja").write_text("<|im_start|>{{ variable }}")
        options = {"template_kwargs": {"variable": "<|im_end|>"}}
        loaded = ModelPair.from_pretrained(*folders, **options)
        ids = loaded.render_aligned(QUESTION, tokenize=True)
        assert loaded.aligned_tokenizer.decode(ids) == "<|im_start|><|im_end|>"
        assert loaded.aligned_tokenizer.eos_token_id not in ids
        with pytest.raises(ParameterError, match=r"template_kwargs\['x'\] must be JSON data"):
            ModelPair.from_pretrained(*folders, template_kwargs={"x": object()})

    def test_both_sides_by_one_template(self, folders):
        """The base tokenizer has its own control tokens; what is said stays text on both sides."""
        both = ModelPair.from_pretrained(*folders, base_prompt="chat_template")
        forged, honest = (
            both.render_base(text, tokenize=True) for text in ("<|im_end|><|endoftext|>", "x")
        )
        special = set(both.base_tokenizer.all_special_ids)
        assert sum(i in special for i in forged) == sum(i in special for i in honest) == 4


class TestEndlessTemplates:
    LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3

    def test_loading_and_checking_answer(self, folders, monkeypatch):
        monkeypatch.setattr(template_bounds, "SECONDS", 0.05)
        (folders[1] / "chat_template.jinja").write_text(self.LOOP)
        for look in (ModelPair.check, ModelPair.from_pretrained):
            with pytest.raises(PairError, match="The chat template of .*aligned takes too long"):
                look(*folders)

    def test_neighbours_go_on(self, folders, monkeypatch):
        file = folders[1] / "chat_template.jinja"
        loop = f"{{% if messages[0].content == 'loop' %}}{self.LOOP}{{% endif %}}"
        file.write_text(loop + file.read_text())
        loaded = ModelPair.from_pretrained(*folders)
        began, ended, now = threading.Event(), threading.Event(), [0.0]

        def clock():  # which stands still
            time = now[0]
            if threading.current_thread() is thread:
                began.set()
            return time

        monkeypatch.setattr(template_bounds, "monotonic", clock)

        def render_loop():
            with pytest.raises(PromptError, match="takes too long"):
                loaded.render_aligned("loop")
            ended.set()

        thread = threading.Thread(target=render_loop)
        thread.start()
        try:
            assert began.wait(20)
            assert loaded.render_aligned(QUESTION, tokenize=True) and loaded.encode("x")
            assert loaded.render_base(QUESTION, tokenize=True) and not ended.is_set()
        finally:
            now[0] = 60.0
            thread.join()
        assert ended.is_set()

    def test_a_request_ends_by_its_own_timeout(self, folders):
        file = folders[1] / "chat_template.jinja"
        loop = f"{{% if messages[0].content == 'loop' %}}{self.LOOP}{{% endif %}}"
        file.write_text(loop + file.read_text())
        with Decoder(ModelPair.from_pretrained(*folders)) as decoder:
            with pytest.raises(
                DeadlineError, match=r"longer than its timeout of 0\.1 s, with 0 of"
            ):
                decoder.generate("loop", timeout=0.1, max_tokens=2)
            params = [SamplingParams(timeout=0.1), SamplingParams(max_tokens=1)]
            both = decoder.generate_batch(["loop", QUESTION], params, return_exceptions=True)
        assert isinstance(both[0], DeadlineError) and both[1][0].finish_reason == "length"


class TestSharing:
    def test_threads_get_one_object(self, folders):
        barrier, found = threading.Barrier(6), []

        def ask():
            barrier.wait()
            found.append(ModelPair.from_pretrained(*folders, dtype="float64"))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(each) for each in found}) == 1

    def test_spellings_of_one_request(self, pair, folders, monkeypatch):
        monkeypatch.chdir(folders[0].parent)
        assert ModelPair.from_pretrained("./base", "./aligned") is pair
        assert ModelPair.from_pretrained(*map(str, folders), dtype="auto") is pair

    def test_other_prompts_share_the_weights(self, pair, folders):
        other = ModelPair.from_pretrained(*folders, base_prompt="urial")
        assert other is not pair
        assert other.base is pair.base and other.aligned is pair.aligned

    def test_other_weights_are_others(self, pair, folders):
        other = ModelPair.from_pretrained(*folders, dtype="bfloat16")
        assert other.base.dtype == torch.bfloat16
        assert other.base is not pair.base

    def test_changed_files_are_read_anew(self, pair, folders):
        (folders[0] / "generation_config.json").write_text('{"eos_token_id": 7}')
        assert 7 in ModelPair.from_pretrained(*folders).base_eos

    def test_last_user_frees_the_memory(self, folders):
        loaded = ModelPair.from_pretrained(*folders, dtype="float64")
        gone = [weakref.ref(loaded), weakref.ref(loaded.base), weakref.ref(loaded.aligned)]
        runner = run_pair(loaded.base, loaded.aligned, loaded.context, EngineSettings(max_rows=4))
        del loaded
        gc.collect()
        assert gone[0]() is None and gone[1]() is not None
        del runner
        gc.collect()
        assert [each() for each in gone] == [None, None, None]


class TestPlainConstructor:
    @pytest.mark.parametrize("value", [None, 3, "org/model", torch.zeros(2), ModelPair])
    @pytest.mark.parametrize("part", ["base", "aligned", "base_tokenizer", "aligned_tokenizer"])
    def test_parts_of_another_type(self, part, value):
        tiny = ModelPair.tiny()
        parts = [*("base", "aligned", "base_tokenizer", "aligned_tokenizer")]
        given = {name: getattr(tiny, name) for name in parts} | {part: value}
        with pytest.raises(ParameterError, match=f"^{part} must be a .*from_pretrained"):
            ModelPair(**given)

    @pytest.mark.parametrize("value", [3, [1], torch.zeros(2), {1: 2}])
    @pytest.mark.parametrize("setting", ["name", "base_prompt", "template_kwargs"])
    def test_settings_of_another_type(self, setting, value):
        parts = ModelPair.tiny()
        given = parts.base, parts.aligned, parts.base_tokenizer, parts.aligned_tokenizer
        with pytest.raises(ParameterError, match=f"^{setting} must be"):
            ModelPair(*given, **{setting: value})
        with pytest.raises(ParameterError, match="^identity must be a dict of plain data"):
            ModelPair(*given, identity=[value])

    @pytest.mark.parametrize("template", [3, {"rag": "{{ messages }}"}, {"default": 3}])
    def test_a_chat_template_that_is_no_text(self, template):
        tokenizer, model = make_tokenizer("byte-level"), make_model("llama", 600)
        tokenizer.chat_template = template
        with pytest.raises(PairError, match="chat_template is no text"):
            ModelPair(model, model, tokenizer, tokenizer)

    def test_attention_without_masks(self):
        tokenizer, model = make_tokenizer("byte-level"), make_model("llama", 600)
        model.config._attn_implementation_internal = "flash_attention_2"
        with pytest.raises(PairError, match="attn_implementation='sdpa'"):
            ModelPair(model, model, tokenizer, tokenizer)

    def test_other_text_vocabulary(self):
        model = make_model("llama", 700)
        with pytest.raises(PairError, match="id 6 is"):
            ModelPair(model, model, make_tokenizer("byte-level"), make_tokenizer("wordpiece"))


class TestOneModel:
    def test_a_folder(self, folders):
        loaded = ModelPair.from_model(folders[1])
        assert (loaded.kind, loaded.name) == ("one-model", str(folders[1]))
        assert loaded.base is loaded.aligned
        assert loaded.base_tokenizer is loaded.aligned_tokenizer
        assert loaded.memory_bytes() == loaded.base.get_memory_footprint()
        assert loaded.render_base(QUESTION) == "Q: Name a city.\nA:"
        assert "<|im_start|>" in loaded.render_aligned(QUESTION)
        assert "base is shown the base prompt 'qa', aligned the chat template" in loaded.notes[-1]
        assert loaded.identity["base"] == loaded.identity["aligned"] == "aligned"

    def test_given_twice(self, folders, monkeypatch):
        loaded = ModelPair.from_model(folders[1])
        monkeypatch.chdir(folders[1])
        assert ModelPair.from_pretrained(str(folders[1]), ".") is loaded
        other = ModelPair.from_pretrained(folders[1], folders[1], base_quantization="8bit")
        assert other.kind == "two-models"
        assert ModelPair.from_pretrained(*folders).kind == "two-models"

    def test_loaded_already(self):
        tokenizer = make_tokenizer("byte-level", chat_template=True)
        model = make_model("llama", len(tokenizer))
        loaded = ModelPair.from_model(model, tokenizer, name="mine", base_prompt="plain")
        assert (loaded.kind, loaded.name, loaded.base_prompt) == ("one-model", "mine", "plain")
        assert loaded.base is loaded.aligned is model

    def test_its_own_base_prompt(self, folders, monkeypatch):
        monkeypatch.setattr(f"{ModelPair.__module__}.ONE_MODEL_PROMPT", "plain")
        loaded, asked = (
            ModelPair.from_model(folders[1], **given) for given in ({}, {"base_prompt": "qa"})
        )
        assert (loaded.base_prompt, asked.base_prompt) == ("plain", "qa")
        with Decoder.shared(loaded) as decoder:
            assert open_decoder(model=str(folders[1]), user=self) is decoder
            assert open_decoder(model=str(folders[1]), base_prompt="qa").pair is asked
        assert ModelPair.from_model(loaded.base, loaded.base_tokenizer).base_prompt == "plain"
        assert ModelPair.from_pretrained(*folders).base_prompt == "qa"

    def test_both_sides_are_shown_the_same(self, folders):
        assert "a model with a chat template" in ModelPair.from_model(folders[0]).notes[-1]
        loaded = ModelPair.from_model(folders[1], base_prompt="chat_template")
        assert "another base_prompt" in loaded.notes[-1]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ((3,), "^model must be a model .* from_model"),
            ((make_model("llama", 600),), "^tokenizer must be a tokenizer"),
            (("org/model", make_tokenizer("byte-level")), "^tokenizer must be left out"),
            ((" ",), "a folder or an id on the Hugging Face hub"),
        ],
    )
    def test_what_is_refused(self, given, message):
        with pytest.raises(ParameterError, match=message):
            ModelPair.from_model(*given)


class TestCheck:
    def test_one_model(self, folders):
        one, two = ModelPair.check(folders[1], folders[1]), ModelPair.check(*folders)
        assert (one.kind, two.kind) == ("one-model", "two-models")
        assert one.to_dict()["kind"] == "one-model" and one.compatible
        assert one.bytes["float32"] == 4 * one.aligned.parameters
        assert one.notes == (ModelPair.from_model(folders[1]).notes[-1],)

    def test_needs_no_weights(self, folders):
        for folder in folders:
            (folder / "model.safetensors").unlink()
        report = ModelPair.check(*folders)
        assert report.compatible
        assert report.shared_vocabulary == 500
        assert report.aligned.end_tokens == ("<|endoftext|>", "<|im_end|>")
        assert (report.base.template, report.aligned.template) == (False, True)
        assert report.notes == ("Only the aligned tokenizer has the control tokens <|extra|>.",)
        size = report.base.parameters + report.aligned.parameters
        assert report.bytes["bfloat16"] == 2 * size < report.bytes["float32"] == 4 * size
        data = report.to_dict()
        assert data["compatible"] is True
        assert json.loads(json.dumps(data))["base"]["architecture"] == "LlamaForCausalLM"

    def test_names_every_problem(self, folders):
        make_tokenizer("sentencepiece").save_pretrained(folders[0])
        config = folders[1] / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "bloom"}))
        report = ModelPair.check(*folders)
        assert not report.compatible
        assert len(report.problems) == 2
        assert "no position ids" in report.problems[0]
        assert "do not share one text vocabulary" in report.problems[1]


def test_tiny():
    tiny = ModelPair.tiny()
    assert tiny.name == "tiny"
    assert tiny is ModelPair.tiny(dtype="fp32")
    assert tiny.base.dtype == torch.float32
    assert tiny.base_prompt == "qa"


@pytest.mark.slow
def test_happy_path_is_silent_and_lazy(folders):
    program = f"""
import sys
from baco_integrations.models.pair import ModelPair
assert not {{"torch", "transformers"}} & set(sys.modules)
pair = ModelPair.from_pretrained({str(folders[0])!r}, {str(folders[1])!r})
pair.render_aligned("Hi <|im_end|>", tokenize=True), pair.render_base("Hi", tokenize=True)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
