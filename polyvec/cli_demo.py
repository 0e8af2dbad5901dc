"""`polyvec demo`: from a checkpoint with adapters to pages that are searched, and a playground to go on in."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from polyvec.demo_search import Found
    from serving.engine.protocol import Engine
    from serving.http.server import Bound

_NUM_QUERIES = 6


def demo(
    source: Annotated[str, typer.Argument(help="Checkpoint with its adapters, as for merge.")],
    out: Annotated[
        Path, typer.Option(help="Directory for the merged checkpoints and the picture.")
    ] = Path(".demo"),
    port: Annotated[int, typer.Option(help="Of the server; 0 takes a free one.")] = 8000,
    stay: Annotated[
        bool, typer.Option(help="Leave the server and its playground running at the end.")
    ] = True,
) -> None:
    """Merge, verify, serve, search a few pages in words, and say where to go on."""
    from serving.http.server import Announce, bind, run
    from serving.manifest import find_tasks
    from serving.settings import load_server_settings

    settings = load_server_settings(
        {
            "host": "127.0.0.1",
            "port": port,
            "playground": True,
            "server_log_level": "WARNING",
        }
    )
    merged = out / "merged"
    # A port that is taken is said before anything that takes time.
    with closing(bind(settings)) as listener:
        _merge_and_verify(source, out, merged)
        from serving.engine.start import runs_on_cpu, start_engine

        found = find_tasks(merged)
        task = "retrieval" if "retrieval" in found else next(iter(found))

        async def start(directory: Path) -> "Engine":
            return await start_engine(directory, settings, num_engines=1)

        shown = _Shown(out, time.monotonic(), stay=stay)
        print(f"\nloading {merged / task} in vLLM (about a minute on two cores) ...", flush=True)
        status = run(
            listener,
            {task: found[task]},
            start,
            settings,
            may_overlap=runs_on_cpu,
            announce=Announce(bound=lambda bound: None, ready=shown.begin),
        )
    if shown.failure is not None:
        raise shown.failure
    raise typer.Exit(1 if shown.broke_off else status)


class _Shown:
    """The search, in a thread beside the server that answers it."""

    def __init__(self, out: Path, started: float, *, stay: bool) -> None:
        self.failure: Exception | None = None
        self.broke_off = False
        self._out, self._started, self._stay = out, started, stay

    def begin(self, bound: "Bound") -> None:
        print(f"loaded in {time.monotonic() - self._started:.0f} s", flush=True)
        threading.Thread(target=self._search, args=(bound.url,), daemon=True).start()

    def _search(self, url: str) -> None:
        from polyvec.demo_search import Search
        from serving.errors import EngineError

        self.broke_off = True
        try:
            search = Search(url)
            found = search.find(_NUM_QUERIES)
            _show_hits(found, search.num_pages)
            picture = self._out / "heatmap.png"
            search.draw(found[0], picture)
            print(
                f"\npicture     {picture}: where on the best page each word of the first query is found\n"
                f"next        polyvec serve {self._out / 'merged'} --playground   (every task, until Ctrl-C)",
                flush=True,
            )
            if self._stay:
                print(f"playground  {url}/playground   (Ctrl-C ends it)", flush=True)
            self.broke_off = False
        except EngineError as error:
            self.failure = error
        finally:
            if self.broke_off or not self._stay:
                os.kill(os.getpid(), signal.SIGTERM)


def _merge_and_verify(source: str, out: Path, merged: Path) -> None:
    import merge_tools

    plan = merge_tools.plan_merge(merge_tools.resolve_source(source))
    print(plan.describe())
    # Replaces what an earlier demo merged, and nothing else.
    print(merge_tools.merge(plan, merged, overwrite=True).describe())
    report = merge_tools.verify(merged, source=merge_tools.resolve_source(source))
    print(report.describe())
    if not report.passed:
        raise typer.Exit(1)


def _show_hits(found: "Sequence[Found]", num_pages: int) -> None:
    print(f"\n{num_pages} pages as pictures, asked for in words; * marks the page that was meant")
    for one in found:
        print(f"\n{one.query}\n    {'cosine':>8} {'MaxSim':>8}  MaxSim's rank")
        for hit in one.hits:
            mark = "*" if hit.page == one.wanted else " "
            print(
                f"  {mark} {hit.cosine:>8.3f} {hit.maxsim:>8.3f} {hit.maxsim_rank:>6}         {hit.page}"
            )
