"""An update, taken apart: what it must do to a fixed batch, and to every tensor.

Shapes: T steps, K rows of memory, E copies, A agents, O features of an observation.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from marl_stable.agents.ddpg_learner import DDPGLearner, Joint
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.investigate.probing import begin, collect
from marl_stable.investigate.questions import SEEDS, UNTRAINED, Check, answered, on_policy, settings_of

FIT_STEPS, FIT_ROWS = 50, 16
OTHER_POLICY = "the policy that learns is not the one that acted (its memory, masks or normaliser differ)"


def overfit(game: str, algorithm: str) -> list[Check]:
    """50 steps on one fixed batch: the critic's loss must halve, and the actor's objective end nearer its best."""
    began = time.perf_counter()
    agent, env, obs = begin(game, algorithm, SEEDS[0])
    collect(agent, env, obs)
    learner = agent.learners["agent"]
    fit = _fit_ppo if isinstance(learner, PPOLearner) else _fit_ddpg
    loss, objective = fit(learner, agent.generator)
    fallen = loss[-1] / loss[0]
    reach = max(objective) - min(objective)
    risen = (objective[-1] - objective[0]) / reach if reach else 0.0  # -1 where it fell, 0 where it never moved
    each = (time.perf_counter() - began) / 2
    meanings = ("the critic does not fit a fixed batch", "the actor does not climb its own objective")
    return [
        answered(game, "critic_overfit", algorithm, (0.0, fallen, 0.5), each, meanings[0], UNTRAINED),
        answered(game, "actor_overfit", algorithm, (1.0, risen, 0.5), each, meanings[1], UNTRAINED),
    ]


def _fit_ppo(learner: PPOLearner, _: torch.Generator) -> tuple[list[float], list[float]]:
    """The critic's loss and the actor's objective (without its entropy bonus) before each step."""
    seen = learner.normalized(learner.rollout.all_obs())  # (T + 1 + K, E, A, O)
    batch, _found = learner.batch(seen, seen.flatten(2) if learner.central else seen)
    part = learner.part(batch, torch.arange(FIT_ROWS))
    steps = learner.told([learner.learn(part, 1.0, 0.0) for _ in range(FIT_STEPS)])
    return [float(step["losses/critic"]) for step in steps], [-float(step["losses/actor"]) for step in steps]


def _fit_ddpg(learner: DDPGLearner, generator: torch.Generator) -> tuple[list[float], list[float]]:
    """The same: first the critic with targets that stay, then the actor along the critic that has been fitted."""
    drawn = learner.draw(torch.arange(FIT_ROWS))
    with torch.no_grad():
        following = learner.target_actor(drawn.next_obs).mode()  # Box actions are encoded as they are
    now = Joint(drawn.obs.flatten(1), drawn.action.flatten(1), drawn.alive)
    then = Joint(drawn.next_obs.flatten(1), following.flatten(1), drawn.alive)
    lr = learner.config.lr
    fitted = [learner.fit_critic(drawn, following, now, then, lr) for _ in range(FIT_STEPS)]
    moved = [learner.improve_actor(drawn, now, lr, generator) for _ in range(FIT_STEPS)]
    return [float(step["losses/critic"]) for step in fitted], [-float(step["losses/actor"]) for step in moved]


def update(game: str, algorithm: str) -> list[Check]:
    """One update must change every tensor of every network, those of targets too.

    And where it weighs actions by how likely they have become, its first step must find them as likely as they were.
    """
    began, weighs = time.perf_counter(), on_policy(algorithm)
    at_once = {"update_epochs": 1, "num_minibatches": 1} if weighs else {"warm_up": 0}
    network = replace(settings_of(game, algorithm)["network"], final_init=None)  # answers must differ from the start
    agent, env, obs = begin(game, algorithm, SEEDS[0], network=network, **at_once)
    collect(agent, env, obs)
    before = {name: tensor.detach().clone() for name, tensor in _tensors(agent).items()}
    stats = agent.update(0.0, lambda: False)
    same = [name for name, tensor in _tensors(agent).items() if torch.equal(tensor, before[name])]
    meaning = f"an update does not change {', '.join(same)}"
    figures = (0.0, float(len(same)), 0.0)
    checks = [answered(game, "unchanged", algorithm, figures, 0.0, meaning, UNTRAINED)]
    if weighs:
        figures = (0.0, float(stats["losses/approx_kl"]["agent"]), 1e-5)
        checks.append(answered(game, "first_kl", algorithm, figures, 0.0, OTHER_POLICY, "ratio_explosion"))
    each = (time.perf_counter() - began) / len(checks)
    return [check._replace(seconds=each) for check in checks]


def _tensors(agent: Any) -> dict[str, Tensor]:
    """Every parameter of every network and of its target, by name."""
    learner = agent.learners["agent"]
    networks = {part: getattr(learner, part) for part in learner.PARTS}
    found = [(part, x.named_parameters()) for part, x in networks.items() if isinstance(x, nn.Module)]
    return {f"{part}.{name}": tensor for part, named in found for name, tensor in named}
