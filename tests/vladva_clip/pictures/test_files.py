"""Which pictures are read, what is said of others, and that none of them starts a program or takes memory."""

import ast
import io
import os
import resource
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from transformers.image_utils import load_image

from tests.support.pictures import strange
from tests.support.samples import picture
from vladva_clip.encoder.preprocess import ToRGB
from vladva_clip.pictures import files
from vladva_clip.pictures.files import FormatError, PictureError, TooLargeError, open_file, read_file, read_picture
from vladva_clip.quickstart.contact_sheet import contact_sheet
from vladva_clip.quickstart.gallery import class_names, draw_gallery
from vladva_clip.quickstart.tour import ask

ROOT = Path(__file__).parents[3]


@pytest.fixture
def mark(tmp_path):
    with strange.ghostscript(tmp_path) as mark:
        yield mark
        assert not mark.exists()


def saved(form: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or picture(0)).save(buffer, form, **options)
    return buffer.getvalue()


class TestWhatIsRead:
    @pytest.mark.parametrize("form", files.FORMATS)
    def test_each_format(self, form):
        if form == "AVIF":
            pytest.importorskip("PIL.AvifImagePlugin", reason="Pillow before 11.3 has none")
        image = read_picture(saved(form))
        assert (image.format, image.size) == (form, picture(0).size)

    def test_the_jpeg_of_a_camera_that_holds_a_second_one(self):
        """PIL tells it by its content as MPO, and it is a JPEG by its first bytes."""
        image = read_picture(saved("MPO", save_all=True, append_images=[picture(1)]))
        assert (image.format, image.size) == ("MPO", picture(0).size)

    def test_of_several_frames_the_first(self):
        data = saved("GIF", Image.new("RGB", (8, 8), "red"), save_all=True, append_images=[Image.new("RGB", (8, 8))])
        assert read_picture(data).convert("RGB").getpixel((0, 0)) == (255, 0, 0)

    def test_a_pillow_that_lacks_a_format_reads_the_others(self, monkeypatch):
        monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
        assert read_picture(saved("JPEG")).format == "JPEG"
        with pytest.raises(PictureError, match="JPEG, .* or PPM"):
            read_picture(b"nothing")
        with pytest.raises(FormatError, match="AVIF.*Pillow 11.3"):
            read_picture(b"\0\0\0\x20ftypavif" + bytes(40))

    def test_pages_and_moving_pictures(self):
        first, second = picture(0), picture(1)
        for form in ("TIFF", "PNG", "WEBP"):
            options = {"lossless": True} if form == "WEBP" else {}
            data = saved(form, first, save_all=True, append_images=[second], **options)
            assert Image.open(io.BytesIO(data)).n_frames == 2
            assert np.array_equal(read_picture(data), first)

    def test_a_profile_of_colors_is_ignored(self):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert np.array_equal(read_picture(saved("PNG", icc_profile=profile)), picture(0))

    def test_floats(self, tmp_path):
        path = tmp_path / "a.tif"
        Image.new("F", (4, 4), 0.5).save(path)
        with pytest.raises(FormatError, match=r"a\.tif.*floats.*fromarray"):
            open_file(path)


class TestTurned:
    """Files are turned by EXIF; `preprocess` takes a picture as it stands."""

    def exif(self, orientation: int) -> Image.Exif:
        exif = Image.Exif()
        exif[274] = orientation
        return exif

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_as_pil_turns(self, form, orientation):
        if form == "AVIF":
            pytest.importorskip("PIL.AvifImagePlugin", reason="Pillow before 11.3 has none")
        data = saved(form, picture(0).crop((0, 0, 40, 24)), exif=self.exif(orientation))
        found, expected = read_picture(data), ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert found.size == ((24, 40) if orientation > 4 else (40, 24))
        assert np.array_equal(found, expected.convert("RGB"))
        assert np.array_equal(ImageOps.exif_transpose(found), found)  # never twice

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_as_transformers_turns_and_preprocess_does_not(self, preprocess, tmp_path, orientation):
        path, image = tmp_path / "a.png", picture(0).crop((0, 0, 40, 24))
        image.save(path, exif=self.exif(orientation))
        assert np.array_equal(open_file(path), load_image(str(path)))
        with Image.open(path) as opened:
            assert torch.equal(preprocess(opened), preprocess(image))
            assert torch.equal(preprocess(ImageOps.exif_transpose(opened)), preprocess(open_file(path)))

    def test_what_a_written_copy_says(self):
        """`vladva-train caption` writes what was read into shards, which are read again."""
        turned = read_picture(saved("PNG", exif=self.exif(6)))
        assert np.array_equal(read_picture(saved("PNG", turned)), turned)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_broken_exif(self):
        whole = self.exif(6).tobytes()
        for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", whole[:-8], whole[:20], b"xx"):
            assert np.array_equal(read_picture(saved("PNG", exif=exif)), picture(0))
        for orientation in (0, 9, 65535):
            assert read_picture(saved("JPEG", exif=self.exif(orientation).tobytes())).size == picture(0).size


