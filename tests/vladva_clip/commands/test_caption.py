"""`vladva caption` beside `generate`."""

import json

import torch
from PIL import Image

from vladva_clip import cli


def test_captions_are_those_of_generate(scenes, loaded, capsys):
    words = ["caption", str(scenes), "--model", "vladva-tiny", "--max-new-tokens", "12", "--batch-size", "3"]
    assert cli.main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    paths = sorted(scenes.iterdir())
    model, preprocess, _ = loaded
    written = model.generate(torch.stack([preprocess(Image.open(path)) for path in paths]), max_new_tokens=12)
    assert rows == [{"file": str(path), "caption": text} for path, text in zip(paths, written, strict=True)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: {text}" for path, text in zip(paths, written, strict=True)
    ]


def test_a_prompt_asks_something_else(scenes, loaded, capsys):
    picture, prompt = sorted(scenes.iterdir())[0], "Describe the image in detail."
    assert cli.main(["caption", str(picture), "--prompt", prompt, "--json"]) == 0
    model, preprocess, _ = loaded
    assert (
        json.loads(capsys.readouterr().out)["caption"]
        == model.generate(preprocess(Image.open(picture))[None], prompt)[0]
    )


def test_a_broken_picture_among_eight(scenes, capsys):
    broken = sorted(scenes.iterdir())[0]
    broken.write_text("not a picture")
    assert cli.main(["caption", str(scenes), "--model", "vladva-tiny", "--max-new-tokens", "1"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7 and str(broken) in err
