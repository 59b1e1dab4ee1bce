"""Pages asked of the system, counted in processes of their own: the heap's settings hold for all of one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from marl_stable.allocation import OWN_SETTINGS

PROGRAM = """
import resource
from marl_stable.allocation import keep_freed_memory

def minibatch():
    blocks = [b"x" * 20_000_000 for _ in range(4)]

kept = keep_freed_memory()
for _ in range(3):
    minibatch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    minibatch()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told")


def played(**settings: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and pages asked for by ten minibatches of 80 MB after the first ones."""
    env = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS} | settings
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return kept == "True", int(pages)


def test_what_was_freed_is_used_again_without_asking_for_it():
    kept, pages = played()
    assert kept
    assert pages < 100


@pytest.mark.parametrize("name", OWN_SETTINGS[:2])
def test_who_has_settings_of_their_own_keeps_them(name: str):
    kept, pages = played(**{name: "131072"})
    assert not kept
    assert pages > 10 * 4 * 20_000_000 / 2**21 / 2  # the same program, had nothing been done; pages have 2 MiB at most
