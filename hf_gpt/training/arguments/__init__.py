"""The options of the training commands, one dataclass a file. `--help` reads them without importing PyTorch."""
