"""Shared bases and models; whatever is built here is built once per session."""

import os
import warnings
from pathlib import Path

import pytest

# set before torch and huggingface_hub are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads cost more than they bring to tiny tensors
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

from tests.support.models import (  # noqa: E402
    tiny_bases,
    tiny_internvl,
    tiny_llava_next,
    tiny_llava_onevision,
    tiny_qwen2_5_vl,
    tiny_qwen3_vl,
    tiny_smolvlm,
)

WRITERS = {"llava": tiny_bases.write_llava, "qwen2_vl": tiny_bases.write_qwen}
# families with tests of their own; what is tested for every family runs for these in `make test-wide`
LATER_WRITERS = {
    "llava_next": tiny_llava_next.write_llava_next,
    "qwen2_5_vl": tiny_qwen2_5_vl.write,
    "qwen3_vl": tiny_qwen3_vl.write_qwen3_vl,
    "internvl": tiny_internvl.write_internvl,
    "idefics3": tiny_smolvlm.write_idefics3,
    "llava_onevision": tiny_llava_onevision.write_llava_onevision,
}
TWINS = {"smolvlm": tiny_smolvlm.write_smolvlm}  # all code but a name is another family's: its own tests are enough


@pytest.fixture(scope="session", autouse=True)
def classifiers(tmp_path_factory) -> Path:
    """Zero-shot classifiers are kept here, not in the user's own cache."""
    directory = tmp_path_factory.mktemp("classifiers")
    os.environ["VLADVA_CLIP_CACHE"] = str(directory)
    return directory


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """family -> directory of a tiny random base."""
    root = tmp_path_factory.mktemp("bases")
    return {family: write(root / family) for family, write in (WRITERS | LATER_WRITERS | TWINS).items()}


@pytest.fixture(scope="session")
def source(bases) -> str:
    """The name by which `create_model` loads the tiny LLaVA."""
    return f"local-dir:{bases['llava']}"


@pytest.fixture(scope="session")
def honest(tmp_path_factory) -> Path:
    """An adapter directory with a LoRA, as it should be, whose base is nowhere."""
    from tests.support import fuzz

    directory = tmp_path_factory.mktemp("honest") / "adapter"
    fuzz.honest(directory)
    return directory


FAMILIES = [*sorted(WRITERS), *(pytest.param(family, marks=pytest.mark.wide) for family in sorted(LATER_WRITERS))]


NEWEST = ("llava_next", "internvl", "idefics3", "llava_onevision")
# what these ask of a model lies outside the families' files: the other families are enough
NOT_OF_A_FAMILY = (
    *("test_errors", "test_errors_arguments", "test_contract_inputs", "test_factory", "pictures/test_colors"),
    *(
        "pictures/test_image_values",
        "encoder/test_lora_settings",
        "zero_shot/test_builder",
        "integrations/test_clients",
    ),
    *("storage/test_adapter_files", "sources/test_registry"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of the newest families where no line of their own is tested."""
    config.hook.pytest_deselected(items=[item for item in items if _repeats(item)])
    items[:] = [item for item in items if not _repeats(item)]


def _repeats(item: pytest.Item) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("base") in NEWEST and item.nodeid.partition(".py::")[0].endswith(NOT_OF_A_FAMILY)


@pytest.fixture(scope="session", params=FAMILIES)
def base(request, bases) -> Path:
    """The base directory of each family in turn."""
    return bases[request.param]


@pytest.fixture(scope="session")
def model_and_pre(base):
    """A training-free fp32 model of each family, with its transform."""
    import vladva_clip

    return vladva_clip.create_model(f"local-dir:{base}", precision="fp32")


@pytest.fixture(scope="session")
def model(model_and_pre):
    return model_and_pre[0]


@pytest.fixture(scope="session")
def preprocess(model_and_pre):
    return model_and_pre[1]


@pytest.fixture(scope="session")
def tokenizer(base):
    import vladva_clip

    return vladva_clip.get_tokenizer(f"local-dir:{base}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real captions and photographs beside the project, where present."""
    directory = Path(__file__).parents[2] / "shared"
    if not directory.is_dir():
        pytest.skip("the shared data folder is not here")
    return directory
