"""The tables of a report, ready to be shown: each cell as text, with what stands below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .words import in_words

Result = Mapping[str, Any]
Method = Mapping[str, Any]
FAMILIES = ("lexical", "semantic", "overall")
FLOOR = "0.9"


class Cell(NamedTuple):
    """A cell.

    Attributes:
        text: What it says.
        below: What stands below it in small type.
        value: What it is by; None where it takes no part in being the best of a column.
        kind: ``best``, ``more``, ``less`` or nothing.
        strength: Of ``more`` and ``less``, from 0 to 100.
    """

    text: str = "–"
    below: str = ""
    value: float | None = None
    kind: str = ""
    strength: int = 0


class Row(NamedTuple):
    """A row: its name, what stands below the name, and its cells."""

    name: str
    below: str
    cells: list[Cell]


class Table(NamedTuple):
    """A table: its caption, the names of its columns (that of rows first), and its rows."""

    caption: str
    columns: list[str]
    rows: list[Row]


def decimal(value: float, places: int = 2) -> str:
    """Write a number with so many decimal places, and a true minus sign."""
    return f"{value:.{places}f}".replace("-", "−")


def p_value(p: float) -> str:
    """Write a p-value as in ``.012`` or ``< .001``."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def setting(point: Mapping[str, Any], kind: str) -> str:
    """Write a point as in ``gamma 0.75, T 0.5``."""
    temperature = f"T {point['temperature']:g}"
    if point["knob"] is None:
        return temperature
    return f"{'gamma' if kind == 'router' else 'knob'} {point['knob']:g}, {temperature}"


def number(value: float | None, places: int = 2) -> Cell:
    """Return a number as a cell."""
    return Cell() if value is None else Cell(decimal(value, places), value=value)


def estimate(triple: Sequence[float], places: int = 2) -> Cell:
    """Return an estimate, with the ends of its interval below it."""
    value, low, high = triple
    return Cell(decimal(value, places), f"{decimal(low, places)} to {decimal(high, places)}", value)


def percent(triple: Sequence[float]) -> Cell:
    """Return a share with its interval, in per cent."""
    value, low, high = (f"{100 * part:.0f}" for part in triple)
    return Cell(f"{value} %", f"{low} to {high} %", triple[0])


def span(ends: Sequence[float | None], places: int) -> Cell:
    """Return the least and the most of something."""
    if any(end is None for end in ends):
        return Cell()
    shown = dict.fromkeys(decimal(float(end or 0), places) for end in ends)
    return Cell(" to ".join(shown))


def row(method: Method, cells: Iterable[Cell]) -> Row:
    """Return a method's row: its name in words, with the name that commands know below it."""
    return Row(in_words(method["name"]), method["name"], list(cells))


def with_best(table: Table) -> Table:
    """Mark the cells that are the best of their column, to two places."""
    columns = zip(*(each.cells for each in table.rows), strict=True)
    best = [
        max((round(c.value, 2) for c in col if c.value is not None), default=0) for col in columns
    ]
    rows = [
        each._replace(
            cells=[
                c._replace(kind="best") if c.value is not None and round(c.value, 2) == top else c
                for c, top in zip(each.cells, best, strict=True)
            ]
        )
        for each in table.rows
    ]
    return table._replace(rows=rows)


def main_table(result: Result) -> Table:
    """Return what matters most of each method, most different valid answers first."""
    methods = [method for method in result["methods"] if ":" not in method["name"]]
    at = {method["name"]: method["valid_distinct"]["at"][FLOOR] for method in methods}
    methods.sort(key=lambda method: -(at[method["name"]] or {"value": [-1]})["value"][0])
    rows = []
    for method in methods:
        point = at[method["name"]]
        cells = [Cell(), Cell(), Cell("never reached")]
        if point:
            shown = f"{100 * point['valid']:.0f} %"
            cells = [estimate(point["value"], 1), Cell(shown), Cell(setting(point, method["kind"]))]
        rows.append(row(method, [*cells, estimate(method["coverage"]["overall"])]))
    columns = [
        "Method", f"Different valid answers of {result['about']['k']}", "Valid", "At", "Coverage"
    ]  # fmt: skip
    caption = "Each method at its best setting where at least 90 % of its answers are valid"
    return with_best(Table(caption, columns, rows))


def folded_tables(result: Result) -> dict[str, list[Table]]:
    """Return the tables that only some readers want, by section."""
    return {
        "coverage": [coverage_table(result)],
        "valid": [valid_table(result)],
        "routers": list(router_tables(result)),
        "ablations": list(ablation_tables(result)),
        "map": [difference_table(result)],
        "scales": list(scale_tables(result)),
        "costs": [cost_table(result)],
        "anchors": [anchor_table(result)],
    }


