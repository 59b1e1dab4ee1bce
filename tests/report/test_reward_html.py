"""The page with pictures: whole, alone, and nothing drawn over anything else."""

from __future__ import annotations

import copy
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest

from marl_stable.report import reward_charts
from marl_stable.report.reward_html import page
from marl_stable.report.svg import width_of

VOID = {"meta", "br"}


def term(name: str, agent: str, share: float) -> dict[str, Any]:
    return {
        "name": name, "agent": agent, "mean": 0.1, "std": 0.2, "zero": 0.5, "share": share,
        "share_of_policy": 1 - share, "explained_by_actions": 0.7, "lag": 3,
    }  # fmt: skip


def curve(name: str, player: str) -> dict[str, Any]:
    mean = [0.1 * t for t in range(25)]
    low, high = [value - 1 for value in mean], [value + 1 for value in mean]
    return {
        "group": "agent", "term": name, "player": player, "mean": mean, "low": low, "high": high, "episodes": 16,
        "agents": 2,
    }  # fmt: skip


def response(name: str, dimension: int, ranged: bool) -> dict[str, Any]:
    at = [-1.0, -0.5, 0.0, 0.5, 1.0] if ranged else [0.0, 1.0, 2.0, 9.0, 17.0]
    return {
        "group": "agent", "dimension": dimension, "range": ranged, "term": name, "steps": 5, "at": at, "trials": 60,
        "mean": [0.0, 0.1, -0.2, 0.3, 0.4], "error": [0.1] * 5, "low": [-1.0] * 5, "high": [2.0] * 5,
    }  # fmt: skip


def over_training(name: str, share: float) -> dict[str, Any]:
    curves = {"mean": [-1200.0, 300.0, 5400.0], "share": [share, None, share]}
    mean, shares = {"first": -1200.0, "last": 5400.0}, {"first": share, "last": share}
    steps = [100_000, 200_000, 2_000_000]
    return {"group": "agent", "term": name, "mean": mean, "share": shares, "steps": steps, "curve": curves}


TERMS = {"near <b>": 1.2, "effort & co": -0.2}
FOUND: dict[str, Any] = {
    "env": "x",
    "terms": [term(name, f"agent_{i}", share) for i in range(3) for name, share in TERMS.items()],
    "baselines": {
        "random": {"return": -5.5, "ci95": [-6.0, -5.0]}, "no_op": {"return": 0.0, "ci95": [0.0, 0.0]},
        "best_constant": {"return": 3.0, "ci95": [2.0, 4.0]}, "policy": None,
    },
    "others": {"greedy_for_effort & co": {"return": None, "ci95": [None, None]}},
    "findings": [{
        "cause": "reward_term_dominates", "confidence": 0.85, "onset_steps": 0, "where": {"term": "near <b>"},
        "evidence": {"share": 0.99}, "explanation": "It is < all.", "remedy": "Less.", "config": {"algo.lr": 1e-3},
    }],
    "checked": ["reward_term_dominates", "reward_offset"], "rewards": "own", "learns_from": "own",
    "metric": {"name": "closeness", "random": {"metric": -1.5, "return": 4.0}},
    "critic": {"correlation": 0.1, "cases": 30, "signs": 0.5},
    "played": {"steps": 100, "seconds": 1.0, "copies": 16, "longest": 25, "left_out": ["what each agent changes"]},
    "training": [over_training(name, share) for name, share in TERMS.items()],
    "pictures": {
        "curves": [curve(name, player) for name in TERMS for player in ("random", "best_constant", "policy")],
        "responses": [response(name, d, d == 1) for name in TERMS for d in (0, 1)],
    },
}  # fmt: skip


class Balanced(HTMLParser):
    """Fails on tags that do not match, and collects words and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.classes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.classes |= {kind for name, value in attrs if name == "class" for kind in (value or "").split()}
        self.open += [tag] if tag not in VOID else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    return parser


def pictures(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_it_is_one_file_without_scripts_or_anything_to_fetch() -> None:
    text = page(FOUND, "x")
    parser = read(text)
    assert not {"script", "link", "img", "iframe"} & set(parser.tags)
    assert not re.search(r"https?:|url\(|@import|\bnan\b|\binf\b|None", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_it_says_what_was_found_and_escapes_names() -> None:
    words = " ".join(" ".join(read(page(FOUND, "<i>mine</i>")).words).split())
    for told in (
        "<i>mine</i>", "1 finding", "reward term dominates", "It is < all.", "--algo.lr 0.001", "near <b>",
        "greedy for effort & co", "not finite", "closeness", "points nowhere", "left out: what each agent changes",
        "under the run's policy", "agent, action 1, 60 trials", "Over training", "reward offset",
    ):  # fmt: skip
        assert told in words


def test_every_part_has_its_picture() -> None:
    # returns, shares of random play and of the policy, 2 courses, 4 responses, 3 of training
    assert len(pictures(page(FOUND, "x"))) == 1 + 2 + 2 + 4 + 3


def test_a_reward_of_one_term_that_was_not_trained_on_has_fewer() -> None:
    found = copy.deepcopy(FOUND) | {"training": [], "metric": None, "critic": None, "findings": []}
    found["terms"] = [{k: v for k, v in entry.items() if k != "share_of_policy"} for entry in found["terms"][::2]]
    found["pictures"] = {"curves": [curve("near <b>", "random")], "responses": []}
    text = page(found, "x")
    assert len(pictures(text)) == 2
    assert "Nothing was found against this reward" in text


def test_every_class_of_a_mark_has_its_style() -> None:
    text = page(FOUND, "x")
    style = text[text.index("<style>") : text.index("</style>")]
    for kind in read(text).classes - {""}:
        assert f".{kind} " in style or f".{kind}," in style, kind


@pytest.mark.parametrize("size", [1e-5, 1.0, 37.0, 1e5])
def test_texts_stay_within_pictures_and_off_each_other(size: float) -> None:
    found = copy.deepcopy(FOUND)
    for entry in (*found["pictures"]["curves"], *found["pictures"]["responses"]):
        for part in ("mean", "low", "high", "error"):
            entry[part] = [size * value for value in entry.get(part, [])]
    for picture in pictures(page(found, "x")):
        width, height = (float(x) for x in picture.attrib["viewBox"].split()[2:])
        boxes = [extent(text) for text in picture.iter("text")]
        for left, right, base in boxes:
            assert left >= -1
            assert right <= width + 1
            assert 0 <= base <= height
        for (left, right, base), (other_left, other_right, other_base) in itertools.combinations(boxes, 2):
            assert right <= other_left or other_right <= left or abs(base - other_base) >= 10


def extent(text: ET.Element) -> tuple[float, float, float]:
    """Left, right and baseline of a text, about."""
    x, wide = float(text.attrib["x"]), 0.9 * width_of(text.text or "")
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[text.attrib["text-anchor"]]
    return left, left + wide, float(text.attrib["y"])


def test_marks_stay_within_the_area_of_the_plot() -> None:
    entry = FOUND["pictures"]["responses"][0] | {"error": [2.0] * 5}
    picture = ET.fromstring(reward_charts.response(entry, reward_charts.response_bounds([entry]), "c0"))
    for path in (path.attrib["d"] for path in picture.iter("path") if "whisker" in path.attrib["class"]):
        top, bottom = sorted(float(y) for y in re.findall(r",([\d.]+)V([\d.]+)", path)[0])
        assert reward_charts.TOP <= top < bottom <= reward_charts.HEIGHT - reward_charts.BOTTOM
