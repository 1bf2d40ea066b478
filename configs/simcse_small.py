"""SimCSE from random weights for two CPU cores: a BERT of two layers, minutes. Not run yet.

python train.py configs/simcse_small.py --data sentences --data.tokenizer tokenizer.json --sts sts
"""

from jaxcl import Experiment, Train
from jaxcl.data import Text
from jaxcl.encoders import BERT
from jaxcl.methods import SimCSE
from jaxcl.training import STS, AdamW

experiment = Experiment(
    method=SimCSE(
        encoder=BERT(
            width=128, depth=2, heads=2, mlp=512, max_positions=64, pooler="avg", dropout=0.1
        ),
    ),
    data=Text("sentences", tokenizer="tokenizer.json", batch_size=64),
    optim=AdamW(
        lr=1e-3,
        scaling="none",
        epochs=1,
        warmup_epochs=0.1,
        decay="linear",
        weight_decay=0.0,
        clip=1.0,
    ),
    train=Train(log_every=50),
    probe=STS(folder="sts", every_steps=200),
)
