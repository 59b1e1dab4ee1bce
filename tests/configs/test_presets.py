"""Presets: the shipped ones, the user's own, and everything in a YAML file that could be misread in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS
from marl_stable.conversion import leaves
from marl_stable.types import UsageError


def read(text: str) -> dict[str, Any]:
    return dict(leaves(configs.resolve(configs.parse(text, "mine.yaml"))))


STORIES = ("founding_story",)  # named after what goes wrong in them


@pytest.mark.parametrize("name", configs.presets())
def test_a_shipped_preset_is_named_described_and_valid(name: str) -> None:
    config = configs.resolve(configs.read_preset(name))
    if name not in STORIES:
        assert name == f"{config.algo.name}_{config.env.id.partition('/')[2].rpartition('_v')[0]}"
    assert config.algo.name in ALGORITHMS
    assert 10 < len(configs.presets()[name]) < 120


def test_the_founding_story_is_plain_deep_continuous_watched_and_left_alone() -> None:
    found = dict(leaves(configs.resolve(configs.read_preset("founding_story"))))
    plain = dict(leaves(configs.resolve({"measures": "none"})))
    own = {key for key in found if found[key] != plain[key]}
    assert own == {
        "algo.lr",
        "algo.network.hidden",
        "algo.network.activation",
        "env.kwargs",
        "stability",
        "total_steps",
        "eval_every",
    }
    assert (found["stability"], found["measures"]) == ("monitor", "none")
    assert found["env.kwargs"] == {"continuous_actions": True}
    assert len(found["algo.network.hidden"]) >= 4


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("algo: {lr: 1e-3}", "algo.lr", 0.001),  # text to YAML 1.1
        ("total_steps: 1e6", "total_steps", 1_000_000),
        ("seed: 010", "seed", 10),  # 8 to YAML 1.1
        ("algo: {share: on}", "algo.share", True),
        ("algo: {share: off}", "algo.share", False),
        ("algo: {share: true}", "algo.share", True),
        ("algo: {share: False}", "algo.share", False),
        ("stability: off", "stability", "off"),
        ("stability: 'off'", "stability", "off"),
        ("stability: false", "stability", "off"),
        ("algo: {max_grad_norm: null}", "algo.max_grad_norm", None),
        ("algo: {max_grad_norm: none}", "algo.max_grad_norm", None),
        ("algo: {network: {norm: null}}", "algo.network.norm", "none"),
        ("algo: {network: {hidden: [64, 32]}}", "algo.network.hidden", (64, 32)),
        ("algo: {network: {hidden: '64,32'}}", "algo.network.hidden", (64, 32)),
        ("algo: {network: {hidden: 64}}", "algo.network.hidden", (64,)),
        ("algo: {actor-lr: 0.5}", "algo.actor_lr", 0.5),
        ("env: {kwargs: {N: 3, name: on}}", "env.kwargs", {"N": 3, "name": "on"}),
    ],
)
def test_yaml_values_mean_what_they_look_like(text: str, key: str, meant: Any) -> None:
    found = read(text)[key]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", r"mine.yaml is not valid YAML in line 2: found duplicate key"),
        ("algo: {lr: 1, lr: 2}", "duplicate key"),
        ("algo: {name: mappo", "mine.yaml is not valid YAML in line"),
        ("seed: [1", "mine.yaml is not valid YAML"),
        ("\tseed: 1", "mine.yaml is not valid YAML"),
        ("- seed", "mine.yaml must hold keys and values such as"),
        ("", "mine.yaml must hold keys and values"),
        ("just text", "mine.yaml must hold keys and values"),
        ("!!python/object/apply:os.system ['touch pwned']", "mine.yaml is not valid YAML"),
        ("a: &x 1\nb: *y\n", "mine.yaml is not valid YAML"),
        ("sed: 1", r"unknown configuration key 'sed'. Did you mean seed"),
        ("algo: {network: {hiden: 3}}", r"unknown configuration key 'algo.network.hiden'. Did you mean"),
        ("env: {ids: x}", r"unknown configuration key 'env.ids'. Did you mean env.id"),
        ("algo: mappo", "algo is 'mappo'; it must be a section with keys of its own"),
        ("env: mpe2/simple_v3", "env is 'mpe2/simple_v3'; it must be a section"),
        ("algo:", "algo is None; it must be a section"),
        ("algo: {name: sac}", "unknown algorithm 'sac'"),
        ("algo: {network: 64}", "algo.network is 64; it must be a section"),
        ("seed: one", "seed is 'one'; it must be a whole number."),
        ("seed: 1.5", r"seed is 1.5; it must be a whole number."),
        ("seed: true", "seed is True; it must be a whole number."),
        ("algo: {share: 1}", r"algo.share is 1; it must be on\|off."),
        ("algo: {lr: .nan}", r"algo.lr is nan; it must be a number."),
        ("algo: {lr: .inf}", r"algo.lr is inf; it must be a number."),
        ("env: {kwargs: [1]}", r"env.kwargs is \[1\]; it must be JSON"),
        ("measures: some", r"measures is 'some'; it must be default\|none."),
    ],
)
def test_what_could_be_misread_is_refused(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said) as refused:
        read(text)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_as_utf_8_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "größe.yaml"
    file.write_text("seed: 5 # größer\n", encoding="utf-8")
    assert configs.read_preset(str(file)) == {"seed": 5}
    file.write_bytes(b"\x80\x02\xff\x00")
    with pytest.raises(UsageError, match="cannot be read as text"):
        configs.read_preset(str(file))
    with pytest.raises(UsageError, match="does not exist"):
        configs.read_preset(str(tmp_path / "missing.yml"))


def test_a_missing_config_of_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config.yaml' is missing; restore it"):
        configs.read_run(tmp_path / "config.yaml")
