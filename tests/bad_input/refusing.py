"""Bad input at every border: one error of the package, one sentence, which names what is wrong, and nothing left behind."""

from __future__ import annotations

import math
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import dimum_core
from dimum_core.errors import DimumError
from dimum_core.judges.classifier import Judge
from dimum_core.models.denoiser import Preset
from dimum_core.training import TrainConfig

PACKAGE = str(Path(dimum_core.__file__).parent)
NAN, INF = math.nan, math.inf
PRESET = Preset(
    "tiny", dataset="digits", image_size=8, patch_size=2, channels=(32, 64), layers=1, attention=(False, True), flip=False,
    training=TrainConfig(steps=2, batch_size=4, precision="fp32"),
)
MOVED = Judge(8, 1, ("top", "left", "checks"), (4,), (2,))  # knows the same classes by other numbers
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def refusal(call) -> str:
    """What a call is refused with: an error of the package, raised in the package, in one sentence."""
    with pytest.raises(DimumError) as caught:
        call()
    said = str(caught.value)
    innermost = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    assert innermost.startswith(PACKAGE), f"from deep inside {innermost}: {said}"
    assert "\n" not in said and 20 < len(said) < 600 and said.endswith("."), said
    return said


def outcome(call):
    """What a call returns and None, or None and what it is refused with."""
    try:
        return call(), None
    except DimumError as error:
        return None, str(error)


def refused(w, call, part: str) -> None:
    """The call is refused with a sentence that has this part, and leaves nothing behind."""
    assert part in refusal(lambda: call(w))
    assert not w.out.exists() or not list(w.out.iterdir())
