"""What the report says of results whose answer is known beforehand, and what it refuses."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dimum_core.benchmark import contests, leaderboard, read_results, report, write_results
from dimum_core.benchmark.contest import Contest, comparisons, groups, pooled, resolution, runs, strongest, unranked
from dimum_core.benchmark.figures import heat_panel, panels, pareto_front, recovery_bands
from dimum_core.benchmark.page import resolution_sentence, slug, verdict_sentence, write_report
from dimum_core.benchmark.results import PROVENANCE, ResultsError, check_provenance
from dimum_core.cli import main
from dimum_core.metrics import MetricError, sign_flip_test, t_interval

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol.md"
RECOVERED = {"strong": 0.1, "twin": 0.1, "weak": 0.7, "idle": 1.0, "wrecked": 0.0, "original": 1.0, "retrained": 0.0}


def made_up(seeds=range(4), targets=("3", "7")) -> pd.DataFrame:
    """Rows as `read_results` gives them: the middle learning rate is the attacker's best; two methods are alike, one is worse."""
    rows, noise = [], np.random.default_rng(0)
    for label, target, seed, rate in itertools.product(RECOVERED, targets, seeds, (1e-4, 1e-3)):
        end = RECOVERED[label] * (1.0 if rate == 1e-3 else 0.5) if label not in ("idle", "original") else 1.0
        jitter = noise.uniform(0, 0.05) if label in ("strong", "twin", "weak") else 0.0
        about = {
            "label": label, "method": label, "hyperparameters": "{}",
            "budget": "none" if label in ("original", "retrained") else "matched", "target": target, "seed": seed,
            "auxiliary": "retain", "optimizer": "adamw", "attack_rate": rate, "samples": 32,
            "unlearning_steps": 10, "unlearning_seconds": 2.0, "unlearning_distance": 1.5, "unlearning_nfes": 640,
            "seconds": 1.0, "model": f"{label}{target}{seed}", "cell": f"{label}{target}{seed}{rate}",
            **dict.fromkeys(PROVENANCE, "known"), "threads": 1,
        }
        start = 1.0 if label in ("idle", "original") else 0.0
        retained = 0.1 if label == "wrecked" else 0.95
        for point, (step, accuracy) in enumerate(((0, start), (20, end), (40, end + jitter))):
            accuracy = min(accuracy, 1.0)
            rows.append(about | {
                "step": step, "target accuracy": accuracy, "target low": accuracy, "target high": accuracy, "distance": float(step),
                "retained accuracy": retained, "attack_nfes": 64 * step, "sampling_nfes": 1280 * (point + 1),
            })
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return made_up()


@pytest.fixture(scope="module")
def contest(rows) -> Contest:
    """All methods on all eight pairs."""
    (contest,) = contests(rows)
    return contest


def test_two_attacks_under_one_name_are_told_apart_or_refused(rows):
    again = rows[rows["label"] == "weak"].assign(cell="another")
    with pytest.raises(ResultsError, match=r"more than one attack for budget matched.*label weak.*cells: another, weak3"):
        runs(pd.concat([rows, again]))


def test_curves_of_two_samplers_are_not_compared(rows):
    named = rows.assign(sampler="Euler ancestral, 25 steps")
    assert len(runs(named)) == len(runs(rows))
    for other in ("DPM-Solver++, 10 steps", None):  # None: of a version that did not name its sampler
        mixed = pd.concat([named, rows[rows["seed"] == 0].assign(seed=9, sampler=other)])
        with pytest.raises(ResultsError, match=r"different samplers \(.*Euler ancestral, 25 steps.*\).*by itself"):
            report(mixed)


@pytest.mark.parametrize(("column", "one", "other", "what"), [
    ("attack_steps", 40, 400, "lengths of attacks (40; 400)"), ("samples", 32, 2, "numbers of samples (2; 32)"),
    ("judge", None, "ab12", "judges (ab12; one that is not named"), ("checkpoint", "aa", "bb", "checkpoints (aa; bb)"),
])
def test_curves_that_were_measured_in_different_ways_are_not_compared(rows, column, one, other, what):
    with pytest.raises(ResultsError, match=re.escape(f"made with different {what}")):
        contests(pd.concat([rows.assign(**{column: one}), rows.assign(seed=rows["seed"] + 9, **{column: other})]))


