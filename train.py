"""``python train.py ...`` is ``marl-stable train ...``, for a checkout without an install of the command."""

from __future__ import annotations

import sys

from marl_stable.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
