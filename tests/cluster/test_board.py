from serving.cluster.board import Board, board_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def board(*names: str) -> tuple[Board, Clock]:
    clock = Clock()
    made = Board(clock)
    made.update(names)
    return made, clock


def test_the_replica_with_the_fewest_tokens_comes_first() -> None:
    found, _ = board("a", "b", "c")
    found.charge("a", "1", 100)
    found.charge("b", "2", 10)
    found.charge("c", "3", 50)
    assert found.ranked(["a", "b", "c"]) == ["b", "c", "a"]


def test_tokens_count_not_calls() -> None:
    found, _ = board("a", "b")
    found.charge("a", "1", 1000)
    for number in range(5):
        found.charge("b", f"small {number}", 10)
    assert found.ranked(["a", "b"]) == ["b", "a"]


def test_a_call_that_ends_frees_its_tokens_and_a_rerouted_one_counts_once() -> None:
    found, _ = board("a", "b")
    found.charge("a", "1", 100)
    found.charge("b", "1", 100)
    assert found.ranked(["a", "b"]) == ["a", "b"]
    found.release("1")
    found.release("1")
    found.charge("a", "2", 1)
    assert found.ranked(["a", "b"]) == ["b", "a"]


def test_what_others_send_to_a_replica_counts_for_a_while() -> None:
    found, clock = board("a", "b")
    found.charge("b", "1", 10)
    found.heard("a", 500)
    assert found.ranked(["a", "b"]) == ["b", "a"]
    clock.now += 10
    assert found.ranked(["a", "b"]) == ["a", "b"]


def test_own_tokens_that_a_replica_reports_back_do_not_count_twice() -> None:
    found, _ = board("a", "b")
    found.charge("a", "1", 100)
    found.heard("a", 100)
    found.charge("b", "2", 150)
    assert found.ranked(["a", "b"]) == ["a", "b"]


def test_a_replica_that_cannot_answer_comes_last_until_it_does_or_time_passes() -> None:
    found, clock = board("a", "b")
    found.charge("b", "1", 100)
    found.down("a")
    assert found.ranked(["a", "b"]) == ["b", "a"]
    assert found.num_up == 1
    found.heard("a", 0)
    assert found.ranked(["a", "b"]) == ["a", "b"]
    found.down("a")
    clock.now += 5
    assert found.num_up == 2


def test_replicas_that_go_take_their_calls_along() -> None:
    found, clock = board("a", "b")
    found.charge("a", "1", 100)
    found.update(["b"])
    found.release("1")
    found.charge("gone", "2", 5)
    assert found.num_replicas == 1
    found.update([])
    clock.now += 7
    assert found.empty_s() == 7
    found.update(["a"])
    assert found.empty_s() == 0
    assert found.ranked(["a"]) == ["a"]


def test_a_process_has_one_board_for_a_deployment() -> None:
    assert board_of("app", "retrieval") is board_of("app", "retrieval")
    assert board_of("app", "retrieval") is not board_of("app", "code")