def test_of_few_runs_each_is_reported_and_of_four_their_interval():
    few = report(made_up(seeds=[0], targets=("3", "7"))).set_index("method").loc["strong"]
    areas = strongest(runs(made_up(seeds=[0]))).query("label == 'strong'").sort_values("target")["area"]
    assert few["area"] == ", ".join(f"{area:.2f}" for area in areas) and few["half recovery"] == "> 40, > 40"
    four = report(made_up(seeds=[0, 1])).set_index("method").loc["weak"]
    assert "±" in four["area"] and "," not in four["area"] and four["half recovery"] == "14"


def test_the_attacker_takes_the_best_rate(rows):
    assert (strongest(runs(rows)).query("label == 'weak'")["attack_rate"] == 1e-3).all()
    alone = strongest(runs(made_up(seeds=[5])))
    assert (alone.query("label == 'weak'")["attack_rate"] == 1e-3).all() and (alone.groupby(["label", "target"]).size() == 1).all()


def test_a_run_that_has_begun_its_second_seed_still_reports_its_first():
    rows = made_up(seeds=[0, 1])
    first = rows[rows["seed"] == 0]
    begun = pd.concat([first, rows[(rows["label"] == "original") & (rows["seed"] == 1) & (rows["target"] == "3")]])
    assert set(report(begun)["method"]) == set(report(first)["method"]) == set(RECOVERED)
    (before,), (after,) = contests(first), contests(begun)
    pd.testing.assert_frame_equal(after.pivot(), before.pivot())


def test_a_seed_that_lacks_attacks_does_not_choose_the_weakest_for_the_others():
    rows = made_up(seeds=[0, 1], targets=["3"])
    first = rows[rows["seed"] == 0]
    begun = pd.concat([first, rows[(rows["seed"] == 1) & (rows["attack_rate"] == 1e-4)]])
    pd.testing.assert_frame_equal(report(begun), report(first))


def test_no_run_is_lost_where_seeds_met_different_attacks():
    """The rate that is best on the second seed was not tried on the first: there the best that both have met counts."""
    rows = made_up(seeds=[0, 1])
    other = rows[(rows["seed"] == 1) & (rows["attack_rate"] == 1e-4)].assign(attack_rate=1e-2)
    other.loc[other["step"] > 0, "target accuracy"] = 1.0
    mixed = pd.concat([rows[(rows["seed"] == 0) | (rows["attack_rate"] == 1e-3)], other])
    assert report(mixed)["runs"].eq(4).all() and (strongest(runs(mixed))["attack_rate"] == 1e-3).all()
    apart = mixed[(mixed["label"] != "weak") | (mixed["seed"] == 0) | (mixed["attack_rate"] == 1e-2)]  # one attack less
    more = made_up(seeds=[2, 3]).query("label == 'weak'").replace({"attack_rate": {1e-4: 1e-1, 1e-3: 1.0}})
    found = strongest(runs(pd.concat([apart, more]))).query("label == 'weak'").groupby("seed")["attack_rate"].first()
    assert found.to_dict() == {0: 1e-3, 2: 1.0, 3: 1.0}  # the first shares none with the others, the second lacks one


def test_an_entry_with_one_seed_of_three_is_left_out_by_name():
    rows = made_up(seeds=range(3))
    (contest,) = contests(rows[(rows["label"] != "twin") | (rows["seed"] == 0)])
    assert contest.left_out == {"twin": "has only 2 of 6 pairs"} and set(contest.pivot()) == {"strong", "weak", "idle", "wrecked"}


