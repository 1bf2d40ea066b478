import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from weights.make_fixtures_towers import build, inputs, outputs
from weights.towers import by_stage, equal, stored, write

from jaxcl.encoders import AttentionPool, TextTower, initialise
from jaxcl.errors import UserError
from jaxcl.weights.attention_pools import attention_pool_entries
from jaxcl.weights.files import read_folder
from jaxcl.weights.tables import gather, scatter
from jaxcl.weights.text_towers import (
    clip_text_config,
    clip_text_tower,
    read_clip_text,
    read_siglip_text,
    siglip_text_config,
    siglip_text_tower,
    write_clip_text,
    write_siglip_text,
)

READ = {"clip_text": read_clip_text, "siglip_text": read_siglip_text}
WRITE = {"clip_text": write_clip_text, "siglip_text": write_siglip_text}
FAMILIES = pytest.mark.parametrize("family", READ)


def compare(tower, params, x, expected):
    """Every stage within 1e-5 of the original's; transformers' masked rows are not looked at."""
    out = by_stage(tower, params, x)
    assert expected.keys() <= out.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, atol=1e-5, rtol=1e-5, err_msg=name)


@FAMILIES
def test_stored_answers_of_transformers(family, tmp_path):
    config, tensors, x, expected = stored(family)
    tower, params = READ[family](write(tmp_path, config, tensors))
    compare(tower, params, x, expected)


