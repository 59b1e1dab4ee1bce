"""The same work for two libraries: a peer's settings, our flags that repeat them, and what either comes to.

Our measures of stability stay on, so that ours does all of the peer's work and watches itself besides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from marl_stable import configs
from marl_stable.agents.config import MADDPGConfig, MAPPOConfig

BENCHMARL_NETWORK = {"hidden": [256, 256], "norm": "none", "activation": "tanh"}  # its default MLP
JAXMARL_NETWORK = {"hidden": [64, 64], "norm": "none", "activation": "tanh"}  # of its published IPPO

ON_POLICY = {
    "on_policy_collected_frames_per_batch": 6_000,
    "on_policy_n_envs_per_worker": 10,
    "on_policy_n_minibatch_iters": 45,
    "on_policy_minibatch_size": 400,
}  # BenchMARL's defaults
OFF_POLICY = {
    "off_policy_collected_frames_per_batch": 6_000,
    "off_policy_n_envs_per_worker": 10,
    "off_policy_n_optimizer_steps": 1_000,
    "off_policy_train_batch_size": 128,
}  # BenchMARL's defaults
LARGE = {
    "on_policy_collected_frames_per_batch": 60_000,
    "on_policy_n_envs_per_worker": 600,
    "on_policy_n_minibatch_iters": 10,
    "on_policy_minibatch_size": 4_096,
}


class Work(NamedTuple):
    """What one iteration comes to."""

    copies: int
    steps: int  # of the environment, all copies together
    updates: int  # steps of each optimiser
    rows: int  # states in all of them together, each of which all agents saw


def benchmarl_work(experiment: dict[str, int]) -> Work:
    """Of BenchMARL with these settings: a batch is seen whole in each epoch, a replay is drawn from."""
    if "on_policy_minibatch_size" in experiment:
        steps, epochs = experiment["on_policy_collected_frames_per_batch"], experiment["on_policy_n_minibatch_iters"]
        parts = -(-steps // experiment["on_policy_minibatch_size"])
        return Work(experiment["on_policy_n_envs_per_worker"], steps, epochs * parts, epochs * steps)
    updates = experiment["off_policy_n_optimizer_steps"]
    return Work(
        experiment["off_policy_n_envs_per_worker"],
        experiment["off_policy_collected_frames_per_batch"],
        updates,
        updates * experiment["off_policy_train_batch_size"],
    )


def jaxmarl_work(given: dict[str, Any]) -> Work:
    """Of the IPPO loop with these settings."""
    steps = given["copies"] * given["steps"]
    return Work(given["copies"], steps, given["epochs"] * given["minibatches"], given["epochs"] * steps)


def our_work(flags: dict[str, Any]) -> Work:
    """Of `ms.train` with these flags."""
    config = configs.resolve(configs.nested(flags))
    copies, algo = config.env.num_envs, config.algo
    assert isinstance(copies, int)
    if isinstance(algo, MADDPGConfig):
        steps = max(1, algo.train_every // copies) * copies
        updates = steps // algo.steps_per_update
        return Work(copies, steps, updates, updates * algo.batch_size)
    assert isinstance(algo, MAPPOConfig)
    steps = max(1, algo.batch_size // copies) * copies
    return Work(copies, steps, algo.update_epochs * algo.num_minibatches, algo.update_epochs * steps)


def as_benchmarl(algo: str, env: str, experiment: dict[str, int], **kwargs: Any) -> dict[str, Any]:
    """Our flags for the work of a BenchMARL experiment; `kwargs` are the environment's."""
    work = benchmarl_work(experiment)
    flags = {"algo": algo, "env": env, "env__kwargs": kwargs, "env__num_envs": work.copies}
    if algo == "maddpg":
        return flags | _network(BENCHMARL_NETWORK) | {
            "algo__train_every": work.steps,
            "algo__steps_per_update": work.steps // work.updates,
            "algo__batch_size": work.rows // work.updates,
            "algo__buffer_size": 1_000_000,
            "algo__warm_up": 0,
        }  # fmt: skip
    return flags | _network(BENCHMARL_NETWORK) | _ppo(work)


def as_jaxmarl(given: dict[str, Any]) -> dict[str, Any]:
    """Our flags for the work of the IPPO loop over JaxMARL's environment."""
    flags = {"algo": "ippo", "env": "particle/simple_spread_v3", "env__num_envs": given["copies"], "algo__gamma": 0.99}
    return flags | _network(JAXMARL_NETWORK) | _ppo(jaxmarl_work(given))


def _ppo(work: Work) -> dict[str, Any]:
    epochs = work.rows // work.steps
    sizes = {"batch_size": work.steps, "update_epochs": epochs, "num_minibatches": work.updates // epochs}
    return {f"algo__{key}": value for key, value in sizes.items()}


def _network(network: dict[str, Any]) -> dict[str, Any]:
    return {f"algo__network__{key}": value for key, value in network.items()}
