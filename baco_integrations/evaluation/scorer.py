"""From a run's folder to its result: what to measure with is found out from its prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import ParameterError
from .metrics import require_sacrebleu
from .prompts import Prompt
from .quality import ChatJudge, ConstraintQuality, OracleQuality, Quality, RewardQuality
from .quality import SequenceClassifier as Classifier
from .records import Record, key_of, read_errors, read_records
from .result import Settings, compare
from .run import machine, read_manifest, versions
from .scores import Scores, judged, measure, measured
from .similarity import (
    EmbeddingSimilarity,
    OracleSimilarity,
    PairwiseSimilarity,
    Question,
    Similarity,
    TfidfSimilarity,
)
from .tiny import TinyOracle
from .verifiers import adherence, same_number

Progress = Callable[[int, int], None]
Verifier = Callable[[str], float]
_SETTINGS = Settings()


@dataclass(frozen=True)
class Scorer:
    """What answers are measured with.

    Attributes:
        similarity: Which of them are alike.
        qualities: How good they are; the first one decides what is valid.
        told: What the two are, in words.
    """

    similarity: Similarity
    qualities: Mapping[str, Quality]
    told: Mapping[str, str] = field(default_factory=dict)

    def try_out(self, prompt: Prompt) -> None:
        """See whether invented answers to a prompt can be measured.

        Raises:
            ParameterError: The similarity or a quality fails, or returns something else.
        """
        question, answers = Question(prompt.id, prompt.text), ["One answer.", "Another answer."]
        measured("similarity", self.similarity, question, answers)
        for name, quality in self.qualities.items():
            judged(name, quality, question, answers)

    def measure(self, records: Iterable[Record], **settings: Any) -> Scores:
        """Score records; settings are those of `measure`."""
        return measure(records, self.similarity, self.qualities, **settings)


def find_scorer(prompts: Sequence[Prompt], similarity: Any = None, quality: Any = None) -> Scorer:
    """Return what answers to these prompts are measured with.

    Requests of the tiny world have an exact oracle; prompts of IFEval and GSM8K carry what they
    can be verified by. Everything else needs a judge.

    Args:
        prompts: What was asked.
        similarity: An embedding model or function as for `EmbeddingSimilarity`, or one of the
            similarities; the oracle or TF-IDF if left out.
        quality: A chat model of LangChain (it is asked for a rating), a `SequenceClassifier`, or
            a function of a `Question` and answers that returns a number from 0 to 1 for each.

    Raises:
        ParameterError: The prompts carry nothing that tells a good answer from a bad one, and no
            quality was given.
        MissingExtraError: The extra ``eval`` is not installed.
    """
    require_sacrebleu("Measuring answers")  # now, rather than when all of them are there
    oracle = _oracle(prompts)
    qualities: dict[str, Quality] = {}
    told: dict[str, str] = {}
    if quality is not None:
        qualities["task quality"], told["task quality"] = _judge(quality), _name(quality)
    elif oracle is not None:
        qualities["task quality"] = OracleQuality(lambda q, a: oracle.judge(q.id, a).valid)
        told["task quality"] = "the tiny world's oracle: on topic, complete and well-formed"
    verified = {prompt.id: tests for prompt in prompts if (tests := _verifiers(prompt))}
    if verified:
        qualities["constraint adherence"] = ConstraintQuality(verified)
        told["constraint adherence"] = f"verified for {len(verified)} of {len(prompts)} prompts"
    if not qualities:
        raise ParameterError(
            "quality",
            "given where prompts carry nothing to judge their answers by",
            quality,
            "Breadth alone says nothing, as noise is broad too. Give a chat model of LangChain as "
            "the judge or a function of question and answers: --quality my_judge:model.",
        )
    if similarity is not None:
        told["similarity"] = _name(similarity)
    elif oracle is not None:
        named = partial(_named, oracle)
        similarity = OracleSimilarity(named, TfidfSimilarity())
        told["similarity"] = "the tiny world's oracle names classes; vectors are TF-IDF's"
    else:
        similarity = TfidfSimilarity()
        told["similarity"] = "TF-IDF of character n-grams: wording, not meaning"
    return Scorer(_similarity(similarity), qualities, told)


def evaluate(
    folder: str | Path,
    similarity: Any = None,
    quality: Any = None,
    *,
    settings: Settings = _SETTINGS,
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
        progress: Told how many prompts of how many are measured.

    Returns:
        The result, for `write_report`.

    Raises:
        ParameterError: The run lacks what a comparison needs; the message says what.
    """
    started = time.perf_counter()
    records, manifest = read_records(folder), read_manifest(folder)
    unfinished = _unfinished(Path(folder), records, manifest)
    if not records:
        remedy = unfinished[1] if unfinished else "Its errors.jsonl tells why there are none."
        raise ParameterError("run", "a run with records", str(folder), remedy)
    scorer = find_scorer(asked(records, manifest), similarity, quality)
    about = {
        "title": title or f"Breadth and quality of {_one(records, 'model')}",
        "command": " && ".join(filter(None, (manifest.get("command"), command))),
        "machine": manifest.get("machine") or machine(),
        "versions": manifest.get("made_with") or versions(),
        "measured_with": dict(scorer.told),
        "pair": {k: _called(v) for k, v in _model(manifest).items() if v not in (None, {}, "")},
    }
    if unfinished:
        far, how = unfinished
        told = f"The run is not finished: {far}, and all that follows is about these. {how}"
        about = {"unfinished": told, **about}
    try:
        settings = replace(settings, **_anchors(records, settings))
        scores = scorer.measure(records, aligned=settings.aligned, progress=progress)
        result = compare(scores, settings, **about)
    except ParameterError as error:
        if unfinished and error.parameter in ("run", "records", "scores"):
            raise ParameterError("run", "far enough for a report", *unfinished) from error
        raise
    answering = sum(record["seconds"] or 0 for record in records)
    result["about"]["time_used"] = {
        "answering": duration(answering),
        "measuring": duration(time.perf_counter() - started),
    }
    return result


