"""What won and what lost, in plain sentences made from the numbers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .words import DEFAULT_ROUTER, in_words

FLOOR = "0.9"
ALPHA = 0.05
OF_TINY = "The tiny pair was made to show the effect; it is no evidence about other models."

Result = Mapping[str, Any]


def findings(result: Result) -> list[str]:
    """Say what a result shows, and what it does not; of an unfinished run only how far it is.

    Args:
        result: A result of `compare`, without its findings.
    """
    if "unfinished" in result:
        return [result["unfinished"]]
    return [
        *on_coverage(result),
        *on_routers(result),
        *on_valid_distinct(result),
        *on_valid_contrasts(result),
        *on_families(result),
        *on_limits(result),
    ]


def headline(result: Result) -> str:
    """Say in one sentence what was found, and for which models.

    Args:
        result: A result of `compare`.

    Returns:
        The sentence: of the default router, or else of the method that covers most, against the
        aligned model. Of an unfinished run, how far it is.
    """
    if "unfinished" in result:
        return str(result["unfinished"])
    contrasts, aligned = result["valid_contrasts"], result["about"]["aligned"]
    names, alone = result["about"]["models"] or ["this pair"], in_words(aligned).lower()
    models = "the tiny pair" if names == ["tiny"] else joined(names)
    subject = DEFAULT_ROUTER if DEFAULT_ROUTER in contrasts else next(iter(contrasts))
    if subject == aligned:
        return f"With {models}, nothing gave more different valid answers than the {alone}."
    test, name = contrasts[subject][aligned], in_words(subject)
    if not name.startswith("BACo"):
        name = f"{subject} ({name.lower()})"
    verdict = "gave more" if test["difference"][0] > 0 else "gave fewer"
    if test["p"] >= ALPHA:
        verdict = "is not shown to give more"
    sentence = f"With {models}, {name} {verdict} different valid answers than the {alone}"
    return sentence + at_floor(result, subject, aligned)


def at_floor(result: Result, one: str, other: str) -> str:
    """Return the end of a sentence: what two methods gave where most answers were valid."""
    at = {m["name"]: m["valid_distinct"]["at"][FLOOR] for m in result["methods"]}
    if short := [in_words(name) for name in (one, other) if not at[name]]:
        return f"; {joined(short)} never had 90 % of the answers valid."
    more, fewer = ("{:.1f} [{:.1f}, {:.1f}]".format(*at[name]["value"]) for name in (one, other))
    return (
        f": {more} of {result['about']['k']} against {fewer}, each at its best setting where at "
        "least 90 % are valid."
    )


def with_interval(triple: Sequence[float]) -> str:
    """Write an estimate with its interval."""
    value, low, high = triple
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def joined(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def on_coverage(result: Result) -> Iterator[str]:
    """Say which method covers most, whether that is shown, and which covers least."""
    best, others = result["contrasts"]["best"], result["contrasts"]["others"]
    if not others:
        return
    area = {method["name"]: method["coverage"]["overall"] for method in result["methods"]}
    equal = [name for name, test in others.items() if test["p"] >= ALPHA]
    ahead = "." if equal else ", ahead of every other method."
    yield f"{best} has the largest Coverage, {with_interval(area[best])}{ahead}"
    if equal:
        differences = "differences are" if len(equal) > 1 else "difference is"
        yield (
            f"That it is ahead of {joined(equal)} is not shown: the paired {differences} within "
            "what chance does (Holm-corrected p of at least .05)."
        )
    last = result["methods"][-1]["name"]
    yield f"{last} has the smallest, {with_interval(area[last])}."


def on_routers(result: Result) -> Iterator[str]:
    """Say which routers cover more, or less, than the control."""
    if not (routers := result["routers"]) or not (against := routers.get("against")):
        return
    control = routers["control"]
    shown = {
        name: test["difference"]
        for name, test in against.items()
        if test["p"] < ALPHA and ":" not in name
    }
    better = [name for name, gap in shown.items() if gap[0] > 0]
    worse = [name for name, gap in shown.items() if gap[0] < 0]
    if better:
        top = max(better, key=lambda name: shown[name][0])
        yield (
            f"Routing by {joined(better)} covers more than routing by chance ({control}); "
            f"the most {top}, by {with_interval(shown[top])}."
        )
    else:
        yield f"No router is shown to cover more than routing by chance ({control})."
    if worse:
        yield f"{joined(worse)} {'cover' if len(worse) > 1 else 'covers'} less than {control}."


def on_valid_distinct(result: Result) -> Iterator[str]:
    """Say which method gives most valid-distinct answers at the floor, and which never reach it."""
    k, aligned = result["about"]["k"], result["about"]["aligned"]
    at_floor = {m["name"]: m["valid_distinct"]["at"][FLOOR] for m in result["methods"]}
    found = {name: at["value"] for name, at in at_floor.items() if at}
    if not found:
        yield "No method reached a valid share of .9 at any point."
        return
    best = max(found, key=lambda name: found[name][0])
    sentence = (
        f"Where at least 90 % of the answers are valid, {best} names most different things "
        f"among {k} answers: {with_interval(found[best])}"
    )
    if aligned in found and best != aligned:
        sentence += f", {aligned} {with_interval(found[aligned])}"
    yield f"{sentence}."
    short = [name for name in at_floor if name not in found]
    if short:
        yield f"{joined(short)} never {'reach' if len(short) > 1 else 'reaches'} that valid share."


def on_valid_contrasts(result: Result) -> Iterator[str]:
    """Compare the default router with what it stands against, on valid-distinct Coverage."""
    for name, others in result["valid_contrasts"].items():
        gains = ", ".join(
            f"{with_interval(others[each]['difference'])} over {each}"
            for each in ("aligned", "base", "rand", "nudge")
            if each in others
        )
        if gains:
            yield f"Coverage of valid and different answers, paired: {name} gains {gains}."


def on_families(result: Result) -> Iterator[str]:
    """Say where the metrics of one family alone put another method first."""
    best = result["contrasts"]["best"]
    for family in ("lexical", "semantic"):
        area = {method["name"]: method["coverage"][family] for method in result["methods"]}
        top = max(area, key=lambda name: area[name][0])
        if top != best:
            yield (
                f"By {family} metrics alone {top} comes first, {with_interval(area[top])}; "
                f"{best} has {with_interval(area[best])}."
            )


def on_limits(result: Result) -> Iterator[str]:
    """Say what makes the comparison uncertain or unequal."""
    about = result["about"]
    if about["models"] == ["tiny"]:
        yield OF_TINY
    counts = {method["name"]: len(method["points"]) for method in result["methods"]}
    least, most = min(counts.values()), max(counts.values())
    if least < most:
        narrow = [name for name, count in counts.items() if count == least]
        yield (
            f"Methods were swept over {least} ({joined(narrow)}) to {most} points, and a wider "
            "sweep can only cover more: fair comparisons are those between equal numbers."
        )
    if about["prompts"] < 50:
        yield f"With {about['prompts']} prompts, differences have to be large to be seen."
    if count := about["prompts_left_out"]:
        prompts = "1 prompt was" if count == 1 else f"{count} prompts were"
        yield f"{prompts} left out, because some point or seed has no answers to them."
    for name in result["left_out"]:
        yield (
            f"{name.capitalize()} was left out: shuffled words do as well by it as the aligned "
            "model's answers, so it has no scale here."
        )
