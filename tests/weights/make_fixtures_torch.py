"""Writes fixtures/torch_trainer.pth: a tensor, and beside it what trainers' checkpoints hold.

    python tests/weights/make_fixtures_torch.py          # torch, omegaconf

solo-learn's hyper-parameters as OmegaConf keeps them, NumPy's scalars and arrays, schedules with a
Counter, DINO's arguments, states of generators, Lightning's callbacks. Made with torch 2.13.0,
omegaconf 2.4.0, numpy 2.4.6.
"""

import argparse
import collections
import datetime
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

weight = torch.arange(6.0).reshape(2, 3)
parameter = torch.nn.Parameter(weight.clone())
optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
parameter.sum().backward()
optimizer.step()
config = OmegaConf.create(
    {"name": "byol", "lr": 0.1, "sizes": [1, 2.5, None, True], "x": "${name}"}
)
saved = {
    "epoch": 3,
    "state_dict": {"weight": weight, "parameter": torch.nn.Parameter(weight)},
    "optimizer": optimizer.state_dict(),
    "schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(),
    "scaler": torch.amp.GradScaler("cpu").state_dict(),
    "hyper_parameters": config,
    "nested": {"config": config},
    "best": np.float64(0.5),
    "history": np.arange(3.0),
    "generators": (np.random.RandomState(0).get_state(), torch.get_rng_state()),
    "args": argparse.Namespace(path=Path("/data"), device=torch.device("cpu"), type=torch.float16),
    "callbacks": {"ModelCheckpoint": {"best": torch.tensor(1.0)}},
    "others": [
        collections.defaultdict(list, {"a": [1]}), datetime.timedelta(1), frozenset([1]),
        torch.torch_version.TorchVersion("2.13.0"), 1 + 2j, slice(1, 2), b"x", bytearray(b"x"),
    ],
}  # fmt: skip
torch.save(saved, Path(__file__).parent / "fixtures" / "torch_trainer.pth")
