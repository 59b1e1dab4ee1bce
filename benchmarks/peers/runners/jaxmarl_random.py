"""Random actions, drawn beforehand, in JaxMARL's simple_spread: all steps of a turn in one compiled loop."""

from __future__ import annotations

from typing import Any

import jax
import jaxmarl

from benchmarks.peers.orders import serve, settings

given = settings()
copies, steps = given["copies"], given["steps"]
env = jaxmarl.make("MPE_simple_spread_v3")
keys = jax.random.split(jax.random.key(1), copies)
actions = {agent: jax.random.randint(keys[0], (steps, copies), 0, 5) for agent in env.agents}


def advance(carry: tuple[Any, Any], action: Any) -> tuple[tuple[Any, Any], Any]:
    """One step of every copy; finished episodes begin anew by themselves."""
    key, state = carry
    key, drawn = jax.random.split(key)
    _, state, reward, _, _ = jax.vmap(env.step)(jax.random.split(drawn, copies), state, action)
    return (key, state), reward


@jax.jit
def played(key: Any, state: Any) -> Any:
    """`steps` steps of every copy from `state`; the last state, and all rewards."""
    return jax.lax.scan(advance, (key, state), actions)


_, state = jax.vmap(env.reset)(keys)


def play() -> int:
    """A turn; what was asked for is there when it ends."""
    global state
    (_, state), _ = jax.block_until_ready(played(keys[1], state))
    return copies * steps


serve(play)
