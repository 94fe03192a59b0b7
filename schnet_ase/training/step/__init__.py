"""One step of a training: order of batches, loss, gradient, optimizer."""
