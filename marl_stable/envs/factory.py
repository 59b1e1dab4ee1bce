"""The user's own environments: finds the factory behind `module:factory` or `path/to/file.py:factory` and calls it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from marl_stable.conversion import unknown
from marl_stable.envs import mpe2
from marl_stable.envs.aec import TurnCopy
from marl_stable.envs.copies import Copy
from marl_stable.envs.gymnasium import SingleAgent
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.types import EnvSpec, UsageError

Factory = Callable[..., Any]


def load(env_id: str) -> Factory:
    """The factory that `env_id` names.

    Raises UsageError where the file or module is not there or fails to import, or has no such factory.
    """
    where, _, name = env_id.rpartition(":")
    if not where or not name:
        raise UsageError(f"{env_id!r} does not say which factory; write path/to/file.py:factory or module:factory.")
    with redirect_stdout(sys.stderr):  # standard output belongs to the command's own answer
        module = _from_file(where) if where.endswith(".py") else _from_path(where)
    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            public = [known for known, value in vars(target).items() if callable(value) and not known.startswith("_")]
            raise unknown(f"factory in {where}", name, public, f"{where} must define {name} at its top level.")
        target = getattr(target, part)
    if not callable(target):
        raise UsageError(f"{env_id} is {target!r}; it must be a function or class that makes an environment.")
    return target  # type: ignore[no-any-return]


def takes(factory: Factory, name: str) -> bool:
    """Whether the factory's signature names the argument `name`."""
    return name in _parameters(factory)


def check_arguments(factory: Factory, env_id: str, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that the factory's signature does not take, with the nearest that it does."""
    parameters = _parameters(factory)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in kwargs:
        if name not in parameters:
            takes = f"It takes: {', '.join(parameters)}." if parameters else "It takes none."
            raise unknown(f"argument of {env_id} in env.kwargs:", name, parameters, takes)


def call(factory: Factory, env_id: str, kwargs: dict[str, Any], **offered: Any) -> Any:
    """`factory(**kwargs)`, with those of `offered` that its signature names.

    Raises UsageError for arguments that it does not take, and where it raises.
    """
    check_arguments(factory, env_id, kwargs)
    extra = {name: value for name, value in offered.items() if takes(factory, name) and name not in kwargs}
    try:
        with redirect_stdout(sys.stderr):
            return factory(**kwargs, **extra)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        raise _missing_package(env_id, error) from error
    except (Exception, SystemExit) as error:
        message = f"{env_id} cannot be made with env.kwargs {kwargs}: {type(error).__name__}: {error}"
        raise UsageError(message) from error


def is_batched(env: Any) -> bool:
    """Whether `env` is a batched environment of this package."""
    return isinstance(getattr(env, "spec", None), EnvSpec) and hasattr(env, "num_envs")


def copy_of(env: Any, env_id: str) -> Copy:
    """The copy that adapts `env`, which a factory returned; UsageError where it is not supported."""
    env = as_pettingzoo(env, env_id)
    turn_based = isinstance(env, importlib.import_module("pettingzoo").AECEnv)
    return TurnCopy(env, env_id) if turn_based else ParallelCopy(mpe2.unwrapped(env), env_id)


def as_pettingzoo(env: Any, env_id: str) -> Any:
    """`env`, which a factory returned, with the interface of a `ParallelEnv`, or of an `AECEnv` for agents in turns.

    Raises UsageError where it has neither form.
    """
    pettingzoo = importlib.import_module("pettingzoo")
    if isinstance(env, gymnasium.Env):
        return SingleAgent(env)
    if isinstance(env, pettingzoo.AECEnv):
        if not getattr(env, "metadata", {}).get("is_parallelizable", False):
            return env
        return importlib.import_module("pettingzoo.utils.conversions").aec_to_parallel(env)
    interface = ("reset", "step", "observation_space", "action_space")
    if isinstance(env, type) or not all(callable(getattr(env, name, None)) for name in interface):
        raise UsageError(
            f"{env_id} returned {env!r}; a factory must return a PettingZoo ParallelEnv or AECEnv, a gymnasium.Env or "
            "a batched environment of this package."
        )
    return env


def _parameters(factory: Factory) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError):  # some callables of C extensions have no signature: let the call itself tell
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def _from_file(where: str) -> ModuleType:
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {where} in {Path.cwd()}; give the path to the environment's file.")
    version = f"{path}:{path.stat().st_mtime_ns}"  # an edited file is another module; an unchanged one is loaded once
    name = f"marl_stable_env_{hashlib.sha256(version.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for the file's neighbours, behind everything installed
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _import_error(where, error) from error
    return module


def _from_path(where: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and (where == error.name or where.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {error.name} in {here} or among the installed packages (for {where}); "
                "run from the folder that holds it, or pip install its package."
            ) from error
        raise _import_error(where, error) from error
    except Exception as error:
        raise _import_error(where, error) from error


def _import_error(where: str, error: Exception) -> UsageError:
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(where, error)
    return UsageError(f"{where} cannot be imported: {type(error).__name__}: {error}")


def _missing_package(where: str, error: ModuleNotFoundError) -> UsageError:
    package = str(error.name).partition(".")[0]
    if where.startswith("pettingzoo."):
        package = f"'pettingzoo[{where.split('.')[1]}]'"  # PettingZoo's extras are called like its families
    return UsageError(f"{where} needs a package that is not installed ({error}); pip install {package}.")
