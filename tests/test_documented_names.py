"""Files, folders and modules that the README and the docs name exist."""

import importlib.util
import re
from pathlib import Path

import pytest

import vladva_clip

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "vladva_clip|training|benchmarks|tests|docs"
WRITTEN = {"docs/Data.md"}  # of another project


def paths(text: str) -> set[str]:
    """Files and folders of this repository, as `training/run/` or `docs/api.md`."""
    return set(re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w/.-]*[\w/])", text)) - WRITTEN


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute (of an attribute) of one."""
    module, _, rest = dotted.partition(".")
    found = importlib.import_module(module)
    for part in filter(None, rest.split(".")):
        if hasattr(found, part):
            found = getattr(found, part)
        elif hasattr(found, "__path__") and importlib.util.find_spec(f"{found.__name__}.{part}"):
            found = importlib.import_module(f"{found.__name__}.{part}")
        else:
            return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    assert not [path for path in sorted(paths(page.read_text())) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_functions_that_a_page_names_exist(page):
    names = set(re.findall(r"\bvladva_(?:clip|training|benchmarks)(?:\.\w+)+", page.read_text()))
    names = {name for name in names if not name.endswith((".py", ".egg"))}
    assert not [name for name in sorted(names) if not exists(name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_hold(page):
    """Relative links lead to a file, and their anchors to a heading."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M) if anchor else []
        assert not anchor or anchor in {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }


def test_the_readme_lists_every_folder():
    """Its section about the layout names each folder with modules in it, two levels deep."""
    section = (ROOT / "README.md").read_text().split("\n## Layout\n")[1]
    for package in ("vladva_clip", "training", "benchmarks"):
        for folder in (ROOT / package).iterdir():
            if (folder / "__init__.py").is_file():
                assert re.search(rf"\b{folder.name}/", section), f"{package}/{folder.name}"


def test_a_name_that_does_not_exist_is_noticed():
    assert exists("vladva_clip.create_model") and not exists("vladva_clip.no_such_name")
    assert paths("see `training/no_such_file.py`, docs/api.md.") == {"training/no_such_file.py", "docs/api.md"}
    assert vladva_clip.__all__
