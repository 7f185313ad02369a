from __future__ import annotations

from baco_integrations.evaluation.figures import figures, means_by_knob, roles, staircase
from baco_integrations.evaluation.words import in_words
from tests.evaluation.test_result import result


def test_a_staircase_bounds_its_points() -> None:
    assert staircase([(0.2, 1.0), (0.8, 0.5), (0.5, 0.4)]) == [
        (0.0, 1.0),
        (0.2, 1.0),
        (0.2, 0.5),
        (0.8, 0.5),
        (0.8, 0.0),
    ]
    assert staircase([]) == []


def test_colours_are_those_of_the_style_sheet() -> None:
    drawn = [figure for section in figures(result()).values() for figure in section]
    assert len(drawn) == 7
    for figure in drawn:
        assert "var(--muted)" in figure.content and "#0000" not in figure.content
        assert "font-family" not in figure.content and "clip-path" not in figure.content


def test_what_stands_out_has_a_role() -> None:
    assert roles(result()) == {
        "base": "base",
        "aligned": "aligned",
        "rand": "control",
        "p-punc": "router",
        "min-p": "baseline",
    }
    told = {**result(), "methods": [m for m in result()["methods"] if m["name"] != "p-punc"]}
    assert roles(told)["h"] == "router"
    [picture] = figures(result())["picture"]
    assert all(f">{in_words(name)}<" in picture.content for name in roles(result()))
    assert ">BACo by h<" not in picture.content


def test_values_are_averaged_at_each_knob() -> None:
    points = [
        {"knob": knob, "value": y} for knob, y in ((1, 3), (0, 1), (1, 5), (None, 9), (0, None))
    ]
    assert means_by_knob(points, lambda point: point["value"]) == [(0, 1), (1, 4)]


def test_names_may_hold_letters_of_any_script() -> None:
    told = {**result(), "qualities": ["質 $x$ < 1"]}
    assert "質 $x$ &lt; 1" in figures(told)["trade_off"][0].content
