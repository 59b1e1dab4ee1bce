"""VMAS (Bettini et al. 2022): many copies of a physics world stepped by torch on the device, as `vmas/NAME`.

VMAS is a simulator of E worlds whose caller resets them; here each copy begins a new episode by itself, random numbers
are this instance's own, and the whole state can be saved. Every step asks the device once whether an episode ended,
since most scenarios end copies one by one; VMAS itself asks it several times per agent, to check the actions.

`env.py` is the batched environment, `single.py` one copy to be drawn. Below both, `simulator.py` is VMAS's own
environment with what it lacks; `object_state.py` finds the state of a simulator that cannot save it, `generators.py`
keeps its random numbers apart, `terms.py` finds out what rewards are made up of.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import torch
from torch import Tensor

from marl_stable.conversion import require, unknown
from marl_stable.envs.vmas import terms
from marl_stable.envs.vmas.env import VmasEnv
from marl_stable.types import Box, Discrete, Group, UsageError

MAX_STEPS = 100  # BenchMARL's time limit of nearly every VMAS task; VMAS itself has none
OUR_BUSINESS = (
    *("num_envs", "device", "seed", "wrapper", "wrapper_kwargs", "dict_spaces"),
    *("clamp_actions", "grad_enabled", "terminated_truncated", "multidiscrete_actions"),
)


def make(name: str, num_envs: int, device: torch.device, **kwargs: Any) -> VmasEnv:
    """The scenario called `name`, with VMAS's arguments `max_steps` and `continuous_actions`, and its own.

    Raises UsageError for a missing package, and for arguments that VMAS or the scenario does not take.
    """
    env_id = f"vmas/{name}"
    for key in OUR_BUSINESS:
        if key in kwargs:
            raise UsageError(f"env.kwargs of {env_id} holds {key}, which cannot be set there; take it out.")
    max_steps = kwargs.pop("max_steps", MAX_STEPS)
    require(type(max_steps) is int and max_steps > 0, "env.kwargs max_steps", max_steps, "a whole number, at least 1")
    continuous = kwargs.get("continuous_actions", True)
    require(type(continuous) is bool, "env.kwargs continuous_actions", continuous, "true or false")
    _require_installed(env_id)
    try:
        env = VmasEnv(name, num_envs, device, max_steps, **kwargs)
        if terms.candidates(env.simulator.infos):
            trial = VmasEnv(name, terms.COPIES, device, max_steps, **kwargs)  # leaves the other one as new
            env.name_terms(terms.names_of([_random_step(trial, seed) for seed in range(terms.STEPS)]))
        return env
    except UserWarning as error:  # made an error by `_make`: VMAS tells of arguments that nobody took
        raise _unknown_argument(name, kwargs) from error
    except UsageError:
        raise
    except Exception as error:
        message = f"{env_id} cannot be made with env.kwargs {kwargs}: {type(error).__name__}: {error}"
        raise UsageError(message) from error


def _require_installed(env_id: str) -> None:
    try:
        importlib.import_module("vmas")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise UsageError(f"{env_id} needs the package {missing}; pip install 'marl_stable[vmas]'.") from error


def _unknown_argument(name: str, kwargs: dict[str, Any]) -> UsageError:
    """The arguments that a scenario takes stand in its source and nowhere else."""
    source = inspect.getsource(importlib.import_module("vmas.scenarios").load(f"{name}.py"))
    own = re.findall(r"kwargs\.(?:pop|get)\(\s*[\"'](\w+)[\"']", source)
    known = list(dict.fromkeys(["max_steps", "continuous_actions", *own]))
    wrong = next((key for key in kwargs if key not in known), ", ".join(kwargs))
    return unknown(f"argument of vmas/{name} in env.kwargs:", wrong, known, f"It takes: {', '.join(known)}.")


def _random_step(env: VmasEnv, seed: int) -> tuple[Any, Any]:
    """Rewards and infos, by agent, of one step of random actions; the first time of a new episode."""
    if not env.obs:
        env.reset(seed)
    generator = torch.Generator().manual_seed(seed)
    action = {g.name: _random(g, env.num_envs, generator).to(env.device) for g in env.spec.groups}
    _, reward, _, _, infos = env.played(action)
    return reward, infos


def _random(group: Group, copies: int, generator: torch.Generator) -> Tensor:
    shape = (copies, len(group.agents))
    if isinstance(group.action, Box):
        low, high = torch.tensor(group.action.low), torch.tensor(group.action.high)
        return torch.lerp(low, high, torch.rand(*shape, len(low), generator=generator))
    assert isinstance(group.action, Discrete)
    return torch.randint(group.action.n, shape, generator=generator)
