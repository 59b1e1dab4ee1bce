"""`particle/collect_treasure_v1`. Shapes: E copies, C collectors, D deposits, N agents, T treasures, V viewers, S seen.

Entities: collectors, deposits, treasures; they pass through each other. A treasure that is picked up is away for a
step, far from everything and unseen, and then lies somewhere else, of another kind perhaps. Kinds are numbered as their
deposits are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from marl_stable.envs.particle.geometry import copies_first, nearest_first
from marl_stable.envs.particle.world import ParticleEnv, actions, require_count
from marl_stable.types import EnvSpec, Group, PerGroup

NOTHING = -1
AWAY = -999.0
COLLECTOR, DEPOSIT, TREASURE = 0.05, 0.075, 0.025  # radii


class CollectTreasure(ParticleEnv):
    """Collectors bring treasures, one at a time, to the deposit of their kind; all are paid, and may not collide."""

    REMEMBERED = ("holding", "kind", "present")
    ACCEL: ClassVar = {"collector": 1.5, "deposit": 1.5 / 2.25}  # deposits are heavier

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        num_collectors: int = 6,
        num_deposits: int = 2,
        num_treasures: int = 6,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_count("num_collectors", num_collectors)
        require_count("num_deposits", num_deposits, most=6)
        require_count("num_treasures", num_treasures)
        collectors = tuple(f"collector_{i}" for i in range(num_collectors))
        deposits = tuple(f"deposit_{i}" for i in range(num_deposits))
        agents = collectors + deposits
        size = 4 + (len(agents) - 1) * (4 + 2 * num_deposits) + num_treasures * (2 + num_deposits)
        action = actions(5, continuous_actions)
        groups = (
            Group("collector", collectors, size + num_deposits, action, "team"),
            Group("deposit", deposits, size, action, "team"),
        )
        spec = EnvSpec("particle/collect_treasure_v1", agents, groups)
        count, movers = len(agents), range(len(agents))
        entities, max_speed = count + num_treasures, [1.0] * count
        super().__init__(spec, num_envs, device, max_cycles, entities=entities, movers=movers, max_speed=max_speed)
        self.collectors = slice(num_collectors)
        self.deposits = slice(num_collectors, count)
        self.agents, self.treasures = slice(count), slice(count, entities)
        self._kinds = torch.arange(num_deposits, device=device).unsqueeze(1)  # (D, 1)
        self.holding = torch.full((num_collectors, num_envs), NOTHING, device=device)
        self.kind = torch.zeros(num_treasures, num_envs, dtype=torch.int64, device=device)
        self.present = torch.ones(num_treasures, num_envs, dtype=torch.bool, device=device)

    def _begin(self) -> None:
        self.holding = torch.full_like(self.holding, NOTHING)
        self.present = torch.ones_like(self.present)
        agents = self._draw(2 * len(self.movers))
        treasures, self.kind = self._hide()
        self._place(torch.cat([agents, treasures]))

    def _hide(self) -> tuple[Tensor, Tensor]:
        """New places (2T, E) and kinds (T, E) of all treasures."""
        kind = torch.randint(len(self._kinds), self.kind.shape, generator=self.generator, device=self.device)
        return self._draw(2 * len(kind)) * 0.95, kind

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(torch.cat([self._push(action[g.name], self.ACCEL[g.name]) for g in self.spec.groups]))
        paid = 5 * (self._pick_up() + self._deliver())  # (E,), to everybody
        collector = paid - 0.1 * self._collectors_way() - 5 * self._collisions()
        deposit = paid - 0.1 * self._deposits_way()
        return {"collector": collector.T.to(torch.float32), "deposit": deposit.T.to(torch.float32)}

    def _pick_up(self) -> Tensor:
        """`(E,)`: how many treasures are picked up; those that were away are back.

        Treasures are picked up in their order, each by the first collector that touches it and holds nothing.
        """
        touching = self._apart(self.collectors, self.treasures) < COLLECTOR + TREASURE  # (C, T, E)
        picked = []
        for number, (kind, present) in enumerate(zip(self.kind, self.present, strict=True)):
            able = touching[:, number] & present & (self.holding == NOTHING)  # (C, E)
            first = able & (able.cumsum(dim=0) == 1)
            self.holding = torch.where(first, kind, self.holding)
            picked.append(first.any(dim=0))
        gone = torch.stack(picked)  # (T, E)
        places, kinds = self._hide()
        agents, lying = self.pos.tensor_split([2 * len(self.movers)])
        lying = torch.where(self.present.repeat_interleave(2, dim=0), lying, places)
        self.pos = torch.cat([agents, lying.masked_fill(gone.repeat_interleave(2, dim=0), AWAY)])
        self.kind = torch.where(self.present, self.kind, kinds)
        self.present = ~gone
        return gone.sum(dim=0)

    def _deliver(self) -> Tensor:
        """`(E,)`: how many collectors touch the deposit of what they hold, and hold nothing any more."""
        touching = self._apart(self.collectors, self.deposits) < COLLECTOR + DEPOSIT  # (C, D, E)
        delivered = (touching & self._held()).any(dim=1)
        self.holding = self.holding.masked_fill(delivered, NOTHING)
        return delivered.sum(dim=0)

    def _collisions(self) -> Tensor:
        """`(C, E)`: how many other collectors each touches."""
        touching = self._apart(self.collectors, self.collectors) < 2 * COLLECTOR
        return touching.sum(dim=1) - 1  # but for itself

    def _collectors_way(self) -> Tensor:
        """`(C, E)`: how far it is to the deposit of what each holds, or else to the nearest treasure, if any."""
        nearest = _least(self._apart(self.collectors, self.treasures), self.present, dim=1)
        nearest = torch.where(nearest.isinf(), 0.0, nearest)
        deposit = _least(self._apart(self.collectors, self.deposits), self._held(), dim=1)
        return torch.where(self.holding == NOTHING, nearest, deposit)

    def _deposits_way(self) -> Tensor:
        """`(D, E)`: how far it is to the nearest collector that holds what belongs there, or else to their middle."""
        nearest = _least(self._apart(self.collectors, self.deposits), self._held(), dim=0)
        place = self._places()
        middle = (place[self.deposits] - place[self.collectors].mean(dim=0)).square().sum(dim=1).sqrt()
        return torch.where(nearest.isinf(), middle, nearest)

    def _observe(self) -> PerGroup:
        """Own place and velocity, what a collector holds, then all other agents and all treasures, nearest first."""
        held = self._held().to(torch.float32)  # (C, D, E)
        velocity = self.vel.unflatten(0, (-1, 2))
        own = torch.cat([self._places()[self.agents], velocity], dim=1).to(torch.float32)  # (N, 4, E)
        around = torch.cat([self._others(held), self._treasures()], dim=1)  # (N, O, E)
        collector = torch.cat([own[self.collectors], held, around[self.collectors]], dim=1)
        deposit = torch.cat([own[self.deposits], around[self.deposits]], dim=1)
        return {"collector": copies_first(collector), "deposit": copies_first(deposit)}

    def _others(self, held: Tensor) -> Tensor:
        """`(N, O, E)`: place and velocity of each other agent, a deposit's kind, what a collector holds (C, D, E)."""
        offset = self._offset(self.agents, self.agents).to(torch.float32)  # (N, N, 2, E)
        distance = self._apart(self.agents, self.agents)
        distance.diagonal().fill_(-1)  # itself first, to be left out
        kinds = torch.eye(len(self._kinds), device=self.device).unsqueeze(2).expand(-1, -1, self.num_envs)
        collector = torch.cat([torch.zeros_like(held), held], dim=1)
        deposit = torch.cat([kinds, torch.zeros_like(kinds)], dim=1)
        known = torch.cat([self.vel.unflatten(0, (-1, 2)).to(torch.float32), torch.cat([collector, deposit])], dim=1)
        features = torch.cat([offset, known.expand(len(offset), -1, -1, -1)], dim=2)  # (N, N, 4 + 2D, E)
        return nearest_first(distance, features)[:, 1:].flatten(1, 2)

    def _treasures(self) -> Tensor:
        """`(N, O, E)`: place and kind of each treasure; zeros, at the end, for those that are away."""
        offset = self._offset(self.agents, self.treasures).to(torch.float32)  # (N, T, 2, E)
        distance = torch.where(self.present, self._apart(self.agents, self.treasures), torch.inf)
        kind = (self.kind.unsqueeze(1) == self._kinds).to(torch.float32)  # (T, D, E)
        features = torch.cat([offset, kind.expand(len(offset), -1, -1, -1)], dim=2)
        return nearest_first(distance, features * self.present.unsqueeze(1)).flatten(1, 2)

    def _held(self) -> Tensor:
        """`(C, D, E)`: whether each collector holds what belongs to each deposit."""
        return self.holding.unsqueeze(1) == self._kinds

    def _places(self) -> Tensor:
        """`(M, 2, E)`."""
        places: Tensor = self.pos.unflatten(0, (-1, 2))
        return places

    def _offset(self, viewers: slice, seen: slice) -> Tensor:
        """`(V, S, 2, E)`: where each of the seen is, relative to each viewer."""
        place = self._places()
        return place[seen].unsqueeze(0) - place[viewers].unsqueeze(1)

    def _apart(self, viewers: slice, seen: slice) -> Tensor:
        """`(V, S, E)`: how far they are from each other."""
        distance: Tensor = self._offset(viewers, seen).square().sum(dim=2).sqrt()
        return distance


def _least(distance: Tensor, counts: Tensor, dim: int) -> Tensor:
    """The least of the distances that count along `dim`; infinite where none does."""
    return torch.where(counts, distance, torch.inf).amin(dim=dim)
