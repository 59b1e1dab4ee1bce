"""What critics of actions make of the replay, asked now and then beside the updates.

Moments come from a generator of their own: being watched changes no random number of the training.

Shapes: N rows, P probe rows, S steps of C copies in the window, A agents, O observation features, U features of an
encoded action, K critics.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from marl_stable import rows
from marl_stable.agents.behaviour import PROBE
from marl_stable.agents.ddpg import td_target
from marl_stable.agents.ddpg_learner import DDPGLearner, Drawn, Joint
from marl_stable.agents.figures import BACKWARD
from marl_stable.monitor.signals import values
from marl_stable.types import ActionSpec, Box, Discrete

OLD = 0.1  # of the replay, its oldest and its newest part
AGED = PROBE // 2  # rows drawn from each of the two
WINDOW = 512  # last steps in which returns are looked for, at most
FEWEST = 8  # rows at which every choice of a discrete action is tried


RowsT = TypeVar("RowsT", Drawn, Joint)


class Moments(NamedTuple):
    """Rows of the replay: P from everywhere, `AGED` from its oldest and its newest part each, then the last S steps of
    C copies, step by step."""

    rows: Tensor  # (N,)
    window: tuple[int, int]  # S, C


def moments(t: int, slots: int, copies: int, steps: int, generator: torch.Generator) -> Moments:
    """Of the replay at step `t`, which is asked every `steps` steps."""
    filled, device = min(t, slots), generator.device
    decile = max(1, int(OLD * filled))

    def drawn(count: int, low: int, high: int) -> Tensor:
        step = torch.randint(t - filled + low, t - filled + high, (count,), generator=generator, device=device)
        copy = torch.randint(copies, (count,), generator=generator, device=device)
        return step % slots * copies + copy

    last, wide = window(filled, copies, steps)
    step = torch.arange(t - last, t, device=device).unsqueeze(1) % slots
    copy = torch.arange(wide, device=device) * copies // wide
    parts = drawn(PROBE, 0, filled), drawn(AGED, 0, decile), drawn(AGED, filled - decile, filled)
    return Moments(torch.cat([*parts, (step * copies + copy).flatten()]), (last, wide))


def window(filled: int, copies: int, steps: int) -> tuple[int, int]:
    """S and C."""
    last = min(steps, WINDOW, filled)
    return last, min(copies, max(1, PROBE // last))


def mean_age(t: int, slots: int) -> float:
    """Of the replay's rows at step `t`, in steps."""
    return (min(t, slots) - 1) / 2


def critic_passes(x: DDPGLearner, copies: int, steps: int) -> int:
    """Rows of all networks of a group that :func:`critic_signals` asks."""
    agents, critics, size = len(x.group.agents), len(x.critic.networks), x.actor.outputs
    last, wide = window(steps, copies, steps)
    looked_at = (PROBE + 2 * AGED + last * wide) * (agents + 2 * critics * x.critic_agents)
    tried = PROBE * (1 + BACKWARD) if isinstance(x.group.action, Box) else _tried(size) * size
    return looked_at + 2 * PROBE * agents + tried * agents * critics


def critic_signals(
    x: DDPGLearner, at: Moments, drawn: Drawn, next_action: Tensor, now: Joint, then: Joint, turn_based: bool
) -> dict[str, Tensor]:
    """All figures of one group, `(A,)` each, from what it and its critics see at the moments `at`."""
    gamma, shape, probe = x.config.gamma, at.window, slice(PROBE)
    old, new, last = slice(PROBE, PROBE + AGED), slice(PROBE + AGED, PROBE + 2 * AGED), slice(PROBE + 2 * AGED, None)
    assert isinstance(gamma, float)
    with torch.no_grad():
        q = x.critic(x.critic_input(drawn.obs, drawn.action, now))[0]  # (N, A)
        next_q = x.target_critic(x.critic_input(drawn.next_obs, next_action, then))
        error = td_target(drawn.reward, next_q, drawn.terminated, gamma, x.scale.terminal_value()) - q
        alive, ended = drawn.alive > 0, x.replay.ended.flatten(0, 1).index_select(0, at.rows[last])
        reward, value = x.scale.raw_reward(drawn.reward), x.scale.raw_value(q)
        next_value = x.scale.raw_value(next_q.amin(0))
        parts = (*(y[last] for y in (reward, value, next_value, drawn.terminated)), ended, alive[last])
        flow = values.Flow._make(y.unflatten(0, shape) for y in parts)
        found = values.value_signals(values.judged(flow, gamma, turn_based))
        found |= values.infeasible(next_value[probe], alive[probe], x.history.low, x.history.high, gamma)
        found |= values.age_ratio(error[old], error[new], alive[old], alive[new])
    spread = found["stability/return_std"] / x.scale.unit()
    return found | _action_signals(x, _part(drawn, probe), _part(now, probe), q[probe], spread)