@pytest.mark.parametrize("apart", [
    lambda rows: rows["seed"] == (rows["label"] == "twin"), lambda rows: (rows["attack_rate"] == 1e-3) == (rows["seed"] == 1),
])
def test_what_has_no_other_seed_to_choose_on_is_reported(apart):
    """Every method with one seed, not the same; and two seeds that were attacked at different rates."""
    rows = made_up(seeds=[0, 1])
    assert set(report(rows[apart(rows)])["method"]) == set(RECOVERED)


def test_in_a_contest_luck_counts_for_all_or_for_none():
    rows = made_up(seeds=[0, 1])
    lucky = (rows["label"] == "strong") & (rows["seed"] == 0) & (rows["attack_rate"] == 1e-4) & (rows["step"] > 0)
    rows.loc[lucky, "target accuracy"] = 0.5  # by a rate that is worse on the other seed
    (contest,) = contests(rows)
    on_others = {("3", 0): 1e-3, ("3", 1): 1e-4, ("7", 0): 1e-3, ("7", 1): 1e-4}
    assert contest.pivot("attack_rate")["strong"].to_dict() == on_others
    (contest,) = contests(rows[~((rows["label"] == "twin") & (rows["target"] == "3") & (rows["seed"] == 1))])
    assert contest.pivot("attack_rate")["strong"].to_dict() == {("3", 0): 1e-4, ("7", 0): 1e-3, ("7", 1): 1e-4}


def test_the_leaderboard_ranks_ties_and_leaves_out_what_is_no_unlearning(contest):
    board = leaderboard(contest).set_index("method")
    assert contest.left_out == {} and board["pairs"].eq(8).all()
    assert board.index[2] == "weak" and board.loc["weak", "rank"] == 3 and set(board.index[3:]) == {"idle", "wrecked"}
    assert board.loc["strong", "group"] == board.loc["twin", "group"] == "a" and board.loc["weak", "group"] == "b"
    assert board.loc["weak", "area"] == pytest.approx(0.5 * 0.7 * 0.5 + 0.7 * 0.5, abs=0.01)  # two trapezia
    assert board.loc["weak", "behind low"] > 0.4 and board.loc["strong", ["steps", "unlearning_nfes"]].tolist() == [10, 640]
    assert "not forgotten" in board.loc["idle", "note"] and "quality lost: RA 0.10 < 0.85" in board.loc["wrecked", "note"]
    assert set(unranked(contest)) == {"idle", "wrecked"}


def test_what_lies_below_by_chance_only_is_ranked(rows):
    scarce = rows.assign(samples=4)
    scarce.loc[scarce.label == "weak", "retained accuracy"] = 0.75  # 24 of 32: its interval reaches 0.855, the bar at 0.9 of 0.95
    (contest,) = contests(scarce)
    interval = pooled(pd.Series([0.5, 1.0]), pd.Series([4, 4]))
    assert (interval.value, interval.n) == (0.75, 8) and 0.4 < interval.low < 0.42
    assert "weak" not in unranked(contest) and "weak" in unranked(contests(scarce.assign(samples=32))[0])


def test_comparisons_are_the_exact_tests_on_common_pairs(contest):
    table, pivot = comparisons(contest).set_index(["first", "second"]), contest.pivot()
    assert len(table) == 3
    assert table.loc[("strong", "weak"), "p"] == sign_flip_test(pivot["strong"], pivot["weak"]) == 2 / 2**8
    assert set("".join(groups(pivot[["strong", "weak"]]).values())) == {"a", "b"}
    assert table["verdict"].to_dict() == {
        ("strong", "twin"): "equivalent", ("strong", "weak"): "distinguishable", ("twin", "weak"): "distinguishable",
    } and "3 comparisons 2 are distinguishable after Holm's correction, 1 equivalent within 0.1" in verdict_sentence(table)


def test_intervals_are_those_of_the_fifth_rule(contest):
    weak, best = leaderboard(contest).set_index("method").loc["weak"], leaderboard(contest)["method"].iloc[0]
    student = t_interval(contest.pivot()["weak"] - contest.pivot()[best])
    assert weak[["behind low", "behind high"]].tolist() == pytest.approx([student.low, student.high])
    rule = re.search(r"^5\. .*?(?=^6\. )", PROTOCOL.read_text(), re.DOTALL | re.MULTILINE)[0]
    assert "Student's" in rule and "resample" not in rule


