"""IPPO over JaxMARL's simple_spread, whole iterations compiled; the package has environments alone, the loop is ours.

It does what JaxMARL's published script does (`baselines/IPPO/ippo_ff_mpe.py`): 64-64 tanh, Adam with clipped gradients,
clipped values, advantages standardised per minibatch. Rows are agents' steps, A agents of E copies are `A * E` actors.

Shapes: T steps, N = A * E actors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxmarl
import optax

from benchmarks.peers.orders import serve, settings

given = settings()
COPIES, STEPS, EPOCHS, MINIBATCHES = (given[key] for key in ("copies", "steps", "epochs", "minibatches"))
GAMMA, GAE_LAMBDA, CLIP, ENTROPY, VALUE = 0.99, 0.95, 0.2, 0.01, 0.5
env = jaxmarl.make("MPE_simple_spread_v3")
ACTORS, OBS, ACTIONS = env.num_agents * COPIES, 18, 5
adam = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(2.5e-4, eps=1e-5))


class Rows(NamedTuple):
    """What is learned from: each `(T, N, ...)`, and flat in minibatches."""

    obs: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any


def stack(key: Any, outputs: int, gain: float) -> list[tuple[Any, Any]]:
    """The layers of one network."""
    sizes, gains = (OBS, *given["hidden"], outputs), (*(2**0.5 for _ in given["hidden"]), gain)
    shapes = zip(jax.random.split(key, len(gains)), sizes, sizes[1:], gains, strict=False)
    return [(jax.nn.initializers.orthogonal(g)(k, (i, o)), jnp.zeros(o)) for k, i, o, g in shapes]


def forward(layers: list[tuple[Any, Any]], x: Any) -> Any:
    """Tanh between layers."""
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def by_actor(x: dict[str, Any]) -> Any:
    """`(N, ...)` from each agent's `(E, ...)`."""
    return jnp.concatenate([x[agent] for agent in env.agents])


def act(params: Any, obs: Any, key: Any) -> tuple[Any, Any, Any]:
    """Actions, their log-probabilities, values: `(N,)` each."""
    log_probs = jax.nn.log_softmax(forward(params["actor"], obs))
    action = jax.random.categorical(key, log_probs)
    return action, jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0], forward(params["critic"], obs)[:, 0]


def step(carry: Any, _: Any) -> tuple[Any, Rows]:
    """All copies one step further."""
    params, state, obs, key = carry
    key, to_act, to_step = jax.random.split(key, 3)
    action, log_prob, value = act(params, obs, to_act)
    actions = dict(zip(env.agents, action.reshape(-1, COPIES), strict=True))
    seen, state, reward, done, _ = jax.vmap(env.step)(jax.random.split(to_step, COPIES), state, actions)
    rows = Rows(obs, action, log_prob, value, by_actor(reward), by_actor(done))
    return (params, state, by_actor(seen), key), rows


def advantages(rows: Rows, last_value: Any) -> Any:
    """GAE, `(T, N)`."""

    def back(carry: Any, row: Rows) -> tuple[Any, Any]:
        gae, next_value = carry
        goes_on = 1 - row.done
        delta = row.reward + GAMMA * next_value * goes_on - row.value
        gae = delta + GAMMA * GAE_LAMBDA * goes_on * gae
        return (gae, row.value), gae

    return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), rows, reverse=True, unroll=8)[1]


def loss(params: Any, rows: Rows, advantage: Any, target: Any) -> Any:
    """PPO's of actor and critic."""
    log_probs = jax.nn.log_softmax(forward(params["actor"], rows.obs))
    ratio = jnp.exp(jnp.take_along_axis(log_probs, rows.action[:, None], 1)[:, 0] - rows.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    value = forward(params["critic"], rows.obs)[:, 0]
    near = rows.value + jnp.clip(value - rows.value, -CLIP, CLIP)
    error = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
    return -gain - ENTROPY * entropy + VALUE * error


def minibatch(carry: Any, batch: Any) -> tuple[Any, Any]:
    """One step of the optimiser."""
    params, moments = carry
    value, gradient = jax.value_and_grad(loss)(params, *batch)
    updates, moments = adam.update(gradient, moments, params)
    return (optax.apply_updates(params, updates), moments), value


@jax.jit
def iterate(carry: Any) -> tuple[Any, Any]:
    """Collect a batch and learn from it."""
    params, moments, state, obs, key = carry
    key, to_collect, to_shuffle, to_judge = jax.random.split(key, 4)
    (_, state, obs, _), rows = jax.lax.scan(step, (params, state, obs, to_collect), None, STEPS)
    gae = advantages(rows, act(params, obs, to_judge)[2])
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rows, gae, gae + rows.value))

    def epoch(carry: Any, shuffle: Any) -> tuple[Any, Any]:
        order = jax.random.permutation(shuffle, STEPS * ACTORS)
        parts = jax.tree.map(lambda x: x[order].reshape(MINIBATCHES, -1, *x.shape[1:]), batch)
        return jax.lax.scan(minibatch, carry, parts)

    (params, moments), losses = jax.lax.scan(epoch, (params, moments), jax.random.split(to_shuffle, EPOCHS))
    return (params, moments, state, obs, key), (losses, rows.reward.mean())


keys = jax.random.split(jax.random.key(1), 4)
weights = {"actor": stack(keys[0], ACTIONS, 0.01), "critic": stack(keys[1], 1, 1.0)}
first, begun = jax.vmap(env.reset)(jax.random.split(keys[2], COPIES))
everything = (weights, adam.init(weights), begun, by_actor(first), keys[3])


def play() -> int:
    """As many iterations as the settings say."""
    global everything
    for _ in range(given["iterations"]):
        everything, told = iterate(everything)
        jax.block_until_ready(told)
    return given["iterations"] * STEPS * COPIES


serve(play)
