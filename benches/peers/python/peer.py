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


def serve(version, Peer):
    """Answers the driver until it closes the line. Peer(task) has a method step(x, y) for batches that its method
    batch(x, y) has made its own; it returns the loss as a number of Python's. finish() waits until all is computed."""
    print(version, flush=True)
    peer = batches = None
    for line in sys.stdin:
        command, argument = line.rstrip("\n").split(" ", 1)
        if command == "load":
            # Before the next is read: both together may be too large.
            peer = batches = None
            task = Task(argument)
            peer = Peer(task)
            batches = [peer.batch(x, y) for x, y in task.batches]
            print(*[peer.step(*batches[i % len(batches)]) for i in range(FIRST_STEPS)], flush=True)
        elif command == "run":
            steps = int(argument)
            start = time.perf_counter()
            for i in range(steps):
                peer.step(*batches[i % len(batches)])
            peer.finish()
            print(time.perf_counter() - start, flush=True)
        else:
            sys.exit(f"not understood: {line}")
