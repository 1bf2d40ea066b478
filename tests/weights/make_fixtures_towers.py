"""Tiny text models of transformers with random weights, and what they give: the oracle's side.

    python tests/weights/make_fixtures_towers.py

writes tests/weights/fixtures/{clip_text,siglip_text,t5,t5_v11,map_head}.npz, so that the comparison
needs neither torch nor transformers. Written with torch 2.13.0, transformers 5.23.0.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"
FAMILIES = ("clip_text", "siglip_text", "t5", "t5_v11", "map_head")


def build(family):
    """A model whose every parameter is random, its norms and biases too."""
    import torch
    import transformers as tf

    sizes = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 10,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "attn_implementation": "eager",
    }
    t5 = {
        "vocab_size": 40,
        "d_model": 12,
        "d_kv": 4,  # so that heads are wider together than the tokens
        "d_ff": 16,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "decoder_start_token_id": 0,
        "attn_implementation": "eager",
    }
    if family == "clip_text":
        config = tf.CLIPTextConfig(**sizes, eos_token_id=38, projection_dim=12)
        model = tf.CLIPTextModelWithProjection(config)
    elif family == "siglip_text":
        model = tf.SiglipTextModel(tf.SiglipTextConfig(**sizes, eos_token_id=38))
    elif family == "t5":
        model = tf.T5ForConditionalGeneration(tf.T5Config(**t5))
    elif family == "t5_v11":
        config = tf.T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        model = tf.T5ForConditionalGeneration(config)
        model.lm_head.weight = torch.nn.Parameter(torch.empty(40, 12))
    else:
        vision = {k: v for k, v in sizes.items() if k.startswith(("hidden", "inter", "num"))}
        vision |= {"image_size": 12, "patch_size": 4, "num_hidden_layers": 1}
        model = tf.SiglipVisionModel(tf.SiglipVisionConfig(**vision))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(float("norm" in name and name.endswith("weight")), 0.3)
    return model.eval()


def inputs(family):
    """What the model is asked; the second text is shorter where the family knows masks."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 37, (3, 10)).astype(np.int32)
    mask = np.arange(10) < np.array([[10], [6], [1]])
    if family == "clip_text":
        ids[0, 9], ids[1, 5:], ids[2, 0] = 38, 38, 38
        ids[2, 4] = 39  # higher than the end of text
        return {"ids": ids, "mask": mask}
    if family == "siglip_text":
        return {"ids": ids}
    if family == "map_head":
        return {"pixels": rng.normal(size=(2, 3, 12, 12)).astype(np.float32)}
    decoder_ids = rng.integers(3, 37, (3, 14)).astype(np.int32)
    decoder_ids[:, 0] = 0
    return {"ids": ids, "mask": mask, "decoder_ids": decoder_ids}


def outputs(family, model, x):
    """What the model gives at every stage."""
    import torch

    tensor = {name: torch.tensor(np.asarray(value)) for name, value in x.items()}
    seen = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        if family == "map_head":
            given = model(tensor["pixels"])
            out = {"tokens": given.last_hidden_state, "features": given.pooler_output}
        elif family.startswith("t5"):
            given = model(
                tensor["ids"].long(),
                attention_mask=tensor["mask"].long(),
                decoder_input_ids=tensor["decoder_ids"].long(),
                **seen,
            )
            out = {"tokens": given.encoder_last_hidden_state, "logits": given.logits}
            # The last of these is after the norm; it is compared as `tokens`.
            out |= _layers("encoder", given.encoder_hidden_states[1:-1])
            out |= _layers("decoder", given.decoder_hidden_states[1:-1])
        else:
            mask = tensor["mask"].long() if "mask" in tensor else None
            given = model(tensor["ids"].long(), attention_mask=mask, **seen)
            pooled = given.text_embeds if family == "clip_text" else given.pooler_output
            out = {"tokens": given.last_hidden_state, "features": pooled}
            out |= {"attention": given.attentions[-1]}
            out |= _layers("block", given.hidden_states[1:])
    return {name: value.numpy() for name, value in out.items()}


def _layers(name, states):
    return {f"{name}{i}": state for i, state in enumerate(states, 1)}


def main():
    from safetensors.numpy import load_file

    FIXTURES.mkdir(exist_ok=True)
    for family in FAMILIES:
        model, x = build(family), inputs(family)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config = json.loads((Path(folder) / "config.json").read_text())
            tensors = load_file(Path(folder) / "model.safetensors")
        if family == "map_head":
            tensors = {name: t for name, t in tensors.items() if name.startswith("head.")}
        arrays = {f"tensor:{name}": value for name, value in tensors.items()}
        arrays |= {f"input:{name}": value for name, value in x.items()}
        arrays |= {f"output:{name}": value for name, value in outputs(family, model, x).items()}
        np.savez_compressed(FIXTURES / f"{family}.npz", config=json.dumps(config), **arrays)


if __name__ == "__main__":
    main()
