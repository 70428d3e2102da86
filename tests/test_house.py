"""The house: what may import what, read from the source without importing it."""

import ast
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "repgan_jax"

# From the ground up. A name stands for its module or its whole package; imports stay on a floor or
# go down.
FLOORS = (
    ("errors", "sides", "palette", "metrics", "_checkout"),
    ("ops", "runtime"),
    ("models", "io"),
    ("generator", "labeller", "pixel_features", "segmenter", "synthesize", "data"),
    ("evaluation", "generation", "segmentation", "training", "inversion", "report"),
    ("config_file", "stages"),
    ("main",),
    ("__main__",),
)
# What stages share. Every other module of stages/ is one stage, and no stage imports another.
SHARED_BY_STAGES = {"common", "datasets", "fingerprints", "folders", "inverters", "labellers"}
PARTS_OF_STAGES = {("fewshot", "photo_shots"), ("report", "report_shots")}
OUTSIDE = ("configs", "converters", "torch")  # what the library never imports
OF_CONFIGS = ("main", "config_file", "stages")  # who knows ConfigDict
OF_STORAGE = ("main", "io", "stages")  # who knows gs://
OF_PROCESSES = ("runtime", "io")  # who asks JAX for processes; stages ask `runtime.distributed`
STORAGE_BELOW_STAGES = {
    "labeller",  # load_labeller takes gs:// runs
    "segmenter",  # load_segmenter takes gs:// runs
    "data.dataset",  # shards are fetched one by one, when they are first read
}


def _sources() -> dict[str, ast.Module]:
    """Returns {name below the package: syntax tree}, without configs/ and converters/."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        *folders, stem = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if {"configs", "converters"}.isdisjoint(folders):  # links
            names = folders if stem == "__init__" else [*folders, stem]
            found[".".join(names)] = ast.parse(path.read_bytes())
    return found


def _imports(tree: ast.AST) -> set[str]:
    """Returns the full names of what `tree` imports: "a.b" for `from a import b`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _own(tree: ast.AST) -> set[str]:
    """Returns the names below the package of its modules that `tree` imports."""
    found = set()
    for name in _imports(tree):
        package, _, name = name.partition(".")
        if package == PACKAGE:
            # What is no module is in one: a function or a class.
            found.add(name if name in SOURCES else name.rpartition(".")[0])
    return found - {""}


def _at_run_time(tree: ast.Module) -> ast.Module:
    """Returns `tree` without the imports that only type checkers follow."""
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(body, [])


def _is_in(module: str, places: Iterable[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def _floor(module: str) -> int:
    """Returns the number of the floor that `module` is on, from the ground."""
    return next(i for i, floor in enumerate(FLOORS) if _is_in(module, floor))


SOURCES = _sources()
MODULES = sorted(SOURCES.keys() - {""})  # the package itself lists public names of every floor


def test_every_module_is_on_one_floor():
    places = [place for floor in FLOORS for place in floor]
    assert len(places) == len({*places}) and {*places} <= {*MODULES}
    assert not [module for module in MODULES if not _is_in(module, places)]


def test_imports_go_down():
    upward = [
        f"{module} imports {other}"
        for module in MODULES
        for other in _own(SOURCES[module])
        if _floor(other) > _floor(module)
    ]
    assert not upward


def test_no_imports_in_a_circle():
    graph = {module: _own(_at_run_time(SOURCES[module])) for module in MODULES}
    TopologicalSorter(graph).prepare()  # CycleError names the modules of a circle


def test_no_stage_imports_another():
    found = {
        (module.removeprefix("stages."), other.removeprefix("stages."))
        for module in MODULES
        for other in _own(SOURCES[module])
        if module.startswith("stages.") and other.startswith("stages.")
    }
    found = {(one, other) for one, other in found if other not in SHARED_BY_STAGES}
    assert found == PARTS_OF_STAGES


def test_the_library_never_imports_configs_converters_or_torch():
    outside = {*OUTSIDE, *(f"{PACKAGE}.{name}" for name in OUTSIDE)}
    found = {(x, y) for x in SOURCES for y in _imports(SOURCES[x]) if _is_in(y, outside)}
    assert not found


def test_config_dicts_stop_at_the_stages():
    found = {x for x in MODULES if _is_in_any(_imports(SOURCES[x]), "ml_collections")}
    assert not {x for x in found if not _is_in(x, OF_CONFIGS)}


def test_storage_stops_at_the_stages():
    found = {x for x in MODULES if "io.remote" in _own(SOURCES[x])}
    assert {x for x in found if not _is_in(x, OF_STORAGE)} == STORAGE_BELOW_STAGES


def test_processes_stop_at_runtime_and_io():
    asked = {f"jax.{name}" for name in ("distributed", "process_index", "process_count")}
    found = {
        module
        for module in MODULES
        for node in ast.walk(SOURCES[module])
        if isinstance(node, ast.Attribute) and ast.unparse(node) in asked
    }
    assert not {x for x in found if not _is_in(x, OF_PROCESSES)}


def _is_in_any(names: Iterable[str], place: str) -> bool:
    return any(_is_in(name, [place]) for name in names)
