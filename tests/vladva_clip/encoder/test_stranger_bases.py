"""Bases made by hand to grow, to hang, to run something, or to mean something else without a word."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

import vladva_clip
from tests.support.edits import edit_json as edit
from tests.support.refusals import refused


class TestTemplates:
    """The templates of an export are programs that we write: no text of a base becomes a part of them."""

    @pytest.mark.parametrize("bos", ["IMAGE", "GLUE", '"~0}}{%for i in range(9)%}{#IMAGE#}', "", None, "</s>"])
    def test_another_beginning_of_text(self, llava_copy, tmp_path, bos):
        edit(llava_copy / "tokenizer_config.json", bos_token=bos)
        for call in (None, lambda: vladva_clip.export_model(llava_copy, tmp_path / "out")):
            refused(llava_copy, "bos_token", "'<s>'", call=call)

    def test_a_text_that_has_the_name_of_a_piece(self, llava_copy, tmp_path):
        """In an adapter's template the words are data, also in the export's program."""
        from tests.support import adapters

        model = adapters.write_adapter(llava_copy, tmp_path / "adapter")
        template = model.config.prompt.text_template.replace("word", "GLUE IMAGE }}{{")
        data = json.loads((tmp_path / "adapter/vladva_config.json").read_text())
        data["prompt"] |= {"text_template": template, "num_text_soft_tokens": None, "num_image_soft_tokens": None}
        (tmp_path / "adapter/vladva_config.json").write_text(json.dumps(data))
        refused(
            llava_copy, "soft_prompt", call=lambda: vladva_clip.export_model(tmp_path / "adapter", tmp_path / "out")
        )

    def test_a_chat_template_is_never_run(self, llava_copy, tmp_path):
        endless = "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}"
        (llava_copy / "chat_template.jinja").write_text(endless)
        model, _ = vladva_clip.create_model(f"local-dir:{llava_copy}")
        assert len(model.generate(torch.zeros(1, 3, 56, 56), "Describe it.", max_new_tokens=1)) == 1
        exported = vladva_clip.export_model(llava_copy, tmp_path / "out")
        assert endless in (exported / "chat_template.jinja").read_text()

    def test_thousands_of_them(self, llava_copy):
        folder = llava_copy / "additional_chat_templates"
        folder.mkdir()
        (folder / "0.jinja").write_text("x" * 60_000)
        for number in range(1, 3000):
            os.link(folder / "0.jinja", folder / f"{number}.jinja")
        refused(llava_copy, "3001 chat templates")

    def test_a_pipe_among_them(self, llava_copy):
        (llava_copy / "additional_chat_templates").mkdir()
        os.mkfifo(llava_copy / "additional_chat_templates/p.jinja")
        assert vladva_clip.create_model(f"local-dir:{llava_copy}")


class TestTokenizers:
    @pytest.mark.parametrize("pieces", [["A"] * 50, ["B"], [], ["A", "B"]])
    def test_a_frame_that_does_not_hold_the_text_once(self, llava_copy, pieces):
        """The library puts it around every text, also where no special tokens are asked for."""
        frame = [{"Sequence": {"id": piece, "type_id": 0}} for piece in pieces]
        step = {"type": "TemplateProcessing", "single": frame, "pair": [], "special_tokens": {}}
        edit(llava_copy / "tokenizer.json", post_processor=step)
        refused(llava_copy, "tokenizer.json", "post_processor", "once")

    def test_special_tokens_by_the_thousand(self, llava_copy):
        edit(llava_copy / "tokenizer_config.json", additional_special_tokens=[f"<u{number}>" for number in range(4000)])
        refused(llava_copy, "additional_special_tokens", "512")

    def test_pieces_without_end(self, llava_copy):
        """transformers makes merges of a SentencePiece model's pieces in time that grows with their square."""
        (llava_copy / "tokenizer.json").unlink()
        piece = b"a" * 100_000
        field = b"\x0a" + bytes((len(piece) & 127 | 128, len(piece) >> 7 & 127 | 128, len(piece) >> 14)) + piece
        inner = bytes((len(field) & 127 | 128, len(field) >> 7 & 127 | 128, len(field) >> 14)) + field
        (llava_copy / "tokenizer.model").write_bytes(b"\x0a" + inner)
        refused(llava_copy, "tokenizer.model", "SentencePiece")

    def test_an_unknown_part(self, llava_copy):
        edit(llava_copy / "tokenizer.json", junk=["x"] * 1000)
        refused(llava_copy, "tokenizer.json", "'junk'")


