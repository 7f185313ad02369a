"""Which methods there are, and at which points each is taken."""

from collections import Counter

import pytest

from baco_integrations import BacoError
from baco_integrations.core.routing import ROUTERS
from baco_integrations.evaluation import METHODS, Sweep
from baco_integrations.evaluation.methods import GROUPS, LEVELS, TEMPERATURES, find_methods

KNOBBED = [method for method in METHODS.values() if method.knob]
PLAIN = [method for method in METHODS.values() if not method.knob]


def test_every_router_of_the_protocol_is_a_method() -> None:
    assert set(METHODS) & set(ROUTERS) == set(ROUTERS) - {"punc-fc", "rand-fc", "rand-punc-fc"}
    for name, method in METHODS.items():
        if name in ROUTERS:
            assert (method.knob == "gamma") is (ROUTERS[name].rule is not None)


@pytest.mark.parametrize("count", range(1, 26))
def test_all_methods_get_as_many_points(count: int) -> None:
    for method in METHODS.values():
        points = Sweep(count).of(method)
        assert len(set(points)) == len(points) == count
        assert points == sorted(points, key=lambda point: (point.knob or 0, point.temperature))


def test_eleven_points_without_a_knob_hold_the_five_temperatures() -> None:
    for method in PLAIN:
        temperatures = [point.temperature for point in Sweep().of(method)]
        assert temperatures == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
        assert [point.temperature for point in Sweep(5).of(method)] == list(TEMPERATURES)


def test_eleven_points_with_a_knob_hold_every_value_and_temperature() -> None:
    for method in KNOBBED:
        points = Sweep().of(method)
        knobs = Counter(point.knob for point in points)
        assert list(knobs.values()) == [2, 2, 3, 2, 2]
        assert tuple(knobs) == method.levels
        assert (method.levels[0], method.levels[-1]) == (0, 1)
        assert {point.temperature for point in points} == set(TEMPERATURES)
    assert METHODS["min-p"].levels == (0, 0.0625, 0.25, 0.5625, 1)
    assert METHODS["p-punc"].levels == METHODS["ensemble"].levels == LEVELS


@pytest.mark.parametrize("count", [0, 26, 2.5, True, "11"])
def test_points_are_one_to_twentyfive(count: int) -> None:
    with pytest.raises(BacoError, match="points must be a whole number from 1 to 25"):
        Sweep(count)


def test_groups_and_variants() -> None:
    assert [method.name for method in find_methods(["prompting", "in-context", "p"])] == [
        *GROUPS["prompting"],
        "p",
    ]
    assert {method.name for method in find_methods([])} == set(METHODS) - {"plain"}
    assert [method.name for method in find_methods([], pair=False)] == [
        *GROUPS["prompting"],
        "plain",
    ]
    (changed,) = find_methods(["p-punc:boundary=false,first=aligned"])
    assert changed.settings == {"router": "p-punc", "boundary": False, "first": "aligned"}
    assert changed.knob == "gamma" and len(find_methods(["ablations"])) == 4


@pytest.mark.parametrize(
    ("name", "pair", "message"),
    [
        ("p-punk", True, "Did you mean 'p-punc'"),
        ("p-punc:bondary=false", True, "^method must be .* Did you mean 'boundary'"),
        ("p-punc:first=base", True, "first must be"),
        ("p-punc", False, "one that needs no pair"),
    ],
)  # fmt: skip
def test_bad_names(name: str, pair: bool, message: str) -> None:
    with pytest.raises(BacoError, match=message):
        find_methods([name], pair)
