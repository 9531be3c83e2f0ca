"""`device=` and `--device`: what each word means on which machine, and that it is looked at before anything else."""

import subprocess
import sys

import pytest
import torch

import vladva_benchmarks.cli
import vladva_clip
import vladva_training.cli
from tests.support import fresh
from vladva_clip import cli
from vladva_clip.integrations import clip_benchmark
from vladva_clip.interface import devices
from vladva_clip.quickstart import tour

TWO_GPUS = {"cuda": 2, "cpu": 1}
MAC = {"mps": 1, "cpu": 1}
INTEL = {"xpu": 1, "cpu": 1}
CPU = {"cpu": 1}
WRONG = ("gpu", "mps", "cuda", "cuda:7", "xpu", "meta", "", "CPU", 0, True, torch.device("cuda"), torch.device("meta"))


class TestWords:
    @pytest.mark.parametrize(
        ("device", "here", "expected"),
        [
            ("auto", TWO_GPUS, "cuda"),
            ("auto", {"cuda": 1, "mps": 1, "cpu": 1}, "cuda"),
            ("auto", MAC, "mps"),
            ("auto", INTEL, "cpu"),
            ("auto", CPU, "cpu"),
            ("cuda:1", TWO_GPUS, "cuda:1"),
            (torch.device("cuda", 1), TWO_GPUS, "cuda:1"),
            (1, TWO_GPUS, "cuda:1"),
            (0, MAC, "mps:0"),
            ("mps", MAC, "mps"),
            ("xpu", INTEL, "xpu"),
        ],
    )
    def test_what_they_mean(self, device, here, expected):
        assert devices.choose(device, here) == expected

    @pytest.mark.parametrize(
        ("device", "here", "named"),
        [
            ("cuda:2", TWO_GPUS, "cpu, cuda:0, cuda:1"),
            ("cuda:256", TWO_GPUS, "cpu, cuda:0, cuda:1"),  # which torch takes for cuda:0
            (2, TWO_GPUS, "cpu, cuda:0, cuda:1"),
            (-1, TWO_GPUS, "cuda:1"),
            ("cuda:-1", TWO_GPUS, "cuda:1"),
            ("cuda:", TWO_GPUS, "cuda:1"),
            ("cuda:\u0661", TWO_GPUS, "cuda:1"),
            ("mps", TWO_GPUS, "cuda:0"),
            ("cuda", MAC, "cpu, mps"),
            ("mps:1", MAC, "cpu, mps"),
            ("vulkan", INTEL, "cpu, xpu"),
            ("cpu:1", CPU, "cpu"),
            (0, CPU, "cpu"),
            (object(), CPU, "cpu"),
        ],
    )
    def test_what_is_not_here(self, device, here, named):
        with pytest.raises(ValueError, match="is not available") as caught:
            devices.choose(device, here)
        assert named in str(caught.value) and "auto" in str(caught.value)


