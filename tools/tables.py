"""Tables of docs/results.md and CLAIMS.md, from the shipped results: no number is typed by hand.

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

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/results.md", "CLAIMS.md")
BLOCK = re.compile(
    r"(?P<head><!-- (?P<kind>table|leaderboard) (?P<source>[\w+-]+): (?P<budget>\w+) -->\n)"
    r".*?(?P<tail><!-- end of table -->)", re.DOTALL,
)
COLUMNS = {
    "method": "method", "runs": "runs", "steps": "steps", "UA": "UA", "RA": "RA", "distance": "distance", "area": "recovery area",
    "recovered": "accuracy on the target after the attack", "half recovery": "steps to half recovery",
}


@lru_cache(maxsize=4)
def results(source: str) -> pd.DataFrame:
    """The rows of one file, or of several with + between their names."""
    return pd.concat([read_results(ROOT / "data" / "results" / f"{name}.parquet") for name in source.split("+")], ignore_index=True)


def table(source: str, budget: str) -> str:
    """Methods of one budget, and below them the controls, as a Markdown table; the best defence first."""
    rows = report(results(source))
    chosen = pd.concat([rows[rows["budget"] == budget], rows[rows["budget"] == "none"]])
    by = "auxiliary" if chosen["auxiliary"].nunique() > 1 else None
    columns = {**({by: "auxiliary set"} if by else {}), **COLUMNS}
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for _, row in chosen.iterrows()]
    return "\n".join(lines) + "\n"


def standings(source: str, budget: str) -> str:
    """Ranked methods on the pairs that they all have, with Holm's letters, as a Markdown table; the best defence first."""
    contest, = (c for c in contests(results(source)) if c.budget == budget)
    lines = ["| method | pairs | recovery area | behind the best | mean rank | group |", "|" + "---|" * 6]
    for _, row in leaderboard(contest).iterrows():
        place = f"{row['behind']:.2f} [{row['behind low']:.2f}, {row['behind high']:.2f}] | {row['rank']:.1f} | {row['group']}"
        place = f"not ranked: {row['note']} | |" if row["note"] else place
        area = f"{row['area']:.2f} [{row['area low']:.2f}, {row['area high']:.2f}]"
        lines.append(f"| {row['method']} | {row['pairs']} | {area} | {place} |")
    return "\n".join(lines) + "\n"


def rewritten(text: str) -> str:
    write = {"table": table, "leaderboard": standings}
    return BLOCK.sub(lambda match: match["head"] + write[match["kind"]](match["source"], match["budget"]) + match["tail"], text)


def main(arguments: list[str]) -> int:
    stale = []
    for name in PAGES:
        text = (ROOT / name).read_text()
        new = rewritten(text)
        if new != text:
            stale.append(name)
            if arguments != ["--check"]:
                (ROOT / name).write_text(new)
    if arguments == ["--check"] and stale:
        print(f"The tables of {' and '.join(stale)} are not those of data/results: run python tools/tables.py.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
