"""The campaign in one process, for choosing settings.

    python -m examples.carloan.simulate [--rounds 20] [--epsilon 5] [--seeds 3]

Nothing here protects anybody: all rows are in one place.
"""

from __future__ import annotations

from examples import campaign
from examples.carloan.split import STORY

if __name__ == "__main__":
    campaign.main(STORY)
