"""What the peers written in Python share: the file and the lines that src/lib.rs describes."""

import sys
import time

import numpy as np

FIRST_STEPS = 10


class Task:
    """A network and what it is trained on, batch by batch."""

    def __init__(self, path):
        with open(path, "rb") as file:
            batch, batches, eta, *widths = file.readline().split()
            batch, batches, self.eta = int(batch), int(batches), float(eta)
            widths = [int(d) for d in widths]

            def matrix(rows, columns):
                return np.fromfile(file, "<f4", rows * columns).reshape(rows, columns)

            # Of each layer the weights, (d[t+1], d[t]) as in nn.Linear, and the bias.
            self.layers = [(matrix(n, m), matrix(1, n)[0]) for m, n in zip(widths, widths[1:])]
            x, y = matrix(batches * batch, widths[0]), matrix(batches * batch, widths[-1])
            self.batches = list(zip(np.split(x, batches), np.split(y, batches)))


class StepByStep:
    """A peer with a method step(x, y) for batches that its method batch(x, y) has made its own; it returns the loss as a
    number of Python's."""

    def __init__(self, task):
        self.batches = [self.batch(x, y) for x, y in task.batches]

    def run(self, steps):
        return [self.step(*self.batches[i % len(self.batches)]) for i in range(steps)]


def serve(version, Peer):
    """Answers the driver until it closes the line. Peer(task) has a method run(steps) that makes this number of steps, from
    the first batch on, and returns their losses when all is computed."""
    print(version, flush=True)
    peer = None
    for line in sys.stdin:
        command, argument = line.rstrip("\n").split(" ", 1)
        if command == "load":
            # Before the next is read: both together may be too large.
            peer = None
            peer = Peer(Task(argument))
            print(*peer.run(FIRST_STEPS), flush=True)
        elif command == "run":
            start = time.perf_counter()
            peer.run(int(argument))
            print(time.perf_counter() - start, flush=True)
        else:
            sys.exit(f"not understood: {line}")
