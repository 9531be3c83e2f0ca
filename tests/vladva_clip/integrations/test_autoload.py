"""The entry point at `import torch`: its cost, that it can't break anything, and how to turn it off and on."""

import copy
import importlib.machinery
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch

import vladva_clip
import vladva_clip_autoload as autoload
from tests.support import adapters, fresh

GROUP = "torch.backends"


@pytest.fixture
def fresh_path(monkeypatch):
    """This process's finders without ours."""
    finders = [finder for finder in sys.meta_path if type(finder).__name__ != "PatchingFinder"]
    monkeypatch.setattr(sys, "meta_path", finders)
    return finders


@pytest.fixture
def write_client(monkeypatch, tmp_path):
    """Write the module `some_client`; its patch adds to the module's `events` after it has run."""
    patching = types.ModuleType("some_patch")
    patching.patch = lambda module: module.events.append("patched")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(autoload.PATCHES, "some_client", "vladva_clip.some_patch")
    monkeypatch.setitem(sys.modules, "vladva_clip.some_patch", patching)
    return (tmp_path / "some_client.py").write_text


class TestEntryPoint:
    def test_it_is_installed(self):
        ours = [entry for entry in importlib.metadata.entry_points(group=GROUP) if entry.name == "vladva_clip"]
        assert [entry.value for entry in ours] == ["vladva_clip_autoload:autoload"], (
            "an installation from before this entry point: pip install --editable . once more"
        )
        assert ours[0].load() is autoload.autoload

    def test_under_a_millisecond_and_one_finder(self, tmp_path):
        """Loading and calling it as torch does, compiled as pip leaves it; the best of five on a busy machine."""
        code = (
            "import importlib.metadata, importlib.util, sys, time, typing; importlib.util.find_spec('no_such_module')\n"
            f"entry = next(e for e in importlib.metadata.entry_points(group={GROUP!r}) if e.name == 'vladva_clip')\n"
            "modules, finders = set(sys.modules), list(sys.meta_path); start = time.perf_counter(); entry.load()()\n"
            "print(time.perf_counter() - start); added = set(sys.modules) - modules\n"
            "assert added == {'vladva_clip_autoload'}, added; assert len(sys.meta_path) == len(finders) + 1\n"
            "assert sys.meta_path[1:] == finders\n"
        )
        cached = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
        seconds = [float(fresh.check(code, **cached).stdout) for _ in range(6)]
        assert min(seconds[1:]) < 1e-3, seconds  # the first one compiles

    def test_torch_calls_it_once_more_without_a_second_finder(self):
        finders = list(sys.meta_path)
        torch._import_device_backends()
        assert sys.meta_path == finders
        assert sum(isinstance(finder, autoload.PatchingFinder) for finder in finders) == 1


def boom(*_):
    raise RuntimeError("broken on purpose")


def raiser(error: BaseException):
    def raise_it(*_):
        raise error

    return raise_it


