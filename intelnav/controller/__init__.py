"""Making the machine match the config: each slice that it names is cut, loaded and kept running."""
