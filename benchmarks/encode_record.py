"""CPU time and size of a stored picture with its labels, one JSON line a way to store it.

    python -m benchmarks.encode_record runs/face/generate

The folder holds a dataset that the stage `generate` wrote; its first pictures are encoded again.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from repgan_jax.data import dataset
from repgan_jax.io import images
from repgan_jax.ops import resampling

PICTURES = 40


def main() -> None:
    """Prints milliseconds of one core, and bytes, a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    data = dataset.open_dataset(parser.parse_args().folder)
    examples = [data[i] for i in range(min(PICTURES, len(data)))]
    size = examples[0]["mask"].shape[0]
    if "probabilities" not in examples[0]:
        parser.error("the dataset has no probabilities")
    plain = dataset.Writer(
        Path("unused"),
        data.class_names,
        (len(examples),),
        examples[0]["image"].shape[0],
        size,
        examples[0]["latent"].shape,
        size,
    )
    for encoding in images.ENCODINGS:
        measure(encoding, dataclasses.replace(plain, encoding=encoding), examples)
    for soft_type in dataset.SOFT_TYPES:
        for soft_size in (size, size // 2, 0):
            writer = dataclasses.replace(plain, soft_size=soft_size, soft_type=soft_type)
            measure(f"png, probabilities {soft_type} {soft_size}", writer, examples)


def measure(name: str, writer: dataset.Writer, examples: list) -> None:
    """Prints the line of one writer."""
    factor = examples[0]["mask"].shape[0] // (writer.soft_size or 1)
    soft = [
        np.asarray(resampling.area_reduce(jnp.asarray(e["probabilities"])[None], factor)[0])
        for e in examples
    ]
    examples = [{**example, "probabilities": p} for example, p in zip(examples, soft, strict=True)]
    writer.record(examples[0])
    started = time.process_time()
    size = sum(len(writer.record(example)) for example in examples) / len(examples)
    ms = 1000 * (time.process_time() - started) / len(examples)
    print(json.dumps({"name": name, "cpu_ms": round(ms, 2), "bytes": round(size, 2)}))


if __name__ == "__main__":
    main()
