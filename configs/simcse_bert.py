"""Unsupervised SimCSE, BERT-base: 76.25 mean of STS in the authors' README. Not run yet.

python train.py configs/simcse_bert.py --data wiki1m_for_simcse.txt --sts data/sts

`bert-base-uncased` is a folder of transformers: config.json, model.safetensors, tokenizer.json.
"""

from jaxcl import Experiment, Train
from jaxcl.data import Text
from jaxcl.encoders import BERT
from jaxcl.methods import SimCSE
from jaxcl.training import STS, AdamW

experiment = Experiment(
    method=SimCSE(encoder=BERT(pooler="cls"), pretrained="bert-base-uncased"),
    data=Text("wiki1m_for_simcse.txt", tokenizer="bert-base-uncased", batch_size=64),
    optim=AdamW(
        lr=3e-5, scaling="none", epochs=1, warmup_epochs=0, decay="linear", weight_decay=0.0,
        clip=1.0,
    ),
    train=Train(keep=1),
    probe=STS(folder="data/sts", every_steps=125),
)  # fmt: skip
