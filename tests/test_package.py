"""What a user gets: the wheel, its import, the versions that it admits, and public names that are documented."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import videor1_trl


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: what an earlier build left in `build` would come in too."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_package_its_type_marker_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "videor1_trl",
        f"videor1_trl-{videor1_trl.__version__}.dist-info",
    }
    package = ROOT / "src" / "videor1_trl"
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {Path(name).relative_to("videor1_trl") for name in names if name.startswith("videor1_trl/")} == files
    assert {path.suffix for path in files} == {".py", ".pyi", ".typed", ".yaml", ".html", ".css", ".js"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_imports_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    code = "import videor1_trl; print(videor1_trl.__file__, videor1_trl.TGRPOTrainer.__name__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(target / "videor1_trl" / "__init__.py"), "TGRPOTrainer"]


def pins(name):
    return dict(line.split("==") for line in (ROOT / name).read_text().splitlines() if "==" in line)


def test_the_oldest_versions_are_the_lower_bounds_of_the_package():
    """And transformers and trl are capped below the next minor, which nobody has tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    admitted = [*project["dependencies"], *extras["examples"], *extras["server"]]
    bounds = {each.name: each.specifier for each in map(Requirement, admitted)}
    for name, version in pins("constraints-oldest.txt").items():
        [lowest] = [each.version for each in bounds[name] if each.operator == ">="]
        assert Version(lowest) <= Version(version) and version in bounds[name], name
        if name not in ("accelerate", "trl", "transformers"):  # raised by another package's own bound, or a minor
            assert (*Version(lowest).release, 0)[:2] == (*Version(version).release, 0)[:2], name
    for name, version in pins("constraints.txt").items():
        assert name not in bounds or version in bounds[name], name
    assert "5.25.0" not in bounds["transformers"] and "1.17.0" not in bounds["trl"]
    assert project["requires-python"] == ">=3.11"


def test_public_names_are_documented():
    public = [name for name in vars(videor1_trl) if not name.startswith("_")]
    undocumented = [
        name for name in public if callable(getattr(videor1_trl, name)) and not getattr(videor1_trl, name).__doc__
    ]
    assert not undocumented


def test_importing_the_package_changes_nothing_in_transformers():
    """In a process of its own: neither attention, nor masks, nor image processors, nor the generation of models."""
    code = """
import transformers, trl
from transformers import AutoImageProcessor, GenerationMixin, Qwen2_5_VLForConditionalGeneration
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

def state():
    return (
        dict(ALL_ATTENTION_FUNCTIONS._global_mapping), dict(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping),
        dict(IMAGE_PROCESSOR_MAPPING._extra_content), GenerationMixin.generate, Qwen2_5_VLModel.get_rope_index,
        trl.GRPOTrainer._generate_single_turn,
    )

before = state()
import videor1_trl
for name in videor1_trl.__all__:
    getattr(videor1_trl, name)
import videor1_trl.generation.backends, videor1_trl.sharing.prompts, videor1_trl.planning.plan
assert state() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def test_git_ignores_no_file_that_the_project_is_made_of():
    """What is ignored is missing in every clone, however well it works here."""
    command = [
        "git",
        "ls-files",
        "--others",
        "--ignored",
        "--exclude-standard",
        "src",
        "tests",
        "examples",
        "studies",
        "docs",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    left = [path for path in done.stdout.split() if not {"__pycache__", ".hypothesis"} & set(Path(path).parts)]
    assert [path for path in left if ".egg-info" not in path] == []
