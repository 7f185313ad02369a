"""The report's figures as SVG, in the style sheet's colours, so that they follow light and dark."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from .words import DEFAULT_ROUTER, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Result = Mapping[str, Any]
Point = Mapping[str, Any]
Place = tuple[float, float]

COLOURS = ("ink", "muted", "grid", "base", "aligned", "router", "control", "baseline", "other")
PLACEHOLDERS = {name: f"#0000{number:02x}" for number, name in enumerate(COLOURS, 1)}
"""What stands for the style sheet's colours until the SVG is written."""
STYLES = {
    "base": ("base", "o", "-", 1.8),
    "aligned": ("aligned", "s", "-", 1.8),
    "router": ("router", "D", "-", 3.2),
    "control": ("control", "^", "--", 1.8),
    "baseline": ("baseline", "v", ":", 1.8),
    "second": ("ink", "s", "-.", 1.5),
    "third": ("baseline", "v", ":", 1.8),
    "fourth": ("muted", "o", "-", 1.5),
    "other": ("other", "o", "-", 1.2),
}
"""Colour, marker, line style and line width by role: roles differ in more than colour."""
LONGEST_NAME, LONGEST_AXIS = 22, 40


class Figure(NamedTuple):
    """A figure of the page: its title, the same in words, and the SVG's size and content."""

    title: str
    alt: str
    width: float
    height: float
    content: str


class Series(NamedTuple):
    """A line of a figure.

    Attributes:
        name: Its name in the legend; empty for none.
        role: A key of `STYLES`.
        line: The corners of the line, in data units.
        dots: Where markers stand.
    """

    name: str
    role: str
    line: Sequence[Place]
    dots: Sequence[Place]


def figures(result: Result) -> dict[str, list[Figure]]:
    """Return the figures of each section; none where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return {}
    style: Any = {
        "font.size": 11.5,
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "baco",
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its own fonts lack: the reader has others
        picture, *trade_offs = trade_off_figures(result)
        return {
            "picture": [picture],
            "coverage": [coverage_figure(result)],
            "trade_off": trade_offs,
            "gamma": list(gamma_figures(result)),
        }


def coverage_figure(result: Result) -> Figure:
    """Draw each method's overall Coverage with its interval, best first."""
    rows = [(m["name"], m["coverage"]["overall"]) for m in result["methods"]]
    alt = "Overall Coverage: " + ", ".join(f"{name} {value[0]:.2f}" for name, value in rows)
    role = roles(result)
    drawing, axes = empty_drawing(0.36 * len(rows) + 0.6)
    for place, (name, (value, low, high)) in enumerate(rows):
        colour = PLACEHOLDERS[STYLES[role.get(name, "other")][0]]
        axes.hlines(place, low, high, color=colour, linewidth=2)
        axes.plot(value, place, "o", color=colour, markersize=8, clip_on=False)
        axes.annotate(
            f"{value:.2f}", (1, place), (6, 0), ("axes fraction", "data"), "offset points",
            va="center", color=PLACEHOLDERS["ink"],
        )  # fmt: skip
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, None))
    names = [shortened(in_words(name)) for name, _ in rows]
    axes.set_yticks(range(len(rows)), names, color=PLACEHOLDERS["ink"])
    axes.grid(axis="x", color=PLACEHOLDERS["grid"])
    return to_figure(drawing, "Coverage overall, with 95 % intervals", alt)


def trade_off_figures(result: Result) -> Iterator[Figure]:
    """Draw what each method's points reach: by valid-distinct answers, and by two diversities."""
    quality, k, role = result["qualities"][0], result["about"]["k"], roles(result)
    most = result["anchors"]["valid_distinct"][1]
    for title, key, y_name, x_max in (
        (f"Different valid answers of {k}", "valid_distinct", "share of valid answers", most),
        ("Lexical diversity", "lexical", quality, 1.0),
        ("Semantic diversity", "semantic", quality, 1.0),
    ):
        series = []
        for method in result["methods"]:
            line = staircase(
                (point[key], point["valid"] if key == "valid_distinct" else point["quality"][0])
                for point in method["points"]
            )
            if name := method["name"] if method["name"] in role else "":
                # The corners come in twos: the foot of a step, and the point on top of it.
                series.append(Series(in_words(name), role[name], line, line[1::2]))
            else:
                series.insert(0, Series("", "other", line, []))
        reach = "; ".join(
            f"{one.name} reaches {max(x for x, _ in one.line):.2f}"
            for one in series
            if one.name and one.line
        )
        alt = f"{title} against {y_name}, a staircase for each method. Furthest right: {reach}."
        yield line_figure(series, title, alt, title.lower(), y_name, x_max)


