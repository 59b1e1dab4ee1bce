"""What is compared with other libraries is the same work, and what they tell is read as they mean it."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import time

import pytest

from benchmarks.peers import __main__ as page
from benchmarks.peers import equal_work, table, turns
from benchmarks.peers.equal_work import benchmarl_work, jaxmarl_work, our_work
from benchmarks.peers.learning import learned
from benchmarks.peers.orders import Orders, Turn, read
from benchmarks.peers.rows import rows
from benchmarks.peers.runners.greedy import until
from benchmarks.peers.turns import Arm, in_turn
from benchmarks.peers.venvs import REQUIREMENTS, pins, reason
from marl_stable import configs
from marl_stable.agents.config import MADDPGConfig, MAPPOConfig

ROWS = {row.key: row for row in rows()}


@pytest.mark.parametrize("key", [row.key for row in rows() if row.arms[0].runner == "ours_training"])
def test_our_flags_make_the_peers_gradient_steps_on_as_many_rows(key: str) -> None:
    ours, peer = (arm.settings for arm in ROWS[key].arms[:2])
    theirs = benchmarl_work(peer["experiment"]) if "experiment" in peer else jaxmarl_work(peer)
    assert our_work(ours["flags"]) == theirs
    assert ours["iterations"] == peer.get("iterations", 1)


def test_the_work_of_benchmarls_defaults() -> None:
    small, off, large = map(benchmarl_work, (equal_work.ON_POLICY, equal_work.OFF_POLICY, equal_work.LARGE))
    assert small == (10, 6_000, 45 * 15, 45 * 6_000)
    assert off == (10, 6_000, 1_000, 128_000)
    assert large == (600, 60_000, 10 * 15, 600_000)  # the last of 15 minibatches is smaller


def test_the_flags_are_what_the_learners_get() -> None:
    config = configs.resolve(configs.nested(ROWS["small_mappo"].arms[0].settings["flags"]))
    assert isinstance(config.algo, MAPPOConfig)
    network = config.algo.network
    assert (network.hidden, network.norm, network.activation) == ((256, 256), "none", "tanh")
    assert (config.algo.batch_size, config.algo.update_epochs, config.algo.num_minibatches) == (6_000, 45, 15)
    config = configs.resolve(configs.nested(ROWS["small_maddpg"].arms[0].settings["flags"]))
    assert isinstance(config.algo, MADDPGConfig)
    assert (config.algo.batch_size, config.algo.steps_per_update, config.algo.train_every) == (128, 6, 6_000)
    assert config.stability == "guard"  # ours watches itself as it does for its users


def test_turns_are_told_and_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    orders = Orders()
    orders.done(75)
    with pytest.raises(KeyboardInterrupt):
        orders.done(50)
    first, second = map(read, capsys.readouterr().out.splitlines())
    assert first is not None
    assert second is not None
    assert (first.steps, second.steps) == (75, 50)
    assert first.seconds > 0
    assert second.processor >= 0
    assert read("mean return = -3.1") is None


def test_processes_take_turns_and_one_that_fails_is_told_of() -> None:
    found = in_turn([Arm("raw", "raw_mpe2", {"steps": 5}), Arm("broken", "raw_mpe2", {})], rounds=2)
    raw = found["raw"]
    assert isinstance(raw, list)
    assert [turn.steps for turn in raw] == [5, 5, 5]
    assert found["broken"] == "broken failed: KeyError: 'steps'."


def test_a_turn_that_takes_too_long_is_ended_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST", 0.1)
    found = turns.in_turn([Arm("endless", "raw_mpe2", {"steps": 10**9})], rounds=1)
    assert found == {"endless": "endless needed more than 0 s for a turn."}


def test_a_reason_is_one_line_that_fits_a_table() -> None:
    told = "Traceback:\nRuntimeError: no | such thing.\nWARNING: a newer pip is there\n"
    assert reason(told) == "RuntimeError: no / such thing."
    assert reason("killed\n") == "killed."
    assert reason("") == "it said nothing."


def test_ratios_are_of_turns() -> None:
    ours, other = [Turn(100, 1, 1), Turn(100, 2, 1), Turn(100, 1, 1)], [Turn(50, 1, 2), Turn(50, 2, 2), Turn(50, 2, 2)]
    assert table.ratio(ours, other) == (2, 2, 4)
    assert table.by_processor(ours, other) == 4
    assert table.steps_per_second(ours) == "100"


def test_a_line_for_each_peer_and_a_sentence_for_one_that_is_missing() -> None:
    even = [[100, 1.0, 1.0], [100, 1.0, 1.0]]
    entry = {
        "title": "work",
        "arms": {"ours": even, "slow": [[100, 2.0, 4.0]] * 2, "gone": "gone failed: no wheel."},
        "targets": {"slow": 1.5},
        "one_process": True,
        "first_turn_seconds": {"ours": 1.4, "slow": 20.0},
    }
    assert table.lines(entry) == [
        "| work | 100 | slow | 50 | 2.00 (2.00 to 2.00 of 2) | 4.00 | 1, 20 | 1.5: met |",
        "| the same | | gone | | gone failed: no wheel. | | | |",
    ]
    assert "missed" in table.lines(entry | {"targets": {"slow": 2.5}})[0]
    assert table.lines(entry | {"one_process": False})[0].endswith("(2.00 to 2.00 of 2) |  | 1, 20 | 1.5: met |")


def test_every_peer_has_pinned_requirements() -> None:
    peers = {arm.peer for row in rows() for arm in row.arms if arm.peer}
    assert peers <= {file.stem for file in REQUIREMENTS.glob("*.txt")}
    for peer in peers:
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins(peer)), peer


def test_the_committed_table_is_that_of_the_committed_results() -> None:
    entries = page.known()
    assert set(entries) <= set(ROWS)
    text = page.TABLE.read_text(encoding="utf-8")
    for entry in entries.values():
        assert all(line in text for line in table.lines(entry))
        assert entry["settings"] == json.loads(json.dumps({a.name: a.settings for a in ROWS[entry["key"]].arms}))


def test_what_a_peer_has_learned_is_found_among_what_it_printed() -> None:
    assert learned('100%|##|\nlearned: {"steps": 75, "return": -24.5}\nbye\n') == {"steps": 75, "return": -24.5}
    assert learned("Killed\n") is None


def test_training_ends_when_the_time_is_up() -> None:
    done = []

    def compute() -> None:
        while True:
            sum(range(10_000))

    until(time.process_time() + 0.1, compute)
    until(time.process_time() + 60, lambda: done.append(1))
    assert done == [1]
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
