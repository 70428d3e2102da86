"""Joint augmentation of pictures and their labels, on the device, one key a sample.

What separates generated pictures from photos is framing, light, focus and, most of all, what lies
behind and around the object: hence the changes of colour by class and of the background.
"""

import dataclasses
from collections.abc import Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image, one draw per image; a pytree of numbers.

    Attributes:
        flip: probability of a horizontal flip.
        rotation: in degrees, up to, either way.
        translation: share of the side length, up to, either way.
        scale: smallest and largest factor of the size.
        brightness: of the range 0..1, up to, either way.
        contrast: factor from 1 - x to 1 + x.
        saturation: factor from 1 - x to 1 + x.
        hue: in turns of the colour circle, up to, either way.
        grey: probability of a grey image.
        class_colour: standard deviation of a colour shift that each class gets of its own.
        background: probability of another background (class 0).
        blur: standard deviation in pixels, up to.
        noise: standard deviation (images span 2), up to.
    """

    flip: float = 0.5
    rotation: float = 10.0
    translation: float = 0.1
    scale: tuple[float, float] = (0.8, 1.25)
    brightness: float = 0.2
    contrast: float = 0.4
    saturation: float = 0.5
    hue: float = 0.05
    grey: float = 0.05
    class_colour: float = 0.05
    background: float = 0.0
    blur: float = 1.0
    noise: float = 0.05

    def without_flip(self) -> "Augmentation":
        """Returns the same without horizontal flips."""
        return dataclasses.replace(self, flip=0.0)


def augment(
    key: jax.Array,
    picture: jax.Array,
    targets: jax.Array,
    *,
    settings: Augmentation,
    mirrored: Sequence[int] = (),
) -> tuple[jax.Array, jax.Array]:
    """Returns `picture` [H, W, 3] in [-1, 1] and its `targets` [H, W, K], changed alike.

    Args:
        key: of the sample.
        picture: [H, W, 3].
        targets: [H, W, K] probabilities of the classes; class 0 is the background.
        settings: the kinds of change, and how strong they are.
        mirrored: the class of each class in a mirrored picture; empty: itself.
    """
    warp_key, colour_key, focus_key = jax.random.split(key, 3)
    matrix = random_affine(warp_key, picture.shape[0], settings)
    warped = warp(jnp.concatenate([picture, targets], -1), matrix)
    picture, targets = warped[..., :3], warped[..., 3:]
    if mirrored:
        is_mirrored = jnp.linalg.det(matrix[:, :2]) < 0
        targets = jnp.where(is_mirrored, targets[..., jnp.array(mirrored)], targets)
    picture = recolour(colour_key, picture, targets, settings)
    return defocus(focus_key, picture, settings), targets


def random_affine(key: jax.Array, size: int, settings: Augmentation) -> jax.Array:
    """Returns [2, 3]: the place (row, column) in the input for each place in the output."""
    keys = jax.random.split(key, 4)
    low, high = (jnp.log(bound) for bound in settings.scale)
    zoom = jnp.exp(jax.random.uniform(keys[0], minval=low, maxval=high))
    angle = jnp.deg2rad(_symmetric(keys[1], settings.rotation))
    mirror = jnp.where(jax.random.uniform(keys[2]) < settings.flip, -1.0, 1.0)
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    linear = jnp.array([[cos, -sin], [sin, cos]]) * jnp.array([1.0, mirror])
    shift = size * _symmetric(keys[3], settings.translation, (2,))
    centre = jnp.full(2, (size - 1) / 2)
    return jnp.concatenate([linear, (centre + shift - linear @ centre)[:, None]], 1)


def warp(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Returns [H, W, C]: `x` at the places of `matrix` [2, 3], bilinear; edges continue outwards.

    Whole pixels are gathered, all channels at once: many times faster than one by one.
    """
    height, width, _ = x.shape
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = matrix @ jnp.stack([rows.ravel(), columns.ravel(), jnp.ones(height * width)])
    limits = jnp.array([[height - 1.0], [width - 1.0]])
    places = jnp.clip(places, 0.0, limits)
    corner = jnp.minimum(jnp.floor(places), limits - 1)
    down, right = (places - corner)[..., None]
    start = (corner[0] * width + corner[1]).astype(jnp.int32)
    pixels = x.reshape(height * width, -1)
    top = pixels[start] * (1 - right) + pixels[start + 1] * right
    bottom = pixels[start + width] * (1 - right) + pixels[start + width + 1] * right
    return (top * (1 - down) + bottom * down).reshape(x.shape)


def recolour(
    key: jax.Array, picture: jax.Array, targets: jax.Array, settings: Augmentation
) -> jax.Array:
    """Returns `picture` [H, W, 3] in other light, with other class colours and background."""
    keys = jax.random.split(key, 8)
    shifts = settings.class_colour * jax.random.normal(keys[0], (targets.shape[-1], 3))
    picture = picture + targets @ shifts
    background = random_background(keys[1], picture.shape[0])
    share = targets[..., :1] * (jax.random.uniform(keys[2]) < settings.background)
    x = (jnp.clip(picture * (1 - share) + background * share, -1, 1) + 1) / 2
    x = pix.adjust_hue(x, _symmetric(keys[3], settings.hue))
    x = pix.adjust_saturation(x, 1 + _symmetric(keys[4], settings.saturation))
    x = pix.adjust_contrast(x, 1 + _symmetric(keys[5], settings.contrast))
    x = x + _symmetric(keys[6], settings.brightness)
    x = jnp.clip(x, 0, 1)
    grey = jax.random.uniform(keys[7]) < settings.grey
    return 2 * jnp.where(grey, x.mean(-1, keepdims=True), x) - 1


def random_background(key: jax.Array, size: int) -> jax.Array:
    """Returns [size, size, 3] in [-1, 1]: a random colour, and soft random shapes over it."""
    base_key, shape_key, strength_key = jax.random.split(key, 3)
    base = jax.random.uniform(base_key, (1, 1, 3), minval=-1.0, maxval=1.0)
    strength = jax.random.uniform(strength_key, maxval=0.6)
    shapes = 0.0
    for cells in (4, 16):
        noise = jax.random.normal(jax.random.fold_in(shape_key, cells), (cells, cells, 3))
        shapes = shapes + jax.image.resize(noise, (size, size, 3), "linear")
    return jnp.clip(base + strength * shapes, -1, 1)


def defocus(key: jax.Array, picture: jax.Array, settings: Augmentation) -> jax.Array:
    """Returns `picture` [H, W, 3] blurred and noisy, each by a random amount."""
    blur_key, strength_key, noise_key = jax.random.split(key, 3)
    sigma = jax.random.uniform(blur_key, minval=0.05, maxval=jnp.maximum(settings.blur, 0.1))
    weights = jnp.exp(-jnp.square(jnp.arange(-2.0, 3.0) / sigma) / 2)
    for axis in (0, 1):
        picture = _filter(picture, weights / weights.sum(), axis)
    strength = jax.random.uniform(strength_key, maxval=settings.noise)
    return picture + strength * jax.random.normal(noise_key, picture.shape)


def _filter(x: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Returns `x` correlated with `weights` [odd] along `axis`, edges continued."""
    radius = len(weights) // 2
    padded = jnp.pad(x, [(radius, radius) if i == axis else (0, 0) for i in range(x.ndim)], "edge")
    return sum(
        weight * jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
        for i, weight in enumerate(weights)
    )


def _symmetric(key: jax.Array, bound: float, shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
