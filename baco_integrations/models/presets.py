"""Well-known pairs by short names, such as ``qwen2.5-7b``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ParameterError, nearest


@dataclass(frozen=True)
class Preset:
    """A base model and its aligned counterpart, with what suits them.

    Attributes:
        name: The short name.
        base: The base model's id on the Hugging Face hub.
        aligned: The aligned model's id.
        family: Whose models these are.
        billions: Parameters of one model, in billions.
        template_kwargs: Variables for the aligned model's chat template.
        gated: Whether the hub asks for a login and an accepted licence.
        note: What is worth knowing.
        base_prompt: How the base model is shown a conversation.
    """

    name: str
    base: str
    aligned: str
    family: str
    billions: float
    template_kwargs: dict[str, Any] = field(hash=False)
    gated: bool
    note: str
    base_prompt: str = "qa"


# Name, billions of parameters, base, aligned; a name begins with the family.
TABLE = """
smollm2-135m 0.135 HuggingFaceTB/SmolLM2-135M HuggingFaceTB/SmolLM2-135M-Instruct
smollm2-360m 0.362 HuggingFaceTB/SmolLM2-360M HuggingFaceTB/SmolLM2-360M-Instruct
smollm2-1.7b 1.71 HuggingFaceTB/SmolLM2-1.7B HuggingFaceTB/SmolLM2-1.7B-Instruct
qwen2.5-0.5b 0.494 Qwen/Qwen2.5-0.5B Qwen/Qwen2.5-0.5B-Instruct
qwen2.5-1.5b 1.54 Qwen/Qwen2.5-1.5B Qwen/Qwen2.5-1.5B-Instruct
qwen2.5-3b 3.09 Qwen/Qwen2.5-3B Qwen/Qwen2.5-3B-Instruct
qwen2.5-7b 7.62 Qwen/Qwen2.5-7B Qwen/Qwen2.5-7B-Instruct
qwen2.5-14b 14.8 Qwen/Qwen2.5-14B Qwen/Qwen2.5-14B-Instruct
qwen2.5-32b 32.8 Qwen/Qwen2.5-32B Qwen/Qwen2.5-32B-Instruct
qwen2.5-72b 72.7 Qwen/Qwen2.5-72B Qwen/Qwen2.5-72B-Instruct
qwen3-0.6b 0.596 Qwen/Qwen3-0.6B-Base Qwen/Qwen3-0.6B
qwen3-1.7b 1.72 Qwen/Qwen3-1.7B-Base Qwen/Qwen3-1.7B
qwen3-4b 4.02 Qwen/Qwen3-4B-Base Qwen/Qwen3-4B
qwen3-8b 8.19 Qwen/Qwen3-8B-Base Qwen/Qwen3-8B
qwen3-14b 14.8 Qwen/Qwen3-14B-Base Qwen/Qwen3-14B
llama3.2-1b 1.24 meta-llama/Llama-3.2-1B meta-llama/Llama-3.2-1B-Instruct
llama3.2-3b 3.21 meta-llama/Llama-3.2-3B meta-llama/Llama-3.2-3B-Instruct
llama3.1-8b 8.03 meta-llama/Llama-3.1-8B meta-llama/Llama-3.1-8B-Instruct
llama3-8b 8.03 meta-llama/Meta-Llama-3-8B meta-llama/Meta-Llama-3-8B-Instruct
olmo2-1b 1.48 allenai/OLMo-2-0425-1B allenai/OLMo-2-0425-1B-Instruct
olmo2-1b-sft 1.48 allenai/OLMo-2-0425-1B allenai/OLMo-2-0425-1B-SFT
olmo2-1b-dpo 1.48 allenai/OLMo-2-0425-1B allenai/OLMo-2-0425-1B-DPO
olmo2-7b 7.3 allenai/OLMo-2-1124-7B allenai/OLMo-2-1124-7B-Instruct
olmo2-13b 13.7 allenai/OLMo-2-1124-13B allenai/OLMo-2-1124-13B-Instruct
olmo2-7b-sft 7.3 allenai/OLMo-2-1124-7B allenai/OLMo-2-1124-7B-SFT
olmo2-7b-dpo 7.3 allenai/OLMo-2-1124-7B allenai/OLMo-2-1124-7B-DPO
olmo2-13b-sft 13.7 allenai/OLMo-2-1124-13B allenai/OLMo-2-1124-13B-SFT
olmo2-13b-dpo 13.7 allenai/OLMo-2-1124-13B allenai/OLMo-2-1124-13B-DPO
olmo3-7b 7.3 allenai/Olmo-3-1025-7B allenai/Olmo-3-7B-Instruct
smollm3-3b 3.08 HuggingFaceTB/SmolLM3-3B-Base HuggingFaceTB/SmolLM3-3B
gemma2-2b 2.61 google/gemma-2-2b google/gemma-2-2b-it
gemma3-270m 0.268 google/gemma-3-270m google/gemma-3-270m-it
gemma3-1b 1.0 google/gemma-3-1b-pt google/gemma-3-1b-it
mistral-7b 7.25 mistralai/Mistral-7B-v0.3 mistralai/Mistral-7B-Instruct-v0.3
"""
GATED = {"llama3.2", "llama3.1", "llama3", "gemma2", "gemma3"}
THINKING = {"qwen3", "smollm3"}
NOTES = {
    "smollm2": "open and small",
    "qwen2.5": "padded embedding rows; the two end-of-text tokens differ",
    "qwen3": "thinking is switched off",
    "llama3.2": "the base model was never trained on chat headers",
    "llama3.1": "the base model was never trained on chat headers",
    "llama3": "the base model was never trained on chat headers",
    "olmo2": "three stages of alignment: -sft, -dpo and the final one",
    "smollm3": "thinking is switched off",
    "gemma2": "sliding-window layers",
    "gemma3": "sliding-window layers",
    "mistral": "a SentencePiece vocabulary",
}


def parse_preset(line: str) -> Preset:
    """Make a preset from a line of `TABLE`."""
    name, billions, base, aligned = line.split()
    family = name.partition("-")[0]
    return Preset(
        name=name,
        base=base,
        aligned=aligned,
        family=family,
        billions=float(billions),
        template_kwargs={"enable_thinking": False} if family in THINKING else {},
        gated=family in GATED,
        note=NOTES.get(family, ""),
    )


PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in map(parse_preset, TABLE.strip().splitlines())
}
"""Every preset by its name."""


def preset(name: str) -> Preset:
    """Return the preset of a name, in upper or lower case.

    Raises:
        ParameterError: There is none of that name.
    """
    found = PRESETS.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        hint = nearest(name, PRESETS) if isinstance(name, str) else ""
        remedy = f"{hint}Any two models work through ModelPair.from_pretrained(base, aligned)."
        raise ParameterError("preset", f"one of {', '.join(PRESETS)}", name, remedy)
    return found
