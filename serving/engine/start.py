"""Start vLLM on a merged checkpoint: polyvec's settings in vLLM's options.

Every option here is decided for embedding; its reason stands beside it. Importing this module imports
no vLLM; starting does, and takes most of a minute on two cores.
"""

import json
import os
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from serving.allocator import STEP_TUNABLES
from serving.engine.environment import children_without_main, variables
from serving.engine.external import ExternalPooler
from serving.engine.garbage import settle
from serving.engine.pooled_where import PooledHere, PooledInWorker, Pooling
from serving.engine.processes import EngineProcesses, stop_now
from serving.engine.projector import load_projector
from serving.engine.recipe import MultiDtype
from serving.engine.sockets import SocketDirectory
from serving.engine.thread import in_own_thread
from serving.engine.vllm_engine import VllmEngine
from serving.engine.worker import ARCHITECTURE, PLUGIN, SCHEDULER, register
from serving.errors import CheckpointError, EngineStartError, PolyvecError
from serving.manifest import Manifest, read_manifest
from serving.settings import EngineSettings

if TYPE_CHECKING:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

_MIN_CPU_CACHE_BYTES = 64 * 1024 * 1024

_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


async def start_engine(
    directory: Path, settings: EngineSettings, *, num_engines: int = 1
) -> VllmEngine:
    """Start vLLM on the merged checkpoint in `directory`.

    Args:
        directory: one merged task.
        settings: how to start it.
        num_engines: engines that share the accelerator's memory with this one, itself included.

    Raises:
        CheckpointError: the directory is not a whole merged checkpoint.
        EngineStartError: vLLM is not installed, or did not come up.
    """
    manifest = read_manifest(directory)
    projector = load_projector(directory, manifest)
    if settings.pooling == "engine":
        require_plugin()
    sockets, processes = SocketDirectory(), EngineProcesses()
    with ExitStack() as undo:
        undo.callback(sockets.release)
        llm = await in_own_thread(
            lambda: _start_llm(directory, manifest, settings, num_engines, sockets.path, processes),
            # Without its processes vLLM gives up at once.
            interrupt=processes.kill,
            discard=lambda llm: stop_now(llm, processes),
        )
        undo.callback(stop_now, llm, processes)
        processes.survey()
        settle()
        pooling: Pooling
        if settings.pooling == "external":
            pooling = PooledHere(ExternalPooler(manifest, projector))
        else:
            pooling = PooledInWorker(manifest, _multi_dtype(manifest, settings))
        engine = VllmEngine(llm, pooling, settings, processes, sockets)
        undo.pop_all()
    return engine


def require_plugin() -> None:
    """Refuse where vLLM's processes would not find the model that pools in them.

    Raises:
        EngineStartError: polyvec is not installed as a package, or its plugin is switched off.
    """
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        raise EngineStartError(
            f"VLLM_PLUGINS={allowed} keeps vLLM from loading polyvec's model. "
            f"Add {PLUGIN} to it, or load with pooling='external'."
        )
    if not entry_points(group="vllm.general_plugins", name=PLUGIN):
        raise EngineStartError(
            "polyvec is not installed, or was before it had a model of its own, so vLLM's processes "
            "cannot find it. Install it again (pip install -e .), or load with pooling='external'."
        )


def runs_on_cpu() -> bool:
    """Whether the installed vLLM computes on the CPU.

    Raises:
        EngineStartError: vLLM is not installed.
    """
    with variables(_process_variables("ERROR")):
        try:
            from vllm.platforms import current_platform
        except ImportError as error:
            raise EngineStartError(
                f"vLLM is not installed ({error}). "
                "Install polyvec with an engine: pip install 'polyvec[cpu]' or 'polyvec[gpu]'."
            ) from error
        return bool(current_platform.is_cpu())


def num_cpu_threads(reserved_cores: int) -> int:
    """Threads of a model on this process's cores."""
    return max(1, len(os.sched_getaffinity(0)) - reserved_cores)


def _start_llm(
    directory: Path,
    manifest: Manifest,
    settings: EngineSettings,
    num_engines: int,
    sockets: Path,
    processes: EngineProcesses,
) -> "AsyncLLM":
    on_cpu = runs_on_cpu()
    inherited = _process_variables(settings.log_level) | {"VLLM_RPC_BASE_PATH": str(sockets)}
    if on_cpu:
        # The model's threads sleep when they wait for each other. Otherwise they spin on cores that
        # prepare the next inputs: for pages, half of the processor time.
        inherited["OMP_WAIT_POLICY"] = "PASSIVE"
        inherited["GLIBC_TUNABLES"] = STEP_TUNABLES
        if settings.reserved_cores:
            # A model that has every core keeps those waiting who feed it: what it computes together, it
            # computes when the last of its threads gets a core.
            inherited["OMP_NUM_THREADS"] = str(num_cpu_threads(settings.reserved_cores))
    with variables(inherited), children_without_main(processes.add):
        from vllm.v1.engine.async_llm import AsyncLLM

        if settings.pooling == "engine":
            # vLLM does so too, but lets an engine that starts beside another go on before it has.
            register()
        try:
            args = _engine_args(directory, manifest, settings, num_engines, on_cpu=on_cpu)
            # Not by a local name: see `in_own_thread`.
            return AsyncLLM.from_engine_args(args)
        except PolyvecError:
            raise
        except Exception as error:
            processes.finish()
            raise EngineStartError(
                f"vLLM did not start on {directory}: {error} "
                "Its own report stands above; POLYVEC_LOG_LEVEL=INFO shows more."
            ) from error


