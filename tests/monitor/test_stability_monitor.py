"""The monitor in loops that are not this package's: tiny ones, whole or with one fault put in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import marl_stable as ms
from marl_stable.diagnosing import diagnose_run
from tests.agents.test_waiting import waits_in

Reward = Callable[[int, Tensor], Tensor]


def mlp(inputs: int, outputs: int, hidden: int = 2, unit: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    sizes = [inputs, *[16] * hidden]
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), unit())]
    return nn.Sequential(*layers, nn.Linear(16, outputs))


@dataclass
class Bandit:
    """Actor-critic on a game of one step: 32 random observations, paid 1 for the best of three actions."""

    lr: float = 3e-3
    calls: int = 200
    every: int = 5
    actor: nn.Module = field(default_factory=lambda: mlp(4, 3))
    actor_optimizer: torch.optim.Optimizer | None = None
    observe: Callable[[int, Tensor], Tensor] = lambda i, obs: obs
    pay: Reward = lambda i, reward: reward
    critic_loss: Reward = lambda i, loss: loss

    def run(self, **handed: Any) -> ms.StabilityMonitor:
        draw = torch.Generator().manual_seed(0)
        critic, target = mlp(4, 1), torch.randn(4, 3, generator=draw)
        actor_optimizer = self.actor_optimizer or torch.optim.Adam(self.actor.parameters(), self.lr)
        critic_optimizer = torch.optim.Adam(critic.parameters(), self.lr)
        monitor = ms.StabilityMonitor(self.every, num_actions=3, gamma=0.9)
        monitor.watch("actor", self.actor, actor_optimizer)
        monitor.watch("critic", critic, critic_optimizer)
        for i in range(self.calls):
            obs = torch.randn(32, 4, generator=draw)
            best = (obs @ target).argmax(1)
            obs = self.observe(i, obs)
            logits = self.actor(obs).log_softmax(-1)
            action = (logits.detach().exp().nan_to_num(1.0) + 1e-9).multinomial(1, generator=draw)[:, 0]
            reward = self.pay(i, (action == best).float())
            value = critic(obs)[:, 0]
            log_prob = logits.gather(1, action[:, None])[:, 0]
            actor_loss = -(log_prob * (reward - value.detach())).mean()
            critic_loss = self.critic_loss(i, (value - reward).square().mean())
            actor_optimizer.zero_grad()
            critic_optimizer.zero_grad()
            (actor_loss + critic_loss).backward()
            actor_optimizer.step()
            critic_optimizer.step()
            figures: dict[str, Any] = {"actor_loss": actor_loss, "critic_loss": critic_loss, "episode_return": reward}
            steps: dict[str, Any] = {"reward": reward[None], "value": value[None], "done": torch.ones(1, 32)}
            monitor.step(observation=obs[None], action=action[None], logits=logits[None], **figures, **steps)
        return monitor


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def causes(monitor: ms.StabilityMonitor) -> list[str]:
    return [finding["cause"] for finding in monitor.report()["findings"]]


def seen(monitor: ms.StabilityMonitor, signal: str, **where: Any) -> np.ndarray:
    (series,) = monitor._journal.recording().series(signal, **where)
    return series.values


def near(values: Any, rel: float = 1e-4) -> Any:
    """Float32 on one side."""
    return pytest.approx(values, rel=rel)


# ---- what it says of loops


def test_a_healthy_loop_is_healthy() -> None:
    report = Bandit().run().report()
    assert (report["verdict"], report["findings"], report["symptoms"]) == ("healthy", [], [])
    assert len(report["checked"]) > 20
    assert report["return"] > 0.8


def test_a_gradient_spike_is_named_with_its_network_and_step() -> None:
    monitor = Bandit(critic_loss=lambda i, loss: loss * (1e6 if i == 120 else 1)).run()
    finding = monitor.report()["findings"][0]
    assert finding["cause"] == "exploding_gradients"
    assert finding["where"]["network"] == "critic"
    assert 120 <= finding["onset_steps"] <= 130


def detached() -> nn.Module:
    class Detach(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    actor = mlp(4, 3)
    actor.insert(2, Detach())
    return actor


def test_a_layer_that_no_gradient_reaches_is_named() -> None:
    finding = Bandit(actor=detached()).run().report()["findings"][0]
    assert (finding["cause"], finding["where"]["layer"]) == ("untrained_parameters", "0")


def test_a_layer_that_the_optimiser_does_not_have_is_named() -> None:
    actor = mlp(4, 3)
    rest = torch.optim.Adam(list(actor.parameters())[2:], 3e-3)
    finding = Bandit(actor=actor, actor_optimizer=rest).run().report()["findings"][0]
    assert (finding["cause"], finding["where"]["layer"]) == ("untrained_parameters", "0")


def dead() -> nn.Module:
    actor = mlp(4, 3, unit=nn.ReLU)
    for layer in (actor[0], actor[2]):
        nn.init.constant_(layer.bias, -9.0)  # type: ignore[arg-type]
    return actor


def nan_now_and_then(i: int, reward: Tensor) -> Tensor:
    return torch.where(torch.arange(32) == 3, torch.nan, reward) if i > 100 and i % 7 == 0 else reward


def stuck(i: int, obs: Tensor) -> Tensor:
    return obs if i < 100 else torch.cat([torch.full_like(obs[:, :1], 3.0), obs[:, 1:]], 1)


@pytest.mark.parametrize(
    ("cause", "loop"),
    [
        pytest.param("learning_rate_too_high", lambda: Bandit(lr=30.0), id="learning rate"),
        pytest.param("reward_non_finite", lambda: Bandit(pay=nan_now_and_then), id="NaN rewards"),
        pytest.param("observation_constant", lambda: Bandit(observe=lambda i, x: torch.ones_like(x)), id="blind"),
        pytest.param("observation_constant", lambda: Bandit(observe=stuck), id="stuck feature"),
        pytest.param(
            "observation_scale", lambda: Bandit(observe=lambda i, x: x * torch.tensor([1e5, 1, 1, 1])), id="scale"
        ),
        pytest.param("no_reward_signal", lambda: Bandit(pay=lambda i, r: r * 0), id="no reward"),
        pytest.param("reward_scale_too_small", lambda: Bandit(pay=lambda i, r: r * 1e-4), id="small rewards"),
    ],
)
def test_a_fault_is_named_first(cause: str, loop: Callable[[], Bandit]) -> None:
    assert causes(loop().run())[0] == cause


def test_dead_units_are_named_first() -> None:
    assert causes(Bandit(actor=dead(), calls=120).run())[0] == "dormant_units"


def test_a_critic_that_diverges_is_named() -> None:
    """Q-learning on its own next value, without an end or a target network, too fast."""
    q = mlp(4, 1)
    optimizer = torch.optim.SGD(q.parameters(), 0.5)
    monitor = ms.StabilityMonitor(5, gamma=0.99)
    monitor.watch("critic", q, optimizer)
    for _ in range(200):
        obs = torch.randn(32, 4)
        value, reward = q(obs)[:, 0], torch.rand(32)
        loss = ((value - reward - 0.99 * 1.3 * q(obs + 0.1)[:, 0].detach()) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(q.parameters(), 1.0)
        optimizer.step()
        monitor.step(loss=loss, q=value, reward=reward, observation=obs)
    assert "critic_divergence" in causes(monitor)


# ---- how signals are read


def regression(
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam, handed: bool = True, **known: Any
) -> tuple[ms.StabilityMonitor, nn.Sequential, Callable[..., Tensor]]:
    """A monitor, its network, and a function that takes one step and returns the gradient norm before clipping."""
    net = mlp(3, 1)
    opt = optimizer(net.parameters(), lr=1e-2)
    monitor = ms.StabilityMonitor(4, **known)
    monitor.watch("critic", net, opt if handed else None)
    x = torch.randn(32, 3)

    def step(scale: float = 1.0, clip: float = torch.inf) -> Tensor:
        opt.zero_grad()
        (scale * (net(x) - x[:, :1]).square().mean()).backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), clip)
        opt.step()
        return norm

    return monitor, net, step


@pytest.mark.parametrize("handed", [True, False])
def test_gradient_norms_and_steps_are_exact(handed: bool) -> None:
    monitor, net, step = regression(handed=handed)
    first = next(net.parameters()).detach().clone()
    norms = []
    for _ in range(4):
        before = [p.detach().clone() for p in net.parameters()]
        norms.append(float(step()))
        monitor.step()
    moved = torch.cat([(p - old).detach().flatten() for p, old in zip(net.parameters(), before, strict=True)]).norm()
    weight = torch.cat([p.detach().flatten() for p in net.parameters()]).norm()
    now = next(net.parameters()).detach()
    assert seen(monitor, "grad_norm") == near([np.mean(norms)])
    assert seen(monitor, "grad_norm_peak") == near([max(norms)])
    assert seen(monitor, "update_ratio") == near([float(moved / weight)])
    assert seen(monitor, "layer_weight", layer="0") == near([float(now.square().mean().sqrt())])
    assert seen(monitor, "layer_change", layer="0") == near([float((now - first).norm() / now.norm())])


def test_gradients_are_seen_though_they_are_cleared_at_once() -> None:
    monitor, net, step = regression()
    norms = []
    for _ in range(8):
        norms += [float(step()), float(step())]  # two steps a call
        net.zero_grad()
        monitor.step()
    assert seen(monitor, "grad_norm") == near([np.mean(norms[:8]), np.mean(norms[8:])])


def test_a_norm_told_by_clipping_restores_what_it_took() -> None:
    monitor, _, step = regression()
    told = [step(scale=10.0, clip=0.1) for _ in range(4)]
    monitor.step()
    monitor2, _, step = regression()
    for _ in range(4):
        monitor2.step(grad_norm=step(scale=10.0, clip=0.1))
    assert min(told) > 1
    assert seen(monitor2, "grad_norm_peak") == near([float(max(told))], rel=0.5)
    monitor3, _, step = regression()
    for _ in range(4):
        step(scale=10.0, clip=0.1)
        monitor3.step()
    assert seen(monitor3, "grad_norm_peak") == near([0.1])


def test_adam_is_read_as_it_remembers() -> None:
    monitor, net, step = regression()
    for _ in range(4):
        step()
        monitor.step()
    optimizer = monitor._networks["critic"].optimizer
    assert optimizer is not None
    moments = [optimizer.state[p]["exp_avg_sq"] / (1 - 0.999**4) for p in net.parameters()]
    memory = float(sum(v.sum() for v in moments)) ** 0.5
    assert seen(monitor, "adam_memory") == near(seen(monitor, "grad_norm") / memory)
    assert seen(monitor, "layer_grad", layer="0") == near([float(moments[0].mean().sqrt())])
    assert seen(monitor, "eps_frozen") == [0]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW, torch.optim.Adagrad])
def test_any_optimiser_will_do(kind: Callable[..., torch.optim.Optimizer]) -> None:
    monitor, _, step = regression(kind)
    for _ in range(4):
        step()
        monitor.step()
    remembers = kind in (torch.optim.RMSprop, torch.optim.AdamW)
    assert ("adam_memory" in monitor._journal.recording()) is remembers
    assert (seen(monitor, "layer_grad", layer="2") > 0).all()


def test_hooks_exist_only_near_a_reading_and_never_after_close() -> None:
    monitor, net, step = regression()
    hooks = []
    for _ in range(8):
        hooks.append(len(net[2]._forward_pre_hooks))
        step()
        monitor.step()
    assert hooks == [0, 0, 0, 1] * 2
    assert len(seen(monitor, "dormant", layer="0")) == 2
    assert len(seen(monitor, "effective_rank")) == 1  # dear, so not at every reading
    monitor.close()
    step()
    assert not any(layer._forward_pre_hooks for layer in net)
    assert not monitor._networks["critic"].norms


def test_returns_are_summed_by_episode_and_values_judged_by_them() -> None:
    reward = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    done = torch.tensor([[0], [0], [1], [0], [0]])
    outcome = [1 + 1 + 1, 2 + 2, 4]  # gamma 0.5
    monitor = ms.StabilityMonitor(1, gamma=0.5)
    value = torch.tensor([[3.0], [4.0], [4.0], [9.0], [9.0]])
    monitor.step(reward=reward, done=done, value=value)
    assert seen(monitor, "return_mean") == near([np.mean(outcome)])
    assert seen(monitor, "explained_variance") == near([1.0])
    single = ms.StabilityMonitor(5, gamma=0.5)
    for r, d, v in zip(reward[:, 0].tolist(), done[:, 0].tolist(), value[:, 0].tolist(), strict=True):
        single.step(reward=r, done=bool(d), value=v)
    for signal in ("return_mean", "return_std", "explained_variance", "td_scale", "reward_mean"):
        assert seen(single, signal) == near(seen(monitor, signal))


def test_time_limits_that_pass_for_terminations_are_named() -> None:
    monitor = ms.StabilityMonitor(1)
    for i in range(20):
        terminated = (torch.arange(40) % 10 == 9).float()[:, None]
        monitor.step(reward=torch.randn(40, 1), terminated=terminated, truncated=torch.zeros(40, 1), steps=40 * i)
    assert "time_limit_as_termination" in causes(monitor)


def test_ratios_of_a_policy_gradient() -> None:
    monitor = ms.StabilityMonitor(2)
    monitor.step(log_ratio=torch.zeros(8), first_minibatch=True)
    monitor.step(log_ratio=torch.tensor([-3.0, *[0.0] * 7]))
    assert seen(monitor, "log_ratio_peak") == [3]
    assert seen(monitor, "first_ratio") == [0]
    w = np.exp([-3.0, *[0.0] * 7])
    assert seen(monitor, "effective_samples") == near([(1 + w.sum() ** 2 / (8 * (w**2).sum())) / 2])


def test_agents_stay_apart() -> None:
    monitor = ms.StabilityMonitor(1, agents=("left", "right"), num_actions=2)
    reward = torch.stack([torch.zeros(16), torch.ones(16)], 1)
    action = torch.stack([torch.zeros(16), torch.arange(16) % 2], 1).long()
    obs = torch.randn(16, 2, 3)
    monitor.step(reward=reward, action=action, observation=obs)
    assert [seen(monitor, "reward_mean", agent=name) for name in ("left", "right")] == [[0], [1]]
    assert [seen(monitor, "sameness", agent=name) for name in ("left", "right")] == [[1], [0.5]]
    assert seen(monitor, "actions/responsiveness", agent="left") == [0]
    assert seen(monitor, "obs_mean", agent="right", feature=2) == near([float(obs[:, 1, 2].mean())])
    with pytest.raises(ms.UsageError, match=r"reward has shape \(16,\); its last axis must be the 2 agents"):
        monitor.step(reward=torch.zeros(16))


def test_actions_at_their_bounds() -> None:
    monitor = ms.StabilityMonitor(1, action_low=[0.0, -2.0], action_high=[1.0, 2.0])
    monitor.step(action=np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert seen(monitor, "saturation", dimension=0) == [1]
    assert seen(monitor, "saturation", dimension=1) == [0]
    assert seen(monitor, "sameness") == [0.5]


def test_an_agent_that_repeats_one_action_shows_it() -> None:
    monitor = ms.StabilityMonitor(1, num_actions=4)
    for _ in range(10):
        monitor.step(action=torch.zeros(32, dtype=torch.long), observation=torch.randn(32, 3), reward=torch.randn(32))
    assert "repeated_action" in monitor.report()["symptoms"]


# ---- what it costs, and what it leaves alone


def test_it_waits_for_no_device_but_at_readings() -> None:
    monitor, _, step = regression(torch.optim.SGD, num_actions=3)  # torch's Adam waits where it is not `capturable`
    x = torch.randn(16, 1)

    def call() -> None:
        step()
        given: dict[str, Any] = {
            "reward": x,
            "value": x,
            "done": x > 1,
            "observation": x[..., None],
            "log_ratio": x[:, 0],
        }
        monitor.step(critic_loss=x.mean(), episode_return=x, action=(x > 0).long(), **given)

    for _ in range(2):
        assert [waits_in(call) for _ in range(3)] == [{}] * 3
        waits_in(call)
    assert len(monitor._journal.steps) == 2


def test_a_loop_is_the_same_with_and_without_it() -> None:
    nets = []
    for watched in (False, True):
        torch.manual_seed(3)
        monitor, net, step = regression()
        for _ in range(9):
            step()
            if watched:
                monitor.step(loss=1.0, reward=torch.zeros(4), grad_norm=1.0)
        nets.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*nets)


def test_buffers_may_be_written_into_again() -> None:
    monitor = ms.StabilityMonitor(2)
    buffer, array = torch.ones(8), np.ones((8, 2))
    monitor.step(reward=buffer, observation=array)
    buffer.zero_()
    array[:] = 0
    monitor.step()
    assert seen(monitor, "reward_mean") == [1]
    assert seen(monitor, "obs_mean", feature=1) == [1]


# ---- files and mistakes


def test_what_is_saved_is_diagnosed_alike(tmp_path: Path) -> None:
    monitor = Bandit(pay=nan_now_and_then).run()
    monitor.save(tmp_path / "run")
    monitor.save(tmp_path / "run")
    found, report = diagnose_run(tmp_path / "run"), monitor.report()
    assert [f["cause"] for f in found["findings"]] == [f["cause"] for f in report["findings"]]
    assert {part: found[part] for part in ("verdict", "symptoms", "checked")} == {
        part: report[part] for part in ("verdict", "symptoms", "checked")
    }
    assert (tmp_path / "run" / "metrics.csv").read_text().startswith("steps,seconds,")


def test_a_monitor_that_saw_nothing_says_so() -> None:
    report = ms.StabilityMonitor().report()
    assert (report["verdict"], report["checked"], report["return"]) == ("healthy", [], None)


def test_mistakes_are_told() -> None:
    net, other = mlp(2, 1), mlp(2, 1)
    monitor = ms.StabilityMonitor(1)
    monitor.watch("actor", net)
    for says, work in (
        ("every=0", lambda: ms.StabilityMonitor(0)),
        ("action_low and action_high belong together", lambda: ms.StabilityMonitor(action_low=0)),
        ("watch.'actor'.: this name is taken", lambda: monitor.watch("actor", net)),
        ("holds no parameter", lambda: monitor.watch("x", net, torch.optim.SGD(other.parameters(), 0.1))),
        (
            "a lazy layer has no weights yet",
            lambda: monitor.watch("x", nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2))),
        ),
        ("no parameter that is trained", lambda: monitor.watch("x", nn.Tanh())),
        ("str is no torch.optim.Optimizer", lambda: monitor.watch("x", net, "adam")),  # type: ignore[arg-type]
        ("reward is dict", lambda: monitor.step(reward={})),
    ):
        with pytest.raises(ms.UsageError, match=says):
            work()
    monitor.step(steps=100)
    with pytest.raises(ms.UsageError, match="steps=3 lies before 100"):
        monitor.step(steps=3)


def test_many_readings_at_the_same_steps_go_on() -> None:
    monitor = ms.StabilityMonitor(1)
    for _ in range(1_000):
        monitor.step(steps=2_048, loss=1.0)
    monitor.step(steps=2_100, loss=1.0)  # what was made up to tell readings apart lies beyond that
    monitor.step(loss=1.0)
    monitor.step(steps=4_096, loss=1.0)
    steps = monitor._journal.recording().steps
    assert steps.tolist() == [*range(2_048, 3_050), 4_096]
    with pytest.raises(ms.UsageError, match="steps=4000 lies before 4096"):
        monitor.step(steps=4_000)


class ByKeyword(nn.Module):
    """Hands its layers what they are given by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=self.first(input=x).relu())  # type: ignore[no-any-return]


