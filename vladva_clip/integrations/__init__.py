"""Makes our models known to other packages: the hook at `import torch`, and its patch for each package."""
