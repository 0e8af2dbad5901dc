import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from serving.engine.environment import children_without_main, variables


def test_variables_of_the_user_win_and_ours_are_taken_back() -> None:
    os.environ["POLYVEC_TEST_SET"] = "user"
    with variables({"POLYVEC_TEST_SET": "ours", "POLYVEC_TEST_NEW": "ours"}):
        assert os.environ["POLYVEC_TEST_SET"] == "user"
        assert os.environ["POLYVEC_TEST_NEW"] == "ours"
    assert os.environ.pop("POLYVEC_TEST_SET") == "user"
    assert "POLYVEC_TEST_NEW" not in os.environ


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
