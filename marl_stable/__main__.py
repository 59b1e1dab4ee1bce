"""``python -m marl_stable ...`` is ``marl-stable ...``."""

from __future__ import annotations

import sys

from marl_stable.cli import main

if __name__ == "__main__":
    sys.exit(main())
