"""The transformer obeys the contract of backbones, and looks at visible patches only."""

import numpy as np
import pytest
import torch

from nlalib.networks.face_transformer import position_embedding
from nlalib.networks.vision_transformer import VIT_SIZES, build_vit


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_vit(7).eval()


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3, 48, 48))).float()


@torch.no_grad()
def test_representation_is_consistent(model, images):
    logits, features, feature_map = model(images)
    assert logits.shape == (3, 7)
    assert model.fc.in_features == features.shape[1] == 128
    assert feature_map.shape == (3, 128, 8, 8)
    torch.testing.assert_close(feature_map.mean(dim=(2, 3)), features)
    torch.testing.assert_close(features @ model.fc.weight.T + model.fc.bias, logits)


@torch.no_grad()
def test_feature_map_keeps_rows_and_columns(model, images):
    """The token of patch (row, column) is the one that the map holds there."""
    tokens = model.tokens(images)
    feature_map = model(images).feature_map
    for row, column in ((0, 0), (0, 7), (2, 5), (7, 3)):
        assert torch.equal(feature_map[:, :, row, column], tokens[:, row * 8 + column])


@torch.no_grad()
def test_all_patches_visible_is_the_whole_image(model, images):
    everything = torch.arange(64).expand(3, -1)
    assert torch.equal(model.tokens(images, everything), model.tokens(images))


@torch.no_grad()
def test_hidden_pixels_change_nothing_and_visible_ones_do(model, images):
    visible = torch.tensor([[0, 9, 63]]).expand(3, -1)
    before = model.tokens(images, visible)
    assert before.shape == (3, 3, 128)
    changed = images.clone()
    changed[:, :, :6, 6:] += 5.0  # patches 1 to 7 of the first row, all hidden
    assert torch.equal(model.tokens(changed, visible), before)
    changed[:, :, 6:12, 6:12] += 5.0  # patch 9
    assert not torch.allclose(model.tokens(changed, visible), before, atol=1e-2)


def test_position_embedding_is_fixed_and_tells_all_places_apart(model):
    assert not model.pos_embed.requires_grad
    embedding = position_embedding((8, 8), 128)[0]
    assert torch.equal(model.pos_embed[0], embedding)
    distances = torch.cdist(embedding, embedding) + 100 * torch.eye(64)
    assert distances.min() > 0.1
    # Neighbours are nearer to each other than the two ends of a row.
    assert distances[0, 1] < distances[0, 7]


def test_every_learned_weight_gets_a_gradient(model, images):
    loss = model(images).logits.logsumexp(dim=1).sum()
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(learned.values()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_small_size_is_that_of_the_literature():
    """ViT-S/16 has about 22 million parameters (Touvron et al. 2021, table 1)."""
    with torch.device("meta"):
        small = torch.nn.TransformerEncoderLayer(384, 6, 4 * 384)
    per_block = sum(parameter.numel() for parameter in small.parameters())
    assert VIT_SIZES["vit_small_patch16"]["depth"] * per_block == pytest.approx(21.3e6, rel=0.01)
    model = build_vit(7, "vit_small_patch16")
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    assert blocks == 12 * per_block
    assert model.patch_embed.num_patches == 196


def test_an_unknown_size_lists_the_known():
    with pytest.raises(ValueError, match="unknown size 'vit_huge'; known are vit_tiny_patch6"):
        build_vit(7, "vit_huge")
