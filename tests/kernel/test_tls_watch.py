"""Libraries that appear while tracing are found, each once, by what the kernel reports."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcprism.kernel.code_mappings import CodeMappings
from tcprism.tls.libraries import Library, Search, find
from tcprism.tls.watch import Watch
from tests.unit.tls.test_libraries import LOADER, linked, mapped, mapping, running

pytestmark = pytest.mark.native


class Watched:
    """A watch over everybody, of which a test sees only what is in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.mappings = CodeMappings()
        search = Search()
        self.watch = Watch(search, search.find().libraries, self.mappings)
        self._folder = str(folder)

    def new(self) -> list[Library]:
        return [each for each in self.watch.new() if self._folder in each.name]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.mappings.close()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return Path(shutil.copy(linked("libssl"), tmp_path / "bundled.so"))


def test_a_library_that_programs_load(watched: Watched, library: Path) -> None:
    assert watched.new() == []
    with mapping(library) as pid:
        (found,) = watched.new()
        assert found.functions == find([pid]).libraries[0].functions
        assert Path(found.path).samefile(library)
        with mapping(library):
            assert watched.new() == []
    assert watched.new() == []


def test_what_has_no_tls(watched: Watched, tmp_path: Path) -> None:
    with mapping(shutil.copy(linked("libc"), tmp_path / "c.so")):
        assert watched.new() == []


def test_a_process_that_has_ended(watched: Watched, library: Path) -> None:
    subprocess.run([sys.executable, "-c", LOADER, library], stdin=subprocess.DEVNULL, check=True)
    assert [Path(each.path) for each in watched.new()] == [library]


def test_an_upgrade(watched: Watched, library: Path, tmp_path: Path) -> None:
    with mapping(library):
        (old,) = watched.new()
        new = Path(shutil.copy(library, tmp_path / "new"))
        new.rename(library)
        with mapping(library):
            (upgraded,) = watched.new()
    assert upgraded.name == old.name
    assert upgraded.identity.inode == library.stat().st_ino != old.identity.inode


def test_a_file_that_takes_the_inode_number_of_another(watched: Watched, library: Path) -> None:
    """Watch what the kernel calls a generation, as maps have only the number."""
    content = library.read_bytes()
    library.write_bytes(b"\x7fELF" + bytes(4096))
    with mapping(library):
        assert watched.new() == []
    number = library.stat().st_ino
    for _ in range(100):  # not every file system does
        library.unlink()
        library.write_bytes(content)
        if library.stat().st_ino == number:
            break
    with mapping(library):
        assert len(watched.new()) == 1


def test_a_library_that_was_forgotten(watched: Watched, library: Path) -> None:
    with mapping(library):
        (found,) = watched.new()
        assert watched.new() == []
        watched.watch.forget(found)
        assert watched.new() == []
    with mapping(library):
        assert watched.new() == [found]


def test_when_reports_were_lost(watched: Watched, library: Path) -> None:
    with mapping(library):
        watched.mappings.read()
        assert watched.new() == []
        watched.mappings.lost = True
        assert len(watched.new()) == 1
        assert not watched.mappings.lost


def test_a_ring_that_overflows(watched: Watched, library: Path) -> None:
    with mapping(*[library] * 5000):
        watched.mappings.read()
    with mapping(library):  # the kernel says what was lost when it has room again
        watched.mappings.read()
    assert watched.mappings.lost


def test_one_file_under_two_overlays(watched: Watched, library: Path, tmp_path: Path) -> None:
    """As two containers of one image, each in a mount namespace of its own."""
    lower = tmp_path / "image"
    lower.mkdir()
    (tmp_path / "empty").mkdir()
    library.rename(lower / library.name)
    mount = f'mount -t overlay -o lowerdir={lower}:{tmp_path}/empty overlay /mnt && exec "$@"'
    container = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    loader = [sys.executable, "-c", LOADER, f"/mnt/{library.name}"]
    devices = set()
    with running(*container, *loader) as one, running(*container, *loader) as other:
        for pid in (one, other):
            (found,) = find([pid]).libraries
            devices.add(found.identity.device)
            assert Path(found.path).read_bytes() == (lower / library.name).read_bytes()
        seen = [each for each in watched.watch.new() if each.name == f"/mnt/{library.name}"]
    assert len(devices) == 2
    assert len(seen) == 1
    # The image's own file, as a process of the host sees it, is the same one too.
    (plain,) = mapped(lower / library.name).libraries
    assert plain.same_as(seen[0])
