"""Environments by their ids: the shipped ones, the user's own, and every way in which an id can be wrong."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog, names
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.ends import EndsAs
from marl_stable.types import UsageError

CPU = torch.device("cpu")

FACTORIES = """
from __future__ import annotations
from dataclasses import dataclass
import gymnasium
from tests.envs.fakes import Walk
from marl_stable.types import Discrete, EnvSpec, Group

@dataclass
class Settings:  # dataclasses look their module up in sys.modules
    agents: int = 2

def walk(agents: int = 2, length: int = 5, render_mode: str | None = None):
    env = Walk(Settings(agents).agents, length)
    env.render_mode = render_mode
    return env

def loud(**kwargs):
    print("hello")
    return Walk(**kwargs)

def cart():
    return gymnasium.make("CartPole-v1")

class Batched:
    def __init__(self, num_envs, device="cpu"):
        self.spec = EnvSpec("batched", ("a_0",), (Group("a", ("a_0",), 1, Discrete(2), "team"),))
        self.num_envs, self.device = num_envs, device

def batched_of_three():
    return Batched(3)

def broken():
    raise RuntimeError("no licence")

def needy():
    import a_package_that_is_not_there

def nothing():
    return None

def turns():
    from pettingzoo.classic.tictactoe.tictactoe import env
    return env()

def cycles():
    from mpe2.simple_spread_v3 import env
    return env(max_cycles=7)

number = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a file of factories, with a space in it; what importing it changes is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "my environments"
    folder.mkdir()
    (folder / "all of them.py").write_text(FACTORIES)
    return str(folder / "all of them.py")


def make(env_id: str, num_envs: int = 2, **kwargs: Any) -> BatchedEnv:
    return catalog.make(EnvConfig(id=env_id, kwargs=kwargs), CPU, num_envs)


def auto(env_id: str) -> int:
    return catalog.resolve_num_envs(EnvConfig(id=env_id))


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    keep = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True, env=keep | environment
    )


def test_listing_environments_loads_neither_torch_nor_any_of_them():
    code = "import sys, json; from marl_stable.envs import catalog; catalog.ids(); print(json.dumps(list(sys.modules)))"
    loaded = json.loads(run(code).stdout)
    assert not {"torch", "numpy", "gymnasium", "pettingzoo", "mpe2", "pygame"} & set(loaded)


def test_the_list_has_every_task_and_every_form_once_with_a_line_of_text():
    listed = dict(catalog.ids())
    assert len(listed) == len(catalog.ids())
    assert all(text and "\n" not in text for text in listed.values())
    for family, tasks in {"particle": names.PARTICLE, **names.PETTINGZOO}.items():
        assert {name for env_id in listed for home, _, name in [env_id.partition("/")] if home == family} == set(tasks)
        for name in tasks:
            catalog.require_known(f"{family}/{name}")


@pytest.mark.parametrize(
    ("family", "needs"),
    [("mpe2", "mpe2"), ("sisl", "Box2D"), ("butterfly", "pymunk"), ("classic", "rlcard"), ("magent2", "magent2")],
)
def test_every_task_of_pettingzoo_is_there_and_none_is_left_out(family: str, needs: str):
    pytest.importorskip(needs)
    for name in names.PETTINGZOO[family]:
        assert callable(catalog._maker(f"{family}/{name}", {}, None))
    package = importlib.import_module(names.MODULES.get(family, f"pettingzoo.{family}"))
    there = {module.name for module in pkgutil.iter_modules(package.__path__) if re.search(r"_v\d+$", module.name)}
    assert there == set(names.PETTINGZOO[family])


def test_standard_output_stays_clean_and_no_screen_is_asked_for():
    code = """
from marl_stable.envs import catalog
catalog.make_single("mpe2/simple_v3", {}).reset(seed=1)
env = catalog.make_single("particle/simple_spread_v3", {}, render_mode="rgb_array")
env.reset(seed=1)
assert env.render().shape == (700, 700, 3)
"""
    assert run(code).stdout == ""


def test_what_a_factory_prints_does_not_reach_standard_output(factories: str, capsys: pytest.CaptureFixture[str]):
    make(f"{factories}:loud")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


