"""No number of README's and CLAIMS' tables is typed by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import tables  # noqa: E402 (a script, not a package)


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_are_those_of_the_shipped_rows(name):
    text = (ROOT / name).read_text()
    assert tables.BLOCK.search(text) and tables.rewritten(text) == text


def test_a_changed_number_is_found():
    text = (ROOT / "README.md").read_text()
    assert tables.rewritten(text.replace("| dimum (class) | 6 |", "| dimum (class) | 7 |")) == text
    assert "| dimum (class) | 7 |" in text.replace("| dimum (class) | 6 |", "| dimum (class) | 7 |")
