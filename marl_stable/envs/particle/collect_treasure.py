"""`particle/collect_treasure_v1`. Shapes: E copies, C collectors, D deposits, N agents, T treasures, V viewers, S seen.

Entities: collectors, deposits, treasures; they pass through each other. A treasure that is picked up is away for a
step, far from everything and unseen, and then lies somewhere else, of another kind perhaps. Kinds are numbered as their
deposits are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from marl_stable.envs.particle.nearest import Seen
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
        held = self._held().permute(2, 0, 1).to(torch.float32)  # (E, C, D)
        place, velocity = (state.T.unflatten(1, (-1, 2)) for state in (self.pos, self.vel))
        own = torch.cat([place[:, self.agents], velocity], dim=-1).to(torch.float32)  # (E, N, 4)
        others = self._others(place[:, self.agents], torch.cat([velocity.to(torch.float32), self._marks(held)], dim=-1))
        treasures = self._treasures(place)
        collector = [own[:, self.collectors], held, others[:, self.collectors], treasures[:, self.collectors]]
        deposit = [own[:, self.deposits], others[:, self.deposits], treasures[:, self.deposits]]
        return {"collector": torch.cat(collector, dim=-1), "deposit": torch.cat(deposit, dim=-1)}

    def _marks(self, held: Tensor) -> Tensor:
        """`(E, N, 2D)`: which kind a deposit is for, and which a collector holds (E, C, D)."""
        kinds = torch.eye(held.shape[-1], device=self.device).expand(self.num_envs, -1, -1)
        collectors = torch.cat([torch.zeros_like(held), held], dim=-1)
        return torch.cat([collectors, torch.cat([kinds, torch.zeros_like(kinds)], dim=-1)], dim=1)

    def _others(self, place: Tensor, known: Tensor) -> Tensor:
        """`(E, N, O)`: of each other agent at `place` (E, N, 2) where it is, and what else is `known` (E, N, F)."""
        seen = Seen(place, place)
        seen.distance.diagonal(dim1=1, dim2=2).fill_(-1)  # itself first, to be left out
        return seen.nearest_first(known)[:, :, 1:].flatten(2)

    def _treasures(self, place: Tensor) -> Tensor:
        """`(E, N, O)`: where each treasure is, and its kind; zeros, at the end, for those that are away."""
        seen = Seen(place[:, self.agents], place[:, self.treasures])
        seen.distance.masked_fill_(~self.present.T.unsqueeze(1), torch.inf)
        kind = (self.kind.unsqueeze(1) == self._kinds) & self.present.unsqueeze(1)  # (T, D, E)
        return seen.nearest_first(kind.permute(2, 0, 1).to(torch.float32)).flatten(2)

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
