"""Agents reach the known answers of the probe games, in a second each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.config import default_config, with_measures
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import NetworkConfig
from marl_stable.envs.probe import (
    GAMES,
    Aim,
    Allowed,
    Ending,
    Endless,
    Match,
    Probe,
    Recall,
    Relay,
    Remember,
    Roles,
    Silence,
)
from tests.agents.loops import CPU, greedy_return, make_agent, teach, train

GAMMA = 0.9
EVERYWHERE = [(algo, share) for algo in ("mappo", "ippo") for share in (True, False)]


def trained(game: type[Probe], algo: str, iterations: int, **settings: Any) -> tuple[MAPPO, Probe]:
    """An agent after `iterations` of 320 steps in 64 copies."""
    env = game(64, CPU)
    agent = make_agent(env, algo, gamma=GAMMA, **settings)
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, iterations)
    return agent, env


@torch.no_grad()
def first_value(agent: MAPPO, env: Probe) -> float:
    """What the critic says of first observations, in units of reward."""
    learner = agent.learners["agent"]
    seen = learner.normalized(env.reset(99)["agent"])
    value = learner.critic(seen.flatten(1) if agent.centralised else seen)
    return float((learner.value_norm.inverse(value) if agent.config.normalize_value else value).mean())


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
@pytest.mark.parametrize(("game", "iterations"), [(Match, 10), (Recall, 24)])
def test_actions_follow_observations_and_credit_goes_back(game: type[Probe], iterations: int, algo: str):
    agent, env = trained(game, algo, iterations)
    assert greedy_return(agent, env) == env.best_return
    assert first_value(agent, env) == pytest.approx(env.value(GAMMA), rel=0.05)


RAW = {"normalize_value": False, "lr": 2e-2, "update_epochs": 8}  # raw returns take longer steps to reach


@pytest.mark.parametrize(
    ("algo", "iterations", "settings"),
    [("mappo", 20, {"lr": 1e-2}), ("ippo", 20, {"lr": 1e-2}), ("mappo", 12, RAW)],
    ids=["mappo", "ippo", "raw returns"],
)
@pytest.mark.parametrize("game", [Endless, Ending])
def test_a_time_limit_is_worth_for_ever_and_an_end_nothing(
    game: type[Probe], algo: str, iterations: int, settings: dict[str, Any]
):
    agent, env = trained(game, algo, iterations, **settings)
    assert env.value(GAMMA) == pytest.approx(10.0 if game is Endless else 4.0951)
    assert first_value(agent, env) == pytest.approx(env.value(GAMMA), rel=0.05)


@pytest.mark.parametrize(("algo", "share"), EVERYWHERE)
def test_two_agents_who_see_nothing_take_different_roles(algo: str, share: bool):
    agent, env = trained(Roles, algo, 12, share=share)
    assert greedy_return(agent, env) == env.best_return


@pytest.mark.parametrize(("algo", "share"), EVERYWHERE)
def test_continuous_actions_reach_their_aim_in_any_range(algo: str, share: bool):
    agent, env = trained(Aim, algo, 16, share=share, lr=5e-3)
    assert greedy_return(agent, env) > -0.005  # an action that ignores what it sees loses 0.1


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_masks_are_obeyed_and_seen(algo: str):
    agent, env = trained(Allowed, algo, 12, lr=5e-3)
    assert greedy_return(agent, env) == env.best_return  # an action that is not allowed costs a point
    policy = agent.policy(env.reset(3))["agent"]
    assert (env.obs[..., 1:].gather(-1, policy.sample(agent.generator).unsqueeze(-1)) == 1).all()


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_a_turn_gets_what_is_paid_after_it(algo: str):
    agent, env = trained(Relay, algo, 20, lr=5e-3)
    assert greedy_return(agent, env) == env.best_return
    learner = agent.learners["agent"]
    with torch.no_grad():
        seen = learner.normalized(env.reset(99)["agent"])
        value = learner.value_norm.inverse(learner.critic(seen.flatten(1) if agent.centralised else seen))
    assert float(value[:, 0].mean()) == pytest.approx(env.value(GAMMA), rel=0.05)  # whose turn is the first


def test_without_any_reward_nothing_breaks():
    agent, env = trained(Silence, "mappo", 10, normalize_reward=True)
    assert first_value(agent, env) == pytest.approx(0, abs=1e-3)
    for part in agent.learners["agent"].state_dict().values():
        assert all(x.isfinite().all() for key, x in part.items() if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("game", [Match, Roles], ids=lambda game: game.__name__)
def test_the_plain_algorithm_learns_too(game: type[Probe]):
    plain = with_measures(default_config("mappo"), "none")
    measures = {"normalize_obs", "normalize_reward", "normalize_value", "max_grad_norm", "squash", "action_penalty"}
    settings = {name: getattr(plain, name) for name in measures}
    network = NetworkConfig(hidden=(32,), norm="none", final_init=None)
    agent, env = trained(game, "mappo", 15, network=network, **settings)
    assert greedy_return(agent, env) == env.best_return


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_the_answers_are_what_best_play_gets(game: type[Probe]):
    """Best play is looked up here, so that a game and its answer cannot be wrong together."""
    env = game(500, CPU)
    obs = env.reset(3)
    first = obs["agent"]
    total, discounted, weight = torch.zeros(500), torch.zeros(500), 1.0
    for t in range(env.length):
        seen = obs["agent"]
        if game is Aim:
            low, high = torch.tensor(Aim.action.low), torch.tensor(Aim.action.high)
            action = low + (high - low) * (0.5 + 0.4 * seen)
        elif game is Remember:
            action = (first.squeeze(-1) > 0).long()
        elif game is Roles:
            action = torch.tensor([0, 1]).expand(500, 2)
        elif game is Allowed:
            action = torch.tensor([[max(i for i in range(4) if legal[i])] for legal in seen[:, 0, 1:].tolist()])
        elif game is Relay:
            action = (seen[..., 0] > 0).long()
        else:
            action = (seen.squeeze(-1) > 0).long()
        step = env.step({"agent": action})
        assert step.done.all().item() is (t == env.length - 1)
        assert (step.next_obs is step.obs) is not step.done.all().item()
        total += step.reward["agent"].mean(1)
        discounted += weight * step.reward["agent"].mean(1)
        weight *= 1 if game is Relay and t < 2 else GAMMA  # turns of one's own count: the first is paid at 1 or 2
        obs = step.obs
    beyond = weight * env.value(GAMMA) if env.cut_off else 0.0
    torch.testing.assert_close(total, torch.full((500,), env.best_return))
    torch.testing.assert_close(discounted + beyond, torch.full((500,), env.value(GAMMA)))
    assert bool(step.truncated["agent"].all()) is env.cut_off
    assert bool(step.terminated["agent"].all()) is not env.cut_off


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_games_go_on_from_a_saved_state(game: type[Probe]):
    env, fresh = game(4, CPU), game(4, CPU)
    draw = torch.Generator().manual_seed(0)

    def action() -> dict[str, torch.Tensor]:
        if game is Aim:
            return {"agent": torch.rand(4, env.agents, 2, generator=draw)}
        return {"agent": torch.randint(2, (4, env.agents), generator=draw)}

    env.reset(1)
    env.step(action())
    obs = fresh.load_state_dict(env.state_dict())
    assert torch.equal(obs["agent"], env.obs)
    for _ in range(7):
        chosen = action()
        one, other = env.step(chosen), fresh.step(chosen)
        assert torch.equal(one.obs["agent"], other.obs["agent"])
        assert torch.equal(one.reward["agent"], other.reward["agent"])


class Gamble(Probe):
    """A choice in one step of fifty: 1 for sure, or 10 in every other case; nothing else is paid or matters."""

    length, best_return = 50, 5.0

    @classmethod
    def value(cls, gamma: float) -> float:
        return 5.0 * (1 - gamma**cls.length) / (1 - gamma) / cls.length  # the choice may come in any step

    def _begin(self) -> Tensor:
        self.when = torch.randint(self.length, self.obs.shape, generator=self.generator)
        return (self.when == 0).float()

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        lucky = torch.rand(action.shape, generator=self.generator) < 0.5
        paid = torch.where(action == 1, 10.0 * lucky, 1.0) * self.obs.squeeze(-1)
        return paid, (self.when == self.t + 1).float()


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_decided_in_few_steps_is_not_taken_for_an_outlier(seed: int):
    env = Gamble(64, CPU)
    agent = make_agent(env, "ippo", seed=seed, gamma=0.95, batch_size=3200)
    teach(agent, env, 12)
    assert greedy_return(agent, env) > 3.5  # the sure thing is 1
