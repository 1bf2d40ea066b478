"""How kernels and biases start, and where the libraries' CIFAR stems differ from torchvision's.

The bounds are torch's: `nn.Linear` and `nn.Conv2d` draw kernel and bias from uniform(+-1/sqrt(fan
in)) (reset_parameters); `trunc_normal_(std=0.02)` cuts at +-2, which no draw comes near.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.encoders import MLP, ResNet, ViT, apply_stage, initialise
from jaxcl.encoders.mlp import INITS

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def is_uniform(values, bound):
    values = np.asarray(values)
    assert np.abs(values).max() <= bound
    np.testing.assert_allclose(values.std(), bound / 3**0.5, rtol=0.1)


def test_torchs_linear_layers_have_its_biases_too():
    head = MLP((400,), 300, bias=True, out_bias=True, kernel_init="torch")
    params = initialise(head, KEY, jnp.zeros((1, 100)))[0]
    for name, fan_in in (("linear1", 100), ("linear_out", 400)):
        is_uniform(params[name]["kernel"], fan_in**-0.5)
        is_uniform(params[name]["bias"], fan_in**-0.5)
    others = initialise(head.clone(kernel_init="lecun"), KEY, jnp.zeros((1, 100)))[0]
    np.testing.assert_array_equal(others["linear1"]["bias"], 0)


def test_a_head_on_unit_rows_ignores_their_length():
    head = MLP((), 4, unit_inputs=True, kernel_init="normal_0.01")
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    params = initialise(head, KEY, x)[0]
    assert set(params) == {"linear_out"} and set(params["linear_out"]) == {"kernel"}
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    z = head.apply({"params": params}, 7 * x, train=False)["features"]
    np.testing.assert_allclose(z, unit @ params["linear_out"]["kernel"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["normal_0.02", "trunc_normal_0.02"])
def test_truncation_at_two_deviations_is_another_distribution(name):
    values = INITS[name](KEY, (200, 200))
    cut = name.startswith("trunc")
    np.testing.assert_allclose(values.std(), 0.02 * (0.8796 if cut else 1), rtol=0.02)
    assert (np.abs(values).max() > 0.04) != cut


def test_dinos_vit_draws_patches_as_torch_draws_convolutions():
    """Its own start is that of linear layers alone (vision_transformer.py, lines 165 to 172)."""
    net = ViT(width=64, depth=1, heads=2, patch=4, image=16, kernel_init="dino")
    params = initialise(net, KEY, jnp.zeros((1, 16, 16, 3)))[0]
    is_uniform(params["patch_kernel"], 48**-0.5)
    assert 0 < np.abs(params["patch_bias"]).max() <= 48**-0.5
    kernels = [leaf for leaf in jax.tree.leaves(params["block1"]) if leaf.ndim == 2]
    for kernel in (*kernels, params["positions"]):
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.1)


def test_resnets_start_as_their_library_starts_them():
    net = ResNet(10, stem="cifar", stages=2, kernel_init="he", stem_init="torch", width=0.5)
    params = initialise(net, KEY, IMAGES)[0]
    is_uniform(params["stem"]["kernel"], 27**-0.5)
    kernel = params["stage2_block1"]["conv1"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * kernel.shape[3])) ** 0.5, rtol=0.05)
    params = initialise(net.clone(kernel_init="torch", stem_init=None), KEY, IMAGES)[0]
    is_uniform(params["stem"]["kernel"], 27**-0.5)
    is_uniform(params["stage2_block1"]["conv1"]["kernel"], (9 * 32) ** -0.5)
    kernel = initialise(net.clone(kernel_init="lecun"), KEY, IMAGES)[0]["stage2_block1"]["conv1"]
    np.testing.assert_allclose(kernel["kernel"].std(), (9 * 32) ** -0.5, rtol=0.05)


def test_a_wider_border_of_zeros_gives_larger_maps():
    """Padding 2 of a 3x3 kernel is padding 1 of the image with one more ring of zeros."""
    net = ResNet(10, stem="cifar", stages=2, width=0.125)
    params, stats = initialise(net, KEY, IMAGES)
    wide = net.clone(stem_padding=2)
    large, _ = apply_stage(wide, params, stats, 0, IMAGES, train=False)
    ringed = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    same, _ = apply_stage(net, params, stats, 0, ringed, train=False)
    assert large.shape == (2, 10, 10, 8)
    np.testing.assert_allclose(large, same, rtol=1e-6)


def test_a_stem_without_relu_passes_negative_values_on():
    net = ResNet(10, stem="cifar", stages=2, width=0.125)
    params, stats = initialise(net, KEY, IMAGES)
    plain, _ = apply_stage(net.clone(stem_relu=False), params, stats, 0, IMAGES, train=False)
    rectified, _ = apply_stage(net, params, stats, 0, IMAGES, train=False)
    assert plain.min() < 0
    np.testing.assert_array_equal(rectified, np.maximum(plain, 0))
