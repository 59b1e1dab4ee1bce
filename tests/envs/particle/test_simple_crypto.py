"""simple_crypto beside mpe2's own: who hears what, and what silence costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.envs.particle.simple_crypto import SimpleCrypto
from marl_stable.types import PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions

NAME = "simple_crypto_v3"


def mumble(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Numbers for words, of which half are nothing at all, and some beyond their bounds."""
    spoken = {name: 1.4 * x - 0.2 for name, x in random_actions(env, obs, draw).items()}
    return {name: x * (torch.rand(*x.shape[:2], 1, generator=draw) < 0.5) for name, x in spoken.items()}


@pytest.mark.parametrize(
    ("continuous", "act"), [(False, random_actions), (True, random_actions), (True, mumble)], ids=str
)
def test_it_equals_mpe2(continuous: bool, act: Actor):
    kwargs: dict[str, Any] = {"max_cycles": 25, "continuous_actions": continuous}
    env = make(NAME, 8, **kwargs)
    env.reset(11)
    assert isinstance(env, SimpleCrypto)
    told = {tuple(pair) for pair in torch.stack([env.message.argmax(1), env.key.argmax(1)], 1).tolist()}
    assert told == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert_twins(env, NAME, act, **kwargs)


def test_what_is_paid_for_reading_and_for_misreading():
    env = make(NAME, 4)
    env.reset(1)
    assert isinstance(env, SimpleCrypto)
    right = env.message.argmax(1)
    wrong = 3 - right
    eve = torch.stack([right[0], right[1], wrong[2], wrong[3]]).unsqueeze(1)
    bob = torch.stack([right[0], wrong[1], right[2], wrong[3]])
    step = env.step({"eve": eve, "bob_0": torch.stack([bob, torch.zeros_like(bob)], 1)})
    assert step.reward["eve"][:, 0].tolist() == [0, 0, -2, -2]
    assert step.reward["bob_0"].tolist() == [[0, 0], [-2, -2], [2, 2], [0, 0]]


def test_in_numbers_silence_costs_nothing():
    env = make(NAME, 2, continuous_actions=True)
    env.reset(1)
    step = env.step({"eve": torch.zeros(2, 1, 4), "bob_0": torch.zeros(2, 2, 4)})
    assert step.reward["eve"].eq(0).all()
    assert step.reward["bob_0"].eq(0).all()


def test_eve_and_bob_hear_alice_and_the_key_is_kept_from_eve():
    env = make(NAME, 40)
    first = env.reset(1)
    assert first["eve"].eq(0).all()
    alice = torch.arange(40) % 4
    step = env.step({"eve": torch.zeros(40, 1).long(), "bob_0": torch.stack([alice * 0, alice], 1)})
    heard = torch.nn.functional.one_hot(alice, 4).float()
    assert torch.equal(step.obs["eve"][:, 0], heard)
    assert torch.equal(step.obs["bob_0"][:, 0, 4:], heard)
    assert torch.equal(step.obs["bob_0"][:, 0, :4], step.obs["bob_0"][:, 1, 4:])  # the key
    assert torch.equal(step.obs["bob_0"][:, 1], first["bob_0"][:, 1])
