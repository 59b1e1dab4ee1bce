"""One small update of a copy of the agent before the first of the run: what it moves, how far, and what it can reach.

The copy has the agent's weights, statistics and generator, and a batch that takes milliseconds; the agent itself is
only read. Shapes: E copies, N rows, A agents of a group, O observation features, D action features, H width of the last
hidden layer, R optimiser rows (1 where agents share, else A).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marl_stable.agents import algorithm
from marl_stable.agents.base import Agent, Stats, copied
from marl_stable.agents.config import MADDPGConfig, MAPPOConfig
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import Box, PerGroup, has_choice

ROWS, FEWEST_STEPS = 128, 8  # environment steps of the batch, and steps of each copy
DRAWN = 128  # rows of an off-policy update
PROBE_ROWS = 256
FAR = 1e30  # before the tanh, or beyond any bound
EXACT = 1e-6  # of the range

# The theory's budgets of 0.05 and 0.1 are those of a toy with deterministic actors. Measured on Aim, simple_spread and
# simple_tag with continuous actions, healthy defaults give more: MAPPO 0.28 to 0.29 (LayerNorm and tanh fix it),
# MADDPG 0.03 to 0.08. On Aim, with two seeds and 20 short updates, MAPPO at 0.85 (three times its rate) ended no better
# than chance, as at 2.8 and 8.5; MADDPG still learned at 0.94. Hence a warning at twice and an alarm at four times what
# the larger of the defaults gives: at 1.2 one update can take an output from the centre to 0.83 of the way to a bound.
WARN, ALARM = 0.6, 1.2  # units before the tanh, or of a logit

ALIKE = "no gradient: reward never varied"
UNTOUCHED = "no gradient"
NOT_FINITE = "gradient was not finite"
STAYED = "had a gradient, and was not moved"


def small_copy(agent: Agent, copies: int) -> Any:
    """An agent that acts and learns as `agent` does, from a batch of a hundred steps or more of `copies`."""
    config, steps = agent.config, copies * max(FEWEST_STEPS, -(-ROWS // copies))
    if isinstance(config, MAPPOConfig):
        parts = min(config.num_minibatches, 2)
        config = replace(config, batch_size=steps, update_epochs=1, num_minibatches=parts, target_kl=None)
    elif isinstance(config, MADDPGConfig):
        config = replace(
            config,
            batch_size=min(config.batch_size, DRAWN),
            buffer_size=steps,
            train_every=steps,
            warm_up=steps,  # the whole batch is played at random
            steps_per_update=max(1, steps // (2 * config.policy_delay)),  # actors and targets have their turn as well
        )
    made = algorithm(config.name)(agent.spec, config, copies, agent.generator.device, 0)
    made.load_policy_state(copied(agent.policy_state()))
    return made


def dry_run(agent: Agent, env: BatchedEnv, obs: PerGroup, seed: int) -> dict[str, Any]:
    """`first_step`, `untrained`, `non_finite` and `range` of `preflight`; `obs (N, A, O)` are from a random play."""
    copy = small_copy(agent, env.num_envs)
    reach = first_step(copy, obs)
    return {"first_step": reach, **update(copy, env, seed), "range": ranges(copy)}


def update(copy: Any, env: BatchedEnv, seed: int) -> dict[str, Any]:
    """What the first update does to `copy`: `untrained` and `non_finite`."""
    before = {name: _weights(learner) for name, learner in copy.learners.items()}
    varied = _feed(copy, env, seed)
    stats = copy.update(0.0, lambda: False)
    untrained: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for name, learner in copy.learners.items():
        for network in ("actor", "critic"):
            reason = UNTOUCHED if varied[name] else ALIKE
            if _non_finite(stats, name, network):
                bad.append({"group": name, "network": network})
                reason = NOT_FINITE
            if network in before[name]:
                untrained += _unmoved(learner, network, before[name], reason)
        untrained += _left_behind(learner, before[name])
    return {"untrained": untrained, "non_finite": bad}


def _feed(agent: Any, env: BatchedEnv, seed: int) -> dict[str, bool]:
    """Fill the batch; by group whether any reward differed from another."""
    obs = env.reset(seed)
    paid: dict[str, list[Tensor]] = {name: [] for name in agent.learners}
    while not agent.ready():
        step = env.step(agent.act(obs))
        agent.observe(step)
        for name, rewards in paid.items():
            rewards.append(step.reward[name].clone())
        obs = step.obs
    return {name: bool((torch.stack(rewards) != rewards[0][0]).any()) for name, rewards in paid.items()}


def _non_finite(stats: Stats, group: str, network: str) -> bool:
    found = stats.get(f"non_finite/{network}", {}).get(group)
    return found is not None and bool((found > 0).any())


def _weights(learner: Any) -> dict[str, dict[str, Tensor]]:
    """Copies of all parameters that there is something to learn for, targets' included, by network and name."""
    learning = ("actor", "critic") if has_choice(learner.group.action) else ("critic",)
    names = [name for name in learner.PARTS if name.endswith(learning)]
    return {name: {key: p.detach().clone() for key, p in getattr(learner, name).named_parameters()} for name in names}


