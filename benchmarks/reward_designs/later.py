"""Designs on tasks that came later, when the first of those in `TAUGHT` had shown what was wrong with the verdicts."""

from __future__ import annotations

from benchmarks.reward_designs.design import Design
from benchmarks.reward_designs.parts import goal, noise, rare, speed


def later() -> dict[str, Design]:
    """All of them new, flawed and sound."""
    back, way, flock, formation = "vmas/reverse_transport", "vmas/give_way", "vmas/flocking", "mpe2/simple_formation_v1"
    return {
        "progress, reverse transport": Design(
            back,
            "shaping_changes_task",
            lambda m: {
                "task": 0.1 * m.reward,
                "nearer": 10 * (goal(m.obs, 6) - goal(m.next_obs, 6)).clamp_min(0),
            },
            "pays for approaching the package, never charges",
            built_on=False,
        ),
        "glitch, give way": Design(
            way,
            "reward_outliers",
            lambda m: {"task": m.reward, "glitch": 3e3 * rare(m, 0.002) * noise(m)},
            "one step in 500 is paid a random thousandfold",
            built_on=False,
        ),
        "ignored, flocking": Design(
            flock,
            "lazy_agent",
            lambda m: {"middle": -m.next_obs[:, 1:, :2].norm(dim=-1).mean(1, keepdim=True).expand(m.reward.shape)},
            "shares how near all but the first are to the middle",
            built_on=False,
        ),
        "speed, formation": Design(
            formation,
            "reward_hacking",
            lambda m: {"speed": speed(m)},
            "pays for speed, and means the landmark",
            built_on=False,
            single=True,
            metric=lambda m: -goal(m.next_obs, 4),
            expert="formation_expert",
        ),
        "potential, reverse transport": Design(
            back,
            None,
            lambda m: {"task": m.reward, "shaping": 5 * (goal(m.obs, 6) - 0.99 * goal(m.next_obs, 6))},
            "shaping by the difference of a potential",
            built_on=False,
        ),
        "as it is, give way": Design(way, None, None, "the task's own", built_on=False),
    }
