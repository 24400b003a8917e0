"""Tables and effects of docs/results.md and CLAIMS.md, from the shipped results: no number of theirs is typed by hand.

An effect is a planned comparison, `<!-- effect NAME -->...<!-- end -->`, of which EFFECTS says what is subtracted from what.

    python tools/tables.py            write them anew
    python tools/tables.py --check    say which are out of date, and fail
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import Path

import pandas as pd

from dimum_core.benchmark import contests, leaderboard, read_results, report
from dimum_core.benchmark.contest import LEAST_UA, comparisons, runs
from dimum_core.benchmark.exchange import after_lengths
from dimum_core.benchmark.plan import CONTROLS
from dimum_core.metrics import MARGIN, pairwise_comparisons, t_interval
from dimum_core.metrics.comparison import judged

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "experiments"))
from attackers import DEFENCES, NEVER_KNEW, leads, own_leads  # noqa: E402 (a script of another folder, not a package)
from defence import BOTH, SEARCHED, SHARP, confirmed, frontier, with_controls  # noqa: E402
from who_pays import bills  # noqa: E402

PAGES = ("docs/results.md", "CLAIMS.md")
BLOCK = re.compile(
    r"(?P<head><!-- (?P<kind>table|leaderboard|shares|expected|leads|pays|frontier|lengths|rates|targets|judges|attacks) "
    r"(?P<source>[\w+-]+): (?P<budget>\w+) -->\n)"
    r".*?(?P<tail><!-- end of table -->)", re.DOTALL,
)
COLUMNS = {
    "method": "method", "runs": "runs", "steps": "steps", "UA": "UA", "RA": "RA", "distance": "distance", "area": "recovery area",
    "recovered": "accuracy on the target after the attack", "half recovery": "steps to half recovery",
}
EFFECT = re.compile(r"(?P<head><!-- effect (?P<name>[^>]+?) -->).*?(?P<tail><!-- end -->)")
EXPECTATION = re.compile(r"^#   (.+?) - (.+?)  +(below 0|within 0\.1 of 0)$", re.MULTILINE)
DIGITS, PHOTOGRAPHS = "digits+digits-0+digits-seeds", "photographs-16"
FRESH = "fresh_noise"  # of samples drawn with fresh noise, the share that shows the target after the attack
AFTER = "confirm: share after"  # of its rows the share of samples that show the target at the end of the attack, not the area
CONFIRM = "confirm"  # plans/confirm.yaml, whose comment says what was expected before it ran
LATER = "digits-0+digits-seeds"  # the nine pairs that were run after the first six had been read
EFFECTS = {  # name -> results, budget, first, second: recovery area, or share, of the first minus the second
    "fresh: generated - esd": (FRESH, "matched", "dimum (generated)", "esd"),
    "fresh: class - esd": (FRESH, "matched", "dimum (class)", "esd"),
    "fresh: generated - selective amnesia": (FRESH, "matched", "dimum (generated)", "selective-amnesia"),
    "fresh: generated - random label": (FRESH, "matched", "dimum (generated)", "random-label"),
    "fresh: class - random label": (FRESH, "matched", "dimum (class)", "random-label"),
    "fresh: generated - class": (FRESH, "matched", "dimum (generated)", "dimum (class)"),
    "fresh: generated - erasediff": (FRESH, "matched", "dimum (generated)", "erasediff"),
    "confirm: generated - esd": (CONFIRM, "matched", "dimum (generated)", "esd"),
    "confirm: generated - random label": (CONFIRM, "matched", "dimum (generated)", "random-label"),
    "confirm: generated - erasediff": (CONFIRM, "matched", "dimum (generated)", "erasediff"),
    "confirm: erasediff - esd": (CONFIRM, "matched", "erasediff", "esd"),
    "confirm: erasediff - random label": (CONFIRM, "matched", "erasediff", "random-label"),
    "confirm: random label - esd": (CONFIRM, "matched", "random-label", "esd"),
    "confirm, share after: generated - erasediff": (AFTER, "matched", "dimum (generated)", "erasediff"),
    "generated - esd": (DIGITS, "matched", "dimum (generated)", "esd"),
    "mixed - esd": (DIGITS, "matched", "dimum (mixed)", "esd"),
    "images - esd": (DIGITS, "matched", "dimum (images)", "esd"),
    "class - esd": (DIGITS, "matched", "dimum (class)", "esd"),
    "generated - selective amnesia": (DIGITS, "matched", "dimum (generated)", "selective-amnesia"),
    "generated - class": (DIGITS, "matched", "dimum (generated)", "dimum (class)"),
    "generated - erasediff": (DIGITS, "matched", "dimum (generated)", "erasediff"),
    "generated - munba": (DIGITS, "matched", "dimum (generated)", "munba"),
    "generated - random label": (DIGITS, "matched", "dimum (generated)", "random-label"),
    "salun - random label": (DIGITS, "matched", "salun", "random-label"),
    "sharpness-aware - random label": (DIGITS, "matched", "sharpness-aware", "random-label"),
    "60 steps: generated - esd": (DIGITS, "budget", "dimum (generated)", "esd"),
    "60 steps: noise - generated": (DIGITS, "budget", "dimum (noise)", "dimum (generated)"),
    "60 steps: class - esd": (DIGITS, "budget", "dimum (class)", "esd"),
    "60 steps: generated - random label": (DIGITS, "budget", "dimum (generated)", "random-label"),
    "60 steps: salun - random label": (DIGITS, "budget", "salun", "random-label"),
    "later: generated - esd": (LATER, "matched", "dimum (generated)", "esd"),
    "later: generated - selective amnesia": (LATER, "matched", "dimum (generated)", "selective-amnesia"),
    "later: generated - random label": (LATER, "matched", "dimum (generated)", "random-label"),
    "photographs: class - random label": (PHOTOGRAPHS, "matched", "dimum (class)", "random-label"),
    "photographs: class - selective amnesia": (PHOTOGRAPHS, "matched", "dimum (class)", "selective-amnesia"),
}


@lru_cache
def contests_of(source: str) -> dict:
    return {contest.budget: contest for contest in contests(results(source))}


@lru_cache
def comparisons_of(source: str, budget: str) -> pd.DataFrame:
    """All comparisons of the ranked methods of one contest, or of the methods in FRESH, in both directions, by (first, second)."""
    if source == FRESH:
        found = pairwise_comparisons(shares_after())
    elif source in (CONFIRM, AFTER):  # the plan names its family: whether a method ranks does not change it
        found = pairwise_comparisons(contests_of(CONFIRM)[budget].pivot("area" if source == CONFIRM else "recovered"))
    else:
        found = comparisons(contests_of(source)[budget])
    turned = found.rename(columns={"first": "second", "second": "first", "low": "high", "high": "low"})
    turned[["difference", "low", "high"]] *= -1
    return pd.concat([found, turned]).set_index(["first", "second"])


def effect(name: str) -> pd.Series:
    """difference, low, high, pairs, p, p (Holm) and verdict of one of EFFECTS; those of LATER are a family of their own."""
    source, budget, first, second = EFFECTS[name]
    found = comparisons_of(source, budget)
    if source == LATER:
        family = [(a, b) for other, _, a, b in EFFECTS.values() if other == LATER]
        found = judged(found.loc[family])
    return found.loc[(first, second)]


def in_words(name: str) -> str:
    found = effect(name)
    verdict = {"equivalent": f"equivalent within {MARGIN:g}", "distinguishable": f"distinguishable, by less than {MARGIN:g}"}
    verdict = verdict.get(found["verdict"], found["verdict"]) if is_small(found) else found["verdict"]
    return f"{difference(found)}, {verdict}"


def is_small(found: pd.Series) -> bool:
    """Whether the whole interval lies within MARGIN of no difference."""
    return max(-found["low"], found["high"]) <= MARGIN


def difference(found: pd.Series) -> str:
    return bracketed(*found[["difference", "low", "high"]])


def bracketed(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]".replace("-0.00", "0.00")


@lru_cache(maxsize=4)
def results(source: str) -> pd.DataFrame:
    """The rows of one file, or of several with + between their names."""
    return pd.concat([read_results(ROOT / "data" / "results" / f"{name}.parquet") for name in source.split("+")], ignore_index=True)


@lru_cache
def fresh_shares() -> pd.DataFrame:
    """Shares of samples that show the target: a row for each method and pair of target and seed, before and after the attack."""
    rows = pd.read_csv(ROOT / "data" / "results" / f"{FRESH}.csv")
    rows = rows[rows["sampler"] == "Euler ancestral"]
    return rows.pivot(index=["method", "target", "seed"], columns="when", values="share")


def shares_after() -> pd.DataFrame:
    """A row for each pair of target and seed, a column for each method."""
    return fresh_shares()["after"].unstack("method").drop(columns="retrained")


def shares(source: str, budget: str) -> str:
    """Methods and their control as a Markdown table, by what they show after the attack; the best defence first.

    ValueError for anything but the matched budget of FRESH: no other file holds such shares.
    """
    if (source, budget) != (FRESH, "matched"):
        raise ValueError(f"Shares are known of {FRESH}: matched, not of {source}: {budget}.")
    found = fresh_shares().groupby("method").agg(list)
    found = found.loc[found["after"].map(sum).sort_values().index]
    lines = ["| method | pairs | shows it before the attack | and after it |", "|---|---|---|---|"]
    for method, row in found.iterrows():
        cells = (f"{each.value:.2f} ± {(each.high - each.low) / 2:.2f}" for each in map(t_interval, row[["before", "after"]]))
        lines.append(f"| {method} | {len(row['after'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(source: str, budget: str) -> str:
    """Methods of one budget, or of "all", and below them the controls, as a Markdown table; the best defence of each first."""
    rows = report(results(source))
    chosen = pd.concat([rows[rows["budget"] == budget], rows[rows["budget"] == "none"]]) if budget != "all" else rows
    by = "auxiliary" if chosen["auxiliary"].nunique() > 1 else None
    columns = {**({by: "auxiliary set"} if by else {}), **COLUMNS}
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for _, row in chosen.iterrows()]
    return "\n".join(lines) + "\n"


def standings(source: str, budget: str) -> str:
    """Ranked methods on the pairs that they all have, with Holm's letters, as a Markdown table; the best defence first."""
    contest = contests_of(source)[budget]
    lines = ["| method | pairs | recovery area | behind the best | mean rank | group |", "|" + "---|" * 6]
    for _, row in leaderboard(contest).iterrows():
        place = f"{row['behind']:.2f} [{row['behind low']:.2f}, {row['behind high']:.2f}] | {row['rank']:.1f} | {row['group']}"
        place = f"not ranked: {row['note']} | |" if row["note"] else place
        area = f"{row['area']:.2f} [{row['area low']:.2f}, {row['area high']:.2f}]"
        lines.append(f"| {row['method']} | {row['pairs']} | {area} | {place} |")
    return "\n".join(lines) + "\n"


