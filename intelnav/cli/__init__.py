"""The thin client. It speaks HTTP to a node and never loads an engine or opens a peer connection."""
