"""The tasks that designs are on."""

from __future__ import annotations

SPREAD, LISTEN, BALANCE, WALK = (
    "particle/simple_spread_v3",
    "particle/simple_speaker_listener_v4",
    "vmas/balance",
    "sisl/multiwalker_v9",
)
ADVERSARY, REFERENCE, TAG, NAVIGATION, DISPERSION, TRANSPORT, SIMPLE, WHEEL = (
    "particle/simple_adversary_v3",
    "particle/simple_reference_v3",
    "particle/simple_tag_v3",
    "vmas/navigation",
    "vmas/dispersion",
    "vmas/transport",
    "mpe2/simple_v3",
    "vmas/wheel",
)
PLAYED_SINCE = (WHEEL,)  # new until one of its designs showed that a verdict was wrong, which was mended by it