def _unmoved(
    learner: Any, network: str, before: dict[str, dict[str, Tensor]], no_gradient: str
) -> list[dict[str, Any]]:
    """The tensors of `network` that are bit for bit as they were; where agents are apart, agent by agent."""
    optimizer, found, start = getattr(learner, f"{network}_optimizer"), [], 0
    rows = optimizer.rows
    for name, now in getattr(learner, network).named_parameters():
        width = now.numel() // rows
        same = (now.detach() == before[network][name]).reshape(rows, -1).all(1)  # (R,)
        pulled = (optimizer.m[:, start : start + width] != 0).any(1)  # (R,) the first moment has seen a gradient
        start += width
        for row in same.nonzero().flatten().tolist():
            why = STAYED if pulled[row] else no_gradient
            agent = {"agent": learner.group.agents[row]} if rows > 1 else {}
            found.append({"group": learner.group.name, "network": network, "tensor": name, **agent, "why": why})
    return found


def _left_behind(learner: Any, before: dict[str, dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Target networks that did not follow at all; a single tensor may move by less than float32 can hold."""
    found = []
    for network, weights in before.items():
        now = dict(getattr(learner, network).named_parameters())
        if network.startswith("target") and all(torch.equal(now[name], old) for name, old in weights.items()):
            found.append({"group": learner.group.name, "network": network, "tensor": "all", "why": STAYED})
    return found


@torch.no_grad()
def first_step(copy: Any, obs: PerGroup) -> dict[str, dict[str, float | None]]:
    """By group: how far the first step can move an output, before the tanh or a logit, and its budget.

    Adam moves every weight by the step size, so an output by up to `lr ||h||_1`, the mean of which over `obs (N, A, O)`
    is the `value`. None where no observation is finite.
    """
    found: dict[str, dict[str, float | None]] = {}
    rate = copy.config.actor_lr or copy.config.lr
    for group in copy.spec.groups:
        hidden = _last_hidden(copy.learners[group.name], obs[group.name])
        value = None if hidden is None else rate * float(hidden.abs().sum(-1).mean())
        found[group.name] = {"value": value, "warn": WARN, "alarm": ALARM}
    return found


def _last_hidden(learner: Any, obs: Tensor) -> Tensor | None:
    """`(..., H)` what the actor's last layer sees of the finite rows of raw `obs (N, A, O)`; None where there is none.

    Rows are spread over them.
    """
    rows = obs[torch.isfinite(obs).flatten(1).all(1)]
    if not len(rows):
        return None
    seen: list[Tensor] = []
    final = learner.actor.body.network.final
    hook = final.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    learner.actor(learner.normalized(rows[:: -(-len(rows) // PROBE_ROWS)]))
    hook.remove()
    return seen[0]


@torch.no_grad()
def ranges(copy: Any) -> dict[str, dict[str, list[int]]]:
    """By group of continuous actions: dimensions of no width, without finite bounds, or whose ends are not reached.

    The last layer is left to say nothing but `FAR`, down and up: what comes out must be the bounds. This spoils `copy`.
    """
    found = {}
    for group in copy.spec.groups:
        if isinstance(group.action, Box):
            actor = copy.learners[group.name].actor
            bounds = torch.tensor([group.action.low, group.action.high], device=copy.generator.device)  # (2, D)
            obs = bounds.new_zeros(1, len(group.agents), group.obs_size)
            found[group.name] = _faults(bounds, torch.stack([_driven(actor, obs, far) for far in (-FAR, FAR)]))
    return found


def _driven(actor: Any, obs: Tensor, far: float) -> Tensor:
    """`(1, A, D)` the action in the environment's units where the network says `far` everywhere."""
    final = actor.body.network.final
    final.weight.zero_()
    final.bias.fill_(far)
    reached: Tensor = actor.to_env(actor(obs).mode())
    return reached


def _faults(bounds: Tensor, reached: Tensor) -> dict[str, list[int]]:
    """From `bounds (2, D)` and what was `reached (2, 1, A, D)`, the dimensions of each fault."""
    width = bounds[1] - bounds[0]
    exact = (reached - bounds.reshape(2, 1, 1, -1)).abs() <= EXACT * width.abs()  # false for NaN
    return {
        "zero_width": _places(~(width > 0)),
        "infinite": _places(~torch.isfinite(bounds).all(0)),
        "mismatch": _places(~exact.flatten(0, 2).all(0)),
    }


def _places(flags: Tensor) -> list[int]:
    return [int(place) for place in flags.nonzero().flatten()]
