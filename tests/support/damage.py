"""What can happen to a file of a cache: each function changes the file at a path."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"no tensors")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def bit_of_the_end(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def bit_of_the_beginning(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)  # sparse: it takes no room


def huge_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes((1 << 40).to_bytes(8, "little") + data[8:])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _rewrite(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """A file that safetensors reads without complaint."""

    def write(path: Path) -> None:
        tensors = load_file(path)
        save_file({name: change(tensor).contiguous() for name, tensor in tensors.items()}, path)

    return write


rows_exchanged = _rewrite(lambda tensor: tensor.flip(0))

ANY = {
    function.__name__: function
    for function in (
        *(empty, garbage, cut, longer, bit_of_the_end, bit_of_the_beginning, zeros, huge),
        *(pipe, link_in_a_circle, link_to_nothing, device),
    )
}
TENSORS = ANY | {
    "huge_header": huge_header,
    "rows_exchanged": rows_exchanged,
    "columns_exchanged": _rewrite(lambda tensor: tensor.flip(-1)),
    "all_zero": _rewrite(torch.zeros_like),
    "not_a_number": _rewrite(lambda tensor: tensor * float("nan")),
    "narrower": _rewrite(lambda tensor: tensor[..., :-1]),
    "transposed": _rewrite(lambda tensor: tensor.T),
    "half": _rewrite(lambda tensor: tensor.half()),
    "whole_numbers": _rewrite(lambda tensor: tensor.long()),
    "without_its_checksum": _rewrite(lambda tensor: tensor),
}
