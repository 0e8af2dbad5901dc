"""`polyvec serve`: the HTTP server. Every option beside the models and tasks is a field of `ServerSettings`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from polyvec.settings_options import with_options
from serving.settings import EngineSettings, ServerSettings, load_server_settings
from serving.settings.documents import DocumentSettings
from serving.settings.supervision import SupervisionSettings

if TYPE_CHECKING:
    from serving.engine.protocol import Engine
    from serving.http.server import Bound


@with_options(
    ServerSettings,
    panels={
        ServerSettings: "Server",
        DocumentSettings: "Server",
        SupervisionSettings: "Server",
        EngineSettings: "Engine",
    },
)
def serve(
    models: Annotated[Path, typer.Argument(help="What `polyvec merge` wrote: OUT or OUT/<task>.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Serve this task; repeatable. Default: all of MODELS.")
    ] = None,
    **options: Any,
) -> None:
    """Serve merged checkpoints over HTTP, to clients of the Jina and OpenAI embeddings APIs.

    Each option can also be set in the environment, as POLYVEC_<NAME>.
    """
    from serving.http.server import Announce, bind, run
    from serving.manifest import find_tasks

    settings = load_server_settings({name: v for name, v in options.items() if v is not None})
    directories = find_tasks(models, task)
    # What can fail at once comes before vLLM is imported.
    listener = bind(settings)
    from serving.engine.start import runs_on_cpu, start_engine

    async def start(directory: Path) -> "Engine":
        return await start_engine(directory, settings, num_engines=len(directories))

    tasks = list(directories)
    status = run(
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
    raise typer.Exit(status)


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
    print(
        f"  curl {bound.url}/v1/embeddings{key} -H 'Content-Type: application/json' -d '{body}'",
        flush=True,
    )
