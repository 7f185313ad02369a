"""What vLLM's configuration must be for the fused model; vLLM calls this before it loads any."""

from __future__ import annotations

import os
from typing import Any

from vllm.config.compilation import CUDAGraphMode
from vllm.logger import init_logger
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from ...core.errors import PairError

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
ROWS = f"{__package__}.rows:Rows"
logger = init_logger(f"vllm.{__name__}")


class FusedModelConfig(VerifyAndUpdateConfig):
    """Checks and completes the configuration of an engine that serves a fused model."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Choose the model runner, and have the rows' state kept.

        Raises:
            PairError: Base is not named.
        """
        if not getattr(model_config.hf_config, "baco_base", None):
            raise PairError(
                "The fused model needs a base model. Name its folder or id as baco_base in "
                "hf_overrides."
            )
        # The state of a row is kept by what only this runner has.
        if os.environ.get(RUNNER) != "0":
            os.environ[RUNNER] = "0"
            logger.info("BACo sets %s=0: it is made for the first model runner", RUNNER)
        others = [each for each in model_config.logits_processors or () if each != ROWS]
        model_config.logits_processors = [*others, ROWS]

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Refuse what the fused model cannot do, and leave out what would go wrong.

        Raises:
            PairError: It is asked for.
        """
        asked = {
            "pipeline parallelism: use tensor or data parallelism": (
                vllm_config.parallel_config.pipeline_parallel_size > 1
            ),
            "speculative decoding": vllm_config.speculative_config is not None,
            "LoRA adapters": vllm_config.lora_config is not None,
            "context parallelism": vllm_config.parallel_config.decode_context_parallel_size > 1,
            "transfers of keys between engines": vllm_config.kv_transfer_config is not None,
            "micro-batches": vllm_config.parallel_config.use_ubatching,
            "the second model runner": vllm_config.use_v2_model_runner,
        }
        if refused := [name for name, is_asked in asked.items() if is_asked]:
            raise PairError(f"A fused model cannot do {', nor '.join(refused)}.")
        # A side with a shorter prompt still needs keys that another would have lost by now.
        vllm_config.scheduler_config.disable_hybrid_kv_cache_manager = True
        # Between the two models Python decides, which a graph over both would leave out.
        mode = vllm_config.compilation_config.cudagraph_mode
        if mode is not None and mode.has_full_cudagraphs():
            vllm_config.compilation_config.cudagraph_mode = CUDAGraphMode.PIECEWISE
