"""Patches embedded by one matrix product give what the convolution gives, through all that wraps a model."""

import copy
import pickle

import pytest
import torch
from helpers import row, trainer
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from videor1_trl.models.patches import PatchProduct, embed_patches_by_products


def both(**options):
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 20, (2, 14, 14), stride=(2, 14, 14), **options)
    product = copy.deepcopy(conv)
    assert embed_patches_by_products(nn.Sequential(product)) == 1
    return conv, product


def close(one, other):
    """Sums of 1,176 products are rounded otherwise by every kernel: 1.3e-6 was seen."""
    return torch.allclose(one, other, rtol=0, atol=1e-5 * max(1.0, float(other.detach().abs().max())))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_outputs_and_gradients_are_those_of_the_convolution(bias, checkpointed):
    conv, product = both(bias=bias)
    patches, found = torch.rand(30, 3, 2, 14, 14), []
    for module in (conv, product):
        given = patches.clone().requires_grad_()
        out = checkpoint(module, given, use_reentrant=False) if checkpointed else module(given)
        out.square().mean().backward()
        found.append([out, given.grad, *(each.grad for each in module.parameters())])
    assert type(product) is PatchProduct and found[0][0].shape == found[1][0].shape == (30, 20, 1, 1, 1)
    assert all(map(close, found[1], found[0]))


def test_a_larger_input_goes_through_the_convolution():
    conv, product = both()
    clip = torch.rand(1, 3, 4, 28, 28)
    assert torch.equal(product(clip), conv(clip))
    assert product(clip).shape == (1, 20, 2, 2, 2)


def test_names_shapes_and_values_of_the_weights_stay_and_it_can_be_copied_and_pickled():
    conv, product = both()
    ours, theirs = product.state_dict(), conv.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    patch = torch.rand(2, 3, 2, 14, 14)
    for made in (copy.deepcopy(product), pickle.loads(pickle.dumps(product))):
        product_before = product(patch)
        with torch.no_grad():
            made.weight.zero_()
        assert torch.equal(product(patch), product_before)  # nothing of the copy is the original's
        assert float(made(patch).detach().abs().max()) == float(made.bias.detach().abs().max())


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv3d(3, 4, 2, stride=1),
        nn.Conv3d(3, 4, 2, stride=2, padding=1),
        nn.Conv3d(3, 4, 2, stride=2, dilation=2),
        nn.Conv3d(4, 4, 2, stride=2, groups=2),
        nn.Conv2d(3, 4, 2, stride=2),
        type("Quantized", (nn.Conv3d,), {})(3, 4, 2, stride=2),
    ],
)
def test_what_is_no_such_product_stays_as_it_is(other):
    kind = type(other)
    assert embed_patches_by_products(nn.Sequential(other)) == 0
    assert type(other) is kind


def test_an_adapter_on_the_embedding_trains_as_on_the_convolution():
    conv, product = both()
    found = []
    for module in (conv, product):
        torch.manual_seed(1)
        config = LoraConfig(target_modules=["proj"], r=2, init_lora_weights=False)
        adapted = get_peft_model(nn.ModuleDict({"proj": module}), config)
        layer = adapted.base_model.model["proj"]
        torch.manual_seed(2)
        out = layer(torch.rand(5, 3, 2, 14, 14))
        out.square().mean().backward()
        found.append([out, *(each.grad for each in adapted.parameters() if each.requires_grad)])
    assert len(found[0]) == 3 and all(map(close, found[1], found[0]))


def test_autocast_computes_it_in_the_lower_precision():
    conv, product = both()
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (module(torch.ones(1, 3, 2, 14, 14) / 7) for module in (product, conv))
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.allclose(ours.float(), theirs.float(), atol=0.02)


def test_a_trainers_model_embeds_by_products(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, beta=0.04)
    for model in (tgrpo.model, tgrpo.ref_model):
        assert [type(each) for each in model.modules() if isinstance(each, nn.Conv3d)] == [PatchProduct]
