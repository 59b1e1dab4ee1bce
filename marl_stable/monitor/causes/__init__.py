"""What can be wrong, one function per cause; importing this package registers them all in `case.CAUSES`."""

from importlib import import_module

ROOMS: tuple[str, ...] = (
    "environment",
    "data",
    "rewards",
    "terms",
    "incentives",
    "shifts",
    "actions",
    "critic",
    "replay",
    "team",
    "rates",
    "gradients",
    "networks",
    "ppo",
)

for room in ROOMS:
    import_module(f"{__name__}.{room}")
