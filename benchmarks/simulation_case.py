"""One side of benchmarks/simulation.py, in a process and an environment of its own.

    python benchmarks/simulation_case.py SIDE WORKLOAD.npz ROUNDS

Prints JSON: CPU seconds and wall seconds of the process and all that it started, at the end of every round, and the accuracy.
SIDE: ours, private (ours with DP-SGD), exact (ours, site by site), filed (ours, updates in a file), bare (a loop around
torch.vmap), pfl, flower.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)


class Workload:
    """Clients' rows, a test set, and how they are trained on. clients: of rows with the same first number."""

    def __init__(self, path: str):
        held = np.load(path)
        self.x, self.y, self.client = (torch.from_numpy(held[name]) for name in ("x", "y", "client"))
        self.test_x, self.test_y = torch.from_numpy(held["test_x"]), torch.from_numpy(held["test_y"])
        self.steps, self.batch, self.clients = int(held["steps"]), int(held["batch"]), int(held["client"].max()) + 1
        self.rate, self.picture = float(held["rate"]), bool(held["picture"])

    def model(self) -> nn.Module:
        """As `build_model` of the recipe: 2,410 parameters, or 421,642."""
        torch.default_generator.manual_seed(0)     # torch.manual_seed looks for devices, too: 2 ms
        if not self.picture:
            return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(),
            nn.Linear(128, 10))

    def rows(self, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One client's."""
        own = self.client == client
        return self.x[own], self.y[own]

    def rows_of_step(self, step: int, rows: int) -> slice:
        """The next batch; all rows, if they are fewer than a batch."""
        begin = step * self.batch % rows if rows > self.batch else 0
        return slice(begin, begin + self.batch)

    def accuracy(self, model: nn.Module) -> float:
        """On the test set."""
        with torch.no_grad():
            return float((model(self.test_x).argmax(1) == self.test_y).float().mean())


class Clock:
    """CPU and wall seconds so far, of this process and, if there are any, all that it started."""

    def __init__(self, *, others: bool) -> None:
        self._others = others
        self.laps: list[tuple[float, float]] = []

    def lap(self) -> None:
        """A round has ended."""
        self.laps.append((time.process_time() + (_of_others() if self._others else 0.0), time.perf_counter()))


def _of_others() -> float:
    import psutil

    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def ours(work: Workload, rounds: int, clock: Clock, *, stacked: bool = True, private: bool = False,
         filed: bool = False) -> float:
    from fedround.aggregation.rules import WeightedMean
    from fedround.aggregation.spec import Aggregation
    from fedround.agreement import Agreement
    from fedround.learning.examples import Examples
    from fedround.learning.recipe import Recipe
    from fedround.learning.spec import LocalTraining
    from fedround.learning.tasks import Classify
    from fedround.privacy.spec import NoPrivacy, RecordPrivacy
    from fedround.simulation.campaign import simulate
    from fedround.simulation.chance import Seeded
    from fedround.simulation.sites import Site
    from fedround.simulation.spool import MEMORY_BYTES

    privacy = RecordPrivacy(epsilon=8.0, delta_dp=1e-5, rounds=rounds) if private else NoPrivacy()
    agreement = Agreement(name="speed", quorum=1, privacy=privacy, aggregation=Aggregation(rule=WeightedMean()),
                          training=LocalTraining(local_steps=work.steps, batch_size=work.batch, learning_rate=work.rate))
    recipe = Recipe("speed", "0" * 64, work.model, lambda rows: rows, Classify(classes=10))
    sites = {}
    for client in range(work.clients):
        x, y = work.rows(client)
        sites[f"client-{client:05d}"] = Site(Examples(x.numpy(), y.numpy()))
    test = Examples(work.test_x.numpy(), work.test_y.numpy())
    result = simulate(agreement, recipe, sites, rounds=rounds, chance=Seeded(0), stacked=stacked, test=test,
                      memory_bytes=0 if filed else MEMORY_BYTES, told=lambda _: clock.lap())
    for note in result.notes:
        print(note, file=sys.stderr)
    return result.last.test.accuracy


def bare(work: Workload, rounds: int, clock: Clock) -> float:
    """The least that stacked training can be: a loop around `vmap(grad(loss))`, batches cut beforehand, a mean of tensors."""
    from torch.func import functional_call, grad, vmap
    from torch.nn.functional import cross_entropy

    model = work.model()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    x, y = (torch.stack(part) for part in zip(*(work.rows(client) for client in range(work.clients)), strict=True))
    slope = vmap(grad(lambda weights, x_BF, y_B: cross_entropy(functional_call(model, weights, (x_BF,)), y_B)))
    for _ in range(rounds):
        stacked = {name: part.expand(work.clients, *part.shape).clone() for name, part in weights.items()}
        for step in range(work.steps):
            batch = work.rows_of_step(step, x.shape[1])
            for name, part in slope(stacked, x[:, batch], y[:, batch]).items():
                stacked[name].sub_(part, alpha=work.rate)
        weights = {name: part.mean(0) for name, part in stacked.items()}
        model.load_state_dict(weights)
        accuracy = work.accuracy(model)
        clock.lap()
    return accuracy


def pfl(work: Workload, rounds: int, clock: Clock) -> float:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data import get_user_sampler
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    network = work.model()
    network.loss = lambda x, y, **_: nn.functional.cross_entropy(network(x), y)
    network.metrics = lambda x, y, **_: {"loss": Weighted(0.0, len(y))}
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    users = {client: work.rows(client) for client in range(work.clients)}
    data = FederatedDataset(lambda client: Dataset(users[client]), get_user_sampler("minimize_reuse", list(users)))
    accuracies = []

    class Judge(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            accuracies.append(work.accuracy(model.pytorch_model))
            clock.lap()
            return False, Metrics()

    per_epoch = -(-int((work.client == 0).sum()) // work.batch)
    FederatedAveraging().run(
        NNAlgorithmParams(central_num_iterations=rounds, evaluation_frequency=10 ** 6, train_cohort_size=work.clients,
                          val_cohort_size=0),
        SimulatedBackend(training_data=data, val_data=data), model,
        NNTrainHyperParams(local_num_epochs=work.steps // per_epoch, local_learning_rate=work.rate,
                           local_batch_size=work.batch),
        NNEvalHyperParams(local_batch_size=None), callbacks=[Judge()], send_metrics_to_platform=False)
    return accuracies[-1]


def flower(work: Workload, rounds: int, clock: Clock) -> float:
    import logging

    import ray  # noqa: F401 - so that its absence is said here
    from flwr.client import ClientApp, NumPyClient
    from flwr.common import Context, ndarrays_to_parameters
    from flwr.server import ServerApp, ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    accuracies = []

    class Client(NumPyClient):
        def __init__(self, number: int):
            self.x, self.y = work.rows(number)

        def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
            torch.set_num_threads(1)
            model = work.model()
            names = [name for name, _ in model.named_parameters()]
            model.load_state_dict({name: torch.from_numpy(part) for name, part in zip(names, parameters, strict=True)})
            optimizer = torch.optim.SGD(model.parameters(), lr=work.rate)
            for step in range(work.steps):
                batch = work.rows_of_step(step, len(self.y))
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(self.x[batch]), self.y[batch]).backward()
                optimizer.step()
            return [part.detach().numpy() for part in model.parameters()], len(self.y), {}

    def judge(number: int, parameters: list[Any], config: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        model = work.model()
        names = [name for name, _ in model.named_parameters()]
        model.load_state_dict({name: torch.from_numpy(part) for name, part in zip(names, parameters, strict=True)})
        if number > 0:
            accuracies.append(work.accuracy(model))
            clock.lap()
        return 0.0, {}

    def server(context: Context) -> ServerAppComponents:
        first = ndarrays_to_parameters([part.detach().numpy() for part in work.model().parameters()])
        strategy = FedAvg(fraction_fit=1.0, fraction_evaluate=0.0, min_available_clients=work.clients,
                          initial_parameters=first, evaluate_fn=judge)
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    run_simulation(
        ServerApp(server_fn=server),
        ClientApp(client_fn=lambda context: Client(int(context.node_config["partition-id"])).to_client()),
        num_supernodes=work.clients, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {
            "num_cpus": 2, "include_dashboard": False}})
    return accuracies[-1]


def main() -> None:
    side, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    work, clock = Workload(path), Clock(others=side == "flower")
    sides = {
        "ours": ours, "private": lambda *given: ours(*given, private=True), "filed": lambda *given: ours(*given, filed=True),
        "exact": lambda *given: ours(*given, stacked=False), "bare": bare, "pfl": pfl, "flower": flower}
    accuracy = sides[side](work, rounds, clock)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"laps": clock.laps, "accuracy": accuracy, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
