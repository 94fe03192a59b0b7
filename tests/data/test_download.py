"""Fetching data sets: from a server of this machine's own, whole or not at all, and one line where it cannot be."""

from __future__ import annotations

import io
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms

from schnet_ase.data import read_dataset
from schnet_ase.data.download import DATA_SETS, DataSet, Remote, get
from schnet_ase.errors import DataError, DownloadError, SchNetError
from schnet_ase.output.files import sha256
from tests.support.server import serve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "server"
    folder.mkdir()
    with serve(folder) as served:
        yield folder, served.address


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch):
    def offer(*files: Remote) -> None:
        monkeypatch.setitem(DATA_SETS, "made-up", DataSet("made up", "CC0", files))

    return offer


def refused(name: str, folder: Path, kind: type[SchNetError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        get(name, folder, report=lambda line: None)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def frames_npz(file: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(file, R=rng.normal(size=(4, 3, 3)), E=rng.normal(size=4), F=rng.normal(size=(4, 3, 3)), z=[8, 1, 1])
    return file


def test_file(server, offer, tmp_path, capfd):
    served, address = server
    digest = sha256(frames_npz(served / "a.npz"))
    offer(Remote(f"{address}/a.npz", "made-up.npz", digest[:12]))
    lines: list[str] = []
    (file,) = get("made-up", tmp_path / "data", lines.append)
    assert file.read_bytes() == (served / "a.npz").read_bytes()
    assert len(read_dataset(file).frames) == 4
    assert f"{address}/a.npz" in lines[0]
    assert "as it should be" in lines[-1]
    (served / "a.npz").unlink()
    assert get("made-up", tmp_path / "data", lines.append) == [file], "it was there"
    assert capfd.readouterr() == ("", "")


def test_file_without_a_published_checksum_shows_its_own(server, offer, tmp_path):
    served, address = server
    digest = sha256(frames_npz(served / "a.npz"))
    offer(Remote(f"{address}/a.npz", "made-up.npz"))
    lines: list[str] = []
    get("made-up", tmp_path, lines.append)
    assert digest in lines[-1]
    assert "none has been published" in lines[-1]


@pytest.mark.parametrize("name", ["made-up.npz", "made-up.txt"])
def test_page_instead_of_a_file_without_a_checksum(server, offer, tmp_path, name):
    served, address = server
    (served / name).write_text("<html>moved</html>")
    offer(Remote(f"{address}/{name}", name))
    message = refused("made-up", tmp_path)
    assert name in message
    assert "remove the file" in message


def test_wrong_file(server, offer, tmp_path):
    served, address = server
    frames_npz(served / "a.npz")
    offer(Remote(f"{address}/a.npz", "made-up.npz", "0123456789ab"))
    assert "expected 0123456789ab; it was discarded" in refused("made-up", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == [], "it is not trusted the second time either"
    shutil.copy(served / "a.npz", tmp_path / "data" / "made-up.npz")
    assert "should begin with 0123456789ab" in refused("made-up", tmp_path / "data"), "nor from the user's hand"


def test_download_that_broke_off_is_resumed(offer, tmp_path):
    digest = sha256(frames_npz(tmp_path / "a.npz"))
    with serve(tmp_path) as served:
        offer(Remote(f"{served.address}/a.npz", "a.npz", digest[:12]))
        served.break_after = 100
        assert "the same command resumes there" in refused("made-up", tmp_path / "data", DownloadError)
        served.break_after = None
        (file,) = get("made-up", tmp_path / "data", lambda line: None)
    assert sha256(file) == digest
    assert served.total() == file.stat().st_size
    assert served.asked[-1] == ("a.npz", "bytes=100-")


def test_archive_of_databases(server, offer, tmp_path):
    served, address = server
    with ase.db.connect(tmp_path / "reference.db") as database:
        database.write(Atoms("OH2"), total_energy=-1.0, data={"atomic_forces": np.ones((3, 3))})
    with tarfile.open(served / "iso17.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "reference.db", "iso17/reference.db")
        outside = tarfile.TarInfo("../iso17/evil.db")
        outside.size = 3
        archive.addfile(outside, io.BytesIO(b"abc"))
        archive.addfile(tarfile.TarInfo("iso17/readme.txt"), io.BytesIO())
    offer(Remote(f"{address}/iso17.tar.gz", "iso17.tar.gz", unpack=("iso17/*.db",)))
    folder = tmp_path / "data"
    files = get("made-up", folder, lambda line: None)
    assert folder / "iso17" / "reference.db" in files
    assert all(file.parent == folder / "iso17" for file in files)
    assert sorted(p.name for p in folder.iterdir()) == ["iso17", "iso17.tar.gz"]
    assert read_dataset(folder / "iso17" / "reference.db").frames[0].energy == -1.0
    assert get("made-up", folder, lambda line: None) == files


def rmd17_archive(file: Path, index: dict[str, str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "nuclear_charges": np.array([8, 1, 1], np.uint8),
        "coords": rng.normal(size=(5, 3, 3)),
        "energies": rng.normal(size=5),
        "forces": rng.normal(size=(5, 3, 3)),
        "old_indices": np.arange(10, 15),
    }
    whole = io.BytesIO()
    np.savez(whole, **arrays)
    members = {"npz_data/rmd17_water.npz": whole.getvalue(), "readme.txt": b"", "splits/index_train_02.csv": b"4\n"}
    members |= {f"splits/index_{part}_01.csv": text.encode() for part, text in index.items()}
    with tarfile.open(file, "w:bz2") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"rmd17/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return arrays


def test_rmd17_comes_with_its_first_split(server, offer, tmp_path):
    served, address = server
    whole = rmd17_archive(served / "rmd17.tar.bz2", {"train": "3\n0\n", "test": "4\n1\n2\n"})
    (remote,) = DATA_SETS["rmd17"].files
    offer(remote._replace(url=f"{address}/rmd17.tar.bz2", sha256=None))
    files = get("made-up", tmp_path, lambda line: None)
    assert [file.name for file in files if file.suffix == ".npz"] == [
        "rmd17_water.npz",
        "rmd17_water_train_01.npz",
        "rmd17_water_test_01.npz",
    ]
    for part, frames in (("train", [3, 0]), ("test", [4, 1, 2])):
        with np.load(tmp_path / "rmd17" / f"rmd17_water_{part}_01.npz") as arrays:
            assert arrays.files == list(whole)
            np.testing.assert_array_equal(arrays["nuclear_charges"], [8, 1, 1])
            for name in ("coords", "energies", "forces", "old_indices"):
                np.testing.assert_array_equal(arrays[name], whole[name][frames])
    assert len(read_dataset(tmp_path / "rmd17" / "rmd17_water_test_01.npz").frames) == 3
    assert sorted(get("made-up", tmp_path, lambda line: None)) == sorted(files)


@pytest.mark.parametrize("index", ["", "5\n", "-1\n", "first\n", None])
def test_rmd17_with_a_wrong_index(server, offer, tmp_path, index):
    served, address = server
    rmd17_archive(served / "rmd17.tar.bz2", {"test": "1\n"} | ({} if index is None else {"train": index}))
    (remote,) = DATA_SETS["rmd17"].files
    offer(remote._replace(url=f"{address}/rmd17.tar.bz2", sha256=None))
    assert "index_train_01.csv" in refused("made-up", tmp_path)


@pytest.mark.parametrize("content", ["not an archive", "", "half", "damaged"])
def test_archive_that_is_none(server, offer, tmp_path, content):
    served, address = server
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.db")
        member.size = 5000
        archive.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(5000)))
    data = bytearray(whole.getvalue())
    damaged = data[:2000] + bytes(500) + data[2500:]
    (served / "a.tar").write_bytes({"half": data[:2500], "damaged": damaged}.get(content, content.encode()))
    offer(Remote(f"{address}/a.tar", "a.tar", unpack=("*.db",)))
    assert "a.tar" in refused("made-up", tmp_path / "data")
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["a.tar"], "something is left of the unpacking"


def test_archive_without_what_is_wanted(server, offer, tmp_path):
    served, address = server
    tarfile.open(served / "a.tar", "w").close()
    offer(Remote(f"{address}/a.tar", "a.tar", unpack=("*.db",)))
    assert "nothing in it is *.db" in refused("made-up", tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_server_without_the_whole_file(offer, tmp_path, there):
    with serve(tmp_path) as served:
        if there:
            frames_npz(tmp_path / "a.npz")
            served.break_after = 100
        offer(Remote(f"{served.address}/a.npz", "a.npz"))
        message = refused("made-up", tmp_path / "data", DownloadError)
    assert ("broke off after 100 of" if there else "answers 404") in message
    assert "as a.npz by other means" in message
    assert list((tmp_path / "data").iterdir()) == [], "a part of the file is left"


def test_no_network(offer, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    offer(Remote(f"http://127.0.0.1:{port}/a.npz", "a.npz"))
    message = refused("made-up", tmp_path, DownloadError)
    assert "cannot be fetched" in message
    assert "put the file into" in message
    assert str(tmp_path) in message


def test_unknown_name(tmp_path):
    message = refused("md18", tmp_path)
    assert "md18" in message
    assert "rmd17" in message
    assert list(tmp_path.iterdir()) == []


def test_names():
    for name, data_set in DATA_SETS.items():
        assert data_set.files, name
        for remote in data_set.files:
            assert remote.url.startswith(
                ("https://figshare.com/", "http://www.quantum-machine.org/", "http://quantum-")
            )
            assert remote.sha256 is None or len(bytes.fromhex(remote.sha256)) >= 6
