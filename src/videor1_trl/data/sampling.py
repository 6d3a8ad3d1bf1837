"""The order of the data: in each epoch it follows from seed and epoch alone, so that a resumed run sees what it would have seen."""

from collections.abc import Callable, Iterator

import torch
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """
    TRL's `RepeatSampler`, which goes on with one generator from epoch to epoch: a run resumed in its second epoch would begin
    with the order of the first. Uninterrupted runs have the order that TRL gives them.

    Args:
        like (`RepeatSampler`): TRL's own.
        epoch (`Callable`): gives the epoch that begins, from 0.
    """

    def __init__(self, like: RepeatSampler, epoch: Callable[[], int]):
        super().__init__(
            like.data_source, like.mini_repeat_count, like.batch_size, like.repeat_count, like.shuffle, like.seed
        )
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle and self.seed is not None:
            self.generator.manual_seed(self.seed)
            for _ in range(self._epoch()):  # the orders of the epochs before
                torch.randperm(self.num_samples, generator=self.generator)
        yield from super().__iter__()
