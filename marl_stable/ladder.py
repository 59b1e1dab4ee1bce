"""`marl-stable ladder`: the measures one after the other from the plain network upward, and the first that suffice.

Every rung is the rung below it and some measures more, trained briefly on the same seeds. What a preset itself says of
a measure holds from the rung on that brings it; of what it leaves plain, the rung sets what `REMEDIES` has, or the
algorithm's default. The size of networks, their activation and initialisation stay the preset's until a rung changes
them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from marl_stable.agents.config import ActorCriticConfig, default_config, with_measures
from marl_stable.config import RunConfig
from marl_stable.conversion import leaves, require
from marl_stable.report.aside import prints_aside
from marl_stable.report.console import open_console
from marl_stable.report.files import to_json
from marl_stable.report.page import flags
from marl_stable.run import beginning
from marl_stable.trial import Trial, brief, mean, outcome

BUDGET = 5  # a rung is trained for a fifth of the preset's steps
WITHIN = 0.05  # of the distance from random play to the best rung: less than that is no difference
LOWER = 3.0  # what step sizes are divided by
DEEP = 3  # hidden layers; of more than that one half goes, and the others become residual blocks
PARTS = ("actor_network", "critic_network")

RUNGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("nothing", ()),
    ("gradient clipping, smaller steps", ("max_grad_norm", "huber", "lr_schedule", "target_kl")),
    (
        "final layer, activation, tanh and scaling of actions",
        (
            *("squash", "log_std_init", "action_penalty", "discrete_gradient"),
            *("network.final_init", "network.activation", "network.init"),
        ),
    ),
    ("normalised inputs and rewards", ("normalize_obs", "normalize_reward", "normalize_value")),
    ("norm layers, residual blocks, fewer layers", ("network.norm", "network.block")),
    (
        "weight decay, gated cells, Adam's moments",
        ("weight_decay", "l1", "network.recurrent", "adam_betas", "adam_eps"),
    ),
)
"""Name of each rung, and the settings of the algorithm that are its measures; step sizes and depth go along."""
REMEDIES: dict[str, Any] = {
    "network.norm": "layer",
    "network.recurrent": "gru",
    "weight_decay": 1e-2,
    "adam_betas": (0.9, 0.99),
}
"""Where the defaults have none of the measure."""


class Row(NamedTuple):
    """One rung over all its seeds; `config`: the flags that make it of the preset."""

    rung: int
    name: str
    config: dict[str, Any]
    value: float | None
    symptoms: list[str]
    incidents: int
    seeds: list[int]
    random: float | None


# ---- the rungs


def rungs(config: RunConfig) -> list[RunConfig]:
    """`config` with the measures of rungs 0 to 5."""
    asked = config.algo
    assert isinstance(asked, ActorCriticConfig)
    algo = plain(asked)
    found = [algo]
    for number, (_, measures) in enumerate(RUNGS[1:], start=1):
        for name in measures:
            algo = _with(algo, asked, name)
        algo = _slower(algo) if number == 1 else _shallower(algo) if number == 4 else algo
        found.append(algo)
    return [replace(config, algo=algo) for algo in found]


def plain(algo: ActorCriticConfig) -> ActorCriticConfig:
    """Without any measure, gated cells among them; networks keep their size, activation and initialisation."""
    bare = with_measures(algo, "none")
    parts: dict[str, Any] = {name: replace(getattr(bare, name), recurrent=None) for name in PARTS}
    adam: dict[str, Any] = {"adam_betas": ActorCriticConfig.adam_betas, "adam_eps": ActorCriticConfig.adam_eps}
    return replace(bare, network=replace(bare.network, recurrent="none"), **parts, **adam)


def _with(algo: ActorCriticConfig, asked: ActorCriticConfig, name: str) -> ActorCriticConfig:
    """`algo` with the measure `name`: as asked for, else the remedy, else the default."""
    section, _, field = name.rpartition(".")
    default = default_config(asked.name)
    if not section:
        return replace(algo, **_chosen(algo, asked, default, field, name)) if hasattr(algo, field) else algo
    if field == "recurrent" and not hasattr(algo, "recurrent"):  # an algorithm without memory
        return algo
    if field == "block" and len(algo.network.hidden) <= DEEP and asked.network.block == "plain":
        return algo
    network = replace(algo.network, **_chosen(algo.network, asked.network, default.network, field, name))
    parts = {}
    for part in PARTS:  # what was set for one network holds for that one
        own = getattr(asked, part)
        value = getattr(own, field)
        known = value is not None and field not in ("activation", "init")
        parts[part] = replace(getattr(algo, part), **{field: value if known else None})
    return replace(algo, network=network, **parts)


def _chosen(here: Any, asked: Any, default: Any, field: str, name: str) -> dict[str, Any]:
    own, value = getattr(asked, field), REMEDIES.get(name, getattr(default, field))
    if name == "network.block":
        value = "residual"
    return {field: own if own != getattr(here, field) else value}


def _slower(algo: ActorCriticConfig) -> ActorCriticConfig:
    """A third of each step size, and no more than the default's."""
    most = default_config(algo.name).lr
    rates = {name: getattr(algo, name) for name in ("lr", "actor_lr", "critic_lr")}
    return replace(algo, **{name: min(rate / LOWER, most) for name, rate in rates.items() if rate is not None})


