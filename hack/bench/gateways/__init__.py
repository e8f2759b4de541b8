"""What the benchmarks of the gateway share: the contestants, an engine that streams, and a load generator for streams."""
