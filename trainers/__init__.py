"""Training, evaluation and reports. One module per kind of training; recipes are YAML files in `recipes/`."""
