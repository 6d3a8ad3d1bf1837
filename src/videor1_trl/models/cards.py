"""The model card of a trained model: what it was trained from, and how it is asked about a video."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from huggingface_hub import ModelCard
from transformers import Trainer
from trl.trainer.utils import get_config_model_id

from .families import ModelOrPath


PAPER = {  # as TRL writes it into a model's card
    "title": "Video-R1: Reinforcing Video Reasoning in MLLMs",
    "id": "2503.21776",
    # docstyle-ignore
    "citation": textwrap.dedent("""\
        @inproceedings{feng2025videor1,
            title        = {{Video-R1: Reinforcing Video Reasoning in MLLMs}},
            author       = {Kaituo Feng and Kaixiong Gong and Bohao Li and Zonghao Guo and Yibing Wang and Tianshuo Peng and Junfei Wu and Xiaoying Zhang and Benyou Wang and Xiangyu Yue},
            year         = 2025,
            booktitle    = {Advances in Neural Information Processing Systems},
            eprint       = {arXiv:2503.21776},
        }"""),
}
_STARTED = "This model is a fine-tuned version of"
_QUICK_START = """## Quick start

```python
from videor1_trl import make_prompt
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings

backend = make_backend("transformers", "{model}", GenerationSettings())
prompt = make_prompt("Which way does it turn?", "multiple choice", ["A. left", "B. right"])
for completion in backend.generate([GenerationRequest("1", prompt, videos=["clip.mp4"])]):
    print(completion.text or completion.error)
```

"""


def default_folder(model: ModelOrPath, method: str) -> str:
    """The output folder of a run that names none: the model's name and the method's."""
    name = model if isinstance(model, str) else get_config_model_id(model.config)
    return f"{name.split('/')[-1]}-{method}"


def complete_card(trainer: Trainer) -> None:
    """
    Mends the card that TRL has written into the output folder: a model that was loaded from a folder is no "fine-tuned version of
    None", and the example asks about a video.
    """
    path = Path(trainer.args.output_dir or "") / "README.md"
    if not trainer.is_world_process_zero() or not path.exists():
        return
    config = trainer.accelerator.unwrap_model(trainer.model).config
    card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    base = hub_base(get_config_model_id(config))
    if base is None:
        started = "This model was trained from one that was built in memory"
    elif Path(base).is_dir():
        started = f"{_STARTED} a model in a local folder, `{Path(base).name}`"
    else:
        started = f"{_STARTED} [{base}](https://huggingface.co/{base})"
        card.data["base_model"] = base
    text = re.sub(rf"{_STARTED} \[.*?\]\(.*?\)", lambda _: started, card.text, count=1)
    model = trainer.hub_model_id or trainer.args.output_dir
    quick_start = _QUICK_START.replace("{model}", str(model))
    text = re.sub(
        r"## Quick start.*?(?=^## Training procedure)", lambda _: quick_start, text, flags=re.DOTALL | re.MULTILINE
    )
    card.text = text
    card.save(path)


def hub_base(name: str | None) -> str | None:
    """
    The Hub model that one was trained from: itself, or for a folder what the card in it names, folder by folder; the last folder
    where none does; `None` for a model without a name.
    """
    seen: list[str] = []
    while name and name not in seen:
        seen.append(name)
        path = Path(name) / "README.md"
        found = ModelCard.load(path, ignore_metadata_errors=True).data.get("base_model") if path.exists() else None
        name = found if isinstance(found, str) else None
    return seen[-1] if seen else None
