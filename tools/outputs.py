"""What a cell printed for the one who waited, and nobody else needs to see."""

from __future__ import annotations


def is_progress(output) -> bool:
    """Is this output of a cell a progress bar: in a terminal's way, or as a widget?"""
    if output.output_type == "stream":
        return output.name == "stderr"
    data = output.get("data", {})
    return "application/vnd.jupyter.widget-view+json" in data and "%|" in data.get("text/plain", "")
