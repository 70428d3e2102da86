"""Trains a CNN on the stack of activations, one shot a step, for `benchmarks/fewshot_curve.py`.

python -m benchmarks.pytorch.fewshot FOLDER CLASSES ROUNDS
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import show
from benchmarks.pytorch import stacked

RATE, WEIGHT_DECAY = 1e-3, 1e-3


def read(folder: Path) -> tuple[list[Tensor], Tensor]:
    """Returns activations [k, C, h, w] and labels [k, S, S]."""
    labels = torch.from_numpy(np.load(folder / "labels.npy")).long()
    taps = [np.load(path) for path in sorted(folder.glob("*.npy")) if path.stem != "labels"]
    return [torch.from_numpy(tap).permute(0, 3, 1, 2).contiguous() for tap in taps], labels


def main(folder: Path, num_classes: int, rounds: int) -> None:
    """Prints a line for each round: its mean loss, and seconds without those of making stacks."""
    torch.manual_seed(0)
    taps, labels = read(folder)
    network = stacked.build("3x3", sum(tap.shape[1] for tap in taps), num_classes)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    cpu = wall = 0.0
    for number in range(1, rounds + 1):
        losses = []
        for i in torch.randperm(len(labels)).tolist():
            features = stacked.stack([tap[i : i + 1] for tap in taps], labels.shape[-1])
            since = time.process_time(), time.perf_counter()
            loss = F.cross_entropy(network(features), labels[i : i + 1], ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cpu, wall = cpu + time.process_time() - since[0], wall + time.perf_counter() - since[1]
            losses.append(loss.item())
        loss = sum(losses) / len(losses)
        show(who="PyTorch", round=number, loss=loss, cpu_s=cpu, wall_s=wall)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
