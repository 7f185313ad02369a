"""lm-evaluation-harness asks the server: tasks of one's own, and IFEval and GSM8K as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from baco_integrations import tiny
from tests.server.page import ADDRESS, block
from tests.server.serving import Serving

pytestmark = pytest.mark.slow

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["."], temperature: 0.7, max_gen_toks: 40}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - name: place
    filter: [{{function: regex, regex_pattern: "(\\\\w+)$"}}, {{function: take_first}}]
"""
OWN = "lm_eval run --include_path . --tasks own --output_path out"
GSM8K_CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: train.jsonl}, {split: test, path: test.jsonl}]
---
"""


def lm_eval(folder: Path, command: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a command in a folder, without a network, and return its results and samples."""
    (folder / "nltk" / "tokenizers" / "punkt_tab").mkdir(parents=True, exist_ok=True)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "NLTK_DATA": str(folder / "nltk"),  # it looks for this folder, or else for a network
    }
    whole = f"{command.strip()} --log_samples"
    done = subprocess.run(
        ["bash", "-c", whole], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = (folder / "out").rglob("results_*.json")
    samples = [path.read_text() for path in (folder / "out").rglob("samples_*.jsonl")]
    rows = [json.loads(line) for text in samples for line in text.splitlines()]
    return json.loads(results.read_text())["results"], rows


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def own_task(folder: Path, *questions: str) -> None:
    rows = [{"question": question, "answer": "Lisbon"} for question in questions]
    write_rows(folder / "asked.jsonl", *rows)
    (folder / "own.yaml").write_text(TASK.format(name="own", data=folder / "asked.jsonl"))


def test_chats_of_a_task_of_ones_own(tmp_path: Path, served: Serving) -> None:
    own_task(tmp_path, "Name a place to visit.", "Suggest a city for a trip.")
    where = f"base_url={served.api}/chat/completions,model=tiny@gamma=0.6,num_concurrent=2"
    command = f"{OWN} --model local-chat-completions --model_args {where} --apply_chat_template"
    results, samples = lm_eval(tmp_path, command)
    assert 0 <= results["own"]["exact_match,place"] <= 1
    assert len(samples) == 2 and all(sample["filtered_resps"][0] for sample in samples)


def test_texts_of_a_task_of_ones_own(tmp_path: Path, served: Serving) -> None:
    own_task(tmp_path, "I would suggest a trip to")
    tokens = Path(tiny.__file__).parent / "weights" / "aligned"  # prompts are sent as token ids
    where = f"base_url={served.api}/completions,model=tiny,tokenizer={tokens}"
    results, samples = lm_eval(tmp_path, f"{OWN} --model local-completions --model_args {where}")
    assert "exact_match,place" in results["own"] and samples[0]["resps"][0][0]


def test_ifeval_and_gsm8k_as_the_cookbook_asks_them(tmp_path: Path, served: Serving) -> None:
    kinds = ["punctuation:no_comma", "length_constraints:number_words"]
    settings = [{}, {"num_words": 100, "relation": "less than"}]
    row = {"prompt": "Add them.", "instruction_id_list": kinds, "kwargs": settings}
    never = {**row, "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    write_rows(tmp_path / "google/IFEval/train.jsonl", {"key": 1, **row}, {"key": 2, **never})
    folder = tmp_path / "openai/gsm8k"
    sums = [(2, 3, 5), (2, 2, 4), (1, 4, 5)]
    asked = [{"question": f"{a} + {b}?", "answer": f"So\n#### {c}"} for a, b, c in sums]
    write_rows(folder / "train.jsonl", *asked, *asked)
    write_rows(folder / "test.jsonl", *asked)
    (folder / "README.md").write_text(GSM8K_CARD)
    command = block("ifeval,gsm8k").replace(ADDRESS, served.url)
    # What every answer is to be reaches the decoder through the harness's own option.
    command = command.replace('"gamma": 0.6', '"gamma": 0.6, "regex": "So #### 5"')
    results, _ = lm_eval(tmp_path, command)
    assert results["ifeval"]["prompt_level_strict_acc,none"] == 1 / 2
    assert results["gsm8k"]["exact_match,strict-match"] == pytest.approx(2 / 3)
