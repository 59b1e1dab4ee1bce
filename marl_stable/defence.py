"""What is seen in an iteration's figures becomes incidents, and what the guard decides is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marl_stable.agents.base import copied
from marl_stable.monitor.detectors import Incident, in_words
from marl_stable.monitor.guard import HALVE, LOWEST, Act
from marl_stable.monitor.pace import FirstStep, first_step
from marl_stable.monitor.table import NETWORKS, Host
from marl_stable.types import Stopped
from marl_stable.watching import non_finite_updates, repeated_actions, skipped_spikes

if TYPE_CHECKING:
    from marl_stable.training import Observer, Training

GO_ON = (
    "last.pt has all networks as they were at {to_steps:,} steps, with half the step size: --resume goes on from there,"
    " and --init-from begins a new run with the best policy"
)
NO_WAY_BACK = "No healthy state was kept: train anew, with a smaller --algo.lr or other --measures"


def watch(run: Training, found: Host, observer: Observer) -> None:
    """What the monitor sees in an iteration's figures, and what the guard does about it.

    Raises Stopped where that is to end the run.
    """
    spec = run.envs.spec
    incidents = non_finite_updates(run.steps, spec, found, "skipped_update" if run.acts else "none")
    incidents += skipped_spikes(run.steps, spec, found) if run.acts else []
    incidents += run.validation.incidents(run.steps, found)
    for incident in incidents + repeated_actions(run.detector, run.steps, spec, found):
        observer.happened(incident)
    if run.acts:
        defend(run, found, observer)
    if sentence := run.validation.stop(found):
        raise Stopped(sentence)


def begin(run: Training, reach: dict[str, Any], observer: Observer) -> None:
    """Before the first update: smaller steps where it would go too far; `reach` is the preflight's `first_step`."""
    config = run.agent.config
    rates = {"actor": config.actor_lr or config.lr, "critic": config.critic_lr or config.lr}
    found: dict[str, dict[str, list[FirstStep]]] = {}
    for name, learner in run.agent.learners.items():
        outputs = {"actor": reach.get(name, {}), "critic": {}}
        found[name] = {
            network: [first_step(share, outputs[network]) for share in learner.optimizer(network).shares(rate).tolist()]
            for network, rate in rates.items()
        }
    for act in run.guard.begin(found):
        _adjust(run, act)
        if act.incident:
            observer.happened(act.incident)


def defend(run: Training, found: Host, observer: Observer) -> None:
    """Do what the guard decides, and keep a snapshot where it wants one. Raises Stopped where it ends the run."""
    for act in run.guard.decide(run.steps, found, alarm=bool(run.detector.repeating())):
        if act.state is not None:
            restore(run, act.state)
        elif act.rows:
            _adjust(run, act)
        if act.incident:
            observer.happened(act.incident)
        if act.kind == "stopped" and act.incident:
            raise Stopped(_last_words(act.incident))
    keep_snapshot(run)


def _adjust(run: Training, act: Act) -> None:
    """Change a row's step size, or let it forget its gradients."""
    optimizer = run.agent.learners[act.group].optimizer(act.network)
    if act.kind == "reset_moments":
        optimizer.reset_moments(act.rows)
    else:
        optimizer.scale_rate(act.rows, act.factor, LOWEST)


def keep_snapshot(run: Training) -> None:
    """Keep what learners are, if the guard wants it: networks, targets, statistics and optimisers."""
    if run.guard.wants_snapshot():
        run.guard.keep(run.steps, copied({name: learner.state_dict() for name, learner in run.agent.learners.items()}))


def restore(run: Training, snapshot: dict[str, Any]) -> None:
    """Back to earlier learners, with half the step sizes of now and optimisers that have forgotten all gradients.

    Environments, replay and generators go on: what agents lived through stays, and no draw is repeated.
    """
    for name, learner in run.agent.learners.items():
        rates = {network: learner.optimizer(network).rates.state_dict() for network in NETWORKS}
        learner.load_state_dict(snapshot[name])
        for network in NETWORKS:
            optimizer = learner.optimizer(network)
            everyone = [True] * optimizer.rows
            optimizer.rates.load_state_dict(rates[network])
            optimizer.scale_rate(everyone, HALVE, LOWEST)
            optimizer.reset_moments(everyone)


def _last_words(incident: Incident) -> str:
    """Why the run ends, and how to go on."""
    to_steps = incident.evidence.get("to_steps")
    remedy = NO_WAY_BACK if to_steps is None else GO_ON.format(to_steps=to_steps)
    return f"{in_words(incident)} {remedy}."
