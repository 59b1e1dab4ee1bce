"""Designs on tasks that nobody had played until all other verdicts were right.

Two drafts were given up for saying something else than was meant: in vmas/passage an agent that is not paid for still
pushes the others, and all of them begin so near to each other that a charge for nearness never varies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.reward_designs.design import Design, Moment
from benchmarks.reward_designs.parts import goal, moves, noise, rare, speed

PUSH, LINE, TREASURE, PASSAGE, DROPOUT, SAMPLING, TRAJECTORY = (
    "particle/simple_push_v3",
    "particle/simple_line_v1",
    "particle/collect_treasure_v1",
    "vmas/passage",
    "vmas/dropout",
    "vmas/sampling",
    "vmas/ball_trajectory",
)


def apart(m: Moment, at: int) -> Tensor:
    """`(E, A)` mean distance to the others, whose places stand in two features."""
    places = m.next_obs[..., at : at + 2]
    found: Tensor = torch.cdist(places, places).sum(-1) / (places.shape[1] - 1)
    return found


def heading(m: Moment) -> Tensor:
    """`(E, A)` cosine between velocity and the way to the goal, of dropout."""
    velocity, way = m.obs[..., 2:4], m.obs[..., 4:6]
    cosine: Tensor = (velocity * way).sum(-1) / (velocity.norm(dim=-1) * way.norm(dim=-1))
    return cosine


def newest() -> dict[str, Design]:
    """All of them new, flawed and sound."""
    return {
        "offset, push": Design(PUSH, "reward_offset", lambda m: {"task": m.reward + 400}, "+ 400", built_on=False),
        "glitch, push": Design(
            PUSH,
            "reward_outliers",
            lambda m: {"task": m.reward - 5e3 * rare(m, 0.001)},
            "one step in 1,000 is charged 5,000 (a sensor that reads its maximum)",
            built_on=False,
        ),
        "huge, line": Design(
            LINE, "reward_scale_too_large", lambda m: {"task": 1e5 * m.reward}, "x 1e5", built_on=False
        ),
        "tiny, ball trajectory": Design(
            TRAJECTORY, "reward_scale_too_small", lambda m: {"task": 1e-6 * m.reward}, "x 1e-6", built_on=False
        ),
        "weather, line": Design(
            LINE,
            "reward_uncontrollable",
            lambda m: {"line": m.reward, "weather": 3 * noise(m)},
            "a term that is noise",
            built_on=False,
        ),
        "energy, dropout": Design(
            DROPOUT,
            "constant_action_is_optimal",
            None,
            "the task's own, with energy dearer than the goal is worth",
            built_on=False,
            kwargs={"energy_coeff": 1.0},
        ),
        "punished, line": Design(
            LINE,
            "reward_term_dominates",
            lambda m: {"line": 0.003 * m.reward, "near": -(apart(m, at=2) < 0.7).float()},
            "punishment for nearness beside which the goal is nothing (Multiagent-RL #28)",
            built_on=False,
        ),
        "together and apart, sampling": Design(
            SAMPLING,
            "reward_terms_conflict",
            lambda m: {"together": -apart(m, at=0), "apart": 0.8 * apart(m, at=0) + 0.01 * m.reward},
            "one term draws the agents together, another apart",
            built_on=False,
        ),
        "progress, dropout": Design(
            DROPOUT,
            "shaping_changes_task",
            lambda m: {"task": m.reward, "nearer": 10 * (goal(m.obs, 4) - goal(m.next_obs, 4)).clamp_min(0)},
            "pays for approaching, never charges for leaving",
            built_on=False,
        ),
        "cosine, dropout": Design(
            DROPOUT,
            "reward_non_finite",
            lambda m: {"task": m.reward, "heading": 0.1 * heading(m)},
            "the cosine of a heading, which is 0/0 for who stands still",
            built_on=False,
        ),
        "ignored, line": Design(
            LINE,
            "lazy_agent",
            lambda m: {"ends": -goal(m.next_obs, 4)[:, 1:].mean(1, keepdim=True).expand(m.reward.shape)},
            "shares how near all but the first are to an end",
            built_on=False,
        ),
        "all arrived, passage": Design(
            PASSAGE,
            "no_reward_signal",
            lambda m: {"home": (goal(m.next_obs, 4) < 0.01).all(1, keepdim=True).float().expand(m.reward.shape)},
            "pays only when all five stand on their goals (BenchMARL #251: too hard to come upon)",
            built_on=False,
        ),
        "way out, line": Design(
            "mpe2/simple_line_v1",
            "episode_length_incentive",
            lambda m: {"far": -goal(m.next_obs, 4)},
            "steps cost, and whoever leaves the field ends the episode for nothing",
            built_on=False,
            single=True,
            ends=lambda m: (m.next_obs[..., 2:4].abs() > 1.3).any(-1).any(-1),
        ),
        "speed, line": Design(
            "mpe2/simple_line_v1",
            "reward_hacking",
            lambda m: {"speed": speed(m)},
            "pays for speed, and means the line's first end",
            built_on=False,
            single=True,
            metric=lambda m: -goal(m.next_obs, 4),
            expert="formation_expert",
        ),
        "as it is, push": Design(PUSH, None, None, "the task's own", built_on=False),
        "as it is, line": Design(LINE, None, None, "the task's own", built_on=False),
        "as it is, treasure": Design(TREASURE, None, None, "the task's own", built_on=False),
        "as it is, passage": Design(PASSAGE, None, None, "the task's own", built_on=False),
        "as it is, sampling": Design(SAMPLING, None, None, "the task's own", built_on=False),
        "potential, dropout": Design(
            DROPOUT,
            None,
            lambda m: {"task": m.reward, "shaping": goal(m.obs, 4) - 0.99 * goal(m.next_obs, 4)},
            "shaping by the difference of a potential",
            built_on=False,
        ),
        "unfelt effort, line": Design(
            LINE,
            "reward_term_dominates",
            lambda m: {"line": m.reward, "effort": -0.02 * moves(m)},
            "effort costs so little that nobody feels it (meant to be sound, until the verdict said so)",
            built_on=True,
        ),
    }
