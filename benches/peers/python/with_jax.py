"""JAX, each step compiled; with the argument `scan` many steps compiled to one call, each epoch a scan over its batches."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import peer


def loss(theta, x, y):
    *hidden, (alpha, b) = theta
    for w, c in hidden:
        x = jax.nn.relu(x @ w.T + c)
    return 0.5 * jnp.mean((x @ alpha.T + b - y) ** 2)


def descend(theta, x, y, eta):
    value, gradient = jax.value_and_grad(loss)(theta, x, y)
    return value, jax.tree.map(lambda p, g: p - eta * g, theta, gradient)


# The old parameters' memory is given to the new ones; eta is compiled in, and so is the number of steps.
@partial(jax.jit, donate_argnums=0, static_argnums=3)
def step(theta, x, y, eta):
    return descend(theta, x, y, eta)


# The losses of the last epoch, which has this number of steps.
@partial(jax.jit, donate_argnums=0, static_argnums=(3, 4))
def train(theta, x, y, eta, steps, epochs):
    def descend_by(theta, batch):
        value, theta = descend(theta, *batch, eta)
        return theta, value

    def epoch(_, state):
        theta, _ = state
        return jax.lax.scan(descend_by, theta, (x[:steps], y[:steps]))

    return jax.lax.fori_loop(0, epochs, epoch, (theta, jnp.zeros(steps)))


def parameters(task):
    return [(jnp.array(w), jnp.array(c)) for w, c in task.layers]


class Steps(peer.StepByStep):
    def __init__(self, task):
        super().__init__(task)
        self.theta, self.eta = parameters(task), task.eta

    def batch(self, x, y):
        return jnp.array(x), jnp.array(y)

    def step(self, x, y):
        value, self.theta = step(self.theta, x, y, self.eta)
        return value.item()

    def run(self, steps):
        losses = super().run(steps)
        jax.block_until_ready(self.theta)
        return losses


class Epochs:
    def __init__(self, task):
        self.theta, self.eta = parameters(task), task.eta
        self.x, self.y = (jnp.stack(all) for all in zip(*task.batches))

    def run(self, steps):
        epochs, rest = divmod(steps, len(self.x))
        losses = []
        for steps, epochs in (len(self.x), epochs), (rest, 1):
            if steps and epochs:
                self.theta, values = train(self.theta, self.x, self.y, self.eta, steps, epochs)
                losses += values.tolist()
        jax.block_until_ready(self.theta)
        return losses


scan = sys.argv[1:] == ["scan"]
peer.serve(f"JAX {jax.__version__}{', an epoch in a scan' if scan else ''}", Epochs if scan else Steps)
