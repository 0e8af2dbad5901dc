"""Names of tasks and benchmarks, and what is near a name that does not exist."""

import pytest

from benchmarks.quality.errors import TaskNameError
from benchmarks.quality.named_tasks import named_tasks


def names(*asked: str) -> list[str]:
    return [task.metadata.name for task in named_tasks(asked)]


def test_a_benchmark_stands_for_its_tasks_and_no_task_comes_twice() -> None:
    vidore = names("ViDoRe(v1)")
    assert len(vidore) == 10
    assert all(name.startswith("Vidore") for name in vidore)
    assert names("STS12", vidore[3], "ViDoRe(v1)") == [
        "STS12",
        vidore[3],
        *(name for name in vidore if name != vidore[3]),
    ]
    assert len(names("JinaVDR")) > 30


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("VidoreDocVQARetrievl", "VidoreDocVQARetrieval"),
        ("ViDoRe(v9)", "ViDoRe(v1)"),
        ("sts12", "STS12"),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_near_it(asked: str, near: str) -> None:
    with pytest.raises(TaskNameError, match="is no task and no benchmark") as caught:
        named_tasks([asked])
    assert near in str(caught.value).partition("Near: ")[2]


def test_a_name_near_nothing_says_where_names_are() -> None:
    with pytest.raises(TaskNameError, match="available-tasks"):
        named_tasks(["qqqqqqqqqqqqqqqq"])
