"""What several tests share."""

import contextlib
import dataclasses
import fcntl
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Eight virtual devices cost an ordinary test nothing: whoever wants one or two says so (below).
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax import main
from repgan_jax.converters import mobilestylegan, stylegan2
from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator, load_generator
from repgan_jax.io import checkpoint, images
from repgan_jax.models import heads, lpips
from repgan_jax.models.stylegan2 import MAPPING_RATE
from repgan_jax.ops import resampling
from repgan_jax.runtime import parallel

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs for the next time: compiling is most of what the tests do."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Finds data that lie beside the repository, or skips the test."""

    def find(path: str) -> Path:
        found = ROOT.parent / "shared" / path
        if not found.exists():
            pytest.skip(f"needs {found}")
        return found

    return find


@pytest.fixture
def use_devices(monkeypatch) -> Callable[[int], None]:
    """Lets `parallel` see only the first so many devices."""
    return lambda count: monkeypatch.setattr(
        parallel, "devices", lambda *, everywhere=False: jax.local_devices()[:count]
    )


@pytest.fixture
def stacked() -> Callable[[], contextlib.AbstractContextManager]:
    """Lets heads do their first layer as the paper does: resize, stack, then convolve."""

    def intercept(call, args, kwargs, context):
        layer = context.module
        if not isinstance(layer, heads.FoldedConv):
            return call(*args, **kwargs)
        params, stats, (taps, *then) = layer.variables["params"], layer.variables["stats"], args
        stack = [
            resampling.resize(tap / stats[name], layer.size, method=layer.resize)
            for name, tap in taps.items()
        ]
        kernel = jnp.concatenate([params[f"kernel_{name}"] for name in taps])
        x = jnp.concatenate(stack, -1) @ kernel + params["bias"]
        return nn.relu(x) @ then[0] if then else x

    return lambda: nn.intercept_methods(intercept)


@pytest.fixture(scope="session")
def tiny_generator() -> Generator:
    """A StyleGAN2 of 16 px with normal numbers in every tensor, noise and biases included."""
    widths = {"4": 10, "8": 8, "16": 6}
    sizes = {"z_dim": 12, "w_dim": 12, "mapping_layers": 2}
    empty = Generator.build({"name": "stylegan2", "widths": widths, **sizes}, {})
    key = jax.random.key(0)
    w = jnp.zeros((1, empty.num_layers, 12))
    variables = {
        "mapping": jax.eval_shape(empty.mapping_module.init, key, jnp.zeros((1, 12))),
        "synthesis": jax.eval_shape(empty.synthesis_module.init, key, w),
        "mean_latent": jax.ShapeDtypeStruct((12,), jnp.float32),
    }
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), variables)
    drawn["mapping"] = jax.tree.map(lambda x: x / MAPPING_RATE, drawn["mapping"])
    return dataclasses.replace(empty, variables=drawn)


@pytest.fixture(scope="session")
def face_generator(request) -> Generator:
    """The real face generator: of $REPGAN_WEIGHTS, weights/face, or converted once and cached."""
    folder = Path(os.environ.get("REPGAN_WEIGHTS", ROOT / "weights" / "face"))
    if not folder.exists():
        folder = request.config.cache.mkdir("weights") / f"face_{checkpoint.FORMAT}"
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests of another process may want it, too
            if not folder.exists():
                try:
                    converted = mobilestylegan.convert(mobilestylegan.read_wheel())
                except UserError as error:
                    pytest.skip(f"needs weights/face: {error}")
                checkpoint.write_generator(folder, *converted)
    return load_generator(folder)


# The command, but it is killed as by `kill -9` in the moment before the nth file of some name
# gets into its place: whatever the stage did since the last such moment is lost, and what it was
# just writing lies there half done.
KILLED_COMMAND = """
import os, signal, sys
from repgan_jax import main

name, left = sys.argv[1], int(sys.argv[2])

def watch(event, arguments):
    global left
    if event == "os.rename" and str(arguments[1]).endswith(name):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
sys.exit(main.main(sys.argv[3:]))
"""


