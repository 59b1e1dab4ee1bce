"""Rewards with one known flaw each."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.reward_designs.design import Design, Pay
from benchmarks.reward_designs.parts import cover, goal, landmarks, moves, noise, rare, speed
from benchmarks.reward_designs.tasks import (
    ADVERSARY,
    BALANCE,
    DISPERSION,
    LISTEN,
    NAVIGATION,
    REFERENCE,
    SIMPLE,
    SPREAD,
    TAG,
    TRANSPORT,
    WALK,
    WHEEL,
)


def flawed(built_on: bool) -> dict[str, Design]:
    """On tasks that were played while thresholds were chosen, or on others."""

    def d(task: str, cause: str, says: str, pay: Pay, **more: Any) -> Design:
        return Design(task, cause, pay, says, built_on, **more)

    if built_on:
        return {
            "effort, spread": d(
                SPREAD,
                "constant_action_is_optimal",
                "effort costs more than any landmark is worth (reaver #7: converges to no_op)",
                lambda m: {"cover": cover(m.next_obs), "effort": -4 * moves(m)},
            ),
            "collisions x300, spread": d(
                SPREAD,
                "reward_term_dominates",
                "punishment too high (Multiagent-RL #28: flees)",
                lambda m: {"cover": 0.003 * cover(m.next_obs), "touch": m.reward * 2 - cover(m.next_obs)},
            ),
            "noise, spread": d(
                SPREAD,
                "reward_uncontrollable",
                "a term that is noise",
                lambda m: {"cover": cover(m.next_obs), "weather": 2 * noise(m)},
            ),
            "tiny, spread": d(SPREAD, "reward_scale_too_small", "x 1e-5", lambda m: {"task": 1e-5 * m.reward}),
            "huge, listener": d(LISTEN, "reward_scale_too_large", "x 1e4", lambda m: {"task": 1e4 * m.reward}),
            "offset, spread": d(SPREAD, "reward_offset", "+ 500", lambda m: {"task": m.reward + 500}),
            "pole, spread": d(
                SPREAD,
                "reward_outliers",
                "1 / d^2 near a landmark",
                lambda m: {"cover": cover(m.next_obs), "near": 5e-2 / landmarks(m.next_obs).amin(-1).square()},
            ),
            "logarithm, spread": d(
                SPREAD,
                "reward_non_finite",
                "log(d - 0.05)",
                lambda m: {"cover": cover(m.next_obs), "close": -(landmarks(m.next_obs).amin(-1) - 0.05).log()},
            ),
            "progress, spread": d(
                SPREAD,
                "shaping_changes_task",
                "pays for approaching, never charges for leaving",
                lambda m: {
                    "touch": m.reward * 2 - cover(m.next_obs),
                    "progress": 10 * (landmarks(m.obs)[..., 0] - landmarks(m.next_obs)[..., 0]).clamp_min(0),
                },
            ),
            "near and far, spread": d(
                SPREAD,
                "reward_terms_conflict",
                "one term draws to the landmarks, another away",
                lambda m: {
                    "near": cover(m.next_obs),
                    "free": landmarks(m.next_obs).amin(1).sum(-1, keepdim=True) * 0.8 + 0.05 * m.reward,
                },
            ),
            "hunters, spread": d(
                SPREAD,
                "no_reward_signal",
                "zero-sum within a team (ml-agents #2061: mean 0, they avoid each other)",
                lambda m: {"prey": (x := -landmarks(m.next_obs).amin(-1)) - x.mean(1, keepdim=True)},
            ),
            "never, listener": d(
                LISTEN,
                "no_reward_signal",
                "pays within 1e-6 of the goal",
                lambda m: {"goal": (m.reward > -1e-12).float()},
            ),
            "ignored, spread": d(
                SPREAD,
                "lazy_agent",
                "shares what two of three agents cover",
                lambda m: {"cover": -landmarks(m.next_obs)[:, :2].amin(1).sum(-1, keepdim=True).expand(m.reward.shape)},
            ),
            "heavy, balance": d(BALANCE, "reward_scale_too_large", "x 1e4", lambda m: {"task": 1e4 * m.reward}),
            "collide and be free, spread": d(
                "mpe2/simple_spread_v3",
                "episode_length_incentive",
                "steps cost, a collision ends the episode for nothing",
                lambda m: {"cover": cover(m.next_obs)},
                single=True,
                ends=lambda m: (m.next_obs[..., 10:14].unflatten(-1, (2, 2)).norm(dim=-1) < 0.3).any(-1).any(-1),
            ),
            "alive, walkers": d(
                WALK,
                "episode_length_incentive",
                "a bonus for being there beside which walking is nothing",
                lambda m: {"alive": torch.full_like(m.reward, 20.0), "walk": 0.1 * m.reward},
                single=True,
            ),
            "full power, walkers": d(
                WALK,
                "constant_action_is_optimal",
                "rescaled actions leak into the reward (qiongwu86 #7: actions at their bounds)",
                lambda m: {"task": m.reward.clamp(-1, 1) + (m.action / 3 * 100).mean(-1)},
                single=True,
            ),
            "speed, spread": d(
                "mpe2/simple_spread_v3",
                "reward_hacking",
                "pays for speed, and means landmarks",
                lambda m: {"speed": speed(m)},
                single=True,
                metric=lambda m: cover(m.next_obs),
                expert="spread_expert",
            ),
        }
    return {
        "scenery, reference": d(
            REFERENCE,
            "reward_uncontrollable",
            "a term of where landmarks lie",
            lambda m: {"task": m.reward, "scene": 2 * (m.next_obs[..., 2:4] - m.next_obs[..., 4:6]).norm(dim=-1) - 1},
        ),
        "effort, dispersion": d(
            DISPERSION,
            "constant_action_is_optimal",
            "effort costs more than food is worth (reaver #7)",
            lambda m: {"food": m.reward, "effort": -0.5 * moves(m)},
        ),
        "punished, navigation": d(
            NAVIGATION,
            "reward_term_dominates",
            "punishment for nearness too high (Multiagent-RL #28)",
            lambda m: {"goal": m.terms["pos_rew"], "near": -20 * m.next_obs[..., 6:].clamp_min(0).sum(-1)},
        ),
        "huge, adversary": d(ADVERSARY, "reward_scale_too_large", "x 1e5", lambda m: {"task": 1e5 * m.reward}),
        "offset, adversary": d(ADVERSARY, "reward_offset", "- 300", lambda m: {"task": m.reward - 300}),
        "parcel, transport": d(
            TRANSPORT,
            "no_reward_signal",
            "pays only for the delivered package (BenchMARL #251: too hard to come upon)",
            lambda m: {"delivered": (m.next_obs[..., 10] > 0.5).float()},
        ),
        "lingering, simple": d(
            SIMPLE,
            "episode_length_incentive",
            "near the goal pays more than the goal",
            lambda m: {
                "near": 1 / (1 + goal(m.next_obs, 2)),
                "goal": 0.5 * m.over.float().unsqueeze(1).expand(m.reward.shape),
            },
            single=True,
            ends=lambda m: goal(m.next_obs, 2)[:, 0] < 0.4,
        ),
        "way out, simple": d(
            SIMPLE,
            "episode_length_incentive",
            "steps cost, leaving the field ends it",
            lambda m: {"goal": -goal(m.next_obs, 2) - 0.2},
            single=True,
            ends=lambda m: goal(m.next_obs, 2)[:, 0] > 1.3,
        ),
        "progress, adversary": d(
            ADVERSARY,
            "shaping_changes_task",
            "pays for approaching a landmark, never charges",
            lambda m: {
                "task": 0.1 * m.reward,
                "nearer": 10
                * (goal(m.obs, m.obs.shape[-1] - 4 - 0) - goal(m.next_obs, m.obs.shape[-1] - 4)).clamp_min(0),
            },
        ),
        "stay and go, navigation": d(
            NAVIGATION,
            "reward_terms_conflict",
            "a second term takes back what the first pays",
            lambda m: {"goal": m.terms["pos_rew"], "home": -0.8 * m.terms["pos_rew"] - 0.002 * moves(m)},
        ),
        "root, dispersion": d(
            DISPERSION,
            "reward_non_finite",
            "a root of what can be negative",
            lambda m: {"food": m.reward, "close": (m.next_obs[..., 4:6].norm(dim=-1) - 0.2).sqrt()},
        ),
        "glitch, tag": d(
            TAG,
            "reward_outliers",
            "one step in 500 is paid a random thousandfold",
            lambda m: {"task": m.reward, "glitch": 3e3 * rare(m, 0.002) * noise(m)},
        ),
        "full throttle, transport": d(
            TRANSPORT,
            "constant_action_is_optimal",
            "pays for pushing, wherever to (qiongwu86 #7)",
            lambda m: {"package": 0.01 * m.reward, "push": m.action.abs().mean(-1)},
        ),
        "tiny, wheel": d(WHEEL, "reward_scale_too_small", "x 1e-5", lambda m: {"task": 1e-5 * m.reward}),
        "ignored, navigation": d(
            NAVIGATION,
            "lazy_agent",
            "shares what three of four agents earn",
            lambda m: {"goals": m.terms["pos_rew"][:, :3].mean(1, keepdim=True).expand(m.reward.shape)},
            kwargs={"collisions": False, "shared_rew": False},
        ),
        "speed, simple": d(
            SIMPLE,
            "reward_hacking",
            "pays for speed, and means the landmark",
            lambda m: {"speed": speed(m)},
            single=True,
            metric=lambda m: -goal(m.next_obs, 2),
            expert="simple_expert",
        ),
    }
