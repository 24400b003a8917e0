"""The method in docs/usage.md, as a file outside the package: unlearned, attacked and measured with no other change."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from dimum_core.cli import main
from dimum_core.unlearning import METHODS

USAGE = (Path(__file__).parent.parent / "docs" / "usage.md").read_text()


def test_the_method_of_the_page_goes_all_the_way(tmp_path, capsys):
    source = next(block for block in re.findall(r"```python\n(.*?)```", USAGE, re.S) if "@register" in block)
    assert len(source.strip().splitlines()) <= 22
    plugin = tmp_path / "to_null.py"
    plugin.write_text(source)
    forgot, attacked = tmp_path / "forgot", tmp_path / "attacked"
    unlearning = f"unlearn digits --plugin {plugin} --method to-null --set weight=3.0 --target 3 --steps 30 --learning-rate 3e-4"
    try:
        assert main([*unlearning.split(), "--out", str(forgot)]) == 0
    finally:
        METHODS.pop("to-null", None)
    assert main(f"relearn {forgot} --target 3 --steps 4 --out {attacked}".split()) == 0
    curve = pd.read_csv(attacked / "curve.csv")
    assert curve["step"].tolist() == [0, 1, 2, 3, 4] and curve["target accuracy"].iloc[0] < 0.5
    assert main(f"evaluate {attacked} --target 3 --count 2 --steps 4".split()) == 0
    assert "what the label 3 draws" in capsys.readouterr().out


def test_what_is_no_method_is_refused(tmp_path, capsys):
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("x = 1\n")
    broken.write_text("1 / 0\n")
    missing = tmp_path / "none.py"
    for plugin, message in ((empty, "registers no method"), (broken, "ZeroDivisionError"), (missing, "There is no file")):
        assert main(f"unlearn digits --plugin {plugin} --method x --target 3 --out {tmp_path / 'o'}".split()) == 1
        assert message in capsys.readouterr().err