class TestVisionTowers:
    def test_more_patches_than_tokens_show(self, qwen_copy):
        """Merged by 16 x 16 they are few; before, they take minutes."""
        config = json.loads((qwen_copy / "config.json").read_text())
        edit(qwen_copy / "config.json", vision_config={**config["vision_config"], "spatial_merge_size": 16})
        refused(qwen_copy, "spatial_merge_size", "at most 8")

    @pytest.mark.parametrize(
        "changes", [{"rope_scaling": None}, {"rope_scaling": {"type": "mrope", "mrope_section": [9, 9, 9]}}]
    )
    def test_sections_that_are_not_half_a_head(self, qwen_copy, changes):
        edit(qwen_copy / "config.json", **changes)
        refused(qwen_copy, "mrope_section")

    def test_heads_that_do_not_divide(self, qwen_copy):
        config = json.loads((qwen_copy / "config.json").read_text())
        edit(qwen_copy / "config.json", vision_config={**config["vision_config"], "num_heads": 3})
        refused(qwen_copy, "heads")

    @pytest.mark.parametrize("layer", [-99, 99, [0, 77]])
    def test_a_layer_that_is_not_there(self, llava_copy, layer):
        edit(llava_copy / "config.json", vision_feature_layer=layer)
        refused(llava_copy, "vision_feature_layer")


class TestImageProcessors:
    """What ours does not do, or does with other numbers, is refused instead of passed over."""

    @pytest.mark.parametrize(
        "changes",
        [
            *({f"do_{step}": False} for step in ("normalize", "rescale", "resize")),
            *({"rescale_factor": value} for value in (0, 0.5, 1)),
            {"do_pad": True, "image_processor_type": "LlavaImageProcessor"},
            {"do_center_crop": False},
            {"size": {"shortest_edge": 57}},
            {"crop_size": {"height": 56, "width": 42}},
            {"image_processor_type": "ViTImageProcessor"},
        ],
        ids=str,
    )
    def test_of_llava(self, llava_copy, changes):
        edit(llava_copy / "preprocessor_config.json", **changes)
        refused(llava_copy, next(iter(changes)).removesuffix("_type").replace("do_center_crop", "crop"))

    @pytest.mark.parametrize("changes", [{"temporal_patch_size": 1}, {"merge_size": 4}, {"patch_size": 16}], ids=str)
    def test_of_qwen(self, qwen_copy, changes):
        edit(qwen_copy / "preprocessor_config.json", **changes)
        refused(qwen_copy, next(iter(changes)), "config.json")

    def test_null_is_transformers_own(self, qwen_copy, tmp_path):
        """As fast processors of transformers 4.5x wrote it."""
        nothing = dict.fromkeys(("crop_size", "size", "do_pad", "do_center_crop", "processor_class"))
        edit(qwen_copy / "preprocessor_config.json", **nothing, image_processor_type="Qwen2VLImageProcessorFast")
        edit(qwen_copy / "generation_config.json", temperature=None, top_p=None, top_k=None, do_sample=None)
        vladva_clip.create_model(f"local-dir:{vladva_clip.export_model(qwen_copy, tmp_path / 'out')}")


class TestFilesThatDoNotBelongTogether:
    def test_another_token_for_images(self, llava_copy):
        edit(llava_copy / "config.json", image_token_index=5)
        refused(llava_copy, "token 5")

    def test_another_head_than_the_tied_one(self, qwen_copy):
        path = qwen_copy / "model.safetensors"
        tensors = load_file(path)
        embedding = next(tensor for name, tensor in tensors.items() if name.endswith("embed_tokens.weight"))
        save_file({**tensors, "lm_head.weight": embedding + 1}, path, metadata={"format": "pt"})
        refused(qwen_copy, "tie_word_embeddings")

    def test_generation_settings_that_no_model_has(self, llava_copy, tmp_path):
        for name, value in (("suppress_tokens", 5), ("custom_generate", "org/repo"), ("eos_token_id", "x")):
            (llava_copy / "generation_config.json").write_text(json.dumps({name: value}))
            for call in (None, lambda: vladva_clip.export_model(llava_copy, tmp_path / "out")):
                refused(llava_copy, "generation_config.json", name, call=call)

    @pytest.mark.parametrize(
        "name", ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"]
    )
    def test_links_out(self, llava_copy, tmp_path, name):
        os.replace(llava_copy / name, tmp_path / name)
        (llava_copy / name).symlink_to(tmp_path / name)
        refused(llava_copy, name, "outside")

    @pytest.mark.parametrize("metadata", [5, {"format": 1}, []])
    def test_metadata_of_another_form(self, llava_copy, metadata):
        path = llava_copy / "model.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.dumps({**json.loads(content[8 : 8 + length]), "__metadata__": metadata}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
        refused(llava_copy, "model.safetensors", "__metadata__")
