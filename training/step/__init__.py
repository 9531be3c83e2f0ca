"""One step: a batch, one forward of everything that trains, the losses of the global batch, gradients, optimizer."""
