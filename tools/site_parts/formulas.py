"""Formulas, drawn by KaTeX (beside, katex/) while the site is built, so that pages need no script and no network.

In the text they are MathML, which the search, the links and the slides know; `typeset` adds what is seen to a finished page.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path

import quickjs

KATEX = Path(__file__).resolve().parent / "katex"
LATEX = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?!\w)", re.DOTALL)
MATHML = re.compile(r'<math data-tex="(?P<latex>[^"]*)"(?P<block>[^>]*display="block")?.*?</math>', re.DOTALL)
UNTOLD = re.compile(r"<(script|style|pre|code|textarea|svg)\b.*?</\1>|<[^>]+>", re.DOTALL)  # what no reader takes for prose


@cache
def _katex():
    context = quickjs.Context()
    context.eval((KATEX / "katex.min.js").read_text(encoding="utf-8"))
    context.eval("const draw = (latex, options) => JSON.stringify(katex.renderToString(latex, JSON.parse(options)));"
                 "globalThis.draw = draw;")
    return context.get("draw")


@cache
def drawn(latex: str, block: bool, output: str) -> str:
    """What KaTeX makes of a formula: output "mathml" or "html". One that it does not understand is refused, since readers would
    see its commands."""
    try:
        made = json.loads(_katex()(latex, json.dumps({"displayMode": block, "output": output, "strict": "error"})))
    except quickjs.JSException as error:
        reason = str(error).split("\n")[0].removeprefix("ParseError: KaTeX parse error: ")
        raise SystemExit(f"The site cannot draw the formula ${latex}$ ({reason}): write it another way.") from error
    return made.replace("\n", " ")


def with_mathml(markdown: str) -> str:
    """LaTeX between dollars as MathML that remembers it; code is left alone."""

    def draw(match: re.Match) -> str:
        if match["code"]:
            return match["code"]
        latex, block = (match["block"] or match["inline"]).strip(), bool(match["block"])
        made = re.search(r"<math.*</math>", drawn(latex, block, "mathml"), re.DOTALL)[0]
        made = re.sub(r"</?semantics>|<annotation.*?</annotation>", "", made)
        kept = html.escape(re.sub(r"\s+", " ", latex)).replace("|", "&#124;")  # a table would split there
        return made.replace("<math ", f'<math data-tex="{kept}" ', 1)

    return LATEX.sub(draw, markdown)


def typeset(page: str) -> str:
    """A page whose formulas are seen as KaTeX draws them, and heard and copied as MathML."""

    def draw(match: re.Match) -> str:
        block = bool(match["block"])
        seen = drawn(html.unescape(match["latex"]), block, "html")
        heard = '<span class="katex-mathml">' + re.sub(r' data-tex="[^"]*"', "", match[0]) + "</span>"
        return seen.replace('<span class="katex">', f'<span class="katex">{heard}', 1)

    return MATHML.sub(draw, page)


def check_formulas(page: str, name: str) -> None:
    """No command of LaTeX stands on a page as it was written."""
    if left := re.search(r"\\[A-Za-z]{2,}|\$\$", UNTOLD.sub(" ", page)):
        raise SystemExit(f"{name}: {left[0]} would stand on the page as it was written.")
