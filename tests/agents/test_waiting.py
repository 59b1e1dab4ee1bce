"""Nothing makes the host wait for the device while acting, storing and learning.

On a GPU each such wait costs more than the operation before it. They hide in innocent expressions: a tensor in an
`if`, boolean indexing, `one_hot`, distributions with validation, other optimisers. Here every operation of a whole
iteration is looked at, on the CPU, where they are called the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import NetworkConfig
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Allowed, Probe, Relay
from marl_stable.types import PerGroup
from tests.agents.loops import CPU, collect, make_agent, make_ddpg, update

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim", "bincount"}
TO_HOST = {"tolist", "numpy", "cpu", "__array__"}


class Operations(TorchDispatchMode):
    """Counts operations whose result the host must know before it can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in WAITS:
            self.found[name] += 1
        if name.startswith("index") and name != "index_select" and _by_mask(args[1]):
            self.found["index by mask"] += 1
        if name == "_to_copy" and torch.device((kwargs or {}).get("device") or args[0].device) != args[0].device:
            self.found["copy to another device"] += 1
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Any) -> bool:
    return isinstance(indices, list | tuple) and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indices)


class Calls(TorchFunctionMode):
    """Counts what reads memory without an operation: `tolist` and its like."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in TO_HOST:
            self.found[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def waits_in(work: Callable[[], Any]) -> Counter[str]:
    """What made the host wait during `work`, and how often."""
    with Calls() as calls, Operations() as operations:
        work()
    found: Counter[str] = calls.found + operations.found
    return found


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: torch.nn.functional.one_hot(x.long()),
        lambda x: torch.equal(x, x),
        lambda x: torch.nonzero(x),
        lambda x: x.to("meta"),
        lambda x: torch.distributions.Normal(x, 1.0),
    ],
)
def test_the_counter_sees_what_waits(work: Callable[[Tensor], Any]):
    assert waits_in(lambda: work(torch.arange(4.0)))


def test_the_counter_lets_pass_what_does_not():
    x = torch.arange(4.0)
    assert not waits_in(lambda: (x[torch.tensor([0, 2])], torch.where(x > 0, x, 0.0), x.masked_fill(x > 1, 0.0)))


def assert_never_waits(agent: MAPPO | MADDPG, env: BatchedEnv, obs: PerGroup) -> None:
    """In an iteration from the first step of a batch."""
    assert waits_in(lambda: collect(agent, env, obs)) == {}
    assert waits_in(lambda: update(agent, 0.5)) == {}
    assert waits_in(lambda: agent.signals(False)) == {}
    assert waits_in(lambda: agent.signals(True)) == {}


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("continuous", [False, True])
def test_a_whole_iteration_never_waits(algo: str, share: bool, continuous: bool):
    env = make("simple_spread_v3", 8, CPU, continuous_actions=continuous, max_cycles=5)
    agent = make_agent(
        env, algo, share=share, batch_size=80, normalize_reward=True, action_penalty=0.01, clip_value=0.5
    )
    obs = env.reset(1)
    obs, _ = collect(agent, env, obs)
    update(agent)
    assert_never_waits(agent, env, obs)


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
@pytest.mark.parametrize(("share", "kind"), [(True, "gru"), (False, "lstm")])
def test_nor_does_one_with_memory(algo: str, share: bool, kind: Literal["gru", "lstm"]):
    """Chunks of unequal length, and episodes that end within them."""
    env = make("simple_spread_v3", 8, CPU, max_cycles=5)
    network = NetworkConfig(hidden=(16,), recurrent=kind)
    agent = make_agent(env, algo, share=share, batch_size=80, network=network, chunk_length=4)
    obs = env.reset(1)
    obs, _ = collect(agent, env, obs)
    update(agent)
    assert_never_waits(agent, env, obs)
    player = agent.player()
    assert waits_in(lambda: player(obs)) == {}
    assert waits_in(lambda: player.ended(torch.arange(8) > 3)) == {}


@pytest.mark.parametrize("algo", ["maddpg", "matd3", "iddpg"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("continuous", [False, True])
def test_nor_do_algorithms_with_a_replay(algo: str, share: bool, continuous: bool):
    env = make("simple_speaker_listener_v4", 8, CPU, continuous_actions=continuous, max_cycles=5)
    agent = make_ddpg(env, algo, share=share, train_every=96, warm_up=96, buffer_size=160)  # a ring that wraps
    obs = env.reset(1)
    for _ in range(2):
        obs, _ = collect(agent, env, obs)
        update(agent)
    assert waits_in(lambda: collect(agent, env, obs)) == {}
    assert waits_in(lambda: update(agent, 0.5)) == {}
    assert agent.updates > 3
    assert waits_in(lambda: agent.signals(False)) == {}
    assert waits_in(lambda: agent.signals(True)) == {}


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
@pytest.mark.parametrize("game", [Allowed, Relay])
def test_nor_do_masks_and_turns(game: type[Probe], algo: str):
    env = game(8, CPU)
    off_policy: dict[str, Any] = {"train_every": 96, "warm_up": 0, "buffer_size": 160}
    agent = make_agent(env, algo, batch_size=80) if algo == "mappo" else make_ddpg(env, algo, **off_policy)
    obs = env.reset(1)
    obs, _ = collect(agent, env, obs)
    update(agent)
    assert_never_waits(agent, env, obs)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize(("algo", "kind"), [("mappo", "none"), ("mappo", "gru"), ("maddpg", "none"), ("matd3", "none")])
def test_nor_do_critics_that_pool(algo: str, kind: Literal["none", "gru"], norm: Literal["layer", "batch"]):
    env = make("simple_speaker_listener_v4", 8, CPU, max_cycles=5)
    network = NetworkConfig(hidden=(16, 16), norm=norm, recurrent=kind)
    off_policy: dict[str, Any] = {"train_every": 96, "warm_up": 0, "buffer_size": 160}
    own = {"batch_size": 80} if algo == "mappo" else off_policy
    agent = (make_agent if algo == "mappo" else make_ddpg)(env, algo, critic_input="pool", network=network, **own)
    obs = env.reset(1)
    obs, _ = collect(agent, env, obs)
    update(agent)
    assert_never_waits(agent, env, obs)


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_kl_stop_waits_once_an_epoch(epochs: int):
    env = make("simple_speaker_listener_v4", 8, CPU)
    agent = make_agent(env, batch_size=80, target_kl=1e9, update_epochs=epochs)
    collect(agent, env, env.reset(1))
    assert sum(waits_in(lambda: update(agent)).values()) == epochs


def test_the_kl_schedule_waits_once_an_update():
    env = make("simple_speaker_listener_v4", 8, CPU)
    agent = make_agent(env, batch_size=80, lr_schedule="kl")
    collect(agent, env, env.reset(1))
    assert sum(waits_in(lambda: update(agent)).values()) == 1
