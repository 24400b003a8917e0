"""Judges: what a sample shows, how they are trained, and how their verdicts are counted."""