def test_pairs_that_a_method_lacks_are_left_out_for_all(rows):
    some = rows[~((rows.label == "weak") & (rows.seed == 3) & (rows.target == "7"))]
    (contest,) = contests(some[~((some.label == "twin") & (some.seed > 0) & (some.target == "7")
                                 | (some.label == "twin") & (some.seed > 1))])
    assert "twin" in contest.left_out and len(contest.pivot()) == 7 and "has only 3 of 8 pairs" in contest.left_out["twin"]


def test_figures_and_controls_average_over_the_pairs_of_the_contest_and_nothing_else(rows):
    """Of a method that lacks one pair and of one that is left out, whatever their other rows say: by hand from the rows."""
    some = rows[~((rows.label == "weak") & (rows.seed == 3) & (rows.target == "7"))]
    some = some[(some.label != "twin") | (some.seed == 0) & (some.target == "3")].copy()
    elsewhere = (some.seed == 3) & (some.target == "7")
    some.loc[elsewhere, "target accuracy"] = 0.9  # were it counted, every mean would move
    some.loc[elsewhere & (some.label == "original"), "retained accuracy"] = 0.0
    (contest,) = contests(some)
    kept = some[~elsewhere]
    assert contest.pairs_left_out == (("7", 3),) and "twin" in contest.left_out
    drawn = {panel.name: panel.data for panel in panels(some, contest)}
    by_hand = kept[kept["step"] == 20].groupby(["label", "attack_rate"])["target accuracy"].mean()
    heat = drawn["rates"].query("step == 20").set_index(["label", "attack_rate"])
    assert heat["mean"].to_dict() == pytest.approx(by_hand[["strong", "weak", "idle", "wrecked"]].to_dict())
    assert heat["pairs"].eq(7).all()
    curves = drawn["curves"].query("step == 20").set_index("label")["mean"]
    assert curves["retrained"] == 0.0 and curves["strong"] == pytest.approx(by_hand["strong", 1e-3])
    assert drawn["area"].set_index("method").loc["retrained", ["area", "pairs"]].tolist() == [0.0, 7]
    assert set(contest.controls.query("label == 'original'")["RA"]) == {0.95}  # what decides who is ranked
    chosen = some.query(contest.where)
    assert len(chosen) == len(kept[kept["label"] != "twin"]) and set(chosen["label"]) == set(RECOVERED) - {"twin"}


def test_the_heat_map_has_a_row_for_each_setting_of_the_attacker(rows):
    """Two optimizers at one rate are two settings: a mean of both would be brighter or darker than what was measured."""
    gentle = rows.assign(optimizer="sgd", cell=rows["cell"] + "sgd")
    gentle.loc[gentle["step"] > 0, "target accuracy"] = 0.05
    gentle = gentle[gentle["label"] != "strong"]  # not attacked so: no row of its own, and no shift of the others
    both = pd.concat([rows, gentle])
    (contest,) = contests(both)
    panel = heat_panel(both, contest, leaderboard(contest))
    heat = panel.data.set_index(["label", "attack_rate", "optimizer", "step"])["mean"]
    assert heat["weak", 1e-3, "sgd", 20] == pytest.approx(0.05) and heat["weak", 1e-3, "adamw", 20] == pytest.approx(0.7)
    assert "(adamw) after" in panel.alt
    maps = {ax.get_title(): ax.images[0].get_array() for ax in panel.figure.axes if ax.get_title()}
    assert {values.shape for values in maps.values()} == {(4, 3)}
    assert np.ma.getmaskarray(maps["strong"])[:, 1].tolist() == [False, True, False, True]
    assert maps["weak"][:, 1].tolist() == pytest.approx([0.35, 0.05, 0.7, 0.05])


