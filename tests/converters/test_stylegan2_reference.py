"""A second reference: StyleGAN2 as the package `stylegan2-torch` computes it, in PyTorch.

256 px at full width, as FFHQ at 256 px and LSUN are trained: what a small golden file cannot show,
sums of 4,608 products and 13 layers of rounding, is shown here.
"""

import types

import jax
import numpy as np
import pytest

from repgan_jax.converters import stylegan2
from repgan_jax.generator import Generator

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch", reason="needs PyTorch: pip install --editable .[reference]")
RESOLUTION, LEVELS = 256, 7  # 4 to 256 pixels


def upfirdn2d(x, kernel, up_x, up_y, down_x, down_y, left, right, top, bottom):
    """Returns the images `x` [N, 1, H, W] with zeros in between, padded, and convolved."""
    assert (down_x, down_y) == (1, 1)  # a generator never reduces
    n, _, height, width = x.shape
    spread = x.new_zeros(n, 1, height * up_y, width * up_x)
    spread[:, :, ::up_y, ::up_x] = x
    padded = torch.nn.functional.pad(spread, (left, right, top, bottom))
    return torch.nn.functional.conv2d(padded, kernel.flip(0, 1)[None, None])


@pytest.fixture(scope="module")
def original():
    """The package's generator; random numbers in every tensor, strengths and biases included."""
    cpp_extension = pytest.importorskip("torch.utils.cpp_extension")
    with pytest.MonkeyPatch.context() as patch:
        # the package compiles a CUDA operation when imported: here is what that computes, on CPU
        op = types.SimpleNamespace(upfirdn2d=upfirdn2d)
        patch.setattr(cpp_extension, "load", lambda *args, **kwargs: op)
        package = pytest.importorskip(
            "stylegan2_torch", reason="needs stylegan2-torch: pip install --editable .[reference]"
        )
    torch.manual_seed(0)
    model = package.Generator(RESOLUTION).eval().requires_grad_(False)
    for to_rgb in model.to_rgbs:  # the package draws grey pictures; its sums take any channels
        to_rgb.weight.data = torch.randn(1, 3, *to_rgb.weight.shape[2:])
        to_rgb.bias.data = torch.zeros(1, 3, 1, 1)
    for name, tensor in model.named_parameters():
        if name.endswith("bias"):  # in the mapping, 0.01 acts on them
            tensor += torch.randn_like(tensor) * (10 if name.startswith("mapping") else 0.1)
        elif "add_noise" in name:
            tensor += 0.1 + 0.1 * torch.rand(1)
    return model


def noise_maps():
    """Noise [1, 1, R, R] for every convolution, coarse to fine."""
    generator = torch.Generator().manual_seed(1)
    sizes = [4 << (i + 1) // 2 for i in range(2 * LEVELS - 1)]
    return [torch.randn(1, 1, size, size, generator=generator) for size in sizes]


CONV = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "add_noise.weight",
    "activate.bias": "leaky_relu.bias",
}
CONV_UP = CONV | {"conv.blur.kernel": "blur.kernel"}
RGB = {name: CONV[name] for name in CONV if name.startswith("conv.")} | {"bias": "bias"}
RGB_UP = RGB | {"upsample.kernel": "upsample.kernel"}


def rosinality_names():
    """Yields (rosinality's name, the package's) of every tensor."""
    for i in range(8):
        for name in ("weight", "bias"):
            yield f"style.{i + 1}.{name}", f"mapping.{i + 1}.{name}"
    modules = [("conv1", "convs.0", CONV), ("to_rgb1", "to_rgbs.0", RGB)]
    for level in range(1, LEVELS):
        modules.append((f"convs.{2 * level - 2}", f"up_convs.{level - 1}", CONV_UP))
        modules.append((f"convs.{2 * level - 1}", f"convs.{level}", CONV))
        modules.append((f"to_rgbs.{level - 1}", f"to_rgbs.{level}", RGB_UP))
    yield "input.input", "input.input"
    for theirs, packages, table in modules:
        yield from ((f"{theirs}.{a}", f"{packages}.{b}") for a, b in table.items())


def assert_close(found, expected, what):
    expected = np.asarray(expected)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    # float32: 13 layers, each a sum of up to 4,608 products, added up in another order
    assert error <= 2e-5, f"{what}: {error}"


def test_parity_with_another_implementation(original):
    state = original.state_dict()
    names = dict(rosinality_names())
    assert sorted(names.values()) == sorted(state), "a tensor of the package is left out"
    tensors = {name: state[packages].numpy() for name, packages in names.items()}
    noise = noise_maps()
    tensors |= {f"noises.noise_{i}": x.numpy() for i, x in enumerate(noise)}
    architecture, variables = stylegan2.convert(
        {"g_ema": tensors, "latent_avg": np.zeros(512, np.float32)}, "package"
    )
    assert list(architecture["widths"].values()) == [512, 512, 512, 512, 512, 256, 128]

    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(2))
    layers, expected = [original.convs[0]], []
    for up, conv in zip(original.up_convs, original.convs[1:], strict=True):
        layers += [up, conv]
    hooks = [
        layer.register_forward_hook(lambda _, args, out: expected.append(out)) for layer in layers
    ]
    w = original.mapping(z)
    picture = original([w], input_type="w", noises=noise)
    for hook in hooks:
        hook.remove()

    generator = Generator.build(architecture, jax.tree.map(jax.numpy.asarray, variables))
    with jax.default_matmul_precision("float32"):
        assert_close(generator.mapping(z.numpy()), w, "w")
        image, taps = jax.jit(Generator.synthesis)(generator, w.numpy())
    assert len(taps) == len(expected) == 2 * LEVELS - 1
    for (name, tap), theirs in zip(taps.items(), expected, strict=True):
        assert_close(tap, theirs.permute(0, 2, 3, 1), name)
    assert image.shape == (1, RESOLUTION, RESOLUTION, 3)
    assert_close(image, picture.permute(0, 2, 3, 1), "picture")
