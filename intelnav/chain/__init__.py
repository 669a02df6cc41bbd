"""One generation: choosing the hops, driving the ring (entry), serving a part of it (hop)."""
