"""One paper, one file. Nothing in qjax imports this package: configs, tests and notebooks do."""
