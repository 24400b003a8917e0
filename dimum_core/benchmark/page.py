"""The report as a page that needs nothing else, with its figures (PNG) and tables (CSV) in folders beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import unicodedata
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from ..files import write_atomically
from ..metrics import MARGIN, MetricError
from .contest import LEAST_RA, LEAST_UA, Contest, comparisons, contests, leaderboard, resolution
from .exchange import exchange_panel, has_strengths
from .figures import Panel, panels
from .plan import CONTROLS
from .results import NFES, PROVENANCE, ResultsError, check_provenance

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #666; --line: #d8d8d8; --blue: #0064a3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #a5a5a5; --line: #3a3d42; --blue: #6cb8f0; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
a { color: var(--blue); } p, figcaption, li { max-width: 46rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption, .soft { font-size: 0.85rem; color: var(--soft); } code { font-size: 0.8rem; overflow-wrap: anywhere; }
"""
HEADERS = {
    "method": "method", "group": "group", "area": "area under the recovery curve", "rank": "mean rank", "behind": "behind the best",
    "recovered": "recovered", "UA": "UA", "RA": "RA", "steps": "steps", "unlearning_nfes": "NFEs", "seconds": "seconds",
    "note": "",
}


def write_report(rows: pd.DataFrame, out: str | Path, title: str) -> Path:
    """Write report.html into the folder `out`, with figures/ and tables/; returns the page's path.

    Each figure names the rows that it is made from, and a CSV file of what it shows lies beside it. Results without provenance are
    refused.
    """
    check_provenance(rows)
    title = title.encode(errors="surrogateescape").decode(errors="replace")  # a path's name, in whatever encoding the shell has
    out, compared = Path(out), contests(rows)
    if not compared:
        raise ResultsError("No pair of target and seed is complete for two methods yet: let the plan run on, then report.")
    sections = [_section(rows, contest, out) for contest in compared]
    exchange = _exchange(rows, out) if has_strengths(rows) else ""
    links = "".join(f'<li><a href="#{slug(c.name)}">{escape(c.name)}</a></li>' for c in compared)
    links += "".join(f"<li>{escape(name)}: no pair of target and seed is complete</li>" for name in _not_compared(rows, compared))
    body = (
        f"<h1>{escape(title)}</h1>{_introduction(rows)}<nav aria-label='Contests'><ul>{links}</ul></nav>"
        + exchange + "".join(sections) + _origin(rows)
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
    write_atomically(out / "report.html", page.encode())
    return out / "report.html"


def _not_compared(rows: pd.DataFrame, compared: list[Contest]) -> list[str]:
    """Contests of which methods have no pair in common yet."""
    there = rows.loc[~rows["label"].isin(CONTROLS), ["budget", "auxiliary"]].drop_duplicates()
    names = sorted(f"{budget}, {auxiliary}" for budget, auxiliary in there.to_numpy())
    return [name for name in names if name not in {contest.name for contest in compared}]


def _exchange(rows: pd.DataFrame, out: Path) -> str:
    """What a longer unlearning buys: of models that were attacked after several numbers of its steps."""
    panel = exchange_panel(rows)
    shown = f"<p>No model had forgotten: after every length of unlearning its UA lay below {LEAST_UA:.2f}.</p>"
    if panel is not None:
        shown = f"<div class='figures'>{_figure(panel, 'all', out)}</div>"
    return f"<section id='exchange'><h2>What it costs to undo</h2>{shown}</section>"


def slug(name: str) -> str:
    """A name for files and anchors, in ASCII, which every system can write; letters of other scripts count by their hash."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    word = re.sub(r"[\W_]+", "-", plain.lower()).strip("-")
    return word if name.isascii() else f"{word}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}".strip("-")


def _introduction(rows: pd.DataFrame) -> str:
    targets, seeds = sorted(set(rows["target"])), sorted(set(rows["seed"]))
    chosen = "on this very seed, so that their luck is counted as strength: there is no other seed to choose on"
    if len(seeds) > 1:
        chosen = (
            "on the <em>other</em> seeds, so that their luck is not counted as strength (but on targets of which a method has one "
            "seed only, luck is counted for all)"
        )
    return (
        f"<p>{rows['cell'].nunique():,} attacks on {rows['model'].nunique():,} models; targets: {escape(', '.join(targets))}; "
        f"seeds: {', '.join(map(str, seeds))}; learning rates of the attacker: "
        f"{', '.join(f'{rate:g}' for rate in sorted(set(rows['attack_rate'])))}.</p>"
        "<p>The attacker finetunes the unlearned model on data without the target. For each method, target and seed they use the "
        f"setting that was best {chosen}. A method is ranked "
        f"unless, before the attack, its UA lies below {LEAST_UA:.2f}, or its RA below {LEAST_RA:.2f} of the original model's, by "
        "the whole of its interval.</p>"
    )


def _section(rows: pd.DataFrame, contest: Contest, out: Path) -> str:
    name, board = slug(contest.name), leaderboard(contest)
    tables = {"leaderboard": board, "comparisons": comparisons(contest)}
    for kind, table in tables.items():
        write_atomically(out / "tables" / f"{name}-{kind}.csv", table.to_csv(index=False, float_format="%.6g").encode())
    files = ", ".join(f'<a href="tables/{name}-{kind}.csv">{kind}</a>' for kind in tables)
    figures = "".join(_figure(panel, name, out) for panel in panels(rows, contest))
    aside = [f"{label} {why}" for label, why in contest.left_out.items()]
    aside += [f"target {target} with seed {seed}, which some methods lack" for target, seed in contest.pairs_left_out]
    left_out = "".join(f"<p class='soft'>Left out: {escape(each)}.</p>" for each in aside)
    return (
        f'<section id="{name}"><h2>Budget “{escape(contest.budget)}”; the attacker has: {escape(contest.auxiliary)}</h2>'
        f"<p>{escape(resolution_sentence(contest))}</p><p>{verdict_sentence(tables['comparisons'])}</p>{left_out}"
        f"<div class='wide' tabindex='0' role='region' aria-label='Leaderboard'>{_table(board)}</div>"
        f"<p class='soft'>In brackets: 95 % intervals. As CSV: {files}. Rows: <code>{escape(contest.where)}</code></p>"
        f"<div class='figures'>{figures}</div></section>"
    )


def resolution_sentence(contest: Contest) -> str:
    """How small a difference this contest can see, in words."""
    try:
        power = resolution(contest)
    except MetricError as error:
        return str(error)
    text = (
        f"{power['pairs']} pairs of target and seed. A typical difference between two methods varies by {power['deviation']:.2f} "
        "(standard deviation) from pair to pair, so that one planned comparison detects a difference of "
        f"{power['least difference']:.2f} in area with 80 % power (paired t-test; with few pairs, the exact test of the letters "
        "needs more)."
    )
    if power["least p (Holm)"] > 0.05:
        text += (
            f" For all {power['comparisons']} comparisons at once so few pairs are not enough, whatever the differences: the "
            f"smallest possible p, corrected by Holm, is {power['least p (Holm)']:.2g}. More seeds are needed before the letters "
            "say anything."
        )
    return text


def verdict_sentence(compared: pd.DataFrame) -> str:
    """What the comparisons of a contest came to, in words."""
    count = compared["verdict"].value_counts()
    return (
        f"Of {len(compared)} comparisons {count.get('distinguishable', 0)} are distinguishable after Holm's correction, "
        f"{count.get('equivalent', 0)} equivalent within {MARGIN:g} of area, and {count.get('open', 0)} open."
    )


def _figure(panel: Panel, name: str, out: Path) -> str:
    buffer = io.BytesIO()
    panel.figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    plt.close(panel.figure)
    stem = f"{name}-{panel.name}"
    write_atomically(out / "figures" / f"{stem}.png", buffer.getvalue())
    write_atomically(out / "figures" / f"{stem}.csv", panel.data.to_csv(index=False, float_format="%.6g").encode())
    picture = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(panel.title)}. {escape(panel.alt)}" src="data:image/png;base64,{picture}"><figcaption>'
        f"{escape(panel.caption)} Rows: <code>{escape(panel.where)}</code>; <a href='figures/{stem}.csv'>what is drawn, as CSV</a>."
        "</figcaption></figure>"
    )


def _table(board: pd.DataFrame) -> str:
    lines = []
    for _, row in board.iterrows():
        cells = {key: escape(str(row[key])) for key in ("method", "group", "note")}
        for key in ("area", "behind", "UA", "RA", "recovered"):
            known = key in board and not pd.isna(row[key])
            cells[key] = f"{row[key]:.2f} [{row[key + ' low']:.2f}, {row[key + ' high']:.2f}]" if known else ""
        for key, form in (("rank", ".1f"), ("steps", ".0f"), ("seconds", ".0f"), ("unlearning_nfes", ",.0f")):
            cells[key] = "" if pd.isna(row[key]) else format(float(row[key]), form)
        lines.append("<tr>" + "".join(f"<td>{cells[key]}</td>" for key in HEADERS) + "</tr>")
    heads = "".join(f"<th scope='col'>{title}</th>" for title in HEADERS.values())
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _origin(rows: pd.DataFrame) -> str:
    """Where the results come from: a line for each machine and version, and what they cost."""
    attacks = rows.sort_values("step").groupby("cell").last()
    count = attacks.groupby(PROVENANCE).agg(attacks=("seconds", "size"), hours=("seconds", lambda s: s.sum() / 3600))
    models = attacks.groupby("model")[["unlearning_seconds", "unlearning_nfes"]].first().sum(min_count=1)
    cost = ", ".join(
        f"{value:,.0f} {name}" for name, value in (
            ("network evaluations of unlearning", models["unlearning_nfes"]),
            *((f"of {name.split('_')[0]}", attacks[name].sum(min_count=1)) for name in NFES[1:]),
            ("seconds of unlearning", models["unlearning_seconds"]), ("seconds of attacks", attacks["seconds"].sum()),
        ) if not pd.isna(value)
    )
    table = count.reset_index().to_html(index=False, border=0, float_format="%.1f", escape=True)
    return (
        f"<section id='origin'><h2>Where this comes from</h2><p>{cost}.</p><div class='wide' tabindex='0' role='region' "
        f"aria-label='Provenance'>{table}</div></section>"
    )
