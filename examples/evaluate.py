"""
Evaluates a video-language model on a benchmark, also on frames whose order is spoiled.

    # the model of `make demo` on its held-out questions; two CPU cores, seconds
    python examples/evaluate.py --config examples/configs/toy_eval.yaml

    # Video-R1's evaluation, from an official dataset or from the authors' JSON files; one 80 GB GPU, or several
    accelerate launch examples/evaluate.py --config examples/configs/video_r1_eval.yaml \\
        --benchmark mvbench --media_root data/MVBench/video --output_dir runs/eval/mvbench
    accelerate launch examples/evaluate.py --config examples/configs/video_r1_eval.yaml \\
        --dataset data/Evaluation/eval_mvbench.json --data_root data/Evaluation --output_dir runs/eval/mvbench_json

    # how much of the score needs the order of the frames, motion, or a video at all?
    ... --control shuffled reversed single-frame text-only

Another start goes on where the last one stopped, or asks more on top, and the figures are of all answers. The last line says
where the results are: `Saved to runs/eval/mvbench.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
#
# [tool.uv.sources]
# videor1_trl = { path = ".." }
# ///

from videor1_trl.scripts.evaluate import main
from videor1_trl.scripts.messages import KEPT, run_command


if __name__ == "__main__":
    run_command(main, KEPT)
