"""What is distributed is the package and nothing else, and it runs without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "envs", "configs")  # linked at the top level


def python(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in `cwd`, with `path` before everything else that is installed."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def shipped() -> set[str]:
    """The files of the checkout that belong to the package."""
    files = (path for path in (ROOT / "marl_stable").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    kinds, names = {".py", ".yaml", ".css", ".js"}, {"py.typed", "LICENSE"}
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix in kinds or path.name in names}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = python("-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == shipped()
    assert {"marl_stable/__init__.py", "marl_stable/py.typed"} <= files
    assert any(re.fullmatch(r"marl_stable/configs/.+\.yaml", name) for name in files)


def test_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    (scripts,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    lines = wheel.read(metadata).decode().splitlines()
    assert {"Requires-Python: >=3.11", "License-Expression: MIT", "License-File: LICENSE"} <= set(lines)
    assert "marl-stable = marl_stable.cli:main" in wheel.read(scripts).decode()


def test_sdist_holds_sources_and_tests_and_no_links(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert all(member.isfile() for member in members)
    assert shipped() <= names
    assert {"pyproject.toml", "constraints.txt", "Makefile", "train.py", "LICENSE", "README.md"} <= names
    assert Path(__file__).relative_to(ROOT).as_posix() in names
    assert not names & set(ROOMS)
    assert not [name for name in names if name.startswith(tuple(f"{room}/" for room in ROOMS))]


def test_wheel_runs_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, cwd = tmp_path / "site", tmp_path / "cwd"
    cwd.mkdir()
    wheel.extractall(site)
    done = python("-c", "import marl_stable; print(marl_stable.__file__)", cwd=cwd, path=site)
    assert (done.returncode, done.stdout.strip()) == (0, str(site / "marl_stable" / "__init__.py")), done.stderr
    done = python("-m", "marl_stable", "--help", cwd=cwd, path=site)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_train_script_is_the_train_command(tmp_path: Path) -> None:
    script = python(str(ROOT / "train.py"), "--help", cwd=tmp_path)
    command = python("-m", "marl_stable", "train", "--help", cwd=tmp_path, path=ROOT)
    assert (script.returncode, script.stdout) == (0, command.stdout), script.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_top_level_link_leads_to_the_room(room: str) -> None:
    link = ROOT / room
    if not link.is_symlink():
        pytest.skip("this checkout has no symbolic links")
    assert link.readlink() == Path("marl_stable") / room  # relative: the checkout can be moved
    assert link.is_dir()


@pytest.mark.parametrize("room", ["agents", "envs"])
def test_room_is_refused_under_a_second_name(room: str, tmp_path: Path) -> None:
    path = ROOT if (ROOT / room).is_symlink() else ROOT / "marl_stable"
    done = python("-c", f"import {room}", cwd=tmp_path, path=path)
    assert done.returncode == 1
    assert f"ImportError: import marl_stable.{room}, not {room}" in done.stderr


def test_every_dependency_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, text
