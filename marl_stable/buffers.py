"""What the agents of a group saw and did, preallocated on the training device: since the last update, or for long.

Shapes: T steps, E environment copies, B = T * E rows, A agents, O observation features; raw actions are (T, E, A), or
(T, E, A, D) where an action has several parts.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marl_stable.types import ActionSpec, Box, Discrete, EnvSpec, Group, Step, UsageError


class Rollout:
    """T steps of E copies. Values are raw: they are normalised when they are read."""

    def __init__(self, steps: int, copies: int, group: Group, device: torch.device) -> None:
        shape = (steps, copies, len(group.agents))
        features, dtype = raw_action(group.action)
        self.obs = torch.zeros(steps + 1, *shape[1:], group.obs_size, device=device)  # the last row is what comes next
        self.action = torch.zeros(*shape, *features, dtype=dtype, device=device)
        self.log_prob = torch.zeros(shape, device=device)
        self.reward = torch.zeros(shape, device=device)
        self.terminated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)  # terminated or truncated
        self.alive = torch.zeros(shape, dtype=torch.bool, device=device)
        self.missing = torch.zeros(shape, dtype=torch.bool, device=device)  # of what came of the agent's last turn
        self.final_obs: dict[int, Tensor] = {}  # step -> (E, A, O), only where some copy's episode ended
        self.begins = torch.zeros(steps + 1, copies, dtype=torch.bool, device=device)  # an episode, at this step

    def write(self, t: int, obs: Tensor, action: Tensor, log_prob: Tensor) -> None:
        """Keep what was seen and done at step `t`."""
        self.obs[t], self.action[t], self.log_prob[t] = obs, action, log_prob

    def write_outcome(self, t: int, name: str, step: Step) -> None:
        """Keep what followed step `t` for group `name`; `next_obs` takes room only where an episode ended."""
        obs, next_obs = step.obs[name], step.next_obs[name]
        terminated, truncated = step.terminated[name], step.truncated[name]
        self.reward[t], self.alive[t] = step.reward[name], step.alive[name]
        self.terminated[t] = terminated
        torch.logical_or(terminated, truncated, out=self.ended[t])
        if step.missing:
            self.missing[t] = step.missing[name]
        self.obs[t + 1], self.begins[t + 1] = obs, step.done
        if next_obs is not obs:
            self.final_obs[t] = next_obs.clone()

    def begin_anew(self, t: int, copies: Tensor, obs: Tensor) -> None:
        """Cut off the running episodes of `copies (E,)` before step `t`, where new ones begin with `obs (E, A, O)`."""
        if t > 0:  # where it had led to is known: nothing is lost of what to learn from it
            self.final_obs.setdefault(t - 1, self.obs[t].clone())
            self.ended[t - 1] |= copies.unsqueeze(1)
        self.obs[t] = torch.where(copies.reshape(-1, 1, 1), obs, self.obs[t])
        self.begins[t] |= copies

    def clear(self) -> None:
        """Forget what only some steps have; the next rollout begins where this one ended, all else is overwritten."""
        self.final_obs = {}
        self.missing.zero_()
        self.begins[0] = self.begins[-1]

    def beginnings(self) -> tuple[Tensor, Tensor]:
        """`(K, E, A, O)` what was seen right after those steps at which some copy's episode ended, and `(K, E)` whose
        did."""
        after = [t + 1 for t in self.final_obs]
        if not after:
            return self.obs[:0], self.begins[:0]
        return torch.stack([self.obs[t] for t in after]), torch.stack([self.begins[t] for t in after])

    def next_values(self, value: Tensor, final_value: Tensor) -> Tensor:
        """`(T, E, A)` values of what actions led to, from those of `obs (T + 1, E, A)` and `final_obs (K, E, A)`."""
        next_value = value[1:].clone()
        for row, t in enumerate(self.final_obs):
            next_value[t] = final_value[row]
        return next_value

    def all_obs(self) -> Tensor:
        """`(T + 1 + K, E, A, O)`: every observation that needs a value, final ones last."""
        return torch.cat([self.obs, *(x.unsqueeze(0) for x in self.final_obs.values())])

    def present(self) -> Tensor:
        """`(T + 1 + K, E, A)`: of every observation in `all_obs`, whether its agent was there, to go on or be cut off.

        Of what no action is known to have followed, those were there who acted before and did not terminate.
        """
        goes_on = self.alive & ~self.terminated
        return torch.cat([self.alive, goes_on[-1:], *(goes_on[t].unsqueeze(0) for t in self.final_obs)])

    def state_dict(self) -> dict[str, Any]:
        """All tensors, and final observations by step."""
        tensors = {key: value.clone() for key, value in vars(self).items() if isinstance(value, Tensor)}
        return tensors | {"final_obs": {t: obs.clone() for t, obs in self.final_obs.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for key, value in state.items():
            if key == "final_obs":
                self.final_obs = {t: obs.to(self.obs.device) for t, obs in value.items()}
            else:
                getattr(self, key).copy_(value)


class ChunkedRollout(Rollout):
    """A rollout to be learned from in K chunks of L consecutive steps, with what recurrent networks need beside it.

    Chunks are as long as each other, at most `chunk_length`; the last may be a few steps short.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        group: Group,
        device: torch.device,
        chunk_length: int,
        memory: Tensor,
        past: Tensor,
    ) -> None:
        """`shape`: (T, E); `memory (E, A, M)`: the actor's, `past (E, A, M)` or `(E, M)`: the critic's, at first."""
        super().__init__(*shape, group, device)
        self.chunks = math.ceil(shape[0] / chunk_length)
        self.length = math.ceil(shape[0] / self.chunks)
        self.memory = memory.clone()  # what the actor remembers now
        self.starts = torch.zeros(self.chunks, *memory.shape, device=device)  # the same at each chunk's first step
        self.past = past.clone()  # what the critic remembered at the first step of all

    def write_memory(self, t: int, after: Tensor) -> None:
        """Keep what the actor remembered before step `t`, where a chunk begins, and remember `after (E, A, M)` now."""
        if t % self.length == 0:
            self.starts[t // self.length] = self.memory
        self.memory = after

    def write_outcome(self, t: int, name: str, step: Step) -> None:
        """The same, and forget the episodes of copies where all agents' are over."""
        super().write_outcome(t, name, step)
        self.memory = self.memory.masked_fill(step.done.reshape(-1, 1, 1), 0.0)

    def begin_anew(self, t: int, copies: Tensor, obs: Tensor) -> None:
        """The same, and forget these episodes; critics forget them where `begins` says so."""
        super().begin_anew(t, copies, obs)
        self.memory = self.memory.masked_fill(copies.reshape(-1, 1, 1), 0.0)

    def rows(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (of T * E) of the chunks `(N,)`, counted start by start and copy by copy, `(L, N)`, and which count.

        Where a last chunk is shorter its last step is repeated, and does not count.
        """
        steps, copies = self.begins.shape
        t = chunks // copies * self.length + torch.arange(self.length, device=chunks.device).unsqueeze(1)
        return t.clamp_max(steps - 2) * copies + chunks % copies, t < steps - 1


class Rows(NamedTuple):
    """Transitions of one group drawn from a replay; raw values."""

    obs: Tensor  # (B, A, O)
    action: Tensor  # (B, A) or (B, A, D)
    reward: Tensor  # (B, A)
    next_obs: Tensor  # (B, A, O)
    terminated: Tensor  # (B, A) bool
    alive: Tensor  # (B, A) bool: the agent acted, and what followed is known


class Replay:
    """The last `slots` steps of E copies of one group, in a ring: step t lies in slot t modulo `slots`."""

    def __init__(self, slots: int, copies: int, group: Group, device: torch.device) -> None:
        shape = (slots, copies, len(group.agents))
        features, dtype = raw_action(group.action)
        self.obs = torch.zeros(*shape, group.obs_size, device=device)
        self.next_obs = torch.zeros(*shape, group.obs_size, device=device)
        self.action = torch.zeros(*shape, *features, dtype=dtype, device=device)
        self.reward = torch.zeros(shape, device=device)
        self.terminated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)  # terminated or truncated
        self.alive = torch.zeros(shape, dtype=torch.bool, device=device)

    @property
    def slots(self) -> int:
        """Steps that fit."""
        return len(self.reward)

    def write(self, t: int, name: str, obs: Tensor, action: Tensor, step: Step) -> None:
        """Keep step `t` of group `name`: what was seen and done, and what followed."""
        at = t % self.slots
        self.obs[at], self.action[at], self.next_obs[at] = obs, action, step.next_obs[name]
        self.reward[at], self.alive[at] = step.reward[name], step.alive[name]
        self.terminated[at] = step.terminated[name]
        torch.logical_or(step.terminated[name], step.truncated[name], out=self.ended[at])

    def begin_anew(self, t: int, copies: Tensor) -> None:
        """Cut off the running episodes of `copies (E,)` before step `t`."""
        if t > 0:
            self.ended[(t - 1) % self.slots] |= copies.unsqueeze(1)

    def draw(self, rows: Tensor) -> Rows:
        """The transitions `rows (B,)`, counted slot by slot and copy by copy."""
        parts = (self.obs, self.action, self.reward, self.next_obs, self.terminated, self.alive)
        return Rows(*(part.flatten(0, 1).index_select(0, rows) for part in parts))

    def last(self, t: int, steps: int) -> slice | Tensor:
        """The slots of the `steps` steps before `t`, oldest first."""
        first = (t - steps) % self.slots
        if first + steps <= self.slots:
            return slice(first, first + steps)
        return torch.arange(t - steps, t, device=self.reward.device) % self.slots

    def tensors(self) -> dict[str, Tensor]:
        """Everything kept, `(slots, E, ...)` by name."""
        return vars(self)


def require_room(slots: int, copies: int, spec: EnvSpec, device: torch.device) -> None:
    """Refuse a replay that does not fit into the memory that is free, before hours of filling it."""
    per_step = sum(len(g.agents) * (8 * g.obs_size + 8 * math.prod(raw_action(g.action)[0]) + 7) for g in spec.groups)
    needed = per_step * slots * copies
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    if needed > free:
        raise UsageError(
            f"algo.buffer_size is {slots * copies}, which needs {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB "
            f"are free: set it to {int(0.8 * free / per_step)} or less."
        )


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def raw_action(action: ActionSpec) -> tuple[tuple[int, ...], torch.dtype]:
    """Trailing shape and type of a group's raw actions."""
    if isinstance(action, Discrete):
        return (), torch.int64
    return ((len(action.low),), torch.float32) if isinstance(action, Box) else ((len(action.n),), torch.int64)
