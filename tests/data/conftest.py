"""A small dataset that every exporter writes."""

import numpy as np
import pytest

from repgan_jax.data.export.folders import Part
from repgan_jax.palette import Palette, default_colours


@pytest.fixture
def parts():
    """Three examples to learn from, in two parts, and two to validate with."""
    return [
        Part("train", 0, 2, range(0, 2)),
        Part("train", 1, 2, range(2, 3)),
        Part("val", 0, 1, range(3, 5)),
    ]


@pytest.fixture
def palette():
    """Names with what no file name may hold, or what separates names elsewhere."""
    return Palette(("background", "left eye", "a/b", "nose"), default_colours(4))


@pytest.fixture
def examples():
    """Five labelled pictures: the first has ignored pixels, the last no part at all."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(5):
        ramp = np.linspace(0, 200, 16)[:, None, None] + [0, 20, 50]
        image = np.broadcast_to(ramp + 3 * index, (16, 16, 3)).astype(np.uint8)
        mask = rng.integers(0, 4, (8, 8)).repeat(2, 0).repeat(2, 1).astype(np.int32)
        latent = rng.normal(size=5).astype(np.float32)
        found.append(
            {"image": image, "mask": mask, "index": index, "latent": latent, "confidence": 0.5}
        )
    found[0]["mask"][3, 2:7] = 255
    found[1]["mask"][found[1]["mask"] == 3] = 0
    found[4]["mask"][:] = 0
    return found


@pytest.fixture
def export(tmp_path, palette, examples, parts):
    """Writes the examples by a writer of that class, each part by one of its own; returns it."""

    def write(writer_class):
        for part in reversed(parts):
            writer = writer_class(tmp_path, palette)
            assert not writer.is_written(part)
            writer.write(part, (examples[i] for i in part.indices))
            assert writer_class(tmp_path, palette).is_written(part)
        writer.finish(parts)
        assert all(writer.is_written(part) for part in parts)
        assert not list(tmp_path.rglob(".*"))
        return writer

    return write