def _unfinished(
    folder: Path, records: Sequence[Record], manifest: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Say how far a run is that has not come to its end, and how to go on; None of one that has."""
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


def _called(value: Any) -> Any:
    """Name a folder without the way to it: reports are passed on."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def asked(records: Sequence[Record], manifest: Mapping[str, Any]) -> list[Prompt]:
    """Return the prompts of a run; from its records, where its run.json does not hold them."""
    if rows := manifest.get("prompts"):
        return [Prompt(row["id"], row["text"], details=row["details"]) for row in rows]
    return [
        Prompt(*pair) for pair in {record["id"]: record["prompt"] for record in records}.items()
    ]


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def _anchors(records: Sequence[Record], settings: Settings) -> dict[str, Any]:
    """Return what to change so that methods that the run has set the scales."""
    methods = {record["method"] for record in records}
    wanted = settings.base, settings.aligned
    if methods >= {*wanted, settings.reference}:
        return {}
    if "plain" in methods:
        return dict.fromkeys(("base", "aligned", "reference"), "plain")
    raise ParameterError(
        "run",
        f"one with the methods {' and '.join(wanted)}, which set the scales",
        sorted(methods),
        "Add them: --method base --method aligned. `baco eval sweep` does so by itself.",
    )


def _oracle(prompts: Sequence[Prompt]) -> TinyOracle | None:
    """The tiny world's judge, if all prompts are the tiny world's."""
    for split in ("eval", "validation"):
        oracle = TinyOracle(split)
        known = {key: found.messages[-1]["content"] for key, found in oracle.requests.items()}
        if all(known.get(prompt.id) == prompt.text for prompt in prompts):
            return oracle
    return None


def _named(oracle: TinyOracle, question: Any, answer: str) -> Any:
    return oracle.mentioned(question.id, answer) or None


def _verifiers(prompt: Prompt) -> list[Verifier]:
    details = prompt.details
    if "instruction_id_list" in details:
        if adherence(details, "").strict:
            return [lambda text: adherence(details, text).share() or 0.0]
        return []
    return [partial(_same_number, details)] if "answer" in details else []


def _same_number(details: Mapping[str, Any], text: str) -> float:
    return float(same_number(details, text))


def _judge(quality: Any) -> Quality:
    if isinstance(quality, Classifier):
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


_SIMILARITIES = (TfidfSimilarity, EmbeddingSimilarity, OracleSimilarity, PairwiseSimilarity)


def _similarity(similarity: Any) -> Similarity:
    known = isinstance(similarity, _SIMILARITIES)
    return similarity if known else EmbeddingSimilarity(similarity)


def _name(thing: Any) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _one(records: Sequence[Record], key: str) -> str:
    return " and ".join(dict.fromkeys(str(record[key]) for record in records))


def _model(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    identity = manifest.get("settings", {}).get("model")
    return identity if isinstance(identity, Mapping) else {}
