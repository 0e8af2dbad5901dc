"""`polyvec serve`: the HTTP server. Every option beside the models and tasks is a field of `ServerSettings`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from polyvec.settings_options import with_options
from serving.errors import SettingsError
from serving.settings import (
    ClusterSettings,
    EngineSettings,
    ServerSettings,
    load_cluster_settings,
    load_server_settings,
)
from serving.settings.documents import DocumentSettings
from serving.settings.supervision import SupervisionSettings

if TYPE_CHECKING:
    from serving.engine.protocol import Engine
    from serving.http.server import Bound


@with_options(
    ClusterSettings,
    panels={
        ServerSettings: "Server",
        DocumentSettings: "Server",
        SupervisionSettings: "Server",
        ClusterSettings: "Cluster (with --cluster)",
        EngineSettings: "Engine",
    },
)
def serve(
    models: Annotated[Path, typer.Argument(help="What `polyvec merge` wrote: OUT or OUT/<task>.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Serve this task; repeatable. Default: all of MODELS.")
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="Serve with Ray: replicas of each task, on one machine or many."
        ),
    ] = False,
    **options: Any,
) -> None:
    """Serve merged checkpoints over HTTP, to clients of the Jina and OpenAI embeddings APIs.

    Each option can also be set in the environment, as POLYVEC_<NAME>.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if cluster:
        raise typer.Exit(_serve_cluster(models, task, given))
    if alone := sorted(given.keys() - ServerSettings.model_fields.keys()):
        flags = ", ".join("--" + name.replace("_", "-") for name in alone)
        raise typer.BadParameter(f"{flags}: only with --cluster.")
    raise typer.Exit(_serve_here(models, task, given))


def _serve_here(models: Path, wanted: list[str] | None, given: dict[str, Any]) -> int:
    """Engines in this process."""
    from serving.http.server import Announce, bind, run
    from serving.manifest import find_tasks

    settings = load_server_settings(given)
    directories = find_tasks(models, wanted)
    # What can fail at once comes before vLLM is imported.
    listener = bind(settings)
    from serving.engine.start import runs_on_cpu, start_engine

    async def start(directory: Path) -> "Engine":
        return await start_engine(directory, settings, num_engines=len(directories))

    tasks = list(directories)
    return run(
        listener,
        directories,
        start,
        settings,
        may_overlap=runs_on_cpu,
        announce=Announce(
            bound=lambda bound: _print_settings(settings, models, tasks, bound),
            ready=lambda bound: _print_ready(settings, tasks, bound),
        ),
    )


def _serve_cluster(models: Path, wanted: list[str] | None, given: dict[str, Any]) -> int:
    """Engines in replicas, on this machine or many."""
    from serving.http.server import Announce
    from serving.manifest import find_tasks

    settings = load_cluster_settings(given)
    tasks = list(find_tasks(models, wanted))
    settings.check_tasks(tasks)
    try:
        from serving.cluster.run import run_cluster
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise SettingsError(
            f"Ray is not installed ({error}). Install polyvec with it: pip install 'polyvec[ray]'."
        ) from error

    return run_cluster(
        models,
        tasks,
        settings,
        Announce(
            bound=lambda bound: _print_settings(settings, models, tasks, bound),
            ready=lambda bound: _print_ready(settings, tasks, bound),
        ),
    )


def _print_settings(
    settings: ServerSettings, models: Path, tasks: list[str], bound: "Bound"
) -> None:
    """Everything that the server runs with, but for user names and passwords in URLs."""
    print(f"polyvec serves {', '.join(tasks)} from {models} at {bound.url}")
    shown = settings.model_dump(mode="json")
    shown["limits_storage"] = without_secrets(settings.limits_storage.get_secret_value())
    if settings.otlp_endpoint is not None:
        shown["otlp_endpoint"] = without_secrets(settings.otlp_endpoint)
    for name, value in shown.items():
        print(f"  {name} = {json.dumps(value, ensure_ascii=False)}")
    print("Loading the engines. They take requests when /health/ready says so.", flush=True)


def without_secrets(url: str) -> str:
    """Where `url` leads: without user, password and query, which can hold both."""
    parts = urlsplit(url)
    userinfo, at, place = parts.netloc.rpartition("@")
    # An @ further on means that what stands before it is part of a password.
    if "@" in parts.path + parts.query + parts.fragment:
        return f"{parts.scheme}://***"
    return f"{parts.scheme}://{'***' if userinfo else ''}{at}{place}{parts.path}"


def _print_ready(settings: ServerSettings, tasks: list[str], bound: "Bound") -> None:
    task = "retrieval.query" if "retrieval" in tasks else tasks[0]
    task = "code.query" if task == "code" else task
    body = json.dumps({"model": settings.model_name, "task": task, "input": ["hello"]})
    key = "" if settings.keys is None else ' -H "Authorization: Bearer $API_KEY"'
    print("Ready. Try it:")
    print(f"  curl {bound.url}/v1/embeddings{key} -H 'Content-Type: application/json' -d '{body}'")
    if settings.playground:
        asked = "" if settings.keys is None else " (any user name, an API key as the password)"
        print(f"Or search in a browser: {bound.url}/playground{asked}")
    sys.stdout.flush()
