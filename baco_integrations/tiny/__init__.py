"""A small pair trained on a world of its own, so that everything runs without a download."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
