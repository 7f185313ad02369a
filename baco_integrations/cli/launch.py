"""`baco launch`: what to start for so many GPUs, once it is known on paper that the pair fits."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import MissingExtraError, ParameterError
from ..engines.vllm import ARCHITECTURE, BASE_FOLDER
from . import options
from .errors import say
from .pairs import models_of

if TYPE_CHECKING:
    from ..models.sizing import Gpu, Plan

ON_GPUS = "Hardware"


@options.takes(*options.MODELS, "dtype", "max_rows", "host", "port")
def launch(
    gpus: Annotated[
        int | None,
        typer.Option(
            min=0, help="How many; 0 is the CPU.", rich_help_panel=ON_GPUS, show_default="all here"
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Their kind, such as H100.", rich_help_panel=ON_GPUS, show_default="that of here"
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How often the pair is loaded, each time on its share of the GPUs.",
            rich_help_panel=ON_GPUS,
            show_default="as often as it fits",
        ),
    ] = None,
    context: Annotated[
        int,
        typer.Option(
            min=1, help="Longest prompt and answer together, in tokens; the window at most."
        ),
    ] = 4096,
    ray: Annotated[
        bool, typer.Option("--ray", help="Print a configuration of Ray Serve LLM instead.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Run the command.")] = False,
    **given: Any,
) -> None:
    """Print, or run, the command that serves a pair on so many GPUs.

    One GPU or none: `baco serve`. Several: vLLM with this package's plugin, by tensor parallelism
    within a replica and data parallelism over replicas. Whether it fits is reckoned beforehand.
    """
    plan = plan_for(given, gpus, gpu, replicas, context)
    if given["dtype"]:
        from ..models.options import LoadOptions

        given["dtype"] = LoadOptions(dtype=given["dtype"]).dtype  # vLLM knows no short names
    if ray:
        if run:
            raise ParameterError("run", "left out with --ray", "--run", "Use `serve run FILE`.")
        typer.echo(ray_config(given, plan, gpu), nl=False)
    else:
        several = plan.tensor * plan.replicas > 1
        command = vllm_command(given, plan) if several else serve_command(given, plan)
        if not run:
            typer.echo(shlex.join(command))
        elif several and find_spec("vllm") is None:
            raise MissingExtraError("A pair on several GPUs", "vllm")
    note(plan)
    if run and not ray:
        start = [] if several else ["-c", "from baco_integrations.cli import app; app()"]
        os.execv(sys.executable, [sys.executable, *start, *command[1:]])


def plan_for(
    given: Mapping[str, Any],
    gpus: int | None,
    gpu: str | None,
    replicas: int | None,
    context: int,
) -> Plan:
    """Return a plan that fits, made of the models' configurations; their weights are not read.

    Raises:
        NotEnoughMemoryError: None fits.
        PairError: The models' files are out of reach.
        ParameterError: There are no such GPUs, or they cannot be shared out so.
    """
    import torch

    from ..models.checkpoint import Checkpoint
    from ..models.hub import locate
    from ..models.options import SIDES, LoadOptions
    from ..models.sizing import Shape, smallest_plan

    count = torch.cuda.device_count() if gpus is None else gpus
    loading = LoadOptions(**options.given_settings(given, ("dtype",)))
    sides = [
        Shape.of(Checkpoint(locate(model, side, loading), loading))
        for model, side in zip(named_models(given), SIDES, strict=True)
    ]
    if given["model"] and count <= 1:  # this package's own server has its weights once
        sides[0] = sides[0]._replace(weights=0)
    length = min(context, *(side.window for side in sides))
    rows = given["max_rows"] or 32
    return smallest_plan(sides, gpu_of(gpu, count), max(count, 1), replicas, rows, length)


def gpu_of(name: str | None, count: int) -> Gpu:
    """Return a kind of GPU by its name, or that of this machine; without any, its memory.

    Raises:
        ParameterError: There is no such kind, or none is named and none is here.
    """
    import torch

    from ..models.memory import free_bytes
    from ..models.sizing import GPUS, Gpu

    if name is not None and count == 0:
        raise ParameterError("gpu", "left out with --gpus 0", name, "That is the CPU.")
    if name is not None:
        found = {known.lower(): own for known, own in GPUS.items()}.get(name.lower())
        if found is None:
            raise ParameterError("gpu", f"one of {', '.join(GPUS)}", name, "Name one like it.")
        return found
    if count == 0:
        return Gpu(free_bytes(frozenset({"cpu"})))
    if not torch.cuda.is_available():
        remedy = "Say which kind they are."
        raise ParameterError("gpu", f"one of {', '.join(GPUS)}", "none here", remedy)
    here, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    bandwidth = next((own.bandwidth for known, own in GPUS.items() if known in here), 0.0)
    return Gpu(memory, bandwidth)


def named_models(given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the two models that the options name.

    Raises:
        ParameterError: They name none, several pairs, or half of one.
    """
    return options.named_models(given) or models_of(given["pair"] or "tiny")


