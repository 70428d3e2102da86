"""Options of inversion: the presets are those of the command, and results are judged by them."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from repgan_jax.configs import base
from repgan_jax.errors import UserError
from repgan_jax.inversion import projection
from repgan_jax.inversion.options import PRESETS, InversionOptions, find_preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_those_of_the_config(name):
    fields = base.get_config().invert[name].to_dict()
    assert fields.pop("start") == ""
    assert fields == dataclasses.asdict(PRESETS[name])


def test_a_preset_with_changes_changes_nothing_else():
    found = find_preset("fast", steps=7)
    assert found.steps == 7 and dataclasses.replace(found, steps=60) == PRESETS["fast"]
    with pytest.raises(UserError, match="^preset: 'slow', expected one of fast, standard, paper$"):
        find_preset("slow")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "z"}, "space: 'z', expected one of w, w+"),
        ({"steps": 0}, "steps: 0, expected at least 1"),
        ({"save_every": 0}, "save_every: 0, expected at least 1"),
        ({"size": 12}, "size: 12, expected a divisor of the generator's 16 pixels, at least 32"),
    ],
)
def test_options_that_do_not_fit_are_named(tiny_generator, changes, message):
    with pytest.raises(UserError) as info:
        InversionOptions(**changes).check(tiny_generator)
    assert str(info.value) == message


def test_limits_of_verdicts_change_no_latent():
    one, other = InversionOptions(), InversionOptions(good_lpips=9.0, poor_lpips=9.0)
    assert one.decisive() == other.decisive() != InversionOptions(pull=0.5).decisive()
    assert json.dumps(InversionOptions(pull=1).decisive()) == json.dumps(
        InversionOptions(pull=1.0).decisive()
    )
    assert one.optimisation() == projection.Settings(space="w+", pixel=1.0, pull=0.02)


@pytest.mark.parametrize(
    ("lpips", "distance", "expected"),
    [
        (0.1, 1.0, "good"),
        (0.2, 1.5, "good"),
        (0.1, 1.6, "poor"),
        (0.3, 1.0, "poor"),
        (0.41, 1.0, "failed"),
        (0.5, 9.0, "failed"),
    ],
)
def test_verdicts(lpips, distance, expected):
    options = InversionOptions(good_lpips=0.2, poor_lpips=0.4, good_distance=1.5)
    assert options.verdict(SimpleNamespace(lpips=lpips, distance=distance)) == expected
