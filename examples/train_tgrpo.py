"""
Trains a video-language model with T-GRPO (or plain GRPO) on Video-R1's record format.

    # the embedded default: data, model and cold start made on the spot; two CPU cores, at most 8 minutes
    accelerate launch examples/train_tgrpo.py --config examples/configs/toy.yaml

    # your own model and records: every field of the YAML file is a flag too, and flags win
    accelerate launch examples/train_tgrpo.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \
        --dataset records.json --data_root /data --output_dir runs/mine --bf16

    # what a run will do and need, and what would stop it, before it starts
    accelerate launch examples/train_tgrpo.py --config examples/configs/video_r1_7b.yaml --dry_run

    # the paper's run (4 GPUs, ZeRO-3)
    accelerate launch examples/train_tgrpo.py --config examples/configs/video_r1_7b.yaml

The last line says where the model was saved: `Saved to runs/toy.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
# ///

import importlib
import os
import sys
from dataclasses import dataclass, field

from dry_run import DryRunArguments, end_with_plan
from run_data import (
    DataArguments,
    check_arguments,
    check_files,
    check_model,
    expected_errors,
    load_both,
    model_init_kwargs,
    stop,
    train,
)


@dataclass
class ScriptArguments(DataArguments):
    """What is trained on, and against what; the rest is in TGRPOConfig and trl's ModelConfig."""

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Records in Video-R1's format: a JSON or JSON Lines file, a folder or a Hub id (both with "
            "data_files); or 'toy': a tiny model, its videos and its questions are made under output_dir first."
        },
    )
    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy_reward", "format_reward"],
        metadata={"help": "Names from videor1_trl (accuracy_reward, format_reward, length_reward) or dotted paths."},
    )
    plain_grpo: bool = field(
        default=False, metadata={"help": "Plain GRPO on video: no contrast rollouts and no temporal reward."}
    )
    contrast: str = field(
        default="shuffle_frames",
        metadata={
            "help": "What the contrast rollouts see.",
            "choices": ["shuffle_frames", "reverse_frames", "freeze_frame"],
        },
    )
    toy_size: int = field(
        default=400, metadata={"help": "With dataset=toy: questions of the cold start and of T-GRPO, each (>= 32)."}
    )
    toy_target: float = field(
        default=0.5,
        metadata={
            "help": "With dataset=toy: share of order questions right at which the cold start stops, in [0, 1)."
        },
    )


def make_parser():
    from trl import ModelConfig, TrlParser

    from videor1_trl import TGRPOConfig

    dataclasses = (ScriptArguments, DryRunArguments, TGRPOConfig, ModelConfig)
    parser = TrlParser(dataclasses, description=__doc__.strip().splitlines()[0])
    parser.error = stop  # without the usage, which is hundreds of lines
    return parser


def find_reward(name: str):
    """The function of that name in videor1_trl, or at a dotted path below the working directory."""
    import videor1_trl

    module, _, function = name.rpartition(".")
    if not module and name.endswith("_reward") and hasattr(videor1_trl, name):
        return getattr(videor1_trl, name)
    if not module:
        raise ValueError(
            f"reward_funcs ({name!r}) is neither accuracy_reward, format_reward or length_reward nor a dotted path such "
            "as my_rewards.my_reward."
        )
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)
    except AttributeError as error:
        raise ValueError(f"reward_funcs ({name!r}): {error}.") from error


def main():
    parser = make_parser()
    with expected_errors():
        script_args, dry_run, args, model_args = parser.parse_args_and_config()
    check_arguments(script_args, args.resume_from_checkpoint)
    if dry_run.dry_run and script_args.dataset == "toy":
        stop(
            "--dry_run trains nothing, and the toy's model comes out of a cold start. Run it once, then plan with "
            "--dataset runs/toy/data/train.json --model_name_or_path runs/toy/cold_start."
        )

    toy = None
    if script_args.dataset == "toy":
        import toy_report

        with expected_errors():
            toy = toy_report.prepare(args, script_args.toy_size, script_args.toy_target)
        script_args.dataset, model_args.model_name_or_path = str(toy.train_file), str(toy.model_folder)

    with expected_errors():
        train_dataset, eval_dataset = load_both(script_args)
    if dry_run.dry_run:
        with expected_errors():
            for name in script_args.reward_funcs:
                find_reward(name)
            end_with_plan(
                dry_run,
                args,
                model_args,
                train_dataset,
                eval_dataset,
                media=script_args.check_media,
                drop_bad_media=script_args.drop_bad_media,
                contrast=not script_args.plain_grpo,
            )
    check_model(model_args, args, [each for each in (train_dataset, eval_dataset) if each is not None])
    with expected_errors():
        train_dataset = check_files(train_dataset, script_args, args)
        eval_dataset = eval_dataset and check_files(eval_dataset, script_args, args)
        trainer = make_trainer(script_args, args, model_args, train_dataset, eval_dataset)
    if toy:
        toy_report.show_progress(trainer)
    train(trainer, args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset)
    if toy and trainer.accelerator.is_main_process:
        toy_report.finish(toy, trainer.state.log_history, plain_grpo=script_args.plain_grpo)
    trainer.accelerator.print(f"Saved to {args.output_dir}.")
    trainer.end()


def make_trainer(script_args, args, model_args, train_dataset, eval_dataset):
    from trl import get_peft_config, get_quantization_config

    import videor1_trl

    args.model_init_kwargs = model_init_kwargs(model_args, args)
    return videor1_trl.TGRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=[find_reward(name) for name in script_args.reward_funcs],
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        temporal_reward_func=None if script_args.plain_grpo else videor1_trl.temporal_reward,
        contrast=getattr(videor1_trl, script_args.contrast),
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )


if __name__ == "__main__":
    main()