def coverage_table(result: Result) -> Table:
    """Return Coverage and Dominance of every method."""
    rows = [
        row(
            method,
            [
                number(len(method["points"]), 0)._replace(value=None),
                *(estimate(method["coverage"][family]) for family in FAMILIES),
                number(method["cross_fit"][2]),
                *(percent(method["dominance"][family]) for family in FAMILIES),
                number(method["exclusive"], 3),
            ],
        )
        for method in result["methods"]
    ]
    columns = [
        *("Method", "Settings"),
        *(f"Coverage, {family}" for family in (*FAMILIES, "cross-fitted")),
        *(f"Dominance, {family}" for family in FAMILIES),
        "Exclusive area",
    ]
    return with_best(Table("Best Coverage first; below a value its 95 % interval", columns, rows))


def valid_table(result: Result) -> Table:
    """Return how many different valid answers every method gives at each floor of validity."""
    floors = list(result["methods"][0]["valid_distinct"]["at"])

    def cells(method: Method) -> Iterator[Cell]:
        for floor in floors:
            point = method["valid_distinct"]["at"][floor]
            cell = estimate(point["value"]) if point else Cell()
            yield cell._replace(
                below=f"{cell.below} · {setting(point, method['kind'])}" if point else ""
            )
        yield estimate(method["valid_distinct"]["coverage"])

    columns = [
        "Method",
        *(f"At least {100 * float(floor):.0f} % valid" for floor in floors),
        "Area",
    ]
    caption = "Different answers among the valid ones, with interval and setting"
    rows = [row(method, cells(method)) for method in result["methods"]]
    return with_best(Table(caption, columns, rows))


def router_tables(result: Result) -> Iterator[Table]:
    """Yield the routers among themselves, if there are at least two."""
    if not (routers := result["routers"]):
        return
    control, against = routers["control"], routers.get("against", {})

    def cells(method: Method) -> Iterator[Cell]:
        yield estimate(method["coverage"]["overall"])
        yield percent(routers["dominance"][method["name"]]["overall"])
        if control:
            test = against.get(method["name"])
            yield estimate(test["difference"])._replace(value=None) if test else Cell()
            yield Cell(p_value(test["p"])) if test else Cell()

    compared = [f"Coverage less that of {control}", "p, corrected"] if control else []
    rows = [row(m, cells(m)) for m in result["methods"] if m["name"] in routers["dominance"]]
    columns = ["Router", "Coverage", "Dominance among routers", *compared]
    yield with_best(Table("Routers, best Coverage first", columns, rows))


def ablation_tables(result: Result) -> Iterator[Table]:
    """Yield the methods with a setting changed beside those without, if there are any."""
    changed = {m["name"].partition(":")[0] for m in result["methods"] if ":" in m["name"]}
    if changed:
        table = valid_table(result)
        rows = [each for each in table.rows if each.below.partition(":")[0] in changed]
        yield table._replace(caption="The same with one setting changed", rows=rows)


def difference_table(result: Result) -> Table:
    """Return each method's Coverage by metric, less the reference's."""
    cells, reference = result["differences"]["cells"], result["differences"]["reference"]
    most = max((abs(gap) for each in cells.values() for gap in each["difference"]), default=0) or 1

    def cell(gap: float, p: float) -> Cell:
        kind = ("more" if gap > 0 else "less") if round(gap, 2) else ""
        sign = "+" if gap > 0 else "−"
        text = f"{sign}{decimal(abs(gap))}{'*' if p < 0.05 else ''}"
        return Cell(text, kind=kind, strength=round(70 * abs(gap) / most))

    rows = [
        row(method, map(cell, cells[method["name"]]["difference"], cells[method["name"]]["p"]))
        for method in result["methods"]
        if method["name"] in cells
    ]
    caption = f"Coverage less that of the {in_words(reference).lower()}; * p < .05, corrected"
    return Table(caption, ["Method", *metrics(result)], rows)


def scale_tables(result: Result) -> Iterator[Table]:
    """Yield every method's Coverage by metric, for each quality."""
    for place, quality in enumerate(result["qualities"]):
        rows = [
            row(method, (number(values[place]) for values in method["matrix"]))
            for method in result["methods"]
        ]
        yield with_best(Table(f"Coverage by {quality}", ["Method", *metrics(result)], rows))


def metrics(result: Result) -> list[str]:
    """Return the names of the diversity metrics."""
    return [*result["metrics"]["lexical"], *result["metrics"]["semantic"]]


def cost_table(result: Result) -> Table:
    """Return what every method takes."""
    rows = [
        row(
            method,
            [
                number(method["cost"]["tokens_per_second"], 0),
                number(method["cost"]["forwards"]),
                span(method["cost"]["base_share"], 2),
                span(method["cost"]["switches"], 0),
                number(method["cost"]["tokens"], 0),
            ],
        )
        for method in result["methods"]
    ]
    columns = [
        *("Method", "Tokens per second", "Forwards per token", "Share of tokens by base"),
        *("Switches per 100 tokens", "Tokens per answer"),
    ]
    return Table("Means over settings, or the least and the most", columns, rows)


def anchor_table(result: Result) -> Table:
    """Return what raw values count as 0 and as 1."""
    rows = [
        Row(name, "", [number(end, 3) for end in ends])
        for kind in ("diversity", "quality")
        for name, ends in result["anchors"][kind].items()
    ]
    return Table("Raw values that count as 0 and as 1", ["Metric", "0", "1"], rows)
