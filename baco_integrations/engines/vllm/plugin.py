"""What vLLM loads by the entry point ``vllm.general_plugins``, in each of its processes."""

from __future__ import annotations

from . import ARCHITECTURE, SUPPORTED


def register() -> None:
    """Tell vLLM about the fused model; models of other kinds are served as without it."""
    from vllm import ModelRegistry, __version__
    from vllm.logger import init_logger

    if not __version__.startswith(f"{SUPPORTED}."):
        init_logger(f"vllm.{__name__}").warning(
            "BACo runs inside vLLM %s only, and this is %s: %s is not there.",
            *(SUPPORTED, __version__, ARCHITECTURE),
        )
        return
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .admission import install
    from .config import FusedModelConfig

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__package__}.model:{ARCHITECTURE}")
    MODELS_CONFIG_MAP[ARCHITECTURE] = FusedModelConfig
    install()