@pytest.mark.parametrize("driver", ["x11", None])
def test_a_screen_driver_that_the_user_chose_is_kept(driver: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    if driver is None:
        monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    else:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    catalog.prepare_rendering()
    assert os.environ["SDL_VIDEODRIVER"] == (driver or "dummy")


def test_auto_means_many_copies_on_the_device_and_few_in_python(factories: str):
    assert auto("particle/simple_spread_v3") == 256
    assert auto(f"{factories}:Batched") == 256
    assert auto("mpe2/simple_spread_v3") == auto("gymnasium/CartPole-v1") == auto(f"{factories}:walk") == 32
    assert catalog.resolve_num_envs(EnvConfig(id="particle/simple_spread_v3", num_envs=7)) == 7


def test_a_particle_environment_is_the_batched_one_with_its_arguments():
    env = make("particle/simple_spread_v3", 5, N=4)
    assert (env.num_envs, len(env.spec.agents), env.spec.id) == (5, 4, "particle/simple_spread_v3")
    with pytest.raises(UsageError, match="that is set outside of it"):
        catalog.make(EnvConfig(id="particle/simple_spread_v3", kwargs={"num_envs": 4}), CPU, 5)


def test_the_single_copy_of_a_particle_environment_is_its_mpe2_twin():
    env = catalog.make_single("particle/simple_spread_v3", {"N": 4, "max_cycles": 9})
    assert env.possible_agents == [f"agent_{i}" for i in range(4)]
    assert env.unwrapped.max_cycles == 9


@pytest.mark.parametrize(("env_id", "outside"), [("particle/simple_spread_v3", 25), ("mpe2/simple_v3", 25)])
def test_ends_are_read_as_the_configuration_says(env_id: str, outside: int):
    env = catalog.make(EnvConfig(id=env_id, time_limit_as="termination"), CPU, 2)
    assert isinstance(env, EndsAs)
    env.reset(1)
    for _ in range(outside):
        step = env.step({"agent": torch.zeros(2, len(env.spec.agents)).long()})
    assert step.terminated["agent"].all()
    assert not step.truncated["agent"].any()


def test_a_factory_in_a_file_is_called_with_the_arguments(factories: str):
    env = make(f"{factories}:walk", 3, agents=4)
    assert (env.num_envs, len(env.spec.agents), env.spec.id) == (3, 4, f"{factories}:walk")
    assert make(f"{factories}:cart").spec.agents == ("agent_0",)
    assert make(f"{factories}:Walk", agents=3).spec.agents == ("agent_0", "agent_1", "agent_2")


def test_a_file_is_loaded_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    Path("helper.py").write_text("loads = []")
    file = Path("env.py")
    body = "import helper\nfrom tests.envs.fakes import Walk\nhelper.loads.append(1)\ndef walk(): return Walk({})\n"
    file.write_text(body.format(2))
    assert [len(make("env.py:walk").spec.agents) for _ in range(2)] == [2, 2]
    assert sys.modules["helper"].loads == [1]
    file.write_text(body.format(3) + "\n")
    assert len(make("./env.py:walk").spec.agents) == 3
    del sys.modules["helper"]


def test_a_module_is_found_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_games").mkdir()
    (tmp_path / "my_games" / "walking.py").write_text(FACTORIES)
    assert make("my_games.walking:walk").spec.agents == ("agent_0", "agent_1")
    for name in ("my_games", "my_games.walking"):
        del sys.modules[name]


def test_render_mode_reaches_a_factory_that_takes_one_and_only_for_drawing(factories: str):
    assert catalog.make_single(f"{factories}:walk", {}, render_mode="rgb_array").render_mode == "rgb_array"
    assert catalog.make_single(f"{factories}:walk", {}).render_mode is None
    assert catalog.make_single(f"{factories}:cart", {}, render_mode="rgb_array").possible_agents == ["agent_0"]


def test_a_batched_environment_is_made_with_the_copies_and_the_device_that_it_takes(factories: str):
    env = make(f"{factories}:Batched", 6)
    assert (type(env).__name__, env.num_envs, env.device) == ("Batched", 6, CPU)
    assert make(f"{factories}:batched_of_three", 3).num_envs == 3
    with pytest.raises(UsageError, match=r"returned 3 copies where env\.num_envs is 2.*set env\.num_envs to 3"):
        make(f"{factories}:batched_of_three", 2)
    with pytest.raises(UsageError, match="batched environment; it cannot be drawn"):
        catalog.make_single(f"{factories}:batched_of_three", {})


def test_an_environment_is_turn_based_unless_it_is_only_written_so(factories: str):
    assert make(f"{factories}:turns").spec.turn_based
    assert catalog.make_single(f"{factories}:turns", {}).agent_iter
    env = make(f"{factories}:cycles")
    assert not env.spec.turn_based
    env.reset(1)
    steps = [env.step({"agent": torch.zeros(2, 3).long()}) for _ in range(7)]
    assert [step.done.all().item() for step in steps] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("mpe2/simple_spred_v3", "unknown environment 'mpe2/simple_spred_v3'. Did you mean mpe2/simple_spread_v3"),
        (
            "particle/simple_push_v2",
            "unknown environment 'particle/simple_push_v2'. Did you mean particle/simple_push_v3",
        ),
        (
            "sisl/pursuit_v4",
            "unknown environment 'sisl/pursuit_v4'. Did you mean sisl/pursuit_v5.*pettingzoo.sisl.pursuit",
        ),
        ("classic/tictactoe", "unknown environment 'classic/tictactoe'. Did you mean classic/tictactoe_v3"),
        ("sisl/waterworld_v4", "unknown environment 'sisl/waterworld_v4'"),
        ("simple_spread_v3", "unknown environment 'simple_spread_v3'. Did you mean"),
        ("gymnasium/", "unknown environment 'gymnasium/'"),
        ("gymnasium/CartPol-v1", "Did you mean .*gymnasium/CartPole-v1"),
        (
            "gymnasium/no_such_module:Env-v0",
            "gymnasium/no_such_module:Env-v0 needs a package that is not installed: .*no_such_module",
        ),
        ("environment.py", "is a file; add the factory in it, as in environment.py:factory"),
        ("environment.py:", "does not say which factory"),
        ("no/such/file.py:make", "there is no file no/such/file.py"),
        ("no_such_module:make", "there is no module no_such_module"),
        ("json.no_such_module:make", "there is no module json.no_such_module"),
        ("json:lods", "unknown factory in json 'lods'. Did you mean loads"),
    ],
)
def test_a_wrong_id_is_answered_with_what_was_meant(env_id: str, message: str):
    with pytest.raises(UsageError, match=message):
        make(env_id)
    if env_id.startswith("gymnasium/"):
        assert auto(env_id) == 32


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("wolk", {}, "unknown factory in .*all of them.py 'wolk'. Did you mean walk"),
        ("number", {}, "is 3; it must be a function or class"),
        ("walk", {"agent": 3}, r"unknown argument of .*:walk in env\.kwargs: 'agent'. Did you mean agents"),
        ("cart", {"agent": 3}, "'agent'. It takes none."),
        ("loud", {"agent": 3}, "cannot be made with env.kwargs {'agent': 3}: TypeError.*agent"),
        ("broken", {}, "cannot be made with env.kwargs {}: RuntimeError: no licence"),
        ("needy", {}, "pip install a_package_that_is_not_there"),
        ("nothing", {}, "returned None; a factory must return"),
    ],
)
def test_a_factory_that_does_not_work_is_named(factories: str, name: str, kwargs: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        make(f"{factories}:{name}", **kwargs)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def make(:\n", "env.py cannot be imported: SyntaxError: .*line 1"),
        ("import a_package_that_is_not_there", "env.py needs a package .*pip install a_package_that_is_not_there"),
        ("1 / 0", "env.py cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "env.py").write_text(body)
    with pytest.raises(UsageError, match=message):
        make(f"{tmp_path / 'env.py'}:make")


def test_wrong_arguments_of_mpe2_are_answered_with_the_right_ones():
    message = r"unknown argument of mpe2/simple_spread_v3 in env\.kwargs: 'max_cycle'. Did you mean max_cycles"
    with pytest.raises(UsageError, match=message):
        make("mpe2/simple_spread_v3", max_cycle=3)
    with pytest.raises(UsageError, match=r"mpe2/collect_treasure_v1 cannot be made .*num_deposits must be"):
        make("mpe2/collect_treasure_v1", num_deposits=0)


@pytest.mark.parametrize(("missing", "package"), [("mpe2", "mpe2"), ("pygame", "pygame")])
def test_a_missing_package_is_answered_with_what_to_install(
    missing: str, package: str, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mpe2", "pygame")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=f"mpe2/simple_v3 needs the package {package}; pip install {package}"):
        make("mpe2/simple_v3")


@pytest.mark.parametrize(
    ("env_id", "missing"),
    [
        ("sisl/multiwalker_v9", "Box2D"),
        ("butterfly/pistonball_v6", "pymunk"),
        ("classic/leduc_holdem_v4", "rlcard"),
        ("magent2/battle_v4", "magent2"),
    ],
)
def test_a_missing_extra_is_answered_with_its_name(env_id: str, missing: str, monkeypatch: pytest.MonkeyPatch):
    family = env_id.partition("/")[0]
    for name in [name for name in sys.modules if re.match(rf"(pettingzoo\.{family}|{missing})\b", name)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        UsageError, match=rf"{env_id} needs the package {missing}; pip install 'marl_stable\[{family}\]'\."
    ):
        make(env_id)


def test_a_missing_package_of_a_pettingzoo_family_is_answered_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("pettingzoo.classic.rps")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UsageError, match=r"pip install 'pettingzoo\[classic\]'"):
        make("pettingzoo.classic.rps.rps:parallel_env")