@FAMILIES
def test_answers_of_transformers_and_back(family, tmp_path):
    """Read what it wrote; it reads what we write and answers the same."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    model, x = build(family), inputs(family)
    expected = outputs(family, model, x)
    model.save_pretrained(tmp_path / "theirs")
    tower, params = READ[family](tmp_path / "theirs")
    compare(tower, params, x, expected)
    WRITE[family](tmp_path / "ours", tower, params)
    again = type(model).from_pretrained(tmp_path / "ours", attn_implementation="eager")
    for name, value in outputs(family, again, x).items():
        np.testing.assert_array_equal(value, expected[name])


@FAMILIES
def test_round_trip_is_exact(family, tmp_path):
    config, tensors, _, _ = stored(family)
    tower, params = READ[family](write(tmp_path / "one", config, tensors))
    WRITE[family](tmp_path / "two", tower, params)
    again, same = READ[family](tmp_path / "two")
    assert again == tower
    equal(params, same)


@FAMILIES
def test_the_text_side_of_a_whole_model(family, tmp_path):
    """Its config is one part of the whole's; the image side's tensors are passed over."""
    config, tensors, x, expected = stored(family)
    inside = lambda n: n if n.startswith(("text_model.", "text_proj")) else f"text_model.{n}"
    tensors = {inside(name): value for name, value in tensors.items()}
    tensors |= {"logit_scale": np.zeros(()), "vision_model.post_layernorm.weight": np.zeros(3)}
    tensors["text_model.embeddings.position_ids"] = np.arange(10)[None]
    whole = {"model_type": family.removesuffix("_text"), "text_config": config}
    if family == "clip_text":
        whole |= {"projection_dim": 12, "text_config": config | {"projection_dim": 99}}
    tower, params = READ[family](write(tmp_path, whole, tensors))
    compare(tower, params, x, expected)


def test_clip_without_projection(tmp_path):
    config, tensors, x, expected = stored("clip_text")
    del tensors["text_projection.weight"], expected["features"]
    tower, params = read_clip_text(write(tmp_path / "one", config, tensors))
    compare(tower, params, x, expected)
    write_clip_text(tmp_path / "two", tower, params)
    assert read_clip_text(tmp_path / "two")[0] == tower


def test_half_precision_is_widened(tmp_path):
    config, tensors, _, _ = stored("siglip_text")
    name = "encoder.layers.0.mlp.fc1.weight"
    exact = np.arange(24 * 16, dtype=np.float32).reshape(24, 16) / 128
    for half in (np.float16, ml_dtypes.bfloat16):
        other = {"text_model.embeddings.position_ids": np.arange(3, dtype=np.int16)}
        folder = write(tmp_path, config, tensors | {name: exact.astype(half)} | other)
        types = {key: tensor.dtype for key, tensor in read_folder(folder)[1].items()}
        assert types.pop("text_model.embeddings.position_ids") == np.int16
        assert set(types.values()) == {np.dtype(np.float32)}
        write(tmp_path, config, tensors | {name: exact.astype(half)})
        kernel = read_siglip_text(folder)[1]["block1"]["linear1"]["kernel"]
        assert kernel.dtype == np.float32
        np.testing.assert_array_equal(kernel, exact.astype(half).astype(np.float32).T)


def test_weights_in_several_files(tmp_path):
    config, tensors, x, expected = stored("siglip_text")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in parts.items():
        write(tmp_path, config, {name: tensors[name] for name in some})
        (tmp_path / "model.safetensors").rename(tmp_path / file)
    places = {name: file for file, some in parts.items() for name in some}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    compare(*read_siglip_text(tmp_path), x, expected)


def test_old_configs_take_the_highest_id_for_the_end():
    """Those of the published CLIP models say eos_token_id=2."""
    assert clip_text_tower({"eos_token_id": 2}).eos is None
    assert clip_text_config(clip_text_tower({"eos_token_id": 2}))["eos_token_id"] == 2
    assert clip_text_tower({}).eos == 49407


def test_silent_configs_are_the_published_base_models():
    assert clip_text_tower({}).clone(eos=None) == TextTower()
    base = siglip_text_tower({})
    assert (base.width, base.mlp, base.max_positions, base.projection) == (768, 3072, 64, 768)
    assert siglip_text_tower(siglip_text_config(base)) == base


def broken(tmp_path, change):
    config, tensors, _, _ = stored("clip_text")
    folder = write(tmp_path, config, tensors)
    change(folder, config, tensors)
    return folder


NAME = "text_model.encoder.layers.1.mlp.fc1.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, c, t: write(f, c | {"model_type": "bert"}, t), "model_type='bert', not 'clip'"),
        (lambda f, c, t: write(f, c | {"hidden_act": "silu"}, t), "hidden_act='silu'"),
        (lambda f, c, t: write(f, c, {n: t[n] for n in t if n != NAME}), f"missing: {NAME}"),
        (lambda f, c, t: write(f, c, t | {"extra": t[NAME]}), "left over: extra"),
        (lambda f, c, t: write(f, c | {"intermediate_size": 25}, t), r"is \[24\], not \[25\]"),
        (lambda f, c, t: (f / "model.safetensors").write_bytes(b"?"), "no whole safetensors file"),
        (lambda f, c, t: (f / "model.safetensors").unlink(), "holds none of model.safetensors"),
        (lambda f, c, t: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f, c, t: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f, c, t: (f / "config.json").write_text("[]"), "holds no JSON object"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_clip_text(broken(tmp_path, change))


def test_towers_that_a_family_does_not_have_are_not_written(tmp_path):
    with pytest.raises(UserError, match="CLIP's text is causal=True"):
        write_clip_text(tmp_path, TextTower(causal=False), {})
    with pytest.raises(UserError, match="SigLIP's text is causal=False"):
        write_siglip_text(tmp_path, TextTower(), {})
    with pytest.raises(UserError, match=r"nowhere holds no config\.json"):
        read_clip_text(tmp_path / "nowhere")


def test_attention_pool_is_siglips():
    """Stored answers of SiglipVisionModel's head on the tokens before it; and there and back."""
    config, tensors, _, expected = stored("map_head")
    head = AttentionPool(heads=config["num_attention_heads"], mlp=config["intermediate_size"])
    key, tokens = jax.random.key(0), jnp.array(expected["tokens"])
    shapes = jax.eval_shape(lambda: initialise(head, key, tokens)[0])
    entries = attention_pool_entries("params", "head")
    variables = gather(tensors, entries, {"params": shapes, "stats": {}})
    out = jax.jit(lambda v, x: head.apply(v, x, train=False))(variables, tokens)
    np.testing.assert_allclose(out["features"], expected["features"], atol=1e-5, rtol=1e-5)
    equal(scatter(variables, entries), tensors)
