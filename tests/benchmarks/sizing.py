"""What a pair needs and how fast it can be at most, on paper: the table of cookbook/cluster.md.

Run from the repository's root:

    python tests/benchmarks/sizing.py

Nothing is loaded. Parameters are those of the preset table, the rest of the shapes those that the
models' publishers give; weights and caches are in bfloat16.
"""

from __future__ import annotations

from baco_integrations.models.memory import readable
from baco_integrations.models.presets import PRESETS
from baco_integrations.models.sizing import GPUS, Plan, Shape

# Layers, attention heads, heads of keys and values, numbers in a head.
SHAPES = {
    "qwen2.5-0.5b": (24, 14, 2, 64),
    "llama3.2-3b": (28, 24, 8, 128),
    "qwen2.5-7b": (28, 28, 4, 128),
    "llama3.1-8b": (32, 32, 8, 128),
    "olmo2-7b": (32, 32, 32, 128),
    "olmo2-13b": (40, 40, 40, 128),
    "qwen2.5-32b": (64, 40, 8, 128),
    "qwen2.5-72b": (80, 64, 8, 128),
}
KINDS = ("L4", "L40S", "A100-80G", "H100", "H200")
ROWS, CONTEXT = 16, 4096


def shape_of(name: str) -> Shape:
    layers, heads, cache_heads, head_dim = SHAPES[name]
    weights = int(2 * PRESETS[name].billions * 1e9)
    return Shape(weights, layers, heads, cache_heads, head_dim, CONTEXT)


def smallest(name: str, kind: str) -> Plan | None:
    """The plan with the fewest GPUs of a kind, of one replica; None if eight are too few."""
    side = shape_of(name)
    plans = (Plan((side, side), GPUS[kind], n, 1, ROWS, CONTEXT) for n in (1, 2, 4, 8))
    return next((each for each in plans if side.heads % each.tensor == 0 and each.fits), None)


def table() -> str:
    lines = [
        f"| pair | weights | cache a token | {' | '.join(KINDS)} | tok/s: 1 row, {ROWS} rows |",
        "|---" * (len(KINDS) + 4) + "|",
    ]
    for name in SHAPES:
        plans = {kind: smallest(name, kind) for kind in KINDS}
        whole = Plan((shape_of(name),) * 2, GPUS["H100"], 1, 1, ROWS, CONTEXT)
        counts = " | ".join(str(plan.tensor) if plan else "more" for plan in plans.values())
        fast = plans["H100"]
        speeds = f"{fast.speed(1):,.0f}, {fast.speed(ROWS):,.0f}" if fast else ""
        lines.append(
            f"| {name} | {readable(whole.weights)} | {whole.cache / 1024:.0f} KiB | {counts} | "
            f"{speeds} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
