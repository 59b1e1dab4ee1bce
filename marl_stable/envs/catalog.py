"""Finds an environment by its id. A `particle/NAME` is computed on the device; all else is Python, copy by copy.

Importing this file loads neither torch nor any environment library: functions import what they need.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from marl_stable.config import EnvConfig, unknown
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import UsageError

if TYPE_CHECKING:
    import torch

ON_DEVICE = 256
IN_PYTHON = 32

PARTICLE: dict[str, str] = {
    "simple_spread_v3": "agents cover landmarks without colliding; batched on the device",
    "simple_speaker_listener_v4": "a speaker names the landmark that a listener must reach; batched on the device",
}

MPE2: dict[str, str] = {
    "simple_v3": "one agent goes to a landmark",
    "simple_adversary_v3": "two agents hide their goal landmark from an adversary",
    "simple_crypto_v3": "alice sends bob a secret that eve must not read",
    "simple_push_v3": "an adversary keeps an agent from its landmark",
    "simple_reference_v3": "two agents tell each other where to go",
    "simple_speaker_listener_v4": "a speaker names the landmark that a listener must reach",
    "simple_spread_v3": "agents cover landmarks without colliding",
    "simple_tag_v3": "slow adversaries chase a fast agent",
    "simple_world_comm_v3": "a lead adversary directs the chase, with food and forests",
    "simple_formation_v1": "agents spread evenly on a circle around a landmark",
    "simple_line_v1": "agents spread evenly on a line between two landmarks",
    "collect_treasure_v1": "collectors bring treasures to the deposits of their colour",
}

FORMS: dict[str, str] = {
    "gymnasium/NAME": "any registered Gymnasium environment, as one agent",
    "package.module:factory": "a factory in an importable module, found from the working directory too",
    "path/to/file.py:factory": "a factory in a file",
}


def ids() -> list[tuple[str, str]]:
    """Every (environment id or form of one, what it is in one line)."""
    particle = [(f"particle/{name}", text) for name, text in PARTICLE.items()]
    mpe2 = [(f"mpe2/{name}", text) for name, text in MPE2.items()]
    return particle + mpe2 + list(FORMS.items())


def require_known(env_id: str) -> None:
    """Refuse an id that names nothing, as far as its text tells; imports nothing, so it takes no time."""
    family, _, name = env_id.partition("/")
    shipped = {"particle": PARTICLE, "mpe2": MPE2}
    if not (_is_factory(env_id) or (family == "gymnasium" and name) or name in shipped.get(family, ())):
        raise _unknown_id(env_id)


def resolve_num_envs(config: EnvConfig) -> int:
    """The number of copies that `env.num_envs` means; `auto` depends on where the environment is computed.

    Raises UsageError for a factory that cannot be loaded.
    """
    if config.num_envs != "auto":
        return config.num_envs
    if config.id.startswith("particle/"):
        return ON_DEVICE
    if not _is_factory(config.id):
        return IN_PYTHON
    from marl_stable.envs import factory

    prepare_rendering()
    return ON_DEVICE if factory.takes(factory.load(config.id), "num_envs") else IN_PYTHON


def make(config: EnvConfig, device: torch.device, num_envs: int) -> BatchedEnv:
    """`num_envs` copies of the environment `config` names, its ends read as `config.time_limit_as` says.

    Raises UsageError for an unknown id (with the nearest known ones), for a missing package, for wrong `env.kwargs`
    and for an environment that is not supported.
    """
    env = _make_batched(config, device, num_envs)
    if config.time_limit_as is None:
        return env
    from marl_stable.envs.ends import EndsAs

    return EndsAs(env, config.time_limit_as)


def make_single(env_id: str, kwargs: dict[str, Any], render_mode: str | None = None) -> Any:
    """One copy with PettingZoo's `ParallelEnv` interface, as it is drawn; a `particle/` id gives its mpe2 twin.

    Raises UsageError as `make` does, and for a batched environment, of which there are no single copies.
    """
    from marl_stable.envs import factory

    made = _maker(env_id, kwargs, render_mode)()
    if factory.is_batched(made):
        raise UsageError(f"{env_id} is a batched environment; it cannot be drawn or run as a single copy.")
    return factory.as_parallel(made, env_id)


def prepare_rendering() -> None:
    """Keep pygame from greeting on standard output, and from asking for a screen where there is none."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _make_batched(config: EnvConfig, device: torch.device, num_envs: int) -> BatchedEnv:
    family, _, name = config.id.partition("/")
    if family == "particle" and name in PARTICLE:
        return _make_particle(name, config.kwargs, device, num_envs)
    from marl_stable.envs import factory
    from marl_stable.envs.vector import VectorEnv

    maker = _maker(config.id, config.kwargs, None, num_envs=num_envs, device=device)
    first = maker()
    if factory.is_batched(first):
        return _of_size(first, config.id, num_envs)
    waiting = [first]  # the copy that told what the factory makes is the first of the batch

    def make_copy() -> Any:
        return factory.as_parallel(waiting.pop() if waiting else maker(), config.id)

    return VectorEnv(make_copy, config.id, num_envs, device)


