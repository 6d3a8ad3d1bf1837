"""
Trains a video-language model on rationales and answers: the supervised cold start of Video-R1.

    # the rationales of `make demo`, on its toy model before it learned anything; two CPU cores, a minute
    accelerate launch examples/train_sft.py --config examples/configs/toy_sft.yaml

    # your own model and records with `process` (see generate_cot.py): every field of the YAML file is a flag too
    accelerate launch examples/train_sft.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \\
        --dataset records.json --data_root /data --output_dir runs/cold_start --bf16

    # the paper's cold start (4 GPUs, ZeRO-2), and what it will do and need before it starts
    accelerate launch --use_deepspeed --zero_stage 2 --mixed_precision bf16 --num_processes 4 \\
        examples/train_sft.py --config examples/configs/video_r1_7b_sft.yaml
    accelerate launch examples/train_sft.py --config examples/configs/video_r1_7b_sft.yaml --dry_run

The last line says where the model was saved: `Saved to runs/cold_start.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
# ///

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


def make_parser():
    from trl import ModelConfig, TrlParser

    from videor1_trl import VideoSFTConfig

    dataclasses = (DataArguments, DryRunArguments, VideoSFTConfig, ModelConfig)
    parser = TrlParser(dataclasses, description=__doc__.strip().splitlines()[0])
    parser.error = stop  # without the usage, which is hundreds of lines
    return parser


def main():
    parser = make_parser()
    with expected_errors():
        data_args, dry_run, args, model_args = parser.parse_args_and_config()
    check_arguments(data_args, args.resume_from_checkpoint)

    from trl import get_peft_config, get_quantization_config

    from videor1_trl import VideoSFTTrainer
    from videor1_trl.completions import check_completions

    with expected_errors():
        train_dataset, eval_dataset = load_both(data_args)
        check_completions(train_dataset, eval_dataset)
    if dry_run.dry_run:
        with expected_errors():
            end_with_plan(
                dry_run,
                args,
                model_args,
                train_dataset,
                eval_dataset,
                media=data_args.check_media,
                drop_bad_media=data_args.drop_bad_media,
            )
    check_model(model_args, args, [each for each in (train_dataset, eval_dataset) if each is not None])
    with expected_errors():
        train_dataset = check_files(train_dataset, data_args, args)
        eval_dataset = eval_dataset and check_files(eval_dataset, data_args, args)
        args.model_init_kwargs = model_init_kwargs(model_args, args)
        trainer = VideoSFTTrainer(
            model_args.model_name_or_path,
            args,
            train_dataset,
            eval_dataset,
            quantization_config=get_quantization_config(model_args),
            peft_config=get_peft_config(model_args),
        )
    train(trainer, args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=data_args.dataset)
    trainer.accelerator.print(f"Saved to {args.output_dir}.")
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