@dataclasses.dataclass(frozen=True)
class Chain:
    """Everything that a small run of all stages reads, and the command that starts it.

    Attributes:
        generator: folder of a converted StyleGAN2 of 64 px, its weights random.
        shots: folder of three of its pictures with masks, latents, and classes.txt.
        photos: folder with five pictures of 90x70 pixels in images/, their true masks in masks/.
        cache: folder of compiled programs.
    """

    generator: Path
    shots: Path
    photos: Path
    cache: Path

    def arguments(self, workdir: Path, **changes: object) -> list[str]:
        """Returns the command's arguments; `fewshot__steps=3` changes `config.fewshot.steps`."""
        fields = {
            "workdir": workdir,
            "generator": self.generator,
            "classes": self.shots / "classes.txt",
            "compilation_cache": self.cache,
            "fewshot.shots": self.shots,
            "evaluate.images": self.photos / "images",
            "evaluate.masks": self.photos / "masks",
            "segment.input": self.photos / "images",
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        config = f"--config={ROOT / 'tests' / 'tiny.py'}"
        return [config, *(f"--config.{name}={value}" for name, value in fields.items())]

    def run_killed(
        self, name: str, count: int, workdir: Path, **changes: object
    ) -> tuple[int, str]:
        """Returns (exit code, stderr) of the command, killed before the nth file of that name."""
        arguments = (name, str(count), *self.arguments(workdir, **changes))
        command = [sys.executable, "-c", KILLED_COMMAND, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def run(self, workdir: Path, **changes: object) -> tuple[int, str, str]:
        """Runs the command in this process; returns exit code, standard output and errors."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.main(self.arguments(workdir, **changes))
        return code, out.getvalue(), err.getvalue()


@dataclasses.dataclass(frozen=True)
class Run(Chain):
    """A finished run of all stages; tests read it, and change copies of it only."""

    workdir: Path


@pytest.fixture(scope="session")
def tiny_chain(tmp_path_factory) -> Chain:
    """What a small run of all stages needs."""
    root = tmp_path_factory.mktemp("chain")
    cache = Path(jax.config.jax_compilation_cache_dir)
    chain = Chain(root / "generator", root / "shots", root / "photos", cache)
    state = torch_file.read(ROOT / "tests" / "golden" / "rosinality_64.pt")
    checkpoint.write_generator(chain.generator, *stylegan2.convert(state))
    generator = load_generator(chain.generator)
    w = generator.mapping(jax.random.normal(jax.random.key(5), (8, generator.z_dim)))
    pictures = images.to_uint8(jax.jit(Generator.synthesis)(generator, w)[0])
    for i, picture in enumerate(pictures[:3]):
        images.write_png(chain.shots / f"images/seed{i:03d}.png", picture)
        images.write_png(chain.shots / f"masks/seed{i:03d}.png", true_mask(picture))
    np.savez(chain.shots / "latents.npz", w=np.asarray(w[:3]), seed=np.arange(3))
    (chain.shots / "classes.txt").write_text("background\ndisc\nbright\n")
    for i, picture in enumerate(pictures[3:]):
        photo = images.resize_area(picture, (70, 90))
        images.write_png(chain.photos / f"images/{i}.png", photo)
        images.write_png(chain.photos / f"masks/{i}.png", true_mask(photo))
    return chain


@pytest.fixture(scope="session")
def tiny_inversion(tmp_path_factory) -> dict[str, object]:
    """Fields of the config for a short latent optimisation, by AlexNet with random weights."""
    folder = tmp_path_factory.mktemp("lpips")
    variables = lpips.LPIPS("alex").init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    checkpoint.write_tree(folder / "alex", variables)
    settings = {"steps": 8, "save_every": 4, "candidates": 3, "size": 32, "optimise_noise": True}
    fields = {f"invert__fast__{name}": value for name, value in settings.items()}
    return {"invert__perceptual": folder, "invert__preset": "fast", **fields}


def true_mask(picture: np.ndarray) -> np.ndarray:
    """Returns ids [H, W]: a disc (1), what is bright inside it (2), and a column of no id (255)."""
    height, width, _ = picture.shape
    y, x = np.ogrid[:height, :width]
    disc = np.hypot(y / height - 0.5, x / width - 0.5) < 0.35
    bright = picture.mean(-1) > 140
    mask = np.where(disc, np.where(bright, 2, 1), 0)
    mask[:, -1] = 255
    return mask


@pytest.fixture(scope="session")
def tiny_run(tiny_chain, tmp_path_factory) -> Run:
    """A finished run of all stages."""
    workdir = tmp_path_factory.mktemp("run") / "tiny"
    code, _, err = tiny_chain.run(workdir)
    assert code == 0, err
    return Run(**vars(tiny_chain), workdir=workdir)
