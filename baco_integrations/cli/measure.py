"""`baco bench`: how fast a pair decodes, compared with its aligned model alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options

VERSIONS = ("baco_integrations", "torch", "transformers", "python")


@options.takes("gamma", *options.MODELS, "dtype", "device_map", "quantization")
def bench(
    tokens: Annotated[int, typer.Option(min=1, help="Tokens per answer.")] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Answers in the largest batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are taken over these.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch.", show_default="torch's own")
    ] = None,
    as_json: options.Json = False,
    **given: Any,
) -> None:
    """Measure a pair's tokens per second, in lockstep and with lookahead, against aligned alone.

    The aligned model alone decodes by its own `generate`. All take turns in one process.
    """
    from .display import busy, print_json

    options.sampling(given)  # a wrong gamma is refused before anything is loaded
    loaded = options.open_pair(given)
    import torch

    from ..evaluation.bench import measure

    if threads is not None:
        torch.set_num_threads(threads)
    with busy(f"Measuring {loaded.name}") as update:
        found = measure(
            loaded,
            gamma=given["gamma"],
            tokens=tokens,
            batches=sorted({1, max(samples // 4, 1), samples}),
            rounds=rounds,
            progress=update,
        )
    print_json(found) if as_json else print_speeds(found)


def print_speeds(found: dict[str, Any]) -> None:
    """Print what was measured as a table, and what it depends on below it."""
    from .display import console, quiet_table

    out, table = console(), quiet_table("answers", "decoding")
    for heading in ("tokens a second", "against aligned alone"):
        table.add_column(heading, justify="right")
    for row in found["results"]:
        speed, ratio = row["tokens_per_second"], row.get("to_aligned")
        table.add_row(
            str(row["answers"]),
            row["decoding"],
            "{median:,.1f} [dim]({low:,.1f} to {high:,.1f})[/]".format(**speed),
            "× {median:.2f} [dim]({low:.2f} to {high:.2f})[/]".format(**ratio) if ratio else "",
            end_section=row["decoding"] == "lookahead",
        )
    out.print(table)
    out.print("\n" + "\n".join(found["words"]))
    out.print(
        f"\n{found['pair']}, gamma {found['gamma']:g}, {found['dtype']}. {found['device']}, "
        f"{found['cores']} cores, threads {found['threads']}, "
        + ", ".join(f"{name} {found[name]}" for name in VERSIONS),
        style="dim",
    )
