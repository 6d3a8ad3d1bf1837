"""
Writes the rationales of a cold start: a model answers records whose answer is known; where it is right its thoughts are kept.

    # the model of `make demo` on its own training records; two CPU cores, seconds
    python examples/generate_cot.py --config examples/configs/toy_cot.yaml

    # the paper's: Qwen2.5-VL-72B-Instruct, by vLLM on 4 GPUs (extra `[vllm]`), or by any server that speaks OpenAI's API
    python examples/generate_cot.py --config examples/configs/video_r1_72b_cot.yaml
    python examples/generate_cot.py --config examples/configs/video_r1_72b_cot.yaml \\
        --backend server --base_url http://localhost:8000/v1 --concurrency 64

    # a smaller model, one process on each GPU
    accelerate launch examples/generate_cot.py --config examples/configs/video_r1_72b_cot.yaml \\
        --backend transformers --model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct --dtype bfloat16

Another start goes on where the last one stopped; with other rules it asks only for what those make necessary. The last lines
say with which flags train_sft.py trains on the records, and where they are: `Saved to runs/cot/records.jsonl.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
#
# [tool.uv.sources]
# videor1_trl = { path = ".." }
# ///

from videor1_trl.scripts.generate_cot import main
from videor1_trl.scripts.messages import KEPT, run_command


if __name__ == "__main__":
    run_command(main, KEPT)
