"""From a run's folder to its result: what to measure with is found out from its prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import ParameterError
from .categories import CategoryOracle
from .metrics import require_sacrebleu
from .prompts import Prompt
from .quality import (
    ChatJudge,
    OracleQuality,
    Quality,
    RewardQuality,
    SequenceClassifier,
)
from .records import Record, key_of, read_errors, read_manifest, read_records
from .result import Settings, compare
from .run import machine, versions
from .scores import Scores, attempt, checked_scores, measure, name_of
from .similarity import (
    AnswerSimilarity,
    EmbeddingSimilarity,
    OracleSimilarity,
    PairwiseSimilarity,
    Question,
    TfidfSimilarity,
)
from .tiny import TinyOracle

Progress = Callable[[int, int], None]
Oracle = TinyOracle | CategoryOracle
SIMILARITIES = TfidfSimilarity, EmbeddingSimilarity, OracleSimilarity, PairwiseSimilarity


@dataclass(frozen=True)
class Scorer:
    """What answers are measured with.

    Attributes:
        similarity: Which of them are alike.
        qualities: How good they are; the first one decides what is valid.
        described: What each of these is, in words.
    """

    similarity: AnswerSimilarity
    qualities: Mapping[str, Quality]
    described: Mapping[str, str] = field(default_factory=dict)

    def try_out(self, prompt: Prompt) -> None:
        """See whether invented answers to a prompt can be measured.

        Raises:
            ParameterError: The similarity or a quality fails, or returns something else.
        """
        question, answers = Question(prompt.id, prompt.text), ["One answer.", "Another answer."]
        attempt("similarity", self.similarity, question, answers)
        for name, quality in self.qualities.items():
            checked_scores(name, quality, question, answers)

    def measure(self, records: Iterable[Record], **settings: Any) -> Scores:
        """Score records; settings are those of `measure`."""
        return measure(records, self.similarity, self.qualities, **settings)


def find_scorer(prompts: Sequence[Prompt], similarity: Any = None, quality: Any = None) -> Scorer:
    """Return what answers to these prompts are measured with.

    Requests of the tiny world and categories have an exact oracle. Everything else needs a judge.

    Args:
        prompts: What was asked.
        similarity: An embedding model or function as for `EmbeddingSimilarity`, or one of the
            similarities; the oracle or TF-IDF if left out.
        quality: A chat model of LangChain (it is asked for a rating), a `SequenceClassifier`, or
            a function of a `Question` and answers that returns a number from 0 to 1 for each.

    Raises:
        ParameterError: The prompts have no oracle, and no quality was given.
        MissingExtraError: The extra ``eval`` is not installed.
    """
    require_sacrebleu("Measuring answers")  # now, rather than when all of them are there
    oracle = oracle_of(prompts)
    qualities: dict[str, Quality] = {}
    described: dict[str, str] = {}
    if quality is not None:
        qualities["task quality"] = as_quality(quality)
        described["task quality"] = name_of(quality)
    elif oracle is not None:
        for name, (verdict, meaning) in oracle.qualities.items():
            qualities[name], described[name] = oracle_quality(oracle, verdict), meaning
    else:
        raise ParameterError(
            "quality",
            "given where prompts are neither the tiny world's nor categories",
            quality,
            "Breadth alone says nothing, as noise is broad too. Give a chat model of LangChain as "
            "the judge or a function of question and answers: --quality my_judge:model.",
        )
    if similarity is not None:
        described["similarity"] = name_of(similarity)
        if not isinstance(similarity, SIMILARITIES):
            similarity = EmbeddingSimilarity(similarity)
    elif oracle is not None:
        similarity = OracleSimilarity(
            lambda question, answer: oracle.mentioned(question.id, answer) or None,
            TfidfSimilarity(),
        )
        described["similarity"] = f"classes by {oracle.name}; vectors are TF-IDF's"
    else:
        similarity = TfidfSimilarity()
        described["similarity"] = "TF-IDF of character n-grams: wording, not meaning"
    return Scorer(similarity, qualities, described)


def oracle_of(prompts: Sequence[Prompt]) -> Oracle | None:
    """Return the exact judge of the tiny world or of categories, if all prompts are its own."""
    for make in (TinyOracle, partial(TinyOracle, "validation"), CategoryOracle):
        oracle = make()
        if all(oracle.texts.get(prompt.id) == prompt.text for prompt in prompts):
            return oracle
    return None


def oracle_quality(oracle: Oracle, verdict: str) -> OracleQuality:
    """Return one field of an oracle's verdicts as a quality."""
    return OracleQuality(lambda q, a: getattr(oracle.judge(q.id, a), verdict), oracle.floor)


