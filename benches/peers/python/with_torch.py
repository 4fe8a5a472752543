"""PyTorch, eager; with the argument `compile` the whole step compiled: loss, gradient and update in one graph. Of the
compiler's modes and ways to write the step this one was the fastest on a CPU."""

import sys

import peer
import torch
from torch import nn
from torch.nn import functional


class Eager(peer.StepByStep):
    def __init__(self, task):
        super().__init__(task)
        modules = []
        for w, c in task.layers:
            linear = nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w))
                linear.bias.copy_(torch.from_numpy(c))
            modules += [linear, nn.ReLU()]
        self.model = nn.Sequential(*modules[:-1])
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=task.eta)
        self.mse = nn.MSELoss()

    def batch(self, x, y):
        return torch.from_numpy(x), torch.from_numpy(y)

    def step(self, x, y):
        self.sgd.zero_grad()
        loss = 0.5 * self.mse(self.model(x), y)
        loss.backward()
        self.sgd.step()
        return loss.item()


def loss(theta, x, y):
    *hidden, head = theta
    for w, c in hidden:
        x = functional.relu(functional.linear(x, w, c))
    return 0.5 * functional.mse_loss(functional.linear(x, *head), y)


class Compiled(peer.StepByStep):
    def __init__(self, task):
        super().__init__(task)
        self.theta, self.eta = [(torch.tensor(w), torch.tensor(c)) for w, c in task.layers], task.eta
        # Else the shapes before would count towards the limit of recompilations.
        torch.compiler.reset()
        # The wrapper is what calls the compiled kernels one after the other: in C++ rather than Python.
        self.descend = torch.compile(self.descend, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})

    def batch(self, x, y):
        return torch.from_numpy(x), torch.from_numpy(y)

    def descend(self, theta, x, y):
        gradient, value = torch.func.grad_and_value(loss)(theta, x, y)
        for layer, derivatives in zip(theta, gradient):
            for p, g in zip(layer, derivatives):
                p.sub_(g, alpha=self.eta)
        return value

    @torch.no_grad()
    def step(self, x, y):
        return self.descend(self.theta, x, y).item()


compiled = sys.argv[1:] == ["compile"]
peer.serve(f"PyTorch {torch.__version__}{', compiled' if compiled else ''}", Compiled if compiled else Eager)