class TestWhatIsNot:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (strange.EPS, "EPS"),
            (b"\xc5\xd0\xd3\xc6" + bytes(40), "EPS"),
            (b"%PDF-1.7\n", "PDF"),
            (b'\xef\xbb\xbf <svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
            (b"<!DOCTYPE html><title>404</title>", "HTML"),
            (b"\0\0\0\x18ftypheic" + bytes(40), "HEIF"),
            (saved("ICO"), "ICO"),
            (saved("JPEG2000"), "JPEG 2000"),
            (b"SIMPLE  =                    T", "FITS"),
            (b"\xd7\xcd\xc6\x9a" + bytes(40), "WMF"),
            (b"\1\0\0\0".ljust(40, b"\1") + b" EMF" + bytes(40), "EMF"),
            (b"BLP2" + bytes(40), "BLP"),
            (b"v/1\1" + bytes(40), "OpenEXR"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_known_formats_are_named(self, data, kind):
        with pytest.raises(FormatError, match=f"cat.jpg.*{kind}.*JPEG, PNG"):
            read_picture(data, "cat.jpg")

    @pytest.mark.parametrize("data", [b"", b"not a picture", saved("TGA"), saved("PCX"), saved("JPEG")[:300]])
    def test_the_rest_is_unreadable(self, data):
        with pytest.raises(PictureError, match="cat.jpg.*JPEG, PNG") as caught:
            read_picture(data, "cat.jpg")
        assert " at 0x" not in str(caught.value)  # of an object in memory

    def test_only_the_start_of_a_file_decides(self, mark):
        """A JPEG behind which an EPS stands is a JPEG; the other way round it is none."""
        assert read_picture(saved("JPEG") + strange.EPS).format == "JPEG"
        with pytest.raises(FormatError):
            read_picture(strange.EPS + saved("JPEG"))


class TestNoProgramStarts:
    def test_the_mark_is_left_where_pil_decides(self, tmp_path):
        """Or the other tests here would prove nothing."""
        with strange.ghostscript(tmp_path) as mark:
            with pytest.raises(OSError):  # it draws nothing
                Image.open(io.BytesIO(strange.EPS)).load()
            assert mark.exists()

    def test_a_file(self, mark, tmp_path):
        (tmp_path / "cat.jpg").write_bytes(strange.EPS)
        with pytest.raises(FormatError, match="cat.jpg is EPS"):
            open_file(tmp_path / "cat.jpg")

    def test_a_picture_that_the_caller_opened(self, mark, preprocess):
        """Clients of open_clip's open pictures themselves; PIL would draw it in our transform."""
        for transform in (ToRGB(32), preprocess):
            with pytest.raises(ValueError, match=r"Ghostscript.*image\.load\(\)"):
                transform(Image.open(io.BytesIO(strange.EPS)))

    def test_one_that_the_caller_had_drawn_is_taken(self, mark):
        image = Image.open(io.BytesIO(strange.EPS))
        image.im, image.tile = Image.new("RGB", image.size, "red").im, []  # as EpsImageFile.load leaves it
        assert ToRGB(32)(image).getpixel((0, 0)) == (255, 0, 0)

    def test_the_gallery(self, mark, tmp_path):
        gallery = draw_gallery(tmp_path / "gallery")
        gallery[3].path.write_bytes(strange.EPS)
        with pytest.raises(ValueError, match=f"{gallery[3].path.name} is EPS"):
            ask("vladva-tiny", gallery)
        with pytest.raises(ValueError, match=f"{gallery[3].path.name} is EPS"):
            contact_sheet(gallery, class_names(), None)


class TestMemory:
    @pytest.mark.parametrize(
        "data",
        [
            strange.png(60_000, 60_000),
            b"P6 60000 60000 255\n",
            b"GIF89a\x0a\0\x0a\0\x80\0\0" + bytes(6) + b",\0\0\0\0\x60\xea\x60\xea\0\x02\x02\x4c\x01\0;",
        ],
        ids=["png", "ppm", "frame of a gif"],
    )
    def test_what_a_header_promises_is_not_taken(self, data):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(TooLargeError, match="cat.jpg is too large.*pixels"):
            read_picture(data, "cat.jpg")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB

    def test_a_large_tile_of_a_small_picture(self):
        assert read_picture(strange.tiff(16, 16, zlib.compress(bytes(256)))).size == (16, 16)
        zeros = zlib.compressobj()  # what libtiff would blow up to 400 MB
        data = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(382)) + zeros.flush()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(TooLargeError, match="tiles of 20000 x 20000"):
            read_picture(strange.tiff(16, 20_000, data))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000

    def test_warnings_as_errors(self, monkeypatch, recwarn):
        """Between PIL's limit and twice the limit it warns."""
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", picture(0).width * picture(0).height - 1)
        assert read_picture(saved("PNG")).size == picture(0).size
        assert recwarn.pop(Image.DecompressionBombWarning)
        with warnings.catch_warnings(), pytest.raises(TooLargeError):
            warnings.simplefilter("error")
            read_picture(saved("PNG"))

    def test_files_without_end(self, tmp_path):
        """A data set's list may name a device or a pipe, and a file may have a hole of any size."""
        os.mkfifo(tmp_path / "pipe.jpg")
        for path in ("/dev/zero", tmp_path / "pipe.jpg", tmp_path, tmp_path / "none.jpg"):
            with pytest.raises(OSError):
                read_file(path)
        with open(tmp_path / "hole.jpg", "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(TooLargeError, match=r"hole\.jpg"):
            read_file(tmp_path / "hole.jpg")


class TestTheOnlyWay:
    """No file of the three packages opens pictures past `pictures/files.py`."""

    # modules that open pictures by themselves, and names of functions that do
    MODULES = ("torchvision.io", "torchvision.datasets", "cv2", "imageio", "skimage", "matplotlib.image")
    NAMES = {"imread", "Parser", "default_loader", "pil_loader", "load_image"}

    def opens(self, node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            module, names = node.module or "", {alias.name for alias in node.names}
            return module.startswith(self.MODULES) or bool(names & self.NAMES) or module == "PIL.Image"
        if isinstance(node, ast.Import):
            return any(alias.name.startswith((*self.MODULES, "PIL.Image")) for alias in node.names)
        if not isinstance(node, ast.Attribute):
            return False
        of = ast.unparse(node.value)
        return node.attr in self.NAMES or (node.attr == "open" and of.split(".")[-1] in ("Image", "PILImage", "PIL"))

    def test_in_the_three_packages(self):
        paths = [path for folder in ("vladva_clip", "training", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
        found = {
            str(path.relative_to(ROOT))
            for path in paths
            for node in ast.walk(ast.parse(path.read_text()))
            if self.opens(node)
        }
        meta = {"benchmarks/suites/clip_benchmark_data.py"}  # torchvision.datasets.imagenet.load_meta_file
        assert found - meta == {"vladva_clip/pictures/files.py"}

    @pytest.mark.parametrize(
        "code",
        ["Image.open(x)", "PIL.Image.open(x)", "from PIL.Image import open", "from torchvision.io import read_image"],
    )
    def test_what_it_would_find(self, code):
        assert any(self.opens(node) for node in ast.walk(ast.parse(code)))
