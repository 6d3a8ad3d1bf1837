"""The order of an epoch follows from seed and epoch alone, and is that of an uninterrupted run."""

import pytest
from trl.trainer.utils import RepeatSampler

from videor1_trl.data.sampling import EpochSampler


def sampler(**settings):
    return RepeatSampler(list(range(17)), mini_repeat_count=2, batch_size=3, repeat_count=2, **settings)


@pytest.mark.parametrize("seed", [0, 7])
def test_epochs_have_the_orders_that_trl_gives_them_in_a_row(seed):
    theirs = sampler(seed=seed)
    expected = [list(theirs) for _ in range(4)]
    assert expected[0] != expected[1]
    ours = [list(EpochSampler(sampler(seed=seed), lambda epoch=epoch: epoch)) for epoch in range(4)]
    assert ours == expected
    again = EpochSampler(sampler(seed=seed), lambda: 2)
    assert list(again) == list(again) == expected[2]
    assert len(again) == len(theirs) == len(expected[0])


def test_what_is_not_shuffled_stays_in_its_order():
    assert list(EpochSampler(sampler(shuffle=False), lambda: 3)) == list(sampler(shuffle=False))
