import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ray.scripts.scripts import cli as ray_cli

from serving.http.app import METRICS_PATH
from serving.http.health import HEALTH_PATHS
from serving.settings import ClusterSettings
from tests.deploy.files import (
    ALL,
    DEPLOY,
    ROOT,
    RUNBOOK,
    command_lines,
    documents,
    runbook_blocks,
)
from tests.deploy.named import (
    UnknownCommandError,
    flags,
    parse_command,
    unknown_variables,
)

COMMANDS = [
    words
    for language, text in runbook_blocks()
    if language == "bash"
    for words in command_lines(text)
]
OF_POLYVEC = [words for words in COMMANDS if words[0] == "polyvec"]
OF_RAY = [words for words in COMMANDS if words[0] == "ray"]
PROSE = re.sub(r"^```.*?^```$", "", RUNBOOK.read_text(encoding="utf-8"), flags=re.M | re.S)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_file_is_text_of_a_kind_that_a_test_loads() -> None:
    kinds = {path.suffix or path.name for path in ALL}
    assert kinds == {".md", ".yaml", ".yml", ".json", ".sh", "Dockerfile"}
    for path in ALL:
        match path.suffix:
            case ".yaml" | ".yml":
                assert documents(path), path
            case ".json":
                assert json.loads(text_of(path)), path


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_variable_of_polyvec_is_a_setting(path: Path) -> None:
    assert not unknown_variables(text_of(path))


def test_a_misspelt_variable_is_found() -> None:
    assert unknown_variables("env: {POLYVEC_LIMIT_STORAGE: memory://}") == {"POLYVEC_LIMIT_STORAGE"}
    assert not unknown_variables("env: {POLYVEC_LIMITS_STORAGE: memory://}")


def test_the_runbook_uses_every_command_that_runs_something() -> None:
    assert {words[1] for words in OF_POLYVEC} == {"merge", "verify", "keys", "serve", "embed"}


@pytest.mark.parametrize("words", OF_POLYVEC, ids=" ".join)
def test_polyvec_takes_the_runbooks_commands(words: list[str]) -> None:
    parse_command(words[: words.index(">")] if ">" in words else words)


@pytest.mark.parametrize(
    "wrong",
    [
        "polyvec serv models",
        "polyvec serve models --min-replica 2",
        "polyvec serve",
        "polyvec keys add name",
        "polyvec embed source --model m --output o --engine 2",
    ],
)
def test_a_misspelt_command_is_found(wrong: str) -> None:
    with pytest.raises(UnknownCommandError):
        parse_command(shlex.split(wrong))


@pytest.mark.parametrize("words", OF_RAY, ids=" ".join)
def test_ray_takes_the_runbooks_commands(words: list[str]) -> None:
    command = ray_cli.get_command(None, words[1])  # type: ignore[arg-type]
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_flags_in_the_runbooks_prose_exist() -> None:
    ours = [span.split() for span in SPANS if span.startswith(("--", "polyvec "))]
    named = {word for words in ours for word in words if word.startswith("--")}
    assert "--engines" in named
    assert named - {"--target", "--profile", "--help"} <= flags()  # the first two are Docker's


def test_settings_in_the_runbooks_prose_exist() -> None:
    of_ray = {"max_surge_percent", "http_options"}
    of_others = of_ray | {"request_id", "error_code", "queue_full", "bodies_full"}
    named = {
        span.partition(":")[0] for span in SPANS if re.fullmatch(r"[a-z]+(_[a-z]+)+(: \w+)?", span)
    }
    assert len(named) > 15
    assert named - of_others <= ClusterSettings.model_fields.keys()


def test_the_runbook_tells_ray_to_ask_for_a_token_before_it_starts_it() -> None:
    switched_on = ["export", "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN=TOKEN"]
    starts = [at for at, words in enumerate(COMMANDS) if words[:2] == ["ray", "start"]]
    assert starts
    assert COMMANDS.index(switched_on) < starts[0]


def test_paths_of_health_and_metrics_exist() -> None:
    for path in ALL:
        text = text_of(path)
        for found in re.findall(r"/health/\w+", text):
            assert found in HEALTH_PATHS, path
        for found in re.findall(r"metrics_path: (\S+)", text):
            assert found == METRICS_PATH


def test_links_and_files_in_the_runbook_exist() -> None:
    text = text_of(RUNBOOK)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DEPLOY / target).exists(), target
    for words in COMMANDS:
        for word in words:
            if word.startswith("deploy/") and "/keys" not in word:
                assert (ROOT / word).exists(), word
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, flags=re.M)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in headings


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_pass_shellcheck_and_can_be_run(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    subprocess.run([Path(sys.executable).with_name("shellcheck"), path], check=True)
    assert os.access(path, os.X_OK)
