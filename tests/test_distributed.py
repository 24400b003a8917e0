"""Several processes train as one with as many times the batch, and stop together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dimum_core.data import batch_indices
from dimum_core.training import TrainConfig, train

pytestmark = pytest.mark.release
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(64, 3, generator=GENERATOR)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(64, 1, generator=GENERATOR)


@dataclass(frozen=True)
class LeastSquares:
    """On batch `step` of a shuffled set: neighbouring batches of half the size make one whole batch."""

    batch_size: int
    poison_at: int = -1
    fingerprint = {"least": "squares"}

    def __call__(self, model, seed, step):
        chosen = batch_indices(len(X), self.batch_size, seed, step)
        loss = (model(X[chosen]) - Y[chosen]).square().mean()
        return loss * float("nan") if step == self.poison_at else loss


def fit(batch_size: int, poison_at: int = -1):
    torch.manual_seed(0)
    config = TrainConfig(steps=20, learning_rate=0.05, precision="fp32", ema_decay=0.9)
    return train(nn.Linear(3, 1), LeastSquares(batch_size, poison_at), config, progress=False)


def in_two_processes(*arguments) -> list[tuple[int, str]]:
    """This file as a program, once a rank; returns each one's exit code and what it said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)], env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [(process.returncode, text) for process, text in zip(ranks, said, strict=True)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    assert [code for code, _ in in_two_processes(tmp_path)] == [0, 0]
    both, one = torch.load(tmp_path / "0.pt", weights_only=True), fit(batch_size=16)
    assert torch.equal(both["weight"], torch.load(tmp_path / "1.pt", weights_only=True)["weight"])
    assert torch.allclose(both["weight"], one.model.weight.detach(), atol=1e-6)
    assert torch.allclose(both["losses"], torch.tensor(one.log["loss"].to_numpy()), atol=1e-6)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_a_bad_loss_of_one_process_stops_both(tmp_path):
    for code, said in in_two_processes(tmp_path, 7):  # batch 7 is the fourth of the second process
        assert code == 1 and "The loss became nan at step 3" in said


if __name__ == "__main__":
    result = fit(batch_size=8, poison_at=int(sys.argv[2]) if len(sys.argv) > 2 else -1)
    losses = torch.tensor(result.log["loss"].to_numpy())
    torch.save({"weight": result.model.weight.detach(), "losses": losses}, os.path.join(sys.argv[1], f"{os.environ['RANK']}.pt"))
