"""
Asks a video-language model one question about a video or images, and prints its answer as it comes.

    python examples/ask.py --model_name_or_path Video-R1/Video-R1-7B --video clip.mp4 --question "Which way does it turn?" \
        --options "A. left" "B. right"

    # does the answer need the order of the frames? The same question on shuffled frames, and a picture of both
    python examples/ask.py --model_name_or_path runs/toy --video runs/toy/data/videos/held_out_00001.mp4 \
        --video_max_pixels 784 --question "Which colour is first?" --options "A. red" "B. green" "C. blue" "D. yellow" \
        "E. white" "F. purple" --contrast --show_frames frames.png

One GPU with room for the model (7 B: 20 GB), or a CPU for a small one; seconds. The last line is the extracted answer,
`answer: B`, or one such line for each kind of frames.
"""

# /// script
# dependencies = ["videor1_trl"]
# ///

from videor1_trl.scripts.ask import main
from videor1_trl.scripts.messages import run_command


if __name__ == "__main__":
    run_command(main)
