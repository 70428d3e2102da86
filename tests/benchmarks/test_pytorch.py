"""What the benchmarks compare with computes the same as ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.generator import Generator
from repgan_jax.models.unet import UNet

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install --editable .[reference]")
from benchmarks.pytorch import stacked, stylegan2, unet  # noqa: E402

WIDTHS = {4: 8, 8: 12, 16: 6, 32: 5}
W_DIM = 16


def randomised(tree, seed=0):
    """Returns `tree` with normal numbers everywhere, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    draw = lambda x: rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, tree)


def fill(module, **arrays):
    """Copies `arrays`, in the layouts of Flax, into the parameters and buffers of `module`."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, array in arrays.items():
        if name != "noise":  # a map, not a matrix
            array = array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim))
        own[name].data.copy_(torch.from_numpy(np.array(array)))


def test_synthesis():
    architecture = {"name": "stylegan2", "z_dim": W_DIM, "w_dim": W_DIM, "mapping_layers": 1}
    architecture["widths"] = {str(size): width for size, width in WIDTHS.items()}
    module = Generator.build(architecture, {}).synthesis_module
    w = np.random.default_rng(1).normal(size=(2, W_DIM)).astype(np.float32)
    every = jnp.repeat(w[:, None], module.num_layers, axis=1)
    variables = randomised(jax.eval_shape(module.init, jax.random.key(0), every))
    params = variables["params"]
    network = stylegan2.Synthesis(WIDTHS, W_DIM)
    network.constant.data = torch.from_numpy(params["constant"].transpose(2, 0, 1).copy())
    for i, conv in enumerate(network.convs):
        name = f"conv_{i:02d}"
        fill_layer(conv, params[name])
        fill(conv, noise=variables["noise"][name]["map"])
        conv.noise_strength.data.fill_(float(params[name]["noise_strength"]))
    for i, rgb in enumerate(network.rgbs):
        fill_layer(rgb, params[f"rgb_{i:02d}"])
    with torch.inference_mode():
        pictures, taps = network(torch.from_numpy(w))
    expected, ours = module.apply(variables, every)
    for found, own in ((pictures, expected), *zip(taps, ours.values(), strict=True)):
        found = found.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found, own, atol=1e-5 * np.abs(own).max())


def fill_layer(layer, params):
    """Copies a layer's kernel, bias and style."""
    style, kernel = params["style"], params["kernel"]
    # PyTorch's transposed convolution turns its kernel
    fill(layer.conv, weight=kernel[::-1, ::-1] if layer.conv.up else kernel)
    fill(layer, bias=params["bias"])
    fill(layer.conv.style, weight=style["kernel"], bias=style["bias"])


def test_stack():
    rng = np.random.default_rng(2)
    taps = [rng.normal(size=(1, 3, size, size)).astype(np.float32) for size in (4, 8, 16)]
    found = stacked.stack([torch.from_numpy(tap) for tap in taps], 16).permute(0, 2, 3, 1)
    coarse = jax.image.resize(taps[1].transpose(0, 2, 3, 1), (1, 16, 16, 3), "bilinear")
    expected = np.concatenate([coarse, taps[2].transpose(0, 2, 3, 1)], -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_unet():
    widths = (4, 6, 8)
    ours = UNet(5, widths)
    x = np.random.default_rng(3).normal(size=(2, 16, 16, 3)).astype(np.float32)
    variables = randomised(jax.eval_shape(ours.init, jax.random.key(0), x))
    params, network = variables["params"], unet.UNet(5, widths)
    variables["batch_stats"] = jax.tree.map(np.square, variables["batch_stats"])
    for i, block in enumerate([*network.down, *network.up]):
        own, stats = params[f"Block_{i}"], variables["batch_stats"][f"Block_{i}"]
        for j in range(2):
            norm = f"BatchNorm_{j}"
            fill(block[3 * j], weight=own[f"Conv_{j}"]["kernel"])
            fill(block[3 * j + 1], weight=own[norm]["scale"], bias=own[norm]["bias"])
            fill(block[3 * j + 1], running_mean=stats[norm]["mean"], running_var=stats[norm]["var"])
    for i, conv in enumerate([*network.narrow, network.logits]):
        fill(conv, weight=params[f"Conv_{i}"]["kernel"], bias=params[f"Conv_{i}"]["bias"])
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2))).permute(0, 2, 3, 1)
    expected = ours.apply(variables, x)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
