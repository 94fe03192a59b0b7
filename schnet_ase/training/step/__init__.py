"""One step of a training: batches in order, loss, gradient, optimizer."""
