"""Words of a page that lead somewhere: the chapters that it names, and the first mention of a term of the glossary."""

from __future__ import annotations

import html
import re

TERM = re.compile(r"<p(?: id=\"[^\"]*\")?><strong>([^<]+)</strong>(.*?)</p>", re.DOTALL)
CHAPTERS = re.compile(r"\b[Cc]hapters? \d\d(?:(?:, | and | or | to |, and )\d\d)*\b")
SILENT = {"a", "button", "code", "h1", "h2", "h3", "h4", "label", "math", "pre", "script", "select", "style", "summary", "svg",
          "table"}  # the elements whose text is left alone


def slug(term: str) -> str:
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def with_anchors(body: str) -> str:
    """The glossary, with an anchor at each entry."""
    return TERM.sub(lambda m: m[0].replace("<p>", f'<p id="{slug(m[1])}">', 1), body)


def terms(body: str) -> dict[str, tuple[str, str]]:
    """Term -> (anchor, what it means), of the glossary's page. Short everyday words, such as pass or card, are left out: a page
    uses them in their plain sense too."""
    found = {}
    for match in TERM.finditer(body):
        told = re.sub(r"\s+", " ", re.sub(r"<math\b.*?</math>", "…", match[2], flags=re.DOTALL))
        told = html.unescape(re.sub(r"<[^>]+>", "", told)).strip()
        for term in match[1].split(", "):
            if " " in term or len(term) >= 10 or re.search(r"[A-Z]", term):
                found[html.unescape(term)] = slug(match[1]), told
    return found


class Linker:
    """Links the words of a page. numbers: number -> stem of each chapter; words: what `terms` gives."""

    def __init__(self, numbers: dict[str, str], words: dict[str, tuple[str, str]], glossary: str = "glossary.html"):
        self.numbers, self.words, self.glossary = numbers, words, glossary
        longest = sorted(words, key=len, reverse=True)
        self.term = re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, longest)) + r")(?![\w-])") if words else None

    def __call__(self, body: str, here: str = "") -> str:
        """The page with its links. What is a link, code, a formula, a heading or a table already, is left alone."""
        seen: set[str] = set()
        silent, found = [], []
        for piece in re.split(r"(<!--.*?-->|<[^>]+>)", body, flags=re.DOTALL):
            tag = re.match(r"<(/?)([A-Za-z]\w*)", piece)
            if tag and tag[2].lower() in SILENT and not piece.endswith("/>"):
                if tag[1]:
                    silent = silent[:-1]
                else:
                    silent.append(tag[2])
            found.append(piece if piece.startswith("<") or silent else self._text(piece, here, seen))
        return "".join(found)

    def _text(self, text: str, here: str, seen: set[str]) -> str:
        """Terms first: a link to a chapter holds no term, but the other way round the pattern would look into tags."""
        pieces = re.split(f"({CHAPTERS.pattern})", text)
        return "".join(self._chapters(piece, here) if k % 2 else self._terms(piece, seen) for k, piece in enumerate(pieces))

    def _chapters(self, text: str, here: str) -> str:
        def link(match: re.Match) -> str:
            stem = self.numbers.get(match[0])
            return f'<a href="{stem}.html">{match[0]}</a>' if stem and stem != here else match[0]

        return re.sub(r"\d\d", link, text)

    def _terms(self, text: str, seen: set[str]) -> str:
        def link(match: re.Match) -> str:
            anchor, told = self.words[match[0]]
            if anchor in seen:
                return match[0]
            seen.add(anchor)
            return f'<a class="term" href="{self.glossary}#{anchor}" title="{html.escape(told)}">{match[0]}</a>'

        return self.term.sub(link, text) if self.term else text
