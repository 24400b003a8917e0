"""What a cell printed for the one who waited, and nobody else needs to see."""

from __future__ import annotations

import re


def is_progress(output) -> bool:
    """Is this output of a cell a progress bar: in a terminal's way, or as a widget?"""
    if output.output_type == "stream":
        return output.name == "stderr"
    data = output.get("data", {})
    bar = re.search(r"%\||\[\d\d:\d\d", data.get("text/plain", ""))  # 40%|..., or, where the end is unknown, 3it [00:01, ...]
    return "application/vnd.jupyter.widget-view+json" in data and bar is not None
