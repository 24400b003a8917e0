"""Files that are handed in, and marks that are written down: nobody is passed over, and names stay text."""

from __future__ import annotations

import csv
import sys

import pytest

from dimum_core.cli import main
from dimum_core.course import grade
from dimum_core.course.hand_ins import read, submissions
from dimum_core.errors import DimumError


def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path):
    folder = tmp_path / "submissions"
    for name, text in {
        "ada/answers.PY": "check('01.1', 259)", "ada/.vscode/settings.json": "// a comment", "ada/__MACOSX/._a.json": "\0",
        "bob/a.json": '\ufeff{"01.1": 259}', "bob/half.json": '{"01.1": ', "eve/answers.txt": "259", "lea.ipynb": "no notebook",
        ".git/x.py": "", "kim.zip": "PK", "zoe.html": "<p>259", "bob.pdf": "%PDF", "Thumbs.db": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "zed").mkdir()
    (tmp_path / "points.yaml").write_text('points: {"01.1": 1}')
    for _ in range(2):  # the second time, the marks of the first are in the folder
        results = grade.grade(folder, folder / "marks", tmp_path / "points.yaml", seconds=8.0)
        found = {result.student: (result.points, result.note) for result in results}
        assert list(found) == ["ada", "bob", "eve", "kim", "lea", "zed", "zoe"] and found["ada"] == (1.0, "")
    assert found["bob"][0] == 1.0 and found["bob"][1].startswith("half.json cannot be read: JSONDecodeError: ")
    assert found["bob"][1].endswith("not graded, since only .ipynb, .py, .json can be: bob.pdf")
    for student, file in {"eve": "answers.txt", "kim": "kim.zip", "zoe": "zoe.html"}.items():
        assert found[student] == (0.0, f"not graded, since only .ipynb, .py, .json can be: {file}")
    assert found["zed"] == (0.0, "there is no file that ends in .ipynb, .py, .json")
    assert found["lea"][0] == 0.0 and "lea.ipynb cannot be read" in found["lea"][1]
    assert "half.json cannot be read" in (folder / "marks" / "bob.html").read_text()


HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "x;=1+1", "x,=1+1", '"=1+1', 'x;"=1+1', "＝1+1", "<b>bold", "{{rows}}", "two\nlines",
           "\x1b[31mred", "l" * 250, "\udce9", "o'brien", "Åsa", "de la Cruz, Ana"]


def test_names_stay_text_in_the_table_on_the_page_and_on_the_terminal(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_bytes(b"")
        (folder / f"{name}").mkdir()
        (folder / name / "=2+2;=3.txt").write_bytes(b"")
    (tmp_path / "points.yaml").write_text("points: {}\nothers: 0")
    out = tmp_path / "marks"
    assert main(["grade", str(folder), "--out", str(out), "--points", str(tmp_path / "points.yaml")]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == len(HOSTILE) and "\x1b" not in shown and "\\udce9" in shown
    for separator in ",;\t":  # a spreadsheet may cut the lines at another one than we
        with (out / "marks.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter=separator))
        assert len(rows) == len(HOSTILE) + 1
        assert not [cell for row in rows for cell in row if cell.lstrip('"').startswith(tuple("=+-@＝"))]
        assert separator != "," or {"o'brien", "Åsa", "de la Cruz, Ana", "<b>bold"} <= {row[0] for row in rows}
    pages = {path.name: path.read_text(encoding="utf-8") for path in out.glob("*.html")}
    assert len(pages) == len(HOSTILE) and all(page.count("<tr>") == 1 and "<b>" not in page for page in pages.values())
    assert "<h1>{{rows}}: 0 of 0 points</h1>" in pages["{{rows}}.html"]


def test_marks_are_not_written_among_the_hand_ins(tmp_path):
    (tmp_path / "ada.py").write_text("")
    with pytest.raises(DimumError, match="a folder of their own"):
        grade.grade(tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ada.py"]


def test_marks_that_are_made_survive_the_end_of_the_grader(tmp_path, monkeypatch):
    folder = tmp_path / "submissions"
    folder.mkdir()
    for student in ("ada", "bob"):
        (folder / f"{student}.json").write_text('{"01.1": 259}')
    judged = iter([({"01.1": grade.checks.Outcome(True, "right.")}, "")])
    monkeypatch.setattr(grade, "judge_all", lambda *order: next(judged))  # and no second one
    (tmp_path / "points.yaml").write_text('points: {"01.1": 1}')
    with pytest.raises(StopIteration):
        grade.grade(folder, tmp_path / "marks", tmp_path / "points.yaml")
    rows = (tmp_path / "marks" / "marks.csv").read_text("utf-8-sig").splitlines()
    assert rows == ["student,points,out of,01.1,note", "ada,1,1,1,"]
    assert "right." in (tmp_path / "marks" / "ada.html").read_text()


def test_grading_says_that_it_does_not_run_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DimumError, match="on Windows, run it in WSL"):
        grade.grade(tmp_path, tmp_path / "marks")
    assert not (tmp_path / "marks").exists()


def test_points_and_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "points.yaml").write_text('points: {"01.1": -1}')
    with pytest.raises(DimumError, match="not negative"):
        grade.read_points(tmp_path / "points.yaml")
    (tmp_path / "points.yaml").write_text('points: {"77.7": 1}')
    with pytest.raises(DimumError, match="77.7"):
        grade.read_points(tmp_path / "points.yaml")
    with pytest.raises(DimumError, match="no submissions"):
        grade.submissions(tmp_path)
    assert main(["grade", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1


def test_options_of_exercises_are_refused_for_capstones(tmp_path, capsys):
    for option in (["--points", str(tmp_path / "points.yaml")], ["--seconds", "5"]):
        assert main(["grade", str(tmp_path), "--out", str(tmp_path / "out"), "--capstone", *option]) == 1
        assert "--points and --seconds are for exercises" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.json", '[{"01.1": 259}]', "it should hold answers by their exercises"),
    ("a.json", '{"answers": {"01.1": 259}}', "names what is no exercise with a check: ['answers']"),
    ("a.json", '{"01.2": 0, "1.1": 259}', "names what is no exercise with a check: ['1.1']"),
    ("a.py", "answers = {'01.1': 259}".encode("utf-16").decode("latin-1"), "it is not text in UTF-8"),
])
def test_a_file_in_which_nothing_counts_is_named(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    assert said in read([tmp_path / name]).note


def test_the_last_download_counts_as_people_number_them(tmp_path):
    names = ["01_d.ipynb", "01_d (1).ipynb", "01_d (2).ipynb", "01_d (10).ipynb", "01_d_v2.ipynb", "01_d_v10.ipynb", "02_g.ipynb"]
    (tmp_path / "ada").mkdir()
    for name in names:
        (tmp_path / "ada" / name).write_text("")
    assert [file.name for file in submissions(tmp_path)["ada"]] == names
