"""What the pages say is so: figures come from the result files, pictures and links are there, exercises are those that exist."""

from __future__ import annotations

import csv
import itertools
import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import pandas as pd
import pytest
import yaml

from dimum_core.benchmark import Plan
from dimum_core.course.checks import EXERCISES
from dimum_core.metrics import least_p
from dimum_core.unlearning import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def test_the_figures_of_the_failures_are_those_of_the_table():
    rows = list(csv.DictReader((ROOT / "data" / "results" / "failures.csv").open()))
    text = (ROOT / "docs" / "failures.md").read_text()
    for name in dict.fromkeys(row["run"] for row in rows):
        section = text.split(f"\n`{name}`:")[1].split("\n## ")[0]
        wanted = [(row["UA"], row["RA"]) for row in rows if row["run"] == name]
        assert re.findall(r"UA (\d\.\d\d), RA (\d\.\d\d)", section) == wanted, name
        assert f"](failure_{name}.png)" in text


def test_the_failures_are_what_they_are_called():
    found = {}
    for row in csv.DictReader((ROOT / "data" / "results" / "failures.csv").open()):
        found.setdefault(row["run"], []).append((float(row["UA"]), float(row["RA"])))
    healthy, = found["healthy"]
    assert min(healthy) > 0.85
    for name in ("all-destroyed", "diverged", "attack-that-wrecks"):
        assert found[name][0][1] < 0.5, name
    assert found["nothing-forgotten"][0][0] < 0.3 < 0.85 < found["nothing-forgotten"][0][1]
    assert found["one-scale-only"][0][0] - found["one-scale-only"][1][0] > 0.3
    assert min(found["answers-with-noise"][0]) > 0.85
    assert found["attack-too-slow"][0][0] > 0.7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_of_a_page_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target
    assert all(alt for alt in re.findall(r"!\[([^\]]*)\]", page.read_text()))


def test_the_readme_lists_every_chapter_with_its_minutes():
    listed = re.findall(r"(?m)^\| (\d\d) \| \[[^\]]+\]\((notebooks/[^)]+)\).* \| (\d+) \|$", (ROOT / "README.md").read_text())
    wanted = [
        (path.name[:2], f"notebooks/{path.name}", str(json.loads(path.read_text())["metadata"]["dimum"]["minutes"]))
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    ]
    assert listed == wanted


