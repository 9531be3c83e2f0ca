"""Sources of images and captions, their order, and the loader that makes batches of them."""
