import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from serving.engine.environment import children_without_main, variables


def test_variables_of_the_user_win_and_ours_are_taken_back() -> None:
    os.environ["PVTEST_SET"] = "user"
    with variables({"PVTEST_SET": "ours", "PVTEST_NEW": "ours"}):
        assert os.environ["PVTEST_SET"] == "user"
        assert os.environ["PVTEST_NEW"] == "ours"
    assert os.environ.pop("PVTEST_SET") == "user"
    assert "PVTEST_NEW" not in os.environ


def test_a_spawned_child_does_not_run_the_main_script_again(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, operator
            from serving.engine.environment import children_without_main
            print("ran", flush=True)
            with children_without_main():
                child = multiprocessing.get_context("spawn").Process(target=operator.add, args=(1, 2))
                child.start()
            child.join()
            raise SystemExit(child.exitcode)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"


def test_outside_the_block_python_is_as_it_was() -> None:
    before = multiprocessing.spawn.get_preparation_data
    with children_without_main():
        assert multiprocessing.spawn.get_preparation_data is not before
    assert multiprocessing.spawn.get_preparation_data is before