def _engine_args(
    directory: Path,
    manifest: Manifest,
    settings: EngineSettings,
    num_engines: int,
    *,
    on_cpu: bool,
) -> "AsyncEngineArgs":
    from vllm.config import PoolerConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    dtype = settings.dtype or manifest.dtype
    in_worker = settings.pooling == "engine"
    max_tokens = settings.max_model_tokens or manifest.max_text_tokens
    compiled = not on_cpu if settings.compile is None else settings.compile
    return AsyncEngineArgs(
        model=str(directory),
        runner="pooling",
        # A single vector is no business of vLLM's own: CLS or MEAN would forbid chunked prefill.
        pooler_config=PoolerConfig(seq_pooling_type="LAST", tok_pooling_type="ALL"),
        # Our model takes the dimensions of a request; vLLM asks the config whether it may.
        hf_overrides=(
            {"architectures": [ARCHITECTURE], "is_matryoshka": True} if in_worker else {}
        ),
        scheduler_cls=SCHEDULER if in_worker else None,
        # "auto" would turn a float32 checkpoint into 16 bits.
        dtype=dtype,
        max_model_len=max_tokens,
        max_num_batched_tokens=settings.max_batch_tokens,
        # Every prompt of a step has a token in it.
        max_num_seqs=min(settings.max_batch_prompts, settings.max_batch_tokens),
        limit_mm_per_prompt={"image": 1, "video": 0},
        mm_processor_kwargs={
            "size": {
                "shortest_edge": manifest.image.min_pixels,
                "longest_edge": settings.max_pixels or manifest.image.max_pixels,
            }
        },
        # A cached prefix has no hidden states: ALL pooling would return too few tokens.
        enable_prefix_caching=False,
        # Pages do not repeat; the cache would hold 4 GiB of pixels.
        mm_processor_cache_gb=0,
        distributed_executor_backend=_executor() if on_cpu else None,
        gpu_memory_utilization=settings.gpu_memory_fraction / num_engines,
        kv_cache_memory_bytes=(
            settings.cpu_cache_bytes or _cpu_cache_bytes(directory, dtype, max_tokens)
            if on_cpu
            else None
        ),
        enforce_eager=not compiled,
        use_tqdm_on_load=False,
        disable_log_stats=True,
    )


def _executor() -> str | None:
    """Scheduler and model in one process, as on one GPU; None leaves the choice to vLLM.

    On a CPU vLLM would run them in two, which wait for each other by polling: on two cores that took a
    fifth of all items a second. It does so to bind the model's threads to cores, so who asks for a
    binding gets its way.
    """
    if "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        return None
    return "vllm.v1.executor.uniproc_executor.UniProcExecutor"


def _multi_dtype(manifest: Manifest, settings: EngineSettings) -> MultiDtype:
    """No coarser than the model's own arithmetic."""
    if settings.multi_vector_dtype is not None:
        return settings.multi_vector_dtype
    return "float32" if (settings.dtype or manifest.dtype) == "float32" else "float16"


def _cpu_cache_bytes(directory: Path, dtype: str, max_tokens: int) -> int:
    """Bytes of keys and values for two prompts of the longest length."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config", config)
        head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        values_per_token = int(
            2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head_dim
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not a model's config ({error}). Merge the checkpoint again."
        ) from error
    return max(_MIN_CPU_CACHE_BYTES, 2 * max_tokens * values_per_token * _DTYPE_BYTES[dtype])


def _process_variables(log_level: str) -> dict[str, str]:
    return {
        "VLLM_LOGGING_LEVEL": log_level,
        "VLLM_NO_USAGE_STATS": "1",
        # A merged checkpoint is complete; nothing is to be looked up on a hub.
        "HF_HUB_OFFLINE": "1",
        # This process has threads, so a forked child may deadlock.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # ALL-token pooling has been run on V1 alone; V2 did not offer it on a GPU in vLLM 0.26.
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        # Its dependencies' own notices say nothing about the model.
        "PYTHONWARNINGS": "ignore::FutureWarning",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
