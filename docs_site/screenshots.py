"""`python -m docs_site.screenshots`: the pictures of the Prefect UI in the documents, taken by the tests that use it.

The tests start a federation, drive a browser through its UI, and keep what it shows. Needs chromium and chromedriver.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
TAKEN_BY = ("tests/e2e/test_ui.py", "tests/e2e/test_ui_campaign.py", "tests/e2e/test_ui_form.py")
SHOWN = {"campaign-form": 2400, "form-filled-in": 1900, "schedule": 700, "round": 1000, "report": 1600, "campaign": 700}
"""Each picture, and how many of its upper pixels are shown."""
WIDTH = 1000


def main() -> None:
    """Take all pictures anew; nothing is written if a test fails."""
    with tempfile.TemporaryDirectory(prefix="fedround-screenshots-") as taken:
        tests = subprocess.run([sys.executable, "-m", "pytest", "-q", *TAKEN_BY], cwd=ROOT, check=False,
                               env=os.environ | {"FEDROUND_SCREENSHOTS": taken, "FEDROUND_REQUIRE_BROWSER": "1"})
        if tests.returncode != 0:
            sys.exit(tests.returncode)
        FOLDER.mkdir(exist_ok=True)
        for name, height in SHOWN.items():
            shrink(Path(taken) / f"{name}.png", FOLDER / f"{name}.png", height)


def shrink(source: Path, target: Path, height: int) -> None:
    """The upper part of a picture, narrower and with few colours: some tens of kilobytes."""
    with Image.open(source) as picture:
        upper = picture.convert("RGB").crop((0, 0, picture.width, min(height, picture.height)))
    small = upper.resize((WIDTH, round(upper.height * WIDTH / upper.width)), Image.Resampling.LANCZOS)
    small.quantize(48).save(target, optimize=True)


if __name__ == "__main__":
    main()
