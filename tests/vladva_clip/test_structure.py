"""The house itself: arrows between files, light import, packaged files, no machine-local leftovers."""

import ast
import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import our_wheel
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vladva_clip"

# file -> the files of ours that it may import; what is not named here may import everything
ALLOWED = {
    "plain_files": set(),
    "addresses": set(),
    "strict_json": {"plain_files"},
    "fields": set(),
    "tensor_names": set(),
    "adapter_files": set(),
    "disk": set(),
    "tensor_header": {"strict_json"},
    "lora_shapes": {"config"},
    "config": {"strict_json"},
    "devices": set(),
    "extras": set(),
    "file_locks": set(),
    "terminal": set(),
    "pooling": set(),
    "probe": set(),
    "vectors": {"extras"},
    "metrics": set(),
    "colors": set(),
    "image_values": set(),
    "pictures": {"colors", "plain_files"},
    "scenes": set(),
    "weights": {"adapter_files", "config", "tensor_header"},
    "generation": {"backbones"},
    "lora": {"lora_settings"},
    "lora_settings": {"config", "fields"},
    "lora_saving": {"lora", "lora_settings"},
    "foreign_files": {"card", "checkpoint"},
    "saving": {"checkpoint", "foreign_files", "lora", "lora_saving", "weights"},
    "round_trip": {"backbones", "checkpoint", "export", "loading", "lora", "prompts", "tensor_names", "weights"},
    "preprocess": {"colors", "config", "pictures", "thin"},
    "thin": set(),
    "tokenizer": {"base_files"},
    "tokenizer_files": {"backbones", "config", "extras", "fields", "plain_files", "strict_json"},
    "chat_files": {"adapter_files", "config", "tokenizer_files"},
    "base_files": {
        *("adapter_files", "backbones", "base_config", "chat_files", "config", "disk", "tokenizer_files"),
    },
    "prompts": {"config", "recording", "token_rows"},
    "model_lock": set(),
    "arguments": set(),
    "recording": set(),
    "token_rows": set(),
    "backbones": {"config", "fields", "model_lock", "recording"},
    "registry": {"config"},
    "card_results": {"config"},
    "card_text": {"config", "precision_words"},
    "card": {
        *("adapter_files", "arguments", "card_results", "card_text", "checkpoint", "config", "loading", "registry"),
        "sources",
    },
    "checkpoint": {"adapter_files", "config", "disk", "file_locks", "lora_shapes", "tensor_header"},
    "hub_errors": set(),
    "checksums": set(),
    "sources": {"arguments", "checksums", "config", "hub_errors", "registry"},
    "towers": {
        *("arguments", "backbones", "config", "image_values", "pooling", "preprocess", "prompts", "recording"),
        "token_rows",
    },
    "base_config": {"adapter_files", "backbones", "config", "fields"},
    "base_fit": {"backbones", "base_config", "config", "tensor_names", "weights"},
    "precision_words": set(),
    "precision": {"backbones", "config", "precision_words"},
    "loading": {
        *("adapter_files", "backbones", "base_config", "base_files", "base_fit", "checkpoint", "config", "extras"),
        *("lora", "precision", "prompts", "sources", "weights"),
    },
    "model": {
        *("arguments", "card", "checkpoint", "config", "devices", "generation", "loading", "precision_words", "probe"),
        *("recording", "round_trip", "saving", "sources", "towers", "vectors"),
    },
    "factory": {
        *("backbones", "base_fit", "checkpoint", "config", "devices", "loading", "model", "preprocess", "probe"),
        *("precision_words", "registry", "sources", "tokenizer", "vectors"),
    },
    "shared_prefix": {"pooling", "prompts", "towers"},
    "sealed": {"plain_files", "strict_json"},
    "rendering": set(),
    "encoder_identity": {"model", "tokenizer", "towers"},
    "classifier_cache": {"encoder_identity", "model", "sealed"},
    "zero_shot": {
        *("classifier_cache", "devices", "encoder_identity", "model", "rendering", "shared_prefix", "token_rows"),
    },
    "integrations": {"checkpoint", "config", "devices", "factory", "registry", "sources"},
    "export": {
        *(
            "arguments",
            "backbones",
            "base_config",
            "base_files",
            "checkpoint",
            "config",
            "foreign_files",
            "loading",
            "lora",
            "precision",
            "precision_words",
        ),
        *("prompts", "sources", "tensor_names", "weights"),
    },
    "hub": {"arguments", "card", "checkpoint", "config", "foreign_files", "hub_errors", "model", "sources"},
    "pull": {"arguments", "checkpoint", "sources"},
    "gallery": {"scenes"},
    "written_claims": {"scenes"},
    "gallery_figures": {"gallery", "metrics", "scenes", "written_claims"},
    "gallery_report": {"gallery", "gallery_figures", "written_claims"},
    "sheet_drawing": set(),
    "sheet_bars": {"gallery", "sheet_drawing"},
    "contact_sheet": {"gallery", "gallery_figures", "metrics", "pictures", "sheet_bars", "sheet_drawing"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The files and folders of vladva_clip that a file imports anywhere in it."""
    rooms = {item.stem if item.suffix == ".py" else item.name for item in PACKAGE.iterdir()}
    package = ["vladva_clip", *path.relative_to(PACKAGE).parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = [] if node.level == 0 else package[: len(package) - node.level + 1]
            module = ".".join([*start, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    parts = [name.split(".") for name in names if name.startswith("vladva_clip.")]
    return {part[1] for part in parts} & rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_points_back(path):
    if room(path) in ALLOWED:
        assert imported_rooms(path) - {room(path)} <= ALLOWED[room(path)]


def test_every_file_has_its_arrows_stated():
    unlisted = {room(path) for path in PACKAGE.rglob("*.py")} - set(ALLOWED)
    assert unlisted == {"__init__", "cli", "quickstart"}


@pytest.mark.parametrize(
    ("folder", "banned"),
    [("vladva_clip", {"vladva_training", "vladva_benchmarks"}), ("training", {"vladva_benchmarks"})],
)
def test_packages_import_only_downwards(folder, banned):
    for path in (ROOT / folder).rglob("*.py"):
        modules = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {module.split(".")[0] for module in modules} & banned, path


def test_transformers_model_classes_are_named_in_the_backbones_only():
    named = {
        path.relative_to(PACKAGE).parent.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transformers")
        for alias in node.names
        if alias.name.startswith(("Llava", "Qwen2VL", "Llama", "CLIPVision"))
    }
    assert named == {"backbones"}


def test_what_import_torch_calls_imports_nothing_of_its_own():
    """`integrations/autoload` loads modules that an interpreter with torch has loaded already."""
    tree = ast.parse((PACKAGE / "integrations/autoload/__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or alias.name for node in imports for alias in node.names}
    assert modules == {"contextlib", "importlib", "os", "sys", "threading", "types", "warnings"}


def test_import_is_light():
    """Beyond torch, `import vladva_clip` brings none of the heavy libraries and starts no CUDA."""
    code = (
        "import torch, sys, time; before = set(sys.modules); start = time.perf_counter(); import vladva_clip;"
        "seconds = time.perf_counter() - start; new = set(sys.modules) - before; assert seconds < 0.1, seconds;"
        "heavy = {'transformers', 'open_clip', 'peft', 'PIL', 'torchvision', 'huggingface_hub', 'numpy'} & new;"
        "assert not heavy, heavy; assert not torch.cuda.is_initialized(); assert len(new) < 5, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
    assert "vladva_clip/assets/vladva-tiny/base/model.safetensors" in assets
    assert sum(assets.values()) <= 16e6


def test_wheel_holds_the_published_tables(built):
    assert "vladva_benchmarks/published.json" in zipfile.ZipFile(built).namelist()


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
