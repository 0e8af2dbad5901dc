"""The files of deploy/, loaded: YAML documents, Pods with where they stand, and the runbook's commands."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUNBOOK = DEPLOY / "README.md"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
ALL = sorted(
    path
    for path in DEPLOY.rglob("*")
    # What an operator puts there is no part of the repository.
    if path.is_file() and DEPLOY / "keys" not in path.parents
)


def documents(path: Path) -> list[Any]:
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]


def manifest(name: str) -> Any:
    """The one object of a manifest."""
    (found,) = documents(DEPLOY / "kubernetes" / name)
    return found


@dataclass(frozen=True, slots=True)
class PodPlace:
    """A Pod's template, with where it stands."""

    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        return [*self.spec["containers"], *self.spec.get("initContainers", ())]


def pods() -> list[PodPlace]:
    """Every template of a Pod in deploy/kubernetes."""
    return [
        PodPlace(
            f"{path.name}:{where}", template.get("metadata", {}).get("labels", {}), template["spec"]
        )
        for path in MANIFESTS
        for document in documents(path)
        for where, template in _templates(document, document["kind"])
    ]


def _templates(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    match node:
        case {"spec": {"containers": _}}:
            yield where, node
        case dict():
            for name, value in node.items():
                yield from _templates(value, f"{where}.{name}")
        case list():
            for index, value in enumerate(node):
                yield from _templates(value, f"{where}[{index}]")


def every_value(node: Any, name: str) -> Iterator[Any]:
    """What stands under `name`, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from every_value(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from every_value(value, name)


def runbook_blocks() -> list[tuple[str, str]]:
    """The blocks of code in the runbook: language and text."""
    text = RUNBOOK.read_text(encoding="utf-8")
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[list[str]]:
    """The simple commands of shell text, in words: split at pipes and `&&`, and after `--`."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            at = next((i for i, w in enumerate(words) if w in {"|", "&&", ";", "--"}), len(words))
            if words[:at]:
                found.append(words[:at])
            words = words[at + 1 :]
    return found
