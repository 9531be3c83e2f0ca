"""transformers' output-capturing hooks, which it installs at a model's first call and which can't be pickled."""

from torch import nn


def drop_hooks(lvlm: nn.Module) -> None:
    """Remove the hooks from all modules, in place; a later call installs them again."""
    for module in lvlm.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", None) == "transformers.utils.output_capturing":
                del module._forward_hooks[key]
        module.__dict__.pop("_output_capturing_hooks_installed", None)
