"""What runs inside vLLM's worker: the model that pools before anything leaves it.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins`), also where
polyvec is merely installed beside it. So this imports nothing of vLLM's models before one is asked for.
"""

ARCHITECTURE = "PolyvecQwen2_5_VL"
"""The name under which vLLM knows the model; what `architectures` in a config has to say."""

PLUGIN = "polyvec"
"""The entry point's name, by which `VLLM_PLUGINS` may allow it."""

SCHEDULER = "serving.engine.worker.scheduler.ParcelScheduler"
"""vLLM's scheduler, taking parcels of texts."""

EXTRA = "polyvec"
"""Where a recipe travels in vLLM's `PoolingParams.extra_kwargs`."""


def register() -> None:
    """Make the model known to this process's vLLM."""
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "serving.engine.worker.model:PolyvecQwen25VL")
