"""The command dispatches, and answers mistakes in one line."""

import errno
import os
import types

import jax
import jax.numpy as jnp
import pytest

from repgan_jax import main, stages
from repgan_jax.configs import base
from repgan_jax.errors import UserError

CONFIG = f"--config={base.__file__}"


@pytest.fixture
def stage(monkeypatch):
    """Replaces all stages by one that writes down its calls, or raises `stage.error`."""
    fake = types.SimpleNamespace(calls=[], error=None)

    def load(name):
        def run(config, workdir):
            fake.calls.append((name, workdir))
            if fake.error:
                raise fake.error

        return types.SimpleNamespace(run=run)

    monkeypatch.setattr(stages, "load", load)
    return fake


def _run(capsys, *arguments):
    """Returns the exit code and what was printed as an error."""
    code = main.main([CONFIG, "--config.compilation_cache=", *arguments])
    return code, capsys.readouterr().err


def test_stages_run_in_the_order_given(stage, capsys, tmp_path):
    code, _ = _run(capsys, "--config.stages=report,fewshot", f"--config.workdir={tmp_path}")
    assert code == 0
    assert stage.calls == [("report", tmp_path), ("fewshot", tmp_path)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        ("a, b", ("a", "b")),
        ('("a","b")', ("a", "b")),
        ("()", ()),
        ("", ()),
        ("a,", ("a",)),
    ],
)
def test_lists_of_names(text, expected):
    assert main.read_config([CONFIG, f"--config.fewshot.names={text}"]).fewshot.names == expected


def test_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    config = main.read_config([CONFIG, "--config.segment.output=~/out"])
    assert config.segment.output == "/home/ann/out"
    assert config.invert.cache.startswith("/home/ann/")


@pytest.mark.parametrize("arguments", [["--config=face"], ["--config", "face"], ["-config=face"]])
def test_a_name_is_a_config_of_the_library(arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "face").write_text("not a config file: a path has a suffix or a folder")
    assert main.read_config([*arguments, "--config.seed=3"]).workdir == "runs/face"
    assert main.read_config([*arguments, "--config.seed=3"]).seed == 3


def test_the_argument_of_a_config_is_kept():
    assert main.read_config(["--config=face:celebamask"]).evaluate.layout == "celebamask"


def test_a_path_is_the_users_own_config_even_where_one_of_ours_has_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "face.py").write_text(
        "from repgan_jax.configs import face\n\n\n"
        "def get_config():\n"
        "    config = face.get_config()\n"
        "    config.workdir = 'runs/mine'\n"
        "    return config\n"
    )
    assert main.read_config(["--config=configs/face.py"]).workdir == "runs/mine"
    assert main.read_config(["--config=face"]).workdir == "runs/face"


def test_examples_of_the_library_are_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=face", "--config.segment.input=examples/face/images"]
    arguments += ["--config.segment.output=examples/face"]
    config = main.read_config(arguments)
    for path in (config.classes, config.fewshot.shots, config.segment.input):
        assert os.path.isabs(path) and os.path.exists(path)
    assert config.segment.output == "examples/face"  # written, so it is in the working folder
    own = tmp_path / "examples" / "face"
    own.mkdir(parents=True)
    config = main.read_config(arguments)
    assert config.fewshot.shots == "examples/face"
    assert os.path.isabs(config.classes)  # there is no list of classes in that folder


def test_examples_that_do_not_exist_keep_their_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main.read_config(["--config=car"]).fewshot.shots == "examples/car"


