"""A published embedder is not read with its family's templates; a bare LVLM is, whatever its folder is called."""

import json
import shutil
from pathlib import Path

import pytest

import vladva_clip
from tests.support import adapters, exports, hub_cache
from tests.support.edits import edit_json
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.sources import profiles
from vladva_clip.sources.embedder_signs import found
from vladva_clip.storage.adapter_files import SOFT_PROMPT

QWEN = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
# as the Hub has them; their authors train embeddings into an LVLM's own architecture
EMBEDDERS = [
    *("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "OpenSearch-AI/Ops-MM-embedding-v1-7B", "qihoo360/RzenEmbed"),
    *("friedrichor/Unite-Base-Qwen2-VL-2B", "code-kunkun/LamRA-Ret", "Alibaba-NLP/GVE-7B", "royokong/e5-v"),
    *("Qwen/Qwen3-VL-Embedding-2B", "jinaai/jina-embeddings-v4", "TIGER-Lab/VLM2Vec-Qwen2VL-7B", "zhibinlan/LLaVE-2B"),
    *("intfloat/mmE5-mllama-11b-instruct", "DeepGlint-AI/UniME-LLaVA-1.6-7B", "vidore/colqwen2-v1.0-merged"),
    *("MrLight/dse-qwen2-2b-mrl-v1", "BAAI/BGE-VL-MLLM-S1", "nomic-ai/nomic-embed-multimodal-7b"),
    *("moca-embed/MoCa-Qwen25VL-7B", "raghavlite/B3_Qwen2_7B", "x/my_GME_copy", "me/image-retriever"),
    *("marco/mcdse-2b-v1", "llamaindex/vdr-2b-multi-v1", "zhibinlan/UME-R1-2B", "vidore/biqwen2-v0.1"),
]  # fmt: skip
BARE = [
    *("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen2-VL-7B"),
    *("llava-hf/llava-1.5-7b-hf", "liuhaotian/llava-v1.5-13b", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    *(
        "qwen2-vl-2b",
        "my-finetune",
        "base",
        "my_model",
        "checkpoint-1000",
        "united",
        "game",
        "moca2",
        "b32",
        "model.v3",
    ),
    *("e50", "tiny", "vladva-tiny", "export", "llava-b3d", "gmeter", "reunite", "unit-e"),
]


def load_each_way(directory: Path):
    """The three calls that would read a directory with its family's templates."""
    name = f"local-dir:{directory}"
    return (
        lambda: vladva_clip.create_model(name),
        lambda: vladva_clip.create_model(name, load_weights=False),
        lambda: vladva_clip.get_tokenizer(name),
        lambda: VladvaTokenizer(directory),
    )


def refused(directory: Path, *words: str) -> None:
    for load in load_each_way(directory):
        with pytest.raises(ValueError) as caught:
            load()
        for word in (str(directory), "published embedder", "profile=", "vladva_config.json", *words):
            assert word in str(caught.value), str(caught.value)


@pytest.fixture
def plain(bases, tmp_path) -> Path:
    """A tiny Qwen2-VL without a sign."""
    return Path(shutil.copytree(bases["qwen2_vl"], tmp_path / "qwen2-vl-2b"))


class TestNames:
    @pytest.mark.parametrize("name", EMBEDDERS)
    def test_of_embedders(self, name, tmp_path):
        (place := tmp_path / name.rpartition("/")[2]).mkdir()
        assert found(tmp_path, name, QWEN) and found(place, "local-dir:x", QWEN)
        snapshot = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        assert name.rpartition("/")[2] in found(snapshot, str(snapshot), QWEN)

    @pytest.mark.parametrize("name", BARE)
    def test_of_bare_models(self, name, tmp_path):
        (place := tmp_path / name.rpartition("/")[2]).mkdir()
        assert found(place, name, QWEN) is None

    def test_of_the_model_it_was_made_from(self, plain):
        edit_json(plain / "config.json", _name_or_path="Alibaba-NLP/gme-Qwen2-VL-2B-Instruct")
        refused(plain, "made from", "'gme'")
        edit_json(plain / "config.json", _name_or_path="Qwen/Qwen2-VL-2B-Instruct")
        assert [load() for load in load_each_way(plain)]

    def test_a_folder_above_decides_nothing(self, tmp_path):
        place = tmp_path / "embeddings" / "gme" / "base"
        place.mkdir(parents=True)
        assert found(place, f"local-dir:{place}", QWEN) is None

    def test_a_sign_in_a_path_with_an_at(self, tmp_path):
        """No revision is cut off from a folder's path."""
        place = tmp_path / "me@work" / "gme-Qwen2-VL-2B-Instruct"
        place.mkdir(parents=True)
        assert found(place, f"local-dir:{place}", QWEN)

    def test_folders_are_refused_with_the_profile_that_fits(self, bases, tmp_path):
        for name, near in (("gme-Qwen2-VL-2B-Instruct", "profile='gme-qwen2-vl-2b'"), ("my-embedder", "rzenembed")):
            refused(Path(shutil.copytree(bases["qwen2_vl"], tmp_path / name)), name, near)

    def test_hub_ids_without_a_profile_are_refused(self, bases, tmp_path):
        repo = "somebody/qwen2-vl-embedding"
        hub_cache.put(tmp_path, repo, bases["qwen2_vl"])
        for load in (vladva_clip.create_model, vladva_clip.get_tokenizer):
            with pytest.raises(ValueError, match="published embedder.*'qwen2-vl-embedding'.*profile="):
                load(f"hf-hub:{repo}", cache_dir=tmp_path)
        model, _ = vladva_clip.create_model(f"hf-hub:{repo}", cache_dir=tmp_path, profile="ops-mm-2b", image_size=56)
        assert model.config.base.profile == "ops-mm-2b"

    def test_code_of_its_own_is_not_the_reason(self, bases, tmp_path):
        """Without an auto_map it would be an embedder still: to remove the key would not help."""
        place = Path(shutil.copytree(bases["qwen2_vl"], tmp_path / "my-embedder"))
        edit_json(place / "config.json", auto_map={"AutoModel": "modeling_mine.Mine"})
        for load in (vladva_clip.create_model, vladva_clip.get_tokenizer):
            with pytest.raises(ValueError, match="published embedder.*'my-embedder'.*profile='NAME'"):
                load(f"local-dir:{place}")

    def test_bare_models_load(self, bases, tmp_path):
        for name in ("qwen2-vl-2b", "my-finetune", "base", "Qwen2-VL-2B-Instruct"):
            place = Path(shutil.copytree(bases["qwen2_vl"], tmp_path / name))
            assert [load() for load in load_each_way(place)]
        hub_cache.put(tmp_path / "hub", "Qwen/Qwen2-VL-2B-Instruct", bases["qwen2_vl"])
        assert vladva_clip.create_model("vladva-2b", cache_dir=tmp_path / "hub")


class TestFiles:
    @pytest.mark.parametrize(
        "name",
        [
            *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "custom_st.py"),
            *("ops_mm_embedding_v1.py", "gme_inference.py", "modeling_gme_qwen2vl.py", "modeling_unite.py"),
            "rzen_embed_inference.py",
        ],
    )
    def test_that_embedders_bring(self, plain, name):
        (plain / name).write_text("[]")
        refused(plain, name)

    @pytest.mark.parametrize("name", ["1_Pooling", "2_Normalize"])
    def test_their_folders(self, plain, name):
        (plain / name).mkdir()
        refused(plain, name)

    @pytest.mark.parametrize(
        "name", ["train.py", "modeling_qwen2_vl.py", "README.md", "united.py", "trainer_state.json"]
    )
    def test_of_bare_models(self, plain, name):
        (plain / name).write_text("")
        assert vladva_clip.get_tokenizer(f"local-dir:{plain}") and found(plain, "x", QWEN) is None


class TestConfigs:
    @pytest.mark.parametrize("name", ["GmeQwen2VLForVision", "UniteQwen2VL", "Qwen2VLForEmbedding", "Qwen2VLModel"])
    def test_another_class(self, plain, name):
        edit_json(plain / "config.json", architectures=[name])
        refused(plain, name)

    @pytest.mark.parametrize("key", ["emb_token_id", "emb_token_ids", "pooling", "pooling_type", "min_image_tokens"])
    def test_a_key(self, plain, key):
        edit_json(plain / "config.json", **{key: 5})
        refused(plain, key)

    @pytest.mark.parametrize("value", [None, [], "Qwen2VLForConditionalGeneration", [5], {}, 5])
    def test_architectures_of_another_kind_are_no_sign(self, tmp_path, value):
        assert found(tmp_path, "base", {"architectures": value}) is None
        assert found(tmp_path, "base", {}) is None


class TestWhatStatesItsOwn:
    """Adapters, exports and directories with a config of ours are read as they say, whatever their signs."""

    @pytest.fixture
    def embedder(self, bases, tmp_path) -> Path:
        place = Path(shutil.copytree(bases["qwen2_vl"], tmp_path / "gme-Qwen2-VL-2B-Instruct"))
        (place / "modules.json").write_text("[]")
        return place

    def test_a_config_beside_the_weights(self, embedder):
        config = profiles.named("gme-qwen2-vl-2b").config_of().to_dict() | {"embed_dim": 32}
        config["image"]["size"] = 56
        (embedder / "vladva_config.json").write_text(json.dumps(config))
        for load in load_each_way(embedder):
            assert load()

    def test_a_profile(self, embedder):
        name = f"local-dir:{embedder}"
        assert vladva_clip.create_model(name, profile="gme-qwen2-vl-2b", image_size=56)
        assert vladva_clip.get_tokenizer(name, profile="gme-qwen2-vl-2b")

    def test_an_adapter(self, bases, tmp_path):
        place = tmp_path / "gme-embedding-adapter"
        adapters.write_adapter(bases["qwen2_vl"], place)
        (place / "modules.json").write_text("[]")
        assert (place / SOFT_PROMPT).is_file()
        for load in load_each_way(place)[:3]:
            assert load()

    def test_an_export(self, bases, tmp_path):
        """It brings sentence-transformers' files itself."""
        place = tmp_path / "my-embedder"
        exports.export(f"local-dir:{bases['qwen2_vl']}", place)
        assert (place / "modules.json").is_file()
        for load in load_each_way(place):
            assert load()
