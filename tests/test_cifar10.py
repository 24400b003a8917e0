"""The archive: found, downloaded with interruptions, and read without running anything it says."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import subprocess
import sys
import tarfile
import threading
import time
import types

import numpy as np
import pytest

from dimum_core.data import cifar10
from dimum_core.data.cifar10 import FOLDER, extract, fetch_archive, find_folder, read_cifar10, read_pickle
from dimum_core.errors import DataError

NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]


@pytest.fixture(autouse=True)
def small_batches_and_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar10, "ROWS", 4)
    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(cifar10, "TIMEOUT", 5)
    monkeypatch.delenv("DIMUM_DATA", raising=False)


def write_batches(folder, **changes):
    """A set of 4 images a file, in the official layout; `changes` replace the content of files."""
    folder.mkdir(parents=True)
    for i, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]):
        pixels = (np.arange(4 * 3072) % 251 + i).astype(np.uint8).reshape(4, 3072)
        content = {b"data": pixels, b"labels": [0, 3, 9, i], b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(changes.get(name, content), protocol=2))
    meta = {b"label_names": NAMES, b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(changes.get("meta", meta), protocol=2))
    return folder


def test_pixels_labels_and_names_come_out_in_order(tmp_path):
    data = read_cifar10(write_batches(tmp_path / FOLDER))
    pixels, labels = data["train"]
    assert pixels.shape == (20, 3, 32, 32) and pixels.dtype == np.uint8
    assert labels.tolist() == [0, 3, 9, 0, 0, 3, 9, 1, 0, 3, 9, 2, 0, 3, 9, 3, 0, 3, 9, 4] and labels.dtype == np.int64
    row = (np.arange(4 * 3072) % 251).reshape(4, 3072)[1]
    assert pixels[1, 2, 5, 7] == row[2 * 1024 + 5 * 32 + 7]  # channel, row, column
    assert len(data["test"][0]) == 4 and data["class_names"][1] == "automobile"


@pytest.mark.parametrize("inner", [False, True])
def test_the_environment_points_at_the_folder_or_at_its_parent(tmp_path, monkeypatch, inner):
    folder = write_batches(tmp_path / FOLDER)
    monkeypatch.setenv("DIMUM_DATA", str(folder if inner else tmp_path))
    assert find_folder() == folder


def test_without_a_copy_and_without_download_it_says_how_to_get_one():
    with pytest.raises(DataError, match="not on this machine.*DIMUM_DATA"):
        read_cifar10(download=False)
    with pytest.raises(DataError, match="nowhere holds no"):
        read_cifar10("nowhere")


def test_an_environment_that_points_nowhere_is_not_passed_over(tmp_path, monkeypatch):
    write_batches(tmp_path / "cache" / FOLDER)
    monkeypatch.setenv("DIMUM_DATA", str(tmp_path / "mistyped"))
    with pytest.raises(DataError, match="DIMUM_DATA names .*mistyped, where there is no folder"):
        find_folder()
    monkeypatch.setenv("DIMUM_DATA", str(tmp_path))  # it may hold other data than this
    assert find_folder() == tmp_path / "cache" / FOLDER


class RunsCode:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("content", [
    {b"data": RunsCode(eval, "1 + 1")}, {b"data": RunsCode(__import__, "os")},
    {b"data": np.array([object()], dtype=object)}, {b"data": RunsCode(getattr, "x", "upper")},
])
def test_a_pickle_that_wants_more_than_arrays_is_refused_before_it_acts(tmp_path, content):
    folder = write_batches(tmp_path / FOLDER, data_batch_2=content)
    with pytest.raises(DataError, match="data_batch_2"):
        read_cifar10(folder)


def test_a_malicious_pickle_does_not_run(tmp_path):
    import os

    path, trace = tmp_path / "evil", tmp_path / "trace"
    path.write_bytes(pickle.dumps(RunsCode(os.mkdir, str(trace))))
    with pytest.raises(DataError, match="asks for (posix|nt).mkdir, which no data set needs"):
        read_pickle(path)
    assert not trace.exists()


def good(**changes):
    return {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]} | {k.encode(): v for k, v in changes.items()}


@pytest.mark.parametrize("content", [
    good(data=np.zeros((4, 3071), np.uint8)), good(data=np.zeros((4, 3072))), good(labels=[0, 1, 2]),
    good(labels=[0, 1, 2, 10]), good(labels=[0, 1, 2, -1]), good(labels=[0, 1, 2, True]), {}, [1, 2],
])
def test_content_of_another_shape_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"data_batch_5.*load the data set again\."):
        read_cifar10(write_batches(tmp_path / FOLDER, data_batch_5=content))


def test_truncated_and_missing_files_are_named(tmp_path):
    folder = write_batches(tmp_path / FOLDER)
    whole = (folder / "test_batch").read_bytes()
    (folder / "test_batch").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="test_batch cannot be read"):
        read_cifar10(folder)
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match="test_batch is missing"):
        read_cifar10(folder)
    with pytest.raises(DataError, match="ten classes"):
        read_cifar10(write_batches(tmp_path / "other", meta={b"label_names": NAMES[:9]}))


# Downloads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    folder = write_batches(tmp_path / "made" / FOLDER)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=FOLDER)
    return buffer.getvalue()


@pytest.fixture
def server():
    """A server of byte strings by path, which counts bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        files, served, break_after, pause = {}, [], None, 0.0

        def do_GET(self):
            content = self.files.get(self.path)
            if self.path == "/nonsense":
                return self.wfile.write(b"nonsense\r\n\r\n")
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            body = content[: Handler.break_after]
            Handler.break_after = None
            Handler.served.append((self.path, len(body)))
            self.wfile.write(body[:1000])
            time.sleep(Handler.pause)
            self.wfile.write(body[1000:])

        def log_message(self, *arguments):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    Handler.files, Handler.served, Handler.pause, Handler.url = {}, [], 0.0, f"http://127.0.0.1:{running.server_port}"
    yield Handler
    running.shutdown()


