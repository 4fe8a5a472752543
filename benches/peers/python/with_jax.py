"""JAX, the whole step compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import peer


def loss(theta, x, y):
    *hidden, (alpha, b) = theta
    for w, c in hidden:
        x = jax.nn.relu(x @ w.T + c)
    return 0.5 * jnp.mean((x @ alpha.T + b - y) ** 2)


# The old parameters' memory is given to the new ones; eta is compiled in.
@partial(jax.jit, donate_argnums=0, static_argnums=3)
def step(theta, x, y, eta):
    value, gradient = jax.value_and_grad(loss)(theta, x, y)
    return value, jax.tree.map(lambda p, g: p - eta * g, theta, gradient)


class Jax:
    def __init__(self, task):
        self.theta = [(jnp.array(w), jnp.array(c)) for w, c in task.layers]
        self.eta = task.eta

    def batch(self, x, y):
        return jnp.array(x), jnp.array(y)

    def step(self, x, y):
        value, self.theta = step(self.theta, x, y, self.eta)
        return value.item()

    def finish(self):
        jax.block_until_ready(self.theta)


peer.serve(f"JAX {jax.__version__}", Jax)
