"""Few rows times large weights on this CPU: the common way and ours, against one row.

Run from the repository's root:

    python tests/benchmarks/products.py

Layers of SmolLM2-135M's shape, more of them than any cache holds, one thread; medians of ratios
within rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from baco_integrations.models.products import product

SHAPES = {
    "layers": [(1536, 576), (1536, 576), (576, 1536)] * 30,
    "output layer": [(49152, 576)] * 3,
}
ROWS = (2, 3, 4, 8, 16)


Multiply = Callable[[Tensor, None, Tensor], Tensor]


def seconds(weights: list[Tensor], inputs: dict[int, Tensor], multiply: Multiply) -> float:
    started = time.perf_counter()
    for weight in weights:
        multiply(weight, None, inputs[weight.shape[1]])
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    print(f"| | {' | '.join(f'{rows} rows' for rows in ROWS)} |\n|{'---|' * (len(ROWS) + 1)}")
    for name, shapes in SHAPES.items():
        weights = [torch.randn(shape) for shape in shapes]
        widths = {shape[1] for shape in shapes}
        inputs = {n: {width: torch.randn(n, width) for width in widths} for n in (1, *ROWS)}
        ways = {"as layers do": lambda w, b, x: linear(x, w, b), "weights in front": product}
        ratios: dict[tuple[str, int], list[float]] = {}
        for number in range(10):
            one = seconds(weights, inputs[1], ways["as layers do"])
            for way, multiply in ways.items():
                for rows in ROWS:
                    ratio = seconds(weights, inputs[rows], multiply) / one
                    ratios.setdefault((way, rows), []).extend([ratio] * bool(number))
        for way in ways:
            cells = (f"{statistics.median(ratios[way, rows]):.2f}" for rows in ROWS)
            print(f"| {name}, {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