def test_a_control_meets_the_same_luck_as_the_methods():
    """Where a method has one seed of a target, all attackers choose on the seed itself, the controls' too."""
    rows = made_up(seeds=[0, 1])
    lucky = (rows["label"] == "retrained") & (rows["seed"] == 0) & (rows["attack_rate"] == 1e-4) & (rows["step"] > 0)
    rows.loc[lucky, "target accuracy"] = 0.5
    (contest,) = contests(rows[~((rows["label"] == "twin") & (rows["target"] == "3") & (rows["seed"] == 1))])
    rates = contest.controls.query("label == 'retrained'").set_index(["target", "seed"])["attack_rate"]
    assert rates["3", 0] == 1e-4


def test_methods_that_each_have_a_third_of_the_pairs_make_no_contest():
    rows = made_up(seeds=range(3), targets=("3",))
    place = rows["label"].map({"strong": 0, "twin": 1, "weak": 2, "original": 0})
    assert contests(rows[rows["seed"] == place]) == []


def test_what_so_few_pairs_can_tell_is_said():
    (few,) = contests(made_up(seeds=[0, 1]))
    assert resolution(few)["least p (Holm)"] == pytest.approx(3 * 2 / 2**4) and "More seeds are needed" in resolution_sentence(few)
    (many,) = contests(made_up())
    assert "More seeds" not in resolution_sentence(many) and resolution(many)["least difference"] < 0.1
    (one,) = contests(made_up(seeds=[0], targets=("3",)))
    with pytest.raises(MetricError, match="run more seeds"):
        resolution(one)
    assert set(leaderboard(one)["group"]) == {"a", ""}


def test_the_front_and_the_bands():
    assert pareto_front(pd.Series([1.0, 0.5, 0.4, 1.0]), pd.Series([0.2, 0.9, 0.8, 0.2])).tolist() == [True, True, False, True]
    bands = recovery_bands(made_up().query("attack_rate == 0.001")).set_index(["label", "step"])
    assert bands.loc[("weak", 20), "mean"] == pytest.approx(0.7) and bands.loc[("weak", 20), "pairs"] == 8
    low, mean, high = bands.loc[("weak", 40), ["low", "mean", "high"]]
    assert 0.7 < low < mean < high < 0.75


