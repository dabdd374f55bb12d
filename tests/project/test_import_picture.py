"""The picture of ARCHITECTURE.md is that of today's imports."""

import subprocess
import sys

from places import ROOT


def test_picture_is_what_the_script_draws_now():
    code = "import draw_imports; print(draw_imports.picture(), end='')"
    drawn = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    stored = (ROOT / "docs" / "imports.svg").read_text()
    assert drawn == stored, "draw it again: python scripts/draw_imports.py"
