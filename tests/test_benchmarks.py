"""That the script for a GPU runs, where there is none, and counts what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.benchmarks import categories, gpu

SMALL = "--device cpu --shape small --dtype float32 --contexts 32 --rows 2 --tokens 4 --rounds 1"


def lines(capsys: pytest.CaptureFixture[str], *more: str) -> list[list[str]]:
    gpu.main([*SMALL.split(), *more])
    told = capsys.readouterr().out.splitlines()
    return [line.strip("| ").split(" | ") for line in told if line.startswith("| ")]


@pytest.mark.slow
def test_the_gpu_script_measures_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    cells = lines(capsys)
    greedy, times = cells[1:9], cells[10:]
    assert [line[3:] for line in greedy] == [["16 of 16", "none"]] * 8
    assert [line[2] for line in times] == list(gpu.WAYS)
    assert [float(line[4]) for line in times[:2]] == [1, 1]
    assert all(float(line[4]) > 1 for line in times[2:])
    # A difference of two times of so few tokens may be below 0 by noise: numbers are enough.
    assert all(math.isfinite(float(figure)) for line in times for figure in line[3:7])
    assert all(line[7:] == ["nan"] * 3 for line in times)  # a CPU has no waits


@pytest.mark.slow
def test_the_gpu_script_names_what_it_has_no_time_for(capsys: pytest.CaptureFixture[str]) -> None:
    times = lines(capsys, "--seconds", "0.01")[10:]
    assert [line[3] for line in times] == ["left out: no time is left"] * 4


def test_the_gpu_script_counts_waits() -> None:
    names = ("cudaLaunchKernel", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaEventQuery")
    names += ("Memcpy DtoH (Device -> Pinned)", "Memcpy HtoD (Pinned -> Device)")
    events = [{"ph": "X", "name": name} for name in names]
    assert gpu.waits_in([*events, {"ph": "f", "name": "cudaStreamSynchronize"}]) == (2, 1)


def test_the_gain_over_temperature_is_taken_at_the_same_valid_share() -> None:
    def answers(method: str, texts: list[str]) -> dict[str, object]:
        point = {"method": method, "knob": None, "temperature": 1.0}
        return {"id": "fruit-1", "generations": texts, **point}

    [values] = categories.judged([answers("punc", ["Fig", "Pear, I think", "Plum", "No"])]).values()
    assert values.tolist() == [[0.75, 0.5, 3]]
    aligned = np.array([[[1.0, 1.0, 1.0], [0.5, 0.5, 2.0]]] * 3)  # cool and hot, 3 resamples
    assert categories.gain(np.repeat(values, 3, 0), aligned) == "+1.50 [+1.50, +1.50]"
