"""GRU and LSTM against torch's own and against plain loops: gates, resets, agents apart, and how they begin."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.actors import Actor
from marl_stable.networks.body import Network
from marl_stable.networks.critics import CentralCritic, LocalCritic
from marl_stable.networks.per_agent import PerAgent
from marl_stable.networks.recurrent import GATES, Recurrent
from marl_stable.types import Box, Discrete, Group
from tests.networks.singles import like_agent

L, N, A, H = 7, 4, 3, 6
KINDS: tuple[Literal["gru", "lstm"], ...] = ("gru", "lstm")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=draw(seed))


def cell(kind: Literal["gru", "lstm"], agents: int | None = None, norm: bool = False) -> Recurrent:
    """A cell whose every parameter is something."""
    made = Recurrent(kind, H, norm, agents, draw())
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=10 + i))
    return made


def never() -> Tensor:
    return torch.zeros(L, N, 1, dtype=torch.bool)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_torchs_own_with_its_gradients(kind: Literal["gru", "lstm"]):
    ours = cell(kind)
    theirs = nn.GRU(H, H) if kind == "gru" else nn.LSTM(H, H)
    with torch.no_grad():
        for linear, name in ((ours.seen, "ih"), (ours.remembered, "hh")):
            getattr(theirs, f"weight_{name}_l0").copy_(linear.weight.T)
            getattr(theirs, f"bias_{name}_l0").copy_(linear.bias)
    x, memory = normal(L, N, H), normal(N, ours.memory_size, seed=2)
    out, memories = ours(x.flatten(0, 1), memory, never())
    start = tuple(part.contiguous().unsqueeze(0) for part in memory.chunk(len(memory[0]) // H, -1))
    expected, end = theirs(x, start[0] if kind == "gru" else start)
    torch.testing.assert_close(out.unflatten(0, (L, N)), expected, atol=1e-5, rtol=1e-5)
    last = end[0] if kind == "gru" else torch.cat(end, dim=-1)[0]
    torch.testing.assert_close(memories[-1], last, atol=1e-5, rtol=1e-5)
    (mine,) = torch.autograd.grad(out.square().sum(), [ours.remembered.weight])
    (other,) = torch.autograd.grad(expected.square().sum(), [dict(theirs.named_parameters())["weight_hh_l0"]])
    torch.testing.assert_close(mine, other.T, atol=1e-4, rtol=1e-4)


def by_hand(network: Network, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """Row by row and step by step, with the gates one at a time."""
    core = network.recurrent
    assert core is not None
    outs, memories = torch.zeros(L, N, 2), torch.zeros(L, N, core.memory_size)
    for n in range(N):
        held = memory[n]
        for t in range(L):
            if begins[t, n]:
                held = torch.zeros_like(held)
            seen = network.hidden(x[t, n].unsqueeze(0))[0] @ core.seen.weight + core.seen.bias
            kept = held[:H] @ core.remembered.weight + core.remembered.bias
            s, k = seen.split(H), kept.split(H)
            if core.kind == "gru":
                reset, update = torch.sigmoid(s[0] + k[0]), torch.sigmoid(s[1] + k[1])
                held = (1 - update) * torch.tanh(s[2] + reset * k[2]) + update * held
            else:
                enter, forget, leave = (torch.sigmoid(s[i] + k[i]) for i in (0, 1, 3))
                inner = forget * held[H:] + enter * torch.tanh(s[2] + k[2])
                held = torch.cat([leave * torch.tanh(inner), inner])
            memories[t, n] = held
            outs[t, n] = network.final(core.norm(held[:H].unsqueeze(0)))[0]
    return outs, memories


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_a_slow_loop_that_forgets_where_episodes_begin(kind: Literal["gru", "lstm"], norm: str):
    config = NetworkConfig(hidden=(8, H), norm=norm, final_init=None, recurrent=kind)  # type: ignore[arg-type]
    network = Network(5, 2, config, None, draw())
    x, memory = normal(L, N, 5), normal(N, network.memory_size, seed=2)
    begins = torch.rand(L, N, generator=draw(3)) < 0.3
    assert begins[1:].any()
    out, memories = network.sequence(x.flatten(0, 1), memory, begins.unsqueeze(-1))
    expected, expected_memories = by_hand(network, x, memory, begins)
    torch.testing.assert_close(out.unflatten(0, (L, N)), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(memories, expected_memories, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_one_by_one_are_the_sequence(kind: Literal["gru", "lstm"]):
    made, x = cell(kind), normal(L, N, H)
    begins = torch.rand(L, N, 1, generator=draw(3)) < 0.3
    memory = normal(N, made.memory_size, seed=2)
    out, memories = made(x.flatten(0, 1), memory, begins)
    for t in range(L):
        single, after = made(x[t], memory, begins[t : t + 1])
        torch.testing.assert_close(single, out.unflatten(0, (L, N))[t], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(after[0], memories[t], atol=1e-6, rtol=1e-5)
        memory = after[0]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_agents_apart_are_single_cells(kind: Literal["gru", "lstm"], norm: bool):
    made = cell(kind, A, norm)
    x, memory = normal(A, L * N, H), normal(A, N, made.memory_size, seed=2)
    begins = torch.rand(L, N, 1, generator=draw(3)) < 0.3
    out, memories = made(x, memory, begins)
    for a in range(A):
        single = like_agent(Recurrent(kind, H, norm, None, draw(5)), made, a)
        one, after = single(x[a], memory[a], begins)
        torch.testing.assert_close(out[a], one, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(memories[a], after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_a_number_is_forgotten_with_its_episode(kind: Literal["gru", "lstm"]):
    made = cell(kind)
    begins = never()
    begins[3, 0] = True
    x = normal(L, N, H)
    x[1, 0] = torch.nan
    out = made(x.flatten(0, 1), torch.zeros(N, made.memory_size), begins)[0].unflatten(0, (L, N))
    assert out[1:3, 0].isnan().all()
    assert out[3:].isfinite().all()
    assert out[:, 1:].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_back_to_where_the_episode_begins_and_no_further(kind: Literal["gru", "lstm"]):
    made = cell(kind)
    x, memory = normal(L, N, H).requires_grad_(), torch.zeros(N, made.memory_size, requires_grad=True)
    begins = never()
    begins[2, 0] = True
    out = made(x.flatten(0, 1), memory, begins)[0].unflatten(0, (L, N))
    seen, held = torch.autograd.grad(out[-1].sum(), [x, memory])
    assert seen[:2, 0].eq(0).all()
    assert held[0].eq(0).all()
    assert seen[2:, 0].abs().sum(-1).gt(0).all()
    assert seen[:, 1:].abs().sum(-1).gt(0).all()
    assert held[1:].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("agents", [None, A])
@pytest.mark.parametrize("kind", KINDS)
def test_gates_begin_orthogonal_and_an_lstm_forgets_little(kind: Literal["gru", "lstm"], agents: int | None):
    made = Recurrent(kind, H, True, agents, draw())
    for linear in (made.seen, made.remembered):
        gates = linear.weight.reshape(-1, H, GATES[kind], H).transpose(1, 2).reshape(-1, H, H)
        torch.testing.assert_close(gates @ gates.mT, torch.eye(H).expand_as(gates), atol=1e-5, rtol=0)
        assert not torch.allclose(gates[0], gates[1])
    bias = (made.seen.bias + made.remembered.bias).reshape(-1, GATES[kind], H)
    expected = torch.tensor([0.0, 1.0, 0.0, 0.0]) if kind == "lstm" else torch.zeros(3)
    assert torch.equal(bias, expected.reshape(1, -1, 1).expand_as(bias))


@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("share", [True, False])
def test_agents_remember_for_themselves(share: bool, kind: Literal["none", "gru", "lstm"]):
    body = PerAgent(A, 5, 2, NetworkConfig(hidden=(H,), final_init=None, recurrent=kind), share, draw())
    begins = torch.rand(L, N, generator=draw(3)) < 0.3
    x, memory = normal(L, N, A, 5).requires_grad_(), body.no_memory(N)
    assert memory.shape == (N, A, {"none": 0, "gru": H, "lstm": 2 * H}[kind])
    out, memories = body.sequence(x, memory, begins)
    assert memories.shape == (L, *memory.shape)
    (gradient,) = torch.autograd.grad(out[-1, 1, 2].sum(), x)
    assert gradient[:, [0, 2, 3]].eq(0).all()
    assert gradient[:, 1, :2].eq(0).all()
    assert gradient[-1, 1, 2].abs().sum() > 0
    first = body(x[0])  # a call stands where episodes begin
    torch.testing.assert_close(out[0], first)
    for t in range(1, L):
        alone, after = body.sequence(x[t : t + 1], memories[t - 1], begins[t : t + 1])
        torch.testing.assert_close(alone[0], out[t], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(after[0], memories[t], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("action", [Discrete(3), Box((0.0,), (1.0,))])
def test_actors_and_critics_have_both_forms(action: Discrete | Box):
    config = NetworkConfig(hidden=(H,), final_init=None, recurrent="gru")
    group = Group("g", ("a", "b", "c"), 5, action, "team")
    actor = Actor(group, config, False, True, draw())
    obs, begins = normal(L, N, A, 5), torch.rand(L, N, generator=draw(3)) < 0.3
    policy, memories = actor.sequence(obs, actor.no_memory(N), begins)
    assert policy.mode().shape[:2] == (L * N, A)
    torch.testing.assert_close(policy.mode()[:N], actor(obs[0]).mode())
    assert memories.shape == (L, N, A, H)
    local, central = LocalCritic(A, 5, config, True, draw()), CentralCritic(A, 15, config, draw())
    for critic, seen, width in ((local, obs, (A, H)), (central, obs.flatten(2), (H,))):
        value, memories = critic.sequence(seen, critic.no_memory(N), begins)
        assert (value.shape, memories.shape) == ((L, N, A), (L, N, *width))
        torch.testing.assert_close(value[0], critic(seen[0]))


def test_a_feed_forward_network_has_no_cell_and_draws_what_it_drew():
    plain, recurrent = (
        Network(5, 2, NetworkConfig(hidden=(H,), recurrent=kind), None, draw()) for kind in ("none", "gru")
    )
    names = [name for name, _ in plain.named_parameters()]
    assert not any("recurrent" in name for name in names)
    theirs = dict(recurrent.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in plain.named_parameters())
