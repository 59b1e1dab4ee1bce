"""Sound environments, and each of them with one planted bug of the kind that people really write, in a file per kind.

`PLANTED` says which id the doctor must give each bug, and where. Nothing else may be found in it, and nothing at all in
the sound ones.
"""

from __future__ import annotations

from pathlib import Path

from tests.investigate.doctor.planted import (
    actions,
    ends,
    masks,
    observations,
    presence,
    rewards,
    seeding,
    single,
    spaces,
    turns,
)
from tests.investigate.doctor.planted.expected import Planted

KINDS = (observations, rewards, ends, presence, spaces, actions, seeding, masks, single, turns)
PLANTED: Planted = {
    f"{Path(str(kind.__file__)).name}:{name}": told for kind in KINDS for name, told in kind.PLANTED.items()
}
"""By file and class, as `observations.py:NaNObservation`."""
