"""The strict subset of CBOR that everything between nodes is written in, and the fields its maps have."""
