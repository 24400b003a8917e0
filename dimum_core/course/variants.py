"""A task of each student's own, so that another's answer, or one found on the web, does not fit."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import identity

DIGITS = tuple("0123456789")
PHOTOGRAPHS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Variant:
    """What a student works on: a digit and a class of photographs to forget, a seed of training, a seed of the samples."""

    student: str
    digit: str
    photograph: str
    seed: int
    sample_seed: int


def variant(student: str) -> Variant:
    """The variant that follows from a student's id alone, on every machine; capitals and outer spaces do not matter."""
    digit, photograph, seed, samples = (identity(student, purpose) for purpose in ("digit", "photograph", "seed", "samples"))
    return Variant(student, DIGITS[digit % 10], PHOTOGRAPHS[photograph % 10], seed % 100_000, samples % 100_000)
