"""MobileStyleGAN's picture of 1024 px alone, as OpenVINO computes it on a processor.

    python -m benchmarks.openvino_picture FOLDER

FOLDER holds SynthesisNetwork.xml and .bin of the package `random-face`.
"""

import sys
from pathlib import Path

import numpy as np
import openvino

from benchmarks.measure import measure, show


def main(folder: Path) -> None:
    """Measures one picture, in float32."""
    core = openvino.Core()
    network = core.read_model(folder / "SynthesisNetwork.xml")
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", options).create_infer_request()
    style = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    figures = measure(lambda: request.infer([style]))
    show(who="OpenVINO", work="mobilestylegan", size=1024, batch=1, **figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
