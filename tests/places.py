"""Where tests find the project and its golden values."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDEN_FOLDER = ROOT / "tests" / "golden"
