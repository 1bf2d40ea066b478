import numpy as np
import pytest
from weights.make_fixtures_towers import build, inputs, outputs
from weights.towers import by_stage, equal, stored, write

from jaxcl.encoders import forward
from jaxcl.errors import UserError
from jaxcl.weights.t5 import read_t5, t5_from_config, write_t5

FAMILIES = pytest.mark.parametrize("family", ["t5", "t5_v11"])
SHARED = "shared.weight"


def compare(encoder, params, x, expected):
    """Every stage within 1e-5; what transformers gives at padding depends on its kernel."""
    out = by_stage(encoder, params, x)
    for name, value in expected.items():
        name = name.replace("coder", "coder/block")
        real = x["mask"] if value.shape[1] == x["mask"].shape[1] else ...
        np.testing.assert_allclose(
            np.asarray(out[name])[real], value[real], atol=1e-5, rtol=1e-5, err_msg=name
        )
    mean = [
        tokens[real].mean(0) for tokens, real in zip(expected["tokens"], x["mask"], strict=True)
    ]
    np.testing.assert_allclose(out["features"], mean, atol=1e-5)


@FAMILIES
def test_stored_answers_of_transformers(family, tmp_path):
    config, tensors, x, expected = stored(family)
    encoder, params = read_t5(write(tmp_path, config, tensors))
    assert encoder.gated == (family == "t5_v11") and encoder.tied == (family == "t5")
    compare(encoder, params, x, expected)


@FAMILIES
def test_answers_of_transformers_and_back(family, tmp_path):
    """Read what it wrote; it reads what we write and answers the same."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    model, x = build(family), inputs(family)
    expected = outputs(family, model, x)
    model.save_pretrained(tmp_path / "theirs")
    encoder, params = read_t5(tmp_path / "theirs")
    compare(encoder, params, x, expected)
    write_t5(tmp_path / "ours", encoder, params)
    again = type(model).from_pretrained(tmp_path / "ours", attn_implementation="eager")
    for name, value in outputs(family, again, x).items():
        np.testing.assert_array_equal(value, expected[name])


@FAMILIES
def test_round_trip_is_exact(family, tmp_path):
    config, tensors, _, _ = stored(family)
    encoder, params = read_t5(write(tmp_path / "one", config, tensors))
    write_t5(tmp_path / "two", encoder, params)
    again, same = read_t5(tmp_path / "two")
    assert again == encoder
    equal(params, same)


@FAMILIES
def test_encoder_alone(family, tmp_path):
    config, tensors, x, expected = stored(family)
    some = {n: t for n, t in tensors.items() if n == SHARED or n.startswith("encoder.")}
    encoder, params = read_t5(write(tmp_path / "one", config, some))
    assert set(params) == {"embed", "encoder"}
    x = {"ids": x["ids"], "mask": x["mask"]}
    tokens = forward(encoder, params, {}, x, train=False)[0]["tokens"]
    np.testing.assert_allclose(tokens[0], expected["tokens"][0], atol=1e-5, rtol=1e-5)
    write_t5(tmp_path / "two", encoder, params)
    equal(params, read_t5(tmp_path / "two")[1])


@pytest.mark.parametrize("there", [
    {"encoder.embed_tokens.weight"},
    {"decoder.embed_tokens.weight"},
    {SHARED, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"},
])  # fmt: skip
def test_the_embedding_under_any_of_its_names(there, tmp_path):
    config, tensors, _, _ = stored("t5")
    expected = read_t5(write(tmp_path / "one", config, tensors))[1]
    shared = tensors.pop(SHARED)
    tensors |= {name: shared.copy() for name in there}
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[unused] = np.zeros((8, 4), np.float32)
    equal(read_t5(write(tmp_path / "two", config, tensors))[1], expected)


def test_a_head_that_was_tied_but_not_scaled(tmp_path):
    """transformers 5 makes such models of version 1.1; here the head is a copy."""
    config, tensors, _, _ = stored("t5_v11")
    del tensors["lm_head.weight"]
    params = read_t5(write(tmp_path, config, tensors))[1]
    np.testing.assert_array_equal(params["head"]["kernel"], tensors[SHARED].T)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
    ],
)
def test_what_configs_say_of_the_head(config, tied):
    assert t5_from_config(config).tied == tied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: (c | {"model_type": "umt5"}, t), "model_type='umt5', not 't5'"),
        (lambda c, t: (c | {"feed_forward_proj": "gated-silu"}, t), "feed_forward_proj='gated-"),
        (lambda c, t: (c, t | {"lm_head.weight": t[SHARED] + 1}), "lm_head.weight differs from"),
        (lambda c, t: (c, t | {"encoder.embed_tokens.weight": t[SHARED] + 1}), "differs from sha"),
        (lambda c, t: (c, {n: a for n, a in t.items() if n != SHARED}), f"missing: {SHARED}"),
        (lambda c, t: (c | {"d_kv": 5}, t), r"is \[16, 12\], not \[20, 12\]"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    config, tensors, _, _ = stored("t5")
    with pytest.raises(UserError, match=message):
        read_t5(write(tmp_path, *change(config, tensors)))
