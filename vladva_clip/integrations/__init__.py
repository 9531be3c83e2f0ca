"""How other packages come to know our models: the hook at `import torch`, and what it changes in each package."""