def test_overrides_are_typed():
    config = main.read_config(
        [CONFIG, "--config.fewshot.steps=7", "--config.autoshot.augment.scale=0.5,2.0"]
    )
    assert config.fewshot.steps == 7 and config.autoshot.augment.scale == (0.5, 2.0)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.fewshot.stepz=3",
            "unknown config field 'stepz'; did you mean \"steps\" instead",
        ),
        ("--config.fewshot.steps=many", "--config.fewshot.steps=many: invalid literal for int"),
        ("--confi.seed=3", "Unknown command line flag 'confi.seed'"),
        ("seed=3", "argument 'seed=3' is not understood"),
        ("--config.seed=-1", "config.seed: -1, expected 0 to 4294967295"),
        (
            "--config.evaluate.class_map.1=skin",
            "'evaluate.class_map.1'; a field of that name can be set in a config file alone",
        ),
        (
            "--config.fewshots.steps=5",
            "unknown config field 'fewshots'; did you mean \"fewshot\" instead, "
            "--config.fewshot.steps?",
        ),
        (
            "--config.invert.fsat.steps=5",
            "'fsat'; did you mean \"fast\" instead, --config.invert.fast.steps?",
        ),
        ("--config.invert.qq=5", "unknown config field 'qq'; config.invert has cache, fast, "),
        ("--config.fewshot=5", "config.fewshot: a group, not a field; set its fields one by one"),
        ("--config.fewshot.steps.x=5", "config.fewshot.steps: a field, not a group; it has no 'x'"),
        ("--config.seed", "Missing value for flag --config.seed"),
        ("--noconfig.fewshot.flap", "unknown config field 'flap'; did you mean \"flip\""),
    ],
)
def test_mistakes_in_the_arguments(stage, capsys, argument, message):
    code, err = _run(capsys, argument)
    assert code == 2 and not stage.calls
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("fewshots", "config.stages: 'fewshots' is unknown; did you mean fewshot?"),
        ("paint", "config.stages: 'paint' is unknown; known: fewshot, generate"),
    ],
)
def test_unknown_stage(capsys, names, message):
    code, err = _run(capsys, f"--config.stages={names}")
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=mine.py"],
            "--config=mine.py: no such file; expected the path of a config file",
        ),
        (["--config=mine"], "or one of base, car, face, face_full, horse, tiny\n"),
        (["--config=fce:celebamask"], "tiny; did you mean --config=face:celebamask?\n"),
        (["--config=elsewhere/face.py"], "tiny; did you mean --config=face?\n"),
        (["--config="], "--config=: no such file; expected"),
        (["--config"], "Missing value for flag --config"),
        ([f"{CONFIG}:variant"], "get_config() takes 0 positional arguments"),
        (["--config.seed=3"], "Unknown command line flag 'config.seed'"),
    ],
)
def test_mistakes_in_the_name_of_the_config(capsys, arguments, message):
    assert main.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n    pass\n", "mine.py:1: SyntaxError: invalid syntax"),
        ("\nimport nowhere\n", "mine.py:2: ModuleNotFoundError: No module named 'nowhere'"),
        (
            "def get_config():\n    return 1 / 0\n",
            "mine.py:2: ZeroDivisionError: division by zero",
        ),
        ("x = 3\n", "mine.py: has no function get_config, which returns the config"),
        (
            "def get_config():\n    pass\n",
            "mine.py: get_config returned NoneType, expected a ConfigDict",
        ),
        (
            "from repgan_jax.configs import base\n\n\ndef get_config():\n"
            "    config = base.get_config()\n    config.fewshot.stepz = 3\n    return config\n",
            'Did you mean "steps" instead of "stepz"?',
        ),
        (
            "import beside\n\n\ndef get_config():\n    return beside.make()\n",
            "beside.py:2: ValueError: of no use",
        ),
    ],
)
def test_mistakes_in_a_config_file(monkeypatch, capsys, tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "beside.py").write_text("def make():\n    raise ValueError('of no use')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main.main([f"--config={tmp_path / 'mine.py'}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}/") and err.count("\n") == 1
    assert message in err


def test_a_config_file_may_map_any_ids(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from repgan_jax.configs import base\n\n\ndef get_config():\n"
        "    config = base.get_config()\n    config.evaluate.class_map['7'] = 'skin'\n"
        "    return config\n"
    )
    config = main.read_config([f"--config={tmp_path / 'mine.py'}"])
    assert dict(config.evaluate.class_map) == {"7": "skin"}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("shots: no latents.npz"), 2, "shots: no latents.npz"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/curve.json"),
            2,
            "runs/curve.json: No space left on device; choose another folder",
        ),
    ],
)
def test_errors_of_a_stage_end_in_one_line(stage, capsys, error, code, message):
    stage.error = error
    assert _run(capsys, "--config.stages=fewshot") == (code, f"error: {message}\n")