def test_the_page_needs_nothing_else_and_its_figures_name_their_rows(rows, contest, tmp_path):
    page = write_report(rows, tmp_path, "Made <up>").read_text()
    assert "Made &lt;up&gt;" in page and not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(", page)
    assert page.count("<img ") == page.count('alt="') == 4 and "prefers-color-scheme: dark" in page and "viewport" in page
    for picture in sorted((tmp_path / "figures").glob("*.png")):
        assert picture.with_suffix(".csv").is_file() and f"figures/{picture.stem}.csv" in page
    assert len(list((tmp_path / "figures").glob("*.png"))) == 4 and len(list((tmp_path / "tables").glob("*.csv"))) == 2
    assert contest.where.replace("'", "&#x27;") in page
    assert set(rows.query(contest.where)["label"]) == set(RECOVERED)


def test_the_page_says_whose_luck_counts_and_what_is_not_compared(rows, tmp_path):
    lucky, fair = "so that their luck is counted as strength", "so that their luck is not counted as strength"
    one = write_report(made_up(seeds=[0]), tmp_path / "one", "x").read_text()
    assert lucky in one and fair not in one
    lacking = rows[~((rows["label"] == "weak") & (rows["target"] == "7") & (rows["seed"] == 3))]
    later = rows[(rows["label"] == "strong") & (rows["seed"] == 0) | (rows["label"] == "weak") & (rows["seed"] == 1)]
    page = write_report(pd.concat([lacking, later.assign(budget="long")]), tmp_path / "more", "x").read_text()
    assert fair in page and lucky not in page
    assert "<li>long, retain: no pair of target and seed is complete</li>" in page
    assert "Left out: target 7 with seed 3, which some methods lack." in page


def test_names_of_every_script_have_files_of_their_own():
    assert slug("200 steps, retain_set") == "200-steps-retain-set"
    assert len({slug(f"{budget}; retain") for budget in ("短い", "長い", "кратко", "долго", "short")}) == 5
    assert slug("短い").isascii() and slug("kürzer, retain").startswith("kurzer-retain-") and slug("kürzer") != slug("kurzer")


def test_a_report_is_written_whatever_the_shells_encoding(rows, tmp_path, in_c_locale):
    folder = tmp_path / "Läufe"
    named = rows.assign(
        budget=rows["budget"].replace("matched", "kürzer"), label=rows["label"].replace("weak", "schwächer"),
    )
    write_results(named, folder / "Ü.csv")
    arguments = ("benchmark", "report", folder / "Ü.csv", "--out", folder / "page", "--csv", folder / "again.csv")
    done = in_c_locale("-m", "dimum_core.cli", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    printed, page = done.stdout.decode(), (folder / "page" / "report.html").read_text(encoding="utf-8")
    assert "±" in printed and "schwächer" in printed and str(folder) in printed
    assert "<h1>Leaderboard: Ü</h1>" in page and "schwächer" in page and "“kürzer”" in page
    assert (folder / "again.csv").read_bytes() == (folder / "Ü.csv").read_bytes()
    assert all(path.name.isascii() for path in (folder / "page").rglob("*"))


def test_results_survive_both_formats(rows, tmp_path, capsys):
    for name in ("rows.parquet", "rows.csv"):
        write_results(rows, tmp_path / name)
        pd.testing.assert_frame_equal(report(read_results(tmp_path / name)), report(rows))
    pd.testing.assert_frame_equal(read_results(tmp_path / "rows.parquet"), rows)
    csv, parquet, out = tmp_path / "again.csv", tmp_path / "again.parquet", tmp_path / "page"
    command = f"benchmark report {tmp_path / 'rows.parquet'} --csv {csv} --parquet {parquet} --out {out}"
    assert main(command.split()) == 0 and "report.html" in capsys.readouterr().out
    assert csv.read_bytes() == (tmp_path / "rows.csv").read_bytes() and len(read_results(parquet)) == len(rows)
    with pytest.raises(ResultsError, match="ends in .parquet or .csv"):
        write_results(rows, tmp_path / "rows.xlsx")
    with pytest.raises(ResultsError, match="no file"):
        read_results(tmp_path / "none.parquet")


def test_words_that_look_like_numbers_stay_words_and_counts_keep_their_digits(rows, tmp_path):
    rows = rows.assign(commit="12e4567", torch="2.10", unlearning_nfes=1_234_567, budget=rows["budget"].replace("matched", "60"))
    rows.loc[rows["label"] == "twin", "unlearning_nfes"] = None
    write_results(rows, tmp_path / "rows.csv")
    again = read_results(tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(again, rows, check_dtype=False)
    assert set(again["budget"]) == {"60", "none"} and write_report(again, tmp_path / "page", "x").is_file()


def test_rows_of_two_plans_whose_points_are_a_number_and_a_list_go_into_one_file(rows, tmp_path):
    both = pd.concat([rows.assign(points=3), rows.assign(points=[[10, 30]] * len(rows))])
    write_results(both, tmp_path / "rows.parquet")
    assert read_results(tmp_path / "rows.parquet")["points"].tolist() == ["3"] * len(rows) + ["[10, 30]"] * len(rows)
    write_results(both.iloc[len(rows):], tmp_path / "rows.parquet")
    assert [list(points) for points in read_results(tmp_path / "rows.parquet")["points"]] == [[10, 30]] * len(rows)


def test_results_without_provenance_are_refused(rows, tmp_path, capsys):
    rows.drop(columns=["commit"]).to_csv(tmp_path / "rows.csv", index=False)
    assert main(["benchmark", "report", str(tmp_path / "rows.csv")]) == 1
    assert "lack commit" in capsys.readouterr().err
    with pytest.raises(ResultsError, match="lack torch"):
        check_provenance(rows.assign(torch=[None, *rows["torch"][1:]]))
    with pytest.raises(ResultsError, match="lack commit"):
        write_report(rows.drop(columns="commit"), tmp_path, "x")
