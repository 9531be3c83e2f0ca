"""The house itself: light import, packaged files, no machine-local leftovers. Its arrows: tests/test_arrows.py."""

import ast
import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import our_wheel

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vladva_clip"


def test_transformers_model_classes_are_named_in_the_backbones_only():
    named = {
        path.relative_to(PACKAGE).parent.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transformers")
        for alias in node.names
        if alias.name.startswith(("Llava", "Qwen2VL", "Qwen2_5_VL", "Llama", "CLIPVision"))
    }
    assert named == {"backbones"}


def test_what_import_torch_calls_imports_nothing_of_its_own():
    """`integrations/autoload` loads modules that an interpreter with torch has loaded already."""
    tree = ast.parse((PACKAGE / "integrations/autoload/__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or alias.name for node in imports for alias in node.names}
    assert modules == {"contextlib", "importlib", "os", "sys", "threading", "types", "warnings"}


def test_import_is_light():
    """Beyond torch, `import vladva_clip` brings none of the heavy libraries and starts no CUDA; the best of three."""
    code = (
        "import torch, sys, time; before = set(sys.modules); start = time.perf_counter(); import vladva_clip;"
        "print(time.perf_counter() - start); new = set(sys.modules) - before;"
        "heavy = {'transformers', 'open_clip', 'peft', 'PIL', 'torchvision', 'huggingface_hub', 'numpy'} & new;"
        "assert not heavy, heavy; assert not torch.cuda.is_initialized(); assert len(new) < 5, new"
    )
    command = [sys.executable, "-c", code]
    seconds = [float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
    assert min(seconds) < 0.1, seconds


def test_names_of_the_package_exist():
    import vladva_clip

    for name in vladva_clip.__all__:
        assert getattr(vladva_clip, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vladva_clip.no_such_name


def test_listed_packages_are_the_folders_that_exist():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {}  # folder -> package
    for package, folder in settings["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found[init.parent] = ".".join((package, *init.parent.relative_to(ROOT / folder).parts))
    assert set(settings["packages"]) == set(found.values())


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return our_wheel.build(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_our_packages_and_no_generic_name(built):
    names = zipfile.ZipFile(built).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"vladva_clip", "vladva_clip_autoload", "vladva_training", "vladva_benchmarks"}
    assert "vladva_clip/integrations/autoload/__init__.py" not in names  # it is there once
    assert not [name for name in names if "egg-info" in name]


def test_a_build_leaves_nothing_at_the_top_of_the_checkout_that_python_takes_for_an_installation(built):
    """Its entry point would break `import torch` of every environment that has not installed us, when started there."""
    checkout = built.parent / "tree"
    assert (checkout / "pyproject.toml").is_file()
    assert not list(importlib.metadata.distributions(path=[str(checkout)]))


def test_wheel_holds_the_packaged_model_within_16_mb(built):
    with zipfile.ZipFile(built) as archive:
        assets = {item.filename: item.file_size for item in archive.infolist() if "/assets/" in item.filename}
    assert {"vladva_clip/assets/vladva-tiny/base/model.safetensors", "vladva_clip/assets/bases.json"} <= set(assets)
    assert sum(assets.values()) <= 16e6


def test_wheel_holds_the_tables_of_figures(built):
    tables = {"vladva_benchmarks/published.json", "vladva_training/plan/gpus.json"}
    assert tables <= set(zipfile.ZipFile(built).namelist())


@pytest.mark.wide
def test_wheel_works_when_installed_alone(built, tmp_path):
    """Unpacked where nothing else of ours is, the wheel loads its packaged model."""
    zipfile.ZipFile(built).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vladva_clip;"
        f"assert vladva_clip.__file__.startswith({str(tmp_path)!r}), vladva_clip.__file__;"
        "model, _ = vladva_clip.create_model('vladva-tiny');"
        "print(model.encode_text(vladva_clip.get_tokenizer('vladva-tiny')(['a red circle'])).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "torch.Size([1, " in done.stdout