def test_too_little_memory_ends_in_one_line(stage, capsys):
    with pytest.raises(jax.errors.JaxRuntimeError) as found:
        jnp.zeros(2**44).block_until_ready()
    stage.error = found.value
    code, err = _run(capsys, "--config.stages=fewshot")
    assert code == 2 and err.startswith("error: out of memory (RESOURCE_EXHAUSTED: ")
    assert err.count("\n") == 1 and "docs/getting_started.md#short-of-memory" in err


def test_bugs_keep_their_traceback(stage, capsys):
    stage.error = OSError(errno.EIO, "not a user's mistake")
    with pytest.raises(OSError, match="not a user's mistake"):
        _run(capsys, "--config.stages=fewshot")


def test_help_lists_stages_and_fields_that_exist(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in stages.STAGES)
    fields = dict(base.get_config().iteritems(preserve_field_references=False))
    for name in main.MAIN_FIELDS:
        group, _, field = name.partition(".")
        assert group in fields and (not field or field in fields[group])
        assert name in out
    assert max(map(len, out.splitlines())) <= 100


def test_an_empty_list_of_anything_is_empty(capsys):
    config = main.read_config([CONFIG, "--config.fewshot.taps=", "--config.evaluate.merge_order="])
    assert config.fewshot.taps == config.evaluate.merge_order == ()
    code, err = _run(capsys, "--config.stages=")
    assert code == 2 and err.startswith("error: config.stages: none given; expected some of fewsh")


def test_workdir_that_cannot_be_made(stage, capsys, tmp_path):
    (tmp_path / "file").touch()
    code, err = _run(capsys, "--config.stages=fewshot", f"--config.workdir={tmp_path}/file/run")
    assert code == 2 and not stage.calls
    assert err.startswith(f"error: config.workdir: {tmp_path}/file/run cannot be written (")


def test_compilation_cache_that_cannot_be_written_is_left_out(stage, capsys, tmp_path, monkeypatch):
    settings = {}
    monkeypatch.setattr(main.jax.config, "update", settings.__setitem__)
    (tmp_path / "file").touch()
    folder = f"--config.compilation_cache={tmp_path}/file/xla"
    code, err = _run(capsys, "--config.stages=fewshot", f"--config.workdir={tmp_path}", folder)
    assert code == 0 and stage.calls
    assert err.startswith(f"warning: config.compilation_cache: {tmp_path}/file/xla cannot be writ")
    assert "jax_compilation_cache_dir" not in settings


def test_compilation_cache_is_used(stage, monkeypatch, tmp_path):
    settings = {}
    monkeypatch.setattr(main.jax.config, "update", settings.__setitem__)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main.main([CONFIG, "--config.stages=report", "--config.compilation_cache=~/xla"]) == 0
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / "xla")


def test_former_names_of_fields_are_accepted(tmp_path, capsys):
    config = main.read_config(["--config=face", "--config.generate.num_pictures=7"])
    assert config.generate.num_images == config.generate.num_pictures == 7
    assert "config.generate.num_pictures is called config.generate.num_images now" in (
        capsys.readouterr().out
    )
    path = tmp_path / "mine.py"
    path.write_text(
        "from repgan_jax.configs import base\n\n\ndef get_config():\n"
        "    config = base.get_config()\n    config.sample.num_pictures = 3\n    return config\n"
    )
    assert main.read_config([f"--config={path}"]).sample.num_images == 3


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("00012,00035", ("00012", "00035")),
        ("1e5", ("1e5",)),
        ("1_000, 0x10", ("1_000", "0x10")),
        ("1.10", ("1.10",)),
        ("('00012',)", ("00012",)),
        ("a b", ("a b",)),
        ("", ()),
    ],
)
def test_names_stay_as_they_are_written(given, names):
    config = main.read_config(["--config=face", f"--config.fewshot.names={given}"])
    assert config.fewshot.names == names