class TestMachine:
    @pytest.fixture
    def machine(self, monkeypatch):
        """Has torch report other devices than this machine's."""

        def report(cuda: int = 0, mps: bool = False) -> None:
            monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
            monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
            monkeypatch.setattr(torch.accelerator, "is_available", lambda: cuda > 0 or mps)
            kind = torch.device("cuda" if cuda else "mps")
            monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: kind)
            monkeypatch.setattr(torch.accelerator, "device_count", lambda: cuda or 1)

        return report

    def test_cuda(self, machine):
        machine(cuda=2)
        assert devices.available() == TWO_GPUS
        assert devices.resolve("auto") == torch.device("cuda")
        assert devices.resolve(torch.device("cuda:1")) == torch.device("cuda:1")
        with pytest.raises(ValueError, match="'cuda:2'.*cpu, cuda:0, cuda:1"):
            devices.resolve("cuda:2")

    def test_mps(self, machine):
        machine(mps=True)
        assert devices.available() == MAC
        assert devices.resolve("auto") == devices.resolve("mps") == torch.device("mps")

    def test_another_accelerator(self, machine, monkeypatch):
        """It is there for who names it."""
        machine(mps=True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
        assert devices.available() == INTEL
        assert devices.resolve("xpu") == torch.device("xpu")

    def test_no_gpu(self, machine):
        machine()
        assert devices.resolve("auto") == torch.device("cpu")
        for device in WRONG:
            with pytest.raises(ValueError, match="is not available.*cpu"):
                devices.resolve(device)

    @pytest.mark.parametrize("device", ["cpu", "cpu:0", None, torch.device("cpu")])
    def test_the_cpu_is_taken_without_a_look_at_the_gpus(self, monkeypatch, device):
        """That look may start a driver, which processes forked later then can't use."""
        monkeypatch.setattr(devices, "available", None)
        assert devices.resolve(device) == torch.device("cpu")

    def test_this_machine(self):
        """Whatever is found here holds a tensor."""
        for kind, count in devices.available().items():
            assert torch.zeros(1, device=devices.resolve(kind)).device.type == kind
            with pytest.raises(ValueError, match="is not available"):
                devices.resolve(f"{kind}:{count}")
        assert torch.zeros(1, device=devices.resolve("auto")).sum() == 0


NOTHING_READ = """
import sys, vladva_clip.factory, vladva_clip.integrations.clip_benchmark as hook, open_clip
from vladva_clip import VladvaCLIP
from vladva_clip.interface import devices
there = devices._named(devices.available())
calls = {
    "create_model": lambda **given: vladva_clip.create_model("vladva-7b", **given),
    "transforms": lambda **given: vladva_clip.create_model_and_transforms("vladva-7b", **given),
    "from_pretrained": lambda **given: vladva_clip.create_model_from_pretrained("vladva-7b", **given),
    "class": lambda **given: VladvaCLIP.from_pretrained("vladva-7b", **given),
    "a Hub id": lambda **given: VladvaCLIP.from_pretrained("org/name", **given),
    "open_clip": lambda **given: open_clip.create_model("vladva-7b", **given),
    "open_clip's transforms": lambda **given: open_clip.create_model_and_transforms("vladva-7b", **given),
    "clip_benchmark": lambda **given: hook.load("vladva-7b", **given),
}
def error_of(call, device):
    try:
        call(device=device)
    except Exception as error:
        return error
error_of(calls["create_model"], "abacus")  # what a first call loads of Python's own
seen = []
watched = ("open", "socket.connect", "os.listdir")
sys.addaudithook(lambda event, args: seen.append((event, args)) if event in watched else None)
for name, call in calls.items():
    for device in ("abacus", "cuda:99"):
        error = error_of(call, device)
        assert type(error) is ValueError and device in str(error) and there in str(error), (name, error)
        assert not seen, (name, seen)
error_of(calls["create_model"], "cpu")
assert seen, "the hook sees nothing"
"""


class TestFirstOfAll:
    def test_nothing_is_read_or_downloaded(self, tmp_path):
        """Asked for a 7B that isn't there: the same call with a device that is here looks for it."""
        fresh.check(NOTHING_READ, tmp_path, HF_HUB_CACHE=str(tmp_path))

    def test_quickstart_draws_nothing(self, tmp_path):
        with pytest.raises(ValueError, match="'cuda:99' is not available"):
            tour.run(tmp_path / "out", device="cuda:99")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("ours", [True, False])
    def test_a_classifier(self, ours):
        model = vladva_clip.create_model("vladva-tiny")[0] if ours else None
        for build in (vladva_clip.build_zero_shot_classifier, vladva_clip.build_zero_shot_classifier_legacy):
            with pytest.raises(ValueError, match="'abacus' is not available"):
                build(model, None, ["a"], ["{}"], device="abacus")


def test_auto_is_taken_wherever_a_device_is():
    expected = devices.resolve("auto")
    model, _ = vladva_clip.create_model("vladva-tiny", device="auto")
    loaded, _, _ = clip_benchmark.load("vladva-tiny", device="auto")
    held = vladva_clip.VladvaCLIP.from_pretrained("vladva-tiny", device="auto")
    assert {one.logit_scale.device.type for one in (model, loaded, held)} == {expected.type}


class TestCommandLines:
    @pytest.mark.parametrize(
        ("main", "words"),
        [
            (cli.main, "quickstart --output-dir OUT"),
            (vladva_training.cli.main, "debug output_dir=OUT"),
            (vladva_training.cli.main, "debug output_dir=OUT --dry-run"),
            (vladva_training.cli.main, "caption scenes:train --output OUT"),
            (vladva_benchmarks.cli.main, "run scenes --model vladva-7b --data-root OUT --output OUT"),
            (vladva_benchmarks.cli.main, "scene_figures --model vladva-7b"),
            (vladva_benchmarks.cli.main, "training_step --shape tiny"),
            (vladva_benchmarks.cli.main, "vectors --model vladva-7b"),
            (vladva_benchmarks.cli.main, "throughput --model vladva-7b"),
            (vladva_benchmarks.cli.main, "zero_shot --model vladva-7b"),
        ],
    )
    def test_a_device_that_is_not_here_is_status_2(self, main, words, tmp_path, capsys):
        out = tmp_path / "out"
        assert main([*words.replace("OUT", str(out)).split(), "--device", "cuda:99"]) == 2
        captured = capsys.readouterr()
        assert "'cuda:99' is not available" in captured.err and not captured.out
        assert not out.exists()

    def test_torchruns_processes_take_no_number(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(devices, "available", lambda: TWO_GPUS)
        assert vladva_training.cli.main(["debug", f"output_dir={tmp_path / 'out'}", "--device", "cuda:1"]) == 2
        assert "torchrun" in capsys.readouterr().err and not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "device", [pytest.param("auto", marks=pytest.mark.wide), pytest.param("cpu", marks=pytest.mark.slow)]
    )
    def test_quickstart(self, tmp_path, device):
        words = [sys.executable, "-m", "vladva_clip.cli", "quickstart", "--output-dir", str(tmp_path / "out")]
        done = subprocess.run([*words, "--device", device], capture_output=True, text=True)
        assert done.returncode == 0 and "top-1" in done.stdout, done.stderr
