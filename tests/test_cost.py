"""What the main programs compute and move, as XLA counts it: no clock, so no noise.

The counts are those of the compiled program, without which unused and repeated work would count,
and every elementwise step as traffic. They are of the CPU's program: there convolutions and
products stay what XLA can count, while on GPU many are calls of libraries, which count as nothing.
Of a loop, XLA counts one round. Nothing is allocated or run.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks.works import CHANNELS, CLASSES, random_generator
from repgan_jax import synthesize
from repgan_jax.labeller import Labeller
from repgan_jax.models import heads
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import Palette, default_colours

SIZE = 256
W = jax.ShapeDtypeStruct((1, 512), jnp.float32)


def compiled(program, *shapes):
    """Returns what XLA makes of `program`."""
    with jax.default_device(jax.devices("cpu")[0]):
        lowered = jax.jit(program).lower(*shapes)
    # of the machine code alone, which is not run: no count depends on it, and it takes the longest
    return lowered.compile({"xla_backend_optimization_level": 0})


def cost(program, *shapes):
    """Returns (flops, bytes read and written, bytes of temporary arrays) of `program`."""
    made = compiled(program, *shapes)
    counts = made.cost_analysis()
    return counts["flops"], counts["bytes accessed"], made.memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def generator():
    """Shapes of StyleGAN2's weights."""
    return jax.eval_shape(functools.partial(random_generator, SIZE))


@pytest.fixture(scope="module")
def taps(generator):
    """Shapes of the activations that heads read."""
    names = taps_lib.select(generator.tap_names)
    return jax.eval_shape(
        lambda g, w: taps_lib.choose(g.synthesis(w)[1], names, SIZE), generator, W
    )


@pytest.fixture(scope="module")
def picture(generator):
    """The cost of a picture."""
    return cost(lambda g, w: g.synthesis(w)[0], generator, W)


def convolutions(names):
    """Returns (flops of StyleGAN2's 3x3 convolutions up to the last of `names`, of those to RGB).

    Zeros around the activations are left out, as XLA does: along a side, three taps see 3 h - 2
    pixels. An up-sampling convolution's phases multiply every pixel with every tap once.
    """
    styled, to_rgb, width = 0, 0, CHANNELS[4]
    for i, size in enumerate(map(taps_lib.size_of, names)):
        side = 3 * size // 2 if i % 2 else 3 * size - 2
        styled += 2 * side**2 * width * (width := CHANNELS[size])
        to_rgb += 0 if i % 2 else 2 * size**2 * width * 3
    return styled, to_rgb


def labelled(generator, taps, name):
    """Returns the cost of a picture with its label by the head called `name`."""
    head = heads.build(name, CLASSES, SIZE)
    variables = jax.eval_shape(head.init, jax.random.key(0), taps)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), variables["params"])
    palette = Palette(tuple(map(str, range(CLASSES))), default_colours(CLASSES))
    labeller = Labeller({**variables, "params": one}, head, tuple(taps), palette)
    sample = synthesize.make_sampler(
        truncation=0.7, noise="stored", image_size=SIZE, soft_size=SIZE
    )
    fixed = generator, labeller, jax.eval_shape(jax.random.key, 0)
    return cost(sample, fixed, jax.ShapeDtypeStruct((2,), jnp.int32))


def test_a_picture_costs_its_convolutions(generator, picture):
    expected = sum(convolutions(generator.tap_names))
    # 0.6 % are steps on single elements: noise, bias, smoothing, the mapping of latents to styles
    assert expected < picture[0] < 1.01 * expected


@pytest.mark.parametrize(
    ("head", "flops", "traffic"),
    [
        # 0.8 % more flops; projected after resizing, it would be 8 %. The traffic is the reading
        # of all activations once more, and the writing of probabilities.
        ("mlp0", 1.02, 1.5),
        # its 3x3 convolutions are 41 % of a picture's; unfolded, it would be twice a picture's
        ("cnn_l", 1.6, 2.3),
    ],
)
def test_a_label_costs_little_beside_its_picture(generator, taps, picture, head, flops, traffic):
    both = labelled(generator, taps, head)
    assert picture[0] < both[0] < flops * picture[0]
    assert picture[1] < both[1] < traffic * picture[1]


def test_the_folded_layer_costs_an_eighth_of_the_stacked_one_at_most(taps, stacked):
    layer = heads.FoldedConv(128, SIZE)
    variables = jax.eval_shape(layer.init, jax.random.key(0), taps)

    def unfolded(variables, taps):
        with stacked():
            return layer.apply(variables, taps)

    flops, _, temporary = cost(layer.apply, variables, taps)
    stacked_flops, _, stacked_temporary = cost(unfolded, variables, taps)
    # 1/10 and 1/20: most channels belong to activations of few pixels
    assert 0 < 8 * flops < stacked_flops
    assert 0 < 8 * temporary < stacked_temporary


@pytest.mark.parametrize("training", [False, True])
def test_a_wide_layer_takes_memory_for_some_features_at_a_time(taps, monkeypatch, training):
    head = heads.build("mlp2", CLASSES, SIZE)
    variables = jax.eval_shape(head.init, jax.random.key(0), taps)

    def loss(params, stats, taps):
        return jnp.square(head.apply({"params": params, "stats": stats}, taps)).sum()

    def temporary(largest):
        monkeypatch.setattr(heads, "_LARGEST", largest)
        program = jax.grad(loss) if training else loss
        return cost(lambda *args: program(*args), variables["params"], variables["stats"], taps)[2]

    # 250 of 2000 features at a time: a third, in training a fifth; the next layer's sum remains
    assert 0 < 2.5 * temporary(2**26) < temporary(2**40)


def test_what_is_not_used_is_not_computed(generator):
    names, rgb = generator.tap_names, f"[1,{SIZE},{SIZE},3]"
    finest = compiled(lambda g, w: g.synthesis(w)[1][names[-1]], generator, W)
    both = compiled(lambda g, w: g.synthesis(w), generator, W)
    assert rgb in both.as_text() and rgb not in finest.as_text()
    coarse, _, _ = cost(lambda g, w: g.synthesis(w)[1][names[-3]], generator, W)
    expected, _ = convolutions(names[:-2])
    assert expected < coarse < 1.01 * expected
