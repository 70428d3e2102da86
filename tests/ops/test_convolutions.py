"""The generators' operations against slow loops over their definitions."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from repgan_jax.ops import convolutions, resampling

FIR = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 16


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def zeros_between(x):
    """Returns [2H - 1, 2W - 1, C]: `x` [H, W, C] on the even places."""
    height, width, channels = x.shape
    spread = np.zeros((2 * height - 1, 2 * width - 1, channels), x.dtype)
    spread[::2, ::2] = x
    return spread


def correlate(x, kernel, mode):
    """Returns the sum over C of correlations of `x` [H, W, C] with `kernel` [S, S, C, F]."""
    return np.stack(
        [
            sum(
                signal.correlate2d(x[..., c], kernel[..., c, f], mode)
                for c in range(kernel.shape[2])
            )
            for f in range(kernel.shape[3])
        ],
        axis=-1,
    )


def test_smooth_is_the_full_filter():
    x = random(0, 2, 9, 7, 3)
    expected = [
        np.stack([signal.correlate2d(y[..., c], FIR, "valid") for c in range(3)], -1) for y in x
    ]
    np.testing.assert_allclose(convolutions.smooth(x), expected, atol=2e-6)  # sums of 16 products


def test_upsample_is_zeros_between_then_the_filter():
    x = random(1, 2, 5, 3, 2)
    expected = []
    for y in x:
        padded = np.pad(zeros_between(y), ((2, 2), (2, 2), (0, 0)))
        planes = [signal.correlate2d(padded[..., c], FIR, "valid") for c in range(2)]
        expected.append(np.stack(planes, -1))
    np.testing.assert_allclose(convolutions.upsample(x), expected, atol=2e-6)


def test_upsample_keeps_a_constant_inside():
    up = convolutions.upsample(jnp.ones((1, 4, 6, 1)))
    assert up.shape == (1, 8, 12, 1)
    np.testing.assert_allclose(up[:, 1:-1, 1:-1], 1, atol=1e-6)


@pytest.mark.parametrize("up", [True, False])
def test_modulated_conv_is_a_kernel_a_sample(up):
    x, kernel, style = random(2, 2, 5, 4, 3), random(3, 3, 3, 3, 2), random(4, 2, 3)
    expected = []
    for y, factors in zip(x, style, strict=True):
        own = kernel * factors[:, None]
        own = own / np.sqrt(np.square(own).sum((0, 1, 2)) + 1e-8)
        if up:  # the transposed convolution, whole, then the filter, which crops it to 2H x 2W
            wide = np.pad(correlate(zeros_between(y), own, "full"), ((1, 1), (1, 1), (0, 0)))
            planes = [signal.correlate2d(wide[..., f], FIR, "valid") for f in range(2)]
            expected.append(np.stack(planes, -1))
        else:
            expected.append(correlate(y, own, "same"))
    found = convolutions.modulated_conv(x, kernel, style, up=up)
    # float32 sums of 27 products, 16 more in the filter
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_modulated_dense_is_a_matrix_a_sample():
    x, kernel, style = random(2, 2, 5, 4, 3), random(3, 3, 2), random(4, 2, 3)
    expected = [y @ (kernel * factors[:, None]) for y, factors in zip(x, style, strict=True)]
    found = convolutions.modulated_dense(x, kernel, style)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("filters", [1, 2])
def test_depthwise3x3_is_a_grouped_convolution(filters):
    x, kernels = random(1, 2, 5, 7, 4), random(2, filters, 3, 3, 4)
    expected = [
        jax.lax.conv_general_dilated(
            x[n : n + 1],
            kernels[n % filters, :, :, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )[0]
        for n in range(2)
    ]
    found = convolutions.depthwise3x3(x, kernels)
    np.testing.assert_allclose(found, expected, atol=5e-6)  # sums of nine products


def test_modulated_conv_computes_in_the_type_of_its_input():
    x, kernel, style = random(5, 1, 4, 4, 8), random(6, 3, 3, 8, 8), random(7, 1, 8)
    exact = convolutions.modulated_conv(x, kernel, style)
    rough = convolutions.modulated_conv(jnp.asarray(x, jnp.bfloat16), kernel, style)
    assert rough.dtype == jnp.bfloat16
    # eight bits of mantissa, twice rounded inputs and one rounded output
    np.testing.assert_allclose(
        rough.astype(jnp.float32), exact, atol=0.02 * float(jnp.abs(exact).max())
    )


@pytest.mark.parametrize(
    ("shape", "options", "size"),
    [
        ((3, 3), {"padding": 1}, (14, 17)),
        ((3, 3), {"padding": 4, "dilation": 4}, (14, 17)),
        ((5, 3), {"dilation": 2}, (14, 17)),
        ((1, 2), {"padding": 1}, (14, 17)),
        ((11, 11), {"stride": 4, "padding": 2}, (14, 17)),
        # in bands of several rows
        ((3, 3), {"padding": 1}, (90, 512)),
        ((3, 3), {"padding": 4, "dilation": 4}, (90, 512)),
        ((5, 3), {"dilation": 2}, (90, 512)),
        ((3, 3), {"padding": 16, "dilation": 16}, (20, 512)),  # a band sees them all
    ],
)
def test_conv_has_the_gradients_of_jaxs_own(shape, options, size):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*shape, 3, 5)), jnp.float32)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (options.get("stride", 1),) * 2,
            [(options.get("padding", 0),) * 2] * 2,
            rhs_dilation=(options.get("dilation", 1),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    expected, pull = jax.vjp(plain, x, kernel)
    found, own = jax.vjp(lambda x, kernel: convolutions.conv(x, kernel, **options), x, kernel)
    np.testing.assert_array_equal(found, expected)
    gradient = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for one, other in zip(jax.jit(own)(gradient), pull(gradient), strict=True):
        # float32 sums of up to 605 products; those of 92160 reach a thousand
        np.testing.assert_allclose(one, other, atol=2e-4 if size == (14, 17) else 2e-3)


def test_the_gradient_to_a_kernel_adds_up_in_float32():
    x, kernel = jnp.ones((1, 521, 256, 2), jnp.bfloat16), jnp.zeros((1, 1, 2, 2), jnp.bfloat16)
    _, pull = jax.vjp(convolutions.conv, x, kernel)
    found = pull(jnp.ones_like(x))[1]  # row by row; bfloat16 sums would not get beyond 256^2
    np.testing.assert_allclose(found.astype(jnp.float32), 521 * 256, rtol=2**-8)


@pytest.mark.parametrize(
    ("conv", "moved"),
    [
        (lambda x, kernel: convolutions.conv(x, kernel, 1, 1), (0, 1)),
        (lambda x, kernel: convolutions.conv(x, kernel, 1, 2, 2), (0, 1)),
        (lambda x, kernel: convolutions.conv(x, kernel, 1, 1), (0,)),
        (lambda x, kernel: resampling.area_reduce(convolutions.conv_up(x, kernel), 2), (0,)),
    ],
)
def test_no_convolution_in_a_loop_is_left_without_a_fast_form(conv, moved):
    """XLA's fast convolutions on CPU are of kernels [.., in, out]."""

    def energy(x, kernel):
        return jnp.square(conv(x, kernel)).sum()

    def descend(x, kernel):
        def step(_, both):
            new = [both[i] + g for i, g in enumerate(jax.grad(energy, moved)(*both))]
            return (*new, *both[len(new) :])

        return jax.lax.fori_loop(0, 2, step, (x, kernel))

    shapes = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
    compiled = jax.jit(descend).lower(*shapes).compile().as_text()
    labels = set(re.findall(r"dim_labels=(\w+->\w+)", compiled))
    assert labels == {"b01f_01io->b01f"}
    if 1 not in moved:  # the gradient to the kernel, a loop in the loop, is not computed
        assert compiled.count(" while(") <= 1
