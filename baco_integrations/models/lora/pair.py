"""A pair of one model and a low-rank adapter: both distributions from one reading of the weights.

The model is one side exactly; with the adapter on it is the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ...core.errors import ParameterError
from ...core.registry import Registry
from ...text.compatibility import compare
from ..architecture import require_decodable
from ..loading import (
    ModelFiles,
    fetch_weights,
    load_bytes,
    load_config,
    load_generation_config,
    load_model,
    load_tokenizer,
    locate,
    progress_bars,
)
from ..memory import WIDTHS, measure_bytes, require_memory, target_devices
from ..options import LoadOptions, check_exact
from ..options import plain as plain_data
from ..pair import ModelPair
from ..quantization import quantizer
from .read import CONFIG, WEIGHTS, adapter_size, read_adapter_config, read_card, read_changes

if TYPE_CHECKING:
    from ...engines.local.cuda_graphs import Mode
    from ...engines.local.runner import ModelRunner
    from ...engines.local.shared_weights import SwitchableLora, SwitchedModel

Exact = Literal["base", "aligned"]
_TWINS: Registry[SwitchableLora] = Registry()
_PAIRS: Registry[AdapterPair] = Registry()


class AdapterPair(ModelPair):
    """A pair that shares its weights; see `ModelPair.from_adapter`.

    Attributes:
        exact: Which side is the plain model.
        approximate: Whether the other side only stands for a model.
        error: Of an extracted adapter, the norm of what it leaves out of the two models'
            difference, relative to all of it.
    """

    exact: Exact
    approximate: bool
    error: float | None

    @classmethod
    def load(
        cls, model: str | Path, adapter: str | Path, exact: Exact | None, options: LoadOptions
    ) -> AdapterPair:
        """Load a pair; ask twice, get the same object."""
        if exact is not None:
            check_exact(exact)
        target_devices(options.placement)
        switched = locate(adapter, _other(exact), options, CONFIG)
        card = read_card(switched)
        told = card.get("exact")
        if exact is not None and told not in (None, exact):
            remedy = "Leave it out."
            raise ParameterError("exact", f"{told!r}, as {switched.name} says", exact, remedy)
        chosen: Exact = exact or told or "base"
        plain = locate(model, chosen, options)
        key = (plain.folder, plain.revision, switched.folder, switched.revision)
        return _PAIRS.get(
            (*key, chosen, options.pair_key()),
            lambda: cls._open((plain, switched), chosen, card, options),
        )

    @classmethod
    def _open(
        cls,
        sources: tuple[ModelFiles, ModelFiles],
        exact: Exact,
        card: Mapping[str, Any],
        options: LoadOptions,
    ) -> AdapterPair:
        from ...engines.local.shared_weights import SwitchedModel

        plain, switched = sources
        config = load_config(plain, options)
        require_decodable(plain.name, config)
        lora = read_adapter_config(switched)
        of_its_own = (switched.folder / "tokenizer_config.json").is_file()
        tokenizers = [
            load_tokenizer(plain, options),
            load_tokenizer(switched if of_its_own else plain, options, config),
        ]
        compare(*tokenizers).require()
        own = options.of(exact)
        twin = _load_twin(plain, switched, config, lora, own)
        models: list[Any] = [
            SwitchedModel(twin, False),
            SwitchedModel(twin, True, load_generation_config(switched)),
        ]
        names = [plain.label, f"{plain.label}+{switched.label}"]
        revisions = [plain.revision, f"{plain.revision}+{switched.revision}"]
        if exact == "aligned":
            for both in (models, tokenizers, names, revisions):
                both.reverse()
        pair = cls(
            *models,
            *tokenizers,
            name=f"{plain.name}+{switched.name}",
            base_prompt=options.base_prompt,
            template_kwargs=options.template_kwargs,
            identity={
                **dict(zip(("base", "aligned"), names, strict=True)),
                **dict(zip(("base_revision", "aligned_revision"), revisions, strict=True)),
                "dtype": options.dtype,
                "quantization": plain_data(own.quantization),
            },
        )
        pair.exact, pair.error = exact, card.get("error")
        pair.approximate = pair.error is not None or exact == "aligned"
        pair.notes += tuple(_notes(pair, of_its_own))
        return pair

    def open_sides(self, max_rows: int, graphs: Mode = "off") -> tuple[ModelRunner, ModelRunner]:
        """Return base and aligned, ready to decode so many rows at once, both in one forward."""
        from ...engines.local.shared_weights import SharedWeightsRunner

        base, aligned = (cast("SwitchedModel", model) for model in (self.base, self.aligned))
        return SharedWeightsRunner.pair(
            base,
            aligned,
            device=base.device,
            max_rows=max_rows,
            max_length=max(self.context),
            graphs=graphs,
        )

    def memory_bytes(self) -> int:
        """Return the bytes that the weights take, the adapter's among them."""
        return measure_bytes(self.base)


def _other(exact: Exact | None) -> Exact:
    return "base" if exact == "aligned" else "aligned"


def _load_twin(
    plain: ModelFiles, switched: ModelFiles, config: Any, lora: Any, options: LoadOptions
) -> SwitchableLora:
    from ...engines.local.shared_weights import SwitchableLora

    quantized = quantizer(plain, config, options)

    def load() -> SwitchableLora:
        with progress_bars(options) as bar:
            model = load_model(plain, config, options, quantized, bar(f"Loading {plain.name}"))
        return SwitchableLora(model, read_changes(switched, lora, model))

    fetch_weights(switched, options, WEIGHTS)
    key = (*plain, *switched, options.weights_key())
    if options.check_memory and key not in _TWINS:
        more = adapter_size(switched) * WIDTHS.get(options.dtype_of(config), 4.0)
        needed = load_bytes(plain, config, options) + round(more)
        require_memory(
            needed, target_devices(options.placement), f"{plain.name} with {switched.name}"
        )
    fetch_weights(plain, options)
    return _TWINS.get(key, load)


def _notes(pair: AdapterPair, of_its_own: bool) -> Iterator[str]:
    other = _other(pair.exact)
    if pair.approximate:
        left_out = pair.error is not None
        missing = f", {pair.error:.0%} of the difference left out" if left_out else ""
        yield f"The {other} model is approximate: {pair.exact} with a low-rank adapter{missing}."
    if not of_its_own:
        yield f"The adapter has no tokenizer, so {other} has that of the {pair.exact} model."
