"""What flags, presets and Python keywords mean: every key, every kind of value, and every value that is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS, PLAIN
from marl_stable.cli.train import train_config
from marl_stable.config import NetworkConfig, NetworkOverride, RunConfig
from marl_stable.conversion import convert, describe, kinds, leaves, to_dict
from marl_stable.types import UsageError

# A value other than the default for flags whose type alone does not give a legal one.
OTHER = {"algo.name": "ippo", "algo.gamma": "0.5", "algo.gae_lambda": "0.5", "algo.num_minibatches": "4"}

# Out of range, and what must be said of it.
OUT_OF_RANGE = [
    ("--algo.lr 0", "algo.lr is 0.0; it must be positive."),
    ("--algo.actor-lr -1e-3", "algo.actor_lr is -0.001; it must be positive."),
    ("--algo.critic-lr 0", "algo.critic_lr is 0.0; it must be positive."),
    ("--algo.gamma 2", "algo.gamma is 2.0; it must be auto or from 0 to 1."),
    ("--algo.gamma -0.1", "algo.gamma is -0.1"),
    ("--algo.gae-lambda 1.1", "algo.gae_lambda is 1.1; it must be from 0 to 1."),
    ("--algo.max-grad-norm 0", "algo.max_grad_norm is 0.0; it must be adaptive, none or positive."),
    ("--algo.num-minibatches 7 --algo.batch-size 6", "algo.num_minibatches is 7; it must be at most batch_size (6)."),
    ("--algo.batch-size 0", "algo.batch_size is 0; it must be at least 1."),
    ("--algo.update-epochs 0", "algo.update_epochs is 0"),
    ("--algo.num-minibatches 0", "algo.num_minibatches is 0"),
    ("--algo.clip-coef 0", "algo.clip_coef is 0.0; it must be positive."),
    ("--algo.clip-value -1", "algo.clip_value is -1.0; it must be none or positive."),
    ("--algo.entropy-coef -1", "algo.entropy_coef is -1.0; it must be 0 or positive."),
    ("--algo.log-std-init 2", "algo.log_std_init is 2.0; it must be between -5 and 2."),
    ("--algo.target-kl 0", "algo.target_kl is 0.0; it must be none or positive."),
    ("--algo.action-penalty -1", "algo.action_penalty is -1.0"),
    ("--algo.weight-decay -1", "algo.weight_decay is -1.0"),
    ("--algo.l1 -1", "algo.l1 is -1.0"),
    ("--algo.adam-betas 0.9,1", "algo.adam_betas is (0.9, 1.0); it must be from 0 to below 1."),
    ("--algo.adam-eps 0", "algo.adam_eps is 0.0; it must be positive."),
    ("--algo.network.hidden 0", "algo.network.hidden is (0,); it must be one positive width or more."),
    ("--algo.actor-network.hidden 8,-1", "algo.actor_network.hidden is (8, -1)"),
    ("--algo.critic-network.hidden 0", "algo.critic_network.hidden is (0,)"),
    ("--algo maddpg --algo.buffer-size 0", "algo.buffer_size is 0; it must be at least 1."),
    ("--algo maddpg --algo.batch-size 0", "algo.batch_size is 0; it must be at least 1."),
    ("--algo maddpg --algo.steps-per-update 0", "algo.steps_per_update is 0; it must be at least 1."),
    ("--algo maddpg --algo.train-every 0", "algo.train_every is 0; it must be at least 1."),
    ("--algo matd3 --algo.policy-delay 0", "algo.policy_delay is 0; it must be at least 1."),
    ("--algo maddpg --algo.warm-up -1", "algo.warm_up is -1; it must be 0 or a number of steps."),
    ("--algo maddpg --algo.tau 0", "algo.tau is 0.0; it must be above 0 and at most 1."),
    ("--algo maddpg --algo.tau 1.1", "algo.tau is 1.1; it must be above 0 and at most 1."),
    ("--algo matd3 --algo.target-noise -1", "algo.target_noise is -1.0; it must be 0 or positive."),
    ("--algo matd3 --algo.target-noise-clip -1", "algo.target_noise_clip is -1.0; it must be 0 or positive."),
    ("--algo iddpg --algo.exploration-noise -1", "algo.exploration_noise is -1.0; it must be 0 or positive."),
    ("--algo iddpg --algo.final-noise -1", "algo.final_noise is -1.0; it must be 0 or positive."),
    ("--algo iddpg --algo.huber 0", "algo.huber is 0.0; it must be none or positive."),
    ("--algo ippo --algo.critic-input pool", "of ippo see their own agent alone; use mappo, or concatenate."),
    ("--algo maddpg --algo.lr-schedule kl", "algo.lr_schedule is 'kl'; it must be constant, linear or cosine"),
    ("--total-steps 0", "total_steps is 0; it must be a positive number of steps."),
    ("--total-steps -5", "total_steps is -5"),
    ("--eval-every -1", "eval_every is -1"),
    ("--eval-episodes 0", "eval_episodes is 0; it must be at least 1."),
    ("--checkpoint-every 0", "checkpoint_every is 0"),
    ("--threads 0", "threads is 0; it must be auto or from 1 to 1024."),
    ("--threads 1e18", "threads is 1000000000000000000; it must be auto or from 1 to 1024."),
    ("--seed -1", "seed is -1; it must be a whole number from 0 to 2147483647."),
    ("--seed 2147483648", "seed is 2147483648"),
    ("--env.num-envs 0", "env.num_envs is 0; it must be auto or at least 1."),
    ("--env.workers -1", "env.workers is -1; it must be 0 (in this process) or a number of processes."),
    ("--env.step-timeout 0", "env.step_timeout is 0.0; it must be a positive number of seconds."),
    ("--env.max-failures -1", "env.max_failures is -1; it must be 0 (none survived) or more."),
]


def typed(line: str) -> RunConfig:
    return train_config(line.split())


def values(config: Any) -> dict[str, Any]:
    return dict(leaves(config))


def different(wanted: Any, now: Any) -> str:
    """A legal value of the type `wanted` other than `now`, as it is typed."""
    choices = [choice for choice in (get_args(wanted) or (wanted,)) if choice is not type(None)]
    kind = wanted if get_origin(wanted) in (tuple, dict, Literal) else choices[0]
    if get_origin(kind) is Literal:
        return next(str(option) for option in get_args(kind) if option != now)
    if get_origin(kind) is tuple:
        return "0.5,0.25" if get_args(kind)[0] is float else "3,4"
    if get_origin(kind) is dict:
        return '{"N": 2}'
    if kind is bool:
        return "off" if now else "on"
    return {int: "17", float: "0.125", str: "other"}[kind]


DEFAULT = RunConfig(algo=ALGORITHMS["mappo"]())
KINDS = {key: kind for key, kind in kinds(DEFAULT) if key != "measures"}  # which is there to change others


BEFORE = values(DEFAULT)


@pytest.mark.parametrize("key", KINDS)
def test_every_field_is_a_flag_that_changes_it_and_nothing_else(key: str) -> None:
    text, flag = OTHER.get(key) or different(KINDS[key], BEFORE[key]), "--" + key.replace("_", "-")
    after = values(train_config([flag, text]))
    assert {name for name in BEFORE if BEFORE[name] != after[name]} == {key}
    assert after[key] == convert(text, KINDS[key], flag)


OFF_POLICY = {key: kind for key, kind in kinds(RunConfig(algo=ALGORITHMS["maddpg"]())) if key not in KINDS}


@pytest.mark.parametrize("key", [key for key in OFF_POLICY if key != "measures"])
def test_every_field_of_the_off_policy_algorithms_is_a_flag_too(key: str) -> None:
    before = values(train_config(["--algo", "maddpg"]))
    text, flag = different(OFF_POLICY[key], before[key]), "--" + key.replace("_", "-")
    after = values(train_config(["--algo", "maddpg", flag, text]))
    assert {name for name in before if before[name] != after[name]} == {key}
    assert after[key] == convert(text, OFF_POLICY[key], flag)


@pytest.mark.parametrize(
    "words", [["--env.num-envs", "9"], ["--env.num-envs=9"], ["--env.num_envs", "9"], ["--env.num_envs=9"]]
)
def test_flags_may_have_underscores_and_an_equals_sign(words: list[str]) -> None:
    assert train_config(words).env.num_envs == 9


def test_without_flags_there_are_the_defaults() -> None:
    assert values(train_config([])) == BEFORE


@pytest.mark.parametrize(("line", "said"), OUT_OF_RANGE, ids=[line for line, _ in OUT_OF_RANGE])
def test_what_is_out_of_range_is_refused_by_name_value_and_remedy(line: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        typed(line)
    assert said in str(refused.value)
    flags = dict(zip(line.split()[::2], line.split()[1::2], strict=True))
    keywords = {flag[2:].replace("-", "_").replace(".", "__"): value for flag, value in flags.items()}
    with pytest.raises(UsageError) as from_python:
        configs.resolve(configs.nested(keywords))
    assert str(from_python.value) == str(refused.value)


@pytest.mark.parametrize(
    ("flag", "typed", "meant"),
    [
        ("--total-steps", "1e6", 1_000_000),
        ("--total-steps", "2.5e3", 2_500),
        ("--env.num-envs", "auto", "auto"),
        ("--env.num-envs", "64", 64),
        ("--algo.gamma", "auto", "auto"),
        ("--algo.gamma", "1", 1.0),
        ("--algo.network.hidden", "64,64", (64, 64)),
        ("--algo.network.hidden", "64", (64,)),
        ("--algo.adam-betas", "0.9,0.99", (0.9, 0.99)),
        ("--algo.max-grad-norm", "none", None),
        ("--algo.max-grad-norm", "adaptive", "adaptive"),
        ("--algo.max-grad-norm", "0.5", 0.5),
        ("--algo.network.final-init", "none", None),
        ("--algo.network.norm", "none", "none"),
        ("--algo.actor-network.norm", "none", "none"),
        ("--algo.share", "off", False),
        ("--algo.share", "true", True),
        ("--env.kwargs", '{"N": 3, "local_ratio": 0.25}', {"N": 3, "local_ratio": 0.25}),
        ("--env.teams", '{"red": ["a_0"], "blue": ["b_0", "b_1"]}', {"red": ["a_0"], "blue": ["b_0", "b_1"]}),
        ("--env.teams", "none", None),
        ("--env.reward", "mean", "mean"),
        ("--init-from", "my runs/1", "my runs/1"),
        ("--run-dir", "none", None),
        ("--run-dir", "my runs/1", "my runs/1"),
        ("--algo", "ippo", "ippo"),
        ("--env", "mpe2/simple_v3", "mpe2/simple_v3"),
    ],
)
def test_values_as_they_are_typed(flag: str, typed: str, meant: Any) -> None:
    key = {"--algo": "algo.name", "--env": "env.id"}.get(flag, flag[2:].replace("-", "_"))
    found = values(train_config([flag, typed]))[key]
    assert found == meant
    assert type(found) is type(meant)


def test_bare_switches_are_on_and_the_last_of_two_equal_flags_wins() -> None:
    config = typed("--quiet --profile --seed 3 --seed 4")
    assert (config.quiet, config.profile, config.seed) == (True, True, 4)
    assert not typed("--quiet off --seed 3").quiet
    assert not train_config(["--quiet=false"]).quiet


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_survives_being_typed(value: float) -> None:
    assert convert(repr(value), float, "x") == value


@given(st.integers(-(2**53), 2**53))
def test_any_integer_survives_being_typed(value: int) -> None:
    assert convert(str(value), int, "x") == value


@pytest.mark.parametrize(
    "wanted", [int, float, bool, int | Literal["auto"], float | None, tuple[int, ...], dict[str, Any]]
)
@pytest.mark.parametrize("value", ["", "nan", "inf", "-inf", "1e999", [], {}, [[1]], {"a": 1}, object(), "0x10", None])
def test_no_value_makes_conversion_fail_in_another_way(wanted: Any, value: Any) -> None:
    said = ""
    try:
        found = convert(value, wanted, "key")
    except UsageError as refused:
        found, said = None, str(refused)
    assert said in ("", f"key is {value!r}; it must be {describe(wanted)}.")
    assert not isinstance(found, float) or math.isfinite(found)


@pytest.mark.parametrize("wrong", [True, False])
def test_a_boolean_is_no_number(wrong: bool) -> None:
    for wanted in (int, float, tuple[int, ...]):
        with pytest.raises(UsageError):
            convert(wrong, wanted, "key")
    with pytest.raises(UsageError):
        convert(1, bool, "key")


def test_python_keywords_are_flags_with_dots_as_underscores() -> None:
    flags = typed("--algo ippo --env mpe2/simple_v3 --algo.actor-lr 0.1 --algo.network.hidden 8,8")
    keywords: dict[str, Any] = {"algo": "ippo", "env": "mpe2/simple_v3", "algo__actor_lr": 0.1}
    assert configs.resolve(configs.nested(keywords | {"algo__network__hidden": (8, 8)})) == flags
    with pytest.raises(UsageError, match=r"unknown configuration key 'algo.lrr'. Did you mean algo.lr"):
        configs.resolve(configs.nested({"algo__lrr": 1}))
    with pytest.raises(UsageError, match=r"unknown configuration key 'sed'. Did you mean seed"):
        configs.resolve(configs.nested({"sed": 1}))
    with pytest.raises(UsageError, match=r"seed is \{'x': 1\}; it must be a whole number"):
        configs.resolve(configs.nested({"seed__x": 1}))


def plain(config: RunConfig) -> dict[str, Any]:
    return {key: getattr(config.algo, key) for key in PLAIN if hasattr(config.algo, key)}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_measures_none_takes_every_measure_away(name: str) -> None:
    algo = train_config(["--algo", name, "--measures", "none"]).algo
    own = {f.name for f in fields(algo)}
    assert plain(RunConfig(algo=algo)) == {key: value for key, value in PLAIN.items() if key in own}
    missing = {"huber", "discrete_gradient"} if "ppo" in name else {"target_kl", "squash", "log_std_init"}
    assert PLAIN.keys() - own == missing
    network = algo.network  # type: ignore[attr-defined]
    assert (network.norm, network.block, network.final_init) == ("none", "plain", None)


@pytest.fixture
def preset(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        file = tmp_path / "preset.yaml"
        file.write_text(text)
        return str(file)

    return write


def test_measures_as_a_flag_come_after_the_preset_and_before_all_other_flags(preset: Callable[[str], str]) -> None:
    file = preset("algo: {normalize_obs: on, lr: 0.5, network: {norm: layer, hidden: 7}}")
    for line in ("--measures none --algo.normalize-value on", "--algo.normalize-value on --measures none"):
        algo: Any = train_config([file, *line.split()]).algo
        assert (algo.normalize_obs, algo.network.norm) == (False, "none")
        assert algo.normalize_value
        assert (algo.lr, algo.network.hidden) == (0.5, (7,))  # no measures, and kept


def test_measures_of_one_network_alone_are_taken_away_with_the_others(preset: Callable[[str], str]) -> None:
    file = preset("algo: {critic_network: {norm: batch, hidden: 9, final_init: 0.1}}")
    algo: Any = train_config([file, "--measures", "none"]).algo
    network = algo.critic_network.over(algo.network)
    assert network == NetworkConfig(hidden=(9,), norm="none", final_init=None)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_measures_default_puts_back_what_a_preset_has_taken_away(name: str, preset: Callable[[str], str]) -> None:
    text = f"measures: none\nalgo: {{name: {name}, lr: 0.5, max_grad_norm: 3, network: {{hidden: 7}}}}"
    own: Any = train_config([preset(text)]).algo
    assert (own.max_grad_norm, own.network.norm) == (3, "none")
    config = train_config([preset(text), "--measures", "default", "--algo.normalize-obs", "off"])
    default: Any = ALGORITHMS[name]()
    kept = replace(default, lr=0.5, normalize_obs=False, network=replace(default.network, hidden=(7,)))
    assert (config.algo, config.measures) == (kept, "default")


def test_measures_default_over_a_preset_that_has_them_leaves_its_own_values(preset: Callable[[str], str]) -> None:
    algo: Any = train_config([preset("algo: {max_grad_norm: 3}"), "--measures", "default"]).algo
    assert algo.max_grad_norm == 3


def test_the_last_layer_of_one_network_alone_can_begin_like_a_hidden_one() -> None:
    algo: Any = typed("--algo.actor-network.final-init none").algo
    assert algo.actor_network.over(algo.network).final_init is None
    assert algo.critic_network.over(algo.network).final_init == 3e-3
    again: Any = configs.resolve(configs.parse(configs.write(RunConfig(algo=algo)), "x")).algo
    assert again == algo


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"algo": {"name": ["mappo"]}}, r"unknown algorithm"),
        ({"algo": {"name": 3}}, r"unknown algorithm '3'"),
        ({"algo": {"name": None}}, r"unknown algorithm 'None'"),
        ({"algo": ""}, r"unknown algorithm ''"),
        ({"total_steps": 10**400}, r"total_steps is 10+; it must be a whole number"),
        ({"env": 3, "env__kwargs": {}}, r"env is 3, so env__kwargs has no place"),
        ({"env": Path}, r"such as 'package.module:Path' or 'path/to/file.py:Path'"),
        (
            {"env__kwargs": {"reward": len}},
            r"env.kwargs is {'reward': <built-in function len>}; it must be JSON such as",
        ),
        ({"env": ""}, r"env.id is ''"),
        ({"init_from": ""}, r"init_from is ''"),
        ({"run_dir": ""}, r"run_dir is ''"),
        ({"algo__network__final_init": -1}, r"algo.network.final_init is -1.0; it must be none, 0 or positive"),
        ({"algo__actor_network__final_init": -1}, r"algo.actor_network.final_init is -1.0"),
    ],
)
def test_what_is_no_setting_is_one_sentence(keywords: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        configs.resolve(configs.nested(keywords))


def test_folders_may_be_paths() -> None:
    assert configs.resolve(configs.nested({"init_from": Path("a"), "run_dir": Path("b")})).init_from == "a"


def test_arguments_of_the_environment_are_what_the_run_folder_can_hold_of_them() -> None:
    given = {
        "length": np.int64(5),
        "map": np.eye(2),
        "file": Path("a"),
        "size": (1, 2.5),
        "more": {"on": np.True_, 1: None},
    }
    config = configs.resolve(configs.nested({"env__kwargs": given}))
    kept = {"length": 5, "map": [[1.0, 0.0], [0.0, 1.0]], "file": "a", "size": [1, 2.5], "more": {"on": True, 1: None}}
    assert config.env.kwargs == kept
    assert type(config.env.kwargs["length"]) is int
    assert configs.resolve(configs.parse(configs.write(config), "x")) == config


def test_measures_in_a_preset_come_before_its_other_keys_wherever_they_stand(preset: Callable[[str], str]) -> None:
    for text in ("algo: {normalize_obs: on}\nmeasures: none\n", "measures: none\nalgo: {normalize_obs: on}\n"):
        algo: Any = train_config([preset(text)]).algo
        assert algo.normalize_obs
        assert not algo.normalize_value
        assert algo.network == NetworkConfig(norm="none", block="plain", final_init=None)


def test_another_algorithm_drops_what_the_preset_says_of_algo_and_the_same_one_keeps_it(
    preset: Callable[[str], str],
) -> None:
    file = preset("algo: {name: mappo, lr: 0.5}\nseed: 9\n")
    other, same = train_config([file, "--algo", "ippo"]), train_config([file, "--algo=mappo"])
    assert (other.algo, other.seed) == (ALGORITHMS["ippo"](), 9)
    assert (same.algo.lr, same.seed) == (0.5, 9)  # type: ignore[attr-defined]
    assert train_config([file, "--algo", "ippo", "--algo.lr", "0.25"]).algo.lr == 0.25  # type: ignore[attr-defined]


def test_what_is_written_reads_back_to_the_same_run_without_its_folder() -> None:
    lines = [
        "",
        "--measures none",
        "--algo ippo --algo.max-grad-norm none --algo.network.final-init none --algo.actor-network.hidden 5",
        "--algo.gamma 0.97 --algo.lr 1.2345678901234567e-5 --env.num-envs 3 --run-dir x --seed 7 --quiet",
        '--env.teams {"red":["a_0"],"blue":["b_0","b_1"]} --env.reward mean --init-from old/run',
        "--algo.target-kl 0.01 --algo.clip-value 0.2 --measures none --algo.critic-network.norm none",
    ]
    for line in lines:
        config = typed(line)
        text = configs.write(config)
        assert "run_dir" not in text
        again = configs.resolve(configs.parse(text, "text"))
        assert {**values(again), "run_dir": config.run_dir} == values(config)


def test_unset_fields_of_one_network_follow_the_common_one() -> None:
    base = NetworkConfig(hidden=(9,), norm="none")
    assert NetworkOverride().over(base) == base
    changed = NetworkOverride(norm="layer", hidden=(4, 4)).over(base)
    assert (changed.hidden, changed.norm, changed.activation) == ((4, 4), "layer", base.activation)
    assert {f.name for f in fields(NetworkOverride)} == {f.name for f in fields(NetworkConfig)}


def test_to_dict_is_plain_data() -> None:
    assert json.loads(json.dumps(to_dict(train_config([])))) == to_dict(train_config([]))
