"""
Reads the videos of a training ahead and keeps their frames, sampled and resized, in media_cache_dir: the training's flags.

Which training: as of `videor1 plan`. It may be stopped and started again: what is kept is not read again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .messages import expected_errors, run_command, stop, stop_process
from .plan import HELP, choose_training
from .preflight import check_model
from .training import start


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from .training import TrainingRun


def main() -> None:
    asked = [argument for argument in sys.argv[1:] if argument in HELP]
    with expected_errors():
        script, arguments = choose_training([argument for argument in sys.argv[1:] if argument not in HELP])
    parser = script.make_parser()
    parser.description = __doc__
    sys.argv[1:] = [*arguments, *asked]
    run = start(parser)
    if run.args.media_cache_dir is None:
        stop("--media_cache_dir is not set: give the folder in which the frames are to be kept.")
    if run.script_args.dataset == "toy":
        stop("--dataset toy makes its videos with the run: there is nothing to read ahead.")
    fill(run)


def fill(run: TrainingRun) -> None:
    """Reads and keeps; says at the end how much, and which videos cannot be read."""
    import videor1_trl
    from videor1_trl.data.batch import BatchLoader
    from videor1_trl.data.filling import fill_frame_cache

    from .progress import begin

    begin()
    processor = check_model(run.model_args, run.args)
    plain = getattr(run.script_args, "plain_grpo", True)
    contrast = None if plain else getattr(videor1_trl, run.script_args.contrast)
    with expected_errors():
        loader = BatchLoader.of(run.args, processor, videor1_trl.load_video, contrast)
        parts = [each for each in run.records() if each is not None]
        kept, bad = fill_frame_cache(loader, parts, run.args.video_num_workers)
    print(f"{kept:,} videos are kept in {run.args.media_cache_dir}.")
    for path, reason in list(bad.items())[:10]:
        print(f"problem: {path}: {reason}")
    if bad:
        stop_process(f"{len(bad):,} videos cannot be read. Restore them, or train with --drop_bad_media.")


if __name__ == "__main__":
    run_command(main)