def test_layers_called_by_keyword_are_seen() -> None:
    net = ByKeyword()
    monitor = ms.StabilityMonitor(1)
    monitor.watch("actor", net)
    for _ in range(2):
        net(torch.randn(20, 4)).sum().backward()
        monitor.step()
    assert len(seen(monitor, "dormant", layer="first")) == 2
    with pytest.raises(TypeError, match="linear"):  # the layer's own word, and not one of the hook
        net.first(input=None)


def test_sparse_gradients_have_the_norm_of_the_rows_that_were_used() -> None:
    table = nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())
    monitor = ms.StabilityMonitor(1)
    monitor.watch("actor", table, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        table(torch.tensor([1, 2, 2])).sum().backward()
        optimizer.step()
        monitor.step()
    assert seen(monitor, "grad_norm") == near([20**0.5] * 4)  # four numbers of 1, and four of 2
    assert len(seen(monitor, "layer_grad")) == 4


@pytest.mark.parametrize(
    ("handed", "said"),
    [
        ({"obs": np.zeros((8, 4))}, r"step\(obs=...\): there is no such argument; did you mean observation"),
        ({"rewards": 1.0}, "did you mean reward"),
        ({"dones": np.zeros(8)}, "did you mean done"),
        ({"actions": np.zeros(8)}, "did you mean action"),
        ({"log_ratios": np.zeros(8)}, "did you mean log_ratio"),
        ({"terminations": np.zeros(8)}, "did you mean terminated"),
        ({"pictures": np.zeros((8, 4))}, r"taken for a loss, not shape \(8, 4\)"),
    ],
)
def test_what_is_no_loss_is_not_taken_for_one(handed: dict[str, Any], said: str) -> None:
    with pytest.raises(ms.UsageError, match=said):
        ms.StabilityMonitor().step(loss=1.0, **handed)


def test_losses_may_have_any_other_name() -> None:
    monitor = ms.StabilityMonitor(every=1)
    monitor.step(q1_loss=1.0, loss_v=1.0, losses=2.0, world_model=torch.tensor(2.0), critic_loss=[1.0, 3.0])
    assert monitor.report()["verdict"] == "healthy"
