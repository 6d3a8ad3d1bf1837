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

import contextlib
import importlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from dry_run import DryRunArguments, end_with_plan


@dataclass
class ScriptArguments:
    """What is trained on, and against what; the rest is in TGRPOConfig and trl's ModelConfig."""

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Records in Video-R1's format: a JSON or JSON Lines file, a folder or a Hub id (both with "
            "data_files); or 'toy': a tiny model, its videos and its questions are made under output_dir first."
        },
    )
    data_files: list[str] | None = field(
        default=None,
        metadata={"help": "Files of records inside the folder or Hub dataset, such as Video-R1-260k.json."},
    )
    data_root: str | None = field(
        default=None,
        metadata={"help": "Folder that the records' paths are relative to. None: the records' own folder."},
    )
    dataset_split: str | None = field(
        default=None, metadata={"help": "Split of a Hub dataset, slices such as train[:1000] included. None: train."}
    )
    eval_dataset: str | None = field(
        default=None, metadata={"help": "A JSON or JSON Lines file for evaluation during training (eval_strategy)."}
    )
    check_media: str = field(
        default="first_frame",
        metadata={
            "help": "What is read of every video and image before training: its first frame, all frames that training "
            "samples, or nothing.",
            "choices": ["first_frame", "sampled_frames", "off"],
        },
    )
    drop_bad_media: bool = field(
        default=False, metadata={"help": "Leave rows with missing or unreadable media out, instead of ending the run."}
    )
    drop_bad_records: bool = field(
        default=False, metadata={"help": "Leave malformed records out (logged), instead of ending the run."}
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


def stop(message: str):
    """Ends the run: one message from the main process, no traceback."""
    raise SystemExit(f"train_tgrpo.py: {message}" if int(os.environ.get("RANK", "0")) == 0 else 1)


@contextlib.contextmanager
def expected_errors(what: str = ""):
    """Ends the run with the message alone where arguments, data or model do not fit."""
    try:
        yield
    except OSError as error:  # the messages of the Hub's client go on for pages
        stop(what + (str(error).strip().splitlines() or [type(error).__name__])[0])
    except (ImportError, NotImplementedError, TypeError, ValueError, yaml.YAMLError) as error:
        stop(what + str(error))


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


def load_records(script_args, source: str, *, hub: bool = True):
    from videor1_trl import load_video_r1

    hub = hub and not Path(source).is_file()  # a file of one's own may replace the Hub data set of a recipe
    return load_video_r1(
        source,
        script_args.data_root,
        script_args.dataset_split if hub else None,
        data_files=script_args.data_files if hub else None,
        on_bad_record="drop" if script_args.drop_bad_records else "raise",
    )


def check_model(model_args, args, datasets) -> None:
    """Refuses a model that is not there, or takes no videos where the data has some, before any weights are read."""
    from transformers import AutoProcessor

    from videor1_trl.families import takes_videos

    name = model_args.model_name_or_path
    if name is None:
        stop("model_name_or_path is not set: give a Hub id or a folder with a model and its processor.")
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1):
        stop(f"model_name_or_path ({name}) is not a folder. Give one with a model and its processor, or a Hub id.")
    with expected_errors(f"model_name_or_path ({name}): "):
        processor = AutoProcessor.from_pretrained(
            name, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
    num_videos = sum(len(dataset) - dataset.data.column("video").null_count for dataset in datasets)
    if num_videos and not takes_videos(processor):
        stop(
            f"{num_videos} rows have a video, but the {type(processor).__name__} of {name} takes none. Use a "
            "video-language model such as Qwen2.5-VL."
        )


def check_files(dataset, script_args, args):
    """The dataset, without the rows whose media cannot be read; ends the run for them unless they may be dropped."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from videor1_trl import check_media

    if script_args.check_media == "off":
        return dataset
    sampling = {}
    if script_args.check_media == "sampled_frames":
        sampling = args.video_settings
    found = [None]
    if PartialState().is_main_process:
        found[0] = check_media(dataset, decode=script_args.check_media, **sampling)[1]
    report = broadcast_object_list(found)[0]
    if report.ok:
        return dataset
    if not script_args.drop_bad_media:
        stop(f"{report}\nRestore these files, or leave their rows out with --drop_bad_media.")
    bad = set(report.rows)
    kept = [index for index in range(len(dataset)) if index not in bad]
    if not kept:
        stop(f"no row is left without bad media. {report}")
    return dataset.select(kept)


def main():
    parser = make_parser()
    from videor1_trl import MediaError
    from videor1_trl.batch import PromptError

    with expected_errors():
        script_args, dry_run, args, model_args = parser.parse_args_and_config()
    if script_args.dataset is None:
        stop("dataset is not set: give a JSON file of records, or 'toy'.")
    resume = args.resume_from_checkpoint
    if isinstance(resume, str) and resume.lower() not in ("true", "false") and not Path(resume).is_dir():
        stop(f"resume_from_checkpoint ({resume}) is no folder.")

    if dry_run.dry_run and script_args.dataset == "toy":
        stop(
            "--dry_run trains nothing, and the toy's model comes out of a cold start. Run it once, then plan with "
            "--dataset runs/toy/data/train.json --model_name_or_path runs/toy/cold_start."
        )

    toy = None
    if script_args.dataset == "toy":
        import toy_report

        with expected_errors(), args.main_process_first(local=False, desc="toy data and cold start"):
            toy = toy_report.prepare(args.output_dir, args.seed, script_args.toy_size, script_args.toy_target)
        script_args.dataset, model_args.model_name_or_path = str(toy.train_file), str(toy.model_folder)

    with expected_errors():
        train_dataset = load_records(script_args, script_args.dataset)
        eval_dataset = script_args.eval_dataset and load_records(script_args, script_args.eval_dataset, hub=False)
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
    try:
        trainer.train(resume_from_checkpoint=resume)
    except (MediaError, PromptError) as error:  # names its record
        raise SystemExit(f"train_tgrpo.py: {error}") from error
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

    args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(args.model_init_kwargs or {}),
    }
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
