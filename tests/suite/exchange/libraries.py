"""Networks of PyTorch and scikit-learn, as files in the folder of the first argument, each with inputs
and what the library computes of them in NAME_data.npz. Standard input has the lines with which the
documentation writes a network of scikit-learn.

Where there is no PyTorch, NumPy computes what its network would, and writes the same files."""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.neural_network import MLPClassifier, MLPRegressor

try:
    import torch
except ImportError:
    torch = None
    print("PyTorch is not installed; NumPy stands in for it")

folder = Path(sys.argv[1])
rng = np.random.default_rng(1)
if torch:
    torch.manual_seed(1)

# The widths of a network, and the layers that have a bias.
SEQUENTIALS = [
    ([3, 1], [0]),
    ([3, 2], []),
    ([5, 7, 2], [0, 1]),
    ([1, 1, 1], [1]),
    ([5, 7, 4, 3], [0, 2]),
    ([7, 45, 129, 1], []),
    ([129, 45, 7, 10], [0, 1, 2, 3]),
    ([6, 5, 4, 3, 2], [1, 2]),
    ([64, 64, 64, 10], [0, 1, 2, 3]),
]


def with_torch(widths, biases, x, path):
    from torch import nn
    from safetensors.torch import save_file

    layers = [nn.Linear(d, n, bias=t in biases) for t, (d, n) in enumerate(zip(widths, widths[1:]))]
    net = nn.Sequential(layers[0], *(module for layer in layers[1:] for module in (nn.ReLU(), layer)))
    net.to(torch.from_numpy(x).dtype)
    save_file(net.state_dict(), path)
    return net(torch.from_numpy(x)).detach().numpy()


def with_numpy(widths, biases, x, path):
    tensors, z = {}, x
    for t, (d, n) in enumerate(zip(widths, widths[1:])):
        z = np.maximum(z, 0) if t > 0 else z
        tensors[f"{2 * t}.weight"] = w = (rng.uniform(-1, 1, (n, d)) / np.sqrt(d)).astype(x.dtype)
        z = z @ w.T
        if t in biases:
            tensors[f"{2 * t}.bias"] = c = rng.uniform(-0.5, 0.5, n).astype(x.dtype)
            z = z + c
    save_file(tensors, path, metadata={"format": "pt"})
    return z


# The documented lines, which write the network `net` to the file `net.npz`.
DOCUMENTED = sys.stdin.read()


def scikit_learn(net, path):
    exec(DOCUMENTED.replace("net.npz", str(path)), {"net": net})


for dtype in ("f4", "f8"):
    for i, (widths, biases) in enumerate(SEQUENTIALS):
        name = f"sequential_{dtype}_{i}"
        x = rng.uniform(-1, 1, (20, widths[0])).astype(dtype)
        y = (with_torch if torch else with_numpy)(widths, biases, x, folder / f"{name}.safetensors")
        np.savez(folder / f"{name}_data.npz", x=x, y=y)
    for i, hidden in enumerate([(), (7,), (45, 1, 129), (64, 64)]):
        x = rng.uniform(-1, 1, (20, 5)).astype(dtype)
        for classes in (2, 3, 10):
            name = f"classifier_{dtype}_{i}_{classes}"
            labels = np.arange(20) % classes
            net = MLPClassifier(hidden_layer_sizes=hidden, max_iter=5, random_state=i).fit(x, labels)
            scikit_learn(net, folder / f"{name}.npz")
            y = net.predict_proba(x)
            np.savez(folder / f"{name}_data.npz", x=x, y=y[:, 1:] if classes == 2 else y)
        for outputs in (1, 3):
            name = f"regressor_{dtype}_{i}_{outputs}"
            target = rng.uniform(-1, 1, (20, outputs)).astype(dtype)
            net = MLPRegressor(hidden_layer_sizes=hidden, max_iter=5, random_state=i).fit(x, target[:, 0] if outputs == 1 else target)
            scikit_learn(net, folder / f"{name}.npz")
            np.savez(folder / f"{name}_data.npz", x=x, y=net.predict(x).reshape(20, outputs))
