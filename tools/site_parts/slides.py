"""Slides of a chapter for teaching: a slide a section, with its first paragraphs, formulas, tables and question, and a slide for
each picture, table or widget that a cell shows.

One page, no scripts from elsewhere; arrow keys or scrolling go on, and printing gives a slide a page.
"""

from __future__ import annotations

import hashlib
import re

from reading import Chapter, render

PARAGRAPH = re.compile(r"<(p|ol|ul|table)>.*?</\1>|<math[^>]*display=\"block\".*?</math>", re.DOTALL)
QUESTION = re.compile(r"\*\*Before you[^*]*\*\*.*")


def slides(chapter: Chapter) -> list[str]:
    """The HTML of each slide: the title, then a slide a picture or section."""
    found: list[str] = []
    for cell in chapter.cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"(?m)^(?=#{1,2} )", cell.source):
                if part.startswith("## Where to read on"):
                    return found
                found += [text for text in [_text_slide(part)] if text]
        elif not cell.source.startswith("# @title"):
            found += [f'<div class="picture">{body}</div>' for body in _shown(cell)]
    return found


def _text_slide(part: str) -> str:
    question = QUESTION.search(part)
    asked = f'<div class="question">{render([_markdown(question[0])])}</div>' if question else ""
    heading, _, rest = part.partition("\n") if part.startswith("#") else ("", "", part)
    body = render([_markdown(QUESTION.sub("", rest))])
    shown = [match[0] for k, match in enumerate(PARAGRAPH.finditer(body))
             if (heading and k < 3) or 'display="block"' in match[0] or match[0].startswith("<table")]
    return (render([_markdown(heading)]) if heading else "") + "".join(shown) + asked


def _shown(cell) -> list[str]:
    """What a cell shows, without its code: pictures with their captions, tables, widgets."""
    from nbformat.v4 import new_code_cell

    bodies = []
    outputs = cell.get("outputs", [])
    for k, output in enumerate(outputs):
        if {"image/png", "text/html"} & output.get("data", {}).keys():
            caption = outputs[k + 1:k + 2] if k + 1 < len(outputs) and "text/markdown" in outputs[k + 1].get("data", {}) else []
            bodies.append(re.sub(r'(?s)<div class="input">.*?(?=<div class="output_wrapper">)', "",
                                 render([new_code_cell("", outputs=[output, *caption], id=f"{cell.id}-{k}")])))
    return bodies


def _markdown(text: str):
    from nbformat.v4 import new_markdown_cell

    return new_markdown_cell(text, id=hashlib.blake2b(text.encode(), digest_size=4).hexdigest())  # the same in every build
