"""Trains 784-512-512-10 on MNIST as a script of each library's own users would: mnist.py LIBRARY RECIPE SEED FILE.

FILE has a line "train test columns", then the inputs as f4 and the labels as i8, those to train on first. Prints the library's version,
the accuracy on the rest, and the seconds that training took."""

import math
import sys
import time

import numpy as np

EPOCHS = 25


def read(path):
    with open(path, "rb") as file:
        train, test, columns = map(int, file.readline().split())
        x = np.fromfile(file, "<f4", (train + test) * columns).reshape(-1, columns)
        y = np.fromfile(file, "<i8", train + test)
    return x[:train], y[:train], x[train:], y[train:]


def torch_run(recipe, seed, x, y, x_test, y_test):
    import torch
    from torch import nn

    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 10))
    for module in net:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    x, y, x_test, y_test = map(torch.from_numpy, (x, y, x_test, y_test))
    size = 32 if recipe == "sgd" else 16
    steps = EPOCHS * math.ceil(len(x) / size)
    if recipe == "sgd":
        optimizer, schedule = torch.optim.SGD(net.parameters(), lr=0.1), None
    else:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.5)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    cross_entropy = nn.CrossEntropyLoss()
    start = time.perf_counter()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for batch in order.split(size):
            optimizer.zero_grad()
            cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            if schedule:
                schedule.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        accuracy = (net(x_test).argmax(1) == y_test).double().mean().item()
    return f"PyTorch {torch.__version__}", accuracy, seconds


def sklearn_run(recipe, seed, x, y, x_test, y_test):
    import warnings

    import sklearn
    from sklearn.neural_network import MLPClassifier

    # 25 epochs are all it gets.
    warnings.simplefilter("ignore")
    settings = {"solver": "sgd", "learning_rate_init": 0.1, "momentum": 0.0} if recipe == "sgd" else {"solver": "adam"}
    net = MLPClassifier(
        (512, 512), alpha=0.0, batch_size=32, max_iter=EPOCHS, tol=0.0, n_iter_no_change=EPOCHS, random_state=seed, **settings
    )
    start = time.perf_counter()
    net.fit(x, y)
    seconds = time.perf_counter() - start
    return f"scikit-learn {sklearn.__version__}", net.score(x_test, y_test), seconds


if __name__ == "__main__":
    library, recipe, seed, path = sys.argv[1:]
    run = {"torch": torch_run, "sklearn": sklearn_run}[library]
    print(*run(recipe, int(seed), *read(path)), sep=",")
