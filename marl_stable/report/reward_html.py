"""What `reward` found, as a page with pictures: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from marl_stable.report import reward_charts as charts
from marl_stable.report.cards import cards
from marl_stable.report.html import colour, document, figure, legend, swatch, table
from marl_stable.report.page import number
from marl_stable.report.reward_page import TERM_HEAD, critic_told, how_played, term_cells

MOST_AGENTS = 24
Found = Mapping[str, Any]


def page(found: Found, name: str) -> str:
    """`found` is what `debugging.examine(..., pictured=True)` returns; `name` is what the user calls it."""
    terms = list(dict.fromkeys(entry["name"] for entry in found["terms"]))
    body = [
        *_head(found, name),
        *cards(found["findings"], unknown="not the reward", timed=False),
        *_returns(found),
        *_terms(found, terms),
        *_courses(found["pictures"]["curves"]),
        *_responses(found["pictures"]["responses"], terms),
        *_training(found["training"], terms),
        *_checked(found),
    ]
    return document(f"{name}: is it the reward?", body)


def _head(found: Found, name: str) -> Iterator[str]:
    count = len(found["findings"])
    verdict = f"{count} finding{'s' * (count > 1)}" if count else "Nothing was found against this reward"
    yield f"<h1>{escape(name)}</h1>"
    yield f'<p><b class="{"bad" if count else "good"}">{verdict}</b></p>'
    yield f'<p class="note">{escape(how_played(found))}</p>'
    if left_out := found["played"]["left_out"]:
        yield f'<p class="note">Time was short on this machine; left out: {escape(", ".join(left_out))}.</p>'


def _returns(found: Found) -> Iterator[str]:
    yield "<h2>What each way to behave is paid</h2>"
    yield '<p class="note">All play the same episodes. A constant action that is paid as much as anything wins without '
    yield "looking; a greedy search for one term that lowers the whole shows that terms fight.</p>"
    yield charts.returns({name: way for name, way in (found["baselines"] | found["others"]).items() if way})
    if found["metric"]:
        rows = [(who, entry) for who, entry in found["metric"].items() if who != "name"]
        cells = [(escape(who), number(entry["metric"]), number(entry["return"])) for who, entry in rows]
        yield table(("way to behave", escape(found["metric"]["name"]), "return"), cells)
    if found["critic"]:
        told = critic_told(found["critic"])
        yield f"<p>{escape(told[0].upper() + told[1:])}.</p>"


def _terms(found: Found, terms: Sequence[str]) -> Iterator[str]:
    entries = found["terms"]
    agents = list(dict.fromkeys(entry["agent"] for entry in entries))[:MOST_AGENTS]
    shown = [entry for entry in entries if entry["agent"] in agents]
    yield "<h2>Terms, and whose doing the learning is</h2>"
    yield '<p class="note">Mean and deviation are of single steps of random play. Share: of the variance of the '
    yield "advantage, Cov(A<sub>k</sub>, A) / Var(A); an agent's shares add up to 100%, and a term that works against "
    yield "the rest has one below 0. By actions: how much of the term's variance actions make. Felt after: steps until "
    yield "half of an action's effect is there.</p>"
    yield table(TERM_HEAD, [_row(entry, terms) for entry in shown], named=2)
    if len(agents) < len({entry["agent"] for entry in entries}):
        yield f'<p class="note">The first {MOST_AGENTS} agents; --json has them all.</p>'
    if len(terms) == 1:
        return
    yield legend((colour(k), term) for k, term in enumerate(terms))
    for key, told in {"share": "under random play", "share_of_policy": "under the run's policy"}.items():
        if key in shown[0]:
            yield figure(charts.shares(shown, key, terms), "Shares of the advantage", told)


def _row(entry: Found, terms: Sequence[str]) -> list[str]:
    name, *cells = map(escape, term_cells(entry))
    return [swatch(colour(terms.index(entry["name"]))) + name, *cells]


def _courses(curves: Sequence[Found]) -> Iterator[str]:
    places = list(dict.fromkeys((entry["group"], entry["term"]) for entry in curves))
    players = list(dict.fromkeys(entry["player"] for entry in curves))
    yield "<h2>Terms over an episode</h2>"
    yield '<p class="note">What a term pays at each step: mean, and the band from the 10th to the 90th percentile of '
    yield "the episodes of single agents.</p>"
    yield legend((charts.player_colour(player), player.replace("_", " ")) for player in players)
    yield '<div class="panels">'
    for group, term in places:
        chosen = [entry for entry in curves if (entry["group"], entry["term"]) == (group, term)]
        yield figure(charts.course(chosen), term, f"{group}, {chosen[0]['episodes']} episodes")
    yield "</div>"


def _responses(entries: Sequence[Found], terms: Sequence[str]) -> Iterator[str]:
    if not entries:
        return
    steps = entries[0]["steps"]
    yield "<h2>What each action changes</h2>"
    yield f'<p class="note">One agent does one thing for {steps} step{"s" * (steps > 1)} of an episode that is else as '
    yield f"before; drawn is by how much its term's sum over {2 * steps} steps then changes. Dot and line: mean with "
    yield "its 95% interval. Band: from the 10th to the 90th percentile of situations: a mean at 0 with a wide band is "
    yield "an action that helps here and harms there, one with a narrow band one that this term does not feel.</p>"
    yield '<div class="panels">'
    for entry in entries:
        alike = [other for other in entries if (other["group"], other["term"]) == (entry["group"], entry["term"])]
        several = len({other["dimension"] for other in alike}) > 1
        place = f"{entry['group']}, action {entry['dimension']}" if several else entry["group"]
        kind = colour(terms.index(entry["term"]))
        picture = charts.response(entry, charts.response_bounds(alike), kind)
        yield figure(picture, entry["term"], f"{place}, {entry['trials']} trials")
    yield "</div>"


def _training(entries: Sequence[Found], terms: Sequence[str]) -> Iterator[str]:
    if not entries:
        return
    yield "<h2>Over training</h2>"
    yield '<p class="note">From the recording: what each term paid per step, and how much of what the policy was told '
    yield "came from it. Means over the agents of a group.</p>"
    for group in dict.fromkeys(entry["group"] for entry in entries):
        own = [entry for entry in entries if entry["group"] == group]
        kinds = [colour(terms.index(entry["term"]) if entry["term"] in terms else k) for k, entry in enumerate(own)]
        yield legend((kind, entry["term"]) for kind, entry in zip(kinds, own, strict=True))
        yield figure(charts.trained_shares(own, kinds), "Shares of the advantage", group)
        yield '<div class="panels">'
        for kind, entry in zip(kinds, own, strict=True):
            yield figure(charts.trained(entry, kind), entry["term"], f"{group}, mean per step")
        yield "</div>"


def _checked(found: Found) -> Iterator[str]:
    named = {finding["cause"] for finding in found["findings"]}
    well = [cause.replace("_", " ") for cause in found["checked"] if cause not in named]
    yield "<h2>Checked and found well</h2>"
    yield f'<p class="faint">{escape(", ".join(well))}</p>'
