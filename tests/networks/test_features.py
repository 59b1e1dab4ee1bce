"""What networks let be seen of their hidden layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.actors import DeterministicActor
from marl_stable.networks.body import ACTIVATIONS, Network
from marl_stable.networks.critics import CentralCritic, JointQ, LocalCritic, LocalQ
from marl_stable.networks.layers import Linear
from marl_stable.types import Box, Group

B, A, N, FEATURES = 5, 3, 6, 4
SHAPES: list[dict[str, Any]] = [
    {"hidden": (8, 6)},
    {"hidden": (8,), "norm": "none", "activation": "relu"},
    {"hidden": (8, 8), "norm": "batch"},
    {"hidden": (8, 8), "block": "residual"},
    {"hidden": (8, 6), "recurrent": "gru"},
    {"hidden": (8,), "norm": "none", "recurrent": "lstm"},
    {"hidden": (8, 8), "block": "residual", "recurrent": "gru"},
]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("agents", [None, A])
@pytest.mark.parametrize("settings", SHAPES)
def test_features_are_the_activations_on_the_way_to_the_answer(settings: dict[str, Any], agents: int | None):
    network = Network(FEATURES, 2, NetworkConfig(final_init=None, **settings), agents, generator())
    x = torch.randn(*(() if agents is None else (agents,)), N, FEATURES, generator=generator())
    seen: list[Tensor] = []
    kinds = tuple(ACTIVATIONS.values())
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, out: seen.append(out))
    expected = network(x)
    activations = seen.copy()
    features = network.features(x)
    assert len(features) == len(network.unit_layers()) == len(set(network.unit_layers()))
    for one, other in zip(activations, features, strict=False):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(network.final(features[-1]), expected)


@pytest.mark.parametrize(
    ("settings", "units"),
    [
        (SHAPES[0], ["hidden.0", "hidden.1"]),
        (SHAPES[3], ["block.0", "block.1", "residual"]),
        (SHAPES[4], ["hidden.0", "hidden.1", "recurrent"]),
        (SHAPES[6], ["block.0", "block.1", "recurrent"]),
    ],
)
def test_layers_of_units_have_names(settings: dict[str, Any], units: list[str]):
    assert Network(FEATURES, 2, NetworkConfig(**settings), None, generator()).unit_layers() == units


@pytest.mark.parametrize("settings", SHAPES)
def test_every_weight_matrix_has_one_name(settings: dict[str, Any]):
    network = Network(FEATURES, 2, NetworkConfig(**settings), None, generator())
    named = network.weight_matrices()
    linears = [module for module in network.modules() if isinstance(module, Linear)]
    assert {id(weight) for weight in named.values()} == {id(layer.weight) for layer in linears}
    assert len(named) == len(linears)
    assert list(named)[-1] == "final"


def test_names_of_weight_matrices():
    recurrent = Network(FEATURES, 2, NetworkConfig(**SHAPES[4]), None, generator())
    assert list(recurrent.weight_matrices()) == [
        *("hidden.0", "hidden.1", "recurrent.input", "recurrent.memory", "final")
    ]
    residual = Network(FEATURES, 2, NetworkConfig(**SHAPES[3]), None, generator())
    expected = ["hidden.0", *(f"block.{i}.{part}" for i in range(2) for part in ("expand", "contract")), "final"]
    assert list(residual.weight_matrices()) == expected


@pytest.mark.parametrize("share", [True, False])
def test_actors_and_critics_show_agents_side_by_side(share: bool):
    config = NetworkConfig(hidden=(8, 6), final_init=None)
    group = Group("g", ("a", "b", "c"), FEATURES, Box((-1.0,), (1.0,)), "g")
    obs, joint = torch.randn(B, A, FEATURES, generator=generator()), torch.randn(B, 7, generator=generator())
    actor = DeterministicActor(group, config, share, generator())
    last = actor.features(obs)[-1]
    assert [h.shape for h in actor.features(obs)] == [(B, A, 8), (B, A, 6)]
    torch.testing.assert_close(_final(actor, last, share), actor(obs).pre)
    local = LocalCritic(A, FEATURES, config, share, generator())
    torch.testing.assert_close(_final(local, local.features(obs)[-1], share).squeeze(-1), local(obs))
    twins = LocalQ(2, A, FEATURES, config, share, generator())
    torch.testing.assert_close(_final(twins, twins.features(obs)[-1], share).squeeze(-1), twins(obs)[0])
    for central, values in (
        (CentralCritic(A, 7, config, generator()), lambda c: c(joint)),
        (JointQ(2, A, 7, config, generator()), lambda c: c(joint)[0]),
    ):
        features = central.features(joint)
        assert [h.shape for h in features] == [(B, 1, 8), (B, 1, 6)]
        torch.testing.assert_close(_final(central, features[-1], True).squeeze(1), values(central))


def _final(module: nn.Module, h: Tensor, share: bool) -> Tensor:
    """`(B, A, U)` what the last layer of the first network makes of `h (B, A, H)`."""
    network = next(part for part in module.modules() if isinstance(part, Network))
    if share:
        return network.final(h.flatten(0, 1)).unflatten(0, h.shape[:2])  # type: ignore[no-any-return]
    return network.final(h.transpose(0, 1)).transpose(0, 1)  # type: ignore[no-any-return]