def _action_signals(x: DDPGLearner, drawn: Drawn, now: Joint, done: Tensor, spread: Tensor) -> dict[str, Tensor]:
    """What the critic says of the policy's own actions at P moments; `done (P, A)` is what it says of the replay's."""
    alive = drawn.alive > 0
    with torch.no_grad():
        action = x.actor.encoded(x.actor(drawn.obs).mode())  # (P, A, U)
        chosen = x.value_of_own(action, drawn, now)
    unit = rows.deviation(chosen, alive)
    if isinstance(x.group.action, Box):
        found = values.slopes(_gradient(x, action, drawn, now), alive, unit)
    else:
        step = max(1, PROBE // _tried(action.shape[-1]))
        found = _spreads(
            x, action[::step], _part(drawn, slice(None, None, step)), _part(now, slice(None, None, step)), unit
        )
    return found | values.gap(chosen, done, alive, spread)


def _gradient(x: DDPGLearner, action: Tensor, drawn: Drawn, now: Joint) -> Tensor:
    """`(K, P, A, U)` of each agent's own value by its own action, for each critic."""
    gradients = []
    for critic in x.critic.networks:
        with torch.enable_grad():
            own = action.detach().requires_grad_()
            value = x.value_of_own(own, drawn, now, critic)
        gradients.append(torch.autograd.grad(value.sum(), own)[0])
    return torch.stack(gradients)


@torch.no_grad()
def _spreads(x: DDPGLearner, action: Tensor, drawn: Drawn, now: Joint, unit: Tensor) -> dict[str, Tensor]:
    """The same for discrete actions: what each choice would be worth, all else as in `action (P, A, U)`."""
    size = action.shape[-1]
    tried = one_changed(action, x.group.action).flatten(0, 1)  # (U * P, A, U)
    drawn_often, now_often = _repeated(drawn, size), _repeated(now, size)
    worth = torch.stack([x.value_of_own(tried, drawn_often, now_often, critic) for critic in x.critic.networks])
    worth = worth.unflatten(1, (size, -1)).permute(0, 2, 3, 1)  # (K, P, A, U)
    legal = drawn.obs[..., -size:] > 0.5 if x.group.masked else torch.ones_like(action, dtype=torch.bool)
    return values.spreads(worth, action, legal, drawn.alive > 0, unit)


def one_changed(action: Tensor, spec: ActionSpec) -> Tensor:
    """`(U, P, A, U)`: one-hot choices `action (P, A, U)` with each choice in turn made instead of its alternative."""
    assert not isinstance(spec, Box)
    sizes = (spec.n,) if isinstance(spec, Discrete) else spec.n
    part = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
    alternatives = (part.unsqueeze(0) == part.unsqueeze(1)).to(action.device)[:, None, None, :]
    chosen = torch.eye(len(part), device=action.device)[:, None, None, :]
    return torch.where(alternatives, chosen, action)


def _tried(size: int) -> int:
    """At how many rows every choice is tried."""
    return max(FEWEST, PROBE // size)


def _part(rows: RowsT, which: slice) -> RowsT:
    return type(rows)._make(x[which] for x in rows)


def _repeated(rows: RowsT, times: int) -> RowsT:
    return type(rows)._make(x.repeat(times, *[1] * (x.dim() - 1)) for x in rows)