def md5(content):
    return hashlib.md5(content).hexdigest()


def test_a_download_is_checked_extracted_and_found_again(tmp_path, server, archive, monkeypatch):
    server.files["/a"] = archive
    monkeypatch.setattr(cifar10, "SOURCES", (server.url + "/a",))
    fetch = cifar10.fetch_archive
    monkeypatch.setattr(cifar10, "fetch_archive", lambda folder: fetch(folder, (server.url + "/a",), md5(archive)))
    assert len(read_cifar10()["train"][0]) == 20
    assert len(read_cifar10()["train"][0]) == 20 and len(server.served) == 1
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".lock", FOLDER, cifar10.ARCHIVE]


@pytest.fixture
def at_once(monkeypatch):
    """No waiting before a source is tried again."""
    monkeypatch.setattr("pooch.core.time", types.SimpleNamespace(sleep=lambda seconds: None))


def test_a_download_that_breaks_off_is_tried_again(tmp_path, server, archive, at_once):
    server.files["/a"], server.break_after = archive, 1000
    path = fetch_archive(tmp_path, (server.url + "/a",), md5(archive))
    assert path.read_bytes() == archive
    assert server.served == [("/a", 1000), ("/a", len(archive))]


def test_what_a_killed_download_left_is_removed(tmp_path, server, archive):
    server.files["/a"] = archive
    (tmp_path / ".downloading").mkdir()
    (tmp_path / ".downloading" / "tmp123").write_bytes(b"half of it")
    assert fetch_archive(tmp_path, (server.url + "/a",), md5(archive)).read_bytes() == archive
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "made") == [".lock", cifar10.ARCHIVE]


def test_of_several_processes_one_downloads_and_the_others_wait(tmp_path, server, archive):
    server.files["/a"], server.pause = archive, 1.0
    code = (
        "from pathlib import Path; from dimum_core.data.cifar10 import fetch_archive; print(flush=True); input(); "
        f"fetch_archive(Path({str(tmp_path / 'cache')!r}), ({server.url + '/a'!r},), {md5(archive)!r})"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(3)]
    for process in processes:
        process.stdout.readline()  # all are there before the first begins
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "cache" / cifar10.ARCHIVE).read_bytes() == archive and server.served == [("/a", len(archive))]


def test_a_tampered_copy_and_a_missing_one_lead_to_the_next_source(tmp_path, server, archive, at_once):
    server.files |= {"/bad": archive[:-1] + b"?", "/good": archive}
    sources = tuple(server.url + path for path in ("/missing", "/nonsense", "/bad", "/good"))
    assert fetch_archive(tmp_path, sources, md5(archive)).read_bytes() == archive


def test_when_every_source_fails_each_reason_is_given(tmp_path, server, archive, at_once):
    server.files["/bad"] = b"nothing"
    with pytest.raises(DataError, match=r"404 Not Found.*another checksum.*set DIMUM_DATA"):
        fetch_archive(tmp_path, (server.url + "/missing", server.url + "/bad"), md5(archive))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "made") == [".lock"]


def test_the_home_server_comes_last_and_is_announced(tmp_path, server, at_once):
    assert ["toronto" in source for source in cifar10.SOURCES] == [False] * (len(cifar10.SOURCES) - 1) + [True]
    with pytest.warns(UserWarning, match="may take an hour"), pytest.raises(DataError):
        fetch_archive(tmp_path, (server.url + "/toronto",), "0")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="could not be written"):
        fetch_archive(tmp_path / "file", (server.url + "/a",), "0")


def test_only_the_seven_expected_members_leave_the_archive(tmp_path, archive):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w:gz") as new:
        for member in old.getmembers():
            new.addfile(member, old.extractfile(member))
        outside = tarfile.TarInfo("../outside")
        outside.size = 4
        new.addfile(outside, io.BytesIO(b"evil"))
    path = tmp_path / "deep" / "archive.tar.gz"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    assert len(list(extract(path).iterdir())) == 7
    assert not (tmp_path / "outside").exists()
    assert len(list(extract(path).iterdir())) == 7, "a second process on the same folder comes too late, and is content"
    assert sorted(p.name for p in path.parent.iterdir()) == ["archive.tar.gz", "cifar-10-batches-py"]


def test_an_incomplete_folder_is_named_and_not_the_disk(tmp_path, archive):
    write_batches(tmp_path / FOLDER)
    (tmp_path / FOLDER / "batches.meta").unlink()
    (tmp_path / "archive.tar.gz").write_bytes(archive)
    with pytest.raises(DataError, match=f"{FOLDER} is incomplete: delete it"):
        extract(tmp_path / "archive.tar.gz")


def test_something_that_is_no_archive_is_refused_and_nothing_stays(tmp_path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is not the CIFAR-10 archive"):
        extract(path)
    assert [p.name for p in tmp_path.iterdir()] == ["archive.tar.gz"]