def as_quality(quality: Any) -> Quality:
    """Return a judge, a reward model or a function as a quality.

    Raises:
        ParameterError: It is none of these.
    """
    if isinstance(quality, SequenceClassifier):
        return RewardQuality(quality)
    if all(hasattr(quality, name) for name in ("invoke", "batch")):
        return ChatJudge(quality)
    if callable(quality) and not isinstance(quality, type):
        return quality  # type: ignore[no-any-return]
    raise ParameterError(
        "quality",
        "a chat model of LangChain, or a function of a question and answers",
        quality,
        "A reward model goes in as RewardQuality(model).",
    )


def evaluate(
    folder: str | Path,
    similarity: Any = None,
    quality: Any = None,
    *,
    settings: Settings | None = None,
    title: str | None = None,
    command: str | None = None,
    progress: Progress = lambda done, of: None,
) -> dict[str, Any]:
    """Measure and compare what a run has collected.

    Args:
        folder: The run's folder.
        similarity: As for `find_scorer`.
        quality: Likewise.
        settings: How to compare. In the run of a model that is no pair, ``plain`` stands for both
            base and aligned.
        title: The report's title.
        command: What this was started with; the run's own stands before it.
        progress: Called with how many prompts are measured, and of how many.

    Returns:
        The result, for `write_report`.

    Raises:
        ParameterError: The run lacks what a comparison needs; the message says what.
    """
    started = time.perf_counter()
    records, manifest = read_records(folder), read_manifest(folder)
    unfinished = how_far(Path(folder), records, manifest)
    if not records:
        remedy = unfinished[1] if unfinished else "Its errors.jsonl tells why there are none."
        raise ParameterError("run", "a run with records", str(folder), remedy)
    scorer = find_scorer(prompts_of(records, manifest), similarity, quality)
    models = " and ".join(dict.fromkeys(str(record["model"]) for record in records))
    about = {
        "title": title or f"Breadth and quality of {models}",
        "command": " && ".join(filter(None, (manifest.get("command"), command))),
        "machine": manifest.get("machine") or machine(),
        "versions": manifest.get("made_with") or versions(),
        "measured_with": dict(scorer.described),
        "pair": pair_settings(manifest),
    }
    if unfinished:
        far, how = unfinished
        notice = f"The run is not finished: {far}, and all that follows is about these. {how}"
        about = {"unfinished": notice, **about}
    try:
        settings = with_anchors(settings or Settings(), {record["method"] for record in records})
        scores = scorer.measure(records, aligned=settings.aligned, progress=progress)
        result = compare(scores, settings, **about)
    except ParameterError as error:
        if unfinished and error.parameter in ("run", "records", "scores"):
            raise ParameterError("run", "far enough for a report", *unfinished) from error
        raise
    result["about"]["time_used"] = {
        "answering": duration(sum(record["seconds"] or 0 for record in records)),
        "measuring": duration(time.perf_counter() - started),
    }
    return result


def how_far(
    folder: Path, records: Sequence[Record], manifest: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Return how far an unfinished run is and how to go on, in words; None if it is finished."""
    if not manifest:
        return None
    settings = manifest["settings"]
    points = sum(map(len, settings["methods"].values()))
    whole = points * len(settings["seeds"]) * len(manifest["prompts"])
    done = {key_of(record) for record in records}
    failed = {key_of(row) for row in read_errors(folder)} - done
    if len(done) + len(failed) >= whole:
        return None
    n, command = settings["n"], manifest["command"] or "collect(...) with the same settings"
    return f"{n * len(done):,} of {n * whole:,} answers are there", f"Go on with: {command}"


def prompts_of(records: Sequence[Record], manifest: Mapping[str, Any]) -> list[Prompt]:
    """Return the prompts of a run; from its records, where its run.json does not hold them."""
    if rows := manifest.get("prompts"):
        return [Prompt(row["id"], row["text"]) for row in rows]
    texts = {record["id"]: record["prompt"] for record in records}
    return [Prompt(prompt_id, text) for prompt_id, text in texts.items()]


def pair_settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings of its pair, with folders' names in place of their paths."""
    identity = manifest.get("settings", {}).get("model")
    if not isinstance(identity, Mapping):
        return {}

    def shown(value: Any) -> Any:
        is_path = isinstance(value, str) and Path(value).is_absolute()
        return Path(value).name if is_path else value

    return {key: shown(value) for key, value in identity.items() if value not in (None, {}, "")}


def with_anchors(settings: Settings, methods: set[str]) -> Settings:
    """Return settings whose base, aligned and reference are methods of the run.

    Raises:
        ParameterError: It has neither base and aligned nor ``plain``.
    """
    wanted = settings.base, settings.aligned
    if methods >= {*wanted, settings.reference}:
        return settings
    if "plain" in methods:
        return replace(settings, base="plain", aligned="plain", reference="plain")
    raise ParameterError(
        "run",
        f"one with the methods {' and '.join(wanted)}, which set the scales",
        sorted(methods),
        "Add them: --method base --method aligned. `baco eval sweep` does so by itself.",
    )


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
