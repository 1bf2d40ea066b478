"""How good sentence vectors are while training goes on: similarity beside people's scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from jaxcl.errors import UserError
from jaxcl.evaluate.sts import DEV, dev_scores, read_pairs
from jaxcl.options import short
from jaxcl.training.probe import Judge, Watch, Watched
from jaxcl.training.state import State
from jaxcl.typing import NumpyArray


@dataclass(frozen=True)
class STS(Watch):
    """Spearman correlation x 100 on STS-B's development set; alignment and uniformity there."""

    best: ClassVar[str] = "stsb_dev"

    folder: Annotated[str, short("--sts")] = "data/sts"
    """Folder with STSBenchmark/dev.tsv: columns score, sentence1, sentence2, parted by tabs."""

    def judge(self, watched: Watched) -> Judge:
        file = Path(self.folder) / DEV
        if not file.is_file():
            raise UserError(
                f"probe.folder={self.folder} holds no {DEV}; give the folder with --sts, "
                "or --probe.every 0 --probe.every-steps 0 to train without"
            )
        pairs = read_pairs([file])
        if len(set(pairs.gold)) < 2:
            raise UserError(
                f"{file} has {len(pairs.gold)} pairs with a score, and a correlation takes two "
                "that differ; give another folder with --sts"
            )

        def scores(state: State) -> dict[str, float]:
            def encode(sentences: list[str]) -> NumpyArray:
                batches = watched.data.batches(sentences, watched.method, {}, None)
                return watched.embedder.encode(state, batches)

            return dev_scores(encode, pairs)

        return scores