class TestBroken:
    """`torch._import_device_backends` is what `import torch` runs."""

    def test_torch_does_call_it(self, monkeypatch):
        """Were the entry point itself to raise, torch would not load: what follows can fail."""
        monkeypatch.setattr(autoload, "autoload", boom)
        with pytest.raises(RuntimeError, match="Failed to load the backend extension: vladva_clip"):
            torch._import_device_backends()

    def test_an_installation_that_raises(self, monkeypatch, capsys):
        monkeypatch.setattr(autoload, "install", boom)
        torch._import_device_backends()
        assert "open_clip won't know its models (RuntimeError: broken on purpose)" in capsys.readouterr().err

    def test_no_place_for_a_finder(self, monkeypatch, capsys, fresh_path):
        monkeypatch.setattr(sys, "meta_path", tuple(fresh_path))
        torch._import_device_backends()
        assert "AttributeError: 'tuple' object has no attribute 'insert'" in capsys.readouterr().err

    def test_and_a_closed_stderr(self, monkeypatch):
        monkeypatch.setattr(autoload, "install", boom)
        monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(write=boom))
        torch._import_device_backends()

    def test_import_torch(self):
        """The whole way, in a separate process."""
        code = (
            "import vladva_clip_autoload as autoload, sys\n"
            "def boom(): raise OSError('broken on purpose')\n"
            "autoload.install = boom; import torch; print(torch.ones(2).sum().item())"
        )
        done = fresh.check(code)
        assert done.stdout == "2.0\n" and "OSError: broken on purpose" in done.stderr

    @pytest.mark.parametrize("place", ["a script's", "autoload's"])
    def test_any_error_is_suppressed(self, monkeypatch, capsys, write_client, place):
        """Not only Exceptions: pytest's `skip` and `exit`, and SystemExit, are other BaseExceptions."""
        patch = types.SimpleNamespace(patch=raiser(SystemExit("broken on purpose")))
        monkeypatch.setitem(sys.modules, "vladva_clip.some_patch", patch)
        write_client("events = []\n")
        monkeypatch.setattr(autoload, "install", raiser(GeneratorExit("broken on purpose")))
        if place == "autoload's":
            torch._import_device_backends()
            assert "GeneratorExit: broken on purpose" in capsys.readouterr().err
            return
        with pytest.warns(RuntimeWarning, match="SystemExit: broken on purpose") as caught:
            importlib.import_module("some_client")
        del sys.modules["some_client"]
        assert caught[0].filename == importlib.__file__  # whose importing it was

    def test_ctrl_c_passes(self, monkeypatch, write_client):
        """Our code never raises it, so it is the user's and must end the import."""
        interrupted = types.SimpleNamespace(patch=raiser(KeyboardInterrupt()))
        monkeypatch.setitem(sys.modules, "vladva_clip.some_patch", interrupted)
        write_client("events = []\n")
        with pytest.raises(KeyboardInterrupt):
            importlib.import_module("some_client")
        monkeypatch.setattr(autoload, "install", raiser(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            torch._import_device_backends()

    @pytest.mark.parametrize("stderr", ["open", "closed", "missing"])
    def test_a_warning_that_is_an_error_is_a_line_on_stderr(self, monkeypatch, capsys, write_client, stderr):
        monkeypatch.setitem(sys.modules, "vladva_clip.some_patch", types.SimpleNamespace(patch=boom))
        write_client("events = ['ran']\n")
        if stderr != "open":
            monkeypatch.setattr(sys, "stderr", None if stderr == "missing" else types.SimpleNamespace(write=boom))
        with warnings.catch_warnings(action="error"):
            module = importlib.import_module("some_client")
        del sys.modules["some_client"]
        captured = capsys.readouterr()
        assert module.events == ["ran"] and captured.out == ""
        assert ("RuntimeError: broken on purpose" in captured.err) == (stderr == "open")

    @pytest.mark.parametrize("broken", ["raises", "is missing"])
    def test_a_patch_that_fails_is_a_warning(self, monkeypatch, tmp_path, broken):
        (tmp_path / "some_client.py").write_text("state = ['its own']\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(autoload.PATCHES, "some_client", "vladva_clip.some_patch")
        patching = types.ModuleType("vladva_clip.some_patch")
        patching.patch = boom
        monkeypatch.setitem(sys.modules, "vladva_clip.some_patch", patching if broken == "raises" else None)
        reason = "RuntimeError: broken on purpose" if broken == "raises" else "ModuleNotFoundError: .*some_patch"
        with pytest.warns(RuntimeWarning, match=f"some_client won't know vladva_clip's models .{reason}"):
            module = importlib.import_module("some_client")
        del sys.modules["some_client"]
        assert module.state == ["its own"]

    @pytest.mark.slow
    def test_a_patch_that_fails_leaves_open_clip_as_it_is(self):
        """With a warning that says why, here for an environment variable that can't be read."""
        code = (
            "import sys, warnings\n"
            "with warnings.catch_warnings(record=True) as caught:\n"
            "    warnings.simplefilter('always'); import open_clip\n"
            "said = [str(w.message) for w in caught if 'vladva_clip' in str(w.message)]; assert len(said) == 1, said\n"
            "print(said[0]); assert not [n for n in open_clip.list_models() if 'vladva' in n]\n"
            "assert not [pair for pair in open_clip.list_pretrained() if 'vladva' in pair[0]]\n"
            "assert type(open_clip.get_tokenizer('ViT-B-32')).__name__ == 'SimpleTokenizer'\n"
            "assert not hasattr(open_clip.create_model, '__wrapped__')\n"
        )
        done = fresh.check(code, VLADVA_CLIP_MODELS="nonsense")
        assert done.stdout.startswith(
            "open_clip.factory won't know vladva_clip's models (ValueError: VLADVA_CLIP_MODELS"
        )

    @pytest.mark.wide
    def test_an_open_clip_without_a_table_of_its_own_names_is_left_as_it_is(self):
        """As a later release may be: not one of our names stays in the tables that are there."""
        code = """
import open_clip
before = open_clip.list_models(), open_clip.create_model
del open_clip.pretrained._PRETRAINED
import vladva_clip_autoload as autoload
try:
    autoload.install()
except AttributeError as error:
    assert "_PRETRAINED" in str(error), error
else:
    raise AssertionError("it was patched without a table")
assert (open_clip.list_models(), open_clip.create_model) == before
"""
        fresh.check(code, VLADVA_CLIP_AUTOLOAD="0")


STRANGERS = {  # path -> content; each would print, were it run
    "a script that ends the program": {"vladva_clip.py": "print('ran'); raise SystemExit(3)"},
    "a script that can't be read": {"vladva_clip.py": "print('ran'"},
    "a package": {"vladva_clip/__init__.py": "print('ran'); raise KeyboardInterrupt"},
    "a package with files named as ours": {
        "vladva_clip/__init__.py": "print('ran'); raise BaseException",
        "vladva_clip/integrations/__init__.py": "print('ran')",
        "vladva_clip/integrations/open_clip.py": "print('ran')",
    },
    "a folder": {"vladva_clip/integrations/open_clip.py": "print('ran')"},
}


# each starts a Python with torch and open_clip; the two whose kinds differ most are tried every time
QUICK = ("a script that ends the program", "a package")
BY_SPEED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STRANGERS]


def write_all(directory, files: dict[str, str]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content + "\n")


@pytest.mark.wide
class TestAStranger:
    """Another `vladva_clip` before ours in sys.path: we must not run it."""

    @pytest.mark.parametrize("stranger", BY_SPEED)
    def test_it_is_not_run(self, tmp_path, stranger):
        """The program continues without us after a warning, also where warnings are errors."""
        write_all(tmp_path, STRANGERS[stranger])
        code = (
            "import torch, open_clip, clip_benchmark.models, sys; assert 'vladva_clip' not in sys.modules\n"
            "assert type(open_clip.get_tokenizer('ViT-B-32')).__name__ == 'SimpleTokenizer'\n"
            "assert not [name for name in open_clip.list_models() if 'vladva' in name]\n"
            "print(*clip_benchmark.models.MODEL_TYPES)"
        )
        strict = {"PYTHONWARNINGS": "error"} if "package" in stranger else {}
        done = fresh.check(code, tmp_path, **strict)
        assert done.stdout == "open_clip ja_clip\n"
        (line,) = [line for line in done.stderr.splitlines() if "open_clip.factory won't know" in line]
        assert str(tmp_path / "vladva_clip") in line and "ImportError" in line
        assert line.startswith("open_clip.factory") == bool(strict)  # else Python's own line of a warning

    def test_the_script_itself_runs_to_its_end(self, tmp_path):
        write_all(tmp_path, {"vladva_clip.py": "import open_clip\nprint('ran', __name__)"})
        done = subprocess.run([sys.executable, "vladva_clip.py"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "ran __main__\n"), done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("spec", ["its own", "none"])
    def test_one_that_was_imported_before(self, tmp_path, spec):
        """It has our name and can reach our files, which must not be loaded as part of it."""
        write_all(tmp_path, {"vladva_clip/__init__.py": f"__path__.append({vladva_clip.__path__[0]!r})"})
        forget = "vladva_clip.__spec__ = None; " if spec == "none" else ""
        code = (
            f"import sys, vladva_clip; {forget}import open_clip; print([m for m in sys.modules if 'vladva_clip.' in m])"
        )
        done = fresh.check(code, tmp_path)
        assert done.stdout == "[]\n" and "ImportError" in done.stderr

    def test_a_missing_module_is_reported_as_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "vladva_clip", None)
        for name in ("vladva_clip.integrations", "vladva_clip.integrations.open_clip"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(ModuleNotFoundError, match="vladva_clip"):
            autoload._patch(types.ModuleType("open_clip.factory"))

    @pytest.mark.slow
    def test_another_installation_of_ours_is_accepted(self, tmp_path):
        """A checkout's package in the working directory; a wheel's, unpacked beside a program."""
        package = Path(vladva_clip.__file__).parent
        for place in ("checkout/vladva_clip", "wheel/vladva_clip"):
            shutil.copytree(package, tmp_path / place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.move(tmp_path / "wheel/vladva_clip/integrations/autoload", tmp_path / "wheel/vladva_clip_autoload")
        code = "import open_clip, vladva_clip; print(vladva_clip.__file__, 'vladva-tiny' in open_clip.list_models())"
        for place in ("checkout", "wheel"):
            done = fresh.check(code, tmp_path / place)
            assert done.stdout == f"{tmp_path / place / 'vladva_clip/__init__.py'} True\n", done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("warned", ["default", "error"])
    def test_modules_named_as_those_that_we_patch(self, tmp_path, warned):
        """A program's own `open_clip` and `clip_benchmark`, without the functions that we patch."""
        write_all(tmp_path / "scripts", {"open_clip.py": "here = 1", "clip_benchmark.py": "here = 1"})
        names = (
            "open_clip/factory.py",
            "clip_benchmark/models.py",
            "open_clip/__init__.py",
            "clip_benchmark/__init__.py",
        )
        write_all(tmp_path / "packages", dict.fromkeys(names, "here = 1"))
        check = "assert open_clip.here == clip_benchmark.here == 1"
        fresh.check(f"import torch, open_clip, clip_benchmark; {check}", tmp_path / "scripts", PYTHONWARNINGS=warned)
        code = f"import torch, open_clip.factory, clip_benchmark.models; {check}; assert open_clip.factory.here == 1"
        done = fresh.check(code, tmp_path / "packages", PYTHONWARNINGS=warned)
        assert "open_clip.factory won't know" in done.stderr and "clip_benchmark.models won't know" in done.stderr


class TestFinder:
    def test_other_modules_are_left_alone(self):
        assert autoload.PatchingFinder().find_spec("open_clip.model") is None
        assert autoload.PatchingFinder().find_spec("no_such_package.factory") is None

    def test_missing_modules_stay_missing(self, monkeypatch):
        monkeypatch.setitem(autoload.PATCHES, "no_such_module", "vladva_clip.integrations.open_clip")
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            importlib.import_module("no_such_module")

    def test_a_module_is_patched_after_it_ran_and_keeps_its_own_loader(self, write_client):
        write_client("events = ['ran']\n")
        spec = importlib.util.find_spec("some_client")
        assert spec.loader.get_source("some_client") == "events = ['ran']\n"  # as inspect and coverage ask
        module = importlib.import_module("some_client")
        del sys.modules["some_client"]
        assert module.events == ["ran", "patched"]
        assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"

    def test_a_failing_module_fails_as_usual(self, monkeypatch, tmp_path):
        (tmp_path / "failing_client.py").write_text("raise KeyError('its own')\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(autoload.PATCHES, "failing_client", "vladva_clip.some_patch_never_reached")
        with pytest.raises(KeyError, match="its own"):
            importlib.import_module("failing_client")

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("second", ["of ours", "a stranger's"])
    def test_beside_another_finder_that_asks_the_others(self, write_client, fresh_path, first, second):
        """Such as ours once more, of a copy of this module (reloaded in a notebook): they must not ask in a circle."""
        write_client("events = ['ran']\n")
        other = autoload.PatchingFinder() if second == "of ours" else AsksAllOthers()
        fresh_path[:0] = [autoload.PatchingFinder(), other] if first else [other, autoload.PatchingFinder()]
        module = importlib.import_module("some_client")
        del sys.modules["some_client"]
        assert module.events[:2] == ["ran", "patched"]
        assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"

    @pytest.mark.parametrize("fails", [False, True])
    def test_installed_while_a_module_runs(self, monkeypatch, write_client, fresh_path, fails):
        """It is patched at its end, if it gets there: clip_benchmark.models, when it is the first to import torch."""
        body = "import vladva_clip_autoload as autoload\nautoload.install()\nevents = ['ran']\n"
        write_client(body + ("1 / 0\n" if fails else ""))
        if fails:
            monkeypatch.setitem(sys.modules, "vladva_clip.some_patch", None)
        with warnings.catch_warnings(action="error"):
            if fails:
                with pytest.raises(ZeroDivisionError):
                    importlib.import_module("some_client")
            else:
                module = importlib.import_module("some_client")
                del sys.modules["some_client"]
                assert module.events == ["ran", "patched"] and type(module.__spec__) is importlib.machinery.ModuleSpec

    def test_finders_before_it_are_not_asked_again(self, monkeypatch, fresh_path):
        """They were asked already, and some have side effects when asked."""
        asked = []
        before = types.SimpleNamespace(find_spec=lambda name, path, target: asked.append(name))
        fresh_path[:0] = [before, autoload.PatchingFinder()]
        monkeypatch.setitem(autoload.PATCHES, "no_such_module", "vladva_clip.some_patch")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_module")
        assert asked == ["no_such_module"]

    def test_a_bare_folder_of_the_name_is_left_alone(self, monkeypatch, tmp_path):
        """A namespace package has nothing that runs, and on Python 3.11 no loader in its spec."""
        (tmp_path / "some_folder").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(autoload.PATCHES, "some_folder", "vladva_clip.some_patch_never_reached")
        spec = autoload.PatchingFinder().find_spec("some_folder")
        assert not isinstance(spec.loader, autoload.PatchingLoader)

    def test_a_spec_can_be_copied(self, monkeypatch, tmp_path):
        (tmp_path / "some_client.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(autoload.PATCHES, "some_client", "vladva_clip.some_patch")
        spec = copy.deepcopy(importlib.util.find_spec("some_client"))
        assert spec.loader.get_source("some_client") == ""


class AsksAllOthers:
    """A finder as some tools put in, which has no guard of its own against being asked back."""

    def find_spec(self, name, path=None, target=None):
        finders = [finder for finder in sys.meta_path if finder is not self] if name in autoload.PATCHES else []
        return next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)


class TestSwitch:
    @pytest.mark.wide
    def test_off_and_then_on_manually(self, bases, tmp_path):
        """Off, open_clip knows nothing of us. On later, names that modules copied by value are ours as well."""
        adapters.write_adapter(bases["llava"], tmp_path / "adapter")
        name = f"local-dir:{tmp_path / 'adapter'}"
        code = f"""
import sys, open_clip, open_clip_train.zero_shot
from open_clip import get_tokenizer as copied, create_model
from open_clip.factory import create_model_and_transforms
assert not [module for module in sys.modules if module.startswith("vladva_clip.integrations.open_clip")]
assert not [finder for finder in sys.meta_path if type(finder).__name__ == "PatchingFinder"]
assert not [name for name in open_clip.list_models() if "vladva" in name]
try:
    create_model({name!r})
except TypeError as error:  # never a CLIP with random weights under our name
    assert "vladva_clip" in str(error), error
else:
    raise AssertionError("open_clip loaded what it does not know")
import vladva_clip_autoload as autoload
autoload.install()
autoload.install()
push = sys.modules["open_clip.push_to_hf_hub"]
for function in (copied, push.get_tokenizer, open_clip_train.zero_shot.get_tokenizer, open_clip.get_tokenizer):
    assert function is open_clip.factory.get_tokenizer, function
    assert type(function("vladva-tiny")).__name__ == "VladvaTokenizer"
assert not hasattr(copied.__wrapped__, "__wrapped__")
assert create_model is open_clip.create_model is open_clip.factory.create_model
assert create_model_and_transforms is open_clip.create_model_and_transforms
assert push.get_model_config is open_clip.get_model_config is open_clip.factory.get_model_config
assert type(create_model({name!r}, precision="fp32")).__name__ == "VladvaCLIP"
assert "vladva-tiny" in open_clip.list_models()
"""
        fresh.check(code, VLADVA_CLIP_AUTOLOAD="0")