def gamma_figures(result: Result) -> Iterator[Figure]:
    """Draw base share, diversity and quality by gamma, averaged over temperatures, per router."""
    if result["routers"] is None:
        return
    control = result["routers"]["control"]
    swept = [
        method
        for method in result["methods"]
        if method["name"] in result["routers"]["dominance"]
        and len({point["knob"] for point in method["points"]}) > 1
    ]
    best = sorted(
        (m["name"] for m in swept if m["name"] != control and ":" not in m["name"]),
        key=lambda name: name != DEFAULT_ROUTER,
    )
    role = dict(zip(best, ("router", "second", "third", "fourth"), strict=False))
    role[control] = "control"
    swept.sort(key=lambda method: method["name"] in role)  # what is named is drawn last
    for title, value in (
        ("Base share", lambda point: point["base_share"]),
        ("Diversity", lambda point: (point["lexical"] + point["semantic"]) / 2),
        (result["qualities"][0].capitalize(), lambda point: point["quality"][0]),
    ):
        series = [
            Series(in_words(name) if name in role else "", role.get(name, "other"), line, line)
            for method in swept
            if (line := means_by_knob(method["points"], value)) and (name := method["name"])
        ]
        if series:
            alt = f"{title} by gamma: " + "; ".join(
                f"{one.name} from {one.line[0][1]:.2f} to {one.line[-1][1]:.2f}"
                for one in series
                if one.name
            )
            yield line_figure(series, f"{title} by gamma", alt, "gamma", title.lower())


def line_figure(
    series: Sequence[Series], title: str, alt: str, x: str, y: str, x_max: float = 1.0
) -> Figure:
    """Draw lines over axes from 0 to `x_max` and from 0 to 1; later ones over earlier ones."""
    drawing, axes = empty_drawing(4.4)
    for name, role, line, dots in series:
        colour, marker, style, width = STYLES[role]
        shared = {"color": PLACEHOLDERS[colour], "clip_on": False, "alpha": 1 if name else 0.45}
        if line:
            axes.plot(*zip(*line, strict=True), style, linewidth=width, **shared)
        if dots:
            axes.plot(*zip(*dots, strict=True), marker, markersize=5, **shared)
        if name:
            axes.plot([], [], marker + style, label=shortened(name), linewidth=width, **shared)
    axes.set(xlim=(0, x_max), ylim=(0, 1))
    axes.set_xlabel(shortened(x, LONGEST_AXIS), color=PLACEHOLDERS["muted"])
    axes.set_title(
        shortened(y, LONGEST_AXIS), loc="left", fontsize=11.5, color=PLACEHOLDERS["muted"]
    )
    axes.grid(color=PLACEHOLDERS["grid"])
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.1, -0.18), borderpad=0, borderaxespad=0, ncols=2,
        handlelength=1.8, handletextpad=0.5, columnspacing=1, fontsize=11, frameon=False,
        labelcolor=PLACEHOLDERS["ink"],
    )  # fmt: skip
    return to_figure(drawing, title, alt)


def empty_drawing(height: float) -> tuple[Drawing, Any]:
    """Return a drawing as wide as a phone, `height` inches high, and its axes without a frame."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(5, height), layout="constrained")
    axes = drawing.subplots()
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=PLACEHOLDERS["muted"])
    return drawing, axes


def to_figure(drawing: Drawing, title: str, alt: str) -> Figure:
    """Write a drawing as the content of an SVG element that names no file, font or address."""
    file = StringIO()
    drawing.savefig(
        file, format="svg", transparent=True,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )  # fmt: skip
    content = file.getvalue()
    content = content[content.index("</defs>") + len("</defs>") : content.rindex("</svg>")]
    content = re.sub(r"<defs>\s*<clipPath.*?</defs>", "", content, flags=re.DOTALL)
    content = re.sub(
        r' clip-path="[^"]*"| id="[a-z0-9.]+_\d+"|font-family: [^;"]*;? ?', "", content
    )
    content = re.sub(r"\s+", " ", content)
    for name, placeholder in PLACEHOLDERS.items():
        content = content.replace(placeholder, f"var(--{name})")
    width, height = drawing.get_size_inches() * 72
    return Figure(title, alt, width, height, content)


def staircase(points: Iterable[Place]) -> list[Place]:
    """Return the corners of the union of rectangles [0, x] x [0, y], from the y to the x axis."""
    corners: list[Place] = []
    best = 0.0
    for x, y in sorted(points, key=lambda point: (-point[0], -point[1])):
        if y > best:
            corners += [(x, best), (x, y)]
            best = y
    return [(0.0, best), *reversed(corners)] if corners else []


def means_by_knob(
    points: Sequence[Point], value: Callable[[Point], float | None]
) -> list[tuple[float, float]]:
    """Return each knob value with the mean of a value over the points that have it."""
    at: dict[float, list[float]] = {}
    for point in points:
        if point["knob"] is not None and (y := value(point)) is not None:
            at.setdefault(point["knob"], []).append(y)
    return [(knob, sum(ys) / len(ys)) for knob, ys in sorted(at.items())]


def roles(result: Result) -> dict[str, str]:
    """Return the roles of the methods that stand out in every figure; the others are "other".

    The default router stands out, or where it is missing the best one; beside it base, aligned, the
    control and the best baseline.
    """
    about, names = result["about"], {kind: list[str]() for kind in ("model", "router", "baseline")}
    for method in result["methods"]:
        names[method["kind"]].append(method["name"])
    found = {about["base"]: "base", about["aligned"]: "aligned"}
    if control := (result["routers"] or {}).get("control"):
        found[control] = "control"
    names["router"].sort(key=lambda name: name != DEFAULT_ROUTER)
    for kind in ("router", "baseline"):
        if best := next((name for name in names[kind] if name not in found), None):
            found[best] = kind
    return found


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut a name that is too long for a figure."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
