from __future__ import annotations

from copy import deepcopy
from typing import Any

from baco_integrations.evaluation.findings import headline
from tests.evaluation.test_result import result


def changed(name: str = "p-punc", **test: Any) -> dict[str, Any]:
    told = deepcopy(result())
    told["valid_contrasts"][name]["aligned"].update(test)
    return told


def test_the_headline_says_what_was_found_and_no_more() -> None:
    said = headline(result())
    assert said.startswith("With synthetic, BACo (default) gave more different valid answers than")
    assert "at least 90 % are valid" in said and "\n" not in said
    assert "is not shown to give more" in headline(changed(p=0.3))
    assert "gave fewer" in headline(changed(difference=[-0.2, -0.3, -0.1]))


def test_the_headline_owns_up_to_answers_that_are_not_valid_enough() -> None:
    told = changed()
    for method in told["methods"]:
        if method["name"] == "p-punc":
            method["valid_distinct"]["at"]["0.9"] = None
    assert headline(told).endswith("; BACo (default) never had 90 % of the answers valid.")


def test_the_headline_of_models_that_are_best_alone() -> None:
    told = changed()
    told["valid_contrasts"] = {"aligned": {}}
    most = "nothing gave more different valid answers than the aligned model alone."
    assert headline(told) == f"With synthetic, {most}"
    told["about"]["models"] = ["tiny"]
    assert headline(told) == f"With the tiny pair, {most}"
