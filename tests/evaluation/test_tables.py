from __future__ import annotations

from baco_integrations.evaluation.tables import (
    Cell,
    Row,
    Table,
    decimal,
    folded_tables,
    main_table,
    p_value,
    setting,
    with_best,
)
from baco_integrations.evaluation.words import in_words, meanings
from tests.evaluation.test_result import method, result


def test_numbers() -> None:
    assert (decimal(-0.126), decimal(2, 0)) == ("−0.13", "2")
    assert (p_value(0.0121), p_value(1e-5), p_value(1)) == (".012", "< .001", "1.000")
    point = {"knob": 0.75, "temperature": 1.0}
    assert setting(point, "router") == "gamma 0.75, T 1"
    assert setting(point | {"knob": None}, "model") == "T 1"


def test_the_best_of_a_column_is_marked_and_ties_share_it() -> None:
    values = ((0.501, None), (0.504, 1.0), (0.2, 3.0))
    rows = [Row("x", "", [Cell(value=value) for value in each]) for each in values]
    marked = with_best(Table("", ["", "a", "b"], rows))
    assert [[cell.kind for cell in row.cells] for row in marked.rows] == [
        ["best", ""],
        ["best", ""],
        ["", "best"],
    ]


def test_the_main_table_has_the_broadest_valid_method_first_and_no_ablations() -> None:
    changed = {**method("h"), "name": "h:boundary=false"}
    table = main_table({**result(), "methods": [*result()["methods"], changed]})
    assert {row.below for row in table.rows} == {m["name"] for m in result()["methods"]}
    counts = [row.cells[0].value for row in table.rows]
    known = [value for value in counts if value is not None]
    assert known == sorted(known, reverse=True) and counts[: len(known)] == known
    best = method(table.rows[0].below)["valid_distinct"]["at"]["0.9"]
    assert table.rows[0].cells[0].value == best["value"][0] and best["valid"] >= 0.9


def test_every_row_has_a_cell_for_every_column() -> None:
    tables = [table for section in folded_tables(result()).values() for table in section]
    assert len(tables) == 8  # two qualities, and nothing was ablated
    for table in tables:
        assert {len(row.cells) + 1 for row in table.rows} == {len(table.columns)}


def test_methods_have_names_in_words() -> None:
    named = [in_words(name) for name in ("p-punc", "h", "p-punc:first=aligned", "mine", "rand")]
    assert named == [
        "BACo (default)",
        "BACo by h",
        "BACo, first=aligned",
        "mine",
        "Random switching",
    ]
    assert list(meanings(["h-punc:first=aligned", "min-p"])) == ["h", "punc", "min-p"]
