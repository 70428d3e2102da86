"""Stage `sample`: a sheet of generated pictures and the labels that the heads give them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repgan_jax import synthesize
from repgan_jax.io import images
from repgan_jax.stages import common, fewshot, generate

FIELDS = ("seed", "dtype", "generate.truncation", "generate.noise", "generate.label", "sample")


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `workdir/sample/sheet.png`: pictures of the dataset to be, with overlays below."""
    with common.stage("sample", config, workdir, FIELDS, after=("fewshot",)) as stage:
        if stage.finished:
            return
        generator = common.load_generator(config)
        generate.check_label(config, generator)
        head, names, variables, palette = fewshot.load_heads(workdir)
        sample = jax.jit(
            synthesize.make_sampler(
                head,
                names,
                truncation=config.generate.truncation,
                noise=config.generate.noise,
                picture_size=head.size,
                label=config.generate.label,
            )
        )
        key = jax.random.fold_in(jax.random.key(config.seed), 1)  # as in `generate`
        count = config.sample.num_pictures
        found = sample((generator, variables, key), jnp.arange(count, dtype=jnp.int32))
        pictures, labels = np.asarray(found["image"]), np.asarray(found["mask"])
        pairs = [
            np.concatenate([picture, images.overlay(picture, label, palette)], 0)
            for picture, label in zip(pictures, labels, strict=True)
        ]
        images.write_png(stage.folder / "sheet.png", images.contact_sheet(pairs, columns=8))
        stage.finish({"num_pictures": count})
