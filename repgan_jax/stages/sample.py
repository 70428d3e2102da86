"""Stage `sample`: a sheet of generated pictures, their labels, and where the heads disagree."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repgan_jax import synthesize
from repgan_jax.io import images
from repgan_jax.stages import common, fewshot, generate

_SHOWN = ("image", "mask", "disputed")
FIELDS = ("seed", "dtype", "generate.truncation", "generate.noise", "generate.label", "sample")


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that the generator cannot serve."""
    common.expect_positive(config, "sample.num_pictures")
    if not common.may_be_done(config, "sample", FIELDS):
        generate.check_samples(config, common.outline_generator(config))


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `workdir/sample/sheet.png`: pictures of the dataset to be, with overlays below.

    Of an ensemble, below that, white where the heads disagree: what is white in many pictures is
    what to label next.
    """
    with common.stage("sample", config, workdir, FIELDS, after=("fewshot",)) as stage:
        if stage.finished:
            return
        generator, head, names, variables, palette = fewshot.load_with_generator(config, workdir)
        sample = jax.jit(
            synthesize.make_sampler(
                head,
                names,
                truncation=config.generate.truncation,
                noise=config.generate.noise,
                picture_size=head.size,
                soft_size=head.size,
                label=config.generate.label,
            )
        )
        key = jax.random.fold_in(jax.random.key(config.seed), 1)  # as in `generate`
        count = config.sample.num_pictures
        found = sample((generator, variables, key), jnp.arange(count, dtype=jnp.int32))
        pictures, labels, disputed = map(np.asarray, (found[name] for name in _SHOWN))
        rows = [
            pictures,
            [images.overlay(*pair, palette) for pair in zip(pictures, labels, strict=True)],
        ]
        if disputed.any():
            shade = np.clip(255 * disputed / np.log(2), 0, 255)  # ln 2: two heads, opposed
            rows.append(np.repeat(shade[..., None].astype(np.uint8), 3, axis=-1))
        columns = [np.concatenate(column, 0) for column in zip(*rows, strict=True)]
        images.write_png(stage.folder / "sheet.png", images.contact_sheet(columns, columns=8))
        stage.finish({"num_pictures": count})
