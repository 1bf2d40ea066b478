"""SimCSE, unsupervised: a sentence and itself under other dropout, to be found in the batch.

                 dropout 1 -> encoder -> linear, tanh -> z1
    sentence ->                                              simcse(z1, z2)
                 dropout 2 -> encoder -> linear, tanh -> z2

Both copies go through the network in one forward pass, each row with masks of its own. The linear
layer is thrown away after training: the first token's vector is the representation.

Reference: Gao, Yao & Chen 2021, arXiv:2104.08821; princeton-nlp/SimCSE.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl.augment import Recipe
from jaxcl.encoders import BERT, forward, in_chunks, initialise, pool
from jaxcl.errors import UserError
from jaxcl.losses import simcse
from jaxcl.methods.method import Aux, Batch, Kept, Method
from jaxcl.methods.progress import Progress
from jaxcl.typing import Array, Float, Int, Key, PyTree
from jaxcl.weights import read_bert

Views = dict[str, Array]
"""{"ids": int32 [n, t], "mask": bool [n, t]}, true at tokens."""


@dataclass(frozen=True)
class SimCSE(Method):
    """Simple contrastive learning of sentence embeddings."""

    augment: Recipe = field(default=Recipe((), 0), init=False)  # the noise is the encoder's dropout
    encoder: BERT = BERT(pooler="cls")
    """The network that is kept; its dropout makes the views, and its pooler the vectors."""
    pretrained: str = ""
    """Folder of transformers, or of sentence-transformers, whose weights the encoder starts from;
    empty: random ones. An encoder of fewer layers takes the first ones. The layer of the pooler
    `cls` starts afresh, as the authors have it."""
    mlp_only_train: bool = True
    """Leave out the layer of the pooler `cls` at test."""
    temperature: float = 0.05
    """Scale of the similarities."""

    def check(self, batch_size: int) -> None:
        if batch_size < 2:
            raise UserError(f"data.batch_size={batch_size} gives no negatives; use 2 or more")
        if self.temperature <= 0:
            raise UserError(f"method.temperature={self.temperature} is no scale; use 0.05")

    def init(self, key: Key, views: Views) -> tuple[PyTree, PyTree]:
        one = {name: values[:1] for name, values in views.items()}
        params, _ = initialise(self.encoder, key, one)
        return {"encoder": params}, ()

    def start(self, params: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        if not self.pretrained:
            return params, memory
        found, variables = read_bert(self.pretrained, pooler="cls_before_pooler")
        _check_same(self.encoder, found, self.pretrained)
        read = {n: part for n, part in variables["params"].items() if n in params["encoder"]}
        return {"encoder": params["encoder"] | jax.tree.map(jnp.asarray, read)}, memory

    def views(self, key: Key, batch: Batch) -> Views:
        return self._tokens(batch)

    def loss(
        self, params: PyTree, memory: PyTree, views: Views, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        h, z = self.embed(params, views, jax.random.split(key))
        loss = simcse(z[:, 0], z[:, 1], temperature=self.temperature)
        return loss, Aux(memory, {}, h, z)

    def embed(
        self, params: PyTree, views: Views, keys: Key
    ) -> tuple[Float[Array, "n v d"], Float[Array, "n v d"]]:
        """Each row under the dropout of each key [v]: what is kept, and what the loss compares."""
        rows = jnp.arange(len(views["ids"]))

        def encode(part: tuple[Views, Int[Array, "m"]]) -> tuple[tuple[Array, Array], PyTree]:
            x, rows = part

            def copy(key: Key) -> tuple[Array, Array]:
                own = jax.random.fold_in(key, rows[0])
                found, _ = forward(self.encoder, params["encoder"], {}, x, train=True, key=own)
                z = found["features"]
                return (pool(found["hidden"], x["mask"], "cls") if self._drops else z), z

            return jax.vmap(copy, out_axes=1)(keys), ()

        return in_chunks(encode, (views, rows), self.chunks)[0]

    @property
    def _drops(self) -> bool:
        """Whether a layer of training is left out at test."""
        return self.encoder.pooler == "cls" and self.mlp_only_train

    def kept(self, params: PyTree, memory: PyTree) -> Kept:
        weights = params["encoder"]
        if not self._drops:
            return Kept(self.encoder, weights, {})
        left = {name: part for name, part in weights.items() if name != "pooler"}
        return Kept(self.encoder.clone(pooler="cls_before_pooler"), left, {})

    def represent(self, params: PyTree, memory: PyTree, batch: Batch) -> dict[str, Array]:
        encoder, weights, stats = self.kept(params, memory)
        outputs, _ = forward(encoder, weights, stats, self._tokens(batch), train=False)
        return {"features": outputs["features"]}

    def _tokens(self, batch: Batch) -> Views:
        """Behind a sentence stands the encoder's own padding, which RoBERTa's positions see."""
        mask = jnp.arange(batch["ids"].shape[1]) < batch["lengths"][:, None]
        return {"ids": jnp.where(mask, batch["ids"], self.encoder.pad_id), "mask": mask}

    def facts(self, batch_size: int) -> dict[str, str]:
        return {
            "negatives per anchor": f"{batch_size - 1:,}",
            "starts from": self.pretrained or "random weights",
        }


def _check_same(wanted: BERT, found: BERT, folder: str) -> None:
    """Raises `UserError` where the folder's encoder is of another kind, or smaller."""
    found = found.clone(depth=min(found.depth, wanted.depth))
    free = ("pooler", "dropout", "attention_dropout", "dtype", "remat", "parent", "name")
    differing: dict[str, Any] = {
        name: value
        for name, value in vars(found).items()
        if name in BERT.__dataclass_fields__ and name not in free and value != getattr(wanted, name)
    }
    if differing:
        fields = ", ".join(f"{name}={value!r}" for name, value in differing.items())
        raise UserError(
            f"method.pretrained={folder} is another encoder than method.encoder, which must have "
            f"{fields}"
        )
