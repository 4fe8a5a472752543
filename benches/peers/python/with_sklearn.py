"""scikit-learn: MLPRegressor.partial_fit, one call a step."""

import peer
import sklearn
from sklearn.neural_network import MLPRegressor


class Sklearn(peer.StepByStep):
    def __init__(self, task):
        super().__init__(task)
        x, y = self.batches[0]
        self.model = MLPRegressor(
            hidden_layer_sizes=[c.size for _, c in task.layers[:-1]],
            solver="sgd",
            alpha=0,
            batch_size=len(x),
            learning_rate_init=task.eta,
            shuffle=False,
            momentum=0,
            nesterovs_momentum=False,
        )
        # Makes its arrays, which then get the task's numbers.
        self.step(x, y)
        for i, (w, c) in enumerate(task.layers):
            self.model.coefs_[i][:], self.model.intercepts_[i][:] = w.T, c

    def batch(self, x, y):
        return x, y.ravel()

    def step(self, x, y):
        return float(self.model.partial_fit(x, y).loss_)


peer.serve(f"scikit-learn {sklearn.__version__}", Sklearn)
