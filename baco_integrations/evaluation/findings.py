"""What won and what lost, in plain sentences made from the numbers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FLOOR = "0.9"
_ALPHA = 0.05


def findings(result: Mapping[str, Any]) -> list[str]:
    """Say what a result shows, and what it does not.

    Args:
        result: A result of `compare`, without its findings.
    """
    return [
        *([result["unfinished"]] if "unfinished" in result else []),
        *_winner(result),
        *_control(result),
        *_valid_distinct(result),
        *_valid_contrasts(result),
        *_families(result),
        *_caveats(result),
    ]


def with_interval(triple: Sequence[float]) -> str:
    """Write an estimate with its interval."""
    value, low, high = triple
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def p_text(p: float) -> str:
    """Write a p-value."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def named(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _winner(result: Mapping[str, Any]) -> Iterator[str]:
    best, others = result["contrasts"]["best"], result["contrasts"]["others"]
    if not others:
        return
    area = _method(result, best)["coverage"]["overall"]
    beaten = [name for name, told in others.items() if told["p"] < _ALPHA]
    equal = [name for name in others if name not in beaten]
    yield (
        f"{best} has the largest Coverage, {with_interval(area)}"
        + (", ahead of every other method." if not equal else ".")
    )
    if equal:
        yield (
            f"That it is ahead of {named(equal)} is not shown: the paired "
            f"{'differences are' if len(equal) > 1 else 'difference is'} within what chance does "
            f"(Holm-corrected p of at least .05)."
        )
    last = result["methods"][-1]
    yield f"{last['name']} has the smallest, {with_interval(last['coverage']['overall'])}."


def _control(result: Mapping[str, Any]) -> Iterator[str]:
    routers = result["routers"]
    if not routers or not routers.get("against"):
        return
    control, against = routers["control"], routers["against"]
    better = [n for n, t in against.items() if t["p"] < _ALPHA and t["difference"][0] > 0]
    worse = [n for n, t in against.items() if t["p"] < _ALPHA and t["difference"][0] < 0]
    if better:
        top = max(better, key=lambda name: against[name]["difference"][0])
        gap = with_interval(against[top]["difference"])
        yield (
            f"Routing by {named(better)} covers more than routing by chance ({control}); "
            f"the most {top}, by {gap}."
        )
    else:
        yield f"No router is shown to cover more than routing by chance ({control})."
    if worse:
        yield f"{named(worse)} {'cover' if len(worse) > 1 else 'covers'} less than {control}."


def _valid_distinct(result: Mapping[str, Any]) -> Iterator[str]:
    k = result["about"]["k"]
    found = {
        method["name"]: at
        for method in result["methods"]
        if (at := method["valid_distinct"]["at"][_FLOOR])
    }
    if not found:
        yield "No method reached a valid share of .9 at any point."
        return
    ranked = sorted(found, key=lambda name: -found[name]["value"][0])
    aligned = result["about"]["aligned"]
    sentence = (
        f"Where at least 90 % of the answers are valid, {ranked[0]} names most different things "
        f"among {k} answers: {with_interval(found[ranked[0]]['value'])}"
    )
    if aligned in found and ranked[0] != aligned:
        sentence += f", {aligned} {with_interval(found[aligned]['value'])}"
    yield sentence + "."
    short = [method["name"] for method in result["methods"] if method["name"] not in found]
    if short:
        yield f"{named(short)} never {'reach' if len(short) > 1 else 'reaches'} that valid share."


def _valid_contrasts(result: Mapping[str, Any]) -> Iterator[str]:
    """Compare the default router with what it stands against, on valid-distinct Coverage."""
    for name, others in result["valid_contrasts"].items():
        against = [each for each in ("aligned", "base", "rand", "nudge") if each in others]
        if against:
            told = ", ".join(
                f"{with_interval(others[each]['difference'])} over {each}" for each in against
            )
            yield f"Coverage of valid and different answers, paired: {name} gains {told}."


def _families(result: Mapping[str, Any]) -> Iterator[str]:
    best = result["contrasts"]["best"]
    for family in ("lexical", "semantic"):
        top = max(result["methods"], key=lambda method: method["coverage"][family][0])
        if top["name"] != best:
            yield (
                f"By {family} metrics alone {top['name']} comes first, "
                f"{with_interval(top['coverage'][family])}; {best} has "
                f"{with_interval(_method(result, best)['coverage'][family])}."
            )


def _caveats(result: Mapping[str, Any]) -> Iterator[str]:
    about = result["about"]
    counts = {method["name"]: len(method["points"]) for method in result["methods"]}
    if len(set(counts.values())) > 1:
        least = [name for name, count in counts.items() if count == min(counts.values())]
        yield (
            f"Methods were swept over {min(counts.values())} ({named(least)}) to "
            f"{max(counts.values())} points, and a wider sweep can only cover more: fair "
            "comparisons are those between equal numbers."
        )
    if about["prompts"] < 50:
        yield f"With {about['prompts']} prompts, differences have to be large to be seen."
    if about["prompts_left_out"]:
        count = about["prompts_left_out"]
        told = "1 prompt was" if count == 1 else f"{count} prompts were"
        yield f"{told} left out, because some point or seed has no answers to them."
    for name in result["left_out"]:
        yield (
            f"{name.capitalize()} was left out: shuffled words do as well by it as the aligned "
            "model's answers, so it has no scale here."
        )


def _method(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(m for m in result["methods"] if m["name"] == name)
    return found
