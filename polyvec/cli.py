"""The command `polyvec`: parses, calls one function, prints.

The only module that knows both merging and serving, and it knows them by their public functions alone.
Each command imports what it needs when it runs, so that `polyvec --help` answers at once.
"""

import sys
from importlib import metadata
from typing import Annotated, NoReturn

import typer

from polyvec.cli_bench import bench_app
from polyvec.cli_compare import compare
from polyvec.cli_demo import demo
from polyvec.cli_embed import embed
from polyvec.cli_encode import encode
from polyvec.cli_keys import keys_app
from polyvec.cli_merge import merge, verify
from polyvec.cli_serve import serve

app = typer.Typer(
    name="polyvec",
    help="Merge the adapters of jina-embeddings-v4 into checkpoints that vLLM loads, and embed with them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(metadata.version("polyvec"))
        raise typer.Exit


@app.callback()
def _polyvec(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    del version  # printed already


app.command()(merge)
app.command()(verify)
app.command()(encode)
app.command()(serve)
app.command()(embed)
app.command()(demo)
app.command()(compare)
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")


def main() -> None:
    """Run the command; an expected error is one line on stderr and exit status 1."""
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted", status=130)
    except Exception as error:
        if not _expected(error):
            raise
        _fail(str(error), status=1)


def _expected(error: Exception) -> bool:
    # Looked up among what the command has imported: an error tree that was never loaded raised nothing.
    trees = [("merge_tools", "MergeToolsError"), ("serving", "PolyvecError")]
    return any(
        isinstance(error, getattr(sys.modules[module], name))
        for module, name in trees
        if module in sys.modules
    )


def _fail(message: str, *, status: int) -> NoReturn:
    print(f"polyvec: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
