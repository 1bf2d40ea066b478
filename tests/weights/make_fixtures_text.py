"""Writes fixtures/{bert,roberta,mpnet}_tiny: transformers' models with random weights, and what
they give, so that the comparison needs neither torch nor transformers.

    python tests/weights/make_fixtures_text.py      # torch 2.13.0, transformers 5.23.0, numpy 2

Each folder has config.json and model.safetensors as `save_pretrained` writes them, and outputs.npz:
the inputs, all hidden states and the pooler's output. BERT's is a model with pre-training heads, so
its tensors have the prefix and the surplus that published checkpoints have.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    BertConfig,
    BertForPreTraining,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

FOLDER = Path(__file__).parent / "fixtures"
SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 26,
}
LENGTHS = (24, 9, 1)


def main() -> None:
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    models = {
        "bert": BertForPreTraining(BertConfig(**SIZES)),
        "roberta": RobertaModel(RobertaConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5)),
        "mpnet": MPNetModel(MPNetConfig(**SIZES, layer_norm_eps=1e-5)),
    }
    torch.manual_seed(0)
    for name, model in models.items():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.4)
        folder = FOLDER / f"{name}_tiny"
        model.save_pretrained(folder)
        np.savez_compressed(folder / "outputs.npz", **outputs(getattr(model, name, model).eval()))
    distances = torch.arange(-300, 301)
    buckets = MPNetEncoder.relative_position_bucket(distances, num_buckets=32)
    np.savez_compressed(FOLDER / "mpnet_buckets.npz", distances=distances, buckets=buckets)


def outputs(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Sentences of three lengths, padded with the model's padding, and what the model gives."""
    pad = model.config.pad_token_id
    mask = torch.arange(LENGTHS[0])[None] < torch.tensor(LENGTHS)[:, None]
    ids = torch.where(mask, torch.randint(3, SIZES["vocab_size"], mask.shape), pad)
    with torch.no_grad():
        out = model(ids, attention_mask=mask.long(), output_hidden_states=True)
    arrays = {"ids": ids.int(), "mask": mask, "pooled": out.pooler_output}
    arrays |= {f"hidden{i}": hidden for i, hidden in enumerate(out.hidden_states)}
    return {name: array.numpy() for name, array in arrays.items()}


if __name__ == "__main__":
    main()
