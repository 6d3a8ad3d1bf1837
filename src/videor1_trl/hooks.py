"""The methods of TRL's trainers that are overridden here, and the check that the installed TRL still has them."""

import inspect

import trl
from trl import GRPOTrainer


# The methods of TRL's trainers that those of this package override, with the parameters they had in TRL 1.16
# (canary: tests/test_hooks.py)
SAVING_HOOKS = {  # of both, in `models/saving.py`
    "train": "self resume_from_checkpoint trial ignore_keys_for_eval",
    "save_model": "self output_dir _internal_call",
    "create_model_card": "self model_name dataset_name tags",
    "_get_grad_norm": "self model grad_norm",
    "_save_checkpoint": "self model trial",
    "_load_from_checkpoint": "self resume_from_checkpoint model",
    "_load_best_model": "self",
}
SFT_HOOKS = {**SAVING_HOOKS, "compute_loss": "self model inputs return_outputs num_items_in_batch"}
HOOKS = {
    **SAVING_HOOKS,
    "_set_signature_columns_if_needed": "self",
    "get_train_dataloader": "self",
    "get_eval_dataloader": "self eval_dataset",
    "_prepare_inputs": "self generation_batch",
    "_generate_and_score_completions": "self inputs",
    "_tokenize_prompts": "self prompts",
    "_generate_single_turn": "self prompt_ids images multimodal_fields num_generations has_tool_images",
    "_calculate_rewards": "self inputs prompts completions completion_ids_list",
    "_get_per_token_logps_and_entropies": "self model input_ids attention_mask logits_to_keep batch_size "
    "compute_entropy compute_aux_loss pixel_values image_grid_thw num_images pixel_attention_mask spatial_shapes "
    "num_tiles image_sizes token_type_ids mm_token_type_ids image_position_ids",
    "_compute_loss": "self model inputs",
    "log": "self logs start_time",
    "_get_train_sampler": "self dataset",
    "_get_eval_sampler": "self eval_dataset",
}


def check_parent(parent: type = GRPOTrainer, hooks: dict[str, str] = HOOKS) -> None:
    """
    Raises:
        `ImportError`: a method of the installed `parent` differs from the one overridden here.
    """
    for name, expected in hooks.items():
        method = getattr(parent, name, None)
        found = " ".join(inspect.signature(method).parameters) if method else "nothing"
        if found != expected:
            raise ImportError(
                f"videor1_trl overrides {parent.__name__}.{name}({expected.replace(' ', ', ')}), but TRL "
                f"{trl.__version__} has {found.replace(' ', ', ')}. Install a tested version: pip install "
                "'trl>=1.16,<1.17'."
            )
