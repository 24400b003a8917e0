"""A few kills and full disks of `tests/stress/kills.py`, and tests of what they found."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from dimum_core.benchmark import store
from dimum_core.errors import CheckpointError, FileError
from dimum_core.judges import load_judge
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import load_pipeline, save_checkpoint
from dimum_core.training import STATE_FILE, train
from tests.test_training import Line, line_config, new_line

resource = pytest.importorskip("resource")
sys.path.append(str(Path(__file__).resolve().parent / "stress"))
import killed_works  # noqa: E402
import kills  # noqa: E402

CARD = {"title": "t", "summary": "s"}


@contextlib.contextmanager
def full_disk(limit: int):
    """No file may grow beyond so many bytes: a write then fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.release
def test_a_training_broken_off_three_times_is_the_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with killed_works.prepare(tmp_path / "shared"):
        kills.warm_up()
        row = kills.Trial("training", tmp_path, random.Random(0)).run(["SIGKILL", kills.FULL_DISK, "SIGINT"])
    assert row["verdict"] == "bit-equal" and row["debris"] == 0
    assert [row[kind] for kind in kills.KINDS] == [1, 0, 1, 1] and row["starts"] >= 4


@pytest.mark.release
def test_worker_processes_that_cannot_start_are_said_in_a_sentence(tmp_path, monkeypatch):
    """With no room for the semaphores between processes: joblib has one at its import, so nothing is left to be tried serially."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with killed_works.prepare(tmp_path / "shared"):
        kills.warm_up()
        process = kills.start("workers", tmp_path / "out", tmp_path / "shared", limit=3)
        process.join()
    assert process.exitcode == kills.SENTENCE


def test_a_half_written_or_changed_file_is_found(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,seconds\n1,0.5,3.2\n2,0.4,6.4\n")
    whole = kills.contents(tmp_path)
    (tmp_path / "log.csv").write_text("step,loss,seconds\n1,0.5,9.9\n2,0.4,9.9\n")
    kills.check_whole(tmp_path, whole)  # wall times do not count
    (tmp_path / "log.csv").write_text("step,loss,seconds\n1,0.5,9.9\n")
    for check in (kills.check_finished, kills.check_whole):
        with pytest.raises(kills.Difference, match=r"log\.csv"):
            check(tmp_path, whole)
    (tmp_path / "log.csv").unlink()
    kills.check_finished(tmp_path, whole)  # nothing is there yet, and nobody can take it for a result
    with pytest.raises(kills.Difference, match="1 files differ"):
        kills.check_whole(tmp_path, whole)


def test_weights_that_differ_in_one_bit_are_found(tmp_path):
    train(new_line(), Line(), line_config(steps=3), out=tmp_path, progress=False)
    whole = kills.contents(tmp_path)
    content = bytearray((tmp_path / STATE_FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(kills.Difference, match=STATE_FILE):
        kills.check_whole(tmp_path, whole)


@pytest.mark.parametrize("limit", [0, 500, 100_000])
def test_a_checkpoint_on_a_full_disk_is_said_in_a_sentence_and_leaves_the_former_one(tmp_path, limit):
    pipe = load_pipeline("digits")
    save_checkpoint(pipe, tmp_path, CARD)
    with torch.no_grad():
        pipe.unet.conv_in.bias += 1
    with full_disk(limit), pytest.raises(FileError, match="could not be written .*: free some space or choose another folder"):
        save_checkpoint(pipe, tmp_path, CARD)
    assert not list(tmp_path.glob(".*"))
    assert torch.equal(load_pipeline(tmp_path).unet.conv_in.bias, load_pipeline("digits").unet.conv_in.bias)


def parts_of(pipe) -> tuple[str, str, str]:
    """Which of two models each part is of: the network, the scheduler, what the pipeline says of itself."""
    unet = "new" if pipe.unet.conv_in.bias.mean() > 5 else "old"
    return unet, "new" if "DDIM" in type(pipe.scheduler).__name__ else "old", "new" if pipe.config.guidance_scale == 7 else "old"


def test_an_overwritten_checkpoint_is_the_old_one_the_new_one_or_refused_wherever_the_kill(tmp_path, monkeypatch):
    """Moved part by part, a killed overwrite had loaded as the new network under the old scheduler."""
    old, new = load_pipeline("digits"), load_pipeline("digits")
    with torch.no_grad():
        new.unet.conv_in.bias += 10
    new.scheduler = DDIMScheduler.from_config(new.scheduler.config)
    new.register_to_config(guidance_scale=7)
    replace, states = os.replace, []
    for allowed in range(20):
        save_checkpoint(old, tmp_path, CARD)
        calls = []

        def killed(source, destination, allowed=allowed, calls=calls):
            calls.append(destination)
            if len(calls) > allowed:
                raise KeyboardInterrupt
            replace(source, destination)

        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr("dimum_core.models.checkpoints.os.replace", killed)
            save_checkpoint(new, tmp_path, CARD | {"title": "another"})
        try:
            states.append(set(parts_of(load_pipeline(tmp_path))))
            assert read_card(tmp_path)["title"] == ("t" if states[-1] == {"old"} else "another")
        except CheckpointError as error:
            states.append("refused" if "half overwritten by another model" in str(error) else str(error))
        if states[-1] == {"new"}:
            break
    assert states[0] == {"old"} and states[-1] == {"new"} and states.count("refused") == len(states) - 2 >= 4
    assert not list(tmp_path.glob(".*"))


def test_a_judge_that_is_half_overwritten_is_refused(tmp_path):
    train(new_line(), Line(), line_config(steps=1), out=tmp_path, progress=False)
    save_checkpoint(load_judge("digits-judge"), tmp_path, CARD)
    load_judge(tmp_path)
    (tmp_path / ".replacing-123").mkdir()
    with pytest.raises(CheckpointError, match="save it again"):
        load_judge(tmp_path)
    train(new_line(), Line(), line_config(steps=1), out=tmp_path, resume=True, progress=False)  # tidies, no more
    with pytest.raises(CheckpointError, match="save it again"):
        load_judge(tmp_path)


def test_a_training_removes_what_a_killed_one_left(tmp_path):
    (tmp_path / f".{STATE_FILE}.123.tmp").write_bytes(b"half a state")
    (tmp_path / ".saving-123").mkdir()
    (tmp_path / ".saving-123" / "half").touch()
    train(new_line(), Line(), line_config(steps=1), out=tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    (tmp_path / ".saving-456").mkdir()
    with pytest.raises(CheckpointError, match="already holds a training"):
        train(new_line(), Line(), line_config(steps=1), out=tmp_path, progress=False)
    assert (tmp_path / ".saving-456").exists()  # whoever is refused there touches nothing: another process may be saving just now


def test_a_cell_on_a_full_disk_is_not_there(tmp_path):
    store.prepare(tmp_path)
    result = {"curve": list(range(1000))}
    with full_disk(100), pytest.raises(FileError, match="free some space"):
        store.write_cell(tmp_path, "ab", result)
    assert not store.is_done(tmp_path, "ab") and list((tmp_path / "cells").iterdir()) == []
    with full_disk(10), pytest.raises(FileError, match="free some space"):
        store.record_failure(tmp_path, "ab", {}, "a traceback")
    assert store.failures(tmp_path) == []
    store.write_cell(tmp_path, "ab", result)
    assert json.loads((tmp_path / "cells" / "ab" / store.RESULT).read_text()) == result


def test_the_former_site_stays_until_a_new_one_is_whole(tmp_path):
    """The smallest chapter makes a site; one with a picture that has no text is refused, and changes nothing."""
    tool, chapters = killed_works.site_tool(), tmp_path / "chapters"
    chapters.mkdir()
    shutil.copy(killed_works.smallest_chapter(), chapters)
    tool.build(chapters, tmp_path / "site")
    before = kills.contents(tmp_path / "site")
    (chapter,) = chapters.iterdir()
    notebook = json.loads(chapter.read_text())
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgo="}}
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["outputs"])["outputs"] = [picture]
    chapter.write_text(json.dumps(notebook))
    with pytest.raises(SystemExit, match="no text"):
        tool.build(chapters, tmp_path / "site")
    assert kills.contents(tmp_path / "site") == before
    chapter.unlink()
    shutil.copy(killed_works.smallest_chapter(), chapters)
    tool.build(chapters, tmp_path / "site")
    assert kills.contents(tmp_path / "site") == before  # and the same chapter makes the same site