def _maker(env_id: str, kwargs: dict[str, Any], render_mode: str | None, **offered: Any) -> Callable[[], Any]:
    """What makes one more environment of this id at every call."""
    prepare_rendering()
    from marl_stable.envs import factory, gymnasium

    if _is_factory(env_id):
        found = factory.load(env_id)
        if render_mode is not None:
            offered["render_mode"] = render_mode
        return partial(factory.call, found, env_id, kwargs, **offered)
    family, _, name = env_id.partition("/")
    if family == "gymnasium" and name:
        return partial(gymnasium.make, name, kwargs, render_mode)
    if (family == "mpe2" and name in MPE2) or (family == "particle" and name in PARTICLE):
        return _mpe2_maker(name, kwargs, render_mode)
    raise _unknown_id(env_id)


def _mpe2_maker(name: str, kwargs: dict[str, Any], render_mode: str | None) -> Callable[[], Any]:
    try:
        module = importlib.import_module(f"mpe2.{name}")
    except ModuleNotFoundError as error:
        missing = "mpe2" if error.name is None else error.name.partition(".")[0]
        raise UsageError(f"mpe2/{name} needs the package {missing}; pip install {missing}.") from error
    from marl_stable.envs import factory

    factory.check_arguments(module.raw_env, f"mpe2/{name}", kwargs)  # its parallel_env takes any
    arguments = kwargs if render_mode is None else {**kwargs, "render_mode": render_mode}
    return partial(factory.call, module.parallel_env, f"mpe2/{name}", arguments)


def _make_particle(name: str, kwargs: dict[str, Any], device: torch.device, num_envs: int) -> BatchedEnv:
    from marl_stable.envs import particle

    if taken := {"name", "num_envs", "device"} & kwargs.keys():
        raise UsageError(f"env.kwargs of particle/{name} holds {', '.join(sorted(taken))}; that is set outside of it.")
    return particle.make(name, num_envs, device, **kwargs)


def _of_size(env: Any, env_id: str, num_envs: int) -> BatchedEnv:
    if env.num_envs != num_envs:
        raise UsageError(
            f"{env_id} returned {env.num_envs} copies where env.num_envs is {num_envs}; let the factory take num_envs, "
            f"or set env.num_envs to {env.num_envs}."
        )
    return cast("BatchedEnv", env)


def _is_factory(env_id: str) -> bool:
    """Whether the id names a factory; a registered Gymnasium name may have a colon of its own."""
    where, colon, _ = env_id.rpartition(":")
    return bool(colon) and (where.endswith(".py") or not env_id.startswith("gymnasium/"))


def _unknown_id(env_id: str) -> UsageError:
    if env_id.endswith(".py"):
        return UsageError(f"the environment {env_id!r} is a file; add the factory in it, as in {env_id}:factory.")
    remedy = (
        "See `marl-stable envs`; any other PettingZoo environment is named by its factory, "
        "such as pettingzoo.sisl.pursuit.pursuit:parallel_env."
    )
    return unknown("environment", env_id, [name for name, _ in ids()], remedy)