def expected(source: str, budget: str) -> str:
    """What the comment of a plan expected before it ran, beside what was found, as a Markdown table."""
    said = EXPECTATION.findall((ROOT / "plans" / f"{source}.yaml").read_text("utf-8"))
    lines = ["| first minus second | expected | found | p (Holm) | as expected? |", "|" + "---|" * 5]
    for first, second, what in said:
        found = comparisons_of(source, budget).loc[(first, second)]
        below = found["verdict"] == "distinguishable" and found["difference"] < 0
        came = below if what == "below 0" else is_small(found)
        answer = "yes" if came else "open" if found["verdict"] == "open" else "no"
        lines.append(f"| {first} minus {second} | {what} | {difference(found)} | {found['p (Holm)']:.3f} | {answer} |")
    return "\n".join(lines) + "\n"


def lead_table(source: str, length: str) -> str:
    """What each attack gets out of models that forgot so long, beyond a control, as a Markdown table: a value for each target.

    The leads of all methods over the retrained model, those of some over a control of their own, and what the controls show.
    """
    rows = pd.read_csv(ROOT / "data" / "results" / f"{source}.csv")
    rows = rows[(rows["length"] == (length if length == "matched" else f"{length} steps")) | rows["method"].isin(NEVER_KNEW)]
    usual = leads(rows).groupby(["attack", "method"], sort=False)["lead"].agg(list).unstack(sort=False)
    own = own_leads(rows).groupby(["attack", "method"], sort=False)["lead"].agg(list).unstack(sort=False)
    there = [name for name in NEVER_KNEW if name in set(rows["method"])]
    known = {name: rows[rows["method"] == name].groupby("attack")["share"].agg(list) for name in there}
    columns = {name: usual[name] for name in [*DEFENCES, *sorted(set(usual) - set(DEFENCES))] if name in usual}
    columns |= {f"{name}, over its own control": own[name] for name in own} | known
    lines = [f"| attack | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for attack in usual.index:
        values = [column.get(attack) for column in columns.values()]
        cells = [", ".join(f"{each:.2f}" for each in value) if isinstance(value, list) else "" for value in values]
        lines.append(f"| {attack} | {' | '.join(cells)} |".replace("-0.00", "0.00"))
    return "\n".join(lines) + "\n"


def pays(source: str, when: str) -> str:
    """What the other classes had lost, when "unlearned" or "attacked", as a Markdown table; least harm to near ones first."""
    lines = ["| method | near classes right | change | far classes right | change | lost most | passes |", "|" + "---|" * 7]
    rows = pd.read_csv(ROOT / "data" / "results" / f"{source}.csv", dtype={"asked": str, "drawn": str})  # a digit is a name
    found = bills(rows)[when].sort_values("near change", ascending=False)
    for method, row in found.iterrows():
        changes = {group: bracketed(*row[[f"{group} {end}" for end in ("change", "low", "high")]]) for group in ("near", "far")}
        cells = [f"{row[group]:.2f} | {change}" for group, change in changes.items()]
        lines.append(f"| {method} | {' | '.join(cells)} | {row['worst']} ({row['worst change']:.2f}) | {row['passes']:,.0f} |")
    return "\n".join(lines) + "\n"


def frontier_table(source: str, part: str) -> str:
    """The "search" for a defence as a Markdown table, or what became of its finalist on "new" digits."""
    rows = with_controls(pd.read_csv(ROOT / "data" / "results" / f"{source}.csv"))
    return "\n".join({"search": searched, "new": on_new_digits}[part](rows)) + "\n"


def searched(rows: pd.DataFrame) -> list[str]:
    """A line for each model that was searched, the cheapest first, and for the controls."""
    rows, names = rows[rows["target"] == SEARCHED], [name for name, _ in SHARP]
    shown = rows.pivot_table(index=["method", "length"], columns="attack", values="share")[names]
    columns = ["candidate", "steps", "price, %", "others right", *names, "largest lead"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for (method, length, *_), row in frontier(rows).sort_values("price", kind="stable").iterrows():
        shares = " | ".join(f"{share:.2f}" for share in shown.loc[(method, length)])
        verdict = f"{row['worst']:.2f}{' **holds**' if row['holds'] else ''}"
        lines.append(f"| {method} | {length.split()[0]} | {100 * row['price']:.1f} | {row['others']:.2f} | {shares} | {verdict} |")
    for control in BOTH:
        shares = " | ".join(f"{share:.2f}" for share in shown.loc[(control, "0 steps")])
        lines.append(f"| *{control}* | | | | {shares} | |")
    return lines


def on_new_digits(rows: pd.DataFrame) -> list[str]:
    """A line for each length of the finalist and each attack."""
    lines = ["| steps | attack | shows the digit | retrained | lead |", "|" + "---|" * 5]
    for _, row in confirmed(rows).iterrows():
        shares, lead = f"{row['share']:.2f} | {row['share retrained']:.2f}", bracketed(*row[["lead", "low", "high"]])
        lines.append(f"| {row['length'].split()[0]} | {row['attack']} | {shares} | {lead} |")
    return lines


def judges(source: str, _: str) -> str:
    """How often each of two judges sees what was asked for, and how often both say the same, as a Markdown table."""
    lines = ["| pictures | n | first judge | second judge | same verdict |", "|" + "---|" * 5]
    for row in pd.read_csv(ROOT / "data" / "results" / f"{source}.csv").to_dict("records"):
        shares = [bracketed(*(row[f"{which}{end}"] for end in ("", " low", " high"))) for which in ("first", "second", "agree")]
        lines.append(f"| {row['pictures']} | {row['n']:,} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def lengths(source: str, what: str) -> str:
    """What each method gives back ("recovered"), or how it draws the other classes ("RA"), by its length, as a Markdown table.

    A value for each seed, a semicolon between targets; in brackets, where UA is below LEAST_UA: it had not forgotten."""
    found = after_lengths(results(source)).sort_values(["target", "seed"])
    steps = sorted(set(found["steps"]) - {0})
    lines = [f"| method | {' | '.join(f'{each:g} steps' for each in steps)} |", "|" + "---|" * (len(steps) + 1)]
    for label in [*dict.fromkeys(found.loc[found["steps"] > 0, "label"]), "retrained"]:
        rows = [found[(found["label"] == label) & (found["steps"] == (0 if label == "retrained" else each))] for each in steps]
        lines.append(f"| {label} | {' | '.join(_of_targets(here, what) for here in rows)} |")
    return "\n".join(lines) + "\n"


def _of_targets(here: pd.DataFrame, what: str) -> str:
    said = [f"{v:.2f}" if ua >= LEAST_UA else f"({v:.2f})" for v, ua in here[[what, "UA"]].to_numpy()]
    return "; ".join(here.assign(said=said).groupby("target")["said"].agg(", ".join))


def rates(source: str, steps: str) -> str:
    """What each method gives back after so many steps of unlearning and, in brackets, how the other classes are drawn then, by the
    attacker's learning rate, as a Markdown table: a value for each target, and of several seeds the mean."""
    rows, lines = results(source), {}
    for rate, attacks in rows.groupby("attack_rate"):
        found = after_lengths(attacks)
        found = found[found["steps"].isin([0, int(steps)])]
        for label, each in found.groupby("label"):
            means = each.groupby("target")[["recovered", "RA after"]].mean()
            lines.setdefault(label, {})[rate] = ", ".join(f"{back:.2f} ({kept:.2f})" for back, kept in means.to_numpy())
    each_rate = sorted(rows["attack_rate"].unique())
    columns = ["method, by the attacker's rate", *(f"{rate:g}" for rate in each_rate)]
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for label in sorted(lines, key=lambda label: (label == "retrained", label)):
        head.append(f"| {label} | {' | '.join(lines[label].get(rate, '') for rate in each_rate)} |")
    return "\n".join(head) + "\n"


def targets(source: str, budget: str) -> str:
    """What each method gives back of each target at one budget ("matched", or a number of steps), and below it the controls, as a
    Markdown table: a value for each seed. Most: at any point of the curve after its first."""
    rows = results(source)
    rows = rows[rows["budget"].isin(["none", budget if budget == "matched" else f"{budget} steps"])]
    most = rows[rows["step"] > 0].groupby(["label", "target", "seed"])["target accuracy"].max().rename("most").reset_index()
    found = runs(rows).merge(most).sort_values("seed")
    names = list(rows["target"].unique())
    shown = {"steps": "steps", "UA": "UA", "RA": "others right", "most": "most", "recovered": "in the end"}
    lines = [f"| method | {' | '.join(f'{name}: {each}' for name in names for each in shown.values())} |"]
    lines.append("|---" * (1 + len(names) * len(shown)) + "|")
    for label in sorted(found["label"].unique(), key=lambda label: (label in CONTROLS, label)):
        chosen = [found[(found["label"] == label) & (found["target"] == name)] for name in names]
        cells = [", ".join(f"{v:g}" if each == "steps" else f"{v:.2f}" for v in here[each]) for here in chosen for each in shown]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def attacks(*_: str) -> str:
    """How long the attack of each results file was, at which learning rates and on how many pairs of target and seed, as a Markdown
    table; the longest last."""
    found = []
    for path in sorted((ROOT / "data" / "results").glob("*.parquet")):
        rows = results(path.stem)
        pairs = len(rows[["target", "seed"]].drop_duplicates())
        rates = ", ".join(f"{rate:g}" for rate in sorted(rows["attack_rate"].unique()))
        names, steps = ", ".join(rows["target"].unique()), rows["attack_steps"].max()
        found.append((steps, f"| {path.stem} | {names} | {pairs} | {steps:,} | {rates} |"))
    lines = ["| rows | targets | pairs | attack steps | its learning rates |", "|" + "---|" * 5]
    return "\n".join(lines + [line for _, line in sorted(found, key=lambda each: each[0])]) + "\n"


def rewritten(text: str) -> str:
    write = {
        "table": table, "leaderboard": standings, "shares": shares, "expected": expected, "leads": lead_table, "pays": pays,
        "frontier": frontier_table, "lengths": lengths, "rates": rates, "targets": targets, "judges": judges,
        "attacks": attacks,
    }
    text = BLOCK.sub(lambda match: match["head"] + write[match["kind"]](match["source"], match["budget"]) + match["tail"], text)
    return EFFECT.sub(lambda match: match["head"] + in_words(match["name"]) + match["tail"], text)


def main(arguments: list[str]) -> int:
    stale = []
    for name in PAGES:
        text = (ROOT / name).read_text("utf-8")
        new = rewritten(text)
        if new != text:
            stale.append(name)
            if arguments != ["--check"]:
                (ROOT / name).write_text(new, "utf-8")
    if arguments == ["--check"] and stale:
        print(f"The tables of {' and '.join(stale)} are not those of data/results: run python tools/tables.py.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