def _shallower(algo: ActorCriticConfig) -> ActorCriticConfig:
    """Half of the hidden layers where there are many."""
    sections = {name: getattr(algo, name) for name in ("network", *PARTS)}
    deep = {name: section for name, section in sections.items() if len(section.hidden or ()) > DEEP}
    cut: dict[str, Any] = {
        name: replace(section, hidden=section.hidden[: len(section.hidden) // 2]) for name, section in deep.items()
    }
    return replace(algo, **cut)


def difference(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """The flags that make `config` of `base`."""
    before = dict(leaves(base))
    return {key: value for key, value in leaves(config) if value != before[key]}


# ---- climbing


def climb(config: RunConfig, steps: int, seeds: int, folder: Path) -> Iterator[Row]:
    """Train every rung on the seeds from `config.seed` on, each run in a folder of its own below `folder`.

    Raises KeyboardInterrupt where the user ends a run.
    """
    for number, (rung, (name, _)) in enumerate(zip(rungs(config), RUNGS, strict=True)):
        found = []
        for seed in range(config.seed, config.seed + seeds):
            ran = beginning.start(brief(rung, steps, seed, folder / f"rung-{number}-s{seed}"))
            found.append(outcome(ran, seed))
        yield _row(number, name, difference(rung, config), found)


def _row(number: int, name: str, config: dict[str, Any], found: Sequence[Trial]) -> Row:
    return Row(
        number,
        name,
        config,
        mean([trial.value for trial in found]),
        sorted({symptom for trial in found for symptom in trial.symptoms}),
        sum(trial.incidents for trial in found),
        [trial.seed for trial in found],
        mean([trial.random for trial in found]),
    )


def suffices(rows: Sequence[Row]) -> int | None:
    """The first rung without symptom whose return is within 5% of the distance from random play to the best return.

    None where no rung is better than random play, or all of them that are good enough have symptoms.
    """
    values = [row.value for row in rows if row.value is not None]
    random = mean([row.random for row in rows])
    if not values or random is None or max(values) <= random:
        return None
    enough = max(values) - WITHIN * (max(values) - random)
    good = (row.rung for row in rows if row.value is not None and row.value >= enough and not row.symptoms)
    return next(good, None)


# ---- in words


def report(config: RunConfig, steps: int | None, seeds: int, as_json: bool, say: Callable[[str], None]) -> bool:
    """Climb, tell each rung on stderr as it is known, and `say` or show what was found. False where interrupted.

    `steps` of each rung: by default a fifth of the preset's. Raises UsageError for numbers that are out of range.
    """
    require(seeds > 0, "seeds", seeds, "at least 1")
    require(steps is None or steps > 0, "rung_steps", steps, "a positive number of steps")
    budget = max(1, config.total_steps // BUDGET) if steps is None else steps
    rows: list[Row] = []
    finished, console = False, open_console(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="ladder-") as temporary, prints_aside(), suppress(KeyboardInterrupt):
        for row in climb(config, budget, seeds, Path(config.run_dir or temporary)):
            rows.append(row)
            console.print(Text(_line(row)), soft_wrap=True)
        finished = True
    if as_json:
        say(to_json({"rungs": [_entry(row) for row in rows], "suffices": suffices(rows) if finished else None}))
    else:
        shown = open_console(sys.stdout)
        shown.print(_table(rows, budget))
        shown.print(Text(_verdict(rows, finished)), soft_wrap=True)
    return finished


def _entry(row: Row) -> dict[str, Any]:
    known = {"rung": row.rung, "name": row.name, "config": row.config, "return": row.value, "symptoms": row.symptoms}
    return known | {"incidents": row.incidents, "seeds": row.seeds}


def _line(row: Row) -> str:
    return f"rung {row.rung}, {row.name}: return {_number(row.value)}, {_words(row.symptoms)}"


def _table(rows: Sequence[Row], steps: int) -> Table:
    seeds = len(rows[0].seeds) if rows else 0
    title = f"{steps:,} steps a rung, {seeds} seed{'s' if seeds != 1 else ''}"
    table = Table(title=Text(title), title_justify="left")
    for heading in ("rung", "with", "return", "symptoms", "incidents"):
        table.add_column(heading, justify="right" if heading in ("return", "incidents") else "left", overflow="fold")
    for row in rows:
        name = row.name if row.rung == 0 else f"+ {row.name}"
        cells = (str(row.rung), name, _number(row.value), _words(row.symptoms), str(row.incidents))
        table.add_row(*map(Text, cells))
    return table


def _verdict(rows: Sequence[Row], finished: bool) -> str:
    random = mean([row.random for row in rows])
    beside = "" if random is None else f"random play {random:.2f}\n"
    if not finished:
        return f"{beside}interrupted: what suffices is known once all rungs are"
    enough = suffices(rows)
    if enough is None:
        return f"{beside}no rung suffices: look for the cause with `marl-stable diagnose`"
    config = rows[enough].config
    return f"{beside}rung {enough} suffices: {flags(config) if config else 'the preset as it stands'}"


def _words(symptoms: Sequence[str]) -> str:
    return ", ".join(symptom.replace("_", " ") for symptom in symptoms) or "none"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"
