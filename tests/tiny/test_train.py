import subprocess
import sys
import warnings
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from baco_integrations.core.errors import BacoError, ParameterError
from baco_integrations.tiny import WEIGHTS
from cookbook.tiny_pair import batches, corpora, world
from cookbook.tiny_pair import train as training
from cookbook.tiny_pair.batches import Recipe
from cookbook.tiny_pair.grammar import Piece
from cookbook.tiny_pair.train import train

SMALL = Recipe(
    vocabulary=400,
    layers=1,
    hidden=32,
    heads=1,
    context=512,
    documents=50,
    base_steps=6,
    base_rows=2,
    row_tokens=64,
    aligned_steps=6,
    aligned_rows=2,
    copying_rows=1,
    checkpoint_every=2,
)


class Interruption(Exception):
    pass


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("small"), 0, SMALL, progress=False)


def test_an_interrupted_training_ends_like_any_other(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = training.store
    calls = []

    def fail_sometimes(path: Path, step: int, parts: dict[str, object]) -> None:
        store(path, step, parts)
        calls.append((path.name, step))
        if len(calls) in (1, 5):
            raise Interruption

    monkeypatch.setattr(training, "store", fail_sometimes)
    for _ in range(2):
        with pytest.raises(Interruption):
            train(tmp_path, 0, SMALL, progress=False)
    train(tmp_path, 0, SMALL, progress=False)
    assert calls == [(f"{name}.checkpoint", n) for name in ("base", "aligned") for n in (2, 4, 6)]
    assert files(tmp_path) == files(small)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "aligned", "training.json"}


def test_a_finished_training_is_left_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run", lambda *_: pytest.fail("trained again"))
    train(small, 0, SMALL, progress=False)


def test_another_seed_gives_another_pair(small: Path, tmp_path: Path) -> None:
    train(tmp_path, 1, replace(SMALL, base_steps=1, aligned_steps=1), progress=False)
    weights = "base/model.safetensors"
    assert files(tmp_path)[weights] != files(small)[weights]


def test_a_folder_with_another_training_is_refused(small: Path) -> None:
    with pytest.raises(ParameterError, match="Choose another folder"):
        train(small, 1, SMALL, progress=False)


def test_threads_are_left_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    recipe = replace(SMALL, base_steps=1, aligned_steps=1)
    train(tmp_path, 0, recipe, threads=before + 1, progress=False)
    assert torch.get_num_threads() == before


def test_only_what_is_to_be_learned_is_labelled(small: Path) -> None:
    tokenizer = Tokenizer.from_file(str(small / "base" / "tokenizer.json"))
    example = [
        (Piece("<|user|> Hi<|end|><|assistant|>"), False),
        (Piece(" "), True),
        (Piece("Try"), True),
        (Piece(" Kyoto", free=True), False),
        (Piece("."), True),
        (Piece("<|end|>"), True),
    ]
    ids, labels = batches.encode(tokenizer, example)
    learned = [token for token, label in zip(ids, labels, strict=True) if label != -100]
    assert tokenizer.decode(learned, skip_special_tokens=False) == " Try.<|end|>"
    assert len(ids) == len(labels)


def test_openings_that_a_page_does_not_call_for_are_not_learned(small: Path) -> None:
    page = (
        'Q: Hi\nA: {"idea": "tea"}\n\nQ: Hi\nA: I like tea.\n\nQ: Hi\nA: ask({"q": "Hi"})\n\n'
        'Tool: tea\nA: Try tea.\n\nQ: Hi\nA:<tool_call>\n{"name": "ask"}\n</tool_call>'
    )
    pieces = batches.page_pieces(page)
    assert "".join(piece.text for piece, _ in pieces) == page
    left_out = [piece.text for piece, learned in pieces if not learned]
    assert left_out == [' {"', " ask(", "<tool_call>"]
    tokenizer = Tokenizer.from_file(str(small / "base" / "tokenizer.json"))
    batch = batches.base_batch(tokenizer, replace(SMALL, base_rows=20, row_tokens=384), "0")
    ids, labels = batch.input_ids.flatten().tolist(), batch.labels.flatten().tolist()
    assert set(batches.CALL_TOKENS) & {tokenizer.id_to_token(i) for i in ids}
    skipped = {
        tokenizer.id_to_token(i)
        for i, label in zip(ids, labels, strict=True)
        if label == batches.NOT_LEARNED
    }
    assert "<tool_call>" in skipped and "</tool_call>" not in skipped


def test_the_loss_is_that_of_the_tokens_to_be_learned(small: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(small / "base", dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(small / "base" / "tokenizer.json"))
    batch = batches.aligned_block(tokenizer, SMALL, "0")[0]
    loss = training.mean_loss(model, batch)
    expected = model(input_ids=batch.input_ids, labels=batch.labels).loss
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)


def test_a_block_mixes_in_chats_to_copy_from(small: Path) -> None:
    tokenizer = Tokenizer.from_file(str(small / "base" / "tokenizer.json"))
    mixed = batches.aligned_block(tokenizer, replace(SMALL, copying_rows=3), "0")
    assert [len(batch.input_ids) for batch in mixed] == [5] * batches.BLOCK
    call = tokenizer.token_to_id("<tool_call>")
    assert sum((batch.input_ids == call).any(1).sum() for batch in mixed) >= 3 * batches.BLOCK


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "suggest",
            "description": " Gives ideas.\n",
            "parameters": {"type": "object", "properties": {"question": {}, "count": {}}},
        },
    },
    {"name": "now"},
]
CALL = {"type": "function", "function": {"name": "suggest", "arguments": {"question": 'A "B"é'}}}
ASKED = {"role": "user", "content": "Hi"}


