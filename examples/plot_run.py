"""
Draws the paper's curves (accuracy reward, temporal reward, completion length, gap) of one or several runs; the file's suffix says as what.

    # a folder that a run wrote (its newest checkpoint is read), a trainer_state.json, or a log_history as JSON (Lines)
    python examples/plot_run.py --runs runs/video_r1_7b
    python examples/plot_run.py --runs runs/tgrpo runs/grpo --labels T-GRPO GRPO --output curves.png

    # a centred mean over 21 logged points instead of the exponential average; other metrics, one panel each
    python examples/plot_run.py --runs runs/tgrpo --smoothing mean --window 21 --metrics reward kl temporal/effect

One CPU core, seconds. A run leaves its log in its checkpoints (`save_strategy`). Metrics that no run has logged are left
out, and said to be. The last line says where the picture is: `Saved to curves.png.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
#
# [tool.uv.sources]
# videor1_trl = { path = ".." }
# ///

from videor1_trl.scripts.messages import run_command
from videor1_trl.scripts.plot_run import main


if __name__ == "__main__":
    run_command(main)
