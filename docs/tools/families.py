"""
Runs the contract over tiny random models of all families and writes what it found into docs/families.md: `python docs/tools/families.py`.

The results stand in docs/tools/families.json, by the version of transformers, of which each run replaces those of the installed one. Names of
families run those alone. `--write` runs nothing and writes the table anew.
"""

import argparse
import importlib.metadata
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[2]
PAGE, STORED = ROOT / "docs" / "families.md", Path(__file__).with_suffix(".json")
MARKS = "<!-- families: written by docs/tools/families.py -->", "<!-- /families -->"
NAMES = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_5_omni": "Qwen2.5-Omni (thinker)",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL-MoE",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_moe": "Qwen3.5-MoE",
    "internvl": "InternVL3",
    "glm4v": "GLM-4.1V",
    "glm46v": "GLM-4.6V",
    "gemma4": "Gemma 4",
    "smolvlm": "SmolVLM2",
    "llava_onevision": "LLaVA-OneVision",
    "video_llama_3": "VideoLLaMA3",
    "perception_lm": "PerceptionLM",
    "llava_next_video": "LLaVA-NeXT-Video",
}
COLUMNS = {  # of the table, and the checks that they stand for
    "prompts": ("supported", "contrast_ids", "placeholders", "pixel_budget"),
    "rows in batches": ("rows_alone", "video_counts"),
    "two media in a prompt": ("two_videos", "two_images", "video_and_image"),
    "rollouts": ("rollouts",),
    "packed": ("packed",),
    "cold start": ("cold_start",),
    "a step, checkpointing, LoRA": ("one_step", "checkpointing", "lora"),
    "saved": ("save_load",),
}
Found = dict[str, list[str]]  # the checks of a family that do not pass: outcome and reason by their names
Results = dict[str, dict[str, Found]]  # by the version of transformers and by family


def built(family: str, folder: str) -> Any:
    """The tiny model of a family with its processor, as the tests have it."""
    from hybrids import HYBRIDS, build_hybrid
    from more_families import MORE_FAMILIES, build_family
    from tiny import build

    build_one = build_hybrid if family in HYBRIDS else build_family if family in MORE_FAMILIES else build
    return build_one(family, folder)


def all_families() -> list[str]:
    """Those that the tests can build, in the order of the table."""
    from hybrids import HYBRIDS
    from more_families import MORE_FAMILIES
    from tiny import FAMILIES

    there = {*FAMILIES, *HYBRIDS, *MORE_FAMILIES}
    return [name for name in NAMES if name in there] + sorted(there.difference(NAMES))


def of_result(result: Any) -> Found:
    """What of a [`~videor1_trl.contract.result.ContractResult`] is stored: the checks that do not pass."""
    return {
        check.name: [check.outcome, " ".join(check.reason.split())]
        for check in result.checks
        if check.outcome != "pass"
    }


def read() -> Results:
    return json.loads(STORED.read_text()) if STORED.exists() else {}


def table(results: Results) -> str:
    """The table in Markdown, of all versions of transformers, and below it why cells do not say yes."""
    versions = sorted(results)
    lines = [
        "",
        f"With transformers {' and '.join(versions)}, on tiny random models (float32, a CPU). `no` is a check that fails, `–` one that does not apply;",
        "why stands below.",
        "",
        f"| family | {' | '.join(COLUMNS)} |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    reasons = []
    for family in dict.fromkeys(name for version in versions for name in results[version]):
        found = {version: results[version][family] for version in versions if family in results[version]}
        alike = len({json.dumps(each, sort_keys=True) for each in found.values()}) == 1
        for version, each in list(found.items())[: 1 if alike else None]:
            name = NAMES.get(family, family) + ("" if alike else f" ({version})")
            lines.append(f"| {name} | {' | '.join(_cells(each))} |")
            same: dict[str, list[str]] = {}  # checks that do not pass for the same reason
            for check, (_, reason) in [*each.items()][: 1 if "supported" in each else None]:
                same.setdefault(_short(reason), []).append(f"`{check}`")
            reasons += [f"- {name}, {', '.join(checks)}: {reason}" for reason, checks in same.items()]
    return "\n".join([*lines, "", *reasons, ""])


def _cells(found: Found) -> list[str]:
    if "supported" in found:
        return ["refused", *["–"] * (len(COLUMNS) - 1)]
    return [_cell(found, checks) for checks in COLUMNS.values()]


def _cell(found: Found, checks: tuple[str, ...]) -> str:
    failing = [f"`{name}`" for name in checks if found.get(name, [""])[0] == "fail"]
    absent = [f"`{name}`" for name in checks if found.get(name, [""])[0] == "not applicable"]
    if len(failing) == len(checks):
        return "**no**"
    said = [f"**no**: {', '.join(failing)}"] if failing else [] if len(absent) == len(checks) else ["yes"]
    return "; ".join([*said, *([f"– {', '.join(absent)}"] if absent else [])])


def _short(reason: str) -> str:
    reason = re.sub(r'^such a prompt is refused: (Record with prompt "\[.*?\]": )?', "refused: ", reason)
    reason = reason if len(reason) <= 400 else f"{reason[:397].rstrip()} ..."
    return reason.replace("|", "\\|").replace("<", "&lt;")


def write(results: Results) -> None:
    """Puts the table between its marks."""
    page = PAGE.read_text()
    before, _, rest = page.partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table(results)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="those to run; none: all")
    parser.add_argument("--write", action="store_true", help="run nothing, write the table of what is stored")
    asked = parser.parse_args()
    results = read()
    if not asked.write:
        import torch

        from videor1_trl import check_model

        torch.set_num_threads(1)
        known, version = all_families(), importlib.metadata.version("transformers")
        if unknown := set(asked.families).difference(known):
            parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(known)}.")
        of_version = results.setdefault(version, {})
        for family in asked.families or known:
            with tempfile.TemporaryDirectory() as folder:
                one = built(family, folder)
                result = check_model(one.model, one.processor)
            sys.stdout.write(f"{family}: {result.summary()}\n")
            of_version[family] = of_result(result)
        results[version] = {family: of_version[family] for family in known if family in of_version}
        STORED.write_text(json.dumps(results, indent=1, sort_keys=False) + "\n")
    write(results)


if __name__ == "__main__":
    main()