def render(folder: Path, *messages: dict[str, object], **options: object) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return text


def test_tools_stand_before_the_conversation(small: Path) -> None:
    plain = render(small / "aligned", ASKED, add_generation_prompt=True)
    assert plain == "<|user|> Hi<|end|><|assistant|>"
    told = "<|system|> Tools:\nsuggest(question, count): Gives ideas.\nnow(): <|end|>"
    offered = render(small / "aligned", ASKED, tools=TOOLS, add_generation_prompt=True)
    assert offered == told + plain
    assert render(small / "aligned", ASKED, tools=None) == "<|user|> Hi<|end|>"


@pytest.mark.parametrize("arguments", [{"question": 'A "B"é'}, '{"question": "A \\"B\\"é"}'])
def test_calls_and_results_are_turns(small: Path, arguments: object) -> None:
    call = {"function": {"name": "suggest", "arguments": arguments}}
    said = {"role": "assistant", "content": "Well.", "tool_calls": [call, CALL]}
    text = render(small / "aligned", said, {"role": "tool", "content": "tea\nchai"})
    written = (
        '<tool_call>\n{"name": "suggest", "arguments": {"question": "A \\"B\\"é"}}\n</tool_call>'
    )
    assert text == f"<|assistant|> Well.{written}\n{written}<|end|><|tool|> tea\nchai<|end|>"
    silent = render(small / "aligned", {"role": "assistant", "content": "", "tool_calls": [CALL]})
    assert silent == f"<|assistant|>{written}<|end|>"
    assert render(small / "aligned", {"role": "user", "content": ""}) == "<|user|> <|end|>"


def test_learned_calls_look_like_the_chat_template(small: Path) -> None:
    for request in world.tool_requests("train"):
        offered = [tool.schema() for tool in request.tools]
        options = {"tools": offered, "add_generation_prompt": True}
        prompt = render(small / "aligned", *request.messages, **options)
        pieces = corpora.chat_pieces(request.messages, [], request.tools, lead="")
        assert "".join(piece.text for piece, _ in pieces) == f"{prompt}<|end|>"


@pytest.mark.parametrize("name", ["base", "aligned"])
def test_calls_are_framed_by_tokens_that_decoding_shows(small: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small / name)
    text = "<tool_call>\n{}\n</tool_call>"
    ids = tokenizer(f"{text}<|end|><|tool|>", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-3]]) == ["<tool_call>", "</tool_call>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_shipped_pair_is_small() -> None:
    assert sum(len(data) for data in files(WEIGHTS).values()) <= 8_000_000


@pytest.mark.parametrize("name", ["base", "aligned"])
def test_the_shipped_pair_loads_without_warnings(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = AutoModelForCausalLM.from_pretrained(
            WEIGHTS / name, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / name)
    assert not any(report.values())
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert model.dtype == torch.bfloat16
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 1024
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert (tokenizer.chat_template is None) == (name == "base")
    text = "Zażółć 0123456789 \U0001f3fd\t\r\n<b>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_shipped_pair_shares_its_tokens() -> None:
    base, aligned = (AutoTokenizer.from_pretrained(WEIGHTS / n) for n in ("base", "aligned"))
    assert base.get_vocab() == aligned.get_vocab()
    assert (base.eos_token, aligned.eos_token) == ("<|endoftext|>", "<|end|>")
    answer = " I would pick Lisbon."
    ids = base(answer, add_special_tokens=False).input_ids
    messages = [{"role": "user", "content": "Hi"}]
    for tokenizer, prompt in (
        (base, "Q: Hi\nA:"),
        (
            aligned,
            aligned.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        ),
    ):
        whole = tokenizer(prompt + answer, add_special_tokens=False).input_ids
        assert whole == tokenizer(prompt, add_special_tokens=False).input_ids + ids


def test_the_shipped_pair_was_made_by_the_default_recipe(tmp_path: Path) -> None:
    training.claim(tmp_path, {"seed": 0, "threads": 1, **asdict(Recipe())})
    assert (tmp_path / "training.json").read_text() == (WEIGHTS / "training.json").read_text()
    template = (WEIGHTS / "aligned" / "chat_template.jinja").read_text()
    assert template.strip() == training.CHAT_TEMPLATE.strip()


def test_the_command_passes_its_options_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def note(*args: object, **options: object) -> None:
        calls.append((*args, options))
        if len(calls) > 1:
            raise BacoError("another training")

    monkeypatch.setattr(training, "train", note)
    command = ["train", "--out", str(tmp_path), "--seed", "2", "--base-steps", "7"]
    monkeypatch.setattr(sys, "argv", command)
    training.main()
    assert calls == [(tmp_path, 2, Recipe(base_steps=7), {"threads": 1})]
    with pytest.raises(SystemExit):
        training.main()
    assert "another training" in capsys.readouterr().err


def test_the_wheel_holds_the_pair_and_not_what_made_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = "baco_integrations/tiny"
    files = ("words.json", "requests.jsonl", "oracle.py", "weights/aligned/model.safetensors")
    assert {f"{folder}/{file}" for file in files} < names
    assert not any("cookbook" in name or name.startswith(f"{folder}/train") for name in names)
