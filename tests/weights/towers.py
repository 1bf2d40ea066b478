"""What the tests of text models share: stored answers, folders of them, outputs block by block."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

FIXTURES = Path(__file__).parent / "fixtures"


def stored(family):
    """Config, tensors, inputs and outputs that make_fixtures_towers.py has written."""
    with np.load(FIXTURES / f"{family}.npz") as file:
        part = lambda kind: {
            name.removeprefix(f"{kind}:"): file[name]
            for name in file
            if name.startswith(f"{kind}:")
        }
        config = json.loads(str(file["config"]))
        return config, part("tensor"), part("input"), part("output")


def write(folder, config, tensors):
    """A folder as transformers writes it, by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def by_stage(encoder, params, x):
    """Outputs, and what each block gives: "block1", "encoder/block1", ..."""
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}
    run = jax.jit(lambda p, x: encoder.apply({"params": p}, x, train=False, **capture))
    out, state = run(params, x)
    for path, value in jax.tree_util.tree_leaves_with_path(state["intermediates"]):
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        first = isinstance(path[-1], jax.tree_util.SequenceKey) and path[-1].idx == 0
        if keys[-1] == "__call__" and keys[-2].startswith("block") and first:
            out["/".join(keys[:-1])] = value
    return out


def equal(one, two):
    """Trees are the same, bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)
