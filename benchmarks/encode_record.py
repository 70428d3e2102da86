"""CPU time and size of a stored picture with its labels, one JSON line an encoding.

    python benchmarks/encode_record.py runs/face/generate

The folder holds a dataset that the stage `generate` wrote; its first pictures are encoded again.
"""

import argparse
import json
import time
from pathlib import Path

from repgan_jax.io import dataset, images

PICTURES = 40


def main() -> None:
    """Prints milliseconds of one core, and bytes, a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    data = dataset.open_dataset(parser.parse_args().folder)
    examples = [data[i] for i in range(min(PICTURES, len(data)))]
    for encoding in images.ENCODINGS:
        writer = dataset.Writer(
            Path("unused"),
            data.class_names,
            (len(examples),),
            examples[0]["image"].shape[0],
            examples[0]["mask"].shape[0],
            examples[0]["latent"].shape,
            examples[0]["probabilities"].shape[0] if "probabilities" in examples[0] else 0,
            encoding=encoding,
        )
        writer.record(examples[0])
        started = time.process_time()
        size = sum(len(writer.record(example)) for example in examples)
        ms = 1000 * (time.process_time() - started)
        line = {"name": encoding, "cpu_ms": ms / len(examples), "bytes": size / len(examples)}
        print(json.dumps({name: round(x, 2) if name != "name" else x for name, x in line.items()}))


if __name__ == "__main__":
    main()
