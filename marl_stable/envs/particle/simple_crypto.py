"""`particle/simple_crypto_v3`. Shapes: E copies, W words.

Nobody moves: agents and landmarks have places, as in mpe2, but no observation or reward depends on them. A message is
the number of a landmark, and so is the key, of which Alice and Bob know.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.particle.world import ParticleEnv, actions, said
from marl_stable.types import EnvSpec, Group, PerGroup

LANDMARKS = 2
WORDS = 4


class SimpleCrypto(ParticleEnv):
    """Alice sends Bob a message under a key, so that Eve, who hears it too, cannot read it.

    As in mpe2, who says nothing at all (zeros for all words, possible in continuous actions) pays nothing for it.
    """

    REMEMBERED = ("message", "key", "word")

    def __init__(
        self, num_envs: int, device: torch.device, max_cycles: int = 25, continuous_actions: bool = False
    ) -> None:
        action = actions(WORDS, continuous_actions)
        groups = (
            Group("eve", ("eve_0",), WORDS, action, "eve"),
            Group("bob_0", ("bob_0", "alice_0"), 2 * WORDS, action, "alice_bob"),
        )
        spec = EnvSpec("particle/simple_crypto_v3", ("eve_0", "bob_0", "alice_0"), groups)
        super().__init__(spec, num_envs, device, max_cycles, entities=3 + LANDMARKS, movers=range(0))
        self.message = torch.zeros(num_envs, WORDS, device=device)
        self.key = torch.zeros_like(self.message)
        self.word = torch.zeros_like(self.message)  # what Alice said last

    def _begin(self) -> None:
        self._place(self._draw(2 * self.entities))
        which = torch.randint(LANDMARKS, (self.num_envs, 2), generator=self.generator, device=self.device)
        self.message, self.key = said(which, WORDS).unbind(dim=1)
        self.word = torch.zeros_like(self.word)

    def _advance(self, action: PerGroup) -> PerGroup:
        bob, self.word = said(action["bob_0"], WORDS).unbind(dim=1)
        eve = self._missed(said(action["eve"], WORDS)[:, 0])
        both = eve - self._missed(bob)
        return {"eve": -eve.to(torch.float32), "bob_0": both.to(torch.float32).repeat(1, 2)}

    def _missed(self, word: Tensor) -> Tensor:
        """`(E, 1)`: squared distance from the message to what is said (E, W); 0 for silence."""
        squares = (word.to(torch.float64) - self.message).square().sum(dim=1, keepdim=True)
        return squares * word.any(dim=1, keepdim=True)

    def _observe(self) -> PerGroup:
        bob, alice = torch.cat([self.key, self.word], dim=1), torch.cat([self.message, self.key], dim=1)
        return {"eve": self.word.unsqueeze(1), "bob_0": torch.stack([bob, alice], dim=1)}
