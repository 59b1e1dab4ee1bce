"""The parts of `stability_monitor`: what is read of networks and data in a training loop that is not this package's."""
