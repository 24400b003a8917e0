"""No number of the results' and CLAIMS' tables is typed by hand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import tables  # noqa: E402 (a script, not a package)


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_are_those_of_the_shipped_rows(name):
    text = (ROOT / name).read_text()
    assert tables.BLOCK.search(text) and tables.rewritten(text) == text


def test_every_interval_of_the_readme_stands_in_the_results_or_the_claims():
    stated = re.findall(r"-?\d\.\d\d(?: ± \d\.\d\d| \[[^\]]+\])", (ROOT / "README.md").read_text())
    measured = "".join((ROOT / name).read_text() for name in tables.PAGES)
    assert len(stated) >= 5 and [interval for interval in stated if interval not in measured] == []


def test_a_changed_number_is_found():
    text = (ROOT / "docs" / "results.md").read_text()
    assert tables.rewritten(text.replace("| dimum (class) | 6 |", "| dimum (class) | 7 |")) == text
    assert "| dimum (class) | 7 |" in text.replace("| dimum (class) | 6 |", "| dimum (class) | 7 |")


@pytest.mark.parametrize("block", [f"{tables.FRESH}: budget", "confirm: matched"])
def test_shares_of_another_contest_are_refused(block):
    with pytest.raises(ValueError, match=block):
        tables.rewritten(f"<!-- shares {block} -->\n<!-- end of table -->")


def test_a_leaderboard_of_two_files_ranks_on_all_their_pairs():
    lines = tables.rewritten("<!-- leaderboard digits+digits-0: matched -->\n<!-- end of table -->").splitlines()[1:-1]
    assert len({line.count("|") for line in lines}) == 1  # a row of a method that is not ranked has all its cells, too
    rows = {cells[1]: cells[2:] for cells in ([cell.strip() for cell in line.split("|")] for line in lines[2:])}
    assert rows["esd"][0] == "9"  # two targets in one file, one in the other, three seeds each
    contest, = (c for c in tables.contests(tables.results("digits+digits-0")) if c.budget == "matched")
    assert rows["esd"][1].startswith(f"{contest.pivot()['esd'].mean():.2f} [")
    assert rows["scissorhands"][2].startswith("not ranked: ")


def test_who_pays_is_told_of_digits_too():
    for source in ("who_pays-digits", "who_pays-photographs"):
        assert tables.rewritten(f"<!-- pays {source}: unlearned -->\n<!-- end of table -->").count("| erasediff |") == 1


def in_the_end(source: str, by: str, **chosen) -> list[float]:
    """The share that shows the target after the last step of an attack, straight from the rows."""
    rows = tables.results(source)
    rows = rows[rows["step"] == rows["attack_steps"]]
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    return rows.sort_values(by)["target accuracy"].tolist()


def cells_of(block: str, label: str) -> list[str]:
    line, = (line for line in tables.rewritten(f"<!-- {block} -->\n<!-- end of table -->").splitlines() if f"| {label} |" in line)
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_a_table_of_targets_has_a_value_for_each_seed_and_one_of_rates_for_each_target():
    star = in_the_end("features", "seed", label="random-label", budget="matched", target="star")
    assert cells_of("targets features: matched", "random-label")[-1] == ", ".join(f"{share:.2f}" for share in star)
    fast = in_the_end("photographs-rates", "target", label="dimum (class)", attack_rate=1e-3)
    last = cells_of("rates photographs-lengths+photographs-rates: 240", "dimum (class)")[-1]
    assert re.findall(r"(\d\.\d\d) \(", last) == [f"{share:.2f}" for share in fast]


def test_how_long_each_attack_was_is_what_its_plan_says():
    for name in ("confirm", "features"):
        plan = yaml.safe_load((ROOT / "plans" / f"{name}.yaml").read_text())
        pairs, rates = len(plan["targets"]) * len(plan["seeds"]), ", ".join(f"{rate:g}" for rate in plan["attack_rates"])
        said = [", ".join(plan["targets"]), str(pairs), str(plan["attack_steps"]), rates]
        assert cells_of("attacks benchmark: all", name) == said
