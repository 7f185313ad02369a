"""BACo inside vLLM: one model that holds both sides, and the engine that runs it in this process.

vLLM brings paged caches, continuous batching, tensor and data parallelism and its server; the step
is ours. vLLM loads `plugin` by its entry point, in every process that serves a model.

Attributes:
    SUPPORTED: The minor version of vLLM that this is made for.
    ARCHITECTURE: What the fused model is called in vLLM.
    BASE_FOLDER: The field of its configuration that names base's folder or id.
"""

SUPPORTED = "0.32"
ARCHITECTURE, BASE_FOLDER = "BacoForCausalLM", "baco_base"
