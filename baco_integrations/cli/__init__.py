"""The command `baco`.

Invariant: nothing heavy is imported before a command needs it, so that help comes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from .chat import chat
from .commands import Command, Commands
from .compare import compare
from .demo import demo
from .dequantize import dequantize
from .evaluation import app as evaluation
from .generate import generate
from .launch import launch
from .lora import extract
from .measure import bench
from .pairs import check, pairs
from .serve import serve
from .tuning import tune

app = typer.Typer(
    name="baco",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES: dict[str, dict[Callable[..., None], str]] = {
    "Look": {demo: "baco demo --gamma 0.8 --samples 4"},
    "Ask": {
        generate: 'baco generate "Name a place to visit." --gamma 0.7 -n 3 --trace',
        chat: "baco chat --pair qwen2.5-0.5b --trace",
        compare: 'baco compare "Name a place to visit." --gamma 0.3 --gamma 0.9',
    },
    "Serve": {
        serve: "baco serve --pair qwen2.5-7b --dtype bfloat16 --api-key-file keys.txt",
        launch: "baco launch --pair qwen2.5-7b --gpus 4 --gpu H100",
    },
    "Choose a pair": {
        pairs: "baco pairs",
        check: "baco check Qwen/Qwen2.5-7B Qwen/Qwen2.5-7B-Instruct",
        tune: "baco tune prompts.txt --pair qwen2.5-7b --quality my_judge:model",
    },
    "Workshop": {
        dequantize: "baco dequantize model.gguf folder --dtype bfloat16",
        extract: "baco extract org/model org/model-instruct --out adapter --rank 32",
        bench: "baco bench --base org/model --aligned org/model-instruct",
    },
}
"""An example of every command, by the panels in which help shows them."""
for _panel, _examples in EXAMPLES.items():
    for _command, _example in _examples.items():
        app.command(
            cls=Command,
            rich_help_panel=_panel,
            no_args_is_help=_command in (generate, compare, check, tune, extract, dequantize),
            epilog=f"Example: [cyan]{_example}[/cyan]",
        )(_command)
app.add_typer(evaluation, name="eval", rich_help_panel="Workshop")


def show_version(asked: bool) -> None:
    """Print the version and leave, if it is asked for."""
    if asked:
        typer.echo(f"baco {__version__}")
        raise typer.Exit


@app.callback(epilog="Start with [cyan]baco demo[/cyan]: no download, a few seconds.")
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Decode with a base model and its aligned counterpart, token by token: varied and good."""
