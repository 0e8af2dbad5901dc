import os
import socket
from pathlib import Path

import pytest

from serving import InputError
from serving.documents.regular_file import open_regular_file, read_regular_file


def read(path: Path, max_bytes: int = 1000) -> bytes:
    return read_regular_file(path, max_bytes, str(path))


def test_a_file_and_a_link_to_it_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"", b"x" * 999, b"x" * 1000):
        path.write_bytes(content)
        assert read(path) == content
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read(link) == b"x" * 1000


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["device", "directory", "pipe", "linked pipe", "socket"])
def test_what_is_no_regular_file_is_refused_at_once_and_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    with socket.socket(socket.AF_UNIX) as server:
        match kind:
            case "device":
                path.symlink_to("/dev/zero")
            case "directory":
                path.mkdir()
            case "pipe":
                os.mkfifo(path)
            case "linked pipe":
                os.mkfifo(tmp_path / "behind")
                path.symlink_to(tmp_path / "behind")
            case "socket":
                server.bind(str(path))
        with pytest.raises(InputError, match=f"^{path} is a .*{kind.split()[-1]}") as refused:
            read(path)
        assert "Pass the files in it" in str(refused.value) or "Save its content" in str(
            refused.value
        )
        with pytest.raises(InputError, match=f"^{path} is a "):
            open_regular_file(path, str(path))


@pytest.mark.timeout(20)
def test_a_pipe_that_took_the_files_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"x")
    stat = Path.stat

    def replaced(self: Path) -> os.stat_result:
        found = stat(self)
        self.unlink()
        os.mkfifo(self)
        return found

    monkeypatch.setattr(Path, "stat", replaced)
    with pytest.raises(InputError, match="is a pipe"):
        read(path)


def test_what_bounds_a_read_is_what_was_read() -> None:
    maps = Path("/proc/self/maps")
    assert maps.stat().st_size == 0
    assert read(maps, 10**8)
    with pytest.raises(InputError, match="/proc/self/maps has more than 100 bytes"):
        read(maps, 100)


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x")
    plain = os.read

    def growing(descriptor: int, num_bytes: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"x" * 65_536)
        return plain(descriptor, num_bytes)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(InputError, match=f"{path} has more than 1000000 bytes"):
        read(path, 1_000_000)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nowhere/a", "No such file"),
        ("/" + "x" * 300, "File name too long"),
        ("/a\0b", "is no path"),
        ("/\ud800", "is no path"),
        ("/proc/self/mem/x", "Not a directory"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(path: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(Path(path))


def test_too_large_a_file_is_refused_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1001)
    with pytest.raises(InputError, match=f"^{path} has 1001 bytes; at most 1000 are read"):
        read(path)