def serve_command(given: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return the command of this package's own server."""
    which = ["--pair", given["pair"] or "tiny"]
    if given["model"]:
        which = ["--model", given["model"]]
    elif given["base"]:
        which = ["--pair", f"pair={given['base']}+{given['aligned']}"]
    return ["baco", "serve", *which, "--max-rows", str(plan.rows), *common(given)]


def vllm_command(given: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return the command of vLLM's server, with the fused model of this package's plugin."""
    base, aligned = named_models(given)
    fused = {"architectures": [ARCHITECTURE], BASE_FOLDER: base}
    return [
        *("python", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", aligned, "--hf-overrides", json.dumps(fused)),
        *("--max-model-len", str(plan.context), "--max-num-seqs", str(plan.rows)),
        *("--tensor-parallel-size", str(plan.tensor)),
        *("--data-parallel-size", str(plan.replicas)),
        *common(given),
    ]


def common(given: Mapping[str, Any]) -> list[str]:
    """Return the options that both servers have under the same names."""
    port = 8000 if given["port"] is None else given["port"]
    where = {"host": given["host"] or "127.0.0.1", "port": port}  # vLLM's own host is any
    named = {**options.given_settings(given, ("dtype",)), **where}
    return [part for name, value in named.items() for part in (f"--{name}", str(value))]


def ray_config(given: Mapping[str, Any], plan: Plan, gpu: str | None) -> str:
    """Return a configuration of Ray Serve LLM, as YAML for `serve run` or `serve deploy`."""
    base, aligned = named_models(given)
    kind = f"\n      accelerator_type: {gpu.upper()}" if gpu else ""
    return f"""\
# Every node needs baco-integrations[vllm]: its plugin makes one model of the two.
applications:
- name: baco
  route_prefix: /
  import_path: ray.serve.llm:build_openai_app
  args:
    llm_configs:
    - model_loading_config:
        model_id: {json.dumps(given["pair"] or "baco")}
        model_source: {json.dumps(aligned)}{kind}
      deployment_config:
        autoscaling_config:
          min_replicas: 1
          max_replicas: {plan.replicas}
      engine_kwargs:
        hf_overrides:
          architectures: [{ARCHITECTURE}]
          {BASE_FOLDER}: {json.dumps(base)}
        dtype: {given["dtype"] or "auto"}
        tensor_parallel_size: {plan.tensor}
        max_model_len: {plan.context}
        max_num_seqs: {plan.rows}
"""


def note(plan: Plan) -> None:
    """Say what was reckoned."""
    from ..models.memory import readable

    cache = plan.rows * plan.context * plan.cache
    fast = f" At most {plan.speed(plan.rows):,.0f} tokens a second." if plan.gpu.bandwidth else ""
    say(
        f"{plan.replicas} x {plan.tensor}, each with {readable(plan.weights)} of weights and "
        f"{readable(cache)} for {plan.rows} rows of {plan.context:,} tokens, of "
        f"{readable(plan.gpu.memory)}.{fast}",
        "On paper:",
    )
