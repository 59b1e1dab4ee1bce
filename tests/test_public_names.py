"""The public surface: pinned here, so that a change of it is a decision."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import subprocess
import sys
import tomllib

import pytest

import marl_stable as ms
from tests.runs import ROOT


def test_the_public_names_are_these() -> None:
    names = [
        "EnvironmentFailure",
        "Policy",
        "Run",
        "StabilityMonitor",
        "UsageError",
        "__version__",
        "load_policy",
        "train",
    ]
    assert ms.__all__ == names
    assert dir(ms) == sorted(ms.__all__)
    for name in ms.__all__:
        assert getattr(ms, name) is not None
    with pytest.raises(AttributeError, match="module 'marl_stable' has no attribute 'trian'"):
        ms.trian  # noqa: B018


def test_their_arguments_are_these() -> None:
    assert str(inspect.signature(ms.train)) == "(preset: 'str | None' = None, **flags: 'Any') -> 'Run'"
    parameters = inspect.signature(ms.load_policy).parameters
    assert list(parameters) == ["path", "deterministic", "checkpoint", "seed"]
    assert parameters["deterministic"].default is True
    assert list(inspect.signature(ms.Policy.__call__).parameters) == ["self", "observations", "action_masks"]
    public = {name for name in vars(ms.Run) if not name.startswith("_")}
    assert public == {"path", "status", "returns", "diagnose", "incidents"}
    assert {name for name in vars(ms.Policy) if not name.startswith("_")} == {"reset"}


def test_every_public_name_says_what_it_is_for() -> None:
    for name in ms.__all__:
        assert name == "__version__" or len(inspect.getdoc(getattr(ms, name)) or "") > 20


def test_errors_are_not_caught_by_accident() -> None:
    assert ms.UsageError.__bases__ == ms.EnvironmentFailure.__bases__ == (Exception,)


def test_the_version_is_written_once_more_only_in_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ms.__version__ == project["version"]
    try:
        installed = importlib.metadata.version("marl_stable")
    except importlib.metadata.PackageNotFoundError:
        return
    assert installed == ms.__version__


def test_importing_the_package_costs_nothing() -> None:
    code = """
import sys, marl_stable
heavy = {"torch", "numpy", "gymnasium", "pettingzoo", "mpe2", "rich", "tyro", "ruamel", "scipy"} & set(sys.modules)
assert not heavy, heavy
assert marl_stable.UsageError and marl_stable.__version__
assert "torch" not in sys.modules
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
