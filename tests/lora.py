"""Adapters with random weights, made and read by PEFT itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def save_adapter(model: Path, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Train an adapter, so to speak: every number that PEFT would train becomes another one."""
    wanted = {"r": 4, "lora_alpha": 6, "target_modules": list(LINEAR)} | settings
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        plain = AutoModelForCausalLM.from_pretrained(model)
        peft = get_peft_model(plain, LoraConfig(**wanted), autocast_adapter_dtype=False)
        with torch.no_grad():
            for weight in peft.parameters():
                if weight.requires_grad:
                    weight += 0.1 * torch.randn_like(weight)
        peft.save_pretrained(folder)
    return folder


def peft_logits(model: Path, adapter: Path, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What PEFT itself gives for ids ``(r, q)``, without the adapter and with it."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        plain = AutoModelForCausalLM.from_pretrained(model)
        off = plain(ids, use_cache=False).logits
        peft = PeftModel.from_pretrained(plain, adapter, autocast_adapter_dtype=False).eval()
        on = peft(ids, use_cache=False).logits
    return off, on


def merged_model(model: Path, adapter: Path) -> Any:
    """Return the model that the adapter makes of another, as PEFT merges them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = AutoModelForCausalLM.from_pretrained(model)
        peft = PeftModel.from_pretrained(plain, adapter, autocast_adapter_dtype=False)
        return peft.merge_and_unload().eval()
