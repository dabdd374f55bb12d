"""Augmentation: own draws for each sample, and geometry against plain constructions."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from nlalib.networks.normalisation import MEAN, STANDARD_DEVIATION, normalise
from nlalib.training.augmentation import RECIPES, EpochDraws, Recipe, augment, named_recipe

SIDE = 32


def random_images(number: int, side: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def fixed_draws(samples: int, **columns) -> EpochDraws:
    """Draws in the middle (no change), but for the given columns: c2=0.0 sets the third."""
    draws = EpochDraws(samples, seed=0, epoch=0)
    draws.uniform = torch.full_like(draws.uniform, 0.5)
    for name, value in columns.items():
        draws.uniform[:, int(name[1:])] = value
    return draws


def denormalised(images: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STANDARD_DEVIATION))
    return (images * deviation + mean) * 255


@pytest.mark.parametrize("name", RECIPES)
def test_sample_depends_on_neither_batch_nor_order(name):
    images, draws, recipe = random_images(16), EpochDraws(16, seed=3, epoch=2), RECIPES[name]
    together = augment(images, torch.arange(16), draws, recipe)
    order = torch.tensor([11, 3, 7, 0])
    apart = augment(images[order], order, EpochDraws(16, seed=3, epoch=2), recipe)
    torch.testing.assert_close(apart, together[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["flip", "affine", "released"])
def test_epochs_seeds_and_samples_differ(name):
    images, samples, recipe = (
        random_images(1).expand(32, -1, -1, -1),
        torch.arange(32),
        RECIPES[name],
    )
    first = augment(images, samples, EpochDraws(32, seed=0, epoch=0), recipe)
    again = augment(images, samples, EpochDraws(32, seed=0, epoch=0), recipe)
    assert torch.equal(first, again)
    for seed, epoch in ((0, 1), (1, 0)):
        other = augment(images, samples, EpochDraws(32, seed=seed, epoch=epoch), recipe)
        assert not torch.allclose(other, first)
    assert not torch.allclose(first, first[:1].expand_as(first))


def test_none_is_plain_normalisation():
    images = random_images(4)
    wanted = v2.functional.normalize(images.float() / 255, list(MEAN), list(STANDARD_DEVIATION))
    result = augment(images, torch.arange(4), EpochDraws(4, 0, 0), RECIPES["none"])
    torch.testing.assert_close(result, wanted)
    torch.testing.assert_close(normalise(images), wanted)
    assert result.dtype == torch.float32


@pytest.mark.parametrize("name", ["flip", "affine"])
def test_half_of_the_images_are_mirrored(name):
    """A left half that is bright stays on its side under small rotations, unless mirrored."""
    number = 2000
    images = torch.zeros(number, 3, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255
    views = augment(images, torch.arange(number), EpochDraws(number, 5, 1), RECIPES[name])
    is_mirrored = views[..., :8].mean(dim=(1, 2, 3)) < views[..., 8:].mean(dim=(1, 2, 3))
    # Four standard deviations of a fair coin.
    assert abs(is_mirrored.float().mean() - 0.5) < 4 * 0.5 / number**0.5
    assert not torch.equal(is_mirrored[: number // 2], is_mirrored[number // 2 :])


def test_affine_with_middle_draws_is_the_identity_or_the_mirror():
    images = random_images(3)
    plain = normalise(images)
    still = augment(images, torch.arange(3), fixed_draws(3, c2=0.9), RECIPES["affine"])
    torch.testing.assert_close(still, plain, rtol=0, atol=1e-4)
    mirrored = augment(images, torch.arange(3), fixed_draws(3, c2=0.1), RECIPES["affine"])
    torch.testing.assert_close(mirrored, plain.flip(3), rtol=0, atol=1e-4)


def test_affine_without_extent_is_the_identity_whatever_the_draws():
    images, recipe = random_images(8), Recipe(flip_probability=0.5, rotation=1e-12)
    views = augment(images, torch.arange(8), EpochDraws(8, 0, 0), recipe)
    is_mirrored = EpochDraws(8, 0, 0).uniform[:, 2] < 0.5
    plain = normalise(images)
    wanted = torch.where(is_mirrored.view(-1, 1, 1, 1), plain.flip(3), plain)
    assert 0 < is_mirrored.sum() < 8
    torch.testing.assert_close(views, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("column", "axis"), [("c5", 3), ("c6", 2)])
@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_shift_moves_by_its_share_of_the_side(column, axis, draw):
    """4 of 32 pixels, along one axis; the edge is repeated, and nothing comes round."""
    images, recipe = random_images(2), Recipe(shift=0.125)
    shifted = augment(images, torch.arange(2), fixed_draws(2, **{column: draw}), recipe)
    step = 4 if draw == 1.0 else -4
    positions = (torch.arange(SIDE) + step).clamp(0, SIDE - 1)
    wanted = normalise(images).index_select(axis, positions)
    torch.testing.assert_close(shifted, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("draw", [0.0, 0.75, 1.0])
def test_rotation_and_size_agree_with_torchvision(draw):
    images = random_images(2, side=33)
    smooth = v2.functional.gaussian_blur(images.float(), [9, 9], [3.0, 3.0]).to(torch.uint8)
    recipe = Recipe(rotation=10.0, scale=0.1)
    views = augment(smooth, torch.arange(2), fixed_draws(2, c3=draw, c4=draw), recipe)
    signed = 2 * draw - 1
    wanted = v2.functional.affine(
        normalise(smooth),
        # torchvision counts clockwise; a larger `size` draw zooms in for both.
        angle=-10.0 * signed,
        translate=[0, 0],
        scale=1 + 0.1 * signed,
        shear=[0.0, 0.0],
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    inner = slice(5, -5)  # the corners are filled in different ways
    difference = (views - wanted)[..., inner, inner].abs()
    assert difference.max() < 0.02
    # Without the change the pictures differ far more: the comparison can fail.
    assert (normalise(smooth) - wanted)[..., inner, inner].abs().max() > 0.1


def test_noise_has_the_stated_variance_and_share():
    number, recipe = 400, Recipe(noise_probability=0.5, noise_variance=30.0)
    images = torch.full((number, 3, 16, 16), 128, dtype=torch.uint8)
    noisy = denormalised(augment(images, torch.arange(number), EpochDraws(number, 0, 0), recipe))
    deviations = (noisy - 128).flatten(1).std(dim=1)
    is_noisy = deviations > 1
    assert abs(is_noisy.float().mean() - 0.5) < 4 * 0.5 / number**0.5
    assert (noisy[~is_noisy] - 128).abs().max() < 1e-3
    assert abs((noisy[is_noisy] - 128).var() / 30 - 1) < 0.05
    assert (deviations[is_noisy] / 30**0.5 - 1).abs().max() < 0.3
    # Grey levels stay grey levels, and no two samples get the same noise.
    black = augment(images * 0, torch.arange(number), EpochDraws(number, 0, 0), recipe)
    assert denormalised(black).min() > -1e-3
    assert len(torch.unique(noisy[is_noisy].flatten(1), dim=0)) == is_noisy.sum()


def test_erased_rectangles_lie_in_the_stated_range():
    number, side = 600, 64
    recipe = Recipe(erase_probability=0.5, erase_area=(0.02, 0.3))
    images = torch.full((number, 3, side, side), 255, dtype=torch.uint8)
    views = augment(images, torch.arange(number), EpochDraws(number, 0, 0), recipe)
    is_erased = (views == 0).all(dim=1).numpy()
    assert np.array_equal(is_erased, (views == 0).any(dim=1).numpy())
    shares, ratios, tops = [], [], []
    for hole in is_erased[is_erased.any(axis=(1, 2))]:
        rows, columns = hole.any(axis=1), hole.any(axis=0)
        tall, wide = rows.sum(), columns.sum()
        assert np.array_equal(hole, np.outer(rows, columns))  # one whole rectangle
        assert np.flatnonzero(rows)[-1] - np.flatnonzero(rows)[0] + 1 == tall
        assert np.flatnonzero(columns)[-1] - np.flatnonzero(columns)[0] + 1 == wide
        shares.append(hole.mean())
        ratios.append(tall / wide)
        tops.append(np.flatnonzero(rows)[0])
    assert abs(len(shares) / number - 0.5) < 4 * 0.5 / number**0.5
    # A rectangle covers up to half a pixel more or less on each side.
    assert 0.01 < min(shares) < 0.05
    assert 0.25 < max(shares) < 0.33
    assert 0.2 < min(ratios) < 0.5
    assert 2.0 < max(ratios) < 5.0
    assert len(set(tops)) > 20


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match="unknown augmentation 'flips'; known are none, flip"):
        named_recipe("flips")


def test_recipes_are_those_that_are_told():
    """Pinned, as a recipe is compared with itself everywhere else."""
    small = Recipe(flip_probability=0.5, rotation=10.0, scale=0.1, shift=0.06)
    released = Recipe(
        noise_probability=0.5,
        noise_variance=30.0,
        flip_probability=0.5,
        erase_probability=0.5,
        erase_area=(0.02, 0.3),
    )
    assert RECIPES["none"] == Recipe()
    assert RECIPES["flip"] == Recipe(flip_probability=0.5)
    assert RECIPES["affine"] == small
    assert RECIPES["released"] == released


def test_affine_views_are_interpolated():
    """Half a pixel aside, each pixel is the mean of two neighbours."""
    images, recipe = random_images(2), Recipe(shift=0.5 / SIDE)
    shifted = augment(images, torch.arange(2), fixed_draws(2, c5=1.0), recipe)
    plain = normalise(images)
    wanted = (plain[..., :-1] + plain[..., 1:]) / 2
    torch.testing.assert_close(shifted[..., :-1], wanted, rtol=0, atol=1e-4)


def test_channel_means_are_the_released_ones_red_first():
    assert MEAN == (0.577, 0.4494, 0.4001)
    assert STANDARD_DEVIATION == (0.2628, 0.2395, 0.2383)
