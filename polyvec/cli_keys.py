"""`polyvec keys`: make, list and remove the API keys of `polyvec serve`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.http.key_file import StoredKey

keys_app = typer.Typer(
    help="Make, list and remove the API keys of `polyvec serve --keys FILE`.", no_args_is_help=True
)

KeysFile = Annotated[Path, typer.Option("--keys", help="The file of keys.")]


@keys_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who will hold the key; logs show this name.")],
    keys: KeysFile,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Default: no limit.")
    ] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Default: no limit.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests at once; default: no limit.")
    ] = None,
) -> None:
    """Make a key and print it, once; FILE is created if it is missing, and gets its hash and limits."""
    from serving.http.caller import Limits
    from serving.http.key_file import add_key

    key = add_key(keys, name, Limits(requests_per_minute, tokens_per_minute, concurrency))
    print(
        f"{keys} has the key {name} now. This is the only time it is shown; send it as "
        "'Authorization: Bearer KEY'.",
        file=sys.stderr,
    )
    print(key)


@keys_app.command("list")
def list_(keys: KeysFile) -> None:
    """Print each key's name, when it was made, and its limits; never the key or its hash."""
    from serving.http.key_file import list_keys

    header = ("NAME", "CREATED", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENCY")
    rows = [header, *map(_row, list_keys(keys))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


@keys_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The name it was added under.")], keys: KeysFile
) -> None:
    """Take a key out of FILE; a running server refuses it within about a second."""
    from serving.http.key_file import remove_key

    remove_key(keys, name)
    print(f"{keys} has no key {name} any more.", file=sys.stderr)


def _row(key: "StoredKey") -> tuple[str, str, str, str, str]:
    limits = (
        key.limits.requests_per_minute,
        key.limits.tokens_per_minute,
        key.limits.concurrency,
    )
    requests, tokens, concurrency = ("-" if limit is None else str(limit) for limit in limits)
    return key.name, f"{key.created:%Y-%m-%d %H:%M}", requests, tokens, concurrency
