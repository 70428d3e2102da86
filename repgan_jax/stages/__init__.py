"""One file a stage: read, one pure call, write."""

import difflib
import importlib
from types import ModuleType

from ml_collections import ConfigDict

from repgan_jax.errors import UserError

# In the order of a whole run; every module has `run(config, workdir)` and `FIELDS`, the dotted
# config fields on which its result depends. Where settings alone can show that it would fail, it
# has `check(config)`, which says so before any stage begins.
STAGES = {
    "fewshot": "fit heads to the activations of the labelled images",
    "generate": "write a labelled dataset of generated images",
    "verify": "read the whole generated dataset again and name its bad shards",
    "repair": "generate the shards that `verify` found bad, and only those",
    "autoshot": "train the stand-alone network on that dataset",
    "evaluate": "compare the network's predictions with the true masks of photos",
    "segment": "segment your own photos (config.segment.input)",
    "invert": "find the latents of your own photos (config.invert.input)",
    "sample": "write a sheet of generated images with their labels",
    "export": "write the generated dataset in other formats (config.export.format)",
    "report": "collect everything in one HTML page",
}
_SHARED = ("generate", "verify", "repair", "autoshot")


def is_shared(name: str, config: ConfigDict) -> bool:
    """Returns whether all processes of a run take part in a stage; the others are the first's."""
    return name in _SHARED or (name == "fewshot" and config.fewshot.batch_size > 1)


def load(name: str) -> ModuleType:
    """Returns the module of the stage `name`, imported only now: most runs need few of them."""
    if name not in STAGES:
        near = difflib.get_close_matches(name, STAGES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(STAGES)}"
        raise UserError(f"config.stages: {name!r} is unknown; {hint}")
    return importlib.import_module(f"{__name__}.{name}")