def test_exercises_that_the_teachers_kit_names_exist():
    text = "".join(path.read_text() for path in (ROOT / "docs" / "teaching").glob("*.md"))
    chapters = "".join(path.read_text("utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    known = set(EXERCISES) | set(re.findall(r"\*\*(\d\d\.\d)\*\*", chapters))  # a design has no check
    assert set(re.findall(r"\b((?:0\d|1[0-2])\.\d)\b(?!\d)", text)) - known == set()


def test_every_question_has_an_answer():
    questions, answers = (
        re.findall(r"(?m)^(\d+)\. ", (ROOT / "docs" / "teaching" / f"{name}.md").read_text()) for name in ("questions", "answers")
    )
    assert questions == answers == [str(k) for k in range(1, len(questions) + 1)] and len(questions) >= 24


def test_the_failures_use_methods_that_exist():
    settings = [row["settings"].split()[0] for row in csv.DictReader((ROOT / "data" / "results" / "failures.csv").open())]
    assert set(settings) <= {*METHODS, "DiMRA"}


def test_the_plan_of_the_walk_has_pairs_enough_for_a_verdict():
    """What the page says beside it: six pairs for one comparison, seven for its three with Holm's correction."""
    text = (ROOT / "docs" / "your_own_pictures.md").read_text("utf-8")
    plan = yaml.safe_load(next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "methods:" in block))
    pairs, comparisons = len(plan["targets"]) * len(plan["seeds"]), len(list(itertools.combinations(plan["methods"], 2)))
    assert pairs == 8 and comparisons == 3 and least_p(5) > 0.05 > least_p(6) > 0.05 / 3 > least_p(7)


def test_what_the_sampler_changes_in_the_order_of_methods_is_as_the_page_says():
    rows = pd.read_csv(ROOT / "data" / "results" / "fresh_noise.csv")
    rows = rows[(rows["when"] == "after") & (rows["method"] != "retrained")]
    shares = rows.pivot_table(index="method", columns="sampler", values="share").round(2)
    order = {sampler: list(shares[sampler].sort_values().index) for sampler in shares}
    assert set(order["DPM-Solver++"][:4]) == set(order["Euler ancestral"][:4])
    ranks = shares.rank()
    assert order["DPM-Solver++"][-1] == "concept-ablation" and order["Euler ancestral"][-1] == "selective-amnesia"
    assert ranks.loc["selective-amnesia", "DPM-Solver++"] == 5.5 == ranks.loc["concept-ablation", "Euler ancestral"]


KINDS = {
    "predict": 0, "compute": 0, "recall": 0, "build": 1, "bug hunt": 2, "derive": 3, "to try": 4, "to think about": 4, "design": 5,
}


def test_the_syllabus_adds_up_the_minutes_of_the_exercises():
    chapters, difficulties = {}, {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"])
        for kind, difficulty, minutes in re.findall(r"\*\*\d\d\.\d+\*\* \*\(([a-z ,]+); difficulty (\d), (\d+) minutes\)\*", text):
            chapters.setdefault(path.name[:2], [0] * 6)[KINDS[kind.split(",")[0]]] += int(minutes)
            difficulties.setdefault(difficulty, []).append(int(minutes))
    page = (ROOT / "docs" / "teaching" / "syllabus.md").read_text("utf-8")
    for chapter, minutes in chapters.items():
        row = " | ".join(str(number or "") for number in minutes).replace("  ", " ")
        assert f"| {chapter} | {row} | {sum(minutes)} |".replace("  ", " ") in page, chapter
    for difficulty, minutes in difficulties.items():
        assert f"| {difficulty} | {len(minutes)} | {min(minutes)} to {max(minutes)} | {sum(minutes)} |" in page


def test_every_exercise_states_its_difficulty_and_minutes_and_what_to_expect_of_a_trial():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]]
        for number, text in re.findall(r"(?m)^\*\*(\d\d\.\d+)\*\* (.*)$", "\n".join(cells)):
            assert re.match(r"\*\([a-z ,]+; difficulty \d, \d+ minutes\)\* ", text), number
            assert "to try" not in text.split(";")[0] or "xpect" in text, number


def test_each_question_of_the_quizzes_has_one_right_option_and_feedback_on_all():
    parts = re.split(r"(?m)^## ", (ROOT / "docs" / "quizzes.md").read_text("utf-8"))[1:]
    assert len(parts) == 4
    for part in parts:
        questions = re.split(r"(?m)^\*\*\d\.\*\* ", part)[1:]
        assert len(questions) == 5
        for question in questions:
            options = re.findall(r"(?s)<details>\n<summary>.+?</summary>\n\n(\w+)\. (.+?)\n\n</details>", question)
            assert len(options) == question.count("<details>") == 3, question
            assert [said for said, _ in options].count("Right") == 1 and all(said in ("Right", "No") for said, _ in options)


def test_the_protocol_names_each_setting_of_a_plan_and_its_default():
    text = (ROOT / "docs" / "protocol.md").read_text().split("## What a plan may hold")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    said = {name: default for names, _, default in rows for name in re.findall(r"`(\w+)`", names)}
    settings = {field.name: field.default for field in fields(Plan) if field.name != "name"}
    assert set(said) == set(settings)
    whole = {name: default for name, default in settings.items() if type(default) is int}
    assert len(whole) == 5 and all(re.search(rf"\b{default}\b", said[name]) for name, default in whole.items())
    assert all(said[name] == "" for name, default in settings.items() if default is MISSING)
