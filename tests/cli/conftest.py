import sys

import pytest

from polyvec.cli import main
from tests.cli.command import Done, Polyvec


@pytest.fixture
def polyvec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Polyvec:
    """Runs the command in this process, as its console script does."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["polyvec", *map(str, arguments)])
        status: object = 0
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code or 0
        assert isinstance(status, int)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run
