"""`baco launch`: the command for so many GPUs, and refusals by numbers."""

from __future__ import annotations

import json
import re
import shlex
import signal
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from baco_integrations.tiny import WEIGHTS
from tests.commands import baco, process


def printed(*args: str) -> list[str]:
    return shlex.split(baco("launch", *args).stdout)


def options_of(command: list[str], after: str) -> dict[str, str]:
    rest = command[command.index(after) + 1 :]
    return dict(zip(rest[::2], rest[1::2], strict=True))


def test_one_device_is_served_by_this_package() -> None:
    for args in (("--gpus", "0"), ("--gpus", "1", "--gpu", "L4")):
        command = printed(*args, "--max-rows", "8", "--dtype", "float32", "--port", "0")
        assert command[:2] == ["baco", "serve"]
        found = options_of(command, "serve")
        assert found == {
            "--pair": "tiny",
            "--max-rows": "8",
            "--dtype": "float32",
            "--host": "127.0.0.1",
            "--port": "0",
        }
    shown = baco(*command[1:], "--help")  # every option is one that `baco serve` has
    assert "Serve pairs over HTTP" in shown.stdout


def test_one_model_is_counted_once_where_it_is_there_once() -> None:
    aligned = str(WEIGHTS / "aligned")
    result = baco("launch", "--model", aligned, "--gpus", "1", "--gpu", "L4")
    assert options_of(shlex.split(result.stdout), "serve")["--model"] == aligned
    assert "with 3.0 MiB of weights" in " ".join(result.stderr.split())
    result = baco("launch", "--model", aligned, "--gpus", "2", "--gpu", "L4")
    found = options_of(shlex.split(result.stdout), "vllm.entrypoints.openai.api_server")
    assert json.loads(found["--hf-overrides"])["baco_base"] == found["--model"] == aligned
    assert "with 5.9 MiB of weights" in " ".join(result.stderr.split())


def test_several_gpus_are_served_by_vllm() -> None:
    base, aligned = str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    args = ("--gpus", "4", "--gpu", "h100", "--context", "512")
    command = printed("--base", base, "--aligned", aligned, *args)
    assert command[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    found = options_of(command, "vllm.entrypoints.openai.api_server")
    overrides = json.loads(found.pop("--hf-overrides"))
    assert overrides == {"architectures": ["BacoForCausalLM"], "baco_base": base}
    assert found == {
        "--model": aligned,
        "--max-model-len": "512",
        "--max-num-seqs": "32",
        "--tensor-parallel-size": "1",
        "--data-parallel-size": "4",
        "--host": "127.0.0.1",
        "--port": "8000",
    }


def test_the_context_ends_with_the_window() -> None:
    command = printed("--gpus", "2", "--gpu", "h100")
    assert options_of(command, "vllm.entrypoints.openai.api_server")["--max-model-len"] == "1024"


def test_a_configuration_for_ray() -> None:
    args = ("--gpus", "2", "--gpu", "l4", "--replicas", "2", "--ray", "--dtype", "bf16")
    told: Any = yaml.safe_load(baco("launch", *args).stdout)
    (application,) = told["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    (config,) = application["args"]["llm_configs"]
    assert config["accelerator_type"] == "L4"
    assert config["model_loading_config"]["model_source"] == str(WEIGHTS / "aligned")
    assert config["deployment_config"]["autoscaling_config"]["max_replicas"] == 2
    kwargs = config["engine_kwargs"]
    assert kwargs["hf_overrides"]["baco_base"] == str(WEIGHTS / "base")
    assert (kwargs["tensor_parallel_size"], kwargs["max_model_len"]) == (1, 1024)
    assert kwargs["dtype"] == "bfloat16"  # vLLM knows no bf16


def test_what_was_reckoned_is_said_beside_it() -> None:
    said = " ".join(baco("launch", "--gpus", "2", "--gpu", "h100").stderr.split())
    assert re.search(
        r"On paper: 2 x 1, each with 5\.9 MiB of weights and 160\.0 MiB for 32 rows of 1,024 "
        r"tokens, of 79\.0 GiB\. At most [\d,]+ tokens a second\.",
        said,
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--gpus", "2"), "--gpu must be one of L4"),
        (("--gpus", "0", "--gpu", "L4"), "--gpu must be left out with --gpus 0"),
        (("--gpus", "1", "--gpu", "K80"), "--gpu must be one of L4"),
        (("--gpus", "4", "--gpu", "L4", "--replicas", "3"), "--replicas must be such that 4 GPUs"),
        (("--base", "org/model"), "--base and --aligned together"),
        (("--pair", "tinny"), "Did you mean 'tiny'"),
        (("--ray", "--run", "--gpus", "1", "--gpu", "L4"), "--run must be left out with --ray"),
        (
            ("--gpus", "1", "--gpu", "L4", "--max-rows", "100000"),
            "488.3 GiB for the keys and values of 100000 rows of 1,024 tokens, but of its 22.0",
        ),
    ],
)
def test_what_is_refused(args: tuple[str, ...], said: str) -> None:
    result = baco("launch", *args, code=2)
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_vllm_that_is_not_there() -> None:
    said = baco("launch", "--gpus", "2", "--gpu", "h100", "--run", code=2).stderr
    assert "baco-integrations[vllm]" in said


@pytest.mark.slow
def test_it_runs() -> None:
    started = process("launch", "--gpus", "0", "--port", "0", "--run")
    try:
        assert started.stderr is not None
        lines = iter(started.stderr.readline, "")
        assert any(line.startswith("On paper:") for line in lines)
        assert any(line.startswith("Serving: http://127.0.0.1:") for line in lines)
    finally:
        started.send_signal(signal.SIGTERM)
        started.communicate()
    assert started.returncode == 0
