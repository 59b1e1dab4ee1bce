"""Makes an environment by its id. A `particle/NAME` is computed on the device; all else is Python, copy by copy.

Importing this file loads neither torch nor any environment library: functions import what they need.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from marl_stable.config import EnvConfig
from marl_stable.conversion import unknown
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.names import FORMS, MODULES, PARTICLE, PETTINGZOO, VMAS
from marl_stable.types import UsageError

if TYPE_CHECKING:
    import torch

    from marl_stable.envs.copies import Copy
    from marl_stable.envs.crew import TermNames

ON_DEVICE = 256
IN_PYTHON = 32


def ids() -> list[tuple[str, str]]:
    """Every (environment id or form of one, what it is in one line)."""
    particle = [(f"particle/{name}", text) for name, text in PARTICLE.items()]
    pettingzoo = [(f"{family}/{name}", text) for family, tasks in PETTINGZOO.items() for name, text in tasks.items()]
    vmas = [(f"vmas/{name}", text) for name, text in VMAS.items()]
    return particle + pettingzoo + vmas + list(FORMS.items())


def require_known(env_id: str) -> None:
    """Refuse an id that names nothing, as far as its text tells; imports nothing, so it takes no time."""
    family, _, name = env_id.partition("/")
    shipped = {"particle": PARTICLE, **PETTINGZOO, "vmas": VMAS}
    if not (_is_factory(env_id) or (family == "gymnasium" and name) or name in shipped.get(family, ())):
        raise _unknown_id(env_id)


def resolve_num_envs(config: EnvConfig) -> int:
    """The number of copies that `env.num_envs` means; `auto` depends on where the environment is computed.

    Raises UsageError for a factory that cannot be loaded.
    """
    if config.num_envs != "auto":
        return config.num_envs
    if config.id.startswith(("particle/", "vmas/")):
        return ON_DEVICE
    if not _is_factory(config.id):
        return IN_PYTHON
    from marl_stable.envs import factory

    prepare_rendering()
    return ON_DEVICE if factory.takes(factory.load(config.id), "num_envs") else IN_PYTHON


def make(config: EnvConfig, device: torch.device, num_envs: int) -> BatchedEnv:
    """`num_envs` copies of the environment `config` names, its ends read as `config.time_limit_as` says and its agents
    in the teams of `config.teams`.

    Raises UsageError for an unknown id (with the nearest known ones), for a missing package, for wrong `env.kwargs`
    and for an environment that is not supported.
    """
    env = _make_batched(config, device, num_envs)
    if config.workers and not hasattr(env, "mishaps"):
        raise UsageError(
            f"env.workers is {config.workers}, but {config.id} steps all its copies in one batch; leave it at 0."
        )
    if config.teams is not None:
        from marl_stable.envs.regroup import with_teams

        env = with_teams(env, config.teams)
    if config.time_limit_as is None:
        return env
    from marl_stable.envs.ends import EndsAs

    return EndsAs(env, config.time_limit_as)


def make_single(env_id: str, kwargs: dict[str, Any], render_mode: str | None = None) -> Any:
    """One copy as a PettingZoo `ParallelEnv`, or `AECEnv` where agents take turns; of a `particle/` id its mpe2 twin.

    Raises UsageError as `make` does, and for a batched environment, of which there are no single copies.
    """
    from marl_stable.envs import factory

    made = _maker(env_id, kwargs, render_mode)()
    if factory.is_batched(made):
        raise UsageError(f"{env_id} is a batched environment; it cannot be drawn or run as a single copy.")
    return factory.as_pettingzoo(made, env_id)


def prepare_rendering() -> None:
    """Keep pygame from greeting on standard output, and from asking for a screen where there is none."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _make_batched(config: EnvConfig, device: torch.device, num_envs: int) -> BatchedEnv:
    family, _, name = config.id.partition("/")
    if family == "particle" and name in PARTICLE:
        return _make_particle(name, config.kwargs, device, num_envs)
    if family == "vmas" and name in VMAS:
        from marl_stable.envs import vmas

        return vmas.make(name, num_envs, device, **config.kwargs)
    from marl_stable.envs import factory

    maker = _maker(config.id, config.kwargs, None, num_envs=num_envs, device=device)
    first = maker()
    if factory.is_batched(first):
        return _of_size(first, config.id, num_envs)
    return _of_copies(config, device, num_envs, first, maker)


def _of_copies(
    config: EnvConfig, device: torch.device, num_envs: int, first: Any, maker: Callable[[], Any]
) -> BatchedEnv:
    """Copies that `maker` makes one by one, of which `first` is there already."""
    from marl_stable.envs import factory
    from marl_stable.envs.crew import LocalCrew
    from marl_stable.envs.vector import VectorEnv
    from marl_stable.envs.workers import WorkerCrew

    waiting = [first]
    known: TermNames | None = {} if config.id.partition("/")[0] in PETTINGZOO else None  # PettingZoo's own have none

    def make_copy() -> Copy:
        return factory.copy_of(waiting.pop() if waiting else maker(), config.id)

    if config.workers == 0:
        return VectorEnv(LocalCrew(make_copy, config.id, num_envs, terms=known), device)
    prototype = LocalCrew(make_copy, config.id, 1, terms=known)  # what the factory makes can be told only by making one
    prototype.close()
    offered = {"num_envs": num_envs, "device": str(device)}
    crew = WorkerCrew(prototype.spec, config.kwargs, offered, num_envs, config.workers, config.step_timeout)
    return VectorEnv(crew, device, config.max_failures)


def copy_maker(env_id: str, kwargs: dict[str, Any], offered: dict[str, Any]) -> Callable[[], Copy]:
    """What makes one more copy at every call, in a worker; `offered` is for a factory that takes it.

    Raises UsageError as `make` does. torch is loaded only where the factory takes the device.
    """
    from marl_stable.envs import factory

    prepare_rendering()
    if _is_factory(env_id) and factory.takes(factory.load(env_id), "device"):
        import torch

        offered = offered | {"device": torch.device(offered["device"])}
    maker = _maker(env_id, kwargs, None, **offered)
    return lambda: factory.copy_of(maker(), env_id)


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
    if family == "particle" and name in PARTICLE:
        return _pettingzoo_maker("mpe2", name, kwargs, render_mode)
    if family == "vmas" and name in VMAS:
        from marl_stable.envs.vmas.single import SingleCopy

        return partial(SingleCopy, name, kwargs, render_mode)
    if name in PETTINGZOO.get(family, ()):
        return _pettingzoo_maker(family, name, kwargs, render_mode)
    raise _unknown_id(env_id)


def _pettingzoo_maker(family: str, name: str, kwargs: dict[str, Any], render_mode: str | None) -> Callable[[], Any]:
    env_id = f"{family}/{name}"
    try:
        with warnings.catch_warnings():  # these modules are deprecated for a registry that older PettingZoos lack
            warnings.simplefilter("ignore", DeprecationWarning)
            module = importlib.import_module(f"{MODULES.get(family, f'pettingzoo.{family}')}.{name}")
    except ModuleNotFoundError as error:
        missing = family if error.name is None else error.name.partition(".")[0]
        remedy = missing if family == "mpe2" else f"'marl_stable[{family}]'"
        raise UsageError(f"{env_id} needs the package {missing}; pip install {remedy}.") from error
    from marl_stable.envs import factory

    factory.check_arguments(module.raw_env, env_id, kwargs)  # its parallel_env takes any
    arguments = kwargs if render_mode is None else {**kwargs, "render_mode": render_mode}
    return partial(factory.call, getattr(module, "parallel_env", module.env), env_id, arguments)


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
