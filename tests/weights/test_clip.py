import json
from pathlib import Path

import jax
import numpy as np
import pytest
from filled import filled, images, texts
from jitted import forward

from jaxcl import UserError
from jaxcl.similarity import unit_rows
from jaxcl.weights import read_clip, read_tensors, write_clip, write_tensors

FIXTURES = np.load(Path(__file__).parent / "fixtures" / "vision.npz")


def folder(path, name, **changes):
    """A model of transformers as it lies on a disk."""
    config = json.loads(str(FIXTURES[f"pair-{name}:config"])) | changes
    tensors = filled(json.loads(str(FIXTURES[f"pair-{name}:shapes"])))
    write_tensors(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_pairs_give_what_transformers_gives(tmp_path, name):
    """Features of both sides, and logits with scale and bias."""
    model = read_clip(folder(tmp_path, name))
    image, _ = forward(model.image, model.image_params, {}, images(16), train=False)
    text, _ = forward(model.text, model.text_params, {}, {"ids": texts()}, train=False)
    rows = [unit_rows(side["features"]) for side in (image, text)]
    for i in range(2):
        np.testing.assert_allclose(rows[i], FIXTURES[f"pair-{name}:stage{i}"], atol=1e-6)
    logits = np.exp(model.scale) * rows[0] @ rows[1].T + model.bias
    np.testing.assert_allclose(logits, FIXTURES[f"pair-{name}:features"], atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_what_is_written_is_read_back_exactly(tmp_path, name):
    model = read_clip(folder(tmp_path, name))
    write_clip(tmp_path / "again", model)
    again = read_clip(tmp_path / "again")
    assert (again.image, again.text) == (model.image, model.text)
    jax.tree.map(
        np.testing.assert_array_equal,
        (model.image_params, model.text_params, model.scale, model.bias),
        (again.image_params, again.text_params, again.scale, again.bias),
    )
    one, two = read_tensors(tmp_path), read_tensors(tmp_path / "again")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="model_type='bert' is none of clip, siglip"):
        read_clip(folder(tmp_path, "clip", model_type="bert"))
    with pytest.raises(UserError, match=r"visual_projection.weight is \[12, 16\], not \[9, 16\]"):
        read_clip(folder(tmp_path, "clip", projection_dim=9))
    vision = json.loads(str(FIXTURES["pair-clip:config"]))["vision_config"]
    with pytest.raises(UserError, match="hidden_act='silu'; one of quick_gelu, gelu"):
        read_clip(folder(tmp_path, "clip", vision_config=vision | {"hidden_act": "silu"}))
    model = read_clip(folder(tmp_path, "clip"))
    with pytest.raises(UserError, match="image is neither CLIP's nor SigLIP's ViT"):
        write_clip(tmp_path / "other", model._replace(image=model.image.clone(registers=2)))
